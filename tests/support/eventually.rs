//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// Long enough that only something broken reaches it, on a machine of which other work takes most. No test asserts a
/// shorter time: what it rules out, such as a timeout that would help too, is set to take longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Asks `probe` until it has an answer. Panics with `what` when there is none within [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe).await
}

/// Waits until what `read` says has been the same for so long.
pub(crate) async fn standstill<T: PartialEq>(of: &str, still: Duration, mut read: impl AsyncFnMut() -> T) -> T {
    let (mut last, mut since) = (read().await, Instant::now());
    eventually(&format!("a standstill of {of}"), async || {
        let now = read().await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= still).then_some(())
    })
    .await;
    last
}

/// Like [`eventually`], with a time of its own. A question that itself gets no answer ends with it.
pub(crate) async fn within<T>(patience: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    };
    tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| panic!("not within {patience:?}: {what}"))
}
