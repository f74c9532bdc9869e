//! What a formatter can ask of a request.

use std::net::SocketAddr;

use http::request;
use http::uri::{Authority, PathAndQuery};

use crate::egress::ConnectionInfo;
use crate::template::Attributes;

/// A request as it came in, and the connection it came over.
pub(super) struct RequestAttributes<'a> {
    pub(super) head: &'a request::Parts,
    pub(super) connection: &'a ConnectionInfo,
}

impl Attributes for RequestAttributes<'_> {
    fn request_header(&self, name: &str) -> Option<&str> {
        let uri = &self.head.uri;
        match name {
            ":method" => Some(self.head.method.as_str()),
            ":scheme" => uri.scheme_str(),
            // The codecs have moved Host there, whatever the version.
            ":authority" | "host" => uri.authority().map(Authority::as_str),
            ":path" => uri.path_and_query().map(PathAndQuery::as_str),
            name => self.head.headers.get(name)?.to_str().ok(),
        }
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
