//! What goes into the machine and what comes out.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use crate::transport::TransportKind;

/// One connection from its connect to its end, as tunnel or before: what events and actions are about. Never reused,
/// so a late word about an abandoned one is known as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    transport: TransportKind,
    number: u64,
}

impl Attempt {
    pub(super) const fn new(transport: TransportKind, number: u64) -> Self {
        Self { transport, number }
    }

    /// What it uses.
    pub const fn transport(self) -> TransportKind {
        self.transport
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.transport, self.number)
    }
}

/// What happened. Events about an attempt that the machine abandoned, drained or saw end are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Transport and TLS are up; no HELLO was sent.
    Connected(Attempt),
    /// WELCOME came: it is a tunnel.
    Admitted(Attempt),
    /// It is over, and this end did not want that: a connect that failed or took too long, a connection that broke or
    /// was refused before WELCOME, a tunnel that was lost.
    Ended(Attempt, Failure),
    /// The tunnel owes a sign of life. spec: CT-42
    Suspect(Attempt),
    /// The tunnel was heard again.
    Alive(Attempt),
    /// The responder wants the tunnel replaced, not before this much time. It finishes what runs by itself. spec: CT-26
    Draining(Attempt, Duration),
    /// A tunnel that the responder drained is over.
    Gone {
        /// Which.
        attempt: Attempt,
        /// Everything had finished, as CT-24 says. Else the responder ended it, or is no longer there.
        agreed: bool,
    },
}

/// Why something ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What follows from it.
    pub kind: FailureKind,
    /// For operators.
    pub reason: String,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The transport did not work: silence, ICMP, a refused connection, no common ALPN, a certificate of the responder
    /// that this end does not accept, a broken connection. The other transport may do better.
    Transport,
    /// The responder answered, and means this initiator: REFUSE, a TLS alert about its certificate, or a close that
    /// says superseded or revoked. The other transport would get the same answer. spec: TB-23
    Refused {
        /// Not before this much time.
        retry_after: Option<Duration>,
    },
}

impl Failure {
    /// The transport did not work.
    pub fn transport(reason: impl Into<String>) -> Self {
        Self { kind: FailureKind::Transport, reason: reason.into() }
    }

    /// The responder said no.
    pub fn refused(retry_after: Option<Duration>, reason: impl Into<String>) -> Self {
        Self { kind: FailureKind::Refused { retry_after }, reason: reason.into() }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect transport and TLS, without HELLO; answer with [`Event::Connected`] or, within the handshake timeout at
    /// the latest, [`Event::Ended`]. A connection that waits for its claim is watched for its end.
    Connect(Attempt),
    /// Cancel the connect, or close the connection or tunnel, at once. No event about it is needed.
    Abandon(Attempt),
    /// Send HELLO on this connection; answer with [`Event::Admitted`] or [`Event::Ended`]. It always has a higher
    /// generation than every claim of the slot before.
    Claim(Attempt, ClaimPlace),
    /// Announce a drain on this tunnel and let it finish: another one has taken over. No event about it is needed.
    Drain(Attempt),
    /// Nothing is tried before `until`; [`Auto::deadline`](super::Auto::deadline) knows. For the status board.
    Wait {
        /// When the next connect is due.
        until: Instant,
    },
    /// The slot's tunnel is on another transport than the one before. For the log and a counter.
    Switched {
        /// Where it was.
        from: TransportKind,
        /// Where it is.
        to: TransportKind,
        /// Why, for operators.
        reason: String,
    },
}

/// Which place HELLO names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimPlace {
    /// The slot of the tunnel before, next generation: the responder ends that tunnel if it still has it. spec: HS-14
    Supersede,
    /// Another slot number: both tunnels live until the older one has drained.
    Beside,
}

/// One of something for QUIC and one for what runs over TCP. An Envoy is dialled over nothing else, so it has the place
/// of TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PerTransport<T> {
    quic: T,
    tcp: T,
}

impl<T> PerTransport<T> {
    pub(super) const fn new(quic: T, tcp: T) -> Self {
        Self { quic, tcp }
    }
}

impl<T> Index<TransportKind> for PerTransport<T> {
    type Output = T;

    fn index(&self, transport: TransportKind) -> &T {
        match transport {
            TransportKind::Quic => &self.quic,
            TransportKind::Tcp | TransportKind::Envoy => &self.tcp,
        }
    }
}

impl<T> IndexMut<TransportKind> for PerTransport<T> {
    fn index_mut(&mut self, transport: TransportKind) -> &mut T {
        match transport {
            TransportKind::Quic => &mut self.quic,
            TransportKind::Tcp | TransportKind::Envoy => &mut self.tcp,
        }
    }
}
