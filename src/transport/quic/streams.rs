//! The two halves of an exchange's stream, wrapped so that an abort can never look like an end.
//!
//! Dropping quinn's `SendStream` sends FIN, which would make a truncated body look complete; dropping ours resets.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use quinn::VarInt;
use tokio::task::coop;

use crate::message::BoxError;
use crate::message::pieces::{SMALL, poll_gathered, poll_next};
use crate::net::{SendRoom, Turn};
use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::limits::Limits;
use crate::protocol::stream::{self, Event, MessageReader, RequestHead, Role};
use crate::transport::credit::{LITTLE, Revoke, Unread};
use crate::transport::error::{BodyError, SendError, TunnelLost, describe_close};
use crate::transport::tied::{Interest, Started, TiedUpload};

/// The most bytes taken from quinn in one read; a segment is usually smaller.
const READ_CHUNK_BYTES: usize = 256 * 1024;

/// Heads and frame headers are encoded into blocks of this many bytes, shared by messages that leave one after the other.
/// A block lives until all of it was acknowledged.
const BLOCK_BYTES: usize = 4096;
/// What is left of a block when it is not used on.
const MIN_ROOM_BYTES: usize = 512;
/// Behind what was encoded this many bytes stay free: the header of a DATA frame and END have room there.
const SPARE_BYTES: usize = 32;

thread_local! {
    static BLOCK: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What `write` writes, in memory that usually need not be asked for.
pub(super) fn encoded(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    BLOCK.with_borrow_mut(|block| {
        if block.capacity() < MIN_ROOM_BYTES {
            *block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        let mut out = std::mem::take(block);
        write(&mut out);
        let end = out.capacity().min(out.len() + SPARE_BYTES);
        *block = out.split_off(end);
        out
    })
}

/// Whether the peer said that it does not take a head with so many bytes of payload. spec: HS-15
pub(super) fn exceeds(limits: PeerLimits, payload: usize, fields: &HeaderMap) -> bool {
    payload > limits.head_bytes as usize || fields.len() > limits.head_fields as usize
}

pub(super) fn varint(code: StreamCode) -> VarInt {
    VarInt::from_u32(code.number())
}

/// Why a connection ended, in words.
pub(crate) fn lost(error: &quinn::ConnectionError) -> TunnelLost {
    TunnelLost(match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            describe_close(close.error_code.into_inner(), &close.reason)
        }
        quinn::ConnectionError::TimedOut => "idle: nothing was heard for the idle timeout".into(),
        other => other.to_string(),
    })
}

/// What was read of a stream before its consumer asked for it.
#[derive(Debug, Default)]
pub(super) struct Ahead(Option<Box<ReadAhead>>);

#[derive(Debug, Default)]
struct ReadAhead {
    /// In one buffer: what is read byte by byte must not keep the packets that the bytes came in.
    bytes: BytesMut,
    /// Nothing follows, and why.
    end: Option<Result<(), quinn::ReadError>>,
}

impl Ahead {
    /// As [`poll_chunk`], and before that what was read ahead.
    pub(super) fn poll_chunk(
        &mut self,
        recv: &mut quinn::RecvStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, quinn::ReadError>> {
        if let Some(ahead) = &mut self.0 {
            if !ahead.bytes.is_empty() {
                return Poll::Ready(Ok(Some(ahead.bytes.split().freeze())));
            }
            // quinn says it once.
            if let Some(Err(error)) = ahead.end.take() {
                return Poll::Ready(Err(error));
            }
            self.0 = None;
        }
        poll_chunk(recv, cx)
    }

    /// See [`Revoke::unread`]. What is read ahead holds no credit of the connection any more.
    pub(super) fn unread(&mut self, recv: &mut quinn::RecvStream) -> Unread {
        let ahead = self.0.get_or_insert_default();
        // Nobody waits for more: who asks again is woken by what comes then.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while ahead.end.is_none() {
            let room = LITTLE.saturating_sub(ahead.bytes.len());
            if room == 0 {
                return Unread::Much;
            }
            match pin!(recv.read_chunk(room, true)).poll(&mut cx) {
                Poll::Pending if ahead.bytes.is_empty() => return Unread::Nothing,
                Poll::Pending => break,
                Poll::Ready(Ok(Some(chunk))) => {
                    ahead.bytes.extend_from_slice(&chunk.bytes);
                }
                Poll::Ready(Ok(None)) => ahead.end = Some(Ok(())),
                Poll::Ready(Err(error)) => ahead.end = Some(Err(error)),
            }
        }
        Unread::Little(0)
    }
}

