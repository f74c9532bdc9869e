//! The registry beside a model too simple to be wrong, driven by bytes: a property test here, a fuzz target in `fuzz/`.
//!
//! Uses public items only, through `super::adit`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::adit::id::{Claim, HostId, InstanceId, PeerIdentity, Place, SpkiPin, TenantId, TunnelId};
use super::adit::policy::{Admitted, Counts, Quotas, RuleSettings, Rules, authorize};
use super::adit::registry::{Balance, Choice, Conflict, Handle, Health};
use super::adit::registry::{InsertError, NoTunnel, RECONNECT_WINDOW, Registry};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const TENANTS: [&str; 2] = ["t", "u"];

/// Reads `input` as a sequence of operations, does them on both, and panics where they differ.
pub(super) fn run(input: &[u8]) {
    let mut input = input.iter().copied();
    let mut pair = Pair::new();
    while let Some(operation) = input.next() {
        let mut argument = |below: u8| input.next().unwrap_or_default() % below;
        match operation % 8 {
            0..=2 => {
                let claimed = Claimed {
                    tenant: argument(2),
                    node: argument(4),
                    // Overlaps the nodes, so that names collide.
                    cluster: argument(4) + 2,
                    key: argument(2),
                    instance: argument(3),
                    slot: argument(2),
                    generation: argument(4),
                };
                pair.insert(claimed);
            }
            3 => pair.leave(argument(32)),
            4 => pair.remove(argument(32)),
            5 => pair.turn(argument(32), argument(3)),
            6 => pair.pick(argument(2), argument(6), choice(argument(3), argument(255)), argument(32)),
            _ => pair.now += Duration::from_secs(u64::from(argument(20))),
        }
    }
    pair.compare();
    pair.remove_all();
}

#[derive(Clone)]
struct Fake(Arc<AtomicU8>);

