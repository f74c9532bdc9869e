//! What is known of an exchange beside its messages.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use crate::id::PeerIdentity;
use crate::message::interim::InformationalSink;

/// What comes with a request into an egress listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// The connection that the request came in on.
    pub connection: ConnectionInfo,
    /// Where interim (1xx) responses go until the final head is sent.
    pub interim: InformationalSink,
}

/// What is known about the connection a request came in; cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionInfo(Arc<ConnectionDetails>);

/// The facts of a [`ConnectionInfo`].
#[derive(Debug, Clone)]
pub struct ConnectionDetails {
    /// The address of the other end.
    pub remote: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The name in the TLS handshake (SNI), if any.
    pub server_name: Option<String>,
    /// What the certificate of the other end proved, if it showed one.
    pub peer: Option<PeerIdentity>,
}

impl ConnectionInfo {
    /// Shares the facts.
    pub fn new(details: ConnectionDetails) -> Self {
        Self(Arc::new(details))
    }
}

impl Deref for ConnectionInfo {
    type Target = ConnectionDetails;
    fn deref(&self) -> &ConnectionDetails {
        &self.0
    }
}
