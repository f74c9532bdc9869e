//! How a process ends: lame duck first, then the entrances close, then the tunnels drain.
//!
//! In a fleet the responder leaves meanwhile: its tunnels drain when their nodes are elsewhere or are not waited for any more,
//! and siblings are asked, and answered, until nothing here needs them. spec: FL-22, FL-23, FL-39

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::DrainOutcome;
use crate::lifecycle::{Drain, DrainWatch, Drained};

/// For how long requests that are under way already when the entrances close still find the tunnels, unless they are all
/// answered before.
const CROSSING: Duration = Duration::from_millis(300);

/// How long flows of datagrams go on at least after the entrances have closed: one that is silent for so long has ended by itself.
const FLOWS_LAST: Duration = Duration::from_secs(2);

/// Resolves when the responder has left its fleet, or the time for that is over.
pub(super) type Departure = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is to end, and how.
pub(super) struct End {
    /// Of the egress.
    pub(super) entrances: Drain,
    /// Of the listeners for datagrams.
    pub(super) datagrams: Drain,
    /// Of responder and initiator.
    pub(super) tunnels: Drain,
    /// Of the connections with siblings.
    pub(super) siblings: Drain,
    /// Of a responder in a fleet.
    pub(super) departure: Option<Departure>,
    /// How long requests are taken while whoever sends them learns that the process will end.
    pub(super) lame_duck: Duration,
    /// How long what runs may take after that.
    pub(super) limit: Duration,
}

impl End {
    /// Ends everything; a second order, which `watch` hears of, cuts it short. Says whether anything was cut.
    pub(super) async fn run(self, watch: &DrainWatch) -> DrainOutcome {
        let Self { entrances, datagrams, tunnels, siblings, departure, lame_duck, limit } = self;
        let departed = CancellationToken::new();
        let leaving = async {
            if let Some(departure) = departure {
                // The directory says it at once. spec: FL-21
                tunnels.leave();
                tokio::select! {
                    () = departure => {}
                    () = watch.expired() => {}
                }
            }
            departed.cancel();
        };
        let closing = async {
            if !lame_duck.is_zero() {
                info!(for_ = ?lame_duck, "stopping: not ready any more; requests are taken for this long still");
                entrances.leave();
                tokio::select! {
                    () = sleep(lame_duck) => {}
                    () = watch.expired() => {}
                }
            }
            info!(timeout = ?limit, "draining");
            let drains = drain([&entrances, &datagrams, &tunnels, &siblings], limit, &departed);
            tokio::pin!(drains);
            tokio::select! {
                ended = &mut drains => ended,
                () = watch.expired() => {
                    for drain in [&entrances, &datagrams, &tunnels, &siblings] {
                        drain.stop();
                    }
                    drains.await
                }
            }
        };
        match tokio::join!(closing, leaving).0.into_iter().map(left).sum::<usize>() {
            0 => {
                info!("drained: everything finished");
                DrainOutcome::Finished
            }
            left => {
                warn!(left, "the drain timeout passed: what still ran was cut");
                DrainOutcome::Cancelled
            }
        }
    }
}

