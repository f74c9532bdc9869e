//! QUIC as the `h3` crate sees it: a connection, and its streams of one direction.
//!
//! What has no part in a request (accepting and opening streams of one direction) is left to `h3-quinn`. The streams of requests
//! are ours, see `stream`.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::error::Code;
use h3::quic::{ConnectionErrorIncoming, StreamErrorIncoming, StreamId};
use quinn::ConnectionError;
use tokio_util::sync::ReusableBoxFuture;

use crate::message::h3::control;

use super::link::{Link, varint};
use super::stream::{Request, connection_error, id};

type Accepted = Result<(quinn::SendStream, quinn::RecvStream), ConnectionError>;

/// A connection.
pub(super) struct Quic {
    inner: h3_quinn::Connection,
    quic: quinn::Connection,
    accepting: ReusableBoxFuture<'static, Accepted>,
    link: Arc<Link>,
}

impl Quic {
    pub(super) fn new(quic: quinn::Connection, link: Arc<Link>) -> Self {
        let accepting = ReusableBoxFuture::new(accept(quic.clone()));
        Self { inner: h3_quinn::Connection::new(quic.clone()), quic, accepting, link }
    }
}

async fn accept(quic: quinn::Connection) -> Accepted {
    quic.accept_bi().await
}

impl h3::quic::Connection<Bytes> for Quic {
    type RecvStream = OneWay;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<OneWay, ConnectionErrorIncoming>> {
        let stream = ready!(h3::quic::Connection::<Bytes>::poll_accept_recv(&mut self.inner, cx))?;
        Poll::Ready(Ok(OneWay { stream, watcher: control::Watcher::default(), link: Arc::clone(&self.link) }))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, ConnectionErrorIncoming>> {
        loop {
            let accepted = ready!(self.accepting.poll(cx));
            self.accepting.set(accept(self.quic.clone()));
            let (mut send, mut recv) = accepted.map_err(connection_error)?;
            if self.link.admits(id(send.id())) {
                return Poll::Ready(Ok(Request::open(&self.link, send, recv)));
            }
            // It may be tried on another connection. RFC 9114 section 5.2
            let _ = send.reset(varint(Code::H3_REQUEST_REJECTED));
            let _ = recv.stop(varint(Code::H3_REQUEST_REJECTED));
        }
    }

    fn opener(&self) -> Opener {
        Opener(h3::quic::Connection::<Bytes>::opener(&self.inner))
    }
}

impl h3::quic::OpenStreams<Bytes> for Quic {
    type BidiStream = Request;
    type SendStream = h3_quinn::SendStream<Bytes>;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(no_requests()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        h3::quic::OpenStreams::<Bytes>::poll_open_send(&mut self.inner, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(varint(code), reason);
    }
}

/// A server of HTTP/3 opens no request.
fn no_requests() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("a server sends no requests".into())
}

/// Opens streams of one direction.
pub(super) struct Opener(h3_quinn::OpenStreams);

impl h3::quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Request;
    type SendStream = h3_quinn::SendStream<Bytes>;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(no_requests()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        h3::quic::OpenStreams::<Bytes>::poll_open_send(&mut self.0, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        h3::quic::OpenStreams::<Bytes>::close(&mut self.0, code, reason);
    }
}

/// A stream of one direction, from the client.
pub(super) struct OneWay {
    stream: h3_quinn::RecvStream,
    watcher: control::Watcher,
    link: Arc<Link>,
}

impl h3::quic::RecvStream for OneWay {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(bytes) = self.watcher.pop() {
                return Poll::Ready(Ok(Some(bytes)));
            }
            let Some(bytes) = ready!(self.stream.poll_data(cx))? else { return Poll::Ready(Ok(None)) };
            if let Err(fault) = self.watcher.push(bytes) {
                let code = match fault {
                    control::Fault::TooLong => Code::H3_EXCESSIVE_LOAD,
                    control::Fault::Length => Code::H3_FRAME_ERROR,
                };
                self.link.close(code, &fault.to_string());
                return Poll::Ready(Err(StreamErrorIncoming::Unknown(fault.into())));
            }
            self.link.count_control(self.watcher.take_cost());
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.stream.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.stream.recv_id()
    }
}
