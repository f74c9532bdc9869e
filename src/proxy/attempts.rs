//! Bringing one request through: on one tunnel, or on another where that does no harm.
//!
//! A request is tried again only where that does no harm: it goes to another tunnel when the first did not send or did
//! not process it, and once more when its tunnel ended before a response began, or is suspect while there is another one,
//! provided that its method is idempotent and it has no body, or that it is a CONNECT, of which nothing was sent then but the
//! name of a service. A node that has no room, or whose target cannot be had, has not begun with it: another node of the cluster
//! is asked then, and that does not count as one of its attempts. Nothing is buffered for this; a body that was begun is never begun again.

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
use super::refused;
use super::upload::Upload;
use crate::id::TunnelId;
use crate::message::BoxError;
use crate::message::connect::is_plain;
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::{OpenCause, StreamCode};
use crate::protocol::stream::StreamError;
use crate::transport::{OpenError, TransportKind, TunnelLost};

/// On how many tunnels a request is tried at most. Those beyond would not be any better.
pub(crate) const MAX_ATTEMPTS: usize = 4;
/// How many nodes of a cluster are asked that have no room, or no target.
pub(super) const MAX_FULL_NODES: u8 = 4;
/// When to ask again for a node whose tunnels took no request.
const RECONNECT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to ask again for a service that has no room.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

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

/// What came of it last, and where it is of no use to try again.
struct Last<B> {
    /// What the client gets if nothing better comes: a failure, or what an initiator said of its target.
    outcome: Result<Response<B>, Failure>,
    avoid: Vec<TunnelId>,
    /// How many nodes had no room, or no target.
    nodes: u8,
    /// A sibling has said that the node is not there: why nobody else has it says more than that.
    not_here: bool,
}

impl<B> Last<B> {
    /// What was tried so far.
    fn new(tried: &Tried) -> Box<Self> {
        let failure = Failure::new(Cause::NoTunnel, "no tunnel takes the request");
        Box::new(Self { outcome: Err(failure), avoid: tried.ids().to_vec(), nodes: 0, not_here: false })
    }

    /// A node cannot do it, over whichever of these tunnels; `false`: it was asked of so many that it is not asked of another.
    fn pass_over(&mut self, outcome: Result<Response<B>, Failure>, tunnels: Vec<TunnelId>) -> bool {
        self.nodes += 1;
        self.not_here = false;
        self.outcome = outcome;
        self.avoid.extend(tunnels);
        self.nodes < MAX_FULL_NODES
    }
}

