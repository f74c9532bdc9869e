//! One connection to etcd, from the first call to the loss of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::mine::Batch;
use super::{FleetSettings, Keeper, now_epoch};
use crate::fleet::etcd::{Connection, EtcdError, Heard, Lease, Operation, Watch};
use crate::fleet::view::{Applied, MAX_RESPONDERS, MAX_TUNNELS, ResponderRecord, Stored, View};

/// How often it is looked whether tunnels have come or gone.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// After one walk over all tunnels the next one is so much later, at least: what comes meanwhile is written together.
const PACE: Duration = Duration::from_millis(200);
/// A walk at least so often: what is down at a node is seen by it alone.
const WALK: Duration = Duration::from_secs(2);
/// How often a record is tried to be written that others write, too.
const CLAIMS: usize = 8;
/// How long a responder that leaves waits for etcd to know it.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// How a session came to its end without an error.
pub(super) enum Ended {
    /// The responder has drained.
    Left,
    /// Others are to be gone by.
    OtherSettings,
}

pub(super) struct Session<'a> {
    keeper: &'a mut Keeper,
    settings: Arc<FleetSettings>,
    connection: Connection,
    watch: Watch,
    /// When the watch last said something.
    heard: Instant,
    /// What is still to be written of the last walk.
    batches: VecDeque<Batch>,
    /// The number of changes that the last walk knew of.
    walked: Option<u64>,
    next_walk: Instant,
    full_walk: Instant,
}

impl<'a> Session<'a> {
    /// Connects, takes the lease up again or another one, and begins to watch.
    pub(super) async fn begin(keeper: &'a mut Keeper, settings: &Arc<FleetSettings>) -> Result<Self, EtcdError> {
        let connection = Connection::open(&settings.etcd, keeper.first).await?;
        let prefix = settings.prefix.as_str();
        let is_lost = is_lease_lost(keeper, &connection).await?;
        let (cluster, revision) = connection.standing(prefix).await?;
        if is_lost || !keeper.member.view.follows(cluster, revision) {
            keeper.member.view.begin_anew();
            read(keeper, &connection, settings).await?;
        }
        let from = keeper.member.view.snapshot().revision().saturating_add(1);
        let watch = connection.watch(prefix, from).await?;
        // Whoever continues is up to date when the watch has said so.
        watch.ask();
        let endpoint = connection.endpoint().to_string();
        info!(etcd = endpoint, revision = from - 1, "the fleet is followed");
        let now = Instant::now();
        let mut session = Self {
            keeper,
            settings: Arc::clone(settings),
            connection,
            watch,
            heard: now,
            batches: VecDeque::new(),
            walked: None,
            next_walk: now,
            full_walk: now,
        };
        session.keeper.state(|state| (state.etcd, state.trouble) = (Some(endpoint), None));
        session.settle().await?;
        if session.keeper.mine.replaced {
            session.keeper.replaced();
        }
        Ok(session)
    }

    pub(super) async fn run(mut self) -> Result<Ended, EtcdError> {
        let mut alive = interval(self.settings.lease / 3);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (leaving, leave) = (self.keeper.drain.leaving(), self.keeper.leave.clone());
        let expired = self.keeper.drain.clone();
        loop {
            tokio::select! {
                biased;
                () = leave.cancelled() => return Ok(self.leave().await),
                () = expired.expired() => return Ok(self.leave().await),
                _ = alive.tick() => self.keep_alive().await?,
                () = leaving.cancelled(), if !self.keeper.mine.draining => {
                    self.keeper.mine.draining = true;
                    self.claim().await?;
                }
                changed = self.keeper.settings.changed() => {
                    debug_assert!(changed.is_ok(), "the member holds the sender");
                    return Ok(Ended::OtherSettings);
                }
                heard = self.watch.next() => self.hear(heard?).await?,
                () = std::future::ready(()), if !self.batches.is_empty() => self.write().await?,
                _ = look.tick() => {
                    self.walk();
                    if self.is_done() {
                        return Ok(self.leave().await);
                    }
                }
            }
        }
    }

