//! Flows: datagrams both ways between the responder and a service of the initiator. spec: ST-70 to ST-76, TB-15
//!
//! A datagram arrives whole or not at all, in any order, and may be lost.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::protocol::code::StreamCode;
use crate::protocol::limits::{DEFAULT_FLOW_IDLE_TIMEOUT, MAX_DATAGRAM_BYTES, MAX_DURATION};
use crate::shares::{Meter, Stake};
use crate::transport::credit::{Place, Revoked, Terms};
use crate::transport::error::SendError;
use crate::transport::raw::RawError;
use crate::transport::state::{FlowCount, InFlight};
use crate::transport::{quic, tcp};

/// An open flow; its halves may go separate ways. It ends when either end drops its sending half.
#[derive(Debug)]
pub struct Flow {
    /// What this end says.
    pub send: FlowSend,
    /// What the other end says.
    pub recv: FlowRecv,
}

/// The sending half of a flow. Dropping it ends the flow.
#[derive(Debug)]
pub struct FlowSend {
    half: SendKind,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum SendKind {
    Quic(quic::FlowSend),
    Tcp(tcp::FlowSend),
}

/// The receiving half of a flow.
#[derive(Debug)]
pub struct FlowRecv {
    half: RecvKind,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum RecvKind {
    Quic(Place<quic::FlowRecv>),
    Tcp(Place<tcp::FlowRecv>),
}

/// What both halves know.
#[derive(Debug)]
struct Shared {
    opened: Instant,
    /// When a datagram came or went last, milliseconds after `opened`.
    used: AtomicU64,
    /// How long nothing may come or go, where that is not the default.
    idle_timeout: OnceLock<Duration>,
    over: AtomicBool,
    _held: Held,
    /// What it counts as among those of its tenant and node, at a responder.
    stake: OnceLock<Stake>,
}

/// What an open flow counts as until both halves are gone: an exchange, and a flow where no table has it.
type Held = (InFlight, Option<FlowCount>);

impl Shared {
    fn touch(&self) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(millis, Ordering::Relaxed);
    }

    /// When the flow has been idle for too long, unless something comes or goes before. spec: ST-76
    fn idle_at(&self) -> Instant {
        let limit = self.idle_timeout.get().copied().unwrap_or(DEFAULT_FLOW_IDLE_TIMEOUT);
        self.opened + Duration::from_millis(self.used.load(Ordering::Relaxed)) + limit
    }
}

impl Flow {
    pub(super) fn quic(send: quic::FlowSend, recv: quic::FlowRecv, in_flight: InFlight) -> Self {
        let recv = Place::watched(recv, in_flight.tunnel().credit(), Terms::FLOW);
        Self::new(SendKind::Quic(send), RecvKind::Quic(recv), (in_flight, None))
    }

    pub(super) fn tcp(send: tcp::FlowSend, recv: tcp::FlowRecv, held: Held) -> Self {
        let recv = Place::watched(recv, held.0.tunnel().credit(), Terms::FLOW);
        Self::new(SendKind::Tcp(send), RecvKind::Tcp(recv), held)
    }

    /// Counts as this, too, until both halves are gone.
    pub(super) fn holding(self, stake: Option<Stake>) -> Self {
        if let Some(stake) = stake {
            let _ = self.recv.shared.stake.set(stake);
        }
        self
    }

    /// What its bytes are charged to, where it counts as something of a tenant and node.
    pub(crate) fn meter(&self) -> Option<Meter> {
        self.recv.shared.stake.get().map(Stake::meter)
    }

    /// Ends when nothing has come or gone for this long, instead of 120 s; at most a day. The first call counts.
    /// spec: ST-76
    #[must_use]
    pub fn idle_after(self, limit: Duration) -> Self {
        let _ = self.recv.shared.idle_timeout.set(limit.min(MAX_DURATION));
        self
    }

    fn new(send: SendKind, recv: RecvKind, held: Held) -> Self {
        let (opened, used, over) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
        let (idle_timeout, stake) = (OnceLock::new(), OnceLock::new());
        let shared = Arc::new(Shared { opened, used, idle_timeout, over, _held: held, stake });
        Self { send: FlowSend { half: send, shared: Arc::clone(&shared) }, recv: FlowRecv { half: recv, shared } }
    }
}

impl FlowSend {
    /// Sends one datagram of 0 to 65,527 bytes: as a QUIC datagram where it fits one, else in a frame on the flow's
    /// stream, for which it may have to wait. spec: ST-72
    ///
    /// # Errors
    /// [`SendError`]: the flow is over, or the tunnel is gone.
    ///
    /// # Cancel safety
    /// None: a dropped call may have sent a part, so the flow must go too.
    pub async fn send(&mut self, datagram: Bytes) -> Result<(), SendError> {
        if datagram.len() > MAX_DATAGRAM_BYTES {
            return Err(SendError::Head("a datagram has at most 65,527 bytes"));
        }
        if self.shared.over.load(Ordering::Relaxed) {
            return Err(SendError::Stopped(StreamCode::NoError));
        }
        self.shared.touch();
        match &mut self.half {
            SendKind::Quic(half) => half.send(datagram).await,
            SendKind::Tcp(half) => half.send(datagram).await,
        }
    }

    /// Says END: the flow is over in both directions. Dropping it says the same, without a word where the stream has no
    /// room for one.
    ///
    /// # Errors
    /// [`SendError`]: it was over already.
    pub async fn finish(self) -> Result<(), SendError> {
        match self.half {
            SendKind::Quic(half) => half.finish().await,
            SendKind::Tcp(half) => half.finish(),
        }
    }

    /// Ends the flow because of a failure, such as a target that is gone (`truncated`): the other end hears of the code.
    /// spec: ST-75, ST-77
    pub fn reset(self, code: StreamCode) {
        match self.half {
            SendKind::Quic(half) => half.reset(code),
            SendKind::Tcp(half) => half.reset(code),
        }
    }
}

impl FlowRecv {
    /// The next datagram; `None` once the flow is over: ended by the peer, or idle for too long ([`Flow::idle_after`]).
    ///
    /// # Errors
    /// [`RawError`]: it ended otherwise.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, RawError> {
        loop {
            let idle_at = self.shared.idle_at();
            let received = match &mut self.half {
                RecvKind::Quic(half) => {
                    let next = poll_fn(|cx| settled(half.poll(|half| half.poll_recv(cx), payload)));
                    timeout_at(idle_at, next).await
                }
                RecvKind::Tcp(half) => {
                    let next = poll_fn(|cx| settled(half.poll(|half| half.poll_recv(cx), payload)));
                    timeout_at(idle_at, next).await
                }
            };
            let received = match received {
                Ok(received) => received,
                Err(_) if Instant::now() < self.shared.idle_at() => continue,
                Err(_) => Ok(None),
            };
            match received {
                Ok(Some(_)) => self.shared.touch(),
                Ok(None) | Err(_) => self.shared.over.store(true, Ordering::Relaxed),
            }
            return received;
        }
    }
}

/// What a flow says next, or that this end has ended it.
type Said = Result<Option<Bytes>, RawError>;

fn settled(polled: Result<Poll<Said>, Revoked>) -> Poll<Said> {
    polled.unwrap_or_else(|Revoked| Poll::Ready(Err(RawError::HeldBack)))
}

fn payload(said: &Said) -> usize {
    said.as_ref().map_or(0, |datagram| datagram.as_ref().map_or(0, Bytes::len))
}
