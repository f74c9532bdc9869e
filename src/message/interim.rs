//! Responses before the response: how whoever works on a request says 100, 102, 103 to its sender.
//!
//! One [`Queue`] serves one exchange, wherever it runs: interim responses of a service or a target go in, the codec that
//! writes to the sender takes them out. It needs no memory of its own before the first of them, and may be part of what
//! an exchange has anyway. How many pass is bounded ([`MAX_WAITING`], [`MAX_PASSED`]); whoever reads them from a peer
//! counts with an [`Allowance`] and gives the exchange up when they do not end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::{Response, StatusCode};

use crate::message::fields::strip_hop_by_hop;
use crate::message::trust::{self, is_claim_in_response};

/// Most interim responses waiting to be written; more are dropped, as RFC 9110 section 15.2 lets a proxy do.
pub const MAX_WAITING: usize = 16;
/// Most interim responses passed on in one exchange; more are dropped.
pub const MAX_PASSED: usize = 64;
/// Most interim responses read in one exchange; a peer that says more is not going to say the final one.
pub const MAX_READ: usize = 1024;

/// A peer that says interim responses and never the final one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_READ} interim responses came before the response")]
pub struct Flood;

/// How many interim responses a reader has still to put up with; one for each exchange.
#[derive(Debug)]
pub struct Allowance(usize);

impl Default for Allowance {
    fn default() -> Self {
        Self(MAX_READ)
    }
}

impl Allowance {
    /// Counts one that was read.
    ///
    /// # Errors
    ///
    /// It is one too many: the exchange is to be given up.
    pub fn take(&mut self) -> Result<(), Flood> {
        self.0 = self.0.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }
}

/// Takes interim responses. Must not block.
pub trait SendInterim: Send + Sync {
    /// Hands one interim response on; ignored once the final head went out.
    fn send(&self, response: Response<()>);
}

/// A function is one.
impl<F: Fn(Response<()>) + Send + Sync> SendInterim for F {
    fn send(&self, response: Response<()>) {
        self(response);
    }
}

/// Where interim (1xx) responses go before the final head, as a request extension.
///
/// On the responder the egress puts one in and the tunnel calls it; on the initiator the tunnel puts one in and the
/// service may call it. 101 is not an interim response here. RFC 9110 section 15.2.
#[derive(Clone)]
pub struct InformationalSink(Arc<dyn SendInterim>);

impl InformationalSink {
    /// Wraps a function that must not block.
    pub fn new(send: impl Fn(Response<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// Hands one interim response on; ignored once the final head went out.
    pub fn send(&self, response: Response<()>) {
        self.0.send(response);
    }

    /// Says `100 Continue` to a sender that waits for it with its body, unless it was said already or comes too late.
    pub fn proceed(&self) {
        self.send(proceed());
    }
}

impl SendInterim for InformationalSink {
    fn send(&self, response: Response<()>) {
        self.0.send(response);
    }
}

impl<T: SendInterim + 'static> From<Arc<T>> for InformationalSink {
    fn from(shared: Arc<T>) -> Self {
        Self(shared)
    }
}

impl fmt::Debug for InformationalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InformationalSink")
    }
}

/// `100 Continue`.
pub fn proceed() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    response
}

/// The interim responses of one exchange, from whoever says them to the codec that writes them.
///
/// Dropped are those that come after the final head, that the connection cannot carry, that are not 1xx (or are 101),
/// a second 100, and those beyond the bounds. What is kept has lost the fields of its hop,
/// and what is no target's to say of a client.
#[derive(Debug)]
pub struct Queue(Mutex<State>);

#[derive(Debug)]
struct State {
    open: bool,
    /// 100 was said; once is enough, whoever else says it.
    continued: bool,
    passed: usize,
    waiting: VecDeque<Response<()>>,
    waker: Option<Waker>,
}

impl Queue {
    /// A queue for an exchange that takes interim responses if `open`. Allocates nothing.
    pub const fn new(open: bool) -> Self {
        Self(Mutex::new(State { open, continued: false, passed: 0, waiting: VecDeque::new(), waker: None }))
    }

    /// A queue for the next exchange: this one, if nobody else has kept it.
    pub fn renew(this: &mut Arc<Self>, open: bool) {
        match Arc::get_mut(this) {
            Some(queue) => *queue = Self::new(open),
            None => *this = Arc::new(Self::new(open)),
        }
    }

