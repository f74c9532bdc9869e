//! The live tunnels, and waiting for one that is about to be there.

use std::future::pending;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{sleep, timeout_at};

use crate::fleet::hop::{Elsewhere, LocalTunnels, Way};
use crate::id::{Claim, TunnelId};
use crate::policy::Admitted;
use crate::registry::{Handle, Health, InsertError, Inserted, NoTunnel, Registry, Wanted};
use crate::routing::Destination;
use crate::shares::Shares;
use crate::transport::Tunnel;

/// Over how many bells the names are spread. An arrival wakes whoever waits for its names, and one in this many others.
const BELLS: usize = 64;

/// How often a request that waits looks whether a sibling has by now what it waits for.
const SIBLINGS_LOOK: Duration = Duration::from_millis(50);
/// How often one looks that waits for its answer in a tunnel that is not heard; there may be thousands of them.
const OVERTAKEN_LOOK: Duration = Duration::from_millis(250);

/// How long a tunnel that is registered is waited for to be open. spec: HS-38
const WELCOME_WAIT: Duration = Duration::from_secs(2);

/// The live tunnels of this responder. Insert through it, not into the registry, or nobody who waits will know.
pub struct Directory<H> {
    registry: Registry<H>,
    arrivals: [Notify; BELLS],
    /// Until then a name that nobody knows may be one that has not come back yet.
    young_until: OnceLock<tokio::time::Instant>,
    /// Nobody will come any more.
    closing: AtomicBool,
    shares: Arc<Shares>,
    /// Who else has tunnels, if anybody.
    elsewhere: ArcSwapOption<Arc<dyn Elsewhere<H>>>,
}

/// What a tunnel is worth to a request of which the node says that its service is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    /// Less than a way elsewhere that is being made.
    Last,
    /// It is there.
    Too,
}

/// How long a request may still wait for tunnels; starts to run when it first has to.
#[derive(Debug)]
pub struct Hold {
    /// Milliseconds: one of these is part of every exchange.
    limit: u32,
    ends: Option<tokio::time::Instant>,
}

impl Hold {
    /// The whole wait.
    pub fn new(limit: Duration) -> Self {
        Self { limit: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX), ends: None }
    }

    fn ends(&mut self) -> tokio::time::Instant {
        let limit = Duration::from_millis(self.limit.into());
        *self.ends.get_or_insert_with(|| tokio::time::Instant::now() + limit)
    }
}

impl<H> std::fmt::Debug for Directory<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl<H: Handle> Directory<H> {
    /// A directory without tunnels.
    pub fn new() -> Self {
        let (young_until, closing) = (OnceLock::new(), AtomicBool::new(false));
        let arrivals = std::array::from_fn(|_| Notify::new());
        let (shares, elsewhere) = (Arc::default(), ArcSwapOption::empty());
        Self { registry: Registry::new(), arrivals, young_until, closing, shares, elsewhere }
    }

    /// Looks there from now on for what has no tunnel here that can be used, or nowhere else. spec: FL-50
    pub fn look_elsewhere(&self, elsewhere: Option<Arc<dyn Elsewhere<H>>>) {
        self.elsewhere.store(elsewhere.map(Arc::new));
    }

    /// The table itself: to look at, to count, and to take tunnels out.
    pub fn registry(&self) -> &Registry<H> {
        &self.registry
    }

    /// What each tenant and node may have of these tunnels.
    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// Registers a tunnel, see [`Registry::insert`], and wakes the requests that wait for its node or cluster. Whoever enters
    /// one that is still opening [`ring`](Self::ring)s again when it is open, as a responder does.
    pub fn insert(&self, admitted: Admitted, id: TunnelId, handle: H) -> Result<Inserted<H>, InsertError> {
        let claim = admitted.place().claim.clone();
        let inserted = self.registry.insert(admitted, id, handle)?;
        self.ring(&claim);
        Ok(inserted)
    }

    /// Wakes the requests that wait for the node or its cluster: one of its tunnels can be used now, or is suspect.
    pub fn ring(&self, claim: &Claim) {
        for name in [claim.node.as_str(), claim.cluster.as_str()] {
            self.bell(claim.tenant.as_str(), name).notify_waiters();
        }
    }

