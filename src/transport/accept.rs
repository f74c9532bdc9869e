//! What a responder does with a connection, whatever it came over: hear its claim, then welcome or refuse it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use crate::id::TunnelId;
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::envoy::{Counter, Rejection};
use crate::protocol::handshake::{Hello, Refusal, Welcome};
use crate::transport::control::{Channel, Control, note_illegal};
use crate::transport::handshakes::Seat;
use crate::transport::kind::TransportKind;
use crate::transport::link::{Claimed as _, Link, Unwelcomed as _};
use crate::transport::state::{CloseReason, TunnelState};
use crate::transport::tunnel::Tunnel;
use crate::transport::{quic, tcp};

/// How long a refusal may take to arrive; the channels have limits of their own below it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection that says it wants to be a tunnel; nothing is known of it yet but an address.
#[derive(Debug)]
pub enum Incoming {
    /// Over QUIC.
    Quic(Box<quic::Incoming>),
    /// Over TCP.
    Tcp(Box<tcp::Incoming>),
}

/// What an initiator claims and shows.
#[derive(Debug)]
pub struct Claimant {
    /// What the initiator claims.
    pub hello: Hello,
    /// The verified certificate chain, leaf first; empty when none was asked for or shown.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Where it comes from.
    pub remote: SocketAddr,
}

/// A connection that has made its claim: policy decides what becomes of it.
#[derive(Debug)]
pub struct Pending {
    /// Who claims, and what for.
    pub claimant: Claimant,
    link: PendingLink,
    /// Its place among those in handshake.
    seat: Seat,
}

type PendingLink = Link<quic::Pending, tcp::Pending, tcp::envoy::Pending>;
type PreparedLink = Link<quic::Prepared, tcp::Prepared, tcp::envoy::Prepared>;

/// A tunnel that the initiator has not heard of yet.
#[derive(Debug)]
pub struct Prepared {
    tunnel: Tunnel,
    link: PreparedLink,
    seat: Seat,
}

/// What a connection owes before it is a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The first byte over TCP.
    #[error("first byte")]
    FirstByte,
    /// The end of the TLS handshake.
    #[error("TLS handshake")]
    Tls,
    /// The control stream over QUIC.
    #[error("control stream")]
    ControlStream,
    /// HELLO.
    #[error("HELLO")]
    Hello,
    /// An Envoy's request for a reverse tunnel.
    #[error("reverse tunnel request")]
    EnvoyRequest,
}

/// Why an incoming connection never said who it is.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// TLS failed: no certificate, an untrusted or expired one, no common ALPN.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection failed below or after TLS.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// The TLS handshake or HELLO took too long.
    #[error("no {missing} within {limit:?}")]
    Timeout {
        /// What did not come.
        missing: Missing,
        /// How long was waited.
        limit: Duration,
    },
    /// What came instead of a usable HELLO was answered with REFUSE.
    #[error("refused, {}: {}", .0.code, .0.reason)]
    Refused(Refusal),
    /// What came instead of a reverse tunnel request of an Envoy was answered. spec: EV-11
    #[error("rejected: {0}")]
    Rejected(Rejection),
    /// The connection ended instead of saying HELLO.
    #[error("HELLO: {0}")]
    Hello(String),
    /// It was the oldest where there was no room left, and gave way to a newer one before HELLO. spec: SE-21
    #[error("gave way to a newer connection: {0} had not come, and there was no room left")]
    GaveWay(Missing),
    /// The initiator did without this connection, before HELLO: it tried another one beside it. Nothing is wrong. spec: TB-20
    #[error("the initiator did not need this connection")]
    GivenUp,
}

impl AcceptError {
    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Connection(_) => "connection",
            Self::Timeout { .. } => "timeout",
            Self::Refused(refusal) => refusal.code.label(),
            Self::Rejected(rejection) => rejection.refusal().label(),
            Self::Hello(_) => "protocol",
            Self::GaveWay(_) => "gave_way",
            Self::GivenUp => "given_up",
        }
    }

    /// What an Envoy responder would count; `None` where it would not, and where no Envoy dialled. spec: EV-18
    pub fn envoy_counter(&self) -> Option<Counter> {
        match self {
            Self::Rejected(rejection) => rejection.counter(),
            Self::Timeout { missing: Missing::EnvoyRequest, .. } => Some(Counter::Timeout),
            _ => None,
        }
    }
}

impl Incoming {
    /// Where it says it comes from.
    pub fn remote(&self) -> SocketAddr {
        match self {
            Self::Quic(incoming) => incoming.remote(),
            Self::Tcp(incoming) => incoming.remote(),
        }
    }

