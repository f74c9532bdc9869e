//! Bringing one request through: on one tunnel, or on another where that does no harm.
//!
//! A request is tried again only where that does no harm: it goes to another tunnel when the first did not send or did
//! not process it, and once more when its tunnel ended before a response began, provided that its method is idempotent
//! and it has no body. Nothing is buffered for this; a body that was begun is never begun again.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, request};
use http_body::Body;

use super::opener::{Find, Opener, Outgoing};
use super::record::Record;
use super::upload::Upload;
use crate::id::TunnelId;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::StreamCode;
use crate::transport::OpenError;

/// On how many tunnels a request is tried at most. Those beyond would not be any better.
const MAX_ATTEMPTS: usize = 4;
/// When to ask again for a node whose tunnels took no request.
const RECONNECT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The attempts at one request.
pub(super) struct Attempts<'a, 'r, F> {
    pub(super) find: &'a mut F,
    pub(super) request: &'a mut Outgoing<'r>,
    pub(super) record: &'a mut Record,
}

/// The body of the responses that come over what `F` finds.
pub(super) type FoundBody<F> = <<F as Find>::Opener as Opener>::Body;

/// The tunnels that were tried, without an allocation.
struct Tried {
    ids: [TunnelId; MAX_ATTEMPTS],
    count: u8,
    lost_one: bool,
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
        let mut tried = Tried { ids: [TunnelId(0); MAX_ATTEMPTS], count: 0, lost_one: false };
        let mut last: Option<Failure> = None;
        async move {
            loop {
                let opener = match self.find.find(tried.ids()).await {
                    Ok(opener) => opener,
                    // What went wrong on the tunnels that there were says more than that there is no other.
                    Err(reason) => return Err(last.unwrap_or(reason)),
                };
                tried.add(opener.id());
                self.record.attempt(&opener);
                let has_fields = !self.request.head.headers.is_empty();
                let error = match opener.exchange(self.request, body).await {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                };
                if empty {
                    *body = Some(Upload::empty());
                }
                if matches!(error, OpenError::NoRoom) {
                    // A tunnel that is full is there: waiting for another is not what a hold is for.
                    self.find.hurry();
                }
                let failure = failure(&error);
                // A head that was given away cannot be sent again.
                let is_spent = has_fields && self.request.head.headers.is_empty();
                if body.is_none() || is_spent || !tried.may_try_again(&error, self.request.head) {
                    return Err(failure);
                }
                tracing::debug!(tunnel = %opener.id(), cause = failure.cause().label(), "trying another tunnel");
                last = Some(failure);
            }
        }
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

    /// Whether a second attempt does no harm to a request of which all is still to be sent.
    fn may_try_again(&mut self, error: &OpenError, head: &request::Parts) -> bool {
        let harmless = match error {
            OpenError::TunnelLost(_) => head.method.is_idempotent() && !std::mem::replace(&mut self.lost_one, true),
            error => is_unprocessed(error),
        };
        harmless && usize::from(self.count) < MAX_ATTEMPTS
    }
}

/// Whether the other end has certainly not begun with the request.
fn is_unprocessed(error: &OpenError) -> bool {
    use OpenError as E;
    matches!(error, E::NotSent(_) | E::NoRoom | E::Rejected | E::Reset(StreamCode::Rejected))
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
        OpenError::Protocol(_) => Cause::PeerProtocol,
        OpenError::Request(_) => Cause::BadRequest,
        OpenError::HeadTooLarge => Cause::HeadTooLarge,
        OpenError::NoNamedServices => Cause::UnknownService,
        _ => Cause::PeerReset,
    };
    Failure::new(cause, error.to_string())
}