    /// The next one to write; wakes the caller when there is one.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Response<()>> {
        let mut queue = self.lock();
        if let Some(response) = queue.waiting.pop_front() {
            return Poll::Ready(response);
        }
        if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            queue.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The final head is about to be written. What was said before it is returned in order, later ones are dropped.
    pub fn close(&self) -> VecDeque<Response<()>> {
        let mut queue = self.lock();
        queue.open = false;
        std::mem::take(&mut queue.waiting)
    }

    /// Whether 100 was said in this exchange.
    pub fn has_continued(&self) -> bool {
        self.lock().continued
    }

    /// A panic elsewhere cannot leave the queue half-changed in a way that matters, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SendInterim for Queue {
    fn send(&self, response: Response<()>) {
        self.lock().push(response);
    }
}

impl State {
    fn push(&mut self, mut response: Response<()>) {
        let status = response.status();
        let is_continue = status == StatusCode::CONTINUE;
        let is_relayed = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
        let has_room = self.waiting.len() < MAX_WAITING && self.passed < MAX_PASSED;
        if !self.open || !is_relayed || (is_continue && self.continued) || !has_room {
            return;
        }
        self.continued |= is_continue;
        self.passed += 1;
        strip_hop_by_hop(response.headers_mut());
        // As of the response that follows.
        trust::strip(response.headers_mut(), is_claim_in_response);
        self.waiting.push_back(response);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn informational(status: u16) -> Response<()> {
        Response::builder().status(status).body(()).unwrap()
    }

    fn statuses(queue: &Queue) -> Vec<u16> {
        queue.close().iter().map(|response| response.status().as_u16()).collect()
    }

    #[test]
    fn only_informational_responses_pass_and_100_passes_once() {
        let queue = Queue::new(true);
        for status in [100, 103, 100, 101, 200, 102] {
            queue.send(informational(status));
        }
        assert_eq!(statuses(&queue), [100, 103, 102]);
    }

    #[test]
    fn nothing_passes_after_the_final_head() {
        let queue = Queue::new(true);
        assert!(queue.close().is_empty());
        queue.send(informational(103));
        assert!(statuses(&queue).is_empty());
    }

    #[test]
    fn a_flood_is_bounded() {
        let queue = Queue::new(true);
        for _ in 0..10 * MAX_WAITING {
            queue.send(informational(103));
        }
        assert_eq!(statuses(&queue).len(), MAX_WAITING);
    }

    #[test]
    fn an_exchange_passes_a_bounded_number_however_fast_they_are_written() {
        let queue = Queue::new(true);
        let mut cx = Context::from_waker(Waker::noop());
        let passes = |_: &usize| {
            queue.send(informational(103));
            queue.poll_next(&mut cx).is_ready()
        };
        assert_eq!((0..10 * MAX_PASSED).filter(passes).count(), MAX_PASSED);
    }

    #[test]
    fn a_reader_gives_up_a_peer_that_goes_on_for_ever() {
        let mut allowance = Allowance::default();
        assert!((0..MAX_READ).all(|_| allowance.take().is_ok()));
        assert_eq!(allowance.take(), Err(Flood));
    }

    #[test]
    fn fields_of_one_hop_and_claims_do_not_pass() {
        let queue = Queue::new(true);
        let early = Response::builder().status(103).header("connection", "x").header("x", "1").header("link", "l");
        let early = early.header("x-envoy-internal", "true").header("forwarded", "for=a").header("x_real_ip", "1");
        queue.send(early.body(()).unwrap());
        let kept = queue.close();
        assert_eq!((kept[0].headers().len(), kept[0].headers().contains_key("link")), (1, true));
    }

    #[test]
    fn a_queue_serves_the_next_exchange_unless_somebody_kept_it() {
        let mut queue = Arc::new(Queue::new(true));
        queue.send(informational(100));
        let first = Arc::as_ptr(&queue);
        Queue::renew(&mut queue, true);
        assert_eq!(Arc::as_ptr(&queue), first);
        assert!(!queue.has_continued() && queue.close().is_empty());
        let kept = InformationalSink::from(Arc::clone(&queue));
        Queue::renew(&mut queue, true);
        kept.send(informational(103));
        assert!(queue.close().is_empty());
    }
}
