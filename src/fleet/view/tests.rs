//! The view beside a naive model: whatever is heard in whatever order, both say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::{Claim, InstanceId, TunnelId};

const RESPONDERS: usize = 3;
const NODES: usize = 4;
const CLUSTERS: usize = 2;
/// Names that somebody gives a node and somebody else a cluster.
const BOTH: usize = 2;

/// The key that the process with key 1 shows next.
const RENEWED: u8 = 3;
/// All names: of nodes, of clusters, and of both.
const NAMES: usize = NODES + CLUSTERS + BOTH;

/// One step of the world.
#[derive(Debug, Clone)]
enum Step {
    /// A responder writes its record under an epoch.
    Stands { responder: usize, epoch: u64, draining: bool },
    /// A tunnel of one of its starts is written.
    Tunnel { responder: usize, epoch: u64, tunnel: u64, node: usize, cluster: usize, pin: u8, down: u8 },
    /// A tunnel is deleted.
    Ends { responder: usize, epoch: u64, tunnel: u64 },
    /// A lease ends: everything of the responder, in one revision.
    Dies { responder: usize },
    /// The watch tells everything since so many revisions before what the view knows, up to so many after.
    Watch { again: usize, ahead: usize },
    /// The view reads everything, at a member that lags behind by so many revisions.
    Read { behind: usize },
    /// A sibling was asked, and has not got it.
    NotHere { responder: usize, node: usize },
    /// Etcd is lost.
    Lost,
}

fn step() -> impl Strategy<Value = Step> {
    let (responder, epoch, tunnel) = (0..RESPONDERS, 1u64..3, 0u64..5);
    prop_oneof![
        1 => (responder.clone(), epoch.clone(), any::<bool>())
            .prop_map(|(responder, epoch, draining)| Step::Stands { responder, epoch, draining }),
        4 => (responder.clone(), epoch.clone(), tunnel.clone(), 0..NODES + BOTH, 0..CLUSTERS + BOTH, 0u8..=RENEWED, 0u8..3).prop_map(
            |(responder, epoch, tunnel, node, cluster, pin, down)| Step::Tunnel { responder, epoch, tunnel, node, cluster, pin, down }
        ),
        2 => (responder.clone(), epoch, tunnel).prop_map(|(responder, epoch, tunnel)| Step::Ends { responder, epoch, tunnel }),
        1 => responder.clone().prop_map(|responder| Step::Dies { responder }),
        4 => (0usize..4, 0usize..6).prop_map(|(again, ahead)| Step::Watch { again, ahead }),
        1 => (0usize..6).prop_map(|behind| Step::Read { behind }),
        1 => (responder, 0..NAMES).prop_map(|(responder, node)| Step::NotHere { responder, node }),
        1 => Just(Step::Lost),
    ]
}

/// Etcd: everything at each revision, and what changed with it.
#[derive(Default)]
struct Etcd {
    states: Vec<BTreeMap<String, Stored>>,
    events: Vec<Vec<Change>>,
}

impl Etcd {
    fn new() -> Self {
        Self { states: vec![BTreeMap::new()], events: vec![Vec::new()] }
    }

    fn revision(&self) -> usize {
        self.states.len() - 1
    }

    fn commit(&mut self, puts: Vec<(String, Vec<u8>)>, deletes: impl Fn(&str) -> bool) {
        let mut state = self.states.last().unwrap().clone();
        let modified = self.states.len() as i64;
        let gone: Vec<_> = state.keys().filter(|key| deletes(key)).cloned().collect();
        let mut events = Vec::new();
        for key in gone {
            state.remove(&key);
            events.push(Change::Gone { key: key.into_bytes(), modified });
        }
        for (key, value) in puts {
            let created = state.get(&key).map_or(modified, |stored| stored.created);
            let stored = Stored { key: key.clone().into_bytes(), value, created, modified };
            state.insert(key, stored.clone());
            events.push(Change::Put(stored));
        }
        if !events.is_empty() {
            self.states.push(state);
            self.events.push(events);
        }
    }
}

fn id(responder: usize) -> ResponderId {
    format!("r{responder}").parse().unwrap()
}

fn host(number: usize) -> HostId {
    match number {
        node if node < NODES => node_name(node).parse().unwrap(),
        cluster => cluster_name(cluster - NODES).parse().unwrap(),
    }
}

fn node_name(number: usize) -> String {
    if number < NODES { format!("n{number}") } else { cluster_name(CLUSTERS + number - NODES) }
}

/// The last ones are names of nodes, too.
fn cluster_name(number: usize) -> String {
    format!("c{number}")
}

fn responder_record(epoch: u64, draining: bool) -> ResponderRecord {
    let version = "adit".to_owned();
    let (siblings, initiators) = (vec!["r:1".parse().unwrap()], Vec::new());
    ResponderRecord { epoch, version, siblings, initiators, region: None, weight: 100, draining }
}

