//! The rules of a responder, checked as a whole before any is used.

use std::collections::HashMap;

use super::identity::{Field, IdentityTemplate, IdentityTemplateError};
use super::quota::Quotas;
use super::secret::Secret;
use crate::id::{Claim, ClusterId, NodeId, SpkiPin, TenantId};

/// What a responder asks of those who connect. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct RuleSettings {
    /// The certificate name that proves a claim; see [`IdentityTemplate`]. Default: none.
    pub identity: Option<String>,
    /// The only tenant that is admitted. Default: any that is proven.
    pub tenant: Option<TenantId>,
    /// The only cluster that is admitted. Default: any that is proven.
    pub cluster: Option<ClusterId>,
    /// The only keys that are admitted, beside the proof of who holds them. Default: any.
    pub pins: Vec<SpkiPin>,
    /// What single nodes must show in addition, or, without `identity`, instead.
    pub nodes: Vec<NodeRule>,
    /// How many tunnels there may be.
    pub quotas: Quotas,
    /// Admits whoever connects under any name they like, and lets them take the traffic of others. For trials only.
    pub insecure_accept_any: bool,
}

/// What one node must show.
#[derive(Debug, Clone)]
pub struct NodeRule {
    /// The node, with the cluster and tenant that it must claim.
    pub claim: Claim,
    /// Its keys: one, or two while a key is replaced. Empty: no key is asked for.
    pub pins: Vec<SpkiPin>,
    /// Its token.
    pub token: Option<Secret>,
}

/// Rules under which every admitted claim is proven, or which say in so many words that none is.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(super) identity: Option<IdentityTemplate>,
    pub(super) tenant: Option<TenantId>,
    pub(super) cluster: Option<ClusterId>,
    pub(super) pins: Vec<SpkiPin>,
    /// By tenant and node without the cluster: another cluster in the claim must not step around the rule.
    nodes: HashMap<(TenantId, NodeId), NodeRule>,
    pub(super) quotas: Quotas,
    pub(super) insecure_accept_any: bool,
    pub(super) generation: u64,
}

/// Why rules were not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Nothing would prove a claim.
    #[error(
        "no proof of identity is configured; expected an identity template, or a pin or token for each node, or \
         insecure_accept_any: true"
    )]
    NoProof,
    /// Only pins for all are set.
    #[error(
        "pins say which keys may connect, not who holds which; expected an identity template, or a pin or token for \
         each node"
    )]
    PinsNameNobody,
    /// Proofs are set, and so is the switch that makes them useless.
    #[error("insecure_accept_any contradicts the proofs that are configured; expected one or the other")]
    AcceptAnyBesideProofs,
    /// The identity template is wrong.
    #[error("{0}")]
    Identity(IdentityTemplateError),
    /// Nothing proves this field of a claim.
    #[error("nothing proves the {field} of a claim; expected {{{field}}} in the identity template or a fixed {field}")]
    NotProven {
        /// `tenant` or `cluster`.
        field: &'static str,
    },
    /// Two rules for one node.
    #[error("there are two rules for node {} of tenant {}; expected one", .0.node, .0.tenant)]
    NodeTwice(Claim),
    /// A rule for a node that asks for nothing.
    #[error("the rule for {0} has neither pins nor a token; expected at least one of them")]
    NodeWithoutProof(Claim),
    /// A rule for a node that the fixed tenant or cluster excludes.
    #[error("the rule for {claim} can never apply, since the {field} is fixed to another")]
    NodeExcluded {
        /// The node.
        claim: Claim,
        /// `tenant` or `cluster`.
        field: &'static str,
    },
    /// A quota of 0 refuses everybody.
    #[error("the quota {quota} is 0 and would refuse everybody; expected at least 1")]
    ZeroQuota {
        /// Which one.
        quota: &'static str,
    },
}

impl RuleError {
    /// The field of [`RuleSettings`] to look at.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NoProof | Self::Identity(_) => "identity",
            Self::NotProven { field } => field,
            Self::PinsNameNobody => "pins",
            Self::AcceptAnyBesideProofs => "insecure_accept_any",
            Self::NodeTwice(_) | Self::NodeWithoutProof(_) | Self::NodeExcluded { .. } => "nodes",
            Self::ZeroQuota { .. } => "quotas",
        }
    }
}