/// The next bytes of a stream. quinn registers the waker with the stream, not with the future, so a future per poll loses
/// nothing. A peer that sends without end, while another thread takes it in, does not keep this one: every read is a part
/// of what a task may do in a turn.
pub(super) fn poll_chunk(
    recv: &mut quinn::RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, quinn::ReadError>> {
    let turn = std::task::ready!(coop::poll_proceed(cx));
    let read = pin!(recv.read_chunk(READ_CHUNK_BYTES, true));
    let read = std::task::ready!(read.poll(cx));
    turn.made_progress();
    Poll::Ready(read.map(|chunk| chunk.map(|chunk| chunk.bytes)))
}

impl From<quinn::ReadError> for BodyError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => {
                Self::Reset(StreamCode::from_number(code.into_inner()).unwrap_or(StreamCode::Internal))
            }
            quinn::ReadError::ConnectionLost(error) => Self::TunnelLost(lost(&error)),
            other => Self::TunnelLost(TunnelLost(other.to_string())),
        }
    }
}

/// The receiving half: bytes in, message events out.
#[derive(Debug)]
pub(crate) struct MessageStream {
    recv: quinn::RecvStream,
    reader: MessageReader,
    /// What dropping it before the end tells the peer. spec: ST-30, ST-31
    on_drop: StreamCode,
    ahead: Ahead,
    /// Nothing more is wanted of `recv`: END or FIN was seen, or the peer reset it.
    over: bool,
    /// Aborts the upload task of the same exchange when the response is no longer wanted.
    upload: TiedUpload,
}

impl MessageStream {
    /// A stream of which `front` was read already.
    pub(super) fn behind(front: Bytes, recv: quinn::RecvStream, role: Role, limits: Limits) -> Self {
        let mut stream = Self::new(recv, role, limits);
        stream.reader.push(front);
        stream
    }

    pub(super) fn new(recv: quinn::RecvStream, role: Role, limits: Limits) -> Self {
        let on_drop = match role {
            // Not to read a request to its end is no failure: an answer may come before it.
            Role::Request => StreamCode::NoError,
            Role::Response | Role::Relayed => StreamCode::Cancelled,
        };
        Self {
            recv,
            reader: MessageReader::new(role, limits),
            on_drop,
            ahead: Ahead::default(),
            over: false,
            upload: TiedUpload::default(),
        }
    }

    pub(super) fn tie_upload(&mut self) -> Interest {
        self.upload.interest()
    }

    /// The next event that needs no further bytes.
    pub(crate) fn buffered_event(&mut self) -> Option<Result<Event, BodyError>> {
        match self.reader.next() {
            Ok(event) => event.map(Ok),
            Err(error) => {
                self.refuse(error.code());
                Some(Err(error.into()))
            }
        }
    }

    /// As [`MessageStream::poll_event`], taking whatever is taken by the time at which it arrives, if that is more than when the
    /// stream was opened. spec: CT-31
    pub(super) fn poll_event_within(
        &mut self,
        cx: &mut Context<'_>,
        takes: impl Fn() -> Option<Limits>,
    ) -> Poll<Result<Event, BodyError>> {
        loop {
            if let Some(limits) = takes() {
                self.reader.take_at_least(limits);
            }
            if let Some(event) = self.buffered_event() {
                return Poll::Ready(event);
            }
            std::task::ready!(self.poll_more(cx))?;
        }
    }

