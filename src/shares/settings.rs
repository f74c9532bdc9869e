//! What each tenant and each node may have, as it is set.

use std::fmt;
use std::str::FromStr;

use crate::id::{Claim, NodeId, TenantId};

/// What one tenant or one node may have; `None`: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Exchanges under way at once, raw streams among them, whether a tunnel carries them yet or they wait for one.
    pub in_flight: Option<u32>,
    /// Exchanges that begin.
    pub requests: Option<Rate>,
    /// Bytes of bodies and of raw streams, both directions together. What is beyond it waits.
    pub bytes: Option<Rate>,
    /// Raw streams (CONNECT) under way at once.
    pub streams: Option<u32>,
    /// Flows of datagrams open at once.
    pub flows: Option<u32>,
}

/// So many a second for longer, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// For longer; at least 1.
    pub per_second: u64,
    /// At once, after a rest; at least 1.
    pub burst: u64,
}

impl Rate {
    /// As many at once as in a second.
    pub const fn new(per_second: u64) -> Self {
        Self { per_second, burst: per_second }
    }
}

/// The shares of all tenants and nodes of a responder. By default there is no limit, and all tenants weigh the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShareSettings {
    /// Of each tenant, for what `tenants` does not say about it.
    pub per_tenant: Share,
    /// Of each node, for what `nodes` does not say about it.
    pub per_node: Share,
    /// Of single tenants.
    pub tenants: Vec<TenantShare>,
    /// Of single nodes, or of those whose names begin alike. The entry that says most about a node is meant, alone: a whole
    /// name before a pattern, a longer pattern before a shorter one, one with a tenant before one without.
    pub nodes: Vec<NodeShare>,
}

/// What one tenant may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantShare {
    /// The tenant.
    pub tenant: TenantId,
    /// How much it gets of a busy responder beside others, in proportion to theirs: 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// What is `None` here is as for every tenant.
    pub share: Share,
}

/// What some nodes may have, each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeShare {
    /// Only those of this tenant; `None`: of any.
    pub tenant: Option<TenantId>,
    /// Which nodes.
    pub node: NodePattern,
    /// What is `None` here is as for every node.
    pub share: Share,
}

/// The weight of a tenant about which nothing is said.
pub const DEFAULT_WEIGHT: u32 = 1;
/// The largest weight: with more, the turn of one tenant would be long enough for the others to feel it.
pub const MAX_WEIGHT: u32 = 100;

/// The name of a node, or how the names of some begin: `edge-17`, `edge-*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodePattern {
    begin: String,
    is_whole: bool,
}

/// Why a text is no [`NodePattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no name of a node; expected one such as edge-17, or its begin and a star, such as edge-*")]
pub struct PatternError;

impl NodePattern {
    /// Whether it is meant.
    pub fn covers(&self, node: &NodeId) -> bool {
        if self.is_whole { node.as_str() == self.begin } else { node.as_str().starts_with(&self.begin) }
    }
}

impl FromStr for NodePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (begin, is_whole) = text.strip_suffix('*').map_or((text, true), |begin| (begin, false));
        let is_name = NodeId::new(begin).is_ok() && !begin.contains('*');
        if !is_name && (is_whole || !begin.is_empty()) {
            return Err(PatternError);
        }
        Ok(Self { begin: begin.to_owned(), is_whole })
    }
}

impl fmt::Display for NodePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.begin, if self.is_whole { "" } else { "*" })
    }
}

impl Share {
    /// What is not said here is as `other` says.
    #[must_use]
    fn or(self, other: Self) -> Self {
        Self {
            in_flight: self.in_flight.or(other.in_flight),
            requests: self.requests.or(other.requests),
            bytes: self.bytes.or(other.bytes),
            streams: self.streams.or(other.streams),
            flows: self.flows.or(other.flows),
        }
    }
}

impl ShareSettings {
    /// What this tenant may have, and its weight.
    pub fn tenant(&self, tenant: &TenantId) -> (Share, u32) {
        match self.tenants.iter().find(|named| named.tenant == *tenant) {
            Some(TenantShare { weight, share, .. }) => (share.or(self.per_tenant), (*weight).clamp(1, MAX_WEIGHT)),
            None => (self.per_tenant, DEFAULT_WEIGHT),
        }
    }

    /// What this node may have.
    pub fn node(&self, claim: &Claim) -> Share {
        let is_meant = |named: &&NodeShare| {
            named.node.covers(&claim.node) && named.tenant.as_ref().is_none_or(|tenant| *tenant == claim.tenant)
        };
        let says = |named: &&NodeShare| (named.node.is_whole, named.node.begin.len(), named.tenant.is_some());
        let meant = self.nodes.iter().filter(is_meant).max_by_key(says);
        meant.map_or(self.per_node, |named| named.share.or(self.per_node))
    }

    /// Whether any node is limited.
    pub(super) fn has_nodes(&self) -> bool {
        self.per_node != Share::default() || !self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight(most: u32) -> Share {
        Share { in_flight: Some(most), ..Share::default() }
    }

    fn claim(tenant: &str, node: &str) -> Claim {
        Claim { tenant: tenant.parse().unwrap(), cluster: "stores".parse().unwrap(), node: node.parse().unwrap() }
    }

    #[test]
    fn a_tenant_with_an_entry_has_what_it_says_and_else_what_every_tenant_has() {
        let requests = Some(Rate::new(7));
        let named = TenantShare { tenant: "acme".parse().unwrap(), weight: 4, share: in_flight(9) };
        let per_tenant = Share { requests, ..in_flight(3) };
        let settings = ShareSettings { per_tenant, tenants: vec![named], ..ShareSettings::default() };
        assert_eq!(settings.tenant(&"acme".parse().unwrap()), (Share { requests, ..in_flight(9) }, 4));
        assert_eq!(settings.tenant(&"other".parse().unwrap()), (per_tenant, DEFAULT_WEIGHT));
    }

    #[test]
    fn the_entry_that_says_most_about_a_node_is_meant() {
        let entry = |tenant: Option<&str>, node: &str, most| NodeShare {
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
            node: node.parse().unwrap(),
            share: in_flight(most),
        };
        let nodes = vec![
            entry(None, "*", 1),
            entry(None, "edge-*", 2),
            entry(Some("acme"), "edge-*", 3),
            entry(None, "edge-17", 4),
        ];
        let settings = ShareSettings { per_node: in_flight(9), nodes, ..ShareSettings::default() };
        for (tenant, node, most) in
            [("acme", "edge-17", 4), ("acme", "edge-1", 3), ("other", "edge-1", 2), ("acme", "shop", 1)]
        {
            assert_eq!(settings.node(&claim(tenant, node)), in_flight(most), "{tenant}/{node}");
        }
        assert_eq!(ShareSettings::default().node(&claim("acme", "edge-17")), Share::default());
    }

    #[test]
    fn a_pattern_is_a_name_or_its_begin_and_a_star() {
        for text in ["edge-17", "edge-*", "*"] {
            assert_eq!(text.parse::<NodePattern>().unwrap().to_string(), text);
        }
        for text in ["", "**", "*-17", "a b", "a/*", "e*e*"] {
            assert_eq!(text.parse::<NodePattern>(), Err(PatternError), "{text:?}");
        }
    }
}
