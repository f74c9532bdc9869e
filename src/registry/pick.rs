//! Which tunnel gets a request. On the path of every request: no lock, no allocation.

use std::time::Instant;

use super::cluster::{Cluster, Members};
use super::departed::is_recent;
use super::names::Held;
use super::node::{Member, Node, NodeState};
use super::{Handle, Health, RTT_FLOOR, Registry};
use crate::id::{HostId, ServiceName, TenantId, TunnelId};

/// How the requests of a cluster are spread over its nodes. Within a node the best tunnel is taken, see
/// [`Registry::pick`]. A node without a healthy tunnel is passed over as long as another has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Two nodes drawn by [`Choice::entropy`], of which the one with the better tunnel is taken.
    #[default]
    TwoChoices,
    /// One node after the other; everybody who picks in turn from a cluster shares the round.
    RoundRobin,
    /// The node that [`Choice::entropy`], the hash of whatever should stick, prefers (rendezvous hashing): the same in
    /// every responder, and the others keep theirs when a node comes or goes. Costs a nanosecond or two per node.
    Hash,
}

/// How one request chooses among the nodes of a cluster. A node's own name leaves no choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// How to spread.
    pub balance: Balance,
    /// A fresh random number, or for [`Balance::Hash`] the hash of what should stick; [`Balance::RoundRobin`] ignores
    /// it.
    pub entropy: u64,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// In whose world.
    pub tenant: &'a TenantId,
    /// Which node or cluster.
    pub host_id: &'a HostId,
    /// Which service there; `None`: the initiator decides.
    pub service: Option<&'a ServiceName>,
    /// Which of a cluster's nodes.
    pub choice: Choice,
}

/// What a tunnel is wanted for.
#[derive(Clone, Copy)]
struct For<'a> {
    /// `None`: whatever is down does not matter.
    service: Option<Option<&'a ServiceName>>,
    avoid: &'a [TunnelId],
}

/// Why there is no tunnel for a host id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoTunnel {
    /// No node or cluster of this tenant has the name, nor had it lately.
    #[error("no node or cluster with this name is connected")]
    Unknown,
    /// It is not here, and nobody knows yet what others have, who could be asked. [`Registry`] itself never says so.
    #[error("no node or cluster with this name is connected here, and what others have is not known yet")]
    Unread,
    /// It lost its last tunnel within the last 30 s, or all it has are leaving: waiting a little is worth it.
    #[error("the node or cluster is reconnecting")]
    Reconnecting,
    /// A tunnel is registered and will be open in a moment, usually.
    #[error("a tunnel of the node or cluster is about to open")]
    Opening,
    /// All that is there is suspect: what goes into it may never be answered. It may revive or be replaced any moment.
    #[error("no tunnel of the node or cluster is heard")]
    Suspect,
    /// Every tunnel that could be used is among those to avoid.
    #[error("every tunnel of the node or cluster was tried")]
    AllAvoided,
}

impl<H: Handle> Registry<H> {
    /// The tunnel for a request to `host_id`: of the node with that name, else of a node of the cluster, as `choice`
    /// says.
    ///
    /// Within a node: healthy before suspect, then the least (requests in flight + 1) x round trip, then the freshest.
    /// Tunnels in `avoid`, those that left and those that drain are not taken.
    pub fn pick(
        &self,
        tenant: &TenantId,
        host_id: &HostId,
        choice: Choice,
        avoid: &[TunnelId],
        now: Instant,
    ) -> Result<H, NoTunnel> {
        let wanted = Wanted { tenant, host_id, service: None, choice };
        self.pick_from(wanted, For { service: None, avoid }, now)
    }

    /// As [`Registry::pick`], for a service: a node of a cluster where that is down is taken only where there is no other.
    /// spec: CT-61
    pub fn pick_for(&self, wanted: Wanted<'_>, avoid: &[TunnelId], now: Instant) -> Result<H, NoTunnel> {
        self.pick_from(wanted, For { service: Some(wanted.service), avoid }, now)
    }

