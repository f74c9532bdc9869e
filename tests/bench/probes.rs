//! Requests at a steady rate, each on a connection of its own, while something happens to the tunnel.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};

use crate::support::http1::get;
use crate::support::site::TO_NODE;

/// Between two requests.
const INTERVAL: Duration = Duration::from_millis(50);
/// More than a responder of Envoy gives an exchange.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    /// `None`: no answer, or none in time.
    pub(crate) status: Option<u16>,
}

impl Probe {
    pub(crate) fn is_good(self) -> bool {
        self.status == Some(200)
    }
}

/// Sends until it is told to stop.
pub(crate) struct Probes {
    done: Arc<Mutex<Vec<Probe>>>,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Probes {
    pub(crate) fn start(egress: SocketAddr) -> Self {
        let (done, stop) = (Arc::<Mutex<Vec<Probe>>>::default(), Arc::<Notify>::default());
        let task = tokio::spawn(send(egress, Arc::clone(&done), Arc::clone(&stop)));
        Self { done, stop, task }
    }

    /// Those that have ended, in the order in which they began.
    pub(crate) fn done(&self) -> Vec<Probe> {
        let mut done = self.done.lock().unwrap().clone();
        done.sort_by_key(|probe| probe.start);
        done
    }

    /// Sends no more, and waits for those under way.
    pub(crate) async fn finish(mut self) -> Vec<Probe> {
        self.stop.notify_one();
        (&mut self.task).await.unwrap();
        self.done()
    }
}

async fn send(egress: SocketAddr, done: Arc<Mutex<Vec<Probe>>>, stop: Arc<Notify>) {
    let (mut ticks, mut requests) = (interval(INTERVAL), JoinSet::new());
    loop {
        tokio::select! {
            () = stop.notified() => break,
            _ = ticks.tick() => {}
        }
        let done = Arc::clone(&done);
        requests.spawn(async move {
            let start = Instant::now();
            let response = timeout(PATIENCE, get(egress, "/echo", &[TO_NODE])).await;
            let status = response.ok().and_then(Result::ok).map(|response| response.status());
            done.lock().unwrap().push(Probe { start, end: Instant::now(), status });
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}