    /// For this long from now on requests wait for unknown nodes, too: after a restart all are unknown. Counts once.
    pub fn begin(&self, grace: Duration) {
        let _ = self.young_until.set(tokio::time::Instant::now() + grace);
    }

    /// Lets no request wait any more, unless it could go elsewhere: who is not there will not come.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        for bell in &self.arrivals {
            bell.notify_waiters();
        }
    }

    /// The tunnel for a request that has not been tried on those to `avoid`; never one that is suspect.
    ///
    /// Waits, as long as the hold lasts, for a node or cluster that is reconnecting, that has only suspect tunnels, or whose
    /// every tunnel has already failed this request.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn find(&self, to: &Destination, avoid: &[TunnelId], hold: &mut Hold) -> Result<H, NoTunnel> {
        let ends = match self.pick(to, avoid, Down::Last) {
            // However short the hold: it is there, and usually open in a moment. spec: HS-38
            Err(NoTunnel::Opening) => hold.ends().max(tokio::time::Instant::now() + WELCOME_WAIT),
            Err(reason) if self.is_worth_waiting(reason) => hold.ends(),
            outcome => return outcome,
        };
        // Rare, and apart from the future of every exchange.
        Box::pin(self.wait(to, avoid, ends)).await
    }

    /// Resolves when a tunnel is suspect and there is another one for the same request, which is not among those to
    /// `avoid`: what waits for an answer waits in the wrong place. That may be one of a sibling, of which nobody tells here.
    /// spec: FL-51
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn overtaken(&self, to: &Destination, tunnel: &H, avoid: &[TunnelId]) {
        let bell = self.bell(to.tenant.as_str(), to.host_id.as_str());
        let is_overtaken = || tunnel.health() == Health::Suspect && self.pick(to, avoid, Down::Too).is_ok();
        let elsewhere = self.elsewhere.load_full();
        loop {
            let mut change = pin!(bell.notified());
            Notified::enable(change.as_mut());
            let Some(elsewhere) = &elsewhere else {
                if is_overtaken() {
                    return;
                }
                change.await;
                continue;
            };
            let mut other = pin!(elsewhere.changed().notified());
            Notified::enable(other.as_mut());
            if is_overtaken() {
                return;
            }
            let look = async {
                match tunnel.health() {
                    Health::Suspect => sleep(OVERTAKEN_LOOK).await,
                    // That it is suspect rings.
                    _ => pending().await,
                }
            };
            tokio::select! {
                () = change => {}
                () = other => {}
                () = look => {}
            }
        }
    }

    async fn wait(&self, to: &Destination, avoid: &[TunnelId], ends: tokio::time::Instant) -> Result<H, NoTunnel> {
        let bell = self.bell(to.tenant.as_str(), to.host_id.as_str());
        let elsewhere = self.elsewhere.load_full();
        loop {
            let mut arrival = pin!(bell.notified());
            // Listening before looking: an arrival in between is not missed.
            Notified::enable(arrival.as_mut());
            let dialled = elsewhere.as_ref().map(|elsewhere| elsewhere.changed().notified());
            match self.pick(to, avoid, Down::Last) {
                Err(reason) if self.is_worth_waiting(reason) => {
                    let Some(dialled) = dialled else {
                        timeout_at(ends, arrival).await.map_err(|_| reason)?;
                        continue;
                    };
                    let change = async {
                        tokio::select! {
                            () = arrival => {}
                            () = dialled => {}
                            () = sleep(SIBLINGS_LOOK) => {}
                        }
                    };
                    if timeout_at(ends, change).await.is_err() {
                        return self.pick(to, avoid, Down::Too).map_err(|_| reason);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    fn is_worth_waiting(&self, reason: NoTunnel) -> bool {
        let may_come = match reason {
            NoTunnel::Reconnecting | NoTunnel::Opening | NoTunnel::Suspect | NoTunnel::AllAvoided => true,
            // Any moment it may be known who has it. spec: FL-27
            NoTunnel::Unread => true,
            NoTunnel::Unknown => self.young_until.get().is_some_and(|until| tokio::time::Instant::now() < *until),
        };
        // Nobody comes to one that ends, but somebody else may have the node any moment. spec: FL-50
        may_come && (!self.closing.load(Ordering::Acquire) || self.elsewhere.load().is_some())
    }

    fn pick(&self, to: &Destination, avoid: &[TunnelId], down: Down) -> Result<H, NoTunnel> {
        let Destination { tenant, host_id, service, choice } = to;
        let wanted = Wanted { tenant, host_id, service: service.as_ref(), choice: *choice };
        match self.pick_here(wanted, avoid) {
            Ok(tunnel) if tunnel.is_down(wanted.service) => match self.pick_up_elsewhere(wanted, avoid) {
                Some(Way::Open(better)) => Ok(better),
                Some(Way::Soon) if down == Down::Last => Err(NoTunnel::Opening),
                // What was heard is no reason to refuse a request. spec: CT-61
                _ => Ok(tunnel),
            },
            Ok(tunnel) => Ok(tunnel),
            Err(reason) => self.pick_elsewhere(wanted, avoid, reason),
        }
    }

    /// A way to nodes of the cluster elsewhere at which the service is not down. spec: FL-50
    fn pick_up_elsewhere(&self, wanted: Wanted<'_>, avoid: &[TunnelId]) -> Option<Way<H>> {
        self.elsewhere.load().as_ref().map(|elsewhere| elsewhere.way_up(wanted, avoid))
    }

    fn pick_here(&self, wanted: Wanted<'_>, avoid: &[TunnelId]) -> Result<H, NoTunnel> {
        let tunnel = self.registry.pick_for(wanted, avoid, Instant::now())?;
        if tunnel.health() == Health::Suspect { Err(NoTunnel::Suspect) } else { Ok(tunnel) }
    }

    /// A way through somebody else, where there is none here for this reason.
    fn pick_elsewhere(&self, wanted: Wanted<'_>, avoid: &[TunnelId], reason: NoTunnel) -> Result<H, NoTunnel> {
        match self.elsewhere.load().as_ref().map(|elsewhere| elsewhere.way(wanted, avoid)) {
            Some(Way::Open(tunnel)) => Ok(tunnel),
            Some(Way::Soon) => Err(NoTunnel::Opening),
            // What was known elsewhere reconnects, as what was known here does. spec: FL-52
            Some(Way::Away) if reason == NoTunnel::Unknown => Err(NoTunnel::Reconnecting),
            Some(Way::Unread) if reason == NoTunnel::Unknown => Err(NoTunnel::Unread),
            Some(Way::Away | Way::Unread | Way::None) | None => Err(reason),
        }
    }

    fn bell(&self, tenant: &str, name: &str) -> &Notify {
        let mut hasher = DefaultHasher::new();
        (tenant, name).hash(&mut hasher);
        &self.arrivals[hasher.finish() as usize % BELLS]
    }
}

/// What ends here, for siblings that ask: never what would go on from here. spec: FL-42
impl LocalTunnels for Directory<Tunnel> {
    fn pick(&self, wanted: Wanted<'_>, avoid: &[TunnelId]) -> Result<Tunnel, NoTunnel> {
        self.pick_here(wanted, avoid)
    }

    fn beside(&self, tunnel: &Tunnel) -> Vec<TunnelId> {
        self.registry.tunnels_of(&tunnel.place().claim)
    }

    fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }
}

impl<H: Handle> Default for Directory<H> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::timeout;

    use super::*;
    use crate::id::{HostId, ServiceName, TenantId};
    use crate::registry::{Balance, Choice};
    use crate::routing::testing::admitted;

    #[derive(Debug, Clone)]
    struct Numbered(u64, Arc<AtomicBool>);

    impl PartialEq for Numbered {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }

    impl Handle for Numbered {
        fn health(&self) -> Health {
            if self.1.load(Ordering::Relaxed) { Health::Suspect } else { Health::Healthy }
        }
        fn in_flight(&self) -> u32 {
            0
        }
        fn rtt(&self) -> Duration {
            Duration::from_millis(1)
        }
        fn is_down(&self, _: Option<&ServiceName>) -> bool {
            self.0 >= DOWN
        }
    }

    /// From this number on a tunnel is one at whose node the service is down.
    const DOWN: u64 = 100;

    /// Siblings: which way there is through one of them.
    #[derive(Debug, Default)]
    struct Others {
        any: Mutex<Option<u64>>,
        up: Mutex<Option<u64>>,
        is_dialled: AtomicBool,
        is_unread: AtomicBool,
        changed: Notify,
    }

    impl Others {
        fn way(&self, id: Option<u64>, avoid: &[TunnelId]) -> Way<Numbered> {
            match id {
                Some(_) if self.is_dialled.load(Ordering::Relaxed) => Way::Soon,
                Some(id) if !avoid.contains(&TunnelId(id)) => Way::Open(number(id)),
                _ if self.is_unread.load(Ordering::Relaxed) => Way::Unread,
                _ => Way::None,
            }
        }
    }

    impl Elsewhere<Numbered> for Arc<Others> {
        fn way(&self, _: Wanted<'_>, avoid: &[TunnelId]) -> Way<Numbered> {
            Others::way(self, *self.any.lock().unwrap(), avoid)
        }
        fn way_up(&self, _: Wanted<'_>, avoid: &[TunnelId]) -> Way<Numbered> {
            Others::way(self, *self.up.lock().unwrap(), avoid)
        }
        fn changed(&self) -> &Notify {
            &self.changed
        }
    }

    /// A directory that looks at these as well.
    fn beside_others() -> (Arc<Directory<Numbered>>, Arc<Others>) {
        let (directory, others) = (Arc::new(Directory::default()), Arc::<Others>::default());
        directory.look_elsewhere(Some(Arc::new(Arc::clone(&others))));
        (directory, others)
    }

    // spec: FL-50, CT-61
    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_down_here_is_looked_for_elsewhere_and_asked_here_where_nobody_has_better() {
        let (directory, others) = beside_others();
        insert(&directory, "edge-17", DOWN + 1);
        let find = async |avoid: &[TunnelId]| {
            directory.find(&to("stores"), avoid, &mut Hold::new(Duration::ZERO)).await.map(|tunnel| tunnel.0)
        };
        *others.any.lock().unwrap() = Some(6);
        assert_eq!(find(&[]).await, Ok(DOWN + 1), "one at which it is down, too, is no better");
        *others.up.lock().unwrap() = Some(7);
        assert_eq!(find(&[]).await, Ok(7));
        assert_eq!(find(&[TunnelId(7)]).await, Ok(DOWN + 1), "that was tried");
        insert(&directory, "edge-18", 8);
        assert_eq!(find(&[]).await, Ok(8), "one here is up");
        lose(&directory, 8);
        others.is_dialled.store(true, Ordering::Relaxed);
        let started = tokio::time::Instant::now();
        assert_eq!(find(&[]).await, Ok(DOWN + 1), "however long a sibling is dialled");
        assert_eq!(started.elapsed().as_secs(), WELCOME_WAIT.as_secs());
        let search = search(&directory, "stores", &[]).await;
        others.is_dialled.store(false, Ordering::Relaxed);
        others.changed.notify_waiters();
        assert_eq!(search.await.unwrap().map(|tunnel| tunnel.0), Ok(7));
    }

    fn number(id: u64) -> Numbered {
        Numbered(id, Arc::default())
    }

    fn to(host_id: &str) -> Destination {
        let host_id = HostId::new(host_id).unwrap();
        let choice = Choice { balance: Balance::default(), entropy: 0 };
        Destination { tenant: TenantId::default(), host_id, service: None, choice }
    }

    fn insert(directory: &Directory<Numbered>, node: &str, id: u64) {
        let inserted = directory.insert(admitted(node, id as u32), TunnelId(id), number(id)).unwrap();
        assert!(inserted.superseded.is_empty());
    }

    fn lose(directory: &Directory<Numbered>, id: u64) {
        directory.registry().remove(TunnelId(id), Instant::now()).unwrap();
    }

    const FOREVER: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_live_node_is_found_at_once_and_an_unknown_one_is_not_waited_for() {
        let directory = Directory::default();
        insert(&directory, "edge-17", 1);
        for name in ["edge-17", "stores"] {
            assert_eq!(directory.find(&to(name), &[], &mut Hold::new(FOREVER)).await, Ok(number(1)));
        }
        let unknown = directory.find(&to("edge-18"), &[], &mut Hold::new(FOREVER)).await;
        assert_eq!(unknown, Err(NoTunnel::Unknown));
    }

    /// Lets a search begin, so that what follows happens while it waits.
    async fn search(
        directory: &Arc<Directory<Numbered>>,
        name: &'static str,
        avoid: &'static [TunnelId],
    ) -> tokio::task::JoinHandle<Result<Numbered, NoTunnel>> {
        let directory = Arc::clone(directory);
        let search = tokio::spawn(async move { directory.find(&to(name), avoid, &mut Hold::new(FOREVER)).await });
        tokio::task::yield_now().await;
        assert!(!search.is_finished());
        search
    }

    #[tokio::test]
    async fn a_node_that_reconnects_is_waited_for_by_both_its_names() {
        let directory = Arc::new(Directory::default());
        insert(&directory, "edge-17", 1);
        lose(&directory, 1);
        let by_node = search(&directory, "edge-17", &[]).await;
        let by_cluster = search(&directory, "stores", &[]).await;
        insert(&directory, "edge-17", 2);
        assert_eq!(by_node.await.unwrap(), Ok(number(2)));
        assert_eq!(by_cluster.await.unwrap(), Ok(number(2)));
    }

    #[tokio::test]
    async fn when_every_tunnel_has_failed_the_next_one_is_waited_for() {
        let directory = Arc::new(Directory::default());
        insert(&directory, "edge-17", 1);
        let search = search(&directory, "edge-17", &[TunnelId(1)]).await;
        insert(&directory, "edge-17", 2);
        assert_eq!(search.await.unwrap(), Ok(number(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_hold_which_is_not_granted_twice() {
        let directory = Directory::default();
        insert(&directory, "edge-17", 1);
        lose(&directory, 1);
        let mut hold = Hold::new(Duration::from_secs(2));
        let started = tokio::time::Instant::now();
        for _ in 0..2 {
            let outcome = directory.find(&to("edge-17"), &[], &mut hold).await;
            assert_eq!((outcome, started.elapsed().as_secs()), (Err(NoTunnel::Reconnecting), 2));
        }
    }

    /// A tunnel of a node whose health the test turns.
    fn doubtful(directory: &Directory<Numbered>, node: &str, id: u64) -> Arc<AtomicBool> {
        let tunnel = number(id);
        let admitted = admitted(node, id as u32);
        let claim = admitted.place().claim.clone();
        let _ = directory.insert(admitted, TunnelId(id), tunnel.clone()).unwrap();
        tunnel.1.store(true, Ordering::Relaxed);
        directory.ring(&claim);
        tunnel.1
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_into_a_suspect_tunnel_and_what_waits_gets_an_answer_when_the_hold_is_over() {
        let directory = Directory::default();
        doubtful(&directory, "edge-17", 1);
        let started = tokio::time::Instant::now();
        for name in ["edge-17", "stores"] {
            let outcome = directory.find(&to(name), &[], &mut Hold::new(Duration::from_secs(2))).await;
            assert_eq!(outcome, Err(NoTunnel::Suspect));
        }
        assert_eq!(started.elapsed().as_secs(), 4);
        insert(&directory, "edge-17", 2);
        let outcome = directory.find(&to("edge-17"), &[], &mut Hold::new(Duration::ZERO)).await;
        assert_eq!(outcome, Ok(number(2)), "where there is another one it is taken at once");
    }

    #[tokio::test]
    async fn a_suspect_tunnel_that_revives_takes_what_waits() {
        let directory = Arc::new(Directory::default());
        let suspect = doubtful(&directory, "edge-17", 1);
        let search = search(&directory, "edge-17", &[]).await;
        suspect.store(false, Ordering::Relaxed);
        directory.ring(&admitted("edge-17", 1).place().claim);
        assert_eq!(search.await.unwrap(), Ok(number(1)));
    }

    #[tokio::test]
    async fn what_hangs_in_a_suspect_tunnel_hears_of_another_one() {
        let directory = Arc::new(Directory::default());
        let suspect = doubtful(&directory, "edge-17", 1);
        let overtaken = tokio::spawn({
            let directory = Arc::clone(&directory);
            async move { directory.overtaken(&to("edge-17"), &Numbered(1, suspect), &[TunnelId(1)]).await }
        });
        tokio::task::yield_now().await;
        assert!(!overtaken.is_finished());
        insert(&directory, "edge-17", 2);
        overtaken.await.unwrap();
    }

    // Regression: it heard of a sibling only when something changed here.
    // spec: FL-51
    #[tokio::test(start_paused = true)]
    async fn what_hangs_in_a_suspect_tunnel_moves_when_a_sibling_gets_the_node() {
        let (directory, others) = beside_others();
        let suspect = doubtful(&directory, "edge-17", 1);
        let hangs = Numbered(1, suspect);
        let (to, avoid) = (to("edge-17"), [TunnelId(1)]);
        let mut overtaken = pin!(directory.overtaken(&to, &hangs, &avoid));
        assert!(timeout(Duration::from_secs(60), overtaken.as_mut()).await.is_err(), "nobody has it");
        *others.any.lock().unwrap() = Some(7);
        timeout(OVERTAKEN_LOOK * 2, overtaken).await.expect("that a sibling has it");
    }

    // spec: FL-27
    #[tokio::test(start_paused = true)]
    async fn a_name_is_waited_for_until_it_is_known_what_the_others_have() {
        let (directory, others) = beside_others();
        others.is_unread.store(true, Ordering::Relaxed);
        let started = tokio::time::Instant::now();
        let outcome = directory.find(&to("edge-17"), &[], &mut Hold::new(Duration::from_secs(2))).await;
        assert_eq!((outcome, started.elapsed().as_secs()), (Err(NoTunnel::Unread), 2));
        let waiting = search(&directory, "edge-17", &[]).await;
        *others.any.lock().unwrap() = Some(7);
        assert_eq!(waiting.await.unwrap(), Ok(number(7)));
        *others.any.lock().unwrap() = None;
        let started = tokio::time::Instant::now();
        let waiting = search(&directory, "edge-17", &[]).await;
        others.is_unread.store(false, Ordering::Relaxed);
        assert_eq!(waiting.await.unwrap(), Err(NoTunnel::Unknown), "now it is known that nobody has it");
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_responder_that_has_just_begun_waits_for_whoever_is_asked_for() {
        let directory = Arc::new(Directory::default());
        directory.begin(Duration::from_secs(10));
        let known = search(&directory, "edge-17", &[]).await;
        insert(&directory, "edge-17", 1);
        assert_eq!(known.await.unwrap(), Ok(number(1)));
        let started = tokio::time::Instant::now();
        let mut took = Vec::new();
        for _ in 0..6 {
            let outcome = directory.find(&to("edge-18"), &[], &mut Hold::new(Duration::from_secs(2))).await;
            took.push((outcome, started.elapsed().as_secs()));
        }
        assert_eq!(took.last(), Some(&(Err(NoTunnel::Unknown), 10)), "the grace is over: {took:?}");
    }

    #[tokio::test]
    async fn nobody_is_waited_for_once_it_closes() {
        let directory = Arc::new(Directory::default());
        insert(&directory, "edge-17", 1);
        lose(&directory, 1);
        let search = search(&directory, "edge-17", &[]).await;
        directory.close();
        assert_eq!(search.await.unwrap(), Err(NoTunnel::Reconnecting));
        let at_once = directory.find(&to("edge-17"), &[], &mut Hold::new(FOREVER)).await;
        assert_eq!(at_once, Err(NoTunnel::Reconnecting));
    }
}
