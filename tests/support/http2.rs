//! An HTTP/2 client on the `h2` crate: every frame of an exchange can be seen and sent.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Bytes that may wait on one connection, unread.
const WINDOW: u32 = 4 << 20;

/// One connection.
pub(crate) struct Http2 {
    sender: SendRequest<Bytes>,
    _driver: JoinSet<()>,
}

impl Http2 {
    /// Prior knowledge: HTTP/2 in clear from the first byte.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    /// Over a stream that is open already, for example TLS.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let mut builder = h2::client::Builder::new();
        // Room for what many streams receive before a test reads any of them.
        builder.initial_connection_window_size(WINDOW);
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.await;
        });
        Self { sender: sender.ready().await.unwrap(), _driver: driver }
    }

    /// Another handle of the connection.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// Sends a head; `end`: there is no body.
    pub(crate) async fn send(&mut self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.sender = self.sender.clone().ready().await.unwrap();
        self.sender.send_request(request, end).unwrap()
    }

    /// A whole exchange without a request body.
    pub(crate) async fn get(&mut self, request: Request<()>) -> Response<Body> {
        let (response, _) = self.send(request, true).await;
        whole(response.await.unwrap()).await.unwrap()
    }
}

/// A body that was read to its end.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Reads the body to its end; a reset is an error.
pub(crate) async fn whole(response: Response<RecvStream>) -> Result<Response<Body>, h2::Error> {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    Ok(Response::from_parts(head, Body { bytes, trailers }))
}
