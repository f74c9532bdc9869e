//! Flows over QUIC: datagrams beside the stream that opened the flow, and the stream for what does not fit one.
//! spec: ST-40 to ST-42, ST-70 to ST-75

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::protocol::code::StreamCode;
use crate::protocol::datagram::Datagram;
use crate::protocol::flows::{Arrived, FlowError, FlowLimits, Flows};
use crate::protocol::stream::{self, ServiceEvent};
use crate::transport::credit::Revoke;
use crate::transport::error::SendError;
use crate::transport::quic::service::ServiceRecv;
use crate::transport::quic::streams::{SendHalf, lost, one_if_small};
use crate::transport::raw::RawError;

/// Datagrams of one flow that wait to be taken; of more the newest are dropped. spec: ST-73
const QUEUE: usize = 256;
/// Bytes of one flow that may wait.
const QUEUE_BYTES: usize = 256 << 10;
/// Bytes of all flows of a connection that may wait.
const TABLE_BYTES: usize = 8 << 20;
/// The part of what is left of them that one flow may have: those that nobody reads leave room for one that is read.
const PART: usize = 8;

/// The flows of one connection; nothing runs for them before the first one.
#[derive(Debug, Default)]
pub(crate) struct FlowTable(OnceLock<Arc<Table>>);

#[derive(Debug)]
struct Table {
    flows: Mutex<Flows<Inlet>>,
    /// Bytes that wait in all flows.
    waiting: Arc<AtomicUsize>,
}

/// Where the datagrams of a flow are put.
#[derive(Debug)]
struct Inlet {
    sender: mpsc::Sender<Kept>,
    waiting: Arc<Waiting>,
}

/// Bytes that wait in one flow, and in all of them.
#[derive(Debug)]
struct Waiting {
    here: AtomicUsize,
    all: Arc<AtomicUsize>,
}

/// A datagram that waits, counted until it is dropped.
#[derive(Debug)]
struct Kept {
    payload: Bytes,
    counted: Arc<Waiting>,
}

impl Inlet {
    fn new(all: &Arc<AtomicUsize>) -> (Self, mpsc::Receiver<Kept>) {
        let (sender, datagrams) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Waiting { here: AtomicUsize::new(0), all: Arc::clone(all) });
        (Self { sender, waiting }, datagrams)
    }

    /// A flow that nobody reads loses what does not fit its queue. spec: ST-73
    fn put(&self, payload: &[u8]) {
        let Waiting { here, all } = &*self.waiting;
        let (own, left) = (here.load(Ordering::Relaxed), TABLE_BYTES.saturating_sub(all.load(Ordering::Relaxed)));
        // One that has nothing may have any datagram for which there is room.
        let most = if own == 0 { left } else { left / PART };
        if own + payload.len() > QUEUE_BYTES.min(most) {
            return;
        }
        here.fetch_add(payload.len(), Ordering::Relaxed);
        all.fetch_add(payload.len(), Ordering::Relaxed);
        // Copied out of the packets that it came with, all of which it would hold.
        let kept = Kept { payload: Bytes::copy_from_slice(payload), counted: Arc::clone(&self.waiting) };
        let _ = self.sender.try_send(kept);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let (length, Waiting { here, all }) = (self.payload.len(), &*self.counted);
        here.fetch_sub(length, Ordering::Relaxed);
        all.fetch_sub(length, Ordering::Relaxed);
    }
}

/// A place in the table, given back on drop.
#[derive(Debug)]
struct Entry {
    table: Arc<Table>,
    id: u64,
}

impl FlowTable {
    /// Reads datagrams from here on, also where no flow is open: what nobody reads would keep the packets that it came in.
    /// `most`: how many flows there may be; the first call decides.
    pub(super) fn begin(&self, quic: &quinn::Connection, most: usize) {
        self.table(quic, most);
    }

    /// As [`FlowTable::begin`].
    fn table(&self, quic: &quinn::Connection, most: usize) -> Arc<Table> {
        let table = self.0.get_or_init(|| {
            let flows = Mutex::new(Flows::new(FlowLimits { max_flows: most, ..FlowLimits::default() }));
            let table = Arc::new(Table { flows, waiting: Arc::default() });
            tokio::spawn(hand_out(quic.clone(), Arc::clone(&table)));
            table
        });
        Arc::clone(table)
    }

    /// Enters a flow that this end, the responder, opens, of which there may be so many. spec: ST-70
    pub(super) fn open(&self, quic: &quinn::Connection, most: usize) -> Result<FlowPlace, FlowError> {
        let table = self.table(quic, most);
        let (inlet, datagrams) = Inlet::new(&table.waiting);
        let id = table.lock().open(inlet, Instant::now())?;
        Ok(FlowPlace { quic: quic.clone(), entry: Arc::new(Entry { table, id }), datagrams, early: Vec::new() })
    }

