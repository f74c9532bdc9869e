//! What is judged: a request, or a connection that carries none that can be read.

use std::net::IpAddr;

use http::{HeaderMap, Method};

use crate::id::{PeerIdentity, ServiceName, TenantId};
use crate::message::failure::Failure;

/// Something that a rule may ask for: there, not there, or not to be read and why.
pub type Fact<'a, T> = Result<Option<&'a T>, &'a Failure>;

/// A request or a connection, as far as it is known. A connection without requests has no method, path and fields.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Who connected: an address, none, or not to be known and why.
    pub source: Result<Option<IpAddr>, &'a Failure>,
    /// What TLS proved of who connected.
    pub peer: Option<&'a PeerIdentity>,
    /// Whose node is asked for.
    pub tenant: Fact<'a, TenantId>,
    /// Which host is asked for, perhaps with a port: the authority of a request, or the server name of TLS.
    pub host: Option<&'a str>,
    /// The path as it came, without query. A CONNECT for bytes has none.
    pub path: Option<&'a str>,
    /// The method; of a request to go on in another protocol GET, whatever it is written as.
    pub method: Option<&'a Method>,
    /// Which service is asked for, where that is said.
    pub service: Fact<'a, ServiceName>,
    /// The fields of the request's head.
    pub fields: Option<&'a HeaderMap>,
}

impl Subject<'_> {
    /// Nothing is known of it.
    pub const UNKNOWN: Self = Self {
        source: Ok(None),
        peer: None,
        tenant: Ok(None),
        host: None,
        path: None,
        method: None,
        service: Ok(None),
        fields: None,
    };
}
