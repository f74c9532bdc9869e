//! Requests that run beside whatever a test changes; none may be lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit::lifecycle::Drain;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::support::eventually::eventually;
use crate::support::http1::get;

/// About 200 requests a second, in four tasks.
const PACE: Duration = Duration::from_millis(20);

/// Requests to one egress, until it is told to stop.
pub(crate) struct Load {
    answers: Arc<Mutex<BTreeSet<String>>>,
    count: Arc<AtomicUsize>,
    stop: Drain,
    tasks: JoinSet<()>,
}

impl Load {
    /// One after another, to a node, in two tasks. Returns once the first requests were answered.
    pub(crate) async fn start(egress: SocketAddr, node: &str) -> Self {
        Self::run(egress, &format!("x-node-id: {node}"), (2, None)).await
    }

    /// About 200 a second, with a field that says for whom they are. Returns once the first requests were answered.
    pub(crate) async fn paced(egress: SocketAddr, field: &str) -> Self {
        Self::run(egress, field, (4, Some(PACE))).await
    }

    async fn run(egress: SocketAddr, field: &str, (tasks, pace): (usize, Option<Duration>)) -> Self {
        let (answers, count) = (Arc::default(), Arc::default());
        let mut load = Self { answers, count, stop: Drain::new(), tasks: JoinSet::new() };
        for _ in 0..tasks {
            let (answers, count, stop) = (Arc::clone(&load.answers), Arc::clone(&load.count), load.stop.watch());
            let field = field.to_owned();
            load.tasks.spawn(async move {
                let mut turns = pace.map(|pace| {
                    let mut turns = interval(pace);
                    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    turns
                });
                while !stop.is_draining() {
                    if let Some(turns) = &mut turns {
                        turns.tick().await;
                    }
                    let response = get(egress, "/", &[&field]).await.unwrap();
                    assert_eq!(response.status(), 200, "{field}: {}", response.text());
                    answers.lock().unwrap().insert(response.text());
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load.goes_on().await;
        load
    }

    /// Some more requests, after this was called.
    pub(crate) async fn goes_on(&mut self) {
        let enough = self.count.load(Ordering::Relaxed) + 20;
        eventually("requests that are answered", async || {
            // A request that was lost ended its task.
            if let Some(ended) = self.tasks.try_join_next() {
                ended.unwrap();
            }
            (self.count.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    }

    /// All answers that there were; fails if a request was lost.
    pub(crate) async fn finish(mut self) -> BTreeSet<String> {
        self.goes_on().await;
        self.stop.begin(Duration::ZERO);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let answers = self.answers.lock().unwrap();
        answers.clone()
    }
}
