//! Responses before the response: how whoever works on a request says 100, 102, 103 to its sender.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::{Response, StatusCode};

/// Most informational responses waiting to be written; more are dropped, as the RFC lets anyone do.
const MAX_WAITING: usize = 16;

/// Where interim (1xx) responses go before the final head, as a request extension.
///
/// On the responder the egress puts one in and the tunnel calls it; on the initiator the tunnel puts one in and the
/// service may call it. 101 is not an interim response here. RFC 9110 section 15.2.
#[derive(Clone)]
pub struct InformationalSink(Arc<dyn Fn(Response<()>) + Send + Sync>);

impl InformationalSink {
    /// Wraps a function that must not block.
    pub fn new(send: impl Fn(Response<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// Hands one interim response on; ignored once the final head went out.
    pub fn send(&self, response: Response<()>) {
        (self.0)(response);
    }
}

impl fmt::Debug for InformationalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InformationalSink")
    }
}

/// Says 100, unless it was said already or comes too late.
pub(crate) fn send_continue(sink: &InformationalSink) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    sink.send(response);
}

/// The codec's end of the sink of one exchange. Responses that come after the final head, that the connection cannot
/// carry, or that are not 1xx (or are 101) are dropped.
#[derive(Debug)]
pub(crate) struct Informational {
    queue: Arc<Mutex<Queue>>,
    sink: InformationalSink,
}

#[derive(Debug, Default)]
struct Queue {
    open: bool,
    /// 100 was said; once is enough, whoever else says it.
    continued: bool,
    waiting: VecDeque<Response<()>>,
    waker: Option<Waker>,
}

impl Informational {
    /// A queue for an exchange that takes informational responses if `open`.
    pub(crate) fn new(open: bool) -> Self {
        let queue = Arc::new(Mutex::new(Queue { open, ..Queue::default() }));
        let shared = Arc::clone(&queue);
        Self { queue, sink: InformationalSink::new(move |response| lock(&shared).push(response)) }
    }

    pub(crate) fn sink(&self) -> &InformationalSink {
        &self.sink
    }

    /// The next one to write; wakes the caller when there is one.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Response<()>> {
        let mut queue = lock(&self.queue);
        if let Some(response) = queue.waiting.pop_front() {
            return Poll::Ready(response);
        }
        if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            queue.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The final head is about to be written. What was said before it is returned in order, later ones are dropped.
    pub(crate) fn close(&self) -> VecDeque<Response<()>> {
        let mut queue = lock(&self.queue);
        queue.open = false;
        std::mem::take(&mut queue.waiting)
    }

    /// Whether 100 was said in this exchange.
    pub(crate) fn has_continued(&self) -> bool {
        lock(&self.queue).continued
    }
}

impl Queue {
    fn push(&mut self, response: Response<()>) {
        let status = response.status();
        let is_continue = status == StatusCode::CONTINUE;
        let is_relayed = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
        if !self.open || !is_relayed || (is_continue && self.continued) || self.waiting.len() == MAX_WAITING {
            return;
        }
        self.continued |= is_continue;
        self.waiting.push_back(response);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A panic elsewhere cannot leave the queue half-changed in a way that matters, so poison is ignored.
fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn informational(status: u16) -> Response<()> {
        Response::builder().status(status).body(()).unwrap()
    }

    fn statuses(source: &Informational) -> Vec<u16> {
        source.close().iter().map(|response| response.status().as_u16()).collect()
    }

    #[test]
    fn only_informational_responses_pass_and_100_passes_once() {
        let source = Informational::new(true);
        for status in [100, 103, 100, 101, 200, 102] {
            source.sink().send(informational(status));
        }
        assert_eq!(statuses(&source), [100, 103, 102]);
    }

    #[test]
    fn nothing_passes_after_the_final_head() {
        let source = Informational::new(true);
        assert!(source.close().is_empty());
        source.sink().send(informational(103));
        assert!(statuses(&source).is_empty());
    }

    #[test]
    fn a_flood_is_bounded() {
        let source = Informational::new(true);
        for _ in 0..10 * MAX_WAITING {
            source.sink().send(informational(103));
        }
        assert_eq!(statuses(&source).len(), MAX_WAITING);
    }
}
