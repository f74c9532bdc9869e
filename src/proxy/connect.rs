//! Bytes both ways over a raw stream: what CONNECT asks for, and what an initiator does for it.
//!
//! Each direction is a body that is sent as it comes, and ends by itself. spec: ST-60 to ST-63, ST-65

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, request};
use http_body::{Body, Frame};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::upload::Progress;
use crate::id::ServiceName;
use crate::message::{BoxError, pieces};
use crate::protocol::code::StreamCode;
use crate::protocol::limits::MAX_DURATION;
use crate::protocol::stream::ClientAddresses;
use crate::transport::{OpenError, RawSend, RawStream, RecvBody, SendError, Tunnel};

/// Of what is sent at once under a limit, so that a peer which takes large pieces slowly is not taken for one that rests.
const PIECE: usize = 16 * 1024;

/// How long what a client said is sent on after it has died, or wants no answer.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How long nothing may move in either direction of a CONNECT: an extension of its head. Without it, it may rest for ever.
#[derive(Debug, Clone)]
pub struct IdleLimit {
    limit: Duration,
    /// Tells of the upload whether it waits for a rate, which is nobody's rest.
    upload: Option<Arc<Progress>>,
}

impl IdleLimit {
    /// So long.
    pub const fn new(limit: Duration) -> Self {
        Self { limit, upload: None }
    }

    /// What waits for its rate in this upload does not rest.
    pub(super) fn follow(&mut self, upload: Option<Arc<Progress>>) {
        self.upload = upload;
    }

    fn is_over(&self) -> bool {
        !self.upload.as_ref().is_some_and(|upload| upload.is_held())
    }
}

/// Opens a raw stream to the service that the request names, and sends the body there in a task of its own. The body of the
/// response is what comes back; dropped before its end, it takes the other direction along, behind what was said before.
pub(super) async fn connect<B>(
    tunnel: &Tunnel,
    (service, head): (Option<&ServiceName>, &request::Parts),
    body: &mut Option<B>,
) -> Result<Response<RecvBody>, OpenError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    let service = service.ok_or(OpenError::Request("CONNECT names no service"))?;
    let idle = head.extensions.get::<IdleLimit>().cloned();
    let client = head.extensions.get::<ClientAddresses>().copied();
    // The deadline of the exchange bounds it.
    let RawStream { mut send, recv } = tunnel.open_raw_within(MAX_DURATION, service, client).await?;
    let mut answer = RecvBody::raw(recv);
    match body.take() {
        Some(body) => {
            let (interest, left) = oneshot::channel();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    sent = send_bytes(body, send, idle, |_| true) => drop(sent),
                    () = given_up(left) => {}
                }
            });
            answer.tie_sender(interest);
        }
        // The sender has ended its direction with the head. Whether the other end hears of it, it says.
        None => drop(send.finish().await),
    }
    Ok(Response::new(answer))
}

/// Resolves when the answer has been left for so long that what was said before is on its way, if it is taken at all: a client
/// that died has often said why. spec: ST-61
async fn given_up(left: oneshot::Receiver<()>) {
    match left.await {
        Ok(()) => sleep(LAST_WORDS).await,
        // The answer came to its end.
        Err(_) => pending().await,
    }
}

/// Sends the data of a body on a raw stream, up to its END. What fails at its source is cut behind what came before, and
/// what failed of the other direction (not `at_source`) resets the stream. spec: ST-61, ST-62
///
/// # Errors
///
/// [`SendError`]: the body was not sent to its end.
///
/// # Cancel safety
///
/// Dropping the future resets the stream.
pub(crate) async fn send_bytes<B>(
    mut body: B,
    mut send: RawSend,
    idle: Option<IdleLimit>,
    at_source: impl Fn(&B::Error) -> bool,
) -> Result<(), SendError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut behind = None;
    loop {
        let next = match &idle {
            None => next((&mut body, &mut behind), &mut send, &at_source).await?,
            Some(idle) => next_within(idle, (&mut body, &mut behind), &mut send, &at_source).await?,
        };
        match next {
            Next::Data(data) => match &idle {
                None => send.send(data).await?,
                Some(idle) => send_within(idle.limit, &mut send, data).await?,
            },
            Next::End => return send.finish().await,
            Next::Failed { at_source: true, error } => {
                send.cut().await?;
                return Err(SendError::Source(error));
            }
            Next::Failed { at_source: false, error } => {
                send.reset(StreamCode::Cancelled);
                return Err(SendError::Source(error));
            }
        }
    }
}

/// How a body failed.
struct Failed {
    at_source: bool,
    error: BoxError,
}

/// What a body has said already.
type Behind = Option<pieces::Next<Failed>>;

/// What a body says.
enum Next {
    Data(Bytes),
    End,
    Failed { at_source: bool, error: BoxError },
}

impl Next {
    fn new(next: pieces::Next<Failed>) -> Self {
        match next.map(|frame| frame.map(Frame::into_data)) {
            Ok(None) => Self::End,
            Ok(Some(Ok(data))) => Self::Data(data),
            Ok(Some(Err(_))) => Self::Failed { at_source: true, error: "bytes have no trailers".into() },
            Err(Failed { at_source, error }) => Self::Failed { at_source, error },
        }
    }
}

/// What comes next. A peer that wants no more is noticed while there is nothing. Cancel safe.
async fn next<B>(
    (body, behind): (&mut B, &mut Behind),
    send: &mut RawSend,
    at_source: impl Fn(&B::Error) -> bool,
) -> Result<Next, SendError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let failed = |error: B::Error| Failed { at_source: at_source(&error), error: error.into() };
    poll_fn(|cx| match pieces::poll_gathered_with(Pin::new(&mut *body), behind, cx, &failed) {
        Poll::Ready(next) => Poll::Ready(Ok(Next::new(next))),
        Poll::Pending => send.poll_stopped(cx).map(Err),
    })
    .await
}

/// As [`RawSend::send`]; a peer that takes next to nothing ends it. Once the other direction has ended, nobody else looks at
/// the clock.
async fn send_within(limit: Duration, send: &mut RawSend, mut data: Bytes) -> Result<(), SendError> {
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(PIECE));
        let other = send.other_half();
        let mut was_alone = false;
        let mut sending = pin!(send.send(piece));
        loop {
            match timeout(limit, sending.as_mut()).await {
                Ok(sent) => break sent?,
                Err(_) if was_alone => return Err(SendError::Stopped(StreamCode::Cancelled)),
                Err(_) => was_alone = other.is_gone(),
            }
        }
    }
    Ok(())
}

/// As [`next`], with the same clock.
async fn next_within<B>(
    idle: &IdleLimit,
    (body, behind): (&mut B, &mut Behind),
    send: &mut RawSend,
    at_source: impl Fn(&B::Error) -> bool,
) -> Result<Next, SendError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut was_alone = false;
    loop {
        match timeout(idle.limit, next((body, behind), send, &at_source)).await {
            Ok(next) => return next,
            Err(_) if !idle.is_over() => was_alone = false,
            Err(_) if was_alone => return Err(SendError::Stopped(StreamCode::Cancelled)),
            Err(_) => was_alone = send.is_alone(),
        }
    }
}
