//! Two that came at once, at two responders, and do not fit together: which of them stays. spec: FL-17
//!
//! Every responder decides it alone, of the same records and with the same outcome, so that one side closes its tunnels and
//! never both.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::{Entry, Held, Members, OfNode};
use super::starts::Start;
use crate::fleet::sibling::Sibling;
use crate::id::TunnelId;

/// Who judges.
pub(super) struct Judge<'a> {
    /// The starts that live.
    pub(super) live: &'a HashMap<Start, Arc<Sibling>>,
    /// That of this responder.
    pub(super) own: Start,
}

/// What this responder has to close under one name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// These tunnels of the node.
    pub(super) nodes: Vec<TunnelId>,
    /// Every tunnel of its members of the cluster.
    pub(super) cluster: bool,
}

impl Judge<'_> {
    /// A name is what it was first, a node or a cluster; and a node is who it was first.
    pub(super) fn of(&self, held: &Held) -> Verdict {
        let nodes = || held.node().iter().filter(|of| self.live.contains_key(&of.start));
        let members = || held.cluster().iter().filter(|members| self.live.contains_key(&members.start));
        let Some(first) = nodes().min_by_key(|of| of.entry.created) else { return Verdict::default() };
        let since = members().map(Members::since).min();
        let is_node = since.is_none_or(|since| first.entry.created < since);
        let is_own = |start: Start| start == self.own;
        let cluster = is_node && nodes().any(|of| !is_own(of.start)) && members().any(|members| is_own(members.start));
        let is_cluster_elsewhere = !is_node && members().any(|members| !is_own(members.start));
        let is_lost =
            |of: &&OfNode| is_cluster_elsewhere || (!is_own(first.start) && is_somebody_else(&of.entry, &first.entry));
        let of_own = nodes().filter(|of| is_own(of.start));
        Verdict { nodes: of_own.filter(is_lost).map(|of| of.entry.tunnel).collect(), cluster }
    }
}

/// The same instance with another key is one that renews its certificate.
fn is_somebody_else(one: &Entry, other: &Entry) -> bool {
    one.pin != other.pin && one.instance != other.instance
}
