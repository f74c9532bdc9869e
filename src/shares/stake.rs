//! What one exchange holds of the shares of its tenant and its node.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::account::{Account, Exceeded, What};
use super::turns::BEGIN_COST;
use super::wait::{Owed, Wait};

/// What something that is under way counts as, until this is dropped.
#[derive(Debug)]
#[must_use = "it counts while this lives"]
pub struct Stake {
    tenant: Arc<Account>,
    /// `None`: an exchange that goes to no node with an account. It is part of every exchange, so it is small.
    more: Option<Box<More>>,
}

/// What few exchanges have.
#[derive(Debug)]
struct More {
    what: What,
    node: Option<Arc<Account>>,
    /// It went to a node, as far as that is known: of the first one that nothing limits nothing is kept.
    has_gone: bool,
    /// A node had used up its share, and it has gone to no other one: it is none of the requests of its tenant.
    is_unspent: bool,
}

impl More {
    const fn new(what: What) -> Self {
        Self { what, node: None, has_gone: false, is_unspent: false }
    }
}

/// Charges what one direction of an exchange moves.
#[derive(Debug)]
pub struct Meter {
    tenant: Arc<Account>,
    /// Known once the request is on its way.
    node: ArcSwapOption<Account>,
}

impl Stake {
    /// Something of this tenant begins; or on a way through a sibling, where that is not for this responder to charge to a tenant.
    ///
    /// # Errors
    /// The share is used up.
    pub fn of_tenant(tenant: Arc<Account>, what: What) -> Result<Self, Exceeded> {
        tenant.enter(what, now())?;
        let more = (what != What::Exchange).then(|| Box::new(More::new(what)));
        Ok(Self { tenant, more })
    }

    /// It goes to this node, or this way through a sibling, and no longer to the one before; `None`: to a node that nothing limits.
    ///
    /// # Errors
    /// The share of the node, or of the way, is used up: it goes nowhere. Where it has gone to no other one by its end, it was
    /// none of the tenant's requests of this second.
    pub fn go_to(&mut self, node: Option<Arc<Account>>) -> Result<(), Exceeded> {
        if let (Some(before), Some(now)) = (self.node(), &node)
            && Arc::ptr_eq(before, now)
        {
            // Another tunnel of the same node: it has entered.
            return Ok(());
        }
        let what = self.what();
        if let Some(before) = self.more.as_mut().and_then(|more| more.node.take()) {
            before.leave(what);
        }
        if let Some(node) = node {
            let entered = node.enter(what, now());
            let more = self.more.get_or_insert_with(|| Box::new(More::new(what)));
            if let Err(exceeded) = entered {
                more.is_unspent = !more.has_gone;
                return Err(exceeded);
            }
            more.node = Some(node);
        }
        if let Some(more) = &mut self.more {
            (more.has_gone, more.is_unspent) = (true, false);
        }
        Ok(())
    }

    fn what(&self) -> What {
        self.more.as_ref().map_or(What::Exchange, |more| more.what)
    }

    fn node(&self) -> Option<&Arc<Account>> {
        self.more.as_ref()?.node.as_ref()
    }

    /// The turn of its begin, where it has to wait for that.
    pub fn begin(&self) -> Option<Wait> {
        Wait::for_turn(&self.tenant, BEGIN_COST)
    }

    /// What charges the bytes of one direction.
    pub fn meter(&self) -> Meter {
        let meter = Meter { tenant: Arc::clone(&self.tenant), node: ArcSwapOption::empty() };
        self.tell(&meter);
        meter
    }

    /// Has the bytes charged from now on to the node to which it goes now, too, and to no other.
    pub fn tell(&self, meter: &Meter) {
        meter.node.store(self.node().cloned());
    }
}

impl Meter {
    /// Whether bytes that cannot wait, as those of a datagram, may move now: as long as something is left of both rates. They
    /// are charged then, and else not.
    pub fn admits(&self, bytes: u64) -> bool {
        if !self.tenant.admit(bytes, now) {
            return false;
        }
        let by_node = self.node.load().as_ref().is_none_or(|node| node.admit(bytes, now));
        if !by_node {
            self.tenant.give_back(bytes);
        }
        by_node
    }

    /// Bytes are about to move. `Some`: when that has come; dropped before, they are given back. Who waits for a rate has
    /// its turn after that.
    pub fn charge(&self, bytes: u64) -> Option<Wait> {
        let node = self.node.load_full();
        let of_tenant = self.tenant.book(bytes, now);
        let of_node = node.as_ref().map_or(std::time::Duration::ZERO, |node| node.book(bytes, now));
        let wait = of_tenant.max(of_node);
        if wait.is_zero() {
            return Wait::for_turn(&self.tenant, bytes);
        }
        let slower = node.as_ref().filter(|_| of_node > of_tenant).unwrap_or(&self.tenant);
        let changes = Arc::clone(slower.changes());
        Some(Wait::for_rate(wait, changes, Owed { tenant: Arc::clone(&self.tenant), node, bytes }))
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Drop for Stake {
    fn drop(&mut self) {
        let what = self.what();
        self.tenant.leave(what);
        if self.more.as_ref().is_some_and(|more| more.is_unspent) {
            self.tenant.unspend(what);
        }
        if let Some(node) = self.node() {
            node.leave(what);
        }
    }
}
