//! `Expect: 100-continue`: the sender of a request waits for the target's word before it sends the body.
//!
//! The field is passed on and the target answers: 100, or a final response that spares the sender its body. Only a target
//! that cannot (HTTP/1.0 knows no 100), or that says nothing for [`PATIENCE`], is answered for. RFC 9110 section 10.1.1

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::header::EXPECT;
use tokio::time::timeout;

use super::outbound::Outbound;
use super::upload::Upload;
use crate::message::interim::{self, SendInterim};

/// How long a target may say nothing to a sender that waits. Longer than a target should think, shorter than senders wait
/// before they give up. spec: ST-39
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Whether somebody waits for 100. Nobody does once the body is here; then the field is removed.
pub(super) fn is_waited_for(outbound: &mut Outbound, upload: &Upload) -> bool {
    if !outbound.headers.contains_key(EXPECT) {
        return false;
    }
    if matches!(upload, Upload::Whole(_)) {
        outbound.headers.remove(EXPECT);
    }
    matches!(upload, Upload::Streaming(_))
}

/// Waits for what comes of the exchange, and says 100 itself if nothing came of it for `patience`. The queue that `interim`
/// is passes on the first 100 only.
pub(super) async fn answered_for<F: Future>(exchange: F, interim: &dyn SendInterim, patience: Duration) -> F::Output {
    let mut exchange = pin!(exchange);
    match timeout(patience, exchange.as_mut()).await {
        Ok(outcome) => outcome,
        Err(_) => {
            interim.send(interim::proceed());
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use tokio::time::{Instant, sleep};

    use super::*;

    async fn said(lasts: Duration) -> (usize, Duration) {
        let count = AtomicUsize::new(0);
        let interim = |response: Response<()>| {
            assert_eq!(response.status(), 100);
            count.fetch_add(1, Ordering::Relaxed);
        };
        let began = Instant::now();
        answered_for(sleep(lasts), &interim, PATIENCE).await;
        (count.load(Ordering::Relaxed), began.elapsed())
    }

    // spec: ST-39
    #[tokio::test(start_paused = true)]
    async fn a_target_that_answers_in_time_is_not_answered_for() {
        assert_eq!(said(PATIENCE / 2).await, (0, PATIENCE / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_says_nothing_is_answered_for_once() {
        assert_eq!(said(PATIENCE * 4).await.0, 1);
    }
}