fn tunnel_record(node: usize, cluster: usize, pin: u8) -> TunnelRecord {
    let claim = Claim {
        tenant: TenantId::default(),
        node: node_name(node).parse().unwrap(),
        cluster: cluster_name(cluster).parse().unwrap(),
    };
    // Another process for each key, but for one that renews its certificate.
    let place =
        Place { claim, instance: InstanceId([if pin == RENEWED { 1 } else { pin }; 16]), slot: 0, generation: 1 };
    TunnelRecord {
        place,
        key: Some(SpkiPin([pin; 32])),
        issued: None,
        suspect: false,
        down: Vec::new(),
        http_down: false,
    }
}

fn web() -> ServiceName {
    "web".parse().unwrap()
}

/// Nothing is down there, the service `web`, or that twice and all of HTTP.
fn with_down(record: TunnelRecord, down: u8) -> TunnelRecord {
    TunnelRecord { down: vec![web(); down.into()], http_down: down == 2, ..record }
}

/// The model: what follows from one state of etcd, read naively.
struct Model<'a>(&'a BTreeMap<String, Stored>, &'a Prefix);

impl Model<'_> {
    fn live(&self, responder: &ResponderId) -> Option<ResponderRecord> {
        let stored = self.0.get(&self.1.responder(responder))?;
        Some(ResponderRecord::decode(&stored.value).unwrap())
    }

    /// Live tunnels with the revision at which they came.
    fn live_tunnels(&self) -> Vec<(TunnelKey, TunnelRecord, i64)> {
        let read = |stored: &Stored| match self.1.parse(&stored.key) {
            Some(Key::Tunnel(key)) => Some((key, TunnelRecord::decode(&stored.value).unwrap(), stored.created)),
            _ => None,
        };
        let lives = |(key, ..): &(TunnelKey, TunnelRecord, i64)| {
            self.live(&key.responder).is_some_and(|live| live.epoch == key.epoch)
        };
        self.0.values().filter_map(read).filter(lives).collect()
    }

    /// Tunnels of `own` that have to end: a name is what it was first, and a node is who it was first. spec: FL-17
    fn losers(&self, own: &ResponderId) -> BTreeSet<TunnelId> {
        let (live, mut losers) = (self.live_tunnels(), BTreeSet::new());
        for name in (0..NAMES).map(host) {
            let nodes: Vec<_> =
                live.iter().filter(|(_, it, _)| it.place.claim.node.as_str() == name.as_str()).collect();
            let members: Vec<_> =
                live.iter().filter(|(_, it, _)| it.place.claim.cluster.as_str() == name.as_str()).collect();
            let Some(first) = nodes.iter().min_by_key(|(.., created)| created) else { continue };
            let since = members.iter().map(|(.., created)| *created).min();
            let is_node = since.is_none_or(|since| first.2 < since);
            let is_elsewhere = |list: &[&(TunnelKey, TunnelRecord, i64)]| list.iter().any(|it| it.0.responder != *own);
            if is_node && is_elsewhere(&nodes) {
                losers.extend(members.iter().filter(|it| it.0.responder == *own).map(|it| it.0.tunnel));
            }
            let loses = |it: &(TunnelKey, TunnelRecord, i64)| match !is_node && is_elsewhere(&members) {
                true => true,
                false => {
                    let is_other = it.1.key != first.1.key && it.1.place.instance != first.1.place.instance;
                    first.0.responder != *own && is_other
                }
            };
            losers.extend(nodes.iter().filter(|it| it.0.responder == *own && loses(it)).map(|it| it.0.tunnel));
        }
        losers
    }

    fn tunnels(&self) -> Vec<(TunnelKey, TunnelRecord, i64)> {
        let read = |stored: &Stored| match self.1.parse(&stored.key) {
            Some(Key::Tunnel(key)) => Some((key, TunnelRecord::decode(&stored.value).unwrap(), stored.modified)),
            _ => None,
        };
        self.0.values().filter_map(read).collect()
    }

    /// Who has it, and whether it is a node there.
    fn having(&self, own: &ResponderId, host: &HostId, doubts: &Doubts) -> (BTreeSet<ResponderId>, bool) {
        let found = |is_it: &dyn Fn(&TunnelRecord) -> bool| {
            let mut found = BTreeSet::new();
            for (key, record, _) in self.tunnels() {
                let lives = self.live(&key.responder).is_some_and(|live| live.epoch == key.epoch);
                let doubted = doubts.contains(&(key.responder.clone(), key.epoch, host.clone()));
                if lives && key.responder != *own && is_it(&record) && !doubted {
                    found.insert(key.responder);
                }
            }
            found
        };
        let nodes = found(&|record| record.place.claim.node.as_str() == host.as_str());
        match nodes.is_empty() {
            true => (found(&|record| record.place.claim.cluster.as_str() == host.as_str()), false),
            false => (nodes, true),
        }
    }

    /// Whether not all tunnels of the cluster at this responder say that this, or all of HTTP, is down.
    fn is_up(&self, responder: &ResponderId, cluster: &HostId, service: Option<&ServiceName>) -> bool {
        let is_up = |record: &TunnelRecord| service.map_or(!record.http_down, |service| !record.down.contains(service));
        self.live_tunnels().iter().any(|(key, record, _)| {
            let is_member = record.place.claim.cluster.as_str() == cluster.as_str();
            key.responder == *responder && is_member && is_up(record)
        })
    }

    fn names(&self, responder: &ResponderId, epoch: u64) -> BTreeSet<HostId> {
        let of_it = self.tunnels().into_iter().filter(|(key, ..)| key.responder == *responder && key.epoch == epoch);
        of_it
            .flat_map(|(_, record, _)| {
                [HostId::from(&record.place.claim.node), HostId::from(&record.place.claim.cluster)]
            })
            .collect()
    }
}

