//! The streams of requests as the `h3` crate sees them, whose bytes have passed a watcher.
//!
//! They are ours because those of `h3-quinn` end cleanly when they are dropped, so that half a response looks whole, do not tell
//! that the client wants no more, and panic when they are stopped while something is read from them.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, WriteError};
use tokio::task::coop;

use crate::message::h3::request;
use crate::net::Turn;

use super::link::{Arrival, Link, Room, Side, varint};

/// The most pieces taken from QUIC in one read, each of them what one packet carried.
const READ_PIECES: usize = 16;

/// The stream of a request.
pub(super) struct Request {
    send: Sending,
    recv: Receiving,
}

/// The half on which the response goes out. Dropped before it was finished, it is reset.
pub(super) struct Sending {
    stream: quinn::SendStream,
    /// How it stands with the other responses of its connection.
    turn: Turn,
    /// A frame of which not all was taken.
    writing: Bytes,
    side: Arc<Side>,
    link: Arc<Link>,
    /// What is written waits to be taken.
    is_waiting: bool,
    has_written: bool,
    is_over: bool,
}

/// The half on which the request comes in.
pub(super) struct Receiving {
    stream: quinn::RecvStream,
    watcher: request::Watcher,
    room: Room,
    side: Arc<Side>,
    is_over: bool,
}

impl Request {
    /// Takes a stream that came in, and tells the link.
    pub(super) fn open(link: &Arc<Link>, send: quinn::SendStream, recv: quinn::RecvStream) -> Self {
        let side = Arc::<Side>::default();
        let stopped = Box::pin(send.stopped());
        link.arrives(Arrival { stream: id(send.id()), side: Arc::clone(&side), stopped });
        Self {
            send: Sending {
                stream: send,
                turn: Turn::default(),
                writing: Bytes::new(),
                side: Arc::clone(&side),
                link: Arc::clone(link),
                is_waiting: false,
                has_written: false,
                is_over: false,
            },
            recv: Receiving {
                stream: recv,
                watcher: request::Watcher::new(link.limits()),
                room: Room::new(Arc::clone(link)),
                side,
                is_over: false,
            },
        }
    }
}

impl h3::quic::BidiStream<Bytes> for Request {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.send, self.recv)
    }
}

impl h3::quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(bytes) = self.watcher.pop() {
                return Poll::Ready(Ok(Some(bytes)));
            }
            let mut pieces = [const { Bytes::new() }; READ_PIECES];
            match ready!(poll_pieces(&mut self.stream, &mut pieces, cx)) {
                Ok(Some(count)) => pieces.into_iter().take(count).try_for_each(|piece| self.look_at(piece))?,
                Ok(None) => {
                    self.is_over = true;
                    self.watcher.finish().map_err(|fault| self.fails(fault))?;
                    self.side.end();
                    return Poll::Ready(Ok(None));
                }
                Err(error) => {
                    self.is_over = true;
                    self.gives_up();
                    return Poll::Ready(Err(read_error(error)));
                }
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.is_over = true;
        let _ = self.stream.stop(quinn::VarInt::from_u64(code).unwrap_or(quinn::VarInt::MAX));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Receiving {
    fn look_at(&mut self, bytes: Bytes) -> Result<(), StreamErrorIncoming> {
        self.watcher.push(bytes).map_err(|fault| self.fails(fault))?;
        if !self.room.hold(self.watcher.held()) {
            return Err(self.fails(request::Fault::Idle));
        }
        if let Some(head) = self.watcher.take_head() {
            self.side.found(head);
        }
        Ok(())
    }

    /// A request that is cut after somebody began to work on it costs as much as one that is given up.
    fn gives_up(&self) {
        if !self.side.is_answered() {
            self.room.link().count_reset(&self.side);
        }
    }

    fn fails(&mut self, fault: request::Fault) -> StreamErrorIncoming {
        self.gives_up();
        match fault {
            request::Fault::Cut => self.room.link().close(Code::H3_FRAME_ERROR, &fault.to_string()),
            request::Fault::Qpack => {
                self.room.link().close(Code::QPACK_DECOMPRESSION_FAILED, &fault.to_string());
            }
            request::Fault::Idle => {
                self.side.overload();
                h3::quic::RecvStream::stop_sending(self, Code::H3_EXCESSIVE_LOAD.value());
            }
            request::Fault::Trailers(violation) => {
                self.side.refuse_trailers(violation);
                h3::quic::RecvStream::stop_sending(self, Code::H3_MESSAGE_ERROR.value());
            }
        }
        StreamErrorIncoming::Unknown(fault.into())
    }
}

impl Drop for Receiving {
    /// Not to read a request to its end is no failure. RFC 9114 section 4.1
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.stream.stop(varint(Code::H3_NO_ERROR));
        }
        self.side.release();
    }
}

impl h3::quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while !self.writing.is_empty() {
            let mut polled = self.poll_write(cx);
            if polled.is_pending() && self.link.widen() {
                polled = self.poll_write(cx);
            }
            if polled.is_pending() != self.is_waiting {
                self.is_waiting = !self.is_waiting;
                self.link.waits(self.is_waiting);
            }
            self.side.stands_in_line(self.turn.is_in_line());
            let written = ready!(polled).map_err(write_error)?;
            self.link.took(written);
            self.has_written = true;
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if !self.writing.is_empty() {
            return Err(StreamErrorIncoming::Unknown("something is being written already".into()));
        }
        // A frame and its header in one piece: QUIC takes it in one step, and without another copy.
        let mut data: WriteBuf<Bytes> = data.into();
        self.writing = self.side.sends(data.copy_to_bytes(data.remaining()));
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.is_over = true;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, code: u64) {
        self.is_over = true;
        let _ = self.stream.reset(quinn::VarInt::from_u64(code).unwrap_or(quinn::VarInt::MAX));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Sending {
    /// How much was taken of what is being written. Cancel safe.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, WriteError>> {
        let Self { stream, turn, writing, link, .. } = self;
        turn.poll_write(stream, &link.send_room, std::slice::from_mut(writing), cx)
    }
}

impl Drop for Sending {
    /// What `h3` answers itself, before anybody serves the request, it does not finish.
    fn drop(&mut self) {
        if self.is_waiting {
            self.link.waits(false);
        }
        if self.is_over {
            return;
        }
        if self.side.is_served() {
            let _ = self.stream.reset(varint(Code::H3_INTERNAL_ERROR));
        } else if self.has_written && self.writing.is_empty() {
            let _ = self.stream.finish();
        } else {
            let _ = self.stream.reset(varint(Code::H3_REQUEST_INCOMPLETE));
        }
    }
}

impl h3::quic::RecvStream for Request {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl h3::quic::SendStream<Bytes> for Request {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// How many pieces came. quinn registers the waker with the stream, not with the future, so a future per poll loses nothing. A
/// client that sends without end gets its part of a turn, and no more.
fn poll_pieces(
    stream: &mut quinn::RecvStream,
    pieces: &mut [Bytes],
    cx: &mut Context<'_>,
) -> Poll<Result<Option<usize>, ReadError>> {
    let turn = ready!(coop::poll_proceed(cx));
    let read = ready!(pin!(stream.read_chunks(pieces)).poll(cx));
    turn.made_progress();
    Poll::Ready(read)
}

pub(super) fn id(stream: quinn::StreamId) -> u64 {
    stream.into()
}

fn stream_id(stream: quinn::StreamId) -> StreamId {
    StreamId::try_from(id(stream)).expect("ids of QUIC are below 2^62")
}

pub(super) fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        ReadError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        WriteError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}
