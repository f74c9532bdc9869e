//! QUIC as the `h3` crate sees it: a connection, and its streams of one direction.
//!
//! What has no part in a request (accepting and opening streams of one direction) is left to `h3-quinn`. The streams of requests
//! are ours, see `stream`. The client's streams of QPACK are read here: `h3` keeps them and reads none of it, so that they hold
//! a part of the connection's window for good, and nobody notices what must not be there.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::error::Code;
use h3::quic::{ConnectionErrorIncoming, RecvStream as _, StreamErrorIncoming, StreamId};
use quinn::ConnectionError;
use tokio_util::sync::ReusableBoxFuture;

use crate::message::h3::control::{self, Kind};

use super::link::{Link, varint};
use super::stream::{Request, connection_error, id};

type Accepted = Result<(quinn::SendStream, quinn::RecvStream), ConnectionError>;

/// A connection.
pub(super) struct Quic {
    inner: h3_quinn::Connection,
    quic: quinn::Connection,
    accepting: ReusableBoxFuture<'static, Accepted>,
    link: Arc<Link>,
    /// Streams of one direction of which nobody knows yet what they are for.
    fresh: Vec<OneWay>,
    encoder: Option<OneWay>,
    decoder: Option<OneWay>,
}

impl Quic {
    pub(super) fn new(quic: quinn::Connection, link: Arc<Link>) -> Self {
        let accepting = ReusableBoxFuture::new(accept(quic.clone()));
        let inner = h3_quinn::Connection::new(quic.clone());
        Self { inner, quic, accepting, link, fresh: Vec::new(), encoder: None, decoder: None }
    }
}

impl Quic {
    /// Takes in what has come; a stream costs as much as a frame.
    fn poll_fresh(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionErrorIncoming> {
        while let Poll::Ready(stream) = h3::quic::Connection::<Bytes>::poll_accept_recv(&mut self.inner, cx) {
            self.link.count_control(1);
            let (watcher, link) = (control::Watcher::default(), Arc::clone(&self.link));
            self.fresh.push(OneWay { stream: stream?, watcher, link });
        }
        Ok(())
    }

    /// A stream that is HTTP/3's to read, if one has come.
    fn poll_other(&mut self, cx: &mut Context<'_>) -> Option<OneWay> {
        let mut at = 0;
        while let Some(stream) = self.fresh.get_mut(at) {
            let Poll::Ready(kind) = stream.poll_kind(cx) else {
                at += 1;
                continue;
            };
            let stream = self.fresh.swap_remove(at);
            let before = match kind {
                // It ended before it said what it was for, which it may. RFC 9114 section 6.2
                None => None,
                Some(Kind::Encoder) => self.encoder.replace(stream),
                Some(Kind::Decoder) => self.decoder.replace(stream),
                Some(Kind::Other) => return Some(stream),
            };
            if before.is_some() {
                self.link.close(Code::H3_STREAM_CREATION_ERROR, "there is such a stream of QPACK already");
            }
        }
        None
    }

    fn poll_qpack(&mut self, cx: &mut Context<'_>) {
        for stream in [&mut self.encoder, &mut self.decoder].into_iter().flatten() {
            stream.poll_through(cx);
        }
    }
}

async fn accept(quic: quinn::Connection) -> Accepted {
    quic.accept_bi().await
}

impl h3::quic::Connection<Bytes> for Quic {
    type RecvStream = OneWay;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<OneWay, ConnectionErrorIncoming>> {
        self.poll_fresh(cx)?;
        let other = self.poll_other(cx);
        self.poll_qpack(cx);
        other.map_or(Poll::Pending, |stream| Poll::Ready(Ok(stream)))
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
        Opener { inner: h3::quic::Connection::<Bytes>::opener(&self.inner), link: Arc::clone(&self.link) }
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
        self.link.note_fault(code);
        self.quic.close(varint(code), reason);
    }
}

/// A server of HTTP/3 opens no request.
fn no_requests() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("a server sends no requests".into())
}

/// Opens streams of one direction.
pub(super) struct Opener {
    inner: h3_quinn::OpenStreams,
    link: Arc<Link>,
}

impl h3::quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Request;
    type SendStream = h3_quinn::SendStream<Bytes>;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(no_requests()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        h3::quic::OpenStreams::<Bytes>::poll_open_send(&mut self.inner, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.link.note_fault(code);
        h3::quic::OpenStreams::<Bytes>::close(&mut self.inner, code, reason);
    }
}

/// A stream of one direction, from the client.
pub(super) struct OneWay {
    stream: h3_quinn::RecvStream,
    watcher: control::Watcher,
    link: Arc<Link>,
}

impl OneWay {
    fn look_at(&mut self, bytes: Bytes) -> Result<(), control::Fault> {
        if let Err(fault) = self.watcher.push(bytes) {
            let code = match fault {
                control::Fault::TooLong => Code::H3_EXCESSIVE_LOAD,
                control::Fault::Length => Code::H3_FRAME_ERROR,
                control::Fault::Setting => Code::H3_SETTINGS_ERROR,
                control::Fault::NoSettings => Code::H3_MISSING_SETTINGS,
                control::Fault::Id => Code::H3_ID_ERROR,
                control::Fault::Push => Code::H3_STREAM_CREATION_ERROR,
                control::Fault::Encoder => Code::QPACK_ENCODER_STREAM_ERROR,
                control::Fault::Decoder => Code::QPACK_DECODER_STREAM_ERROR,
            };
            self.link.close(code, &fault.to_string());
            return Err(fault);
        }
        self.link.count_control(self.watcher.take_cost());
        if self.watcher.takes_datagrams() {
            self.link.takers.allow();
        }
        Ok(())
    }

    /// What it is for; `None`: that will never be known.
    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Kind>> {
        while self.watcher.kind().is_none() {
            let Ok(Some(bytes)) = ready!(self.stream.poll_data(cx)) else { return Poll::Ready(None) };
            if self.look_at(bytes).is_err() {
                return Poll::Ready(None);
            }
        }
        Poll::Ready(self.watcher.kind())
    }

    /// Reads what has come of a stream of QPACK, which lasts as long as its connection. RFC 9204 section 4.2
    fn poll_through(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(read) = self.stream.poll_data(cx) {
            let bytes = match read {
                Ok(Some(bytes)) => bytes,
                // The connection is gone, for a reason that is known.
                Err(StreamErrorIncoming::ConnectionErrorIncoming { .. }) => return,
                Ok(None) | Err(_) => {
                    return self.link.close(Code::H3_CLOSED_CRITICAL_STREAM, "a stream of QPACK has ended");
                }
            };
            if self.look_at(bytes).is_err() {
                return;
            }
        }
    }
}

impl h3::quic::RecvStream for OneWay {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(bytes) = self.watcher.pop() {
                return Poll::Ready(Ok(Some(bytes)));
            }
            let Some(bytes) = ready!(self.stream.poll_data(cx))? else { return Poll::Ready(Ok(None)) };
            if let Err(fault) = self.look_at(bytes) {
                return Poll::Ready(Err(StreamErrorIncoming::Unknown(fault.into())));
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.stream.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.stream.recv_id()
    }
}
