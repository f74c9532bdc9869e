//! The bad parties. Each comes again when it is turned away.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::place::Place;
use crate::support::site::TO_NODE;
use crate::thread::on_own_thread;

/// All of them, as `--parties` names them.
pub(crate) const NAMES: [&str; 6] = ["readers", "uploads", "slow-posts", "silent", "interim", "admin"];

/// A body that nobody ever sends or takes whole.
const BODY: usize = 64 << 20;
/// Before one that was turned away comes again.
const AGAIN: Duration = Duration::from_millis(200);

/// One kind of them.
struct Kind {
    name: &'static str,
    many: usize,
    attack: Attack,
}

#[derive(Clone, Copy)]
enum Attack {
    /// Sends this and reads nothing.
    ReadNothing(SocketAddr, &'static str),
    /// Sends a body as fast as it is taken, to a service that takes none.
    Upload(SocketAddr),
    /// Sends a byte of a body each second.
    SlowPost(SocketAddr),
    /// Connects and says nothing.
    Silent(SocketAddr),
    /// Asks for what never comes, and reads all that does.
    Interim(SocketAddr),
}

/// They stop when this is dropped.
pub(crate) struct Attackers {
    _stop: mpsc::Sender<()>,
    counts: Vec<(&'static str, usize, Arc<AtomicUsize>)>,
}

impl Attackers {
    pub(crate) fn start(wanted: &[String], place: &Place) -> Self {
        let kinds = kinds(place).into_iter().filter(|kind| wanted.iter().any(|name| name == kind.name));
        let (stop, mut stopped) = mpsc::channel::<()>(1);
        let kinds: Vec<(Kind, Arc<AtomicUsize>)> = kinds.map(|kind| (kind, Arc::default())).collect();
        let counts = kinds.iter().map(|(kind, turned)| (kind.name, kind.many, Arc::clone(turned))).collect();
        on_own_thread("attackers", async move |started| {
            let mut tasks = tokio::task::JoinSet::new();
            for (kind, turned) in kinds {
                for _ in 0..kind.many {
                    tasks.spawn(for_ever(kind.attack, Arc::clone(&turned)));
                }
            }
            started.send(()).unwrap();
            stopped.recv().await;
        });
        Self { _stop: stop, counts }
    }

    /// How many of each there were, and how often they were turned away.
    pub(crate) fn said(&self) -> String {
        let counts = self.counts.iter();
        let counts = counts.map(|(name, many, turned)| {
            format!("{many} {name} (turned away {} times)", turned.load(Ordering::Relaxed))
        });
        counts.collect::<Vec<_>>().join(", ")
    }
}

fn kinds(place: &Place) -> [Kind; 6] {
    let Place { egress, tunnels, admin, .. } = *place;
    let attacks = [
        (100, Attack::ReadNothing(egress, "/big")),
        (100, Attack::Upload(egress)),
        (100, Attack::SlowPost(egress)),
        (2000, Attack::Silent(tunnels)),
        (1, Attack::Interim(egress)),
        (64, Attack::ReadNothing(admin, "/metrics")),
    ];
    let mut names = NAMES.into_iter();
    attacks.map(|(many, attack)| Kind { name: names.next().expect("one for each"), many, attack })
}

async fn for_ever(attack: Attack, turned: Arc<AtomicUsize>) {
    loop {
        let _ = attack.run().await;
        turned.fetch_add(1, Ordering::Relaxed);
        sleep(AGAIN).await;
    }
}

impl Attack {
    /// Until it is turned away.
    async fn run(self) -> io::Result<()> {
        match self {
            Self::ReadNothing(to, path) => read_nothing(to, path).await,
            Self::Upload(to) => {
                let mut stream = post(to, "/hold").await?;
                loop {
                    stream.write_all(&[b'u'; 16 << 10]).await?;
                }
            }
            Self::SlowPost(to) => {
                let mut stream = post(to, "/slow").await?;
                loop {
                    stream.write_all(b"s").await?;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Self::Silent(to) => read_all(&mut TcpStream::connect(to).await?).await,
            Self::Interim(to) => {
                let mut stream = TcpStream::connect(to).await?;
                stream.write_all(head("GET", "/interim", "").as_bytes()).await?;
                read_all(&mut stream).await
            }
        }
    }
}

/// Asks again and again on one connection until nothing more is taken, and then waits for a reset.
async fn read_nothing(to: SocketAddr, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    let request = head("GET", path, "");
    // Room for requests ends long before this where answers are not read.
    for _ in 0..100_000 {
        stream.write_all(request.as_bytes()).await?;
    }
    stream.writable().await
}

async fn read_all(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

async fn post(to: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(head("POST", path, &format!("content-length: {BODY}\r\n")).as_bytes()).await?;
    Ok(stream)
}

fn head(method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{TO_NODE}\r\n{fields}\r\n")
}
