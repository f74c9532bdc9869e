//! Requests at a fixed rate, however long an answer takes.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::http1::Response;

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: usize,
    /// Of those that were not answered with 200 in time, how many ended in which way.
    pub(crate) lost: BTreeMap<String, usize>,
    /// Of the others, in order.
    took: Vec<Duration>,
}

impl Seen {
    /// The time within which this share of the answers came.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.took.len().saturating_sub(1);
        self.took.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    fn note(&mut self, outcome: Result<Duration, String>) {
        match outcome {
            Ok(took) => self.took.push(took),
            Err(what) => *self.lost.entry(what).or_default() += 1,
        }
    }
}

/// Asks `rate` times a second for `time`. What has no answer within `patience` is lost.
pub(crate) async fn ask<F>(rate: u32, times: (Duration, Duration), once: impl Fn() -> F) -> Seen
where
    F: Future<Output = io::Result<Response>> + Send + 'static,
{
    let judged = || {
        let asked = once();
        async move {
            let answer = asked.await?;
            let is_good = answer.status() == 200;
            let why = || format!("{} {:?}", answer.status(), answer.field("proxy-status"));
            if is_good { Ok(()) } else { Err(io::Error::other(why())) }
        }
    };
    run(rate, times, judged).await
}

/// Does something `rate` times a second for `time`, however long each takes. What is not done within `patience` is lost.
pub(crate) async fn run<F>(rate: u32, (time, patience): (Duration, Duration), once: impl Fn() -> F) -> Seen
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (mut seen, mut begun) = (Seen::default(), JoinSet::new());
    let mut turns = interval(Duration::from_secs(1) / rate);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + time;
    while Instant::now() < end {
        turns.tick().await;
        seen.sent += 1;
        begun.spawn(outcome(once(), patience));
        while let Some(outcome) = begun.try_join_next() {
            seen.note(outcome.unwrap());
        }
    }
    while let Some(outcome) = begun.join_next().await {
        seen.note(outcome.unwrap());
    }
    seen.took.sort_unstable();
    seen
}

async fn outcome(done: impl Future<Output = io::Result<()>>, patience: Duration) -> Result<Duration, String> {
    let start = Instant::now();
    match timeout(patience, done).await {
        Ok(Ok(())) => Ok(start.elapsed()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::Other => Err(error.to_string()),
        Ok(Err(error)) => Err(error.kind().to_string()),
        Err(_) => Err(format!("not done within {patience:?}")),
    }
}
