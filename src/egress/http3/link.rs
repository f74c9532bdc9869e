//! What a connection and its streams tell each other beside what HTTP/3 reads of them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use h3::error::Code;
use quinn::VarInt;
use tokio::sync::Notify;

use super::datagrams::Takers;
use super::window::{Bounds, Sends, Window};
use crate::egress::budget::ListenerBudget;
use crate::egress::gate::{RESETS_BURST, RESETS_PER_SECOND};
use crate::egress::heads::HeadBounds;
use crate::egress::lock;
use crate::message::h3::request::{Head, Limits};
use crate::message::queued::Queued;
use crate::message::violation::{ErrorCode, Violation};
use crate::net::SendRoom;
use crate::protocol::allowance::Allowance;
use crate::protocol::budgets::{CONTROL_FRAME_BURST, CONTROL_FRAMES_PER_SECOND};
use crate::telemetry::Limit;

/// Bytes of field sections that are not whole which one connection may have here: over HTTP/3 each of its streams can have one.
const MAX_SECTIONS: usize = 1024 * 1024;
/// So many of them it has whatever others hold: an honest head that comes in several packets needs no more.
const OWN_SECTIONS: usize = 16 * 1024;
/// So many responses that wait have filled what may be sent and not acknowledged, or their own windows.
const MANY_WAITING: usize = 4;
/// So many bytes that were taken since the last exchange began are worth another one, even then.
const WORTH: u64 = 64 * 1024;
/// The first stream id beyond all.
const NO_LIMIT: u64 = u64::MAX;
/// The distance between the ids of two requests. RFC 9000 section 2.1
const NEXT: u64 = 4;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    quic: quinn::Connection,
    /// The bounds of each request, which HTTP/3 was told, and those that hold by now.
    limits: Limits,
    heads: Option<Arc<HeadBounds>>,
    budget: Arc<ListenerBudget>,
    /// Streams that HTTP/3 was given and nobody serves yet, in order.
    arrivals: Mutex<VecDeque<Arrival>>,
    /// The first id that is not served any more; see [`Link::close_door`].
    first_refused: AtomicU64,
    /// The first id behind all that were accepted.
    next: AtomicU64,
    sections: AtomicUsize,
    control: Mutex<Allowance>,
    resets: Mutex<Allowance>,
    outlet: Outlet,
    window: Arc<Window>,
    /// What its responses share of that window.
    pub(super) send_room: Arc<SendRoom>,
    /// With what this end has ended the connection for a fault of the client; not for a flood, which is counted by itself.
    fault: OnceLock<Code>,
    /// The requests that take datagrams.
    pub(super) takers: Arc<Takers>,
}

/// How what is sent gets on.
#[derive(Debug, Default)]
struct Outlet {
    /// Responses of which something waits to be taken.
    waiting: AtomicUsize,
    /// Bytes that were taken, and how many had been when this was last looked at.
    taken: AtomicU64,
    seen: AtomicU64,
}

impl Outlet {
    /// Whether too much waits for another exchange to begin.
    fn is_full(&self) -> bool {
        let (taken, seen) = (self.taken.load(Ordering::Relaxed), self.seen.load(Ordering::Relaxed));
        if self.waiting.load(Ordering::Relaxed) >= MANY_WAITING && taken.saturating_sub(seen) < WORTH {
            return true;
        }
        self.seen.store(taken, Ordering::Relaxed);
        false
    }
}

impl Link {
    pub(super) fn new(
        quic: quinn::Connection,
        (limits, heads): (Limits, Option<Arc<HeadBounds>>),
        bounds: Bounds,
        budget: Arc<ListenerBudget>,
    ) -> Arc<Self> {
        let (now, takers) = (Instant::now(), Takers::new(quic.clone(), Arc::clone(&budget)));
        let send_room = SendRoom::new(bounds.connection as u64);
        let window = Window::new(bounds, Arc::clone(&budget));
        Arc::new(Self {
            quic,
            limits,
            heads,
            budget,
            arrivals: Mutex::default(),
            first_refused: AtomicU64::new(NO_LIMIT),
            next: AtomicU64::new(0),
            sections: AtomicUsize::new(0),
            control: Mutex::new(Allowance::new(now, CONTROL_FRAME_BURST, CONTROL_FRAMES_PER_SECOND)),
            resets: Mutex::new(Allowance::new(now, RESETS_BURST, RESETS_PER_SECOND)),
            outlet: Outlet::default(),
            window,
            send_room,
            fault: OnceLock::new(),
            takers,
        })
    }

    /// The bounds of a request that begins now. More than HTTP/3 was told at the beginning it does not take.
    pub(super) fn limits(&self) -> Limits {
        let Limits { section_bytes, fields } = self.limits;
        let (bytes, most) = self.heads.as_ref().map_or((section_bytes, fields), |heads| heads.get());
        Limits { section_bytes: bytes.min(section_bytes), fields: most }
    }