    /// Brings the lease and the record to what they should be, after everything was read or is to be followed.
    async fn settle(&mut self) -> Result<(), EtcdError> {
        match self.keeper.mine.lease {
            Some(lease) if self.keeper.mine.replaced => self.give_up(lease).await,
            None if self.keeper.mine.draining => Ok(()),
            _ => {
                self.lease().await?;
                self.claim().await
            }
        }
    }

    /// The lease that there is, if it lives; else another one, under which nothing is written yet. spec: FL-9
    async fn lease(&mut self) -> Result<(), EtcdError> {
        if self.keeper.mine.replaced {
            return Ok(());
        }
        let time = self.settings.lease;
        let mut lives = false;
        if let Some(lease) = self.keeper.mine.lease {
            lives = self.connection.keep_alive(lease).await?;
            if lives && self.keeper.mine.lease_time == time {
                return Ok(());
            }
            if !lives {
                warn!("the lease in etcd has ended: everything is written again");
            }
            self.keeper.state(|state| state.is_written = false);
        }
        let lease = self.connection.grant(time).await?;
        // What stands there under a lease of another time stays until it is written under this one.
        if lives {
            self.keeper.mine.moves(lease, time)
        } else {
            self.keeper.mine.begin(lease, time)
        }
        self.batches.clear();
        self.walked = None;
        Ok(())
    }

    /// Writes the responder's record, unless it is written. spec: FL-10
    async fn claim(&mut self) -> Result<(), EtcdError> {
        let key = self.settings.prefix.responder(&self.settings.id);
        for _ in 0..CLAIMS {
            let Some(lease) = self.keeper.mine.lease.filter(|_| !self.keeper.mine.replaced) else { return Ok(()) };
            let found = self.connection.get(&key).await?;
            let revision = found.as_ref().map_or(0, |(_, revision)| *revision);
            let record = found.and_then(|(value, _)| ResponderRecord::decode(&value).ok());
            self.settle_epoch(record.as_ref().map(|record| record.epoch));
            if self.keeper.mine.replaced {
                return self.give_up(lease).await;
            }
            let Some((key, value)) = self.keeper.mine.record() else { return Ok(()) };
            let mut operations = vec![Operation::Put { key: key.clone(), value: value.clone() }];
            if self.keeper.mine.has_none() {
                operations.push(Operation::DeleteAll(self.settings.prefix.tunnels_of(&self.settings.id)));
            }
            let is_written = self.connection.write(Some((&key, revision)), operations, lease).await?;
            self.keeper.metrics.written(is_written);
            if is_written {
                self.keeper.mine.record_is(value);
                return Ok(());
            }
        }
        Err(EtcdError::WatchEnded("somebody else writes the record of this responder, again and again".to_owned()))
    }

    fn settle_epoch(&mut self, found: Option<u64>) {
        let mine = &mut self.keeper.mine;
        match (mine.epoch, found) {
            (Some(own), Some(found)) if found > own => mine.replaced = true,
            (Some(_), _) => {}
            (None, found) => {
                let least = found.map_or(0, |found| found.saturating_add(1));
                mine.epoch = Some(now_epoch().max(least));
            }
        }
    }

    /// Another start has the name: nothing of this one may stay.
    async fn give_up(&mut self, lease: Lease) -> Result<(), EtcdError> {
        self.keeper.mine.lease = None;
        self.batches.clear();
        self.keeper.replaced();
        self.connection.revoke(lease).await
    }

    async fn keep_alive(&mut self) -> Result<(), EtcdError> {
        if self.heard.elapsed() > self.settings.lease {
            return Err(EtcdError::WatchEnded(format!("nothing was heard for {:?}", self.heard.elapsed())));
        }
        self.watch.ask();
        if let Some(lease) = self.keeper.mine.lease
            && !self.connection.keep_alive(lease).await?
        {
            self.lease().await?;
            self.claim().await?;
        }
        Ok(())
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), EtcdError> {
        let view = Arc::clone(&self.keeper.member.view);
        match heard {
            Heard::Changes(revision, changes) => {
                let mut is_missing = false;
                for change in &changes {
                    is_missing |= self.keeper.mine.heard(change);
                }
                let known = view.snapshot().revision();
                let applied = view.apply(revision.unwrap_or(known), changes);
                applied_to(self.keeper, applied);
                if is_missing {
                    self.walked = None;
                }
                self.restore().await?;
            }
            Heard::Nothing(revision) => {
                let known = view.snapshot().revision();
                view.apply(revision.unwrap_or(known), Vec::new());
            }
            Heard::Compacted => {
                debug!("the changes since the last view are not kept any more: reading everything");
                read(self.keeper, &self.connection, &self.settings).await?;
                let prefix = self.settings.prefix.as_str();
                self.watch = self.connection.watch(prefix, view.snapshot().revision().saturating_add(1)).await?;
                self.batches.clear();
                self.walked = None;
                self.settle().await?;
                if !self.keeper.mine.replaced {
                    self.keeper.state(|state| state.trouble = None);
                }
            }
        }
        self.heard = Instant::now();
        view.is_current(self.heard.into_std());
        Ok(())
    }