impl Handle for Fake {
    fn health(&self) -> Health {
        match self.0.load(Ordering::Relaxed) {
            0 => Health::Healthy,
            1 => Health::Unproven,
            2 => Health::Suspect,
            _ => Health::Draining,
        }
    }
    fn in_flight(&self) -> u32 {
        0
    }
    fn rtt(&self) -> Duration {
        Duration::from_millis(50)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Claimed {
    tenant: u8,
    node: u8,
    cluster: u8,
    key: u8,
    instance: u8,
    slot: u8,
    generation: u8,
}

/// One tunnel as the model knows it.
struct Tunnel {
    id: TunnelId,
    claimed: Claimed,
    leaving: bool,
    fake: Fake,
}

impl Tunnel {
    fn usable(&self) -> bool {
        !self.leaving && self.fake.health() != Health::Draining
    }
}

/// A node of the model: its newest claim, the instances it replaced, its tunnels in order of arrival.
struct Node {
    newest: Claimed,
    retired: Vec<u8>,
    tunnels: Vec<Tunnel>,
}

/// Both, and what they share.
struct Pair {
    registry: Registry<Fake>,
    nodes: BTreeMap<(u8, u8), Node>,
    lost: BTreeMap<(u8, u8), Instant>,
    now: Instant,
    next_id: u64,
}

impl Pair {
    fn new() -> Self {
        let (nodes, lost) = (BTreeMap::new(), BTreeMap::new());
        Self { registry: Registry::new(), nodes, lost, now: Instant::now(), next_id: 0 }
    }

    fn insert(&mut self, claimed: Claimed) {
        let expected = self.expect_insert(claimed);
        let id = TunnelId(self.next_id);
        self.next_id += 1;
        let fake = Fake(Arc::default());
        let got = self.registry.insert(admitted(claimed), id, fake.clone());
        let got = got.map(|inserted| inserted.superseded);
        let superseded = match (got, expected) {
            (Ok(superseded), Ok(expected)) => {
                assert_eq!(superseded.len(), expected.len());
                assert!(superseded.iter().zip(&expected).all(|(got, (_, fake))| Arc::ptr_eq(&got.0, &fake.0)));
                expected
            }
            (Err(got), Err(expected)) => return assert_eq!(got, expected),
            (got, expected) => panic!("got {:?}, expected {:?}", got.map(|_| ()), expected.map(|_| ())),
        };
        self.apply_insert(claimed, id, fake, &superseded);
    }

    /// The tunnels that are superseded, or why the claim is not accepted.
    fn expect_insert(&self, claimed: Claimed) -> Result<Vec<(TunnelId, Fake)>, InsertError> {
        if claimed.node == claimed.cluster {
            return Err(Conflict::SameName.into());
        }
        if self.nodes.contains_key(&(claimed.tenant, claimed.cluster)) {
            return Err(Conflict::ClusterIsNode.into());
        }
        if self.members(claimed.tenant, claimed.node).next().is_some() {
            return Err(Conflict::NodeIsCluster.into());
        }
        let node = self.nodes.get(&(claimed.tenant, claimed.node));
        let superseded = node.map_or(Ok(Vec::new()), |node| node.expect_insert(claimed))?;
        let count = |of: fn(&Claimed, &Claimed) -> bool| {
            let tunnels = self.nodes.values().flat_map(|node| &node.tunnels);
            tunnels.filter(|tunnel| of(&tunnel.claimed, &claimed)).count() - superseded.len()
        };
        let counts = Counts {
            node: count(|a, b| (a.tenant, a.node) == (b.tenant, b.node)),
            tenant: count(|a, b| a.tenant == b.tenant),
            total: count(|_, _| true),
        };
        quotas().check(counts)?;
        Ok(superseded)
    }

    fn apply_insert(&mut self, claimed: Claimed, id: TunnelId, fake: Fake, superseded: &[(TunnelId, Fake)]) {
        self.lost.remove(&(claimed.tenant, claimed.node));
        self.lost.remove(&(claimed.tenant, claimed.cluster));
        let tunnel = Tunnel { id, claimed, leaving: false, fake };
        let fresh = Node { newest: claimed, retired: Vec::new(), tunnels: Vec::new() };
        let node = self.nodes.entry((claimed.tenant, claimed.node)).or_insert(fresh);
        if node.newest.instance != claimed.instance {
            node.retired.push(node.newest.instance);
        }
        node.newest = claimed;
        node.tunnels.retain(|tunnel| superseded.iter().all(|(id, _)| *id != tunnel.id));
        node.tunnels.push(tunnel);
    }

    /// The live tunnel that a byte stands for, if there is any.
    fn choose(&self, which: u8) -> Option<(TunnelId, (u8, u8))> {
        let all = || self.nodes.iter().flat_map(|(name, node)| node.tunnels.iter().map(|tunnel| (tunnel.id, *name)));
        all().nth(usize::from(which) % all().count().max(1))
    }

    fn tunnel(&mut self, which: u8) -> Option<&mut Tunnel> {
        let (id, name) = self.choose(which)?;
        self.nodes.get_mut(&name)?.tunnels.iter_mut().find(|tunnel| tunnel.id == id)
    }

    fn leave(&mut self, which: u8) {
        let Some(tunnel) = self.tunnel(which) else { return };
        tunnel.leaving = true;
        let id = tunnel.id;
        assert!(self.registry.leave(id));
    }

    fn turn(&mut self, which: u8, health: u8) {
        if let Some(tunnel) = self.tunnel(which) {
            tunnel.fake.0.store(health, Ordering::Relaxed);
        }
    }

    fn remove(&mut self, which: u8) {
        let Some((id, name)) = self.choose(which) else { return };
        let gone = self.registry.remove(id, self.now);
        let Some(node) = self.nodes.get_mut(&name) else { return };
        let at = node.tunnels.iter().position(|tunnel| tunnel.id == id).unwrap_or_default();
        let tunnel = node.tunnels.remove(at);
        assert!(gone.is_some_and(|fake| Arc::ptr_eq(&fake.0, &tunnel.fake.0)));
        assert_eq!(Arc::strong_count(&tunnel.fake.0), 1, "the registry kept a handle");
        if node.tunnels.is_empty() {
            let cluster = (name.0, node.newest.cluster);
            self.nodes.remove(&name);
            self.lost.insert(name, self.now);
            if self.members(cluster.0, cluster.1).next().is_none() {
                self.lost.insert(cluster, self.now);
            }
        }
    }

    fn pick(&self, tenant: u8, name: u8, choice: Choice, avoid: u8) {
        let avoid: Vec<_> = self.choose(avoid).filter(|_| avoid > 8).map(|(id, _)| id).into_iter().collect();
        let got = self.registry.pick(&tenant_id(tenant), &host_id(name), choice, &avoid, self.now);
        let nodes: Vec<_> = match self.nodes.get(&(tenant, name)) {
            Some(node) => vec![node],
            None => self.members(tenant, name).collect(),
        };
        let best: Vec<_> = nodes.iter().filter_map(|node| node.best(&avoid)).collect();
        match got {
            Ok(fake) => {
                assert!(best.iter().any(|tunnel| Arc::ptr_eq(&tunnel.fake.0, &fake.0)), "not the best of any node");
                let healthiest = best.iter().map(|tunnel| tunnel.fake.health()).min();
                assert_eq!(Some(fake.health()), healthiest);
            }
            Err(why) => {
                assert!(best.is_empty());
                assert_eq!(why, self.expect_none(tenant, name, &nodes));
            }
        }
    }

    fn expect_none(&self, tenant: u8, name: u8, nodes: &[&Node]) -> NoTunnel {
        let lost = self.lost.get(&(tenant, name));
        let recent = lost.is_some_and(|at| self.now.duration_since(*at) < RECONNECT_WINDOW);
        match nodes {
            [] if recent => NoTunnel::Reconnecting,
            [] => NoTunnel::Unknown,
            _ if nodes.iter().flat_map(|node| &node.tunnels).any(Tunnel::usable) => NoTunnel::AllAvoided,
            _ => NoTunnel::Reconnecting,
        }
    }

    fn members(&self, tenant: u8, cluster: u8) -> impl Iterator<Item = &Node> {
        let is_member = move |node: &&Node| (node.newest.tenant, node.newest.cluster) == (tenant, cluster);
        self.nodes.values().filter(is_member)
    }

    /// Everything that is registered is in the model, and the other way round.
    fn compare(&self) {
        let mut got: Vec<_> = self.registry.snapshot().map(|live| (live.id, live.leaving, live.place)).collect();
        let tunnels = self.nodes.values().flat_map(|node| &node.tunnels);
        let mut expected: Vec<_> = tunnels.map(|tunnel| (tunnel.id, tunnel.leaving, place(tunnel.claimed))).collect();
        got.sort_by_key(|(id, ..)| *id);
        expected.sort_by_key(|(id, ..)| *id);
        assert_eq!(got, expected);
        assert_eq!(self.registry.len(), expected.len());
        for tenant in 0..2 {
            for name in 0..6 {
                for balance in 0..3 {
                    self.pick(tenant, name, choice(balance, tenant ^ name), 0);
                }
            }
        }
    }

    fn remove_all(&mut self) {
        while self.choose(0).is_some() {
            self.remove(0);
        }
        assert!(self.registry.is_empty());
        self.compare();
        self.now += RECONNECT_WINDOW;
        self.compare();
    }
}

impl Node {
    fn expect_insert(&self, claimed: Claimed) -> Result<Vec<(TunnelId, Fake)>, InsertError> {
        if self.newest.key != claimed.key && self.tunnels.iter().any(|tunnel| !tunnel.leaving) {
            return Err(Conflict::OtherKey.into());
        }
        let same_slot =
            |tunnel: &Tunnel| (tunnel.claimed.instance, tunnel.claimed.slot) == (claimed.instance, claimed.slot);
        if self.newest.instance != claimed.instance {
            if self.retired.contains(&claimed.instance) {
                return Err(Conflict::RetiredInstance.into());
            }
        } else if self.newest.cluster != claimed.cluster {
            return Err(Conflict::OtherCluster.into());
        } else if self.tunnels.iter().any(|t| same_slot(t) && t.claimed.generation >= claimed.generation) {
            return Err(Conflict::StaleGeneration.into());
        }
        let superseded = self
            .tunnels
            .iter()
            .filter(|tunnel| !tunnel.leaving && (tunnel.claimed.instance != claimed.instance || same_slot(tunnel)));
        Ok(superseded.map(|tunnel| (tunnel.id, tunnel.fake.clone())).collect())
    }

    /// All weigh the same, so health and then arrival decide.
    fn best(&self, avoid: &[TunnelId]) -> Option<&Tunnel> {
        let usable = self.tunnels.iter().rev().filter(|tunnel| tunnel.usable() && !avoid.contains(&tunnel.id));
        usable.min_by_key(|tunnel| tunnel.fake.health())
    }
}

fn choice(balance: u8, entropy: u8) -> Choice {
    let balance = match balance {
        0 => Balance::RoundRobin,
        1 => Balance::Hash,
        _ => Balance::TwoChoices,
    };
    Choice { balance, entropy: u64::from(entropy).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn quotas() -> Quotas {
    Quotas { per_node: 3, per_tenant: 7, total: 11, ..Quotas::default() }
}

fn tenant_id(tenant: u8) -> TenantId {
    TenantId::new(TENANTS[usize::from(tenant)]).expect("the names above are ids")
}

fn host_id(name: u8) -> HostId {
    HostId::new(NAMES[usize::from(name)]).expect("the names above are ids")
}

fn place(claimed: Claimed) -> Place {
    let name = |name: u8| NAMES[usize::from(name)];
    Place {
        claim: Claim {
            tenant: tenant_id(claimed.tenant),
            cluster: name(claimed.cluster).parse().expect("the names above are ids"),
            node: name(claimed.node).parse().expect("the names above are ids"),
        },
        instance: InstanceId([claimed.instance; 16]),
        slot: u32::from(claimed.slot),
        generation: u64::from(claimed.generation),
    }
}

fn admitted(claimed: Claimed) -> Admitted {
    let settings = RuleSettings { insecure_accept_any: true, quotas: quotas(), ..RuleSettings::default() };
    let rules = Rules::new(settings).expect("accepting anybody needs no proof");
    let identity = PeerIdentity { key: Some(SpkiPin([claimed.key; 32])), ..PeerIdentity::default() };
    authorize(place(claimed), &identity, None, &rules).expect("anybody is accepted")
}