    /// The next event of the message. After END it must not be called again.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, BodyError>> {
        loop {
            if let Some(event) = self.buffered_event() {
                return Poll::Ready(event);
            }
            std::task::ready!(self.poll_more(cx))?;
        }
    }

    /// Hands the reader what arrives next.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let error = match std::task::ready!(self.ahead.poll_chunk(&mut self.recv, cx)) {
            Ok(Some(chunk)) => {
                self.reader.push(chunk);
                return Poll::Ready(Ok(()));
            }
            Ok(None) => self.reader.finish().err().unwrap_or(stream::StreamError::Truncated).into(),
            Err(error) => error.into(),
        };
        self.over = true;
        Poll::Ready(Err(error))
    }

    /// The head of a request, and whether nothing follows. The first of the stream. `hold` is told how much of it is held
    /// while it is not whole; `None`: it said that this is too much. Cancel safe.
    pub(super) async fn request_head(
        &mut self,
        mut hold: impl FnMut(usize) -> bool,
    ) -> Result<Option<(RequestHead, bool)>, BodyError> {
        loop {
            match self.reader.request_head() {
                Ok(Some(head)) => return Ok(Some(head)),
                Ok(None) if hold(self.reader.held_bytes()) => {}
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.refuse(error.code());
                    return Err(error.into());
                }
            }
            poll_fn(|cx| self.poll_more(cx)).await?;
        }
    }

    /// END was read: the stream is let go without telling the peer to stop, unless bytes follow. spec: ST-9
    pub(crate) fn complete(mut self) {
        self.over = true;
        self.upload.release();
        if let Err(error) = self.reader.finish() {
            return self.refuse(error.code());
        }
        // Usually FIN is here already; reading it saves a needless STOP_SENDING.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.ahead.poll_chunk(&mut self.recv, &mut cx) {
            Poll::Ready(Ok(Some(_))) => self.refuse(StreamCode::Protocol),
            Poll::Ready(_) | Poll::Pending => {}
        }
    }

    /// Stops the stream.
    pub(crate) fn refuse(&mut self, code: StreamCode) {
        self.over = true;
        // An error means that the stream is gone already, which is what is wanted.
        let _ = self.recv.stop(varint(code));
    }
}

impl Revoke for MessageStream {
    fn unread(&mut self) -> Unread {
        if self.over { Unread::Nothing } else { self.ahead.unread(&mut self.recv) }
    }

    fn revoke(mut self) {
        self.on_drop = StreamCode::Limit;
    }
}

impl Drop for MessageStream {
    fn drop(&mut self) {
        if !self.over {
            self.refuse(self.on_drop);
        }
    }
}

/// The sending half: resets on drop unless [`SendHalf::finish`] was called. spec: ST-5
#[derive(Debug)]
pub(crate) struct SendHalf {
    send: quinn::SendStream,
    room: Arc<SendRoom>,
    turn: Turn,
    /// What a drop tells the peer; `None` once finished.
    on_drop: Option<StreamCode>,
    /// What the peer takes in one head or trailer section, in as many bytes as there is room for: of these halves one is
    /// part of the task of every exchange. No map has more fields than the second can say.
    head_bytes: u32,
    head_fields: u16,
}

impl From<quinn::WriteError> for SendError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => {
                Self::Stopped(StreamCode::from_number(code.into_inner()).unwrap_or(StreamCode::Internal))
            }
            quinn::WriteError::ConnectionLost(error) => Self::Lost(lost(&error)),
            other => Self::Lost(TunnelLost(other.to_string())),
        }
    }
}

impl SendHalf {
    /// A stream to a peer that takes no larger trailers than this; `room` is that of its connection.
    pub(super) fn new(send: quinn::SendStream, room: &Arc<SendRoom>, limits: PeerLimits) -> Self {
        let head_fields = u16::try_from(limits.head_fields).unwrap_or(u16::MAX);
        let (room, turn) = (Arc::clone(room), Turn::default());
        Self { send, room, turn, on_drop: Some(StreamCode::Cancelled), head_bytes: limits.head_bytes, head_fields }
    }

