//! The listeners of an egress: a set of which some can be added and removed while it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::egress::http3::Http3Socket;
use crate::egress::listener::{Listener, Slot};
use crate::egress::{End, ExchangeService, lock};
use crate::lifecycle::{Drain, DrainGuard, DrainWatch, Drained};

/// A set of listeners, each with who answers there.
pub(super) struct Entrances<S> {
    state: Mutex<State<S>>,
    /// There is a listener that nobody runs yet.
    added: Notify,
}

struct State<S> {
    open: BTreeMap<SocketAddr, Entrance<S>>,
    /// No listener is taken any more.
    over: bool,
}

/// One listener.
struct Entrance<S> {
    drain: Drain,
    closed: CancellationToken,
    http3: Arc<Slot>,
    /// Until it runs.
    waiting: Option<Waiting<S>>,
}

/// A bound listener that nobody runs yet.
struct Waiting<S> {
    listener: Listener,
    service: S,
    watch: DrainWatch,
    guard: DrainGuard,
}

/// The egress drains, or is gone.
#[derive(Debug)]
pub(super) struct Over;

/// A listener that was removed. What its connections still carry goes on without this being held.
#[derive(Debug)]
#[must_use = "its connections are left to themselves"]
pub struct Leaving(Drain);

impl Leaving {
    /// Returns when its last connection is done, at the latest when the limit of the removal has passed: what is left is cut
    /// then.
    ///
    /// # Cancel safety
    /// Cancel safe: the limit holds all the same.
    pub async fn ended(self) -> Drained {
        // It drains already; the first limit counts.
        self.0.drain(Duration::ZERO).await
    }
}

impl<S: ExchangeService> Entrances<S> {
    pub(super) fn new() -> Self {
        let state = State { open: BTreeMap::new(), over: false };
        Self { state: Mutex::new(state), added: Notify::new() }
    }

    /// Takes a listener in. Its socket is bound; connections are accepted once the set runs.
    pub(super) fn add(&self, address: SocketAddr, listener: Listener, service: S) -> Result<(), Over> {
        let drain = Drain::new();
        let (watch, guard) = (drain.watch(), drain.watch().guard());
        let (closed, http3) = (listener.closed(), listener.http3());
        let waiting = Some(Waiting { listener, service, watch, guard });
        let mut state = self.lock();
        if state.over {
            return Err(Over);
        }
        state.open.insert(address, Entrance { drain, closed, http3, waiting });
        self.added.notify_one();
        Ok(())
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.lock().open.keys().copied().collect()
    }

    /// The UDP sockets that there are.
    pub(super) fn sockets(&self) -> Vec<Http3Socket> {
        self.lock().open.values().filter_map(|entrance| entrance.http3.socket()).collect()
    }

    /// Those that have no UDP socket yet, each with where it takes one.
    pub(super) fn without_http3(&self) -> Vec<(SocketAddr, Arc<Slot>)> {
        let state = self.lock();
        let without = state.open.iter().filter(|(_, entrance)| !entrance.http3.is_taken());
        without.map(|(address, entrance)| (*address, Arc::clone(&entrance.http3))).collect()
    }

    /// Takes a listener out, and returns once its socket is closed, with the one over UDP. `None` if there is none at that
    /// address.
    ///
    /// Cancel safe: the listener leaves all the same.
    pub(super) async fn remove(&self, address: SocketAddr, limit: Duration) -> Option<(Leaving, Option<Http3Socket>)> {
        let Entrance { drain, closed, waiting, http3 } = self.lock().open.remove(&address)?;
        drop(waiting);
        drain.begin(limit);
        let enforced = drain.clone();
        tokio::spawn(async move { enforced.drain(limit).await });
        closed.cancelled().await;
        Some((Leaving(drain), http3.socket()))
    }

    /// Runs what is in the set, and what is added, until a drain is announced; then until the last connection is done.
    ///
    /// Cancel safety: dropping the future drops every listening socket and connection.
    pub(super) async fn run(&self, drain: &DrainWatch) {
        let (mut running, leaving) = (JoinSet::new(), drain.leaving());
        let mut left = false;
        loop {
            for waiting in self.waiting() {
                running.spawn(waiting.run());
            }
            tokio::select! {
                biased;
                () = drain.announced() => break,
                () = leaving.cancelled(), if !left => {
                    left = true;
                    self.lock().open.values().for_each(|entrance| entrance.drain.leave());
                }
                _ = running.join_next(), if !running.is_empty() => {}
                () = self.added.notified() => {}
            }
        }
        self.end(drain.remaining());
        while running.join_next().await.is_some() {}
    }

    /// Takes no listener any more, and drains those there are.
    pub(super) fn end(&self, limit: Duration) {
        let mut state = self.lock();
        state.over = true;
        for entrance in state.open.values_mut() {
            entrance.waiting = None;
            entrance.drain.begin(limit);
        }
    }

    fn waiting(&self) -> Vec<Waiting<S>> {
        self.lock().open.values_mut().filter_map(|entrance| entrance.waiting.take()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        lock(&self.state)
    }
}

impl<S: ExchangeService> Waiting<S> {
    async fn run(self) {
        tokio::select! {
            () = self.listener.run(self.service, End { leaving: self.watch.leaving(), drain: self.watch.token() }) => {}
            () = self.watch.expired() => {}
        }
        drop(self.guard);
    }
}
