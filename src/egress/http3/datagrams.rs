//! HTTP Datagrams (RFC 9297) of CONNECT-UDP: QUIC datagrams outside, capsules inside.
//!
//! What comes in a QUIC datagram goes into the body of its request as a capsule, between those that the client sends on the
//! stream; capsules of a response leave as QUIC datagrams where the client takes them. So whoever counts, charges and passes on
//! bodies knows one form only.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use crate::egress::budget::ListenerBudget;
use crate::egress::lock;
use crate::protocol::capsule::{Boundary, CapsuleError, CapsuleReader, encode_capsule, encode_datagram};
use crate::protocol::http_datagram::{self, NoStream};
use crate::telemetry::Limit;

/// Datagrams that wait for one request to be read, and their bytes; the oldest give way.
const QUEUE: usize = 64;
const QUEUE_BYTES: usize = 64 * 1024;
/// Bytes that wait for all requests of a connection; beyond, the newest are dropped. What may wait at the listener is for many.
const CONNECTION_BYTES: usize = 1024 * 1024;
/// The requests of a connection that take datagrams.
#[derive(Debug)]
pub(super) struct Takers {
    quic: quinn::Connection,
    budget: Arc<ListenerBudget>,
    /// By stream.
    queues: Mutex<HashMap<u64, Weak<Queue>>>,
    /// Bytes that wait in all of them.
    waiting: Arc<AtomicUsize>,
    /// The client has said that it takes them.
    may_send: AtomicBool,
}

/// What became of a datagram that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It is on its way, or was dropped as if it had been lost there.
    Sent,
    /// The client takes none.
    Not,
}

impl Takers {
    pub(super) fn new(quic: quinn::Connection, budget: Arc<ListenerBudget>) -> Arc<Self> {
        Arc::new(Self {
            quic,
            budget,
            queues: Mutex::default(),
            waiting: Arc::default(),
            may_send: AtomicBool::new(false),
        })
    }

    /// The client's SETTINGS say that it takes them.
    pub(super) fn allow(&self) {
        self.may_send.store(true, Ordering::Relaxed);
    }

    /// What comes for the request on this stream from now on.
    pub(super) fn of(&self, stream: u64) -> Arrived {
        let queue = Arc::new(Queue::new(&self.waiting, &self.budget));
        let mut queues = lock(&self.queues);
        // Bounded by the streams that a client may have at once.
        queues.retain(|_, queue| queue.strong_count() > 0);
        queues.insert(stream, Arc::downgrade(&queue));
        Arrived { queue, boundary: Boundary::default(), is_turn_of_stream: false }
    }

    /// Hands one on; whether anybody takes it. A request may not want it any more, or not yet.
    pub(super) fn arrived(&self, datagram: Bytes) -> Result<bool, NoStream> {
        let (stream, value) = http_datagram::decode(datagram)?;
        let queue = lock(&self.queues).get(&stream).and_then(Weak::upgrade);
        let Some(queue) = queue.filter(|_| http_datagram::has_context(&value)) else { return Ok(false) };
        queue.offer(&value);
        Ok(true)
    }

    /// Sends a UDP datagram for the request on this stream. One that is too long is dropped: in a capsule it would arrive,
    /// and deceive who looks for what the path carries. RFC 9298 section 6.1
    fn send(&self, stream: u64, payload: &[u8]) -> Sent {
        if !self.may_send.load(Ordering::Relaxed) || self.quic.max_datagram_size().is_none() {
            return Sent::Not;
        }
        let datagram = http_datagram::encode(stream, payload);
        // A connection that is lost shows elsewhere.
        if matches!(self.quic.send_datagram(datagram), Err(quinn::SendDatagramError::TooLarge)) {
            self.budget.count(Limit::Datagrams);
        }
        Sent::Sent
    }
}

/// What waits for one request.
#[derive(Debug)]
struct Queue {
    state: Mutex<Waiting>,
    /// Bytes that wait for the whole connection.
    of_connection: Arc<AtomicUsize>,
    budget: Arc<ListenerBudget>,
}

#[derive(Debug, Default)]
struct Waiting {
    values: VecDeque<Bytes>,
    bytes: usize,
    reader: Option<Waker>,
}

impl Queue {
    fn new(of_connection: &Arc<AtomicUsize>, budget: &Arc<ListenerBudget>) -> Self {
        Self { state: Mutex::default(), of_connection: Arc::clone(of_connection), budget: Arc::clone(budget) }
    }

    fn offer(&self, value: &[u8]) {
        let mut waiting = lock(&self.state);
        while waiting.values.len() >= QUEUE || waiting.bytes + value.len() > QUEUE_BYTES {
            if self.take(&mut waiting).is_none() {
                break;
            }
            self.budget.count(Limit::Datagrams);
        }
        let is_full = self.of_connection.load(Ordering::Relaxed) + value.len() > CONNECTION_BYTES;
        if is_full || !self.budget.read_ahead(value.len()) {
            return self.budget.count(Limit::Datagrams);
        }
        self.of_connection.fetch_add(value.len(), Ordering::Relaxed);
        waiting.bytes += value.len();
        // Copied out of the packets that it came with, all of which it would hold.
        waiting.values.push_back(Bytes::copy_from_slice(value));
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }

    fn take(&self, waiting: &mut Waiting) -> Option<Bytes> {
        let value = waiting.values.pop_front()?;
        waiting.bytes -= value.len();
        self.of_connection.fetch_sub(value.len(), Ordering::Relaxed);
        self.budget.release_ahead(value.len());
        Some(value)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut waiting = std::mem::take(&mut *lock(&self.state));
        while self.take(&mut waiting).is_some() {}
    }
}

/// The datagrams for one request, as capsules between those on its stream.
#[derive(Debug)]
pub(super) struct Arrived {
    queue: Arc<Queue>,
    boundary: Boundary,
    /// The last piece was a datagram.
    is_turn_of_stream: bool,
}

impl Arrived {
    /// These bytes of the stream go on.
    pub(super) fn passes(&mut self, bytes: &[u8]) {
        self.is_turn_of_stream = false;
        self.boundary.push(bytes);
    }

    /// Whether the stream is to be asked first.
    pub(super) fn is_turn_of_stream(&self) -> bool {
        self.is_turn_of_stream
    }

    /// A capsule, where one may stand. Pending, too, inside a capsule of the stream.
    pub(super) fn poll_capsule(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        if !self.boundary.is_between() {
            return Poll::Pending;
        }
        let mut waiting = lock(&self.queue.state);
        let Some(value) = self.queue.take(&mut waiting) else {
            waiting.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(waiting);
        self.is_turn_of_stream = true;
        let mut capsule = BytesMut::new();
        encode_capsule(&value, &mut capsule);
        Poll::Ready(capsule.freeze())
    }
}

/// Where the capsules of a response go.
#[derive(Debug)]
pub(super) struct Leaving {
    takers: Arc<Takers>,
    stream: u64,
    reader: CapsuleReader,
}

impl Leaving {
    pub(super) fn new(takers: &Arc<Takers>, stream: u64) -> Self {
        Self { takers: Arc::clone(takers), stream, reader: CapsuleReader::default() }
    }

    /// Sends what is in these capsules; what the client takes on the stream only is left for that.
    pub(super) fn pass(&mut self, capsules: &[u8]) -> Result<Bytes, CapsuleError> {
        self.reader.push(capsules);
        let mut left = BytesMut::new();
        while let Some(payload) = self.reader.read()? {
            if self.takers.send(self.stream, &payload) == Sent::Not {
                encode_datagram(&payload, &mut left);
            }
        }
        Ok(left.freeze())
    }
}