impl Rules {
    /// Checks the settings; the error lists every mistake, not only the first.
    pub fn new(settings: RuleSettings) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let identity = settings.identity.as_deref().and_then(|text| {
            IdentityTemplate::parse(text).map_err(|error| errors.push(RuleError::Identity(error))).ok()
        });
        check_proof(&settings, &mut errors);
        check_coverage(&settings, identity.as_ref(), &mut errors);
        check_quotas(&settings.quotas, &mut errors);
        let nodes = index_nodes(&settings, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let RuleSettings { tenant, cluster, pins, quotas, insecure_accept_any, .. } = settings;
        Ok(Self { identity, tenant, cluster, pins, nodes, quotas, insecure_accept_any, generation: 0 })
    }

    /// The same rules under a number that says which of two sets is the later one; 0 unless said otherwise.
    #[must_use]
    pub fn with_generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// Which of a responder's sets of rules this is; the registry takes nothing that an earlier one admitted.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The quotas of the rules.
    pub fn quotas(&self) -> Quotas {
        self.quotas
    }

    /// The template that certificates must match, if one is set.
    pub fn identity(&self) -> Option<&IdentityTemplate> {
        self.identity.as_ref()
    }

    /// Whether everybody needs a certificate, so that TLS may ask for it already.
    pub fn require_certificate(&self) -> bool {
        let each_node = !self.insecure_accept_any && self.nodes.values().all(|rule| !rule.pins.is_empty());
        self.identity.is_some() || !self.pins.is_empty() || each_node
    }

    /// Every key that some rule names.
    pub fn pins(&self) -> impl Iterator<Item = SpkiPin> {
        self.pins.iter().chain(self.nodes.values().flat_map(|rule| &rule.pins)).copied()
    }

    /// Whether anybody is admitted under any name.
    pub fn insecure_accept_any(&self) -> bool {
        self.insecure_accept_any
    }

    /// The rule for the node of this claim, whatever cluster it claims.
    pub(super) fn node(&self, claim: &Claim) -> Option<&NodeRule> {
        match self.nodes.is_empty() {
            true => None,
            false => self.nodes.get(&(claim.tenant.clone(), claim.node.clone())),
        }
    }
}

fn check_proof(settings: &RuleSettings, errors: &mut Vec<RuleError>) {
    let proves_names = settings.identity.is_some() || !settings.nodes.is_empty();
    match (settings.insecure_accept_any, proves_names, settings.pins.is_empty()) {
        (true, true, _) | (true, _, false) => errors.push(RuleError::AcceptAnyBesideProofs),
        (false, false, true) => errors.push(RuleError::NoProof),
        (false, false, false) => errors.push(RuleError::PinsNameNobody),
        (true, false, true) | (false, true, _) => {}
    }
}

/// Each field of a claim is in the certificate's name, or fixed for all.
fn check_coverage(settings: &RuleSettings, identity: Option<&IdentityTemplate>, errors: &mut Vec<RuleError>) {
    let Some(identity) = identity else { return };
    for (field, fixed) in [(Field::Tenant, settings.tenant.is_some()), (Field::Cluster, settings.cluster.is_some())] {
        if !fixed && !identity.names(field) {
            errors.push(RuleError::NotProven { field: field.name() });
        }
    }
}

fn check_quotas(quotas: &Quotas, errors: &mut Vec<RuleError>) {
    let numbers = [("per_node", quotas.per_node), ("per_tenant", quotas.per_tenant), ("total", quotas.total)];
    errors.extend(numbers.into_iter().filter(|(_, n)| *n == 0).map(|(quota, _)| RuleError::ZeroQuota { quota }));
}