    /// Which configuration of its listener it is accepted with, or an earlier one.
    pub fn generation(&self) -> u64 {
        match self {
            Self::Quic(incoming) => incoming.generation(),
            Self::Tcp(incoming) => incoming.generation(),
        }
    }

    /// What it came over, as far as its first byte tells.
    pub fn transport(&self) -> TransportKind {
        match self {
            Self::Quic(_) => TransportKind::Quic,
            Self::Tcp(_) => TransportKind::Tcp,
        }
    }

    /// Finishes TLS and hears the claim, both within one handshake timeout.
    ///
    /// # Errors
    /// [`AcceptError`]: there is no claim to decide about; whoever sent something has been answered.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake(self) -> Result<Pending, AcceptError> {
        match self {
            Self::Quic(incoming) => {
                let (claimant, pending, seat) = incoming.handshake().await?;
                Ok(Pending { claimant, link: Link::Quic(Box::new(pending)), seat })
            }
            Self::Tcp(incoming) => {
                let (claimant, heard, seat) = incoming.handshake().await?;
                let link = match heard {
                    tcp::TcpClaim::Adit(pending) => Link::Tcp(pending),
                    tcp::TcpClaim::Envoy(pending) => Link::Envoy(pending),
                };
                Ok(Pending { claimant, link, seat })
            }
        }
    }
}

impl Pending {
    /// What it came over.
    pub fn transport(&self) -> TransportKind {
        self.link.kind()
    }

    /// Makes the tunnel's handle, so that it can be registered before the initiator hears of it.
    pub fn prepare(self, id: TunnelId) -> Prepared {
        let Self { claimant: Claimant { hello, .. }, link, seat } = self;
        let state = TunnelState::new(id, hello.place, link.kind(), hello.limits, hello.services);
        let (tunnel, link) = link.prepare(state);
        Prepared { tunnel, link, seat }
    }

    /// Says no, waits until that arrived (a few seconds at most) and closes.
    pub async fn refuse(self, refusal: &Refusal) {
        let refused = async {
            match self.link {
                Link::Quic(pending) => pending.refuse(refusal).await,
                Link::Tcp(pending) => pending.refuse(refusal).await,
                Link::Envoy(pending) => pending.refuse(refusal).await,
            }
        };
        // One that does not read it gives way like any other.
        let _ = self.seat.hold(refused).await;
    }
}

impl Prepared {
    /// The handle.
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Says yes and drives the tunnel until it is gone.
    ///
    /// Not cancel safe: dropping the future closes the connection abruptly. Use [`Tunnel::drain`] or [`Tunnel::close`].
    pub fn welcome(self, welcome: Welcome) -> impl Future<Output = CloseReason> + Send {
        // The handle must not keep its own tunnel open.
        let Self { tunnel, link, seat } = self;
        drop((tunnel, seat));
        async move {
            match link {
                Link::Quic(prepared) => prepared.welcome(&welcome).await,
                Link::Tcp(prepared) => prepared.welcome(&welcome).await,
                Link::Envoy(prepared) => prepared.welcome(&welcome).await,
            }
        }
    }

    /// Says no, waits until that arrived (a few seconds at most) and closes.
    pub async fn refuse(self, refusal: &Refusal) {
        let refused = async {
            match self.link {
                Link::Quic(prepared) => prepared.refuse(refusal).await,
                Link::Tcp(prepared) => prepared.refuse(refusal).await,
                Link::Envoy(prepared) => prepared.refuse(refusal).await,
            }
        };
        let _ = self.seat.hold(refused).await;
    }
}

/// Why the session ended before HELLO; `fault` is the number that the peer was refused with, if it was.
pub(super) fn no_hello(reason: CloseReason, fault: Option<RefusalCode>, limit: Duration) -> AcceptError {
    match (reason.code, fault) {
        (CloseCode::HandshakeTimeout, _) => AcceptError::Timeout { missing: Missing::Hello, limit },
        (CloseCode::Refused, Some(code)) => {
            AcceptError::Refused(Refusal { code, reason: reason.text, retry_after: None })
        }
        (code, _) => AcceptError::Hello(format!("{code}: {}", reason.text)),
    }
}

/// Sends REFUSE, waits until it arrived (at most a few seconds) and closes.
pub(super) async fn send_refusal<C: Channel>(mut control: Control<C>, refusal: &Refusal) {
    note_illegal(control.session().refuse(refusal));
    // The session's last output is the close, which ends this loop.
    let _ = timeout(REFUSAL_TIMEOUT, async { while control.event().await.is_ok() {} }).await;
}