    /// Ends the connection with a code of HTTP/3.
    pub(super) fn close(&self, code: Code, reason: &str) {
        self.note_fault(code);
        self.end(code, reason);
    }

    /// HTTP/3, or its watcher, ends the connection with this code, unless it is over already.
    pub(super) fn note_fault(&self, code: Code) {
        if code != Code::H3_NO_ERROR && self.quic.close_reason().is_none() {
            let _ = self.fault.set(code);
        }
    }

    /// The rule of the connection that the client broke, and for which this end has ended it.
    pub(super) fn fault(&self) -> Option<ErrorCode> {
        match self.quic.close_reason()? {
            quinn::ConnectionError::TransportError(error) => Some(ErrorCode::Quic(error.code.into())),
            _ => self.fault.get().map(|code| ErrorCode::Http3(code.value())),
        }
    }

    fn end(&self, code: Code, reason: &str) {
        tracing::debug!(%code, reason, remote = %self.quic.remote_address(), "an HTTP/3 connection is ended");
        self.quic.close(varint(code), reason.as_bytes());
    }

    /// Whether a stream may come in. From [`Self::close_door`] on, new ones may not.
    pub(super) fn admits(&self, stream: u64) -> bool {
        stream < self.first_refused.load(Ordering::Relaxed)
    }

