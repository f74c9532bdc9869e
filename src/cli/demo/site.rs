//! The service behind the initiator, and the client in front of the responder: plain hyper, no adit in them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::bail;
use bytes::Bytes;
use http::header::{HOST, HeaderMap, VIA};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A small HTTP service that says what it was asked.
pub(super) struct Site {
    address: SocketAddr,
    served: Arc<OnceLock<Instant>>,
    /// Dropping it ends the service.
    _tasks: JoinSet<()>,
}

impl Site {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let served = Arc::new(OnceLock::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&served)));
        Ok(Self { address, served, _tasks: tasks })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// When the first request arrived.
    pub(super) fn served(&self) -> Option<Instant> {
        self.served.get().copied()
    }
}

async fn accept(listener: TcpListener, served: Arc<OnceLock<Instant>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let served = Arc::clone(&served);
        let service = service_fn(move |request| {
            served.get_or_init(Instant::now);
            let response = greet(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        connections.spawn(async move {
            // A client that goes away ends its connection, nothing else.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn greet(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut text = format!("Hello from the site. I was asked {} {} with\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text += &format!("  {name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    Response::new(Full::new(Bytes::from(text)))
}

/// What came back, and when.
pub(super) struct Answer {
    pub(super) sent: Instant,
    pub(super) received: Instant,
    headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn summary(&self) -> String {
        let via = self.headers.get(VIA).map(|via| String::from_utf8_lossy(via.as_bytes()));
        let took = self.received.duration_since(self.sent).as_secs_f64() * 1000.0;
        format!("200, {} bytes, via {}, {took:.2} ms after the request", self.body.len(), via.unwrap_or_default())
    }
}

/// Sends the request of the demo; anything but a whole 200 is an error.
pub(super) async fn ask(egress: SocketAddr, node: &str) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(egress).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/hello").header(HOST, egress.to_string()).header("x-node-id", node);
    let request = request.body(Empty::<Bytes>::new())?;
    let exchange = async {
        let sent = Instant::now();
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if head.status != StatusCode::OK {
            bail!("the answer was {}: {}", head.status, body.trim_end());
        }
        Ok(Answer { sent, received: Instant::now(), headers: head.headers, body })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before the answer is taken out of it.
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_service_answers_with_what_it_was_asked() {
        let site = Site::start().await.unwrap();
        let answer = ask(site.address(), "edge-17").await.unwrap();
        assert!(answer.body.contains("GET /hello") && answer.body.contains("x-node-id: edge-17"), "{}", answer.body);
        assert!(answer.sent <= site.served().unwrap() && site.served().unwrap() <= answer.received);
    }
}
