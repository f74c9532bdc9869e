//! The roles of an app: bound, then running, each with a drain of its own, so that it can end before the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin;
use crate::app::datagrams::{BoundUdp, UdpEntrances};
use crate::app::end::Departure;
use crate::app::fleet::{Belonging, Joining};
use crate::app::memory::Memory;
use crate::app::state::State;
use crate::egress::{self, Egress, Http3Socket};
use crate::fleet::Siblings;
use crate::initiator::serve::Services;
use crate::initiator::{self, Initiator, StatusBoard};
use crate::lifecycle::{Drain, DrainWatch, ReadyGuard};
use crate::responder::{self, GoneNodes, Responder};
use crate::routing::Directory;
use crate::telemetry::Metrics;
use crate::transport::Tunnel;

/// Roles and listeners that are bound, and have not begun.
pub(super) struct Built {
    pub(super) responder: Option<(Responder, Memory)>,
    pub(super) fleet: Option<Joining>,
    pub(super) egress: Vec<Egress>,
    pub(super) udp: Vec<BoundUdp>,
    pub(super) initiator: Option<(Initiator<Services>, ReadyGuard)>,
    pub(super) admin: Option<admin::Listener>,
    pub(super) metrics: Option<admin::Listener>,
}

/// Where roles run.
pub(super) struct Stage {
    /// Of the egress.
    pub(super) entrances: Drain,
    /// Of the listeners for datagrams among them.
    pub(super) datagrams: Drain,
    /// Of responder and initiator.
    pub(super) tunnels: Drain,
    /// Of the connections with siblings.
    pub(super) siblings: Drain,
    pub(super) metrics: Metrics,
    pub(super) state: Arc<State>,
}

/// Roles and listeners that run.
#[derive(Default)]
pub(super) struct Roles {
    pub(super) responder: Option<Responding>,
    pub(super) fleet: Option<Belonging>,
    pub(super) egress: Vec<Entrance>,
    /// UDP sockets of those that were removed.
    pub(super) left: Vec<Http3Socket>,
    pub(super) udp: UdpEntrances,
    pub(super) initiator: Option<Initiating>,
    pub(super) admin: Option<Answering>,
    pub(super) metrics: Option<Answering>,
}

/// A responder that runs.
pub(super) struct Responding {
    pub(super) handle: responder::Handle,
    pub(super) gone: GoneNodes,
    drain: Drain,
}

/// An egress listener that runs.
pub(super) struct Entrance {
    pub(super) handle: egress::Handle,
    drain: Drain,
}

/// An initiator that runs.
pub(super) struct Initiating {
    pub(super) handle: initiator::Handle<Services>,
    drain: Drain,
}

/// An admin listener, or one for metrics, that runs.
pub(super) struct Answering {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Stage {
    /// Begins everything that is bound.
    pub(super) fn begin(&self, built: Built) -> Roles {
        let Built { responder, fleet, egress, udp, initiator, admin, metrics } = built;
        let siblings = fleet.as_ref().and_then(Joining::siblings);
        let responder = responder.map(|(responder, memory)| self.responder(responder, memory, siblings));
        let fleet = fleet.zip(responder.as_ref()).map(|(joining, responder)| self.belong(joining, responder));
        Roles {
            responder,
            fleet,
            egress: egress.into_iter().map(|egress| self.entrance(egress)).collect(),
            left: Vec::new(),
            udp: UdpEntrances::begin(udp, &self.datagrams),
            initiator: initiator.map(|(initiator, ready)| self.initiator(initiator, Some(ready))),
            metrics: metrics.map(|listener| self.answer(listener)),
            admin: admin.map(|listener| self.answer(listener)),
        }
    }

    /// `siblings`: those through which it reaches what it has not itself.
    pub(super) fn responder(
        &self,
        responder: Responder,
        memory: Memory,
        siblings: Option<Arc<dyn Siblings>>,
    ) -> Responding {
        let drain = Drain::within(&self.tunnels.watch());
        let (handle, gone, watch) = (responder.handle(), responder.gone(), drain.watch());
        if let Some(address) = responder.quic_addr() {
            info!(%address, transport = "quic", "accepting tunnels");
        }
        if let Some(address) = responder.tcp_addr() {
            info!(%address, transport = "tcp", "accepting tunnels over TCP");
        }
        memory.keep(siblings, watch.clone());
        drop(watch.spawn(responder.run(watch.clone())));
        Responding { handle, gone, drain }
    }