    /// Takes no stream any more; says whether there was any.
    pub(super) fn close_door(&self) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        self.first_refused.store(next, Ordering::Relaxed);
        next > 0
    }

    /// Whether a request has ever come.
    pub(super) fn is_used(&self) -> bool {
        self.next.load(Ordering::Relaxed) > 0
    }

    pub(super) fn arrives(&self, arrival: Arrival) {
        self.next.fetch_max(arrival.stream.saturating_add(NEXT), Ordering::Relaxed);
        lock(&self.arrivals).push_back(arrival);
    }

    /// What belongs to the stream that HTTP/3 hands out next.
    pub(super) fn arrived(&self) -> Option<Arrival> {
        lock(&self.arrivals).pop_front()
    }

    /// Counts frames of the control stream; a flood ends the connection.
    pub(super) fn count_control(&self, frames: u32) {
        if frames > 0 && !lock(&self.control).spend(frames, Instant::now) {
            self.flood("far more control frames than anybody needs");
        }
    }

    /// Counts a request that its client gave up before it was answered, or that was none, once; a flood ends the connection.
    pub(super) fn count_reset(&self, side: &Side) {
        if side.is_counted.swap(true, Ordering::Relaxed) {
            return;
        }
        if !lock(&self.resets).spend(1, Instant::now) {
            self.flood("far more requests are given up than served");
        }
    }

    /// Whether no other exchange should begin yet: what those before it bring is not taken. Asked each time before one does.
    pub(super) fn is_full(&self) -> bool {
        self.outlet.is_full()
    }

    /// So many bytes of a response were taken.
    pub(super) fn took(&self, bytes: usize) {
        self.outlet.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A response begins to wait until it is taken, or ends to.
    pub(super) fn waits(&self, does: bool) {
        if does {
            self.outlet.waiting.fetch_add(1, Ordering::Relaxed);
        } else {
            self.outlet.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A response begins to be sent, until all of it was acknowledged.
    pub(super) fn sends(&self) -> Sends {
        self.window.begin(|bytes| self.set_window(bytes))
    }

    fn set_window(&self, bytes: u64) {
        self.quic.set_send_window(bytes);
        self.send_room.resize(bytes);
    }

    /// What waits to be taken waits for acknowledgements. Whether there is more room for it now.
    pub(super) fn widen(&self) -> bool {
        self.window.widen(Instant::now(), |bytes| self.set_window(bytes))
    }

    /// Whether [`Self::rest`] is worth a call.
    pub(super) fn has_room_to_give(&self) -> bool {
        self.window.is_wide()
    }

    /// A response had nothing to send for [`QUIET`](super::window::QUIET).
    pub(super) fn rest(&self) {
        self.window.rest(Instant::now(), |bytes| self.set_window(bytes));
    }

    fn flood(&self, reason: &str) {
        self.budget.count(Limit::Flood);
        self.end(Code::H3_EXCESSIVE_LOAD, reason);
    }
}

/// A stream that came in: what is known of it beside what HTTP/3 reads.
pub(super) struct Arrival {
    /// Its id.
    pub(super) stream: u64,
    pub(super) side: Arc<Side>,
    /// Resolves when the client wants no more of the response, when it has got all of it, or when the connection is gone.
    pub(super) stopped: Stopped,
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrival").field("stream", &self.stream).field("side", &self.side).finish_non_exhaustive()
    }
}

/// See [`Arrival::stopped`]; the code is the client's, if it stopped the stream.
pub(super) type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, quinn::StoppedError>> + Send + Sync>>;

/// What the halves of a stream and whoever serves it share.
#[derive(Debug, Default)]
pub(super) struct Side {
    head: OnceLock<Head>,
    trailers: OnceLock<Violation>,
    /// Somebody serves it: what is dropped unfinished then is reset.
    is_served: AtomicBool,
    /// Nothing more of the request comes.
    has_ended: AtomicBool,
    /// Nobody reads the request any more.
    released: Notify,
    /// Its response begins: what becomes of the request is nobody's loss any more.
    is_answered: AtomicBool,
    /// It was counted as given up.
    is_counted: AtomicBool,
    /// It was stopped for frames that carry nothing, or because there is no room for its head.
    is_overloaded: AtomicBool,
    /// The response waits behind others of its connection.
    is_in_line: AtomicBool,
    /// What was sent of the response, until it is acknowledged.
    sent: Mutex<Queued>,
}

impl Side {
    /// A piece of the response, counted until QUIC needs it no more.
    pub(super) fn sends(&self, data: Bytes) -> Bytes {
        lock(&self.sent).count(data)
    }

    /// What was sent of the response up to now.
    pub(super) fn sent(&self) -> Queued {
        lock(&self.sent).clone()
    }

    /// Whether the response waits behind others of its connection, from now on.
    pub(super) fn stands_in_line(&self, is_in_line: bool) {
        self.is_in_line.store(is_in_line, Ordering::Relaxed);
    }

    pub(super) fn is_in_line(&self) -> bool {
        self.is_in_line.load(Ordering::Relaxed)
    }

    pub(super) fn found(&self, head: Head) {
        let _ = self.head.set(head);
    }

    /// What was found in the head; `None` before it was read, and where that was left to HTTP/3.
    pub(super) fn head(&self) -> Option<&Head> {
        self.head.get()
    }

    pub(super) fn refuse_trailers(&self, violation: Violation) {
        let _ = self.trailers.set(violation);
    }

    /// The rule that the trailers broke.
    pub(super) fn refused_trailers(&self) -> Option<Violation> {
        self.trailers.get().copied()
    }

    pub(super) fn serve(&self) {
        self.is_served.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    pub(super) fn answer(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    pub(super) fn overload(&self) {
        self.is_overloaded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_overloaded(&self) -> bool {
        self.is_overloaded.load(Ordering::Relaxed)
    }

    pub(super) fn release(&self) {
        self.released.notify_one();
    }

    /// Done when whoever has the request reads no more of it: it has ended, failed, or is not wanted. For one waiter; cancel
    /// safe.
    pub(super) async fn released(&self) {
        self.released.notified().await;
    }
}

/// Room for the field section of one stream until it is whole.
#[derive(Debug)]
pub(super) struct Room {
    link: Arc<Link>,
    bytes: usize,
    /// How many of them are taken from what all connections of the listener share.
    shared: usize,
}

impl Room {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, bytes: 0, shared: 0 }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Holds so many bytes from now on; `false`: there is no room for them.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            self.release(bytes);
            return true;
        }
        let more = bytes - self.bytes;
        let all = self.link.sections.fetch_add(more, Ordering::Relaxed) + more;
        self.bytes = bytes;
        if all <= OWN_SECTIONS {
            return true;
        }
        if all > MAX_SECTIONS || !self.link.budget.read_ahead(more) {
            return false;
        }
        self.shared += more;
        true
    }

    fn release(&mut self, left: usize) {
        let less = self.bytes - left;
        let shared = less.min(self.shared);
        self.link.budget.release_ahead(shared);
        self.link.sections.fetch_sub(less, Ordering::Relaxed);
        (self.bytes, self.shared) = (left, self.shared - shared);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.release(0);
    }
}

/// A code of HTTP/3 as QUIC takes it.
pub(super) fn varint(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_exchange_begins_unless_many_wait_and_little_is_taken() {
        let outlet = Outlet::default();
        outlet.waiting.store(MANY_WAITING - 1, Ordering::Relaxed);
        assert!(!outlet.is_full());
        outlet.waiting.store(MANY_WAITING, Ordering::Relaxed);
        assert!(outlet.is_full() && outlet.is_full());
        outlet.taken.store(WORTH - 1, Ordering::Relaxed);
        assert!(outlet.is_full(), "a byte at a time is worth nothing");
        outlet.taken.store(WORTH, Ordering::Relaxed);
        assert!(!outlet.is_full() && outlet.is_full(), "one for what was taken");
    }
}
