//! A receiving half that its ledger can see, and end while the consumer is busy elsewhere.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Instant;

use super::{Ledger, Terms};

/// What a ledger may ask of a stream that it watches.
pub(super) trait Lane: fmt::Debug + Send + Sync {
    fn gauge(&self) -> &Gauge;

    /// What waits for its consumer; nothing, if it has asked for more since it was looked at.
    fn unread(&self) -> Unread;

    /// Ends the stream: what waits for its consumer is given up with its credit, and the peer is told to stop. Whether it
    /// did: a consumer that has asked for more since it was looked at waits for what comes, and nobody would wake it.
    fn revoke(&self) -> bool;
}

/// How a consumer keeps up.
#[derive(Debug)]
pub(super) struct Gauge {
    taken: AtomicU64,
    /// It asked for more than there was, or there is no more.
    waits: AtomicBool,
    /// Until when what its consumer was given waits for a rate that this end keeps.
    deferred_until: Mutex<Option<Instant>>,
    /// The half is gone.
    is_over: AtomicBool,
}

impl Gauge {
    fn new(waits: bool) -> Self {
        let (deferred_until, is_over) = (Mutex::new(None), AtomicBool::new(false));
        Self { taken: AtomicU64::new(0), waits: AtomicBool::new(waits), deferred_until, is_over }
    }

    /// Whether the stream is held back, and the bytes that its consumer has taken.
    pub(super) fn read(&self) -> (bool, u64) {
        (!self.waits.load(Ordering::Relaxed), self.taken.load(Ordering::Relaxed))
    }

    /// Whether its consumer does not come back because this end keeps it waiting.
    pub(super) fn is_deferred(&self, now: Instant) -> bool {
        self.deferred_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    /// Whether there is nothing to watch any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn note(&self, waits: bool, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        self.waits.store(waits, Ordering::Relaxed);
    }
}

/// What waits for the consumer of a receiving half inside the transport's library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Unread {
    /// Nothing: whether its consumer comes back matters to nobody.
    Nothing,
    /// No more than this, bytes of the connection's credit.
    Little(u64),
    /// More, or nobody knows.
    Much,
}

/// As much that waits is little, bytes. spec: SE-11
pub(in crate::transport) const LITTLE: usize = 4 * 1024;

/// Of so many bytes that are known to wait.
pub(in crate::transport) const fn unread(bytes: usize) -> Unread {
    match bytes {
        0 => Unread::Nothing,
        1..=LITTLE => Unread::Little(bytes as u64),
        _ => Unread::Much,
    }
}

/// A receiving half that can be looked into and ended from outside.
pub(in crate::transport) trait Revoke: fmt::Debug + Send + 'static {
    /// What waits for a consumer who does not come back. It may be taken out of the library, up to [`LITTLE`].
    fn unread(&mut self) -> Unread {
        Unread::Much
    }

    /// Gives up the rest, and tells the peer `limit`, or what comes closest.
    fn revoke(self);
}

/// The stream was ended because its consumer took too little for too long. spec: SE-11, SE-12
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct Revoked;

/// A receiving half as its ledger sees it.
#[derive(Debug)]
pub(in crate::transport) struct Watched<S> {
    gauge: Gauge,
    /// `None` once it was ended.
    half: Mutex<Option<S>>,
}

impl<S> Watched<S> {
    fn lock(&self) -> MutexGuard<'_, Option<S>> {
        self.half.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Watched<S> {
    fn take(&self) -> Option<S> {
        self.gauge.is_over.store(true, Ordering::Relaxed);
        self.lock().take()
    }
}

impl<S: Revoke> Lane for Watched<S> {
    fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    fn unread(&self) -> Unread {
        let mut place = self.lock();
        // A consumer that has asked in vain meanwhile waits to be woken, which a look into the half would undo.
        let (is_held, _) = self.gauge.read();
        place.as_mut().filter(|_| is_held).map_or(Unread::Nothing, S::unread)
    }

    fn revoke(&self) -> bool {
        let mut place = self.lock();
        let (is_held, _) = self.gauge.read();
        let Some(half) = place.take_if(|_| is_held) else { return false };
        self.gauge.is_over.store(true, Ordering::Relaxed);
        drop(place);
        half.revoke();
        true
    }
}

/// Where the consumer has its receiving half.
#[derive(Debug)]
pub(in crate::transport) enum Place<S> {
    /// It is too short to matter to others, or over.
    Own(S),
    Watched(Arc<Watched<S>>),
}

impl<S: Revoke> Place<S> {
    /// Puts a receiving half under the eyes of a ledger.
    pub(in crate::transport) fn watched(half: S, ledger: &Ledger, terms: Terms) -> Self {
        let watched = Arc::new(Watched { gauge: Gauge::new(!terms.begins_held), half: Mutex::new(Some(half)) });
        let lane: Weak<Watched<S>> = Arc::downgrade(&watched);
        ledger.watch(lane, terms);
        Self::Watched(watched)
    }

    /// Asks the half for something that its consumer wants; `bytes` says how much of that is payload.
    pub(in crate::transport) fn poll<T>(
        &mut self,
        ask: impl FnOnce(&mut S) -> Poll<T>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Result<Poll<T>, Revoked> {
        let watched = match self {
            Self::Own(half) => return Ok(ask(half)),
            Self::Watched(watched) => watched,
        };
        let mut half = watched.lock();
        let polled = ask(half.as_mut().ok_or(Revoked)?);
        match &polled {
            Poll::Pending => watched.gauge.note(true, 0),
            Poll::Ready(given) => watched.gauge.note(false, bytes(given)),
        }
        Ok(polled)
    }

    /// Looks at the half without taking anything; `None` once it was ended.
    pub(in crate::transport) fn with<T>(&mut self, look: impl FnOnce(&mut S) -> T) -> Option<T> {
        match self {
            Self::Own(half) => Some(look(half)),
            Self::Watched(watched) => watched.lock().as_mut().map(look),
        }
    }

    /// As [`Place::with`], of a half that stays as it is.
    pub(in crate::transport) fn look<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        match self {
            Self::Own(half) => Some(look(half)),
            Self::Watched(watched) => watched.lock().as_ref().map(look),
        }
    }

    /// The half itself; `None` once it was ended.
    pub(in crate::transport) fn into_inner(self) -> Option<S> {
        match self {
            Self::Own(half) => Some(half),
            Self::Watched(watched) => watched.take(),
        }
    }

    /// Says until when its consumer is kept waiting by this end: it is not to blame for what it does not take before then.
    pub(in crate::transport) fn defer(&self, until: Instant) {
        if let Self::Watched(watched) = self {
            *watched.gauge.deferred_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
    }

    /// Nothing more comes, which its consumer knows: there is nobody whom the stream holds up.
    pub(in crate::transport) fn rests(&self) {
        if let Self::Watched(watched) = self {
            watched.gauge.note(true, 0);
        }
    }
}
