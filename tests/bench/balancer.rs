//! Clients at a steady rate behind a balancer that asks each responder whether it is ready.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::support::http1::get;

/// Between two questions whether a responder is ready.
const CHECK: Duration = Duration::from_millis(100);
/// Nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a responder takes requests, and where it says whether it is ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Responder {
    pub(crate) egress: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    /// What came instead of 200.
    pub(crate) outcome: Result<(), Lost>,
}

/// A request without a good answer.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    /// The status, or what the connection met.
    pub(crate) what: String,
    /// What the answer's `proxy-status` says.
    pub(crate) cause: Option<String>,
    /// Which of the responders was asked last; `None`: no connection was made.
    pub(crate) responder: Option<usize>,
}

impl Lost {
    fn at(responder: usize, what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None, responder: Some(responder) }
    }
}

/// Sends until it is told to stop.
pub(crate) struct Balancer {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
    checks: JoinSet<()>,
}

struct Backend {
    at: Responder,
    ready: AtomicBool,
}

impl Balancer {
    /// Asks for each of these nodes in turn.
    pub(crate) async fn start(responders: Vec<Responder>, rate: u32, nodes: Vec<String>) -> Self {
        let backends = responders.into_iter().map(|at| Backend { at, ready: AtomicBool::new(true) });
        let backends: Arc<[Backend]> = backends.collect();
        let mut checks = JoinSet::new();
        for index in 0..backends.len() {
            checks.spawn(check(Arc::clone(&backends), index));
        }
        let (asked, stop) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<Notify>::default());
        let fields = nodes.into_iter().map(|node| format!("x-node-id: {node}")).collect();
        let task = tokio::spawn(send((backends, fields), rate, Arc::clone(&asked), Arc::clone(&stop)));
        Self { asked, stop, task, checks }
    }

    /// Sends no more, waits for those under way, and gives all in the order in which they began.
    pub(crate) async fn finish(mut self) -> Vec<Asked> {
        self.stop.notify_one();
        self.task.await.unwrap();
        self.checks.shutdown().await;
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort_by_key(|asked| asked.start);
        asked
    }
}

async fn check(backends: Arc<[Backend]>, index: usize) {
    let backend = &backends[index];
    loop {
        let answer = timeout(PATIENCE, get(backend.at.admin, "/ready", &[])).await;
        let ready = matches!(answer, Ok(Ok(answer)) if answer.status() == 200);
        backend.ready.store(ready, Ordering::Relaxed);
        sleep(CHECK).await;
    }
}

async fn send(
    (backends, fields): (Arc<[Backend]>, Arc<[String]>),
    rate: u32,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<Notify>,
) {
    let (mut turns, mut requests) = (interval(Duration::from_secs(1) / rate), JoinSet::new());
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for turn in 0_usize.. {
        tokio::select! {
            () = stop.notified() => break,
            _ = turns.tick() => {}
        }
        let (backends, fields, asked) = (Arc::clone(&backends), Arc::clone(&fields), Arc::clone(&asked));
        requests.spawn(async move {
            let start = Instant::now();
            // Each node through each responder.
            let field = &fields[turn / backends.len() % fields.len()];
            let outcome = ask(&backends, turn, field).await;
            asked.lock().unwrap().push(Asked { start, end: Instant::now(), outcome });
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

/// In turn among those that are ready; all where none is. What cannot be connected to is left out at once.
async fn ask(backends: &[Backend], turn: usize, field: &str) -> Result<(), Lost> {
    let mut last = Lost { what: "no responder".to_owned(), cause: None, responder: None };
    for attempt in 0..backends.len() {
        let is_ready = |index: &usize| backends[*index].ready.load(Ordering::Relaxed);
        let ready: Vec<usize> = (0..backends.len()).filter(is_ready).collect();
        let index = match ready.as_slice() {
            [] => (turn + attempt) % backends.len(),
            ready => ready[(turn + attempt) % ready.len()],
        };
        let backend = &backends[index];
        match timeout(PATIENCE, get(backend.at.egress, "/", &[field, "connection: close"])).await {
            Ok(Ok(answer)) if answer.status() == 200 => return Ok(()),
            Ok(Ok(answer)) => {
                let cause = answer.field("proxy-status").map(str::to_owned);
                return Err(Lost { cause, ..Lost::at(index, answer.status().to_string()) });
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                backend.ready.store(false, Ordering::Relaxed);
                last = Lost::at(index, "refused");
            }
            Ok(Err(error)) => return Err(Lost::at(index, error.kind().to_string())),
            Err(_) => return Err(Lost::at(index, format!("no answer within {PATIENCE:?}"))),
        }
    }
    Err(last)
}
