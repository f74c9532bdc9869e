//! Formatters such as `%REQ(x-node-id?x-cluster-id)%`: how a request becomes a host id or a tenant.
//!
//! Row 2: knows neither HTTP types nor who asks; what a request has arrives through [`Attributes`]. The syntax is
//! Envoy's, so that a configuration can move. One thing is stricter: an operator without a value leaves the whole
//! template without one, where Envoy would print `-` in its place. Half an identity is no identity.

use std::fmt;

mod eval;
mod parse;

pub use eval::{Attributes, MAX_RENDERED_BYTES, NoValue, Unclear};
pub use parse::{TemplateError, TemplateProblem};

/// A checked formatter. Printing it gives a text that parses to the same template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Never empty, and never beside another text.
    Text(String),
    Request(RequestHeader),
    Attribute(Attribute),
    /// `%REQUESTED_SERVER_NAME(n)%`: one label of the server name, counted from 1 at its beginning.
    ServerNameLabel(u8),
}

/// The labels of a server name that can be asked for.
const LABELS: std::ops::RangeInclusive<u8> = 1..=16;

/// `%REQ(name?otherwise):max_bytes%`; names are lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RequestHeader {
    name: String,
    otherwise: Option<String>,
    max_bytes: Option<u32>,
}

/// The operators that take no argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    RemoteAddress,
    RemoteAddressWithoutPort,
    RequestedServerName,
    PeerUriSan,
    PeerDnsSan,
}

impl Attribute {
    const ALL: [Self; 5] = [
        Self::RemoteAddress,
        Self::RemoteAddressWithoutPort,
        Self::RequestedServerName,
        Self::PeerUriSan,
        Self::PeerDnsSan,
    ];

    const fn operator(self) -> &'static str {
        match self {
            Self::RemoteAddress => "DOWNSTREAM_REMOTE_ADDRESS",
            Self::RemoteAddressWithoutPort => "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
            Self::RequestedServerName => "REQUESTED_SERVER_NAME",
            Self::PeerUriSan => "DOWNSTREAM_PEER_URI_SAN",
            Self::PeerDnsSan => "DOWNSTREAM_PEER_DNS_SAN",
        }
    }
}

impl Template {
    /// The names of the headers that it asks for, in lower case; those with a colon are no headers, see [`Attributes`].
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.parts
            .iter()
            .flat_map(|part| match part {
                Part::Request(header) => [Some(header.name.as_str()), header.otherwise.as_deref()],
                Part::Text(_) | Part::Attribute(_) | Part::ServerNameLabel(_) => [None, None],
            })
            .flatten()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| part.fmt(f))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&text.replace('%', "%%")),
            Self::Request(header) => header.fmt(f),
            Self::Attribute(attribute) => write!(f, "%{}%", attribute.operator()),
            Self::ServerNameLabel(label) => write!(f, "%{}({label})%", Attribute::RequestedServerName.operator()),
        }
    }
}

impl fmt::Display for RequestHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%REQ({}", self.name)?;
        if let Some(otherwise) = &self.otherwise {
            write!(f, "?{otherwise}")?;
        }
        match self.max_bytes {
            Some(max_bytes) => write!(f, "):{max_bytes}%"),
            None => f.write_str(")%"),
        }
    }
}