    /// That of a request: whether the peer wants the rest of it is looked at when there is more to send. Whoever waits for the
    /// answer gives both up when the tunnel is gone. See [`Turn::alone`].
    pub(super) fn of_request(mut self) -> Self {
        self.turn = Turn::alone();
        self
    }

    /// What the peer takes in one head or trailer section.
    pub(super) fn limits(&self) -> PeerLimits {
        PeerLimits { head_bytes: self.head_bytes, head_fields: self.head_fields.into() }
    }

    /// As [`Pieces::of`]. Trailers beyond what the peer takes are not sent, and not left out: the message would say something
    /// else. spec: ER-10
    fn pieces(&self, frame: Frame<Bytes>, last: bool, scratch: &mut BytesMut) -> Result<Pieces, SendError> {
        if let Some(trailers) = frame.trailers_ref() {
            let bytes = stream::encode_trailers(trailers, &mut BytesMut::new());
            if exceeds(self.limits(), bytes, trailers) {
                return Err(SendError::Limit);
            }
        }
        Ok(Pieces::of(frame, last, scratch))
    }

    /// Writes all of `bytes`. Not cancel safe: a dropped call may have written a part, so the stream must go too.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), SendError> {
        self.write_all(&mut [bytes]).await
    }

    /// As [`SendHalf::write`], as a small future: it only grows where the peer does not take `bytes` at once.
    pub(super) async fn write_now_or_later(&mut self, bytes: Bytes) -> Result<(), SendError> {
        let mut pieces = [bytes];
        if let Poll::Ready(written) = self.write_now(&mut pieces) {
            return written;
        }
        // Whoever waits for room here has nobody else yet who tells that the tunnel is gone.
        let stopped = self.stopped();
        let write = self.write_all(&mut pieces);
        Box::pin(async move {
            tokio::select! {
                biased;
                written = write => written,
                over = stopped => Err(over),
            }
        })
        .await
    }

    /// Writes what the peer takes now; what is left of `pieces` is for [`SendHalf::write_all`], which has a waker.
    fn write_now(&mut self, pieces: &mut [Bytes]) -> Poll<Result<(), SendError>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.poll_write_all(pieces, &mut cx)
    }

    /// What a drop tells the peer from here on.
    pub(super) fn reset_on_drop(&mut self, code: StreamCode) {
        self.on_drop = self.on_drop.map(|_| code);
    }

    /// Writes a part of what is little, without waiting for a turn; how much.
    pub(super) fn poll_write_little(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        Pin::new(&mut self.send).poll_write(cx, bytes).map_err(SendError::from)
    }

    /// Writes all of `pieces`, which are what is left of them until this is ready. spec: SE-20
    pub(super) fn poll_write_all(&mut self, pieces: &mut [Bytes], cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.turn.poll_write_all(&mut self.send, &self.room, pieces, cx).map_err(SendError::from)
    }

    /// Writes all of `pieces`. Not cancel safe, as [`SendHalf::write`].
    pub(super) async fn write_all(&mut self, pieces: &mut [Bytes]) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_write_all(pieces, cx)).await
    }

    /// Ends the stream: nothing follows, and a drop no longer resets. Without END before it the message is cut.
    pub(super) fn finish(&mut self) {
        self.on_drop = None;
        // Fails only when the peer stopped the stream, which needs no answer.
        let _ = self.send.finish();
    }

    /// Resets the stream: with this code, or with the peer's own where the peer has stopped it, known or not. spec: ST-36
    pub(super) fn reset(&mut self, code: StreamCode) {
        if self.on_drop.take().is_some() {
            let code = self.stop_code().unwrap_or_else(|| varint(code));
            let _ = self.send.reset(code);
        }
    }

    /// The code with which the peer has stopped this direction, if it has: a write of nothing tells, unless nothing may be written
    /// on the connection at all. To ask for the peer's word would leave something with the connection: see [`Turn::alone`].
    fn stop_code(&mut self) -> Option<VarInt> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(&mut self.send).poll_write(&mut cx, &[]) {
            Poll::Ready(Err(quinn::WriteError::Stopped(code))) => Some(code),
            _ => None,
        }
    }

    /// Resolves when the peer no longer wants this direction, or the connection is gone. Cancel safe. Once polled, it leaves
    /// something with the connection if this end resets the stream: see [`Turn::alone`].
    pub(super) fn stopped(&self) -> impl Future<Output = SendError> + Send + 'static + use<> {
        let stopped = self.send.stopped();
        async move {
            match stopped.await {
                Ok(None) => SendError::Stopped(StreamCode::NoError),
                // spec: ER-5
                Ok(Some(code)) => {
                    SendError::Stopped(StreamCode::from_number(code.into_inner()).unwrap_or(StreamCode::Internal))
                }
                Err(quinn::StoppedError::ConnectionLost(error)) => SendError::Lost(lost(&error)),
                Err(other) => SendError::Lost(TunnelLost(other.to_string())),
            }
        }
    }

    /// Sends an encoded head, then a body to its END, or resets the stream with the reason. The head leaves with the first
    /// piece of the body if that is there. Pulls a piece only when the last one was taken.
    pub(super) async fn send_message<B>(&mut self, head: &mut BytesMut, body: Pin<&mut B>) -> Result<(), SendError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.pump(head, body, true).await.inspect_err(|error| self.give_up(error))
    }

    /// As [`SendHalf::send_message`], of which [`SendHalf::start_message`] left this.
    pub(super) async fn go_on_message<B>(
        &mut self,
        head: &mut BytesMut,
        ahead: Option<Pieces>,
        body: Pin<&mut B>,
    ) -> Result<(), SendError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let sent = match ahead {
            None => self.pump(head, body, false).await,
            Some(ahead) => self.continue_message(head, ahead, body).await,
        };
        sent.inspect_err(|error| self.give_up(error))
    }

    async fn continue_message<B>(
        &mut self,
        scratch: &mut BytesMut,
        mut ahead: Pieces,
        body: Pin<&mut B>,
    ) -> Result<(), SendError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.write_all(&mut ahead.bytes).await?;
        if ahead.last {
            self.finish();
            return Ok(());
        }
        self.pump(scratch, body, false).await
    }

    /// Sends what there is now of a head and a body, without waiting for anything. What the peer does not take yet stays
    /// in `head` and `ahead`, for [`SendHalf::go_on_message`].
    pub(super) fn start_message<B>(
        &mut self,
        head: &mut BytesMut,
        ahead: &mut Option<Pieces>,
        body: Pin<&mut B>,
    ) -> Started
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        // Whoever goes on polls both again, with a waker.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.poll_start(head, ahead, body, &mut cx) {
            Poll::Pending => Started::Goes,
            Poll::Ready(Ok(last)) if last => Started::Done,
            Poll::Ready(Ok(_)) => Started::Goes,
            Poll::Ready(Err(error)) => {
                self.give_up(&error);
                Started::Done
            }
        }
    }

    /// Ready with whether all of it is sent.
    fn poll_start<B>(
        &mut self,
        head: &mut BytesMut,
        ahead: &mut Option<Pieces>,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, SendError>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let next = std::task::ready!(poll_next(body.as_mut(), cx));
        let pieces = match next.map_err(SendError::Source)? {
            Some(frame) => self.pieces(frame, body.is_end_stream(), head)?,
            None => Pieces::end(head),
        };
        let pieces = ahead.insert(pieces);
        std::task::ready!(self.write_now(&mut pieces.bytes))?;
        let last = pieces.last;
        *ahead = None;
        if last {
            self.finish();
        }
        Poll::Ready(Ok(last))
    }

    /// Ends the stream so that the peer knows of the error. What a source gave before it failed still arrives: a reset
    /// would throw away what is under way, the end of the stream without END does not. spec: ST-38
    pub(super) fn give_up(&mut self, error: &SendError) {
        match error {
            SendError::Source(_) => self.finish(),
            SendError::Head(_) => self.reset(StreamCode::Truncated),
            SendError::Limit => self.reset(StreamCode::Limit),
            // RFC 9000 section 3.5: the same code.
            SendError::Stopped(code) => self.reset(*code),
            SendError::Lost(_) => self.reset(StreamCode::Cancelled),
        }
    }

    /// `watches`: a peer that wants no more ends it also while the body is silent.
    async fn pump<B>(&mut self, scratch: &mut BytesMut, mut body: Pin<&mut B>, watches: bool) -> Result<(), SendError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut stopped = pin!(watches.then(|| self.stopped()));
        let mut behind = poll_fn(|cx| {
            Poll::Ready(match poll_next(body.as_mut(), cx) {
                Poll::Ready(next) => Some(next),
                Poll::Pending => None,
            })
        })
        .await;
        if !matches!(behind, Some(Ok(_))) && !scratch.is_empty() {
            self.write(scratch.split().freeze()).await?;
        }
        loop {
            // An answer may be silent for long; the peer's STOP_SENDING must end it all the same.
            let next = poll_fn(|cx| match poll_gathered(body.as_mut(), &mut behind, cx) {
                Poll::Pending => match stopped.as_mut().as_pin_mut() {
                    Some(stopped) => stopped.poll(cx).map(Err),
                    None => Poll::Pending,
                },
                Poll::Ready(next) => Poll::Ready(next.map_err(SendError::Source)),
            });
            let Some(frame) = next.await? else { break };
            let last = behind.is_none() && body.is_end_stream();
            let mut pieces = self.pieces(frame, last, scratch)?;
            self.write_all(&mut pieces.bytes).await?;
            if last {
                self.finish();
                return Ok(());
            }
        }
        stream::encode_end(scratch);
        self.write(scratch.split().freeze()).await?;
        self.finish();
        Ok(())
    }
}

