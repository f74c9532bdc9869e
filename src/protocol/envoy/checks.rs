//! What an Envoy responder checks in a request, in its order and with its words. spec: EV-11

use crate::protocol::envoy::UPGRADE_TOKEN;
use crate::protocol::envoy::fields::Fields;
use crate::protocol::envoy::names;
use crate::protocol::envoy::path::RequestPath;
use crate::protocol::envoy::rejection::Rejection;

/// What a responder asks of a handshake, beside what policy decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandshakeRules {
    /// Where it must go. Default [`DEFAULT_PATH`](super::DEFAULT_PATH).
    pub path: RequestPath,
    /// Whether it must ask for an upgrade, and is answered by 101 and not by 200. Both ends must agree. Default no.
    pub upgrade: bool,
    /// What initiators must call this responder (`upstream-cluster-name`). Default: anything or nothing.
    pub required_cluster: Option<String>,
}

impl HandshakeRules {
    /// The whole answer that admits an initiator. It must reach it in a segment of its own: an Envoy 1.40 loses what
    /// follows in the same read. spec: EV-15
    pub const fn accept_bytes(&self) -> &'static [u8] {
        if self.upgrade {
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: reverse-tunnel\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        }
    }
}

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
