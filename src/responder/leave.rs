//! A responder leaves its fleet: its initiators are told while it still serves, and each tunnel is drained once its node is
//! elsewhere. spec: FL-22, FL-23

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tracing::{info, warn};

use crate::fleet::Siblings;
use crate::id::{Claim, TunnelId};
use crate::protocol::session::Drain;
use crate::registry::{Handle as _, Health, LiveTunnel};
use crate::responder::admission::reconnect_spread;
use crate::responder::departure::Departure;
use crate::responder::shared::Shared;
use crate::transport::{TransportKind, Tunnel};

/// How often it is looked whose node is elsewhere by now.
const LOOK: Duration = Duration::from_millis(50);
/// How long whoever is told, or dials, stays away at least: a responder that leaves is seldom back any sooner.
const AWAY: Duration = Duration::from_secs(1);
/// What DRAIN says where the time is over at the moment.
const LEAST: Duration = Duration::from_millis(1);

/// How long a departure may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    /// How long it goes on taking requests, whatever its initiators do.
    pub lame_duck: Duration,
    /// For how long nodes that are nowhere else are waited for.
    pub within: Duration,
    /// After how long what still runs is cut.
    pub deadline: Duration,
}

/// Whether another responder has the node that is not leaving as well. spec: FL-23
pub(crate) fn is_elsewhere(siblings: &dyn Siblings, claim: &Claim) -> bool {
    siblings.hear(&claim.tenant, &claim.node)
}

/// Returns when the node of each tunnel is elsewhere, or nothing is gained by waiting; at once where no sibling could take one.
/// Cancel safe: whoever was told goes on until the responder drains.
pub(super) async fn leave(shared: &Shared, siblings: Arc<dyn Siblings>, leaving: Leaving) {
    let begun = Instant::now();
    if siblings.all().iter().all(|sibling| sibling.draining) {
        return info!("no other responder of the fleet could take the nodes of this one");
    }
    let away = AWAY.max(leaving.lame_duck);
    let live = shared.admission.leave(away);
    let (elsewhere, nowhere): (Vec<_>, Vec<_>) =
        live.iter().partition(|live| is_elsewhere(&*siblings, &live.place.claim));
    let (tunnels, nowhere_else) = (live.len(), nowhere.len());
    info!(tunnels, nowhere_else, "leaving the fleet: initiators are told, and served until they are elsewhere");
    let departure = Departure::new(begun, leaving.within, ids(nowhere), ids(elsewhere));
    let spread = reconnect_spread(live.len());
    let tunnels = live.into_iter().map(|live| (live.id, live.handle)).collect();
    let mut run = Run { tunnels, siblings, departure, deadline: begun + leaving.deadline, away, spread };
    run.finish().await;
    match run.end() {
        0 => info!(took = ?begun.elapsed(), "nobody is waited for any more"),
        tunnels => warn!(tunnels, "the time is over, and these are of nodes that are nowhere else"),
    }
}

fn ids(live: Vec<&LiveTunnel<Tunnel>>) -> Vec<TunnelId> {
    live.into_iter().map(|live| live.id).collect()
}

/// A departure with its tunnels.
struct Run {
    tunnels: HashMap<TunnelId, Tunnel>,
    siblings: Arc<dyn Siblings>,
    departure: Departure,
    /// When what still runs is cut.
    deadline: Instant,
    /// How long who is told stays away, and how much longer at random.
    away: Duration,
    spread: Duration,
}

impl Run {
    async fn finish(&mut self) {
        let mut look = Instant::now();
        loop {
            let now = Instant::now();
            self.tell(now);
            if now >= look {
                self.let_go(now);
                // A look at very many may take longer than it should be apart from the next one.
                look = now + LOOK.max(now.elapsed() * 10);
            }
            if self.departure.is_over(now) {
                return;
            }
            sleep_until(self.departure.deadline().min(look).into()).await;
        }
    }

    fn tell(&mut self, now: Instant) {
        while let Some(id) = self.departure.tell(now) {
            let drain = Drain { serves: self.departure.left(now).max(LEAST), ..self.drain(now) };
            if self.tunnels.get(&id).is_some_and(|tunnel| !tunnel.leave(drain)) {
                return self.departure.not_told(id);
            }
        }
    }

    /// Drains those whose node is elsewhere, and waits no longer for those for which that would be in vain.
    fn let_go(&mut self, now: Instant) {
        let serving: Vec<TunnelId> = self.departure.serving().collect();
        for id in serving {
            let Some(tunnel) = self.tunnels.get(&id) else { continue };
            let is_over = match tunnel.health() {
                // It has ended, or its initiator drains it: or is not heard. spec: CT-28
                Health::Draining | Health::Suspect => true,
                _ if is_elsewhere(&*self.siblings, &tunnel.place().claim) => {
                    let Drain { deadline, reconnect_after, .. } = self.drain(now);
                    tunnel.drain(deadline, reconnect_after);
                    true
                }
                // An Envoy was told nothing.
                _ => tunnel.transport() == TransportKind::Envoy,
            };
            if is_over {
                self.departure.let_go(id);
            }
        }
    }

    /// Drains those that still serve, as they were told; how many that are.
    fn end(&self) -> usize {
        let Drain { deadline, reconnect_after, .. } = self.drain(Instant::now());
        let serving = self.departure.serving().filter_map(|id| self.tunnels.get(&id));
        serving.inspect(|tunnel| tunnel.drain(deadline, reconnect_after)).count()
    }

    fn drain(&self, now: Instant) -> Drain {
        let deadline = self.deadline.saturating_duration_since(now);
        Drain { deadline, reconnect_after: self.away + self.spread.mul_f64(rand::random()), ..Drain::default() }
    }
}