    fn pick_from(&self, wanted: Wanted<'_>, what: For<'_>, now: Instant) -> Result<H, NoTunnel> {
        let Wanted { tenant, host_id, choice, .. } = wanted;
        let hash = self.names.hash(tenant, host_id);
        match self.names.shard(hash).find(hash, tenant, host_id) {
            Some(Held::Node(node)) => pick_of_node(node, what),
            Some(Held::Cluster(cluster)) => pick_of_cluster(cluster, choice, what),
            Some(Held::Left(at)) if is_recent(*at, now) => Err(NoTunnel::Reconnecting),
            Some(Held::Left(_)) | None => Err(NoTunnel::Unknown),
        }
    }
}

/// The hash of what should stick, and of the names of nodes: the same number for the same text, in every responder and in
/// every version (FNV-1a).
pub fn affinity(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// How good a tunnel is whatever it carries; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Grade {
    /// What goes into it may never be answered, by anybody.
    is_suspect: bool,
    /// The service that is wanted is down there.
    is_down: bool,
    health: Health,
}

/// A tunnel and how good it is; less is better.
struct Candidate<'a, H> {
    rank: (Grade, u64),
    handle: &'a H,
}

impl<H: Handle> Candidate<'_, H> {
    fn is_good(&self) -> bool {
        let Grade { is_down, health, .. } = self.rank.0;
        health == Health::Healthy && !is_down
    }
}

/// The best tunnel of a node. The freshest come first, and of equals the first is taken.
fn best<'a, H: Handle>(state: &'a NodeState<H>, what: For<'_>) -> Option<Candidate<'a, H>> {
    let usable = state.tunnels.iter().rev().filter(|tunnel| !tunnel.leaving && !what.avoid.contains(&tunnel.id));
    usable.filter_map(|tunnel| candidate(tunnel, what)).min_by_key(|candidate| candidate.rank)
}

fn candidate<'a, H: Handle>(tunnel: &'a Member<H>, what: For<'_>) -> Option<Candidate<'a, H>> {
    let handle = &tunnel.handle;
    let health = handle.health();
    let rtt = u64::try_from(handle.rtt().max(RTT_FLOOR).as_nanos()).unwrap_or(u64::MAX);
    let is_down = what.service.is_some_and(|service| handle.is_down(service));
    let grade = Grade { is_suspect: health >= Health::Suspect, is_down, health };
    let rank = (grade, rtt.saturating_mul(u64::from(handle.in_flight()) + 1));
    (health < Health::Opening).then_some(Candidate { rank, handle })
}

/// Whether a tunnel could be used, were it not to be avoided.
fn has_avoided<H: Handle>(node: &Node<H>, avoid: &[TunnelId]) -> bool {
    let usable = |tunnel: &Member<H>| !tunnel.leaving && tunnel.handle.health() < Health::Opening;
    node.state().tunnels.iter().any(|tunnel| usable(tunnel) && avoid.contains(&tunnel.id))
}

/// Whether a tunnel that is not to be avoided will be open soon.
fn has_opening<H: Handle>(node: &Node<H>, avoid: &[TunnelId]) -> bool {
    let opens = |tunnel: &Member<H>| !tunnel.leaving && tunnel.handle.health() == Health::Opening;
    node.state().tunnels.iter().any(|tunnel| opens(tunnel) && !avoid.contains(&tunnel.id))
}

fn none_because(any_opens: bool, any_avoided: bool) -> NoTunnel {
    match (any_opens, any_avoided) {
        (true, _) => NoTunnel::Opening,
        (false, true) => NoTunnel::AllAvoided,
        (false, false) => NoTunnel::Reconnecting,
    }
}

fn pick_of_node<H: Handle>(node: &Node<H>, what: For<'_>) -> Result<H, NoTunnel> {
    match best(&node.state(), what) {
        Some(candidate) => Ok(candidate.handle.clone()),
        None => Err(none_because(has_opening(node, what.avoid), has_avoided(node, what.avoid))),
    }
}

