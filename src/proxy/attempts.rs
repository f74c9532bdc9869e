//! Bringing one request through: on one tunnel, or on another where that does no harm.
//!
//! A request is tried again only where that does no harm: it goes to another tunnel when the first did not send or did
//! not process it, and once more when its tunnel ended before a response began, or is suspect while there is another one,
//! provided that its method is idempotent and it has no body, or that it is a CONNECT, of which nothing was sent then but the
//! name of a service. Nothing is buffered for this; a body that was begun is never begun again.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, request};
use http_body::Body;

use super::deadline::SLOW;
use super::opener::{Find, Opener, Outgoing};
use super::record::Record;
use super::upload::Upload;
use crate::id::TunnelId;
use crate::message::BoxError;
use crate::message::connect::is_plain;
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::{OpenCause, StreamCode};
use crate::protocol::stream::StreamError;
use crate::transport::{OpenError, TunnelLost};

/// On how many tunnels a request is tried at most. Those beyond would not be any better.
const MAX_ATTEMPTS: usize = 4;
/// When to ask again for a node whose tunnels took no request.
const RECONNECT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request leaves a tunnel that may still be there.
const OVERTAKEN: &str = "it is not heard any more, and there is another one";

/// The attempts at one request.
pub(super) struct Attempts<'a, 'r, F> {
    pub(super) ways: Ways<'a, F>,
    pub(super) request: &'a mut Outgoing<'r>,
}

/// Who finds the tunnels, and what is written down of them; together, so that whoever looks at both holds one pointer.
pub(super) struct Ways<'a, F> {
    pub(super) find: &'a mut F,
    pub(super) record: &'a mut Record,
}

/// The body of the responses that come over what `F` finds.
pub(super) type FoundBody<F> = <<F as Find>::Opener as Opener>::Body;

/// The tunnels that were tried, without an allocation.
struct Tried {
    ids: [TunnelId; MAX_ATTEMPTS],
    count: u8,
    lost_one: bool,
    /// The latest attempt may be left for another tunnel.
    may_move: bool,
}

impl<F: Find> Attempts<'_, '_, F> {
    /// Tries until there is a response, or until another attempt could do harm or is of no use. Takes the body as soon as
    /// it is on its way.
    pub(super) fn run<B>(
        self,
        body: &mut Option<Upload<B>>,
    ) -> impl Future<Output = Result<Response<FoundBody<F>>, Failure>> + Send
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let empty = body.as_ref().is_none_or(Upload::is_empty);
        let mut tried = Tried { ids: [TunnelId(0); MAX_ATTEMPTS], count: 0, lost_one: false, may_move: false };
        // Boxed: it is rare, and in the way of every exchange.
        let mut last: Option<Box<Failure>> = None;
        async move {
            loop {
                let opener = match self.ways.find.find(tried.ids()).await {
                    Ok(opener) => opener,
                    // What went wrong on the tunnels that there were says more than that there is no other.
                    Err(reason) => return Err(last.map_or(reason, |last| *last)),
                };
                tried.add(opener.id());
                self.ways.record.attempt(&opener);
                if tried.count == 1 {
                    // Waiting for a tunnel may have taken long; another attempt comes at once.
                    self.request.take_time(self.ways.record.age());
                }
                let has_fields = !self.request.head.headers.is_empty();
                // The body of a CONNECT is taken when it is open, and not before.
                tried.may_move = (empty || is_plain(self.request.head)) && tried.may_lose_one(self.request.head);
                let outcome = Watched {
                    ways: &self.ways,
                    opener: &opener,
                    tried: &tried,
                    exchange: pin!(opener.exchange(self.request, body)),
                    overtaken: None,
                }
                .await;
                let error = match outcome {
                    Some(Ok(response)) => return Ok(response),
                    Some(Err(error)) => error,
                    None => OpenError::TunnelLost(TunnelLost(OVERTAKEN.into())),
                };
                if empty {
                    *body = Some(Upload::empty());
                }
                if matches!(error, OpenError::NoRoom) {
                    // A tunnel that is full is there: waiting for another is not what a hold is for.
                    self.ways.find.hurry();
                }
                let failure = failure(&error);
                // A head that was given away cannot be sent again.
                let is_spent = has_fields && self.request.head.headers.is_empty();
                if body.is_none() || is_spent || !tried.may_try_again(&error, self.request.head) {
                    return Err(failure);
                }
                tracing::debug!(tunnel = %opener.id(), cause = failure.cause().label(), "trying another tunnel");
                last = Some(Box::new(failure));
            }
        }
    }
}