/// Which start of whom was found without what.
type Doubts = BTreeSet<(ResponderId, u64, HostId)>;

struct World {
    etcd: Etcd,
    prefix: Prefix,
    view: View,
    /// The revision that the view knows.
    known: usize,
    doubts: Doubts,
    /// The names of those whose records went without a word.
    lost: BTreeMap<ResponderId, BTreeSet<HostId>>,
    stands: bool,
    /// Own tunnels that were said to have to end, and still have to.
    told: BTreeSet<TunnelId>,
}

impl World {
    /// Nobody who is named for it stands among those who may have it, and nobody twice; who is there is lost, or etcd is.
    /// spec: FL-24, FL-25
    fn compare_last_resort(&self) {
        let is_stale = self.view.snapshot().standing() == Standing::Stale;
        // What was there lately is not there then.
        let later = Instant::now() + Duration::from_secs(3600);
        for host in (0..NAMES).map(host) {
            let named = self.view.having(&TenantId::default(), &host);
            let perhaps = self.view.perhaps_having(&TenantId::default(), &host);
            let ids: BTreeSet<_> = perhaps.iter().map(|perhaps| perhaps.sibling.id.clone()).collect();
            assert_eq!(ids.len(), perhaps.len(), "each once");
            assert!(!ids.contains(&id(0)) && named.iter().all(|sibling| !ids.contains(&sibling.id)));
            for Perhaps { sibling, is_likely } in perhaps {
                let lost = self.lost.get(&sibling.id);
                assert!(is_stale || lost.is_some(), "{} is not lost", sibling.id);
                let is_worth_a_dial = match lost {
                    Some(names) => names.contains(&host),
                    None => self.view.snapshot().has_known(&TenantId::default(), &host, later),
                };
                assert_eq!(is_likely, is_worth_a_dial, "{} and {host}", sibling.id);
            }
            let is_named = !named.is_empty();
            assert!(!is_named || self.view.has_known(&TenantId::default(), &host, Instant::now()));
        }
    }

    /// What a change of etcd to this revision takes away without a word: its names. One that is back keeps them for a while.
    fn lose(&mut self, before: usize, after: usize) {
        let (former, next) =
            (Model(&self.etcd.states[before], &self.prefix), Model(&self.etcd.states[after], &self.prefix));
        for responder in (1..RESPONDERS).map(id) {
            let Some(live) = former.live(&responder).filter(|_| next.live(&responder).is_none()) else { continue };
            if !live.draining {
                self.lost.insert(responder.clone(), former.names(&responder, live.epoch));
            }
        }
    }

    fn new() -> Self {
        let prefix = Prefix::default();
        let view = View::new(prefix.clone(), id(0));
        Self {
            etcd: Etcd::new(),
            prefix,
            view,
            known: 0,
            doubts: BTreeSet::new(),
            lost: BTreeMap::new(),
            stands: false,
            told: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Stands { responder, epoch, draining } => {
                let value = responder_record(epoch, draining).encode();
                self.etcd.commit(vec![(self.prefix.responder(&id(responder)), value)], |_| false);
            }
            Step::Tunnel { responder, epoch, tunnel, node, cluster, pin, down } => {
                let key = TunnelKey { responder: id(responder), epoch, tunnel: TunnelId(tunnel) };
                let value = with_down(tunnel_record(node, cluster, pin), down).encode();
                self.etcd.commit(vec![(self.prefix.tunnel(&key), value)], |_| false);
            }
            Step::Ends { responder, epoch, tunnel } => {
                let gone = self.prefix.tunnel(&TunnelKey { responder: id(responder), epoch, tunnel: TunnelId(tunnel) });
                self.etcd.commit(Vec::new(), |key| key == gone);
            }
            Step::Dies { responder } => {
                let (record, tunnels) = (self.prefix.responder(&id(responder)), self.prefix.tunnels_of(&id(responder)));
                self.etcd.commit(Vec::new(), |key| key == record || key.starts_with(&tunnels));
            }
            Step::Watch { again, ahead } => {
                let to = (self.known + ahead).min(self.etcd.revision());
                for revision in (self.known + 1).saturating_sub(again).max(1)..=to {
                    let applied = self.view.apply(revision as i64, self.etcd.events[revision].clone());
                    self.advance(revision);
                    self.hear(applied);
                }
            }
            Step::Read { behind } => {
                let revision = self.etcd.revision().saturating_sub(behind);
                let all = self.etcd.states[revision].values().cloned().collect();
                let applied = self.view.read_whole(7, revision as i64, all);
                let taken = applied.is_some();
                // The view starts with another etcd than the one that it reads.
                assert_eq!(taken, revision >= self.known || !self.stands, "a view never goes back");
                if taken {
                    self.lose(self.known, revision);
                    self.known = revision;
                    self.doubts.clear();
                    self.stands = true;
                }
                applied.into_iter().for_each(|applied| self.hear(applied));
                self.view.is_current(Instant::now());
            }
            Step::NotHere { responder, node } => {
                self.view.not_here(&id(responder), &TenantId::default(), &host(node));
                if let Some(names) = self.lost.get_mut(&id(responder)) {
                    names.remove(&host(node));
                }
                let model = Model(&self.etcd.states[self.known], &self.prefix);
                if let Some(live) = model.live(&id(responder))
                    && model.names(&id(responder), live.epoch).contains(&host(node))
                {
                    self.doubts.insert((id(responder), live.epoch, host(node)));
                }
            }
            Step::Lost => self.view.is_stale(),
        }
    }

