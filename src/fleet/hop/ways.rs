//! Ways through siblings: a connection to each that was asked for something, kept while it is used. spec: FL-37, FL-50, FL-51

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::interval_at;
use tracing::{debug, warn};

use crate::fleet::hop::absent::Absent;
use crate::fleet::hop::dial::{Dialled, Dialling};
use crate::fleet::hop::elsewhere::{Elsewhere, Way};
use crate::fleet::hop::slot::{Next, Slot};
use crate::fleet::{Having, Perhaps, Sibling, Siblings};
use crate::id::{ResponderId, TunnelId};
use crate::protocol::code::CloseCode;
use crate::protocol::fleet::Route;
use crate::registry::{Balance, Handle, Health, Wanted};
use crate::shares::Shares;
use crate::telemetry::HopMetrics;
use crate::transport::{NotHere, Phase, Tunnel, Via};

/// Through how many siblings one request is tried: the first that should have the node, and another one. Those that have said
/// "not here" are none of them. spec: FL-51
const MAX_SIBLINGS: usize = 2;
/// Whoever may have died without a word that the directory would have had is asked only where it was heard not longer ago than this.
/// spec: FL-25
const FRESH: Duration = Duration::from_secs(1);
/// A connection that lasts for so long is of use, whether anything was asked on it or not.
const PROVEN: Duration = Duration::from_secs(10);
/// In how many looks a connection has to be idle.
const IDLE_LOOKS: u32 = 4;
/// The shortest time between two of them.
const MIN_LOOK: Duration = Duration::from_millis(10);
/// How often it is looked whether nothing is asked any more, by who stops.
const REST_LOOKS: Duration = Duration::from_millis(10);

/// The connections to siblings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ways(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    siblings: Arc<dyn Siblings>,
    /// What each node and cluster may have of a connection. spec: FL-53
    shares: Arc<Shares>,
    dialling: Dialling,
    idle: Duration,
    drain_timeout: Duration,
    slots: Mutex<HashMap<ResponderId, Slot>>,
    /// Connections on which nothing is asked any more, until what was asked has ended.
    leaving: Mutex<HashMap<TunnelId, Tunnel>>,
    absent: Absent,
    changed: Notify,
    metrics: HopMetrics,
}

/// One search for a way: what was found so far.
struct Search<'a> {
    wanted: Wanted<'a>,
    avoid: &'a [TunnelId],
    /// Through how many siblings the request has been tried.
    tried: usize,
    /// How many are being dialled, will be open in a moment, or are asked for a sign of life.
    coming: usize,
    /// Nobody says that those have it who are looked at now.
    is_last_resort: bool,
}

impl<'a> Search<'a> {
    const fn new(wanted: Wanted<'a>, avoid: &'a [TunnelId]) -> Self {
        Self { wanted, avoid, tried: 0, coming: 0, is_last_resort: false }
    }
}

impl Ways {
    pub(super) fn new(
        (siblings, shares): (Arc<dyn Siblings>, Arc<Shares>),
        (dialling, idle, drain_timeout): (Dialling, Duration, Duration),
        metrics: HopMetrics,
    ) -> Self {
        let (slots, leaving, absent, changed) = (Mutex::default(), Mutex::default(), Absent::default(), Notify::new());
        let shared =
            Shared { siblings, shares, dialling, idle, drain_timeout, slots, leaving, absent, changed, metrics };
        Self(Arc::new(shared))
    }

    /// The siblings that can be asked now without dialling, in the order of their names.
    pub fn connected(&self) -> Vec<ResponderId> {
        let slots = self.0.slots();
        let mut connected: Vec<_> =
            slots.iter().filter(|(_, slot)| slot.tunnel().is_some()).map(|(id, _)| id.clone()).collect();
        connected.sort();
        connected
    }

    /// Resolves when nothing is asked of any sibling. Cancel safe.
    pub(super) async fn at_rest(&self) {
        let asked = |tunnel: &Tunnel| tunnel.in_flight() > 0;
        let is_asked = || self.0.slots().values().filter_map(Slot::tunnel).any(asked);
        while is_asked() || self.0.leaving().values().any(asked) {
            tokio::time::sleep(REST_LOOKS).await;
        }
    }

