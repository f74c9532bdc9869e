//! HTTP/1 connections beside a naive reader of the same bytes.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};

use adit::egress::{ConnectionDetails, ConnectionInfo, End, RequestBody, Serving, Settings, Socket, http1};
use adit::net::{Acknowledged, Grace};
use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, Empty};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::reference::{Body, Fields, Request, requests};

/// Every request that comes through is one the naive reader finds in the same place, down to the last byte of its body;
/// where fewer come through, the connection is closed. How the bytes are split, which the first byte says, is no matter.
pub fn request_head(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let (served, said) = serve(bytes, bytes.len().max(1));
    assert_eq!(serve(bytes, usize::from(step).max(1)).0, served, "the split changes the answer");
    let mut expected = requests(bytes);
    for request in &mut expected {
        request.fields.remove(EXPECT.as_str());
    }
    assert!(served.len() <= expected.len(), "{:?} is not a request", served[expected.len()]);
    for (served, expected) in served.iter().zip(&expected) {
        let expected = Request { body: expected.body.clone().filter(|_| served.body.is_some()), ..expected.clone() };
        assert_eq!(*served, expected);
    }
    let is_closed = said.windows(17).any(|text| text == b"connection: close");
    assert!(is_closed || served == expected, "the connection goes on after {served:?}, expected {expected:?}");
}

/// What a service gets to see of these bytes, and all that is sent back.
fn serve(bytes: &[u8], step: usize) -> (Vec<Request>, Vec<u8>) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime without I/O"));
    let (seen, said) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let recorder = Arc::clone(&seen);
    let service = move |request| record(Arc::clone(&recorder), request);
    let wire =
        Wire { chunks: bytes.chunks(step).map(<[u8]>::to_vec).collect(), waited: false, said: Arc::clone(&said) };
    RUNTIME.block_on(http1::serve(wire, BytesMut::new(), serving(service)));
    (take(&seen), take(&said))
}

fn take<T: Default>(shared: &Mutex<T>) -> T {
    std::mem::take(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

fn serving<S>(service: S) -> Serving<S> {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let details = ConnectionDetails { remote: nowhere, local: nowhere, tls: false, server_name: None, peer: None };
    // The end of the bytes is the end of the requests, not of the wish to have them answered.
    let settings = Settings { half_close: true, ..Settings::default() };
    Serving::new(ConnectionInfo::new(details), Arc::new(settings), service, End::default())
}

async fn record(seen: Arc<Mutex<Vec<Request>>>, request: http::Request<RequestBody>) -> Response<Empty<Bytes>> {
    let (mut parts, body) = request.into_parts();
    // Whether its sender still waits depends on how much of the body is here.
    parts.headers.remove("expect");
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let request = Request {
        method: parts.method.to_string(),
        authority: parts.uri.authority().map(ToString::to_string),
        path: format!("{}{query}", parts.uri.path()),
        fields: fields(&parts.headers),
        body: None,
    };
    // A request counts from here on: its service may be dropped while it reads the body.
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    if let Ok(body) = body.collect().await {
        let trailers = body.trailers().map(fields).unwrap_or_default();
        let body = Body { data: body.to_bytes().to_vec(), trailers };
        if let Some(request) = seen.lock().unwrap_or_else(PoisonError::into_inner).last_mut() {
            request.body = Some(body);
        }
    }
    Response::new(Empty::new())
}

fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    // Expect goes on only while its client waits for an answer to it, which the split decides. spec: ST-39
    for (name, value) in map.iter().filter(|(name, _)| *name != EXPECT) {
        fields.entry(name.to_string()).or_default().push(value.as_bytes().to_vec());
    }
    fields
}

/// A connection on which the chunks arrive one by one, then the end.
struct Wire {
    chunks: VecDeque<Vec<u8>>,
    waited: bool,
    said: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.waited = !self.waited;
        if self.waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(mut chunk) = self.chunks.pop_front() {
            let rest = chunk.split_off(chunk.len().min(buf.remaining()));
            buf.put_slice(&chunk);
            if !rest.is_empty() {
                self.chunks.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Socket for Wire {
    fn reset_on_drop(&mut self) {}

    fn end_on_drop(&mut self) {}

    fn has_left(&self, _: bool) -> bool {
        false
    }

    fn acknowledged(&self, _: Grace) -> Option<Acknowledged> {
        None
    }
}
