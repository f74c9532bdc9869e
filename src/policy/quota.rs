//! How many tunnels there may be: of one node, of one tenant, of all.

use std::fmt;
use std::time::Duration;

use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::Refusal;

/// Upper bounds on live tunnels; draining ones count, superseded ones do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Tunnels of one node. Default 16: a few per responder address, twice while they are replaced.
    pub per_node: u32,
    /// Tunnels of one tenant. Default 65,536, which is the total: tenants share until a smaller number is set.
    pub per_tenant: u32,
    /// Tunnels of this responder. Default 65,536; an idle one costs up to 100 KiB.
    pub total: u32,
    /// How long a refused initiator is asked to wait. Default 10 s; a dead tunnel is noticed within 30 s.
    pub retry_after: Duration,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { per_node: 16, per_tenant: 65_536, total: 65_536, retry_after: Duration::from_secs(10) }
    }
}

/// How many tunnels there are that count against the quotas of one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Of the node.
    pub node: usize,
    /// Of the tenant, the node's included.
    pub tenant: usize,
    /// Of all tenants.
    pub total: usize,
}

/// Which quota is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaScope {
    /// [`Quotas::per_node`].
    Node,
    /// [`Quotas::per_tenant`].
    Tenant,
    /// [`Quotas::total`].
    Total,
}

/// One more tunnel would exceed a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{scope} has its {limit} tunnels already")]
pub struct QuotaExceeded {
    /// Which quota.
    pub scope: QuotaScope,
    /// Its number.
    pub limit: u32,
    /// When to try again.
    pub retry_after: Duration,
}

impl Quotas {
    /// Whether one more tunnel fits beside those that `counts` says there are.
    pub fn check(&self, counts: Counts) -> Result<(), QuotaExceeded> {
        let scopes = [
            (QuotaScope::Node, counts.node, self.per_node),
            (QuotaScope::Tenant, counts.tenant, self.per_tenant),
            (QuotaScope::Total, counts.total, self.total),
        ];
        let full =
            |(_, count, limit): &(QuotaScope, usize, u32)| usize::try_from(*limit).is_ok_and(|max| *count >= max);
        match scopes.into_iter().find(full) {
            Some((scope, _, limit)) => Err(QuotaExceeded { scope, limit, retry_after: self.retry_after }),
            None => Ok(()),
        }
    }
}

impl QuotaExceeded {
    /// 429 with a retry-after.
    pub fn refusal(&self) -> Refusal {
        Refusal { retry_after: Some(self.retry_after), ..super::refuse(RefusalCode::Quota, self.to_string()) }
    }
}

impl fmt::Display for QuotaScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "this node",
            Self::Tenant => "this tenant",
            Self::Total => "this responder",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTAS: Quotas = Quotas { per_node: 2, per_tenant: 3, total: 4, retry_after: Duration::from_secs(7) };

    fn check(node: usize, tenant: usize, total: usize) -> Result<(), QuotaScope> {
        QUOTAS.check(Counts { node, tenant, total }).map_err(|exceeded| exceeded.scope)
    }

    #[test]
    fn the_last_place_is_given_and_the_next_refused() {
        assert_eq!(check(1, 2, 3), Ok(()));
        assert_eq!(check(2, 2, 3), Err(QuotaScope::Node));
        assert_eq!(check(1, 3, 3), Err(QuotaScope::Tenant));
        assert_eq!(check(1, 2, 4), Err(QuotaScope::Total));
    }

    #[test]
    fn a_quota_refusal_is_429_and_says_when_to_come_back() {
        let refusal = QUOTAS.check(Counts { node: 2, tenant: 2, total: 2 }).unwrap_err().refusal();
        assert_eq!(refusal.code, RefusalCode::Quota);
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(refusal.reason, "this node has its 2 tunnels already");
    }
}
