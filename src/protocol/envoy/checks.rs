//! What an Envoy responder checks in a request, in its order and with its words. Nothing here is ours. spec: EV-11

use crate::protocol::envoy::UPGRADE_TOKEN;
use crate::protocol::envoy::fields::Fields;
use crate::protocol::envoy::names;
use crate::protocol::envoy::rejection::Rejection;
use crate::protocol::envoy::request::HandshakeRules;

/// A request head as far as the checks look at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'h> {
    pub(super) method: &'h str,
    pub(super) target: &'h str,
    pub(super) fields: Fields<'h>,
}

/// The rows of the table that need no more than the head. The row before them, that there is no body, is for who reads
/// the body; those after them are for policy.
pub(super) fn check(head: &Head<'_>, rules: &HandshakeRules) -> Result<(), Rejection> {
    let fields = head.fields;
    if head.method != "GET" || head.target != rules.path.as_str() {
        return Err(Rejection::NotFound);
    }
    if rules.upgrade && !asks_for_upgrade(fields) {
        return Err(Rejection::UpgradeRequired);
    }
    let ids = [names::NODE, names::CLUSTER, names::TENANT].map(|name| fields.first(name));
    let [Some(node), Some(cluster), Some(tenant)] = ids else { return Err(Rejection::MissingIds) };
    if tenant.is_empty() {
        return Err(Rejection::EmptyTenant);
    }
    // Envoy asks this only where tenant isolation is on. Here it always is.
    if [node, cluster, tenant].iter().any(|id| id.contains(&b':')) {
        return Err(Rejection::Colon);
    }
    match (&rules.required_cluster, fields.first(names::UPSTREAM_CLUSTER)) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Rejection::MissingUpstreamCluster),
        (Some(required), Some(named)) if required.as_bytes() == named => Ok(()),
        (Some(_), Some(_)) => Err(Rejection::UpstreamClusterMismatch),
    }
}

fn asks_for_upgrade(fields: Fields<'_>) -> bool {
    fields.first("upgrade").is_some_and(|token| token.eq_ignore_ascii_case(UPGRADE_TOKEN.as_bytes()))
}
