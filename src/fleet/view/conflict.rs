//! Two that came at once, at two responders, and do not fit together: which of them stays. spec: FL-17
//!
//! A later certificate of the same authority takes the place of an older one: who shows it was let in because that was not heard.
//! Every responder decides it alone, of the same records and with the same outcome, so that one side closes its tunnels and
//! never both.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::{Entry, Held, Members, OfNode};
use super::record::Certified;
use super::starts::Start;
use crate::fleet::sibling::Sibling;
use crate::id::{ClusterId, InstanceId, SpkiPin, TunnelId};

/// Who judges.
pub(super) struct Judge<'a> {
    /// The starts that live.
    pub(super) live: &'a HashMap<Start, Arc<Sibling>>,
    /// That of this responder.
    pub(super) own: Start,
}

/// Who says that he is a node, and what his certificate says.
pub(super) struct Claimant<'a> {
    pub(super) cluster: &'a ClusterId,
    pub(super) instance: InstanceId,
    pub(super) pin: Option<SpkiPin>,
    pub(super) issued: Option<Certified>,
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
    /// A name is what it was first, a node or a cluster; and a node is who it was first, unless his certificate was renewed.
    pub(super) fn of(&self, held: &Held) -> Verdict {
        let nodes = || held.node().iter().filter(|of| self.live.contains_key(&of.start));
        let members = || held.cluster().iter().filter(|members| self.live.contains_key(&members.start));
        let Some(first) = nodes().min_by_key(|of| of.entry.created) else { return Verdict::default() };
        let since = members().map(Members::since).min();
        let is_node = since.is_none_or(|since| first.entry.created < since);
        let is_own = |start: Start| start == self.own;
        let cluster = is_node && nodes().any(|of| !is_own(of.start)) && members().any(|members| is_own(members.start));
        let is_cluster_elsewhere = !is_node && members().any(|members| !is_own(members.start));
        let is_renewed = |of: &&OfNode| nodes().any(|other| Claimant::of(&other.entry).replaces(&of.entry));
        let first = nodes().filter(|of| !is_renewed(of)).min_by_key(|of| of.entry.created).unwrap_or(first);
        let is_somebody_else = |of: &OfNode| Claimant::of(&of.entry).is_other_than(&first.entry);
        let is_lost = |of: &&OfNode| is_cluster_elsewhere || (!is_own(first.start) && is_somebody_else(of));
        let of_own = nodes().filter(|of| is_own(of.start));
        Verdict { nodes: of_own.filter(is_lost).map(|of| of.entry.tunnel).collect(), cluster }
    }
}

/// The same instance with another key is one that renews its certificate.
impl<'a> Claimant<'a> {
    fn of(entry: &'a Entry) -> Self {
        let Entry { claim, instance, pin, issued, .. } = entry;
        Self { cluster: &claim.cluster, instance: *instance, pin: *pin, issued: *issued }
    }

    /// An instance that shows its next certificate shows it to one responder after the other. Envoys name no instance, so
    /// that it says nothing of who they are. spec: FL-16
    pub(super) fn is_other_than(&self, entry: &Entry) -> bool {
        self.pin != entry.pin && (self.instance != entry.instance || self.instance == InstanceId::OF_ENVOYS)
    }

    /// Whether its certificate is a later one of the same node, of the same authority. spec: HS-14
    pub(super) fn renews(&self, older: &Entry) -> bool {
        let issued = (&self.issued, &older.issued);
        *self.cluster == older.claim.cluster && matches!(issued, (Some(new), Some(old)) if new.renews(old))
    }

    fn replaces(&self, older: &Entry) -> bool {
        self.is_other_than(older) && self.renews(older)
    }
}
