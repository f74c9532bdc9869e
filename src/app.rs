//! Everything of one configuration, built, bound, run and drained.
//!
//! Row 13: joins the roles; contains no protocol and no policy. Binding happens in [`App::build`], so a bind error fails
//! start-up and port 0 is known before anything runs.

mod build;
mod certificates;
mod end;
mod folder;
mod memory;
mod named;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin;
use crate::config::{AdminAddress, Checked};
use crate::egress::Egress;
use crate::initiator::serve::Services;
use crate::initiator::{Initiator, StatusBoard};
use crate::lifecycle::{Drain, DrainWatch, ReadyGuard};
use crate::responder::Responder;
use crate::telemetry::{Metrics, UPKEEP_INTERVAL};

pub use build::AppError;
use certificates::Certificates;
use end::End;
use memory::Memory;
use state::State;

/// The roles of one configuration, bound and ready to run.
pub struct App {
    config: Checked,
    metrics: Metrics,
    state: Arc<State>,
    responder: Option<Responder>,
    egress: Vec<Egress>,
    initiator: Option<(Initiator<Services>, ReadyGuard)>,
    memory: Option<Memory>,
    admin: Option<admin::Listener>,
    metrics_listener: Option<admin::Listener>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

impl App {
    /// Loads every file, binds every address. Nothing is dialled or accepted yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`AppError`] names the file, address or setting at fault.
    pub async fn build(config: Checked) -> Result<Self, AppError> {
        build::build(config).await
    }

    /// Where requests are taken, in the order of the file.
    pub fn egress_addresses(&self) -> Vec<SocketAddr> {
        self.egress.iter().map(Egress::local_addr).collect()
    }

    /// Where tunnels are accepted.
    pub fn tunnel_address(&self) -> Option<SocketAddr> {
        self.responder.as_ref().and_then(|responder| responder.local_addr().ok())
    }

    /// Where tunnels over TCP are accepted.
    pub fn tcp_tunnel_address(&self) -> Option<SocketAddr> {
        self.responder.as_ref().and_then(Responder::tcp_addr)
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<AdminAddress> {
        self.admin.as_ref().map(|listener| listener.address().clone())
    }

    /// Where metrics and health can be read, and nothing else.
    pub fn metrics_address(&self) -> Option<AdminAddress> {
        self.metrics_listener.as_ref().map(|listener| listener.address().clone())
    }

    /// What the initiator's tunnels are doing, before and while it runs.
    pub fn initiator_status(&self) -> Option<StatusBoard> {
        self.initiator.as_ref().map(|(initiator, _)| initiator.status())
    }

    /// Runs until `drain` begins or an operator asks for it, then ends in three steps: it is a lame duck (not ready, every
    /// answer says that it is the last one, everything is served) for the time of the configuration; the egress takes no
    /// new connections; the tunnels are drained. What runs may finish until the deadline, which counts from the end of the
    /// first step; an operator's is the drain timeout of the configuration. [`Drain::stop`] brings it to now. The drain waits
    /// for this.
    ///
    /// Not cancel safe: dropping the future leaves tasks behind that end with the runtime.
    ///
    /// # Errors
    /// None so far: what fails while running is retried and reported, not fatal.
    pub async fn run(self, drain: Drain) -> Result<(), AppError> {
        self.announce();
        let Self { config, metrics, state, responder, egress, initiator, memory, admin, metrics_listener } = self;
        let (watch, guard) = (drain.watch(), drain.watch().guard());
        let (entrances, tunnels) = (Drain::new(), Drain::new());
        let admin_stop = CancellationToken::new();
        let listeners = [admin, metrics_listener].into_iter().flatten();
        let admin = listeners.map(|listener| {
            let state: Arc<dyn admin::AdminState> = state.clone();
            tokio::spawn(admin::serve(listener, state, admin_stop.clone()))
        });
        let admin: Vec<_> = admin.collect();
        // Nothing is owed to a process that ends, so upkeep is the one task that drain does not wait for.
        let upkeep = tokio::spawn(keep_up(metrics, state.certificates().clone()));
        let lame_duck = if egress.is_empty() { Duration::ZERO } else { config.lame_duck };
        if let Some(memory) = memory {
            memory.keep(watch.clone());
        }
        if let Some(responder) = responder {
            drop(tunnels.watch().spawn(responder.run(tunnels.watch())));
        }
        for egress in egress {
            drop(entrances.watch().spawn(egress.run(entrances.watch())));
        }
        if let Some((initiator, ready)) = initiator {
            drop(tunnels.watch().spawn(first_tunnel(initiator.status(), ready, tunnels.watch())));
            drop(tunnels.watch().spawn(initiator.run(tunnels.watch())));
        }
        let limit = tokio::select! {
            () = watch.announced() => watch.limit(),
            () = state.drain_requested() => config.drain_timeout,
        };
        state.begin_drain();
        // An operator's order is one for all who watch.
        drain.begin(limit);
        End { entrances, tunnels, lame_duck, limit }.run(&watch).await;
        admin_stop.cancel();
        upkeep.abort();
        for admin in admin {
            // A panic there has been reported by the runtime already.
            let _ = admin.await;
        }
        drop(guard);
        Ok(())
    }

    fn announce(&self) {
        let responder = self.responder.as_ref();
        if let Some(address) = responder.and_then(Responder::quic_addr) {
            info!(%address, transport = "quic", "accepting tunnels");
        }
        if let Some(address) = responder.and_then(Responder::tcp_addr) {
            info!(%address, transport = "tcp", "accepting tunnels over TCP");
        }
        for egress in &self.egress {
            info!(address = %egress.local_addr(), "taking requests");
        }
        if let Some(listener) = &self.metrics_listener {
            info!(address = %listener.address(), "metrics listener");
        }
        if let Some(address) = self.admin_address() {
            info!(%address, "admin listener");
        }
    }
}

async fn keep_up(metrics: Metrics, certificates: Certificates) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    let fold = async {
        loop {
            interval.tick().await;
            metrics.upkeep();
        }
    };
    tokio::join!(certificates.remind(), fold);
}

/// Start-up is complete when one tunnel is up; a drain that comes first leaves it incomplete.
async fn first_tunnel(board: StatusBoard, ready: ReadyGuard, draining: DrainWatch) {
    tokio::select! {
        () = board.first_connected() => ready.done(),
        () = draining.announced() => {}
    }
}
