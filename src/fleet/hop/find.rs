//! The tunnels that end here, as the ways of what a sibling asks for. spec: FL-42, FL-44

use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;

use crate::id::{ServiceName, TunnelId};
use crate::message::failure::{Cause, Failure};
use crate::protocol::fleet::Route;
use crate::proxy::opener::{Find, Opener};
use crate::registry::{Balance, Choice, NoTunnel, Wanted};
use crate::shares::{Account, Shares};
use crate::transport::Tunnel;

/// The tunnels that end here. Nothing of it waits.
pub trait LocalTunnels: fmt::Debug + Send + Sync {
    /// One that is heard, as [`Registry::pick_for`](crate::registry::Registry::pick_for) chooses. Never one that leads through
    /// a sibling.
    ///
    /// # Errors
    /// There is none, and why.
    fn pick(&self, wanted: Wanted<'_>, avoid: &[TunnelId]) -> Result<Tunnel, NoTunnel>;

    /// All tunnels of the node to which this one leads.
    fn beside(&self, tunnel: &Tunnel) -> Vec<TunnelId>;

    /// What each tenant and node may have of them.
    fn shares(&self) -> &Arc<Shares>;
}

/// Looks among them for one stream.
pub(super) struct FindHere<'a> {
    tunnels: &'a dyn LocalTunnels,
    route: &'a Route,
    service: Option<&'a ServiceName>,
    choice: Choice,
    /// Whether there was one at all.
    has_found: bool,
}

impl<'a> FindHere<'a> {
    pub(super) fn new(tunnels: &'a dyn LocalTunnels, route: &'a Route, service: Option<&'a ServiceName>) -> Self {
        let choice = match route.affinity {
            Some(entropy) => Choice { balance: Balance::Hash, entropy },
            None => Choice { balance: Balance::TwoChoices, entropy: rand::random() },
        };
        Self { tunnels, route, service, choice, has_found: false }
    }

    pub(super) fn pick(&mut self, avoid: &[TunnelId]) -> Result<Tunnel, Failure> {
        let Route { tenant, host_id, .. } = self.route;
        let wanted = Wanted { tenant, host_id, service: self.service, choice: self.choice };
        let picked = self.tunnels.pick(wanted, avoid);
        // One that is suspect, or opens, may be there again before the directory has anything new to tell.
        self.has_found |= matches!(picked, Ok(_) | Err(NoTunnel::Suspect | NoTunnel::Opening));
        picked.map_err(|reason| Failure::new(Cause::NoTunnel, format!("{host_id}: {reason}")))
    }

    pub(super) const fn route(&self) -> &Route {
        self.route
    }

    /// Whether there was a tunnel at all, be it one that cannot be used now.
    pub(super) const fn has_found(&self) -> bool {
        self.has_found
    }
}

impl Find for &mut FindHere<'_> {
    type Opener = Tunnel;

    fn find(&mut self, avoid: &[TunnelId]) -> impl Future<Output = Result<Tunnel, Failure>> + Send {
        std::future::ready(self.pick(avoid))
    }

    fn account(&self, opener: &Tunnel) -> Option<Arc<Account>> {
        self.tunnels.shares().node(&Opener::place(opener).claim)
    }

    fn beside(&self, opener: &Tunnel) -> Vec<TunnelId> {
        self.tunnels.beside(opener)
    }

    /// Nothing is waited for.
    fn hurry(&mut self) {}

    /// Whoever asks notices by itself, and may know another way.
    async fn overtaken(&self, _: &Tunnel, _: &[TunnelId]) {
        pending().await
    }
}