/// The tunnels that were tried, without an allocation.
struct Tried {
    ids: [TunnelId; MAX_ATTEMPTS],
    count: u8,
    /// Milliseconds that were taken from the time that the client gives.
    taken: u32,
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
        let mut tried =
            Tried { ids: [TunnelId(0); MAX_ATTEMPTS], count: 0, taken: 0, lost_one: false, may_move: false };
        // Boxed: it is rare, and in the way of every exchange.
        let mut last: Option<Box<Last<FoundBody<F>>>> = None;
        async move {
            if let Some(turn) = self.ways.record.turn() {
                // Boxed, as it is rare.
                Box::pin(turn).await;
            }
            loop {
                let avoid = last.as_ref().map_or_else(|| tried.ids(), |last| &last.avoid);
                let opener = match self.ways.find.find(avoid).await {
                    Ok(opener) => opener,
                    // What went wrong on the tunnels that there were says more than that there is no other.
                    Err(reason) => return last.filter(|last| !last.not_here).map_or(Err(reason), |last| last.outcome),
                };
                if let Err(failure) = self.ways.record.go_to(self.ways.find.account(&opener)) {
                    // Another node of the cluster may have room, or another sibling on the way to it; nobody waits for this one.
                    self.ways.find.hurry();
                    let tunnels = match opener.sibling() {
                        Some(_) => vec![opener.id()],
                        None => self.ways.ways_to_node(&opener),
                    };
                    let mut full = last.take().unwrap_or_else(|| Last::new(&tried));
                    if !full.pass_over(Err(failure), tunnels) {
                        return full.outcome;
                    }
                    last = Some(full);
                    continue;
                }
                tried.add(opener.id());
                self.ways.record.attempt(&opener);
                if tried.count == 1 {
                    // Waiting for a tunnel may have taken long, and each node that had no room; another attempt comes at once.
                    tried.take_time(self.ways.record.age(), |passed| self.request.take_time(passed));
                }
                let has_fields = !self.request.head.headers.is_empty();
                // The body of a CONNECT is taken when it is open, and not before.
                tried.may_move = (empty || is_plain(self.request.head)) && tried.may_lose_one(self.request.head);
                let outcome = Watched {
                    ways: &self.ways,
                    opener: &opener,
                    may_move: tried.may_move,
                    avoid: last.as_ref().map_or_else(|| tried.ids(), |last| &last.avoid),
                    exchange: pin!(opener.exchange(self.request, body)),
                    overtaken: None,
                }
                .await;
                let unserved = match outcome.map(|outcome| unserved(&opener, outcome)) {
                    Some(Ok(response)) => return Ok(response),
                    Some(Err(unserved)) => unserved,
                    None => Unserved::Failed(OpenError::TunnelLost(TunnelLost(OVERTAKEN.into()))),
                };
                if empty {
                    *body = Some(Upload::empty());
                }
                // A head that was given away cannot be sent again.
                let is_spent = has_fields && self.request.head.headers.is_empty();
                let is_whole = body.is_some() && !is_spent;
                let error = match unserved {
                    Unserved::ByNode(outcome) if !is_whole => return outcome,
                    Unserved::ByNode(outcome) => {
                        // No fault of its tunnel, and nobody has begun with it: this is none of its attempts.
                        tried.forget();
                        self.ways.find.hurry();
                        let tunnels = self.ways.ways_to_node(&opener);
                        let mut passed = last.take().unwrap_or_else(|| Last::new(&tried));
                        if !passed.pass_over(outcome, tunnels) {
                            return passed.outcome;
                        }
                        last = Some(passed);
                        continue;
                    }
                    Unserved::Failed(error) => error,
                };
                opener.note(&error);
                if matches!(error, OpenError::NoRoom | OpenError::Share(_)) {
                    // A tunnel that is full is there: waiting for another is not what a hold is for.
                    self.ways.find.hurry();
                }
                let failure = failure(&error);
                if !is_whole || !tried.may_try_again(&error, self.request.head) {
                    return Err(failure);
                }
                tracing::debug!(tunnel = %opener.id(), cause = failure.cause().label(), "trying another tunnel");
                let again = last.get_or_insert_with(|| Last::new(&tried));
                again.avoid.push(opener.id());
                again.outcome = Err(failure);
                again.not_here = matches!(error, OpenError::NotHere);
                if again.not_here {
                    // That is about the node, and not about the sibling, which may have it the next moment. spec: FL-51
                    again.avoid.retain(|id| *id != opener.id());
                }
            }
        }
    }
}

impl<F: Find> Ways<'_, F> {
    /// All tunnels of the node to which this one leads.
    fn ways_to_node(&self, opener: &F::Opener) -> Vec<TunnelId> {
        let mut tunnels = self.find.beside(opener);
        tunnels.push(opener.id());
        tunnels
    }
}

/// An attempt that has not served the request.
enum Unserved<B> {
    /// The node cannot, and nobody there has begun with it: what the client gets if no other node can.
    ByNode(Result<Response<B>, Failure>),
    Failed(OpenError),
}

/// What came of an attempt. What initiators say to responders only is taken out of it. spec: ST-45, ER-9
fn unserved<O: Opener>(
    opener: &O,
    outcome: Result<Response<O::Body>, OpenError>,
) -> Result<Response<O::Body>, Unserved<O::Body>> {
    match outcome {
        Ok(mut response) => match refused::take(response.headers_mut()) {
            None => Ok(response),
            // An Envoy passes on whatever its target says.
            Some(_) if opener.transport() == TransportKind::Envoy => Ok(response),
            Some(OpenCause::Limit) => {
                let details = format!("the service has no room at {}", opener.place().claim.node);
                let failure = Failure::new(Cause::ServiceFull, details).retry_after(FULL_RETRY_AFTER);
                Err(Unserved::ByNode(Err(failure)))
            }
            Some(_) => Err(Unserved::ByNode(Ok(response))),
        },
        Err(error) if is_by_node(&error) => Err(Unserved::ByNode(Err(failure(&error)))),
        Err(error) => Err(Unserved::Failed(error)),
    }
}