    /// After somebody else wrote what belongs to this responder.
    async fn restore(&mut self) -> Result<(), EtcdError> {
        match self.keeper.mine.lease {
            Some(lease) if self.keeper.mine.replaced => self.give_up(lease).await,
            Some(lease) if self.keeper.mine.record().is_some() => match self.connection.keep_alive(lease).await? {
                true => self.claim().await,
                false => {
                    self.lease().await?;
                    self.claim().await
                }
            },
            // Another start had the name, and has gone.
            None if !self.keeper.mine.replaced && !self.keeper.mine.draining => {
                self.lease().await?;
                self.claim().await?;
                self.keeper.state(|state| state.trouble = None);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Looks at all tunnels, if any can have changed.
    fn walk(&mut self) {
        let now = Instant::now();
        let changes = self.keeper.tunnels.changes();
        let is_due = self.walked != Some(changes) || now >= self.full_walk;
        if !is_due || now < self.next_walk || !self.batches.is_empty() || self.keeper.mine.lease.is_none() {
            return;
        }
        let all = self.keeper.tunnels.all();
        self.batches = self.keeper.mine.batches(&all).into();
        self.walked = Some(changes);
        // A walk over very many may take longer than the pace; it must not take all of the time.
        let took = now.elapsed();
        self.next_walk = now + PACE.max(took * 10);
        self.full_walk = now + WALK.max(took * 20);
        if self.batches.is_empty() {
            self.keeper.state(|state| state.is_written = true);
        }
    }

    /// One write; the others come when etcd has answered. spec: FL-11
    async fn write(&mut self) -> Result<(), EtcdError> {
        let (Some(batch), Some(lease)) = (self.batches.pop_front(), self.keeper.mine.lease) else { return Ok(()) };
        self.keeper.mine.begun(&batch);
        let written = self.connection.write(None, batch.operations.clone(), lease).await;
        self.keeper.metrics.written(written.is_ok());
        match written {
            Ok(_) => self.keeper.mine.written(batch),
            Err(error) => return self.not_written(error).await,
        }
        if self.batches.is_empty() {
            self.keeper.state(|state| state.is_written = true);
        }
        Ok(())
    }

    /// A lease that has ended meanwhile is no reason to leave the connection.
    async fn not_written(&mut self, error: EtcdError) -> Result<(), EtcdError> {
        self.batches.clear();
        self.walked = None;
        match self.keeper.mine.lease {
            Some(lease) if !self.connection.keep_alive(lease).await? => {
                self.lease().await?;
                self.claim().await
            }
            _ => Err(error),
        }
    }

    fn is_done(&self) -> bool {
        self.keeper.drain.is_draining() && self.batches.is_empty() && self.keeper.tunnels.all().is_empty()
    }

    /// Takes everything out of the directory. spec: FL-21
    async fn leave(self) -> Ended {
        if let Some(lease) = self.keeper.mine.lease
            && let Err(error) = self.connection.revoke(lease).await
        {
            warn!(%error, "the records of this responder stay until its lease ends");
        }
        self.keeper.state(|state| state.is_written = false);
        Ended::Left
    }
}

/// Whether a lease that there was has ended: then etcd may have lost more than that.
async fn is_lease_lost(keeper: &Keeper, connection: &Connection) -> Result<bool, EtcdError> {
    let Some(lease) = keeper.mine.lease else { return Ok(false) };
    let is_lost = !connection.keep_alive(lease).await?;
    Ok(is_lost)
}

/// Reads everything. The lease is kept alive meanwhile, however long that takes. spec: FL-9, FL-13
async fn read(keeper: &mut Keeper, connection: &Connection, settings: &FleetSettings) -> Result<(), EtcdError> {
    let view = Arc::clone(&keeper.member.view);
    let lease = keeper.mine.lease;
    let keep = || async move {
        match lease {
            Some(lease) => connection.keep_alive(lease).await.map(drop),
            None => Ok(()),
        }
    };
    let (applied, own) = beside(settings.lease / 3, keep, read_whole(&view, connection, settings)).await?;
    keeper.mine.found(&own);
    applied_to(keeper, applied);
    view.is_current(Instant::now().into_std());
    keeper.state(|state| state.is_read = true);
    Ok(())
}

/// Reads everything into the view. Returns what there is of this responder.
async fn read_whole(
    view: &Arc<View>,
    connection: &Connection,
    FleetSettings { prefix, id, .. }: &FleetSettings,
) -> Result<(Applied, Vec<Stored>), EtcdError> {
    let [responders, tunnels] = prefix.parts();
    let all = connection.read_all([&responders, &tunnels], MAX_RESPONDERS + MAX_TUNNELS).await?;
    let (cluster, revision, all) = all;
    let (responder, tunnels) = (prefix.responder(id).into_bytes(), prefix.tunnels_of(id).into_bytes());
    let reader = Arc::clone(view);
    // Others have their turn meanwhile.
    let read = tokio::task::spawn_blocking(move || {
        let is_own = |stored: &&Stored| stored.key == responder || stored.key.starts_with(&tunnels);
        let own = all.iter().filter(is_own).cloned().collect();
        reader.read_whole(cluster, revision, all).map(|applied| (applied, own))
    });
    let read = read.await.map_err(|error| EtcdError::WatchEnded(error.to_string()))?;
    read.ok_or_else(|| EtcdError::WatchEnded("this member of etcd lags behind what is known already".to_owned()))
}

/// Does `work`, and `keep` beside it whenever `every` has passed. Cancel safe where both are.
async fn beside<T, K: Future<Output = Result<(), EtcdError>>>(
    every: Duration,
    keep: impl Fn() -> K,
    work: impl Future<Output = Result<T, EtcdError>>,
) -> Result<T, EtcdError> {
    let keeping = async {
        loop {
            sleep(every).await;
            if let Err(error) = keep().await {
                return error;
            }
        }
    };
    tokio::select! {
        done = work => done,
        error = keeping => Err(error),
    }
}

fn applied_to(keeper: &Keeper, applied: Applied) {
    let Applied { overruled, ignored, fault } = applied;
    for tunnel in overruled {
        keeper.metrics.overruled();
        keeper.tunnels.overruled(tunnel);
        if let Some(left_out) = keeper.notices.overruled.pass(now()) {
            warn!(%tunnel, left_out, "another responder of the fleet had the name of this node first, with another key: closing the tunnel");
        }
    }
    if let Some(fault) = fault {
        keeper.metrics.ignored(ignored);
        if let Some(left_out) = keeper.notices.ignored.pass(now()) {
            warn!(count = ignored, fault, left_out, "what stands in the directory cannot be used, and is left out");
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    // Regression: the records of a responder ended with its lease while it read very many of others.
    // spec: FL-9
    #[tokio::test(start_paused = true)]
    async fn whoever_reads_for_long_keeps_his_lease_alive_meanwhile() {
        let (lease, kept) = (Duration::from_secs(9), Cell::new(0));
        let keep = || {
            kept.set(kept.get() + 1);
            std::future::ready(Ok(()))
        };
        let reading = async {
            sleep(lease * 2).await;
            Ok(())
        };
        beside(lease / 3, keep, reading).await.unwrap();
        assert!((5..=6).contains(&kept.get()), "every third of its time: {}", kept.get());
        let lost = || std::future::ready(Err(EtcdError::WatchEnded("lost".to_owned())));
        assert!(beside(lease / 3, lost, std::future::pending::<Result<(), EtcdError>>()).await.is_err());
    }
}
