//! A control channel in memory, with what can happen to a path.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::protocol::control::FrameType;

const INITIATOR: usize = 0;
const RESPONDER: usize = 1;

type Queue = mpsc::UnboundedSender<(Instant, Bytes)>;

/// What both ends have in common.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// How long bytes travel.
    delay: Duration,
    /// What the channel says about its round trip.
    rtt: Option<Duration>,
    loses: AtomicBool,
    stalls: watch::Sender<bool>,
    broken: watch::Sender<Option<CloseReason>>,
    /// Where the bytes of each end go, until it ends.
    queues: Mutex<[Option<Queue>; 2]>,
    pings: [AtomicU64; 2],
    heard: [AtomicU64; 2],
    closes: Mutex<Vec<(CloseReason, bool)>>,
}

impl Path {
    /// Bytes travel for this long.
    pub(super) fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// The channel knows its round trip, so that nobody probes for it.
    pub(super) fn measured(rtt: Duration) -> Self {
        Self { rtt: Some(rtt), ..Self::default() }
    }

    /// Whether bytes vanish on the way.
    pub(super) fn lose(&self, loses: bool) {
        self.loses.store(loses, SeqCst);
    }

    /// Whether the channel takes no bytes.
    pub(super) fn stall(&self, stalls: bool) {
        self.stalls.send_replace(stalls);
    }

    /// The connection is gone.
    pub(super) fn break_off(&self, reason: &CloseReason) {
        self.broken.send_replace(Some(reason.clone()));
    }

    /// The initiator's half of the control stream ends.
    pub(super) fn end_initiator(&self) {
        self.queues.lock().unwrap()[INITIATOR] = None;
    }

    /// The responder hears the peer on another stream.
    pub(super) fn hear_responder(&self) {
        self.heard[RESPONDER].fetch_add(1, SeqCst);
    }

    /// Bytes arrive at the responder that the initiator's session did not send.
    pub(super) fn inject_to_responder(&self, bytes: Bytes) {
        self.deliver(INITIATOR, bytes);
    }

    /// What was closed how, in order: the reason, and whether the peer said so.
    pub(super) fn closes(&self) -> Vec<(CloseReason, bool)> {
        self.closes.lock().unwrap().clone()
    }

    /// How many probes the responder has sent.
    pub(super) fn pings_of_responder(&self) -> u64 {
        self.pings[RESPONDER].load(SeqCst)
    }

    fn deliver(&self, from: usize, bytes: Bytes) {
        if let Some(queue) = &self.queues.lock().unwrap()[from] {
            let _ = queue.send((Instant::now() + self.delay, bytes));
        }
    }
}

/// One end of the channel.
#[derive(Debug)]
pub(super) struct Line {
    path: Arc<Path>,
    who: usize,
    incoming: mpsc::UnboundedReceiver<(Instant, Bytes)>,
    /// What is under way next.
    next: Option<(Instant, Bytes)>,
}

/// The initiator's and the responder's end.
pub(super) fn line(path: &Arc<Path>) -> (Line, Line) {
    let ((to_responder, at_responder), (to_initiator, at_initiator)) =
        (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    *path.queues.lock().unwrap() = [Some(to_responder), Some(to_initiator)];
    let end = |who, incoming| Line { path: Arc::clone(path), who, incoming, next: None };
    (end(INITIATOR, at_initiator), end(RESPONDER, at_responder))
}

impl Line {
    /// Bytes go out that this end's session did not send.
    pub(super) fn inject(&self, bytes: Bytes) {
        self.path.deliver(self.who, bytes);
    }

    async fn arrived(&mut self) -> Option<Bytes> {
        if self.next.is_none() {
            self.next = Some(self.incoming.recv().await?);
        }
        if let Some((at, _)) = &self.next {
            sleep_until(*at).await;
        }
        self.next.take().map(|(_, bytes)| bytes)
    }
}

impl Channel for Line {
    async fn send(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        let mut stalls = self.path.stalls.subscribe();
        tokio::select! {
            biased;
            flows = stalls.wait_for(|stalls| !stalls) => drop(flows),
            reason = self.gone() => return Err(reason),
        }
        if bytes.first().copied().map(u64::from) == Some(FrameType::Ping.number()) {
            self.path.pings[self.who].fetch_add(1, SeqCst);
        }
        if !self.path.loses.load(SeqCst) {
            self.path.deliver(self.who, bytes);
        }
        Ok(())
    }

    /// What was sent before the end still arrives.
    async fn receive(&mut self) -> Result<Option<Bytes>, CloseReason> {
        let path = Arc::clone(&self.path);
        let mut broken = path.broken.subscribe();
        tokio::select! {
            biased;
            bytes = self.arrived() => {
                if bytes.is_some() {
                    path.heard[self.who].fetch_add(1, SeqCst);
                }
                Ok(bytes)
            }
            reason = broken.wait_for(Option::is_some) => Err(reason.unwrap().clone().unwrap()),
        }
    }

    async fn gone(&self) -> CloseReason {
        let mut broken = self.path.broken.subscribe();
        broken.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    fn heard(&mut self) -> u64 {
        self.path.heard[self.who].load(SeqCst)
    }

    fn pulse(&self) -> Pulse {
        let (path, who) = (Arc::clone(&self.path), self.who);
        Box::new(move || path.heard[who].load(SeqCst))
    }

    fn rtt(&self) -> Option<Duration> {
        self.path.rtt
    }

    /// The path carries the news of the end unless it loses everything.
    async fn close(&mut self, reason: &CloseReason, by_peer: bool) {
        self.path.closes.lock().unwrap().push((reason.clone(), by_peer));
        if !self.path.loses.load(SeqCst) {
            self.path.broken.send_if_modified(|broken| broken.is_none() && broken.replace(reason.clone()).is_none());
        }
    }
}