    /// Whoever has to end is said so once it has to, in whatever order it is heard; and nobody else is. spec: FL-17
    fn hear(&mut self, applied: Applied) {
        let losers = Model(&self.etcd.states[self.known], &self.prefix).losers(&id(0));
        for tunnel in &applied.overruled {
            assert!(losers.contains(tunnel), "{tunnel} stays");
        }
        self.told.extend(applied.overruled);
        self.told.retain(|tunnel| losers.contains(tunnel));
        assert_eq!(self.told, losers);
    }

    /// What is said anew is not doubted any more, and neither is what is gone.
    fn advance(&mut self, revision: usize) {
        if revision <= self.known {
            return;
        }
        self.lose(revision - 1, revision);
        self.known = revision;
        let model = Model(&self.etcd.states[revision], &self.prefix);
        let anew: Doubts = model
            .tunnels()
            .into_iter()
            .filter(|(.., modified)| *modified == revision as i64)
            .flat_map(|(key, record, _)| {
                let Claim { node, cluster, .. } = &record.place.claim;
                [HostId::from(node), HostId::from(cluster)].map(|host| (key.responder.clone(), key.epoch, host))
            })
            .collect();
        self.doubts.retain(|doubt| !anew.contains(doubt) && model.names(&doubt.0, doubt.1).contains(&doubt.2));
    }

