//! What only writers need: whose a tunnel is, and how many there are.

use std::collections::HashMap;

use super::departed::Departed;
use crate::id::{NodeId, TenantId, TunnelId};

/// The books of the writers, behind their lock.
#[derive(Default)]
pub(super) struct Ledger {
    owners: HashMap<TunnelId, (TenantId, NodeId)>,
    /// No tenant has 0.
    tenants: HashMap<TenantId, usize>,
    pub(super) departed: Departed,
    /// Of the rules; what was admitted under an earlier one is not entered.
    pub(super) generation: u64,
}

impl Ledger {
    pub(super) fn owner(&self, id: TunnelId) -> Option<&(TenantId, NodeId)> {
        self.owners.get(&id)
    }

    pub(super) fn total(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn of_tenant(&self, tenant: &TenantId) -> usize {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    pub(super) fn enter(&mut self, id: TunnelId, tenant: TenantId, node: NodeId) {
        *self.tenants.entry(tenant.clone()).or_default() += 1;
        self.owners.insert(id, (tenant, node));
    }

    pub(super) fn strike(&mut self, id: TunnelId) -> Option<(TenantId, NodeId)> {
        let owner = self.owners.remove(&id)?;
        if let Some(count) = self.tenants.get_mut(&owner.0) {
            *count -= 1;
            if *count == 0 {
                self.tenants.remove(&owner.0);
            }
        }
        Some(owner)
    }

    #[cfg(test)]
    pub(super) fn tenants(&self) -> usize {
        self.tenants.len()
    }
}