/// Drains entrances, tunnels and the connections with siblings, in this order as far as one needs the next. Of the flows of
/// datagrams none is cut: nobody who sends them can be told, so they last as long as exchanges do.
async fn drain(
    [entrances, datagrams, tunnels, siblings]: [&Drain; 4],
    limit: Duration,
    departed: &CancellationToken,
) -> [Drained; 3] {
    let deadline = Instant::now() + limit;
    let remaining = || deadline.saturating_duration_since(Instant::now());
    let closed = CancellationToken::new();
    let entrances = async {
        let drained = entrances.drain(limit).await;
        closed.cancel();
        drained
    };
    let flows = async {
        let no_exchange = async { tokio::join!(closed.cancelled(), sleep(FLOWS_LAST.min(limit))) };
        tokio::select! {
            _ = datagrams.drain(limit) => {}
            _ = no_exchange => datagrams.stop(),
        }
        // They have ended, or are told to.
        datagrams.drain(Duration::ZERO).await;
    };
    let tunnels = async {
        tokio::select! {
            () = closed.cancelled() => {}
            () = sleep(CROSSING) => {}
        }
        departed.cancelled().await;
        tunnels.drain(remaining()).await
    };
    let siblings = async {
        closed.cancelled().await;
        departed.cancelled().await;
        siblings.drain(remaining()).await
    };
    let (entrances, (), tunnels, siblings) = tokio::join!(entrances, flows, tunnels, siblings);
    [entrances, tunnels, siblings]
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
        let [leaves, closes, drains, _, over] = steps_of(lame_duck, entrances_need, stop_after, None).await;
        [leaves, closes, drains, over]
    }

    /// The same in a fleet: when the directory is told and the connections with siblings drain, too.
    async fn steps_of(
        lame_duck: Duration,
        entrances_need: Duration,
        stop_after: Option<Duration>,
        departure: Option<Duration>,
    ) -> [u128; 5] {
        let (outer, entrances, tunnels, siblings) = (Drain::new(), Drain::new(), Drain::new(), Drain::new());
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
        let (watch, inner) = (siblings.watch(), siblings.watch());
        let parts = inner.spawn(async move {
            watch.announced().await;
            at()
        });
        let told = tunnels.watch().leaving();
        let departure = departure.map(|needs| -> Departure {
            Box::pin(async move {
                assert!(told.is_cancelled(), "the directory is told before");
                sleep(needs).await;
            })
        });
        let (datagrams, limit) = (Drain::new(), 30 * SECOND);
        End { entrances, datagrams, tunnels, siblings, departure, lame_duck, limit }.run(&outer.watch()).await;
        let closed = closes.await.unwrap().unwrap_or_default();
        let [drained, parted] = [drains, parts].map(|task| async { task.await.unwrap().unwrap() });
        [leaves.await.unwrap(), closed, drained.await, parted.await, at()]
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

    // spec: FL-23, FL-39
    #[tokio::test(start_paused = true)]
    async fn tunnels_and_siblings_wait_for_the_departure_and_siblings_for_the_last_request_too() {
        let [_, closes, drains, parts, over] = steps_of(SECOND, 2 * SECOND, None, Some(8 * SECOND)).await;
        assert_eq!([closes, drains, parts, over].map(|at| at / 10), [100, 800, 800, 800]);
        let [_, closes, drains, parts, over] = steps_of(SECOND, 9 * SECOND, None, Some(2 * SECOND)).await;
        assert_eq!([closes, drains, parts, over].map(|at| at / 10), [100, 200, 1000, 1000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_order_ends_a_departure_too() {
        let [.., over] = steps_of(50 * SECOND, SECOND, Some(SECOND), Some(60 * SECOND)).await;
        assert!(over < 3000, "{over}");
    }

    /// What came of a process with a flow that goes on, beside an exchange that takes so long, and after how many seconds.
    async fn with_a_flow(exchange: Duration) -> (DrainOutcome, u64) {
        let (outer, entrances, tunnels, siblings) = (Drain::new(), Drain::new(), Drain::new(), Drain::new());
        let datagrams = Drain::new();
        let flow = |of: &Drain| {
            let flow = datagrams.watch();
            drop(of.watch().spawn(async move { flow.expired().await }));
        };
        flow(&datagrams);
        // A tunnel is there as long as its flow.
        flow(&tunnels);
        let watch = entrances.watch();
        drop(entrances.watch().spawn(async move {
            watch.announced().await;
            sleep(exchange).await;
        }));
        let (start, limit) = (Instant::now(), 30 * SECOND);
        let end = End { entrances, datagrams, tunnels, siblings, departure: None, lame_duck: Duration::ZERO, limit };
        (end.run(&outer.watch()).await, start.elapsed().as_secs())
    }

    // A flow held a process up until the limit, and was said to be cut then.
    #[tokio::test(start_paused = true)]
    async fn flows_of_datagrams_last_as_long_as_exchanges_and_are_not_cut() {
        assert_eq!(with_a_flow(Duration::ZERO).await, (DrainOutcome::Finished, 2));
        assert_eq!(with_a_flow(7 * SECOND).await, (DrainOutcome::Finished, 7));
        assert_eq!(with_a_flow(60 * SECOND).await.0, DrainOutcome::Cancelled);
    }
}