    /// Joins a fleet.
    pub(super) fn belong(&self, joining: Joining, responder: &Responding) -> Belonging {
        let drains = (&self.tunnels.watch(), &self.siblings.watch());
        Belonging::begin(joining, &responder.handle, &self.metrics, drains)
    }

    pub(super) fn entrance(&self, egress: Egress) -> Entrance {
        let drain = Drain::within(&self.entrances.watch());
        let (handle, watch) = (egress.handle(), drain.watch());
        let address = egress.local_addr();
        match handle.terms().tcp {
            None => info!(%address, "taking requests"),
            Some(_) => info!(%address, "taking connections"),
        }
        drop(watch.spawn(egress.run(watch.clone())));
        Entrance { handle, drain }
    }

    /// `ready` is told of the first tunnel.
    pub(super) fn initiator(&self, initiator: Initiator<Services>, ready: Option<ReadyGuard>) -> Initiating {
        let drain = Drain::within(&self.tunnels.watch());
        let (handle, watch) = (initiator.handle(), drain.watch());
        if let Some(ready) = ready {
            drop(watch.spawn(first_tunnel(initiator.status(), ready, watch.clone())));
        }
        drop(watch.spawn(initiator.run(watch.clone())));
        Initiating { handle, drain }
    }

    pub(super) fn answer(&self, listener: admin::Listener) -> Answering {
        let what = if listener.is_read_only() { "metrics listener" } else { "admin listener" };
        info!(address = %listener.address(), "{what}");
        let (stop, state) = (CancellationToken::new(), Arc::clone(&self.state) as Arc<dyn admin::AdminState>);
        let task = tokio::spawn(admin::serve(listener, state, stop.clone()));
        Answering { stop, task }
    }
}

/// Start-up is complete when one tunnel is up, or when none is wanted any more.
async fn first_tunnel(board: StatusBoard, ready: ReadyGuard, draining: DrainWatch) {
    tokio::select! {
        () = board.first_connected() => {}
        () = draining.announced() => {}
    }
    ready.done();
}

impl Roles {
    pub(super) fn directory(&self) -> Arc<Directory<Tunnel>> {
        self.responder.as_ref().map(|responder| responder.handle.directory()).unwrap_or_default()
    }

    pub(super) fn board(&self) -> Option<StatusBoard> {
        self.initiator.as_ref().map(|initiator| initiator.handle.status())
    }

    pub(super) fn services(&self) -> Option<Services> {
        self.initiator.as_ref().map(|initiator| initiator.handle.terms().accept.clone())
    }

    /// What makes the responder leave its fleet, if it is in one.
    pub(super) fn departure(&self, lame_duck: Duration, limit: Duration) -> Option<Departure> {
        let (fleet, responder) = (self.fleet.as_ref()?, self.responder.as_ref()?);
        Some(fleet.departure(responder.handle.clone(), lame_duck, limit))
    }

    /// Stops the listeners that show what runs, the last ones of a process.
    pub(super) async fn stop_answering(self) {
        for Answering { stop, task } in [self.admin, self.metrics].into_iter().flatten() {
            stop.cancel();
            // A panic there has been reported by the runtime already.
            let _ = task.await;
        }
    }
}

impl Answering {
    /// Answers what was asked already, and no more.
    pub(super) fn stop(self) {
        self.stop.cancel();
    }
}

impl Initiating {
    /// Drains its tunnels.
    pub(super) fn stop(self, limit: Duration) {
        self.drain.begin(limit);
    }
}

impl Entrance {
    /// What makes it take nobody any more; what it carries may finish.
    pub(super) fn into_drain(self) -> Drain {
        self.drain
    }
}

impl Responding {
    /// Admits nobody any more, and drains its tunnels, after those who send requests into them, and once it has left its fleet, if
    /// it is in one.
    pub(super) fn stop(self, entrances: Vec<Drain>, belonging: Option<Belonging>, limit: Duration) {
        self.handle.close();
        for drain in &entrances {
            drain.begin(limit);
        }
        // The drain of the process waits for it, as for what it drains.
        drop(tokio::spawn(async move {
            let closed = async {
                for drain in entrances {
                    drain.drain(limit).await;
                }
            };
            let departed = async {
                if let Some(belonging) = belonging {
                    belonging.depart(limit).await;
                }
            };
            tokio::join!(closed, departed);
            self.drain.begin(limit);
        }));
    }
}