fn pick_of_cluster<H: Handle>(cluster: &Cluster<H>, choice: Choice, what: For<'_>) -> Result<H, NoTunnel> {
    let members = cluster.members();
    let picked = match choice.balance {
        Balance::TwoChoices => two_choices(&members, choice.entropy, what),
        Balance::RoundRobin => first_from(&members, cluster.turn(), what),
        Balance::Hash => preferred(&members, choice.entropy, what),
    };
    picked.ok_or_else(|| {
        let any_opens = members.seats().any(|seat| has_opening(&seat.node, what.avoid));
        none_because(any_opens, members.seats().any(|seat| has_avoided(&seat.node, what.avoid)))
    })
}

/// The better of two random nodes; if neither is good, whoever is, looked for from the first of them.
fn two_choices<H: Handle>(members: &Members<H>, entropy: u64, what: For<'_>) -> Option<H> {
    let [one, other] = two_seats(members.len(), entropy)?;
    let (one_state, other_state) = (members.node(one).state(), members.node(other).state());
    let candidates = [best(&one_state, what), best(&other_state, what)];
    match candidates.into_iter().flatten().min_by_key(|candidate| candidate.rank) {
        Some(candidate) if candidate.is_good() => Some(candidate.handle.clone()),
        _ => first_from(members, one, what),
    }
}

/// Two different seats, or twice the only one; each half of `entropy` decides one of them.
fn two_seats(seats: usize, entropy: u64) -> Option<[usize; 2]> {
    let scale = |half: u64, n: usize| (((half & 0xffff_ffff) * n as u64) >> 32) as usize;
    let one = scale(entropy, seats);
    match seats {
        0 => None,
        1 => Some([0, 0]),
        _ => {
            let other = scale(entropy >> 32, seats - 1);
            Some([one, if other < one { other } else { other + 1 }])
        }
    }
}

/// The first good node from this seat on, else the first of those that are best.
fn first_from<H: Handle>(members: &Members<H>, start: usize, what: For<'_>) -> Option<H> {
    let seats = members.len();
    let mut fallback: Option<(Grade, H)> = None;
    for offset in 0..seats {
        let state = members.node((start % seats + offset) % seats).state();
        match best(&state, what) {
            Some(candidate) if candidate.is_good() => return Some(candidate.handle.clone()),
            Some(Candidate { rank: (grade, _), handle }) if fallback.as_ref().is_none_or(|(best, _)| grade < *best) => {
                fallback = Some((grade, handle.clone()));
            }
            _ => {}
        }
    }
    fallback.map(|(_, handle)| handle)
}

/// The good node with the highest score for `key`, else of those that are best the one. A node is looked at only when its score
/// beats the best so far, which after the first few is rare.
fn preferred<H: Handle>(members: &Members<H>, key: u64, what: For<'_>) -> Option<H> {
    let mut good = None;
    let mut fallback: Option<(Grade, u64, H)> = None;
    for seat in members.seats() {
        let score = mix(key ^ seat.affinity);
        let beats = |best: &Option<(u64, H)>| best.as_ref().is_none_or(|(best, _)| score > *best);
        if !beats(&good) {
            continue;
        }
        let state = seat.node.state();
        match best(&state, what) {
            Some(candidate) if candidate.is_good() => good = Some((score, candidate.handle.clone())),
            Some(Candidate { rank: (grade, _), handle })
                if fallback.as_ref().is_none_or(|(best, high, _)| (grade, *high) < (*best, score)) =>
            {
                fallback = Some((grade, score, handle.clone()));
            }
            _ => {}
        }
    }
    good.map(|(_, handle)| handle).or_else(|| fallback.map(|(_, _, handle)| handle))
}

/// The finalizer of SplitMix64: every bit of the input moves every bit of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
