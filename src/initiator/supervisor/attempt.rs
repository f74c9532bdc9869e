//! One attempt as a task: connect, wait for the claim, claim, then serve and watch the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::{Instrument, Span};

use super::credential::Credential;
use super::told::Told;
use super::{Shared, Slot};
use crate::id::ResponderId;
use crate::initiator::auto::Attempt;
use crate::initiator::snapshot::{Prepared, Serving};
use crate::protocol::code::CloseCode;
use crate::protocol::handshake::{Hello, PeerLimits, Service};
use crate::protocol::reauth::Reauthed;
use crate::protocol::roster::Roster;
use crate::transport::{Accept, CloseReason, DialError, Dialed, Dialer, Phase, TransportKind, Tunnel};

/// What a task of a slot says.
pub(super) struct Report {
    pub(super) attempt: Attempt,
    pub(super) happened: Happened,
}

pub(super) enum Happened {
    /// It waits for its claim.
    Connected,
    /// WELCOME came.
    Opened(Box<Opened>),
    /// It ended before that.
    Failed(DialError),
    Suspect,
    /// It was suspect, or is new.
    Alive,
    /// The responder wants a replacement, not before this much time.
    Draining(Duration),
    /// One that the responder drained is over, as agreed or not.
    Gone {
        agreed: bool,
    },
    /// The responder says who is in its fleet; `None`: it is in none any more.
    Roster(Option<Roster>),
    /// The responder has judged a credential that it was shown.
    Reauthed(Reauthed),
    Closed(CloseReason),
}

/// A tunnel, and what WELCOME said beside it.
pub(super) struct Opened {
    pub(super) tunnel: Tunnel,
    pub(super) responder: String,
    pub(super) observed: Option<String>,
    /// Which responders of its fleet there are.
    pub(super) roster: Option<Roster>,
    /// How what is shown later may be signed, where it may be shown.
    pub(super) schemes: Option<Vec<u16>>,
}

impl Happened {
    /// Nobody wants it any more: a tunnel that came too late is ended.
    pub(super) fn too_late(self) {
        if let Self::Opened(opened) = self {
            opened.tunnel.close(CloseCode::Done, "not needed");
        }
    }
}

/// What is known of a task.
pub(super) struct Candidate {
    pub(super) stage: Stage,
    /// Sends HELLO; dropped unused, it lets the connection go.
    claim: Option<oneshot::Sender<Hello>>,
    task: AbortHandle,
    /// Whom of a fleet it leads to.
    pub(super) responder: Option<ResponderId>,
    /// What the responder was told last that is taken of message heads.
    pub(super) limits: PeerLimits,
    /// What the responder was told last that is exported here.
    pub(super) services: Vec<Service>,
    /// What the responder was told last of those that are down.
    pub(super) health: Told,
    /// What it shows.
    pub(super) credential: Credential,
}

/// Where an attempt goes.
pub(super) struct Way<'a> {
    pub(super) slot: &'a Slot,
    pub(super) prepared: &'a Arc<Prepared>,
    pub(super) over: TransportKind,
    /// The round trip of the tunnel that was there until a moment ago.
    pub(super) rtt: Option<Duration>,
}

/// What a task needs of a [`Way`].
struct Route {
    dialer: Dialer,
    address: SocketAddr,
    server_name: String,
    over: TransportKind,
}

impl Route {
    fn of(way: &Way<'_>) -> Self {
        let Prepared { dialer, destination, .. } = &**way.prepared;
        let dialer = way.rtt.map_or_else(|| dialer.clone(), |rtt| dialer.expecting(rtt));
        let server_name = destination.server_name();
        Self { dialer, address: way.slot.address, server_name, over: way.over }
    }
}

pub(super) enum Stage {
    Connecting,
    Waiting,
    /// HELLO is in the air, for this number.
    Claiming {
        number: u32,
    },
    Up(Tunnel),
}

impl Candidate {
    /// Begins.
    pub(super) fn connect<A: Accept>(
        shared: &Shared<A>,
        way: &Way<'_>,
        limits: PeerLimits,
        attempt: Attempt,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let (claim, claimed) = oneshot::channel();
        let (route, credential) = (Route::of(way), Credential::dialled(way.prepared));
        let (shared, reports) = (shared.clone(), Reports { attempt, reports });
        let task = shared.tasks.clone().spawn(async move {
            // Boxed: a tunnel lives long, and should not keep the room that its handshake took.
            let dialed = Box::pin(dial(route, claimed, &reports)).await;
            match dialed {
                Some(Ok(dialed)) => attend(shared, *dialed, reports).await,
                Some(Err(error)) => reports.say(Happened::Failed(error)).await,
                None => {}
            }
        });
        let task = task.abort_handle();
        Self {
            stage: Stage::Connecting,
            claim: Some(claim),
            task,
            responder: None,
            limits,
            services: Vec::new(),
            health: Told::default(),
            credential,
        }
    }

