//! A listener on loopback and a client that writes and reads raw bytes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::listener::Listener;
use super::{ConnectionInfo, Context as ExchangeContext, ExchangeService, RequestBody, Settings};
use crate::message::BoxError;
use crate::message::violation::Violation;

pub(super) type TestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Nothing on loopback takes this long, however busy the machine is.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) drain: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

pub(super) async fn serve<S: ExchangeService>(service: S) -> Server {
    serve_with(service, Settings::default(), None).await
}

pub(super) async fn serve_with<S: ExchangeService>(
    service: S,
    settings: Settings,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Server {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::new(tcp, tls, settings);
    let address = listener.local_addr().unwrap();
    let drain = CancellationToken::new();
    let task = tokio::spawn(listener.run(service, drain.clone().into()));
    Server { address, drain, task }
}

impl Server {
    pub(super) async fn connect(&self) -> Wire {
        Wire(TcpStream::connect(self.address).await.unwrap())
    }

    /// Drains; it is over once nothing runs any more.
    pub(super) async fn drained(self) {
        self.drain.cancel();
        timeout(PATIENCE, self.task).await.expect("the listener ends once drained").unwrap();
    }
}

/// Raw bytes to and from a server.
pub(super) struct Wire(pub(super) TcpStream);

impl Wire {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads up to and including `end`.
    pub(super) async fn read_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let read = async {
            while !text.ends_with(end.as_bytes()) {
                let byte = self.0.read_u8().await;
                text.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&text))));
            }
        };
        let read = timeout(PATIENCE, read).await;
        assert!(read.is_ok(), "waiting for {end:?} after {:?}", String::from_utf8_lossy(&text));
        String::from_utf8(text).unwrap()
    }

    pub(super) async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// A response with Content-Length: its head and body.
    pub(super) async fn response(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        timeout(PATIENCE, self.0.read_exact(&mut body)).await.unwrap().unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// All there is until the connection ends, and how it ends.
    pub(super) async fn rest(&mut self) -> (String, io::Result<()>) {
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("the connection ends");
        (String::from_utf8_lossy(&rest).into_owned(), end.map(drop))
    }

    /// Waits until the other end has read all that was sent, as the system says.
    pub(super) async fn taken(&self) {
        let (own, peer) = (self.0.local_addr().unwrap(), self.0.peer_addr().unwrap());
        let taken = async {
            while queued(own, peer).0 > 0 || queued(peer, own).1 > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, taken).await.expect("all is read");
    }

    pub(super) async fn assert_reset(&mut self) {
        let (rest, end) = self.rest().await;
        assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset), "after {rest:?}");
    }
}

/// What waits at this end of a connection: bytes that were sent and not taken by the other end's system, and bytes that have come
/// and were not read.
fn queued(here: SocketAddr, there: SocketAddr) -> (u64, u64) {
    let name = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(_) => panic!("{address}: tests use IPv4"),
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.find(|line| line[1..3] == [name(here), name(there)]).expect("a connection");
    let (sent, come) = found[4].split_once(':').unwrap();
    let bytes = |hex| u64::from_str_radix(hex, 16).unwrap();
    (bytes(sent), bytes(come))
}

/// A service that looks at what comes beside the request.
#[derive(Clone)]
pub(super) struct WithContext<F>(pub(super) F);

impl<F, Answer> ExchangeService for WithContext<F>
where
    F: Fn(Request<RequestBody>, ExchangeContext) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = Response<TestBody>> + Send,
{
    type Body = TestBody;

    fn call(
        &self,
        request: Request<RequestBody>,
        context: ExchangeContext,
    ) -> impl Future<Output = Response<TestBody>> + Send {
        (self.0)(request, context)
    }
}

/// A service that answers `ok`, a POST never, and remembers what its codec refused.
#[derive(Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<Vec<Refused>>>);

/// Which rule was broken, in which version.
type Refused = (Option<Version>, Violation);

impl Refusals {
    /// Waits until something was refused, which is asked for once.
    pub(super) async fn next(&self) -> Refused {
        let refused = async {
            loop {
                if let Some(refused) = self.0.lock().unwrap().pop() {
                    return refused;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, refused).await.expect("something is refused")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl ExchangeService for Refusals {
    type Body = TestBody;

    async fn call(&self, request: Request<RequestBody>, _: ExchangeContext) -> Response<TestBody> {
        if request.method() == http::Method::POST {
            std::future::pending::<()>().await;
        }
        Response::new(full("ok"))
    }

    fn refused(&self, _: &ConnectionInfo, version: Option<Version>, violation: Violation) {
        self.0.lock().unwrap().push((version, violation));
    }
}

pub(super) fn full(bytes: impl Into<Bytes>) -> TestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What the test sends, when it sends it.
pub(super) struct Pieces(mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

pub(super) type Feed = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

pub(super) fn pieces() -> (Feed, TestBody) {
    let (feed, pieces) = mpsc::channel(8);
    (feed, Pieces(pieces).boxed_unsync())
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

/// What of its pieces is worth a try: as a tunnel over QUIC gives them, and as one over TCP.
pub(super) const ENDLESS_PIECES: [usize; 3] = [1_300, 4 * 1024, 16 * 1024];

/// A body that always has more.
pub(super) struct Endless(pub(super) usize);

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        const PIECE: [u8; 16 * 1024] = [7; 16 * 1024];
        Poll::Ready(Some(data(&PIECE[..self.0])))
    }
}

/// Waits until each of so many answers that never end has had a MiB. `got` says of which so many bytes came.
pub(super) async fn all_get_on<const ANSWERS: usize>(mut got: mpsc::UnboundedReceiver<(usize, usize)>) {
    let mut counts = [0; ANSWERS];
    let all = async {
        while counts.iter().any(|&count| count < 1024 * 1024) {
            let (answer, bytes) = got.recv().await.unwrap();
            counts[answer] += bytes;
        }
    };
    assert!(timeout(PATIENCE, all).await.is_ok(), "{counts:?}");
}

pub(super) fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(bytes)))
}

/// Sends back what comes, trailers included, while it comes.
pub(super) async fn echo(request: Request<RequestBody>) -> Response<TestBody> {
    Response::new(request.into_body().map_err(BoxError::from).boxed_unsync())
}

/// Reads everything, then answers with method, URI and the size of the body.
pub(super) async fn describe(request: Request<RequestBody>) -> Response<TestBody> {
    let (parts, body) = request.into_parts();
    match body.collect().await {
        Ok(body) => Response::new(full(format!("{} {} {}", parts.method, parts.uri, body.to_bytes().len()))),
        Err(_) => Response::builder().status(400).body(full("")).unwrap(),
    }
}

/// Tells when it is dropped.
pub(super) struct OnDrop(pub(super) mpsc::UnboundedSender<&'static str>, pub(super) &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.send(self.1).ok();
    }
}

pub(super) async fn told(receiver: &mut mpsc::UnboundedReceiver<&'static str>) -> &'static str {
    timeout(PATIENCE, receiver.recv()).await.expect("it happens in time").expect("a sender")
}