    fn compare(&self) {
        let model = Model(&self.etcd.states[self.known], &self.prefix);
        for node in 0..NAMES {
            let found = self.view.having(&TenantId::default(), &host(node));
            let named: BTreeSet<_> = found.iter().map(|sibling| sibling.id.clone()).collect();
            assert_eq!(named.len(), found.len(), "each once");
            let (having, is_node) = model.having(&id(0), &host(node), &self.doubts);
            assert_eq!(named, having, "{}", host(node));
            for service in [Some(web()), Some("other".parse().unwrap()), None] {
                let found = self.view.having_for(&TenantId::default(), &host(node), service.as_ref());
                assert_eq!(found.iter().map(|having| having.sibling.id.clone()).collect::<BTreeSet<_>>(), named);
                assert!(found.is_sorted_by_key(|having| (!having.is_up, having.sibling.draining)), "the best first");
                for Having { sibling, is_up } in found {
                    assert_eq!(is_up, !is_node && model.is_up(&sibling.id, &host(node), service.as_ref()));
                }
            }
            assert!(found.is_sorted_by_key(|sibling| (sibling.draining, sibling.tunnels)), "the best first");
            for sibling in found {
                let record = model.live(&sibling.id).unwrap();
                assert_eq!((sibling.epoch, sibling.draining), (record.epoch, record.draining));
                let of_it = |key: &TunnelKey| key.responder == sibling.id && key.epoch == sibling.epoch;
                assert_eq!(sibling.tunnels as usize, model.tunnels().iter().filter(|(key, ..)| of_it(key)).count());
            }
        }
        self.compare_last_resort();
        assert_eq!(self.view.snapshot().tunnels(), model.tunnels().len());
        assert_eq!(self.view.snapshot().revision(), self.known as i64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// spec: FL-12, FL-13, FL-14, FL-15, FL-17
    #[test]
    fn the_view_says_what_a_naive_reader_of_etcd_would(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            world.compare();
        }
    }
}

/// A view in which these tunnels were written one after the other: responder, node, cluster, pin.
fn view_of(tunnels: &[(usize, usize, usize, u8)]) -> (View, Applied) {
    let record = |(responder, node, cluster, pin): &(usize, usize, usize, u8)| {
        (*responder, tunnel_record(*node, *cluster, *pin))
    };
    view_with(&tunnels.iter().map(record).collect::<Vec<_>>())
}

/// The same, with these records.
fn view_with(tunnels: &[(usize, TunnelRecord)]) -> (View, Applied) {
    let mut etcd = Etcd::new();
    let prefix = Prefix::default();
    for responder in 0..RESPONDERS {
        etcd.commit(vec![(prefix.responder(&id(responder)), responder_record(1, false).encode())], |_| false);
    }
    for (index, (responder, record)) in tunnels.iter().enumerate() {
        let key = TunnelKey { responder: id(*responder), epoch: 1, tunnel: TunnelId(index as u64) };
        etcd.commit(vec![(prefix.tunnel(&key), record.encode())], |_| false);
    }
    let view = View::new(prefix, id(0));
    let all = etcd.states.last().unwrap().values().cloned().collect();
    let applied = view.read_whole(7, etcd.revision() as i64, all).unwrap();
    view.is_current(Instant::now());
    (view, applied)
}

fn claim(node: &str, cluster: &str) -> Place {
    let claim = Claim { tenant: TenantId::default(), node: node.parse().unwrap(), cluster: cluster.parse().unwrap() };
    Place { claim, instance: InstanceId([9; 16]), slot: 0, generation: 1 }
}

#[test]
fn a_claim_does_not_fit_to_another_key_or_another_kind_elsewhere() {
    // spec: FL-16
    let (view, _) = view_of(&[(1, 0, 0, 1), (0, 1, 1, 1)]);
    let pin = |pin: u8| Some(SpkiPin([pin; 32]));
    assert_eq!(view.taken(&claim("n0", "c0"), pin(1), None), None, "the same key: one node on two responders");
    assert_eq!(view.taken(&claim("n0", "c0"), pin(2), None), Some(Taken::OtherKey));
    assert_eq!(view.taken(&claim("n0", "c0"), None, None), Some(Taken::OtherKey));
    assert_eq!(view.taken(&claim("c0", "c9"), pin(1), None), Some(Taken::NodeIsCluster));
    assert_eq!(view.taken(&claim("n9", "n0"), pin(1), None), Some(Taken::ClusterIsNode));
    assert_eq!(view.taken(&claim("n1", "c1"), pin(2), None), None, "what is here is the registry's to decide");
    let renewed = Place { instance: InstanceId([1; 16]), ..claim("n0", "c0") };
    assert_eq!(view.taken(&renewed, pin(2), None), None, "the same process with its next certificate");
    view.is_stale();
    assert_eq!(view.taken(&claim("n0", "c0"), pin(2), None), None, "a view that is stale refuses nothing");
}

// Regression: two Envoys with one name and two keys were served at two responders of a fleet.
#[test]
fn two_envoys_are_not_taken_for_one_because_neither_names_an_instance() {
    // spec: FL-8, FL-16, FL-17
    let envoy = |pin| {
        let record = tunnel_record(0, 0, pin);
        TunnelRecord { place: Place { instance: InstanceId::OF_ENVOYS, ..record.place }, ..record }
    };
    let at = Place { instance: InstanceId::OF_ENVOYS, ..claim("n0", "c0") };
    let (view, _) = view_with(&[(1, envoy(1))]);
    let taken = |pin| view.taken(&at, Some(SpkiPin([pin; 32])), None);
    assert_eq!((taken(1), taken(2)), (None, Some(Taken::OtherKey)));
    assert_eq!(view_with(&[(1, envoy(1)), (0, envoy(2))]).1.overruled, [TunnelId(1)], "who came later leaves");
    assert_eq!(view_with(&[(1, envoy(1)), (0, envoy(1))]).1.overruled, [], "one node at two responders");
}

/// A tunnel of one node at a responder, with this key, a certificate of this authority from this time on, and heard or not.
fn certified(responder: usize, pin: u8, (by, from): (u8, i64), suspect: bool) -> (usize, TunnelRecord) {
    let issued = Some(Certified { authority: [by; 16], validity: (from, from + 10) });
    (responder, TunnelRecord { issued, suspect, ..tunnel_record(0, 0, pin) })
}

// Regression: a node that came back with its next key after a crash was kept out until its dead tunnels ended everywhere.
#[test]
fn a_later_certificate_takes_the_place_of_one_that_no_sibling_hears() {
    // spec: FL-16
    let taken = |tunnels: &[(usize, TunnelRecord)], by: u8, from: i64| {
        let issued = Some(Certified { authority: [by; 16], validity: (from, from + 10) });
        view_with(tunnels).0.taken(&claim("n0", "c0"), Some(SpkiPin([2; 32])), issued)
    };
    let (heard, suspect) = (certified(1, 1, (1, 100), false), certified(2, 1, (1, 100), true));
    let all = [heard, suspect.clone()];
    assert_eq!(taken(&all, 1, 200), Some(Taken::OlderKey), "one of them is heard");
    assert_eq!(taken(std::slice::from_ref(&suspect), 1, 200), None);
    for (by, from) in [(1, 100), (1, 50), (2, 200)] {
        assert_eq!(
            taken(std::slice::from_ref(&suspect), by, from),
            Some(Taken::OtherKey),
            "no later one of the same authority"
        );
    }
    let other = (1, TunnelRecord { suspect: true, ..tunnel_record(0, 0, 0) });
    assert_eq!(taken(&[all[0].clone(), other], 1, 200), Some(Taken::OtherKey), "of one nothing is known");
    let elsewhere = Place { claim: claim("n0", "c1").claim, ..claim("n0", "c0") };
    let issued = Some(Certified { authority: [1; 16], validity: (200, 300) });
    let taken = view_with(&[suspect]).0.taken(&elsewhere, Some(SpkiPin([2; 32])), issued);
    assert_eq!(taken, Some(Taken::OtherKey), "it renews nothing in another cluster");
}

#[test]
fn of_two_certificates_of_one_node_the_later_one_stays_whoever_was_first() {
    // spec: FL-17
    let (older, later) = ((1, 100), (1, 200));
    let overruled = |tunnels: &[(usize, TunnelRecord)]| view_with(tunnels).1.overruled;
    assert_eq!(overruled(&[certified(1, 1, older, true), certified(0, 2, later, false)]), []);
    assert_eq!(
        overruled(&[certified(1, 1, older, false), certified(0, 2, later, false)]),
        [],
        "it was not, a moment ago"
    );
    assert_eq!(overruled(&[certified(0, 1, older, true), certified(1, 2, later, false)]), [TunnelId(0)]);
    assert_eq!(overruled(&[certified(1, 2, later, false), certified(0, 1, older, false)]), [TunnelId(1)]);
    assert_eq!(overruled(&[certified(1, 1, older, false), certified(0, 2, (2, 200), false)]), [TunnelId(1)]);
}

#[test]
fn a_sibling_that_does_not_hear_the_node_comes_last_and_is_none_that_keeps_it() {
    // spec: FL-15, FL-23
    let look = |tunnels: &[(usize, TunnelRecord)]| {
        let (view, _) = view_with(tunnels);
        let (tenant, node) = (TenantId::default(), "n0".parse().unwrap());
        let having = view.having(&tenant, &HostId::from(&node));
        let names = having.iter().map(|sibling| sibling.id.to_string()).collect::<Vec<_>>();
        (names, view.hear(&tenant, &node))
    };
    let tunnel = |responder, suspect| certified(responder, 1, (1, 100), suspect);
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(look(&[tunnel(1, true)]), (names(&["r1"]), false));
    let many = [tunnel(1, true), tunnel(2, false), tunnel(2, false), tunnel(2, true)];
    assert_eq!(look(&many), (names(&["r2", "r1"]), true), "however many it has");
    assert_eq!(look(&[tunnel(0, false)]), (names(&[]), false), "not the responder itself");
}

#[test]
fn of_a_cluster_those_come_first_where_the_service_is_not_down_everywhere() {
    // spec: FL-15, CT-61
    let down = |responder, node, down| (responder, with_down(tunnel_record(node, 0, 1), down));
    let look = |tunnels: &[(usize, TunnelRecord)], name: usize, service: Option<&str>| {
        let service = service.map(|service| service.parse().unwrap());
        let having = view_with(tunnels).0.having_for(&TenantId::default(), &host(name), service.as_ref());
        having.into_iter().map(|having| (having.sibling.id.to_string(), having.is_up)).collect::<Vec<_>>()
    };
    let named = |list: &[(&str, bool)]| list.iter().map(|(id, is_up)| ((*id).to_owned(), *is_up)).collect::<Vec<_>>();
    let many = [down(1, 0, 2), down(2, 1, 0), down(2, 2, 2), down(2, 3, 2)];
    let cluster = NODES;
    for service in [Some("web"), None] {
        assert_eq!(look(&many, cluster, service), named(&[("r2", true), ("r1", false)]), "however many it has");
    }
    assert_eq!(look(&many, cluster, Some("other")), named(&[("r1", true), ("r2", true)]), "that is not down");
    assert_eq!(look(&[down(1, 0, 1)], cluster, None), named(&[("r1", true)]), "not all of HTTP is");
    assert_eq!(look(&many, 1, Some("web")), named(&[("r2", false)]), "a node is asked by its name, whatever it says");
}

#[test]
fn a_service_that_is_up_again_is_so_in_the_view() {
    // spec: FL-15
    let (view, _) = view_with(&[(1, with_down(tunnel_record(0, 0, 1), 2))]);
    let is_up = || view.having_for(&TenantId::default(), &host(NODES), Some(&web())).iter().any(|having| having.is_up);
    assert!(!is_up());
    let key = Prefix::default().tunnel(&TunnelKey { responder: id(1), epoch: 1, tunnel: TunnelId(0) });
    let says = |record: TunnelRecord, modified: i64| {
        Change::Put(Stored { key: key.clone().into_bytes(), value: record.encode(), created: 1, modified })
    };
    view.apply(50, vec![says(tunnel_record(0, 0, 1), 50)]);
    assert!(is_up());
    view.apply(51, vec![says(with_down(tunnel_record(0, 0, 1), 1), 51)]);
    assert!(!is_up());
    view.apply(52, vec![Change::Gone { key: key.clone().into_bytes(), modified: 52 }]);
    view.apply(53, vec![says(tunnel_record(0, 0, 1), 53)]);
    assert!(is_up(), "nothing is kept of a tunnel that is gone");
}

#[test]
fn of_two_that_came_at_once_the_one_that_is_second_in_the_directory_is_overruled() {
    // spec: FL-17
    let overruled = |tunnels: &[(usize, usize, usize, u8)]| view_of(tunnels).1.overruled;
    assert_eq!(overruled(&[(1, 0, 0, 1), (0, 0, 0, 2)]), [TunnelId(1)]);
    assert_eq!(overruled(&[(0, 0, 0, 2), (1, 0, 0, 1)]), []);
    assert_eq!(overruled(&[(1, 0, 0, 1), (0, 0, 0, 1)]), []);
    // A name is what it was first, a node or a cluster; one side loses it and never both.
    let both = (NODES, CLUSTERS);
    assert_eq!(overruled(&[(1, 0, both.1, 1), (0, both.0, 0, 1)]), [TunnelId(1)], "it was a cluster");
    assert_eq!(overruled(&[(0, both.0, 0, 1), (1, 0, both.1, 1)]), [], "it was a node, and the cluster is elsewhere");
    assert_eq!(
        overruled(&[(1, both.0, 0, 1), (0, 0, both.1, 1)]),
        [TunnelId(1)],
        "it was a node, and the cluster is here"
    );
    assert_eq!(overruled(&[(0, 0, both.1, 1), (1, both.0, 0, 1)]), [], "it was a cluster, and the node is elsewhere");
    // The third is who the first is.
    assert_eq!(overruled(&[(1, 0, 0, 1), (2, 0, 0, 0), (0, 0, 0, 1)]), []);
}

#[test]
fn who_had_the_name_first_is_asked_again_when_a_responder_lives_otherwise() {
    // spec: FL-17
    let (view, applied) = view_of(&[(1, 0, 0, 1), (0, 0, 0, 0)]);
    assert_eq!(applied.overruled, [TunnelId(1)]);
    let key = Prefix::default().responder(&id(1)).into_bytes();
    let gone = Change::Gone { key: key.clone(), modified: 50 };
    assert_eq!(view.apply(50, vec![gone]).overruled, []);
    let value = responder_record(1, false).encode();
    let back = Change::Put(Stored { key, value, created: 51, modified: 51 });
    assert_eq!(view.apply(51, vec![back]).overruled, [TunnelId(1)]);
}

/// What of a responder is in etcd, as one word that it is gone: its record first, as etcd tells what ends with a lease.
fn dies(tunnels: &[u64], draining: bool) -> Vec<Change> {
    let prefix = Prefix::default();
    let gone = |key: String| Change::Gone { key: key.into_bytes(), modified: 101 };
    let keys = tunnels.iter().map(|tunnel| TunnelKey { responder: id(1), epoch: 1, tunnel: TunnelId(*tunnel) });
    let mut changes = vec![gone(prefix.responder(&id(1)))];
    changes.extend(keys.map(|key| gone(prefix.tunnel(&key))));
    if draining {
        let (key, value) = (prefix.responder(&id(1)).into_bytes(), responder_record(1, true).encode());
        changes.insert(0, Change::Put(Stored { key, value, created: 1, modified: 100 }));
    }
    changes
}

fn last_resort(view: &View, number: usize) -> Vec<(ResponderId, bool)> {
    let perhaps = view.perhaps_having(&TenantId::default(), &host(number));
    perhaps.into_iter().map(|perhaps| (perhaps.sibling.id.clone(), perhaps.is_likely)).collect()
}

#[test]
fn what_a_responder_had_is_remembered_when_its_lease_ends_and_not_when_it_leaves() {
    // spec: FL-24, FL-25
    let (view, _) = view_of(&[(1, 0, 0, 1), (2, 1, 1, 1)]);
    assert_eq!(last_resort(&view, 0), []);
    view.apply(101, dies(&[0], false));
    assert!(view.having(&TenantId::default(), &host(0)).is_empty());
    assert_eq!(last_resort(&view, 0), [(id(1), true)]);
    assert_eq!(last_resort(&view, NODES), [(id(1), true)], "its cluster, too");
    assert_eq!(last_resort(&view, 2), [(id(1), false)], "it may have got that since");
    assert_eq!(view.taken(&claim("n0", "c0"), Some(SpkiPin([2; 32])), None), None, "it refuses nobody any more");
    view.not_here(&id(1), &TenantId::default(), &host(0));
    assert_eq!(last_resort(&view, 0), [(id(1), false)], "it has said that it is not there");
    let (view, _) = view_of(&[(1, 0, 0, 1)]);
    view.apply(101, dies(&[0], true));
    assert_eq!(last_resort(&view, 0), [], "it has said that it leaves");
}

#[test]
fn what_was_lost_is_known_until_it_has_written_again_what_it_has() {
    // spec: FL-24
    let (view, _) = view_of(&[(1, 0, 0, 1)]);
    let start = Instant::now();
    view.apply(101, dies(&[0], false));
    view.is_current(start);
    view.is_current(start + Duration::from_secs(3599));
    assert_eq!(last_resort(&view, 0), [(id(1), true)]);
    let (key, value) = (Prefix::default().responder(&id(1)).into_bytes(), responder_record(1, false).encode());
    view.apply(102, vec![Change::Put(Stored { key, value, created: 102, modified: 102 })]);
    let back = start + Duration::from_secs(3600);
    view.is_current(back);
    view.is_current(back + Duration::from_secs(9));
    assert_eq!(last_resort(&view, 0), [(id(1), true)], "its record is there, and its tunnels may not be yet");
    view.is_current(back + Duration::from_secs(10));
    assert_eq!(last_resort(&view, 0), []);
    let (view, _) = view_of(&[(1, 0, 0, 1)]);
    view.apply(101, dies(&[0], false));
    view.is_current(start);
    view.is_current(start + Duration::from_secs(3600));
    assert_eq!(last_resort(&view, 0), [], "it has been away for too long");
}

#[test]
fn an_etcd_that_has_lost_all_is_no_reason_to_forget_who_had_what() {
    // spec: FL-24
    let (view, _) = view_of(&[(1, 0, 0, 1)]);
    view.begin_anew();
    view.read_whole(8, 3, Vec::new()).unwrap();
    assert_eq!(last_resort(&view, 0), [(id(1), true), (id(2), false)], "who had it comes first");
}

#[test]
fn where_etcd_is_not_heard_anybody_may_have_what_nobody_is_known_to_have() {
    // spec: FL-25
    let (view, _) = view_of(&[(1, 0, 0, 1), (2, 0, 0, 1)]);
    view.is_stale();
    assert_eq!(last_resort(&view, 0), [], "they are asked first");
    let mut asked = last_resort(&view, 2);
    asked.sort();
    assert_eq!(asked, [(id(1), false), (id(2), false)]);
    view.not_here(&id(1), &TenantId::default(), &host(0));
    assert_eq!(last_resort(&view, 0), [(id(1), true)], "it comes last, and may have it again");
}

#[test]
fn a_name_is_known_while_somebody_is_named_for_it_and_for_a_while_after() {
    // spec: FL-52
    let (view, _) = view_of(&[(1, 0, 0, 1)]);
    let known = |number: usize, now: Instant| view.snapshot().has_known(&TenantId::default(), &host(number), now);
    let start = Instant::now();
    assert!(known(0, start) && !known(1, start));
    view.not_here(&id(1), &TenantId::default(), &host(0));
    assert!(known(0, start), "that it is not there now is no reason not to wait for it");
    view.is_current(start);
    let key = Prefix::default().tunnel(&TunnelKey { responder: id(1), epoch: 1, tunnel: TunnelId(0) });
    view.apply(100, vec![Change::Gone { key: key.into_bytes(), modified: 100 }]);
    assert!(known(0, start + Duration::from_secs(29)) && known(NODES, start), "and its cluster");
    assert!(!known(0, start + Duration::from_secs(30)));
}

#[test]
fn a_node_is_in_the_cluster_that_its_records_say() {
    let (view, _) = view_of(&[(1, 0, 1, 1)]);
    let cluster = |number: usize| view.cluster_of(&TenantId::default(), &host(number)).map(|id| id.to_string());
    assert_eq!(cluster(0), Some(cluster_name(1)));
    assert_eq!((cluster(1), cluster(NODES + 1)), (None, None), "nobody has it, and it is a cluster");
}

#[test]
fn a_value_that_is_no_record_is_left_out_and_said() {
    // spec: FL-6
    let (view, _) = view_of(&[(1, 0, 0, 1)]);
    let key =
        |tunnel: u64| Prefix::default().tunnel(&TunnelKey { responder: id(1), epoch: 1, tunnel: TunnelId(tunnel) });
    let bad = |tunnel: u64, modified: i64| {
        Change::Put(Stored { key: key(tunnel).into_bytes(), value: b"{}".to_vec(), created: 1, modified })
    };
    let applied = view.apply(50, vec![bad(7, 50), bad(0, 50)]);
    assert_eq!(applied.ignored, 2);
    assert!(applied.fault.unwrap().contains("/adit/tunnels/r1/"));
    assert!(view.having(&TenantId::default(), &host(0)).is_empty(), "what it was is not known any more");
}

#[test]
fn another_etcd_may_have_lower_revisions() {
    // spec: FL-13
    let (view, _) = view_of(&[(1, 0, 0, 1)]);
    assert!(view.read_whole(7, 1, Vec::new()).is_none());
    assert!(view.follows(7, 100) && !view.follows(7, 1) && !view.follows(8, 100));
    assert!(view.read_whole(8, 1, Vec::new()).is_some(), "it is another one");
    assert!(view.read_whole(8, 0, Vec::new()).is_none());
    view.begin_anew();
    assert!(view.read_whole(8, 0, Vec::new()).is_some(), "it was restored from a copy");
    assert!(view.all().is_empty());
}

#[test]
fn a_fleet_of_too_many_responders_is_known_in_part() {
    // spec: FL-18
    let view = View::new(Prefix::default(), id(0));
    let value = responder_record(1, false).encode();
    let stored = |number: usize| Stored {
        key: Prefix::default().responder(&id(number)).into_bytes(),
        value: value.clone(),
        created: 1,
        modified: 1,
    };
    let applied = view.read_whole(7, 1, (0..MAX_RESPONDERS + 3).map(stored).collect()).unwrap();
    assert_eq!((applied.ignored, view.snapshot().responders().count()), (3, MAX_RESPONDERS));
}