    /// Ends every connection, without waiting for what runs on them.
    pub(super) fn close(&self) {
        let slots: Vec<Slot> = self.0.slots().drain().map(|(_, slot)| slot).collect();
        let leaving: Vec<Tunnel> = self.0.leaving().drain().map(|(_, tunnel)| tunnel).collect();
        for tunnel in slots.iter().filter_map(Slot::tunnel).chain(&leaving) {
            tunnel.close(CloseCode::Done, "stopped");
        }
    }
}

impl Shared {
    /// Plain values: nothing that a panic elsewhere could leave half-changed.
    fn slots(&self) -> MutexGuard<'_, HashMap<ResponderId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Shared::slots`].
    fn leaving(&self) -> MutexGuard<'_, HashMap<TunnelId, Tunnel>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, sibling: &Sibling, may_dial: bool) -> Next {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(&sibling.id) {
            // It may be a process that is no more, from which nothing will ever be heard.
            if let Some(former) = may_dial.then(|| slot.outlived(sibling.epoch)).flatten() {
                drop(slots);
                former.retire(self.drain_timeout);
                self.leaving().insert(former.id(), former);
                return Next::Dial;
            }
            return slot.next(sibling.epoch, Instant::now(), may_dial);
        }
        if !may_dial {
            return Next::Pass;
        }
        slots.insert(sibling.id.clone(), Slot::dialling(sibling.epoch));
        Next::Dial
    }

    /// Dials, and keeps the connection until it is gone.
    async fn connect(self: Arc<Self>, sibling: Arc<Sibling>) {
        let dialled = self.dialling.dial(&sibling).await;
        match dialled {
            Ok(dialled) => {
                debug!(sibling = %sibling.id, address = %dialled.tunnel.remote(), "a sibling can be asked");
                tokio::spawn(Arc::clone(&self).tell_of(dialled.tunnel.phase()));
                self.keep(&sibling.id, dialled).await;
            }
            Err(error) => {
                self.metrics.dial_failed();
                let delay = self.slots().get_mut(&sibling.id).map(|slot| slot.failed(Instant::now(), rand::random()));
                warn!(sibling = %sibling.id, %error, again_after = ?delay, "a sibling cannot be asked");
                self.changed.notify_waiters();
            }
        }
    }

    /// Tells those who wait whenever a connection is in doubt, or lives again: what waits there may go elsewhere. Returns when it
    /// is gone. spec: CT-42, FL-36
    async fn tell_of(self: Arc<Self>, mut phase: watch::Receiver<Phase>) {
        while phase.changed().await.is_ok() && !matches!(*phase.borrow_and_update(), Phase::Closed(_)) {
            self.changed.notify_waiters();
        }
    }

    async fn keep(&self, id: &ResponderId, Dialled { tunnel, asking, mut standing }: Dialled) {
        let _open = self.metrics.asks();
        let (of, begun) = (tunnel.id(), Instant::now());
        let mut phase = tunnel.phase();
        tunnel.share(Arc::clone(&self.shares));
        match self.slots().get_mut(id) {
            Some(slot) => slot.up(tunnel),
            // Stopped meanwhile: the only handle is gone, which ends it.
            None => drop(tunnel),
        }
        self.changed.notify_waiters();
        let mut running = std::pin::pin!(asking.run());
        let every = (self.idle / IDLE_LOOKS).max(MIN_LOOK);
        let mut looks = interval_at(tokio::time::Instant::now() + every, every);
        let (mut seen, mut quiet, mut has_left) = (0, 0, false);
        let reason = loop {
            tokio::select! {
                reason = &mut running => break reason,
                fall = standing.fallen() => {
                    warn!(sibling = %id, reason = %fall, "a sibling has to be dialled again: draining the connection");
                    self.leave((id, of), true, Some(self.drain_timeout));
                    has_left = true;
                }
                // Another connection, to its next start or by its next certificate, need not wait for the end of this one.
                () = drains(&mut phase), if !has_left => {
                    seen = seen.max(self.use_of(id, of).0);
                    self.leave((id, of), seen > 0 || begun.elapsed() >= PROVEN, None);
                    has_left = true;
                }
                _ = looks.tick() => {
                    let used = self.use_of(id, of);
                    quiet = if used == (seen, 0) { quiet + 1 } else { 0 };
                    seen = used.0;
                    if quiet >= IDLE_LOOKS && !has_left {
                        // Whoever has picked it just now is told to look again, or finishes.
                        self.leave((id, of), true, Some(self.idle));
                        has_left = true;
                    }
                }
            }
        };
        let of_use = has_left || self.use_of(id, of).0 > 0 || seen > 0 || begun.elapsed() >= PROVEN;
        let again_after = if of_use { None } else { self.give_up(id, of) };
        debug!(sibling = %id, %reason.code, reason.text, ?again_after, "a connection to a sibling has ended");
        self.forget(id, of);
        self.leaving().remove(&of);
        self.changed.notify_waiters();
    }

    /// Asks nothing more on a connection, and dials another one when that is next needed; what was asked may finish. `retire`: the
    /// sibling is told so, and what takes longer than this is cut; without it, it has said so itself.
    fn leave(&self, (id, of): (&ResponderId, TunnelId), of_use: bool, retire: Option<Duration>) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(id) else { return };
        let Some(tunnel) = slot.tunnel().filter(|tunnel| tunnel.id() == of).cloned() else { return };
        match of_use {
            true => drop(slots.remove(id)),
            // It is like one that could not be made.
            false => drop(slot.failed(Instant::now(), rand::random())),
        }
        drop(slots);
        if let Some(limit) = retire {
            tunnel.retire(limit);
        }
        self.leaving().insert(of, tunnel);
        self.changed.notify_waiters();
    }

    /// A connection that ended before it was of any use is like one that could not be made: for how long none is tried.
    fn give_up(&self, id: &ResponderId, of: TunnelId) -> Option<Duration> {
        let mut slots = self.slots();
        let slot = slots.get_mut(id).filter(|slot| slot.tunnel().is_some_and(|tunnel| tunnel.id() == of))?;
        Some(slot.failed(Instant::now(), rand::random()))
    }

    /// How many streams a connection has had, and how many it has.
    fn use_of(&self, id: &ResponderId, of: TunnelId) -> (u64, u32) {
        let slots = self.slots();
        let tunnel = slots.get(id).and_then(Slot::tunnel).filter(|tunnel| tunnel.id() == of);
        tunnel.map_or((0, 0), |tunnel| (tunnel.snapshot().exchanges, tunnel.in_flight()))
    }

    /// Lets go of a connection, unless there is another one by now.
    fn forget(&self, id: &ResponderId, of: TunnelId) -> Option<Tunnel> {
        let mut slots = self.slots();
        let tunnel = slots.get(id).and_then(Slot::tunnel).filter(|tunnel| tunnel.id() == of).cloned();
        if tunnel.is_some() {
            slots.remove(id);
        }
        tunnel
    }
}

