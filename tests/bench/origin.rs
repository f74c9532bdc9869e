//! A target that makes what it sends, hashes what it gets, and knows which exchanges were cancelled.
//!
//! | path | does |
//! |---|---|
//! | `/digest` | answers with the SHA-256 of the request body |
//! | `/echo` | answers with the request body and its trailers |
//! | `/content/SEED/BYTES` | sends content, and remembers the SHA-256 of what it sent |
//! | `/crowd/FATE/ID` | answers with the request body, once the gate is open; see [`crate::crowd`] |

mod bodies;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use http::{HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::content::{Content, Hasher};
use crate::crowd::Fate;
use crate::thread::on_own_thread;
use bodies::{Generated, Held};

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// A running target; it lives as long as the benchmark.
#[derive(Clone)]
pub(crate) struct Origin {
    address: SocketAddr,
    seen: Arc<Seen>,
}

/// What came to the target, and what it waits for.
#[derive(Default)]
struct Seen {
    /// By seed.
    sums: Mutex<HashMap<u64, String>>,
    crowd: watch::Sender<Crowd>,
}

/// The exchanges of `/crowd`.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// Those whose body has begun to arrive.
    pub(crate) begun: BTreeSet<u64>,
    pub(crate) cancelled: BTreeSet<u64>,
    /// Whether they get their answers.
    pub(crate) open: bool,
}

impl Origin {
    pub(crate) fn start() -> Self {
        let seen = Arc::<Seen>::default();
        let address = on_own_thread("origin", {
            let seen = Arc::clone(&seen);
            async move |started| {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                started.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream, Arc::clone(&seen)));
                }
            }
        });
        Self { address, seen }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The SHA-256 of what was sent of this seed; `None` unless all of it was.
    pub(crate) fn sum_of_sent(&self, seed: u64) -> Option<String> {
        self.seen.sums.lock().unwrap().get(&seed).cloned()
    }

    pub(crate) fn crowd(&self) -> watch::Receiver<Crowd> {
        self.seen.crowd.subscribe()
    }

    pub(crate) fn open_gate(&self) {
        self.seen.crowd.send_modify(|crowd| crowd.open = true);
    }
}

/// A connection that breaks is what cancellation looks like from here.
async fn serve(stream: TcpStream, seen: Arc<Seen>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<AnyBody>, hyper::Error> {
    let (head, body) = request.into_parts();
    let parts: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["digest"] => digest(body).await,
        ["echo"] => echo(body).await,
        ["content", seed, length] => {
            let content = Content { seed: seed.parse().unwrap() };
            let length = length.parse().unwrap();
            Ok(sized(Generated::new(content, length, seen).boxed_unsync(), length))
        }
        ["crowd", fate, id] => {
            let exchange = Exchange { id: id.parse().unwrap(), complete: false, seen };
            join_crowd(body, fate.parse().unwrap(), exchange).await
        }
        _ => panic!("not a path of this target: {}", head.uri.path()),
    }
}

async fn digest(mut body: Incoming) -> Result<Response<AnyBody>, hyper::Error> {
    let mut hasher = Hasher::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            hasher.update(data);
        }
    }
    Ok(whole(hasher.sum().into()))
}

async fn echo(body: Incoming) -> Result<Response<AnyBody>, hyper::Error> {
    let body = body.collect().await?;
    let trailers: Vec<_> = body.trailers().into_iter().flat_map(|trailers| trailers.keys()).cloned().collect();
    let mut response = Response::new(body.boxed_unsync());
    for name in trailers {
        response.headers_mut().append(http::header::TRAILER, name.into());
        // A body with a length has no room for them.
        response.headers_mut().insert(http::header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(response)
}

async fn join_crowd(mut body: Incoming, fate: Fate, mut exchange: Exchange) -> Result<Response<AnyBody>, hyper::Error> {
    let mut received = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            exchange.begin();
            received.extend_from_slice(data);
        }
    }
    let received = received.freeze();
    if fate == Fate::CutDownload {
        let (length, half) = (received.len() as u64, received.slice(..received.len() / 2));
        return Ok(sized(Held::new(half, exchange).boxed_unsync(), length));
    }
    let mut crowd = exchange.seen.crowd.subscribe();
    let _ = crowd.wait_for(|crowd| crowd.open).await;
    exchange.complete = true;
    Ok(whole(received))
}

fn whole(body: Bytes) -> Response<AnyBody> {
    Response::new(Full::from(body).boxed_unsync())
}

fn sized(body: AnyBody, length: u64) -> Response<AnyBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    response
}

/// One of the crowd; counts as cancelled when it is dropped before it is complete.
struct Exchange {
    id: u64,
    complete: bool,
    seen: Arc<Seen>,
}

impl Exchange {
    fn begin(&self) {
        self.seen.crowd.send_if_modified(|crowd| crowd.begun.insert(self.id));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.complete {
            self.seen.crowd.send_if_modified(|crowd| crowd.cancelled.insert(self.id));
        }
    }
}
