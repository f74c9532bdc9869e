//! What is known of an exchange beside its messages.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::id::PeerIdentity;
use crate::message::interim::InformationalSink;
use crate::proxy::pace::Pace;

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
pub struct ConnectionInfo(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    details: ConnectionDetails,
    pace: Pace,
    under_way: AtomicU32,
}

/// An exchange of a connection that is under way while this lives.
#[derive(Debug)]
pub(crate) struct UnderWay(ConnectionInfo);

impl Deref for UnderWay {
    type Target = ConnectionInfo;
    fn deref(&self) -> &ConnectionInfo {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

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
    /// Shares the facts. Its exchanges have the usual [`Pace`].
    pub fn new(details: ConnectionDetails) -> Self {
        Self::paced(details, Pace::default())
    }

    /// The same, with how long its exchanges may rest.
    pub fn paced(details: ConnectionDetails, pace: Pace) -> Self {
        Self(Arc::new(Shared { details, pace, under_way: AtomicU32::new(0) }))
    }

    /// How long its exchanges may rest.
    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// Counts an exchange until the returned guard drops.
    pub(crate) fn begin(&self) -> UnderWay {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// How many of its exchanges are under way.
    pub(crate) fn under_way(&self) -> u32 {
        self.0.under_way.load(Ordering::Relaxed)
    }
}

impl Deref for ConnectionInfo {
    type Target = ConnectionDetails;
    fn deref(&self) -> &ConnectionDetails {
        &self.0.details
    }
}
