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

    /// Takes room for a piece: for how many of the `wanted` bytes. `None`: there is none now, or it is for those who
    /// wait, and this one has not `waited`.
    fn try_reserve(&self, wanted: usize, waited: bool) -> Option<usize>;

    /// Resolves when it is worth asking again for room for so many bytes, as one who has waited. Whoever does not ask then has to
    /// [pass it on](Self::pass_on). Cancel safe.
    fn freed(&self, wanted: usize) -> impl Future<Output = ()> + Send;

    /// Who was told of room for so many bytes does not want it any more: it is for the next one who waits.
    fn pass_on(&self, wanted: usize);

    /// Puts a piece into the room that was taken for it. One without bytes needs none.
    fn put(&self, data: Bytes) -> Self::Data;

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

    fn try_reserve(&self, wanted: usize, _waited: bool) -> Option<usize> {
        Some(wanted)
    }

    fn freed(&self, _wanted: usize) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    fn pass_on(&self, _wanted: usize) {}

    fn put(&self, data: Bytes) -> Bytes {
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
        Poll::Pending => stream.poll_reset(cx).map(|reset| Err(reset.map_or_else(SendError::from, SendError::Stopped))),
    }
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
        return Ok(stream.send_data(outlet.put(Bytes::new()), true)?);
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
        return Ok(stream.send_data(outlet.put(data), true)?);
    }
    while !data.is_empty() {
        let wanted = data.len();
        stream.reserve_capacity(wanted);
        let granted = match stream.capacity() {
            0 => None,
            granted => outlet.try_reserve(granted.min(wanted), false),
        };
        let granted = match (granted, stall_timeout) {
            (Some(granted), _) => granted,
            // Boxed: a timer in every exchange's future would be its largest part.
            (None, Some(patience)) => {
                let room = Box::pin(timeout(patience, room(outlet, stream, wanted)));
                room.await.map_err(|_| SendError::Stalled)??
            }
            (None, None) => Box::pin(room(outlet, stream, wanted)).await?,
        };
        let piece = outlet.put(data.split_to(granted));
        stream.send_data(piece, last && data.is_empty())?;
    }
    Ok(())
}

/// Waits until the peer takes something, and there is room for it: for how many bytes.
async fn room<O: Outlet>(outlet: &O, stream: &mut SendStream<O::Data>, wanted: usize) -> Result<usize, SendError> {
    let mut is_told = None;
    loop {
        let capacity = match stream.capacity() {
            0 => {
                // The window is gone, or the stream.
                is_told.take().into_iter().for_each(|bytes| outlet.pass_on(bytes));
                capacity(stream).await?
            }
            granted => granted,
        };
        if let Some(granted) = outlet.try_reserve(capacity.min(wanted), is_told.is_some()) {
            return Ok(granted);
        }
        let bytes = capacity.min(wanted);
        let mut freed = pin!(outlet.freed(bytes));
        // Who waits for others of its connection must not miss that the peer wants no more.
        poll_fn(|cx| match freed.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => {
                stream.poll_reset(cx).map(|reset| Err(reset.map_or_else(SendError::from, SendError::Stopped)))
            }
        })
        .await?;
        is_told = Some(bytes);
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
