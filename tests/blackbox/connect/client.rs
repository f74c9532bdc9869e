//! A client of CONNECT, byte by byte.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::support::http1::RawHttp;
use crate::support::http2::Http2;
use crate::support::site::NODE;

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Http1,
    Http2,
}

impl Over {
    pub(super) const ALL: [Self; 2] = [Self::Http1, Self::Http2];
}

/// The client's end of what a CONNECT opened.
pub(super) struct Client {
    pub(super) send: Sending,
    pub(super) recv: Receiving,
}

pub(super) enum Sending {
    Http1(OwnedWriteHalf),
    Http2(SendStream<Bytes>),
}

pub(super) enum Receiving {
    Http1 { half: OwnedReadHalf, rest: Vec<u8> },
    Http2 { stream: RecvStream, rest: Vec<u8>, connection: Http2 },
}

/// How a CONNECT was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) proxy_status: String,
    /// HTTP/1.1: all that came on the connection, up to its end.
    pub(super) text: String,
}

impl Client {
    pub(super) async fn open(egress: SocketAddr, over: Over, to: &str) -> Result<Self, Refused> {
        match over {
            Over::Http1 => Self::open_http1(egress, &head(to), b"", false).await,
            Over::Http2 => Self::open_http2(Http2::connect(egress).await, to, &[], false).await,
        }
    }

    /// Sends these bytes, and the end of its direction, before it was answered.
    pub(super) async fn open_with(egress: SocketAddr, over: Over, to: &str, ahead: &[u8]) -> Result<Self, Refused> {
        match over {
            Over::Http1 => Self::open_http1(egress, &head(to), ahead, true).await,
            Over::Http2 => Self::open_http2(Http2::connect(egress).await, to, ahead, true).await,
        }
    }

    pub(super) async fn open_http1(egress: SocketAddr, head: &str, ahead: &[u8], end: bool) -> Result<Self, Refused> {
        let stream = TcpStream::connect(egress).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = RawHttp::over(stream);
        client.send(&[head.as_bytes(), ahead].concat()).await.unwrap();
        if end {
            client.finish().await.unwrap();
        }
        let answer = client.head().await.unwrap();
        let field = |name: &str| answer.field(name).unwrap_or_default().to_owned();
        if answer.status != 200 {
            assert_eq!(field("connection"), "close", "what follows is no request");
            let text = String::from_utf8_lossy(&client.read_to_end().await.unwrap()).into_owned();
            return Err(Refused { status: answer.status, proxy_status: field("proxy-status"), text });
        }
        assert_eq!((answer.field("content-length"), answer.field("transfer-encoding")), (None, None));
        let (stream, rest) = client.into_parts();
        let (half, write) = stream.into_split();
        Ok(Self { send: Sending::Http1(write), recv: Receiving::Http1 { half, rest: rest.to_vec() } })
    }

    pub(super) async fn open_http2(mut connection: Http2, to: &str, ahead: &[u8], end: bool) -> Result<Self, Refused> {
        let request = Request::builder().method(Method::CONNECT).uri(to).header("x-node-id", NODE.node);
        let (response, send) = connection.send(request.body(()).unwrap(), false).await;
        let mut send = Sending::Http2(send);
        let sending = async {
            send.all(ahead).await.unwrap();
            if end {
                send.finish().await;
            }
        };
        let ((), response) = tokio::join!(sending, response);
        let response = response.unwrap();
        assert_eq!(response.headers().get("content-length").filter(|_| response.status() == 200), None);
        let proxy_status = response.headers().get("proxy-status").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let recv = Receiving::Http2 { stream: response.into_body(), rest: Vec::new(), connection };
        if status != 200 {
            return Err(Refused { status, proxy_status: proxy_status.unwrap_or_default(), text: String::new() });
        }
        Ok(Self { send, recv })
    }

    /// Resets both directions.
    pub(super) fn reset(self) {
        match (self.send, self.recv) {
            (Sending::Http2(mut stream), _recv) => stream.send_reset(h2::Reason::CANCEL),
            (Sending::Http1(write), Receiving::Http1 { half, .. }) => {
                half.reunite(write).unwrap().set_zero_linger().unwrap();
            }
            _ => unreachable!("both halves are of one connection"),
        }
    }
}

/// The head of a CONNECT over HTTP/1.1.
pub(super) fn head(to: &str) -> String {
    format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\nx-node-id: {}\r\n\r\n", NODE.node)
}

impl Sending {
    pub(super) async fn all(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Self::Http1(half) => half.write_all(bytes).await.map_err(|error| error.to_string()),
            Self::Http2(stream) => {
                let mut rest = Bytes::copy_from_slice(bytes);
                while !rest.is_empty() {
                    stream.reserve_capacity(rest.len());
                    let granted = match poll_fn(|cx| stream.poll_capacity(cx)).await {
                        Some(Ok(granted)) => granted,
                        ended => return Err(format!("{ended:?}")),
                    };
                    stream
                        .send_data(rest.split_to(granted.min(rest.len())), false)
                        .map_err(|error| error.to_string())?;
                }
                Ok(())
            }
        }
    }

    pub(super) async fn finish(&mut self) {
        match self {
            Self::Http1(half) => half.shutdown().await.unwrap(),
            Self::Http2(stream) => stream.send_data(Bytes::new(), true).unwrap(),
        }
    }
}

impl Receiving {
    /// The next bytes; none: the end. A reset is an error.
    async fn some(&mut self) -> Result<Vec<u8>, String> {
        let (Self::Http1 { rest, .. } | Self::Http2 { rest, .. }) = self;
        if !rest.is_empty() {
            return Ok(std::mem::take(rest));
        }
        match self {
            Self::Http1 { half, .. } => {
                let mut bytes = Vec::with_capacity(64 << 10);
                half.read_buf(&mut bytes).await.map_err(|error| format!("{:?}", error.kind()))?;
                Ok(bytes)
            }
            Self::Http2 { stream, .. } => {
                let Some(data) = stream.data().await else { return Ok(Vec::new()) };
                let data =
                    data.map_err(|error| error.reason().map_or_else(|| error.to_string(), |code| format!("{code:?}")))?;
                stream.flow_control().release_capacity(data.len()).unwrap();
                Ok(data.to_vec())
            }
        }
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let some = self.some().await?;
            assert!(!some.is_empty(), "it ends after {} bytes", bytes.len());
            bytes.extend_from_slice(&some);
        }
        let (Self::Http1 { rest, .. } | Self::Http2 { rest, .. }) = self;
        *rest = bytes.split_off(length);
        Ok(bytes)
    }

    /// All up to an orderly end.
    pub(super) async fn whole(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        loop {
            match self.some().await? {
                some if some.is_empty() => return Ok(bytes),
                some => bytes.extend_from_slice(&some),
            }
        }
    }
}
