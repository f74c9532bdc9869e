//! How a process ends: lame duck first, then the entrances close, then the tunnels drain.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::lifecycle::{Drain, DrainWatch, Drained};

/// For how long requests that are under way already when the entrances close still find the tunnels, unless they are all
/// answered before.
const CROSSING: Duration = Duration::from_millis(300);

/// What is to end, and how.
pub(super) struct End {
    /// Of the egress.
    pub(super) entrances: Drain,
    /// Of responder and initiator.
    pub(super) tunnels: Drain,
    /// How long requests are taken while whoever sends them learns that the process will end.
    pub(super) lame_duck: Duration,
    /// How long what runs may take after that.
    pub(super) limit: Duration,
}

impl End {
    /// Ends everything; a second order, which `watch` hears of, cuts it short.
    pub(super) async fn run(self, watch: &DrainWatch) {
        let Self { entrances, tunnels, lame_duck, limit } = self;
        if !lame_duck.is_zero() {
            info!(for_ = ?lame_duck, "stopping: not ready any more; requests are taken for this long still");
            entrances.leave();
            tokio::select! {
                () = sleep(lame_duck) => {}
                () = watch.expired() => {}
            }
        }
        info!(timeout = ?limit, "draining");
        let drains = async {
            let closing = entrances.drain(limit);
            tokio::pin!(closing);
            let closed = tokio::select! {
                closed = &mut closing => Some(closed),
                () = sleep(CROSSING) => None,
            };
            let drained = tunnels.drain(limit);
            match closed {
                Some(closed) => (closed, drained.await),
                None => tokio::join!(closing, drained),
            }
        };
        tokio::pin!(drains);
        let ended = tokio::select! {
            ended = &mut drains => ended,
            () = watch.expired() => {
                entrances.stop();
                tunnels.stop();
                drains.await
            }
        };
        match ended {
            (Drained::Complete, Drained::Complete) => info!("drained: everything finished"),
            (closed, drained) => {
                let left = left(closed) + left(drained);
                warn!(left, "the drain timeout passed: what still ran was cut");
            }
        }
    }
}

const fn left(drained: Drained) -> usize {
    match drained {
        Drained::Complete => 0,
        Drained::Expired(left) => left,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When each step came, in milliseconds: the entrances leave, close, the tunnels drain, all is over.
    async fn steps(lame_duck: Duration, entrances_need: Duration, stop_after: Option<Duration>) -> [u128; 4] {
        let (outer, entrances, tunnels) = (Drain::new(), Drain::new(), Drain::new());
        let start = Instant::now();
        let at = move || start.elapsed().as_millis();
        let leaves = entrances.watch().leaving();
        let leaves = tokio::spawn(async move {
            leaves.cancelled().await;
            at()
        });
        let (watch, inner) = (entrances.watch(), entrances.watch());
        let closes = inner.spawn(async move {
            watch.announced().await;
            let closed = at();
            sleep(entrances_need).await;
            closed
        });
        let (watch, inner) = (tunnels.watch(), tunnels.watch());
        let drains = inner.spawn(async move {
            watch.announced().await;
            at()
        });
        if let Some(after) = stop_after {
            let outer = outer.clone();
            tokio::spawn(async move {
                sleep(after).await;
                outer.stop();
            });
        }
        End { entrances, tunnels, lame_duck, limit: 30 * SECOND }.run(&outer.watch()).await;
        let closed = closes.await.unwrap().unwrap_or_default();
        [leaves.await.unwrap(), closed, drains.await.unwrap().unwrap(), at()]
    }

    #[tokio::test(start_paused = true)]
    async fn a_lame_duck_comes_first_and_tunnels_last() {
        let [leaves, closes, drains, over] = steps(5 * SECOND, 2 * SECOND, None).await;
        assert_eq!((leaves, closes / 10, drains / 10, over / 10), (0, 500, 530, 700));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_runs_nothing_is_waited_for() {
        assert_eq!(steps(Duration::ZERO, Duration::ZERO, None).await, [0; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_order_ends_the_lame_duck_and_what_runs() {
        let [_, closes, _, over] = steps(50 * SECOND, 20 * SECOND, Some(SECOND)).await;
        assert!((900..1100).contains(&closes) || closes == 0, "{closes}");
        assert!(over < 3000, "{over}");
    }
}