/// Whether this node cannot do it, has not begun with it, and another one may.
pub(super) fn is_by_node(error: &OpenError) -> bool {
    match error {
        OpenError::Refused(told) => refused::may_go_elsewhere(told.cause),
        OpenError::Share(exceeded) => exceeded.is_of_node(),
        _ => false,
    }
}

/// An exchange that is left, with `None`, once it is slow, its tunnel is not heard any more and there is another one.
struct Watched<'a, 'w, F: Find, E> {
    ways: &'a Ways<'w, F>,
    opener: &'a F::Opener,
    may_move: bool,
    /// Tunnels that are none to move to.
    avoid: &'a [TunnelId],
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
        if !self.may_move || self.ways.record.age() < SLOW {
            return Poll::Pending;
        }
        let Self { ways, opener, avoid, .. } = *self;
        let overtaken =
            || Box::new(Box::pin(ways.find.overtaken(opener, avoid)) as Pin<Box<dyn Future<Output = ()> + Send>>);
        Pin::new(self.overtaken.get_or_insert_with(overtaken)).poll(cx).map(|()| None)
    }
}

impl Tried {
    fn ids(&self) -> &[TunnelId] {
        &self.ids[..usize::from(self.count)]
    }

    fn is_full(&self) -> bool {
        usize::from(self.count) >= MAX_ATTEMPTS
    }

    fn add(&mut self, id: TunnelId) {
        self.ids[usize::from(self.count)] = id;
        self.count += 1;
    }

    /// Lets `take` have what has passed of this age and was not taken before.
    fn take_time(&mut self, age: Duration, take: impl FnOnce(Duration) -> bool) {
        if take(age.saturating_sub(Duration::from_millis(self.taken.into()))) {
            self.taken = u32::try_from(age.as_millis()).unwrap_or(u32::MAX);
        }
    }

    /// The latest attempt does not count.
    fn forget(&mut self) {
        self.count -= 1;
    }

    /// Whether this request may be sent again although it may have been processed.
    fn may_lose_one(&self, head: &request::Parts) -> bool {
        is_repeatable(head) && !self.lost_one && !self.is_full()
    }

    /// Whether a second attempt does no harm to a request of which all is still to be sent.
    fn may_try_again(&mut self, error: &OpenError, head: &request::Parts) -> bool {
        let harmless = match error {
            OpenError::TunnelLost(_) => is_repeatable(head) && !std::mem::replace(&mut self.lost_one, true),
            error => is_unprocessed(error),
        };
        harmless && !self.is_full()
    }
}

/// Whether it does no harm to send the request twice, as far as it has been sent without an answer: of a CONNECT that was not
/// answered no byte has reached a target.
fn is_repeatable(head: &request::Parts) -> bool {
    head.method.is_idempotent() || is_plain(head)
}

/// Whether the other end has certainly not begun with the request.
pub(crate) fn is_unprocessed(error: &OpenError) -> bool {
    use OpenError as E;
    match error {
        // Another sibling may have something left.
        E::Share(exceeded) => exceeded.is_of_way(),
        _ => matches!(error, E::NotSent(_) | E::NoRoom | E::NotHere | E::Rejected | E::Reset(StreamCode::Rejected)),
    }
}

/// What the client of a CONNECT is told of an initiator's refusal. spec: ER-9
const fn refusal(cause: OpenCause) -> Cause {
    match cause {
        OpenCause::UnknownService | OpenCause::WrongKind => Cause::UnknownService,
        OpenCause::TargetRefused => Cause::TargetRefused,
        OpenCause::TargetUnreachable => Cause::TargetUnreachable,
        OpenCause::TargetTimedOut => Cause::TargetTimeout,
        OpenCause::Limit => Cause::ServiceFull,
        OpenCause::Denied => Cause::Denied,
        OpenCause::Internal => Cause::PeerReset,
    }
}

/// What the client is told of an error on a tunnel.
pub(crate) fn failure(error: &OpenError) -> Failure {
    if let OpenError::Share(exceeded) = error {
        return exceeded.clone().into();
    }
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
        OpenError::SiblingQuota => Cause::Quota,
        OpenError::Flows(_) => Cause::TunnelFull,
        _ => Cause::PeerReset,
    };
    let failure = Failure::new(cause, error.to_string());
    match error {
        OpenError::SiblingQuota => failure.retry_after(FULL_RETRY_AFTER),
        _ if cause == Cause::ServiceFull => failure.retry_after(FULL_RETRY_AFTER),
        _ => failure,
    }
}