    /// Sends HELLO, which names this number.
    pub(super) fn claim(&mut self, hello: Hello, number: u32) {
        self.stage = Stage::Claiming { number };
        self.services.clone_from(&hello.services);
        self.credential.claimed(hello.token.clone());
        if let Some(claim) = self.claim.take() {
            // A task that is gone has reported why.
            let _ = claim.send(hello);
        }
    }

    /// Ends it, whatever it is.
    pub(super) fn abandon(self) {
        match self.stage {
            // The task says goodbye once it notices that no claim will come.
            Stage::Waiting => drop(self.claim),
            Stage::Connecting | Stage::Claiming { .. } => self.task.abort(),
            Stage::Up(tunnel) => tunnel.close(CloseCode::Superseded, "a newer tunnel took its place"),
        }
    }
}

/// Where one task reports to.
struct Reports {
    attempt: Attempt,
    reports: mpsc::Sender<Report>,
}

impl Reports {
    /// Says so; whether anybody listens, the task learns elsewhere.
    async fn say(&self, happened: Happened) {
        let _ = self.reports.send(Report { attempt: self.attempt, happened }).await;
    }
}

/// Connects, waits for the claim and makes it. `None`: nobody wants it any more.
async fn dial(
    Route { dialer, address, server_name, over }: Route,
    claimed: oneshot::Receiver<Hello>,
    reports: &Reports,
) -> Option<Result<Box<Dialed>, DialError>> {
    let mut connected = match dialer.connect(over, address, &server_name).await {
        Ok(connected) => connected,
        Err(error) => return Some(Err(error)),
    };
    reports.say(Happened::Connected).await;
    let claimed = tokio::select! {
        claimed = claimed => claimed,
        error = connected.closed() => return Some(Err(error)),
    };
    let Ok(hello) = claimed else {
        connected.give_up().await;
        return None;
    };
    Some(connected.claim(&hello).await.map(Box::new))
}

/// Serves a tunnel, and reports on it until it drains or is gone.
async fn attend<A: Accept>(shared: Shared<A>, dialed: Dialed, reports: Reports) {
    let (tunnel, welcome) = (dialed.tunnel.clone(), &dialed.welcome);
    let (responder, observed) = (welcome.responder.clone(), welcome.observed.clone());
    let (roster, schemes) = (welcome.roster.clone(), welcome.reauth.clone());
    let opened = Opened { tunnel: tunnel.clone(), responder, observed, roster, schemes };
    let Ok(room) = reports.reports.reserve().await else { return };
    let record = shared.metrics.opened(tunnel.transport().label());
    tunnel.count_streams(shared.metrics.streams());
    let accept = Serving(Arc::clone(&shared.state));
    let run = async move {
        let reason = dialed.run(accept).await;
        tracing::debug!(code = %reason.code, reason = reason.text, "tunnel down");
        record.closed(reason.code);
    };
    shared.tasks.spawn(run.instrument(span(&tunnel)));
    drop(shared);
    room.send(Report { attempt: reports.attempt, happened: Happened::Opened(Box::new(opened)) });
    watch(&tunnel, &reports).await;
}

/// What is logged of one tunnel stands in it.
fn span(tunnel: &Tunnel) -> Span {
    let claim = &tunnel.place().claim;
    tracing::info_span!(
        "tunnel",
        node = %claim.node,
        cluster = %claim.cluster,
        tenant = %claim.tenant,
        transport = %tunnel.transport(),
        tunnel = %tunnel.id(),
    )
}

async fn watch(tunnel: &Tunnel, reports: &Reports) {
    let (mut phase, mut drains) = (tunnel.phase(), false);
    loop {
        let current = phase.borrow_and_update().clone();
        match current {
            Phase::Open | Phase::Unproven => reports.say(Happened::Alive).await,
            Phase::Suspect => reports.say(Happened::Suspect).await,
            Phase::Draining { reconnect_after } => {
                reports.say(Happened::Draining(reconnect_after)).await;
                drains = true;
            }
            Phase::Closed(reason) if drains => {
                return reports.say(Happened::Gone { agreed: reason.code == CloseCode::Done }).await;
            }
            Phase::Closed(reason) => {
                // One without exchanges closes before anybody saw it drain.
                let drained = tunnel.reconnect_after().filter(|_| reason.code == CloseCode::Done);
                return reports.say(drained.map_or(Happened::Closed(reason), Happened::Draining)).await;
            }
        }
        let changed = loop {
            tokio::select! {
                changed = phase.changed() => break changed,
                reauthed = tunnel.reauthed() => reports.say(Happened::Reauthed(reauthed)).await,
                roster = tunnel.roster() => reports.say(Happened::Roster(roster)).await,
            }
        };
        if changed.is_err() {
            let reason = CloseReason { code: CloseCode::Internal, text: "the driver is gone".into() };
            return reports.say(Happened::Closed(reason)).await;
        }
    }
}
