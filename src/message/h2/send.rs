//! A message body on its way into a stream.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::timeout;

use crate::message::BoxError;
use crate::message::fields;
use crate::message::pieces::{Next, poll_gathered};
use crate::message::queued::Queued;

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The peer reset the stream, or does not want the rest (NO_ERROR).
    #[error("the peer stopped the stream: {0}")]
    Stopped(Reason),
    /// The connection is gone.
    #[error("the connection was lost: {0}")]
    Lost(#[source] h2::Error),
    /// The body failed at its source.
    #[error("the body failed at its source: {0}")]
    Source(#[source] BoxError),
    /// The peer took nothing for as long as was allowed.
    #[error("the peer takes nothing")]
    Stalled,
    /// The body is not as long as its head said.
    #[error("the body differs from its declared length")]
    Length,
    /// The trailers are larger than the peer takes. Without them the message would say something else.
    #[error("the trailers are larger than the peer takes")]
    Trailers,
}

impl From<h2::Error> for SendError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Stopped(reason),
            _ => Self::Lost(error),
        }
    }
}

/// What a body is held to while it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Its length in bytes, where the head said so: one that is longer or shorter is cut.
    pub declared: Option<u64>,
    /// Gives up a peer that takes nothing for this long; `None`: waits for ever.
    pub stall_timeout: Option<Duration>,
    /// The most bytes of names and values, and the most fields, that the peer takes in trailers.
    pub max_trailers: (u32, u32),
    /// The code of the reset when this end stops: the source failed, the peer stalled, or what is sent breaks a bound.
    pub reset: fn(&SendError) -> Reason,
    /// What is queued when the source fails.
    pub on_cut: OnCut,
}

/// What a stream that waits for room keeps of that which the peer takes of all streams together, bytes.
///
/// That is for those who have room: hundreds who wait would have all of it, and a short answer, or the control stream, would wait
/// for the peer. What is kept says that the stream's own window is open, and makes a frame that is worth its header where nothing
/// else is left when its turn comes.
pub const KEPT_IN_LINE: usize = 1024;

/// For [`Terms::max_trailers`]: as many as there are.
pub const ANY_TRAILERS: (u32, u32) = (u32::MAX, u32::MAX);

/// What becomes of the pieces that still wait to be written when the source of a body fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCut {
    /// They are sent, and the reset follows them: often they say what happened.
    Deliver,
    /// They are thrown away: nobody wants them any more.
    Discard,
}

/// What the pieces of a body pass on their way into HTTP/2: whoever counts what waits there to be written.
pub trait Outlet: Sync {
    /// A piece as HTTP/2 holds it until it is written.
    type Data: Buf + Send;

    /// Takes room for a piece: for how many of the `wanted` bytes. `None`: there is none now, or it is for those who wait.
    fn try_reserve(&self, wanted: usize) -> Option<usize>;

    /// Waits for room for a piece, behind all who came before: for how many of the `wanted` bytes. Cancel safe.
    fn reserve(&self, wanted: usize) -> impl Future<Output = usize> + Send;

    /// Rises with each piece that was written, or thrown away: whoever waits for room sees whether the peer takes anything. 0: it is not counted.
    fn written(&self) -> u64 {
        0
    }

    /// Puts a piece into the room that was `reserved` for it, and gives back what is left of that. One without bytes needs none.
    fn put(&self, data: Bytes, reserved: usize) -> Self::Data;

    /// The most bytes of names and values, and the most fields, that the peer takes in trailers.
    fn max_trailers(&self, terms: &Terms) -> (u32, u32) {
        terms.max_trailers
    }
}

/// As much as the windows allow.
#[derive(Debug, Clone, Copy)]
pub struct Unbounded;

impl Outlet for Unbounded {
    type Data = Bytes;

    fn try_reserve(&self, wanted: usize) -> Option<usize> {
        Some(wanted)
    }

    fn reserve(&self, wanted: usize) -> impl Future<Output = usize> + Send {
        std::future::ready(wanted)
    }

    fn put(&self, data: Bytes, _reserved: usize) -> Bytes {
        data
    }
}

