//! What the two tenants do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::place::Way;
use crate::steady::{self, Seen};
use crate::support::http1::RawHttp;
use crate::thread::block_on;

/// Nobody waits longer; what has no answer by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a download is read at a time.
const PIECE: usize = 64 << 10;
/// How long the greedy tenant has been at it before the other one is measured.
const HEAD_START: Duration = Duration::from_secs(3);

/// The modest tenant: asks `rate` times a second for `time`, each time on a connection of its own.
pub(crate) async fn ask(way: &Way, rate: u32, time: Duration) -> Seen {
    let once = || {
        let way = way.clone();
        async move {
            let mut client = RawHttp::connect(way.egress).await?;
            client.send(format!("GET / HTTP/1.1\r\n{}connection: close\r\n\r\n", way.fields).as_bytes()).await?;
            client.response().await
        }
    };
    steady::ask(rate, (time, PATIENCE), once).await
}

/// The greedy tenant, on a thread of its own.
pub(crate) struct Greedy {
    answers: Arc<AtomicU64>,
    before: u64,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Greedy {
    /// Returns when it has been at it for a while.
    pub(crate) fn start(way: Way, requests: usize, downloads: usize) -> Self {
        let (answers, (stop, stopped)) = (Arc::<AtomicU64>::default(), oneshot::channel());
        let counted = Arc::clone(&answers);
        let run = move || {
            block_on(async {
                let mut tasks = JoinSet::new();
                for index in 0..requests + downloads {
                    let path = if index < requests { "/" } else { "/bulk" };
                    let (way, answers) = (way.clone(), Arc::clone(&counted));
                    tasks.spawn(async move {
                        // Refused or cut, it comes again.
                        loop {
                            drop(go_on(&way, path, &answers).await);
                        }
                    });
                }
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("tenant a".to_owned()).spawn(run).unwrap();
        std::thread::sleep(HEAD_START);
        let before = answers.load(Ordering::Relaxed);
        Self { answers, before, stop, thread }
    }

    /// How many answers it got since it was started.
    pub(crate) fn stop(self) -> u64 {
        let answers = self.answers.load(Ordering::Relaxed) - self.before;
        let _ = self.stop.send(());
        self.thread.join().unwrap();
        answers
    }
}

async fn go_on(way: &Way, path: &str, answers: &AtomicU64) -> io::Result<()> {
    let mut client: RawHttp<TcpStream> = RawHttp::connect(way.egress).await?;
    let request = format!("GET {path} HTTP/1.1\r\n{}\r\n", way.fields);
    loop {
        client.send(request.as_bytes()).await?;
        let head = client.head().await?;
        let mut left: usize = head.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while left > 0 {
            let piece = left.min(PIECE);
            client.exactly(piece).await?;
            left -= piece;
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
}