/// An exchange that is left, with `None`, once it is slow, its tunnel is not heard any more and there is another one.
struct Watched<'a, 'w, F: Find, E> {
    ways: &'a Ways<'w, F>,
    opener: &'a F::Opener,
    tried: &'a Tried,
    exchange: Pin<&'a mut E>,
    /// Only what is slow pays for it, and for its second box.
    overtaken: Option<Box<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>>,
}

impl<F: Find, E: Future> Future for Watched<'_, '_, F, E> {
    type Output = Option<E::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(outcome) = self.exchange.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        if !self.tried.may_move || self.ways.record.age() < SLOW {
            return Poll::Pending;
        }
        let Self { ways, opener, tried, .. } = *self;
        let overtaken =
            || Box::new(Box::pin(ways.find.overtaken(opener, tried.ids())) as Pin<Box<dyn Future<Output = ()> + Send>>);
        Pin::new(self.overtaken.get_or_insert_with(overtaken)).poll(cx).map(|()| None)
    }
}

impl Tried {
    fn ids(&self) -> &[TunnelId] {
        &self.ids[..usize::from(self.count)]
    }

    fn add(&mut self, id: TunnelId) {
        self.ids[usize::from(self.count)] = id;
        self.count += 1;
    }

    /// Whether this request may be sent again although it may have been processed.
    fn may_lose_one(&self, head: &request::Parts) -> bool {
        is_repeatable(head) && !self.lost_one && usize::from(self.count) < MAX_ATTEMPTS
    }

    /// Whether a second attempt does no harm to a request of which all is still to be sent.
    fn may_try_again(&mut self, error: &OpenError, head: &request::Parts) -> bool {
        let harmless = match error {
            OpenError::TunnelLost(_) => is_repeatable(head) && !std::mem::replace(&mut self.lost_one, true),
            error => is_unprocessed(error),
        };
        harmless && usize::from(self.count) < MAX_ATTEMPTS
    }
}

/// Whether it does no harm to send the request twice, as far as it has been sent without an answer: of a CONNECT that was not
/// answered no byte has reached a target.
fn is_repeatable(head: &request::Parts) -> bool {
    head.method.is_idempotent() || is_plain(head)
}

/// Whether the other end has certainly not begun with the request.
fn is_unprocessed(error: &OpenError) -> bool {
    use OpenError as E;
    matches!(error, E::NotSent(_) | E::NoRoom | E::Rejected | E::Reset(StreamCode::Rejected))
}

/// What the client of a CONNECT is told of an initiator's refusal. spec: ER-9
const fn refusal(cause: OpenCause) -> Cause {
    match cause {
        OpenCause::UnknownService | OpenCause::WrongKind => Cause::UnknownService,
        OpenCause::TargetRefused => Cause::TargetRefused,
        OpenCause::TargetUnreachable => Cause::TargetUnreachable,
        OpenCause::TargetTimedOut => Cause::TargetTimeout,
        OpenCause::Limit => Cause::TunnelFull,
        OpenCause::Internal => Cause::PeerReset,
    }
}

/// What the client is told of an error on a tunnel.
fn failure(error: &OpenError) -> Failure {
    if matches!(error, OpenError::NoRoom) {
        return Failure::new(Cause::TunnelFull, error.to_string()).retry_after(RECONNECT_RETRY_AFTER);
    }
    if is_unprocessed(error) {
        let details = format!("the tunnel did not take the request: {error}");
        return Failure::new(Cause::NoTunnel, details).retry_after(RECONNECT_RETRY_AFTER);
    }
    let cause = match error {
        OpenError::TunnelLost(_) => Cause::TunnelLost,
        // Cut at its source, as a reset says it too. spec: ST-38
        OpenError::Protocol(StreamError::Truncated) => Cause::PeerReset,
        OpenError::Protocol(_) => Cause::PeerProtocol,
        OpenError::Request(_) => Cause::BadRequest,
        OpenError::HeadTooLarge => Cause::HeadTooLarge,
        OpenError::NoNamedServices => Cause::UnknownService,
        OpenError::NoUpgrades | OpenError::Unsupported(_) => Cause::UpgradeRefused,
        OpenError::Refused(refused) => refusal(refused.cause),
        OpenError::TimedOut => Cause::Deadline,
        _ => Cause::PeerReset,
    };
    Failure::new(cause, error.to_string())
}