/// Sends a body through [`Unbounded`], see [`send_body_through`].
///
/// # Errors
///
/// As [`send_body_through`].
///
/// Cancel safety: that of [`send_body_through`].
pub fn send_body<'a, B>(
    stream: &'a mut SendStream<Bytes>,
    body: Pin<&'a mut B>,
    terms: &'a Terms,
) -> impl Future<Output = Result<(), SendError>> + use<'a, B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    send_body_through(&Unbounded, stream, body, terms)
}

/// Sends a body to its end, or resets the stream. A piece is pulled only when the last one fits the peer's window; small
/// ones that are ready are joined, END goes with the last of them, and trailers lose what must not be in them.
///
/// # Errors
///
/// See [`SendError`]. A reset of the peer ends it also while the body is silent, or while what is queued leaves before a
/// reset ([`OnCut::Deliver`]).
///
/// Cancel safety: dropping the future resets the stream when the stream is dropped with it.
pub async fn send_body_through<B, O>(
    outlet: &O,
    stream: &mut SendStream<O::Data>,
    body: Pin<&mut B>,
    terms: &Terms,
) -> Result<(), SendError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
    O: Outlet,
{
    let mut queued = Queued::default();
    let sent = pump(outlet, stream, body, terms, &mut queued).await;
    if let Err(error @ (SendError::Source(_) | SendError::Stalled | SendError::Length | SendError::Trailers)) = &sent {
        if !matches!(error, SendError::Stalled) {
            // Whatever ends the wait, the stream is reset; boxed, because few are cut.
            let over = |cx: &mut Context<'_>| stream.poll_reset(cx).map(drop);
            Box::pin(queued.gone(terms.stall_timeout, over)).await;
        }
        stream.send_reset((terms.reset)(error));
    }
    sent
}

async fn pump<B, O>(
    outlet: &O,
    stream: &mut SendStream<O::Data>,
    mut body: Pin<&mut B>,
    terms: &Terms,
    queued: &mut Queued,
) -> Result<(), SendError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
    O: Outlet,
{
    let mut remaining = terms.declared;
    let mut behind = None;
    loop {
        let read = poll_fn(|cx| poll_read(body.as_mut(), &mut behind, stream, cx)).await;
        let Some(frame) = read? else { return end(outlet, stream, remaining, None) };
        match frame.into_data() {
            Ok(data) => {
                remaining = count(remaining, data.len())?;
                let ends = match &behind {
                    Some(read) => matches!(read, Ok(None)),
                    None => body.is_end_stream(),
                };
                let last = ends && remaining.unwrap_or(0) == 0;
                let may_be_cut = !last && !matches!(&behind, Some(Ok(Some(frame))) if frame.is_trailers());
                let data = if may_be_cut && terms.on_cut == OnCut::Deliver { queued.count(data) } else { data };
                send_data(outlet, stream, data, last, terms.stall_timeout).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                check_trailers(trailers.as_ref(), outlet.max_trailers(terms))?;
                return end(outlet, stream, remaining, trailers);
            }
        }
    }
}

/// What a body says next; `None` is its end.
type Read = Result<Option<Frame<Bytes>>, SendError>;

/// A body may be silent for long; the peer's reset must end it all the same.
fn poll_read<B, D>(
    body: Pin<&mut B>,
    behind: &mut Option<Next>,
    stream: &mut SendStream<D>,
    cx: &mut Context<'_>,
) -> Poll<Read>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
    D: Buf,
{
    match poll_gathered(body, behind, cx) {
        Poll::Ready(next) => Poll::Ready(next.map_err(SendError::Source)),
        Poll::Pending => poll_stopped(stream, cx).map(Err),
    }
}

/// Ready when the peer wants no more of the stream, or the connection is gone.
fn poll_stopped<D: Buf>(stream: &mut SendStream<D>, cx: &mut Context<'_>) -> Poll<SendError> {
    stream.poll_reset(cx).map(|reset| reset.map_or_else(SendError::from, SendError::Stopped))
}

/// What remains of the declared length once so many bytes are sent.
fn count(remaining: Option<u64>, length: usize) -> Result<Option<u64>, SendError> {
    remaining.map(|remaining| remaining.checked_sub(length as u64).ok_or(SendError::Length)).transpose()
}

fn check_trailers(trailers: Option<&HeaderMap>, (bytes, count): (u32, u32)) -> Result<(), SendError> {
    match trailers {
        Some(trailers) if fields::field_bytes(trailers) > bytes as usize || trailers.len() > count as usize => {
            Err(SendError::Trailers)
        }
        _ => Ok(()),
    }
}

