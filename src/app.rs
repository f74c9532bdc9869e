//! Everything of one configuration, built, bound, run and drained.
//!
//! Row 13: joins the roles; contains no protocol and no policy. Binding happens in [`App::build`], so a bind error fails
//! start-up and port 0 is known before anything runs.

mod build;
mod certificates;
mod named;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin;
use crate::config::{AdminAddress, Checked};
use crate::egress::Egress;
use crate::initiator::serve::Services;
use crate::initiator::{Initiator, StatusBoard};
use crate::lifecycle::{Drain, DrainWatch, Drained, ReadyGuard};
use crate::responder::Responder;
use crate::telemetry::{Metrics, UPKEEP_INTERVAL};

pub use build::AppError;
use certificates::Certificates;
use state::State;

/// The roles of one configuration, bound and ready to run.
pub struct App {
    config: Checked,
    metrics: Metrics,
    state: Arc<State>,
    responder: Option<Responder>,
    egress: Vec<Egress>,
    initiator: Option<(Initiator<Services>, ReadyGuard)>,
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

    /// Runs until `drain` begins or an operator asks for it, then drains: no new tunnels, no new connections, what runs may
    /// finish until the deadline; an operator's is the drain timeout of the configuration. [`Drain::stop`] brings it to now.
    ///
    /// Not cancel safe: dropping the future leaves tasks behind that end with the runtime.
    ///
    /// # Errors
    /// None so far: what fails while running is retried and reported, not fatal.
    pub async fn run(self, drain: Drain) -> Result<(), AppError> {
        self.announce();
        let Self { config, metrics, state, responder, egress, initiator, admin, metrics_listener } = self;
        let admin_stop = CancellationToken::new();
        let listeners = [admin, metrics_listener].into_iter().flatten();
        let admin = listeners.map(|listener| {
            let state: Arc<dyn admin::AdminState> = state.clone();
            tokio::spawn(admin::serve(listener, state, admin_stop.clone()))
        });
        let admin: Vec<_> = admin.collect();
        // Nothing is owed to a process that ends, so upkeep is the one task that drain does not wait for.
        let upkeep = tokio::spawn(keep_up(metrics, state.certificates().clone()));
        if let Some(responder) = responder {
            drop(drain.watch().spawn(responder.run(drain.watch())));
        }
        for egress in egress {
            drop(drain.watch().spawn(egress.run(drain.watch())));
        }
        if let Some((initiator, ready)) = initiator {
            drop(drain.watch().spawn(first_tunnel(initiator.status(), ready, drain.watch())));
            drop(drain.watch().spawn(initiator.run(drain.watch())));
        }
        let begun = drain.watch();
        tokio::select! {
            () = begun.announced() => {}
            () = state.drain_requested() => {}
        }
        state.begin_drain();
        info!(timeout = ?config.drain_timeout, "draining");
        match drain.drain(config.drain_timeout).await {
            Drained::Complete => info!("drained: everything finished"),
            Drained::Expired(left) => warn!(left, "the drain timeout passed: what still ran was cut"),
        }
        admin_stop.cancel();
        upkeep.abort();
        for admin in admin {
            // A panic there has been reported by the runtime already.
            let _ = admin.await;
        }
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