fn index_nodes(settings: &RuleSettings, errors: &mut Vec<RuleError>) -> HashMap<(TenantId, NodeId), NodeRule> {
    let mut nodes = HashMap::new();
    for rule in &settings.nodes {
        let claim = &rule.claim;
        if rule.pins.is_empty() && rule.token.is_none() {
            errors.push(RuleError::NodeWithoutProof(claim.clone()));
        }
        let other_tenant = settings.tenant.as_ref().is_some_and(|tenant| *tenant != claim.tenant);
        let other_cluster = settings.cluster.as_ref().is_some_and(|cluster| *cluster != claim.cluster);
        for (field, excluded) in [(Field::Tenant, other_tenant), (Field::Cluster, other_cluster)] {
            if excluded {
                errors.push(RuleError::NodeExcluded { claim: claim.clone(), field: field.name() });
            }
        }
        if nodes.insert((claim.tenant.clone(), claim.node.clone()), rule.clone()).is_some() {
            errors.push(RuleError::NodeTwice(claim.clone()));
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(node: &str) -> Claim {
        Claim { node: node.parse().unwrap(), cluster: "c".parse().unwrap(), tenant: "t".parse().unwrap() }
    }

    fn pinned(node: &str) -> NodeRule {
        NodeRule { claim: claim(node), pins: vec![SpkiPin([1; 32])], token: None }
    }

    fn errors(settings: RuleSettings) -> Vec<RuleError> {
        Rules::new(settings).err().unwrap_or_default()
    }

    fn identity(text: &str) -> RuleSettings {
        RuleSettings { identity: Some(text.to_owned()), ..RuleSettings::default() }
    }

    // spec: SE-2
    #[test]
    fn rules_without_a_proof_are_an_error() {
        assert_eq!(errors(RuleSettings::default()), [RuleError::NoProof]);
        let fixed = RuleSettings { tenant: Some(TenantId::default()), ..RuleSettings::default() };
        assert_eq!(errors(fixed), [RuleError::NoProof]);
    }

    // spec: SE-2
    #[test]
    fn accepting_anybody_must_be_said_and_stands_alone() {
        let any = RuleSettings { insecure_accept_any: true, ..RuleSettings::default() };
        assert_eq!(errors(any.clone()), []);
        for settings in [
            RuleSettings { identity: Some("spiffe://x/{tenant}/{cluster}/{node}".into()), ..any.clone() },
            RuleSettings { pins: vec![SpkiPin([1; 32])], ..any.clone() },
            RuleSettings { nodes: vec![pinned("n")], ..any },
        ] {
            assert_eq!(errors(settings), [RuleError::AcceptAnyBesideProofs]);
        }
    }

    #[test]
    fn pins_for_all_prove_no_name() {
        let pins = RuleSettings { pins: vec![SpkiPin([1; 32])], ..RuleSettings::default() };
        assert_eq!(errors(pins), [RuleError::PinsNameNobody]);
    }

    #[test]
    fn every_field_of_a_claim_is_named_or_fixed() {
        let both = [RuleError::NotProven { field: "tenant" }, RuleError::NotProven { field: "cluster" }];
        assert_eq!(errors(identity("spiffe://x/{node}")), both);
        let fixed = RuleSettings {
            tenant: Some(TenantId::default()),
            cluster: Some(ClusterId::new("c").unwrap()),
            ..identity("spiffe://x/{node}")
        };
        assert_eq!(errors(fixed), []);
        assert_eq!(errors(identity("spiffe://x/{tenant}/{cluster}/{node}")), []);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let bare = NodeRule { pins: Vec::new(), ..pinned("bare") };
        let found = errors(RuleSettings {
            nodes: vec![pinned("n"), pinned("n"), bare],
            tenant: Some(TenantId::new("other").unwrap()),
            quotas: Quotas { per_node: 0, total: 0, ..Quotas::default() },
            ..identity("dns:{cluster}")
        });
        let fields: Vec<_> = found.iter().map(RuleError::field).collect();
        assert_eq!(fields, ["identity", "quotas", "quotas", "nodes", "nodes", "nodes", "nodes", "nodes"], "{found:?}");
    }

    #[test]
    fn a_certificate_is_required_exactly_when_everybody_needs_one() {
        let token = NodeRule { token: Secret::new(&[7; 16]), pins: Vec::new(), ..pinned("m") };
        let requires = |settings| Rules::new(settings).unwrap().require_certificate();
        assert!(requires(identity("spiffe://x/{tenant}/{cluster}/{node}")));
        assert!(requires(RuleSettings { nodes: vec![pinned("n")], ..RuleSettings::default() }));
        assert!(!requires(RuleSettings { nodes: vec![pinned("n"), token], ..RuleSettings::default() }));
        assert!(!requires(RuleSettings { insecure_accept_any: true, ..RuleSettings::default() }));
    }
}
