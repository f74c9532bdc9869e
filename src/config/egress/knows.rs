//! What a listener knows of those who come, for its templates: one that asks for something else never has a value, so that
//! everybody would be refused.

use crate::config::reader::{At, Section};
use crate::template::Template;

/// What asks for the fields of a request, and for what its route was given.
const OF_REQUESTS: [&str; 3] = ["%REQ(", "%DYNAMIC_METADATA(", "%FILTER_STATE("];
/// What asks for the certificate of a client.
const OF_PEERS: &str = "%DOWNSTREAM_PEER_";
/// What asks for the name in the TLS of a connection.
pub(super) const SERVER_NAME: &str = "%REQUESTED_SERVER_NAME";

/// What a listener knows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Knows {
    /// Connections, and the name that they ask for in TLS.
    Connections,
    /// Requests.
    Requests {
        /// And the name that their connection asked for: there is `tls`.
        names: bool,
        /// And the certificate of who sends them: there is `tls.client_ca`.
        peers: bool,
    },
}

impl Knows {
    /// Of a listener for requests.
    pub(super) fn of_requests(section: &mut Section<'_>) -> Self {
        let tls = section.find("tls");
        Self::Requests { names: tls.is_some(), peers: tls.is_some_and(|tls| tls.has("client_ca")) }
    }

    /// The template, if it can have a value.
    pub(super) fn checked(self, at: &At<'_>, template: Option<Template>) -> Option<Template> {
        let text = template.as_ref()?.to_string();
        match self {
            Self::Connections => {
                if let Some(operator) = OF_REQUESTS.iter().chain([&OF_PEERS]).find(|operator| text.contains(**operator))
                {
                    at.wrong(format!(
                        "asks with {operator} for what a request has and a connection of bytes has not; expected fixed text, \
                         %REQUESTED_SERVER_NAME% or %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
                    ));
                    return None;
                }
            }
            Self::Requests { names, peers } => {
                if !names && text.contains(SERVER_NAME) {
                    at.wrong("asks for the name in the TLS of a connection, and this listener has none; expected tls beside it");
                    return None;
                }
                if !peers && text.contains(OF_PEERS) {
                    at.wrong(
                        "asks for the certificate of a client, and this listener wants none; expected tls.client_ca",
                    );
                    return None;
                }
            }
        }
        template
    }
}
