//! What a formatter can ask of a request.

use std::net::SocketAddr;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, request};

use crate::proxy::ConnectionInfo;
use crate::template::{Attributes, Unclear};

/// A request as it came in, and the connection it came over.
pub(super) struct RequestAttributes<'a> {
    pub(super) head: &'a request::Parts,
    pub(super) connection: &'a ConnectionInfo,
}

impl Attributes for RequestAttributes<'_> {
    fn request_header(&self, name: &str) -> Result<Option<&str>, Unclear> {
        let uri = &self.head.uri;
        Ok(match name {
            ":method" => Some(self.head.method.as_str()),
            ":scheme" => uri.scheme_str(),
            // The codecs have moved Host there, whatever the version.
            ":authority" | "host" => uri.authority().map(Authority::as_str),
            ":path" => uri.path_and_query().map(PathAndQuery::as_str),
            name => return single(&self.head.headers, name),
        })
    }

    fn remote_address(&self) -> Option<SocketAddr> {
        Some(self.connection.remote)
    }

    fn server_name(&self) -> Option<&str> {
        self.connection.server_name.as_deref()
    }

    fn peer_uri_san(&self) -> Option<&str> {
        self.connection.peer.as_ref()?.uri_sans.first().map(String::as_str)
    }

    fn peer_dns_san(&self) -> Option<&str> {
        self.connection.peer.as_ref()?.dns_sans.first().map(String::as_str)
    }
}

/// The value of a field that is there once. Two readers need not take the same one of two.
fn single<'a>(fields: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Unclear> {
    let mut values = fields.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Unclear::NotText),
        (Some(_), Some(_)) => Err(Unclear::Repeated),
    }
}