impl NotHere for Shared {
    fn not_here(&self, sibling: &ResponderId, route: &Route) {
        self.metrics.not_here();
        self.absent.say(sibling, &route.tenant, &route.host_id, Instant::now());
        self.siblings.not_here(sibling, &route.tenant, &route.host_id);
    }
}

impl Shared {
    /// The way through this sibling, if it can be used now; what came of it otherwise is in the search.
    fn through(self: &Arc<Self>, sibling: &Arc<Sibling>, may_dial: bool, search: &mut Search<'_>) -> Option<Tunnel> {
        // However many have it, no more are dialled for one request than it could be tried at.
        match self.next(sibling, may_dial && search.coming < MAX_SIBLINGS) {
            Next::Use(tunnel) if search.avoid.contains(&tunnel.id()) => search.tried += 1,
            // Made just now, and open in a moment.
            Next::Use(tunnel) if tunnel.health() == Health::Opening => search.coming += 1,
            // One that nobody hears, or that leaves, is no way.
            Next::Use(tunnel) if tunnel.health() >= Health::Suspect => {}
            Next::Use(tunnel) if search.is_last_resort && !is_fresh(&tunnel) => search.coming += 1,
            Next::Use(tunnel) => {
                self.metrics.through();
                let cluster = self.siblings.cluster_of(search.wanted.tenant, search.wanted.host_id);
                let told = Arc::clone(self) as Arc<dyn NotHere>;
                return Some(tunnel.through(Via::new(sibling.id.clone(), route(search.wanted), cluster, told)));
            }
            Next::Wait => search.coming += 1,
            Next::Dial => {
                tokio::spawn(Arc::clone(self).connect(Arc::clone(sibling)));
                search.coming += 1;
            }
            Next::Pass => {}
        }
        None
    }
}

