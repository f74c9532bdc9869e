//! Services to put behind an initiator.
//!
//! | path | does |
//! |---|---|
//! | `/echo` | streams the request body back, trailers included |
//! | `/request` | the request as JSON: method, uri, fields |
//! | `/status/N` | an empty answer with this status |
//! | `/bytes/N` | N bytes of [`pattern`] with a content-length |
//! | `/chunks/N/MS` | N numbered lines, MS milliseconds apart, without a length |
//! | `/slow/MS` | answers after MS milliseconds |
//! | `/fields/N/L` | an empty answer with N fields of L bytes, `x-0` and so on |
//! | `/hang` | never answers |
//! | `/cut/N` | promises more, and breaks off after N bytes |
//! | `/held` | begins to answer at once, and ends when the test says so: [`Target::release`] |
//! | `/trailers` | a body with a trailer `x-sum` |
//! | `/sink` | reads the request body and says how long it was |

mod answers;
pub(crate) mod pieces;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::eventually::eventually;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A running target. Its connections end when it is dropped.
pub(crate) struct Target {
    address: SocketAddr,
    seen: Arc<Seen>,
    tasks: JoinSet<()>,
}

/// What came to a target.
#[derive(Default)]
pub(crate) struct Seen {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    cancelled: AtomicUsize,
    released: CancellationToken,
}

#[derive(Clone, Copy)]
enum Version {
    Http1,
    Http2,
}

impl Target {
    /// Speaks HTTP/1.1.
    pub(crate) async fn http1() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), Version::Http1)
    }

    /// Speaks HTTP/1.1, where one was that is gone: whoever was given its port meanwhile, by chance, is waited for.
    pub(crate) async fn http1_at(address: SocketAddr) -> Self {
        let free = async || TcpListener::bind(address).await.ok();
        Self::on(eventually("that the address is free", free).await, Version::Http1)
    }

    /// Speaks HTTP/2 in clear, from the first byte.
    pub(crate) async fn h2c() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), Version::Http2)
    }

    fn on(listener: TcpListener, version: Version) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, version, Arc::clone(&seen)));
        Self { address, seen, tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it. When this returns nothing listens there any more; after a drop alone that is so a moment later, and
    /// who connects in that moment is reset and not refused.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// Ends the answers of `/held`, also those to come.
    pub(crate) fn release(&self) {
        self.seen.released.cancel();
    }

    /// `METHOD path` of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Exchanges that ended before their response was sent to its end.
    pub(crate) fn cancelled(&self) -> usize {
        self.seen.cancelled.load(Ordering::Relaxed)
    }
}

/// `length` bytes of a body that starts `at` bytes in: cheap to make anywhere, and no piece equals its neighbour.
pub(crate) fn pattern(at: u64, length: u64) -> Vec<u8> {
    (at..at + length).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

async fn accept(listener: TcpListener, version: Version, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        seen.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(stream, version, Arc::clone(&seen)));
        while connections.try_join_next().is_some() {}
    }
}

/// Failures of a connection are what tests provoke; they are judged by what the other end sees.
async fn serve(stream: TcpStream, version: Version, seen: Arc<Seen>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: http::Request<Incoming>| {
        seen.requests.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        answers::answer(request, Cancellation { seen: Arc::clone(&seen), complete: false })
    });
    let io = TokioIo::new(stream);
    match version {
        Version::Http1 => {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        }
        Version::Http2 => {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(io, service).await;
        }
    }
}

/// Lives as long as one exchange, and counts it as cancelled unless it was completed.
struct Cancellation {
    seen: Arc<Seen>,
    complete: bool,
}

impl Drop for Cancellation {
    fn drop(&mut self) {
        if !self.complete {
            self.seen.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}