    /// Enters a flow that the responder has opened, of which there may be so many. spec: ST-70, ST-71
    pub(super) fn accept(&self, quic: &quinn::Connection, id: u64, most: usize) -> Result<FlowPlace, FlowError> {
        let table = self.table(quic, most);
        let (inlet, datagrams) = Inlet::new(&table.waiting);
        table.lock().accept(id, inlet, Instant::now())?;
        Ok(FlowPlace { quic: quic.clone(), entry: Arc::new(Entry { table, id }), datagrams, early: Vec::new() })
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Flows<Inlet>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.lock().end(self.id);
    }
}

/// Hands out what arrives, until the connection is gone.
async fn hand_out(quic: quinn::Connection, table: Arc<Table>) {
    while let Ok(bytes) = quic.read_datagram().await {
        // spec: ST-40
        let Ok(datagram) = Datagram::decode(bytes) else { continue };
        if let Arrived::To(flow, payload) = table.lock().arrived(datagram, Instant::now()) {
            flow.put(&payload);
        }
    }
}

/// A flow's place in the table, and what came for it.
#[derive(Debug)]
pub(crate) struct FlowPlace {
    quic: quinn::Connection,
    entry: Arc<Entry>,
    datagrams: mpsc::Receiver<Kept>,
    early: Vec<Bytes>,
}

impl FlowPlace {
    /// The id of the flow.
    pub(super) fn id(&self) -> u64 {
        self.entry.id
    }

    /// OPENED was read: what came before it is handed on too. spec: ST-74
    pub(super) fn opened(&mut self) {
        self.early = self.entry.table.lock().opened(self.entry.id, Instant::now());
    }

    /// Both halves of the flow, once its stream is open.
    pub(crate) fn open(self, (send, recv): (SendHalf, ServiceRecv)) -> (FlowSend, FlowRecv) {
        let Self { quic, entry, datagrams, early } = self;
        let send = FlowSend { quic, send, entry: Arc::clone(&entry) };
        (send, FlowRecv { recv, datagrams, early: early.into(), _entry: entry })
    }
}

/// The sending half of a flow.
#[derive(Debug)]
pub(crate) struct FlowSend {
    quic: quinn::Connection,
    send: SendHalf,
    entry: Arc<Entry>,
}

impl FlowSend {
    /// spec: ST-72
    pub(crate) async fn send(&mut self, payload: Bytes) -> Result<(), SendError> {
        let flow = self.entry.id;
        let length = Datagram::overhead(flow) + payload.len();
        if self.quic.max_datagram_size().is_some_and(|max| length <= max) {
            let mut out = BytesMut::with_capacity(length);
            Datagram { flow, payload: payload.clone() }.encode(&mut out);
            match self.quic.send_datagram(out.freeze()) {
                Ok(()) => return Ok(()),
                Err(quinn::SendDatagramError::ConnectionLost(error)) => return Err(SendError::Lost(lost(&error))),
                // The path became narrower just now, or the peer takes none.
                Err(_) => {}
            }
        }
        let mut frame = BytesMut::new();
        stream::encode_datagram_header(payload.len(), &mut frame);
        let rest = one_if_small(&mut frame, payload);
        self.send.write_all(&mut [frame.freeze(), rest]).await
    }

    /// END, then FIN. spec: ST-75
    pub(crate) async fn finish(mut self) -> Result<(), SendError> {
        let mut end = BytesMut::new();
        stream::encode_end(&mut end);
        self.send.write(end.freeze()).await?;
        self.send.finish();
        Ok(())
    }

    pub(crate) fn reset(mut self, code: StreamCode) {
        self.send.reset(code);
    }
}

impl Drop for FlowSend {
    /// FIN ends a flow as well as END does, and needs no room. spec: ST-75
    fn drop(&mut self) {
        self.send.finish();
    }
}

/// The receiving half of a flow.
#[derive(Debug)]
pub(crate) struct FlowRecv {
    recv: ServiceRecv,
    datagrams: mpsc::Receiver<Kept>,
    /// What came before OPENED.
    early: VecDeque<Bytes>,
    _entry: Arc<Entry>,
}

impl Revoke for FlowRecv {
    fn revoke(self) {
        self.recv.revoke();
    }
}

impl FlowRecv {
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, RawError>> {
        if let Some(early) = self.early.pop_front() {
            return Poll::Ready(Ok(Some(early)));
        }
        if let Poll::Ready(Some(kept)) = self.datagrams.poll_recv(cx) {
            return Poll::Ready(Ok(Some(kept.payload.clone())));
        }
        Poll::Ready(match ready!(self.recv.poll_event(cx)).map_err(RawError::from) {
            Ok(ServiceEvent::Datagram(datagram)) => Ok(Some(datagram)),
            Ok(ServiceEvent::End) => {
                self.recv.complete();
                Ok(None)
            }
            // FIN without END. spec: ST-75
            Err(RawError::Cut) => Ok(None),
            // The reader yields no other behind OPEN and OPENED.
            Ok(_) => Err(RawError::Reset(StreamCode::Protocol)),
            Err(error) => Err(error),
        })
    }
}