impl Elsewhere<Tunnel> for Ways {
    fn way(&self, wanted: Wanted<'_>, avoid: &[TunnelId]) -> Way<Tunnel> {
        let (shared, Wanted { tenant, host_id, service, .. }, now) = (&self.0, wanted, Instant::now());
        let mut search = Search::new(wanted, avoid);
        for Having { sibling, .. } in shared.siblings.having_for(tenant, host_id, service) {
            if let Some(tunnel) = shared.through(&sibling, true, &mut search) {
                return Way::Open(tunnel);
            }
            if search.tried == MAX_SIBLINGS {
                return Way::Away;
            }
        }
        search.is_last_resort = true;
        // The last resort is none while somebody who has it is being dialled. spec: FL-25
        let last = if search.coming == 0 { shared.siblings.perhaps_having(tenant, host_id) } else { Vec::new() };
        for Perhaps { sibling, is_likely } in last {
            if shared.absent.has(&sibling.id, tenant, host_id, now) {
                continue;
            }
            if let Some(tunnel) = shared.through(&sibling, is_likely, &mut search) {
                return Way::Open(tunnel);
            }
            if search.tried == MAX_SIBLINGS {
                return Way::Away;
            }
        }
        match search.coming {
            0 if shared.siblings.has_known(tenant, host_id, now) => Way::Away,
            0 if shared.siblings.are_unread() => Way::Unread,
            0 => Way::None,
            _ => Way::Soon,
        }
    }

    fn way_up(&self, wanted: Wanted<'_>, avoid: &[TunnelId]) -> Way<Tunnel> {
        let (shared, Wanted { tenant, host_id, service, .. }) = (&self.0, wanted);
        let mut search = Search::new(wanted, avoid);
        let having = shared.siblings.having_for(tenant, host_id, service);
        for Having { sibling, .. } in having.into_iter().filter(|having| having.is_up) {
            if let Some(tunnel) = shared.through(&sibling, true, &mut search) {
                return Way::Open(tunnel);
            }
            if search.tried == MAX_SIBLINGS {
                break;
            }
        }
        if search.coming > 0 { Way::Soon } else { Way::None }
    }

    fn changed(&self) -> &Notify {
        &self.0.changed
    }
}

/// Whether the sibling was heard just now. It is asked for a sign of life before that is too long ago, so that requests one after the
/// other do not wait for it.
fn is_fresh(tunnel: &Tunnel) -> bool {
    let ago = tunnel.heard_ago();
    if ago > FRESH / 2 {
        tunnel.probe();
    }
    ago <= FRESH
}

/// Resolves once the sibling has said that it takes no more on this connection. Cancel safe.
async fn drains(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| matches!(phase, Phase::Draining { .. })).await.is_err() {
        std::future::pending().await
    }
}

fn route(wanted: Wanted<'_>) -> Route {
    // What sticks, sticks to the same node wherever its requests come in. spec: FL-43
    let affinity = (wanted.choice.balance == Balance::Hash).then_some(wanted.choice.entropy);
    Route { tenant: wanted.tenant.clone(), host_id: wanted.host_id.clone(), affinity }
}