/// What goes behind the header of a frame: nothing more, where the payload is small and has become a part of it. QUIC looks at
/// every piece that is not acknowledged yet for each one that it sends.
pub(super) fn one_if_small(frame: &mut BytesMut, payload: Bytes) -> Bytes {
    if payload.len() >= SMALL {
        return payload;
    }
    frame.extend_from_slice(&payload);
    Bytes::new()
}

/// What goes out together: what stood before a frame and its header, its payload, and END. Written bytes leave it.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: [Bytes; 3],
    /// The message ends with it.
    last: bool,
}

impl Pieces {
    /// A frame behind what `scratch` holds, and END behind it if it is the last.
    fn of(frame: Frame<Bytes>, last: bool, scratch: &mut BytesMut) -> Self {
        if scratch.is_empty() && scratch.capacity() < SPARE_BYTES {
            *scratch = encoded(|_| {});
        }
        let mut bytes = [Bytes::new(), Bytes::new(), Bytes::new()];
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                stream::encode_data_header(data.len() as u64, scratch);
                bytes[1] = one_if_small(scratch, data);
            }
            Err(frame) => {
                if let Ok(fields) = frame.into_trailers() {
                    stream::encode_trailers(&fields, scratch);
                }
            }
        }
        bytes[0] = scratch.split().freeze();
        if last {
            stream::encode_end(scratch);
            bytes[2] = scratch.split().freeze();
        }
        Self { bytes, last }
    }

    /// END behind what `scratch` holds.
    fn end(scratch: &mut BytesMut) -> Self {
        stream::encode_end(scratch);
        Self { bytes: [scratch.split().freeze(), Bytes::new(), Bytes::new()], last: true }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if let Some(code) = self.on_drop {
            self.reset(code);
        }
    }
}

#[cfg(test)]
mod tests;
