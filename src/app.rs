//! Everything of one configuration, built, bound, run and drained.
//!
//! Row 13: joins the roles; contains no protocol and no policy. Binding happens in [`App::build`], so a bind error fails
//! start-up and port 0 is known before anything runs.
//!
//! | file | what it does |
//! |---|---|
//! | `load` | settings with what their files hold, and what differs between two of them |
//! | `terms`, `build` | from those to the terms of each role, and to roles that are bound |
//! | `roles`, `datagrams` | the roles while they run |
//! | `apply`, `handle` | other settings while they run: everything that can fail first, then all of it at once |
//! | `fleet`, `first_view` | a membership in a fleet, and what its start waits for |
//! | `state`, `named`, `certificates`, `memory`, `folder` | what is shown, what outlasts the process |
//! | `end` | how it ends |

mod apply;
mod build;
mod certificates;
mod datagrams;
mod end;
mod error;
mod first_view;
mod fleet;
mod folder;
mod handle;
mod load;
mod memory;
mod named;
mod roles;
mod state;
mod terms;
mod upstreams;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::app::datagrams::BoundUdp;
use crate::config::{AdminAddress, Checked, Source};
use crate::egress::Egress;
use crate::initiator::StatusBoard;
use crate::lifecycle::{Drain, Ready};
use crate::responder::Responder;
use crate::telemetry::{Metrics, UPKEEP_INTERVAL};

pub use error::AppError;
pub use handle::{ApplyError, Handle, ReloadError};

use end::End;
use handle::Core;
use load::Loaded;
use roles::{Built, Stage};
use state::State;

/// The roles of one configuration, bound and ready to run.
pub struct App {
    core: Arc<Core>,
    loaded: Loaded,
    built: Built,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.loaded.checked).finish_non_exhaustive()
    }
}

impl App {
    /// Loads every file, binds every address. Nothing is dialled or accepted yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`AppError`] names the file, address or setting at fault.
    pub async fn build(config: Checked) -> Result<Self, AppError> {
        let loaded = Loaded::read(config)?;
        let (metrics, ready) = (Metrics::new(), Ready::new());
        let built = build::build(&loaded, &metrics, &ready).await?;
        loaded.warn(None);
        let state = Arc::new(State::new(&metrics, ready));
        let (entrances, tunnels, siblings) = (Drain::new(), Drain::new(), Drain::new());
        let datagrams = Drain::new();
        let stage = Stage { entrances, datagrams, tunnels, siblings, metrics: metrics.clone(), state };
        let core = Arc::new(Core::new(Arc::clone(&loaded.checked), metrics, stage));
        core.take_orders();
        Ok(Self { core, loaded, built })
    }

    /// Says where the settings came from, for [`Handle::reload`]. The first one counts.
    pub fn read_from(self, source: Source) -> Self {
        self.core.read_from(source);
        self
    }

    /// What changes it while it runs.
    pub fn handle(&self) -> Handle {
        Handle::new(&self.core)
    }

    /// Where requests are taken, in the order of the file.
    pub fn egress_addresses(&self) -> Vec<SocketAddr> {
        self.built.egress.iter().map(Egress::local_addr).collect()
    }

    /// Where datagrams are taken, in the order of the file.
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.built.udp.iter().map(BoundUdp::local_addr).collect()
    }

    /// Where tunnels are accepted.
    pub fn tunnel_address(&self) -> Option<SocketAddr> {
        self.responder().and_then(|responder| responder.local_addr().ok())
    }

    /// Where tunnels over TCP are accepted.
    pub fn tcp_tunnel_address(&self) -> Option<SocketAddr> {
        self.responder().and_then(Responder::tcp_addr)
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<AdminAddress> {
        self.built.admin.as_ref().map(|listener| listener.address().clone())
    }

    /// Where metrics and health can be read, and nothing else.
    pub fn metrics_address(&self) -> Option<AdminAddress> {
        self.built.metrics.as_ref().map(|listener| listener.address().clone())
    }

    /// What the initiator's tunnels are doing, before and while it runs.
    pub fn initiator_status(&self) -> Option<StatusBoard> {
        self.built.initiator.as_ref().map(|(initiator, _)| initiator.status())
    }

    fn responder(&self) -> Option<&Responder> {
        self.built.responder.as_ref().map(|(responder, _)| responder)
    }

    /// Runs until `drain` begins or an operator asks for it, then ends in three steps: it is a lame duck (not ready, every
    /// answer says that it is the last one, everything is served) for the time of the configuration; the egress takes no
    /// new connections; the tunnels are drained. A responder in a fleet asks its initiators for tunnels elsewhere meanwhile, and
    /// drains each tunnel when its node is there. What runs may finish until the deadline, which counts from the end of the
    /// first step; an operator's is the drain timeout of the configuration. [`Drain::stop`] brings it to now. The drain waits
    /// for this.
    ///
    /// Not cancel safe: dropping the future leaves tasks behind that end with the runtime.
    ///
    /// # Errors
    /// None so far: what fails while running is retried and reported, not fatal.
    pub async fn run(self, drain: Drain) -> Result<(), AppError> {
        let Self { core, loaded, built } = self;
        let (watch, guard) = (drain.watch(), drain.watch().guard());
        // Nothing is owed to a process that ends, so upkeep is the one task that drain does not wait for.
        let upkeep = tokio::spawn(keep_up(Arc::clone(&core)));
        core.begin(loaded, built).await;
        let state = &core.stage.state;
        let limit = tokio::select! {
            () = watch.announced() => Some(watch.limit()),
            () = state.drain_requested() => None,
        };
        state.begin_drain();
        let roles = core.end().await;
        let settings = core.settings();
        let takes_nothing = settings.egress.is_empty() && settings.udp.is_empty();
        let lame_duck = if takes_nothing { Duration::ZERO } else { settings.lame_duck };
        let limit = limit.unwrap_or(settings.drain_timeout);
        state.ends_within(lame_duck + limit);
        // An operator's order is one for all who watch.
        drain.begin(limit);
        let Stage { entrances, datagrams, tunnels, siblings, .. } = &core.stage;
        let (entrances, datagrams) = (entrances.clone(), datagrams.clone());
        let (tunnels, siblings) = (tunnels.clone(), siblings.clone());
        let departure = roles.departure(lame_duck, limit);
        let end = End { entrances, datagrams, tunnels, siblings, departure, lame_duck, limit };
        state.has_drained(end.run(&watch).await);
        roles.stop_answering().await;
        upkeep.abort();
        drop(guard);
        Ok(())
    }
}

async fn keep_up(core: Arc<Core>) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    let fold = async {
        loop {
            interval.tick().await;
            core.metrics.upkeep();
        }
    };
    tokio::join!(certificates::remind(|| core.stage.state.certificates()), fold, core.watch());
}
