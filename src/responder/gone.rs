//! Nodes that were here and are gone: since when, and why. Operators ask for what is missing, and the registry only knows
//! what is there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::id::Claim;
use crate::transport::CloseReason;

/// How many nodes are remembered; beyond, the one that is gone for the longest time is forgotten.
pub const MAX_GONE: usize = 10_000;

/// A node whose last tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Who it was.
    pub claim: Claim,
    /// When its last tunnel ended.
    pub since: SystemTime,
    /// Why that tunnel ended.
    pub reason: String,
}

/// The nodes of one responder that are gone. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct GoneNodes {
    nodes: Arc<Mutex<Nodes>>,
    /// The requests of each tenant in tunnels that have ended.
    past: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// Who is gone, by name and by when it left.
#[derive(Debug, Default)]
struct Nodes {
    last: HashMap<Claim, Last>,
    order: BTreeMap<u64, Claim>,
    left: u64,
    changes: u64,
}

#[derive(Debug)]
struct Last {
    since: SystemTime,
    reason: String,
    place: u64,
}

impl Nodes {
    fn insert(&mut self, claim: &Claim, since: SystemTime, reason: String) {
        self.remove(claim);
        self.left += 1;
        self.changes += 1;
        self.order.insert(self.left, claim.clone());
        self.last.insert(claim.clone(), Last { since, reason, place: self.left });
        if self.last.len() > MAX_GONE
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.last.remove(&oldest);
        }
    }

    fn remove(&mut self, claim: &Claim) -> Option<Last> {
        let last = self.last.remove(claim)?;
        self.order.remove(&last.place);
        self.changes += 1;
        Some(last)
    }
}

impl GoneNodes {
    /// A copy, the one that left last first.
    pub fn list(&self) -> Vec<Gone> {
        let gone = |(claim, last): (&Claim, &Last)| Gone {
            claim: claim.clone(),
            since: last.since,
            reason: last.reason.clone(),
        };
        let mut list: Vec<Gone> = self.lock().last.iter().map(gone).collect();
        list.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| a.claim.to_string().cmp(&b.claim.to_string())));
        list
    }

    /// How often the list has changed: who keeps a copy sees whether it is still one.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Adds a node of which this responder knows from elsewhere, such as from before a restart. One that it saw leaving
    /// itself stays as it is.
    pub fn remember(&self, gone: Gone) {
        let mut nodes = self.lock();
        if !nodes.last.contains_key(&gone.claim) {
            nodes.insert(&gone.claim, gone.since, gone.reason);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().last.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last tunnel of a node ended.
    pub(super) fn left(&self, claim: &Claim, reason: &CloseReason, now: SystemTime) {
        let text =
            if reason.text.is_empty() { reason.code.to_string() } else { format!("{}: {}", reason.code, reason.text) };
        self.lock().insert(claim, now, text);
    }

    /// The requests of each tenant in tunnels that have ended; for at most [`MAX_GONE`] tenants.
    pub fn past_exchanges(&self) -> BTreeMap<String, u64> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A tunnel ended that had carried so many requests.
    pub(super) fn ended(&self, claim: &Claim, exchanges: u64) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = claim.tenant.as_str();
        let has_room = past.len() < MAX_GONE;
        match past.get_mut(tenant) {
            Some(sum) => *sum += exchanges,
            None if has_room => drop(past.insert(tenant.to_owned(), exchanges)),
            None => {}
        }
    }

    /// A tunnel of the node is up. For how long the node was gone, if it was.
    pub(super) fn came_back(&self, claim: &Claim) -> Option<Duration> {
        self.lock().remove(claim).and_then(|last| last.since.elapsed().ok())
    }

    /// Whole entries: a panic elsewhere cannot leave one half-changed.
    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::code::CloseCode;

    fn claim(node: &str) -> Claim {
        Claim { tenant: "acme".parse().unwrap(), cluster: "stores".parse().unwrap(), node: node.parse().unwrap() }
    }

    #[test]
    fn a_node_is_gone_from_its_last_tunnel_until_its_next_one() {
        let (gone, start) = (GoneNodes::default(), SystemTime::UNIX_EPOCH);
        let idle = CloseReason { code: CloseCode::Idle, text: String::new() };
        gone.left(&claim("a"), &idle, start);
        gone.left(&claim("b"), &CloseReason { text: "bye".into(), ..idle }, start + Duration::from_secs(1));
        let names: Vec<_> = gone.list().into_iter().map(|gone| (gone.claim.node.to_string(), gone.reason)).collect();
        assert_eq!(names[0].0, "b");
        assert!(names[0].1.ends_with(": bye"), "{names:?}");
        assert!(gone.came_back(&claim("b")).is_some() && gone.came_back(&claim("b")).is_none());
        assert_eq!(gone.len(), 1);
    }

    #[test]
    fn what_is_remembered_from_elsewhere_replaces_nothing_and_each_change_counts() {
        let (gone, start) = (GoneNodes::default(), SystemTime::UNIX_EPOCH);
        let told = |node, reason: &str| Gone { claim: claim(node), since: start, reason: reason.to_owned() };
        gone.left(&claim("a"), &CloseReason { code: CloseCode::Idle, text: "seen".into() }, start);
        let before = gone.changes();
        gone.remember(told("a", "told"));
        assert_eq!(gone.changes(), before);
        gone.remember(told("b", "told"));
        assert!(gone.changes() > before);
        let reasons: Vec<_> = gone.list().into_iter().map(|gone| gone.reason).collect();
        assert!(reasons[0].ends_with(": seen") && reasons[1] == "told", "{reasons:?}");
        let before = gone.changes();
        assert!(gone.came_back(&claim("b")).is_some() && gone.changes() > before);
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let (gone, reason) = (GoneNodes::default(), CloseReason { code: CloseCode::Idle, text: String::new() });
        for node in 0..=MAX_GONE {
            gone.left(&claim(&format!("n{node}")), &reason, SystemTime::UNIX_EPOCH + Duration::from_secs(node as u64));
        }
        assert_eq!(gone.len(), MAX_GONE);
        assert!(gone.list().iter().all(|gone| gone.claim.node.as_str() != "n0"));
    }
}