fn end<O: Outlet>(
    outlet: &O,
    stream: &mut SendStream<O::Data>,
    remaining: Option<u64>,
    trailers: Option<HeaderMap>,
) -> Result<(), SendError> {
    if remaining.unwrap_or(0) > 0 {
        return Err(SendError::Length);
    }
    let mut trailers = trailers.unwrap_or_default();
    fields::strip_from_trailers(&mut trailers);
    if trailers.is_empty() {
        return Ok(stream.send_data(outlet.put(Bytes::new(), 0), true)?);
    }
    Ok(stream.send_trailers(trailers)?)
}

/// Hands data over as the window of the other end and the outlet allow, so that no more than that is buffered.
async fn send_data<O: Outlet>(
    outlet: &O,
    stream: &mut SendStream<O::Data>,
    mut data: Bytes,
    last: bool,
    stall_timeout: Option<Duration>,
) -> Result<(), SendError> {
    if data.is_empty() && last {
        return Ok(stream.send_data(outlet.put(data, 0), true)?);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let reserved = match try_room(outlet, stream, data.len()) {
            Some(reserved) => reserved,
            // Boxed: with its timer it would be the largest part of every exchange's future.
            None => Box::pin(room(outlet, stream, data.len(), stall_timeout)).await?,
        };
        let piece = data.split_to(stream.capacity().min(data.len()).min(reserved));
        stream.send_data(outlet.put(piece, reserved), last && data.is_empty())?;
    }
    Ok(())
}

/// Room for what the peer takes now, if it takes anything, and there is some.
fn try_room<O: Outlet>(outlet: &O, stream: &SendStream<O::Data>, wanted: usize) -> Option<usize> {
    match stream.capacity() {
        0 => None,
        granted => outlet.try_reserve(granted.min(wanted)),
    }
}

/// Waits until the peer takes something, and there is room for it: for how many bytes.
async fn room<O: Outlet>(
    outlet: &O,
    stream: &mut SendStream<O::Data>,
    wanted: usize,
    patience: Option<Duration>,
) -> Result<usize, SendError> {
    loop {
        // One whose window is used up is not in line.
        if stream.capacity() == 0 {
            let taken = capacity(stream);
            match patience {
                Some(patience) => timeout(patience, taken).await.map_err(|_| SendError::Stalled)??,
                None => taken.await?,
            };
            if let Some(reserved) = try_room(outlet, stream, wanted) {
                return Ok(reserved);
            }
        }
        stream.reserve_capacity(wanted.min(KEPT_IN_LINE));
        let reserved = in_line(outlet, stream, wanted, patience).await?;
        stream.reserve_capacity(wanted);
        if stream.capacity() > 0 {
            return Ok(reserved);
        }
        drop(outlet.put(Bytes::new(), reserved));
    }
}

/// Waits for room in line. Its patience begins again with whatever the peer takes of those before it.
async fn in_line<O: Outlet>(
    outlet: &O,
    stream: &mut SendStream<O::Data>,
    wanted: usize,
    patience: Option<Duration>,
) -> Result<usize, SendError> {
    let mut turn = pin!(outlet.reserve(wanted));
    loop {
        let written = outlet.written();
        // Who waits for others of its connection must not miss that the peer wants no more.
        let reserved = poll_fn(|cx| match turn.as_mut().poll(cx) {
            Poll::Ready(reserved) => Poll::Ready(Ok(reserved)),
            Poll::Pending => poll_stopped(stream, cx).map(Err),
        });
        let Some(patience) = patience else { return reserved.await };
        match timeout(patience, reserved).await {
            Ok(reserved) => return reserved,
            Err(_) if outlet.written() != written => {}
            Err(_) => return Err(SendError::Stalled),
        }
    }
}

/// Waits until the peer takes something.
async fn capacity<D: Buf>(stream: &mut SendStream<D>) -> Result<usize, SendError> {
    loop {
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(0)) => {}
            Some(Ok(granted)) => return Ok(granted),
            Some(Err(error)) => return Err(error.into()),
            // The stream no longer sends: it was reset, and the reason is there to be asked for.
            None => return Err(SendError::Stopped(poll_fn(|cx| stream.poll_reset(cx)).await?)),
        }
    }
}
