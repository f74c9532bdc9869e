//! A tunnel in use: HTTP/2 whose client is the responder, watched, drained and ended by its driver. spec: EV-40, EV-43

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::net::{Cork, Corked};
use crate::protocol::code::CloseCode;
use crate::protocol::envoy::PingSettings;
use crate::protocol::goaway::GoawayWatch;
use crate::protocol::limits::DEFAULT_DRAIN_DEADLINE;
use crate::protocol::session::Drain;
use crate::transport::arrival::Accept;
use crate::transport::control::Command;
use crate::transport::state::{CloseReason, Phase, TunnelState};
use crate::transport::tcp::accept::builder as client_builder;
use crate::transport::tcp::connection::Starter;
use crate::transport::tcp::control::{Carrier, ended};
use crate::transport::tcp::dial::builder as server_builder;
use crate::transport::tcp::envoy::idle::{Awake, reason};
use crate::transport::tcp::envoy::pings::Pings;
use crate::transport::tcp::serve::accept_one;
use crate::transport::tcp::settings::Settings;
use crate::transport::tcp::wire::{Meter, Wire};

/// When a drain that began must be over.
#[derive(Debug, Default)]
struct Draining(Option<Instant>);

impl Draining {
    /// Begins, or moves an end that is later nearer.
    fn begin(&mut self, state: &TunnelState, drain: Drain) {
        state.advance(Phase::Draining { reconnect_after: drain.reconnect_after });
        let ends = Instant::now() + drain.deadline;
        self.0 = Some(self.0.map_or(ends, |earlier| earlier.min(ends)));
    }

    fn is_on(&self) -> bool {
        self.0.is_some()
    }

    async fn over(&self) {
        match self.0 {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// The other end wants to stop and does not say by when: what runs may finish, and a replacement is due at once.
const PEER_DRAINS: Drain = Drain { deadline: DEFAULT_DRAIN_DEADLINE, reconnect_after: Duration::ZERO };

/// The responder's end.
pub(super) struct Responder<'a> {
    pub(super) state: &'a Arc<TunnelState>,
    pub(super) starter: Starter,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) meter: Arc<Meter>,
    pub(super) settings: Settings,
    pub(super) ping: PingSettings,
}

impl Responder<'_> {
    /// Begins HTTP/2 and drives it until the tunnel is gone.
    pub(super) async fn run(self, wire: Wire, awake: Awake) -> CloseReason {
        let Self { state, starter, mut commands, meter, settings, ping } = self;
        let (wire, goaway) = wire.metered(Arc::clone(&meter)).watched(GoawayWatch::of_server());
        let (wire, cork) = Corked::new(wire);
        let (sender, mut connection) = match client_builder(&settings).handshake(wire).await {
            Ok(started) => started,
            Err(error) => return ended(&error),
        };
        let mut pings = Pings::new(ping, connection.ping_pong(), meter);
        let carrier = Carrier::run(async move {
            match cork.run(connection).await {
                Ok(()) => reason(CloseCode::Done, "the connection ended"),
                Err(error) => ended(&error),
            }
        });
        let mut draining = Draining::default();
        match awake {
            Awake::Request => starter.begin(sender),
            Awake::Drain(drain) => {
                drop(sender);
                draining.begin(state, drain);
            }
        }
        let reason = loop {
            tokio::select! {
                gone = carrier.gone() => return gone,
                () = goaway.cancelled(), if !draining.is_on() => draining.begin(state, PEER_DRAINS),
                watched = pings.next(state) => if let Err(dead) = watched { break dead },
                command = commands.recv() => match command {
                    Some(Command::Drain(drain)) => draining.begin(state, drain),
                    Some(Command::Services(_)) => {}
                    Some(Command::Close(closed)) => break closed,
                    None => break reason(CloseCode::Done, "released"),
                },
                () = state.idle(), if draining.is_on() => break reason(CloseCode::Done, "drained"),
                () = draining.over() => break reason(CloseCode::Done, "the drain deadline passed"),
            }
        };
        // Without a handle on it, HTTP/2 says GOAWAY and ends. spec: EV-43
        starter.end();
        if reason.code == CloseCode::Idle {
            carrier.abort()
        } else {
            carrier.stop()
        }
        reason
    }
}

/// The initiator's end.
pub(super) struct Initiator<'a, A> {
    pub(super) state: &'a Arc<TunnelState>,
    pub(super) commands: &'a mut mpsc::Receiver<Command>,
    pub(super) meter: Arc<Meter>,
    pub(super) settings: Settings,
    pub(super) ping: PingSettings,
    pub(super) accept: A,
}

impl<A: Accept> Initiator<'_, A> {
    /// Serves HTTP/2 until the tunnel is gone.
    pub(super) async fn run(self, wire: Wire) -> CloseReason {
        let Self { state, commands, meter, settings, ping, accept } = self;
        let (wire, goaway) = wire.metered(Arc::clone(&meter)).watched(GoawayWatch::of_client());
        let (wire, cork) = Corked::new(wire);
        let mut connection = match server_builder(&settings).handshake::<_, Bytes>(wire).await {
            Ok(connection) => connection,
            Err(error) => return ended(&error),
        };
        let mut pings = Pings::new(ping, connection.ping_pong(), meter);
        let mut draining = Draining::default();
        loop {
            tokio::select! {
                accepted = cork.run(connection.accept()) => match accepted {
                    Some(Ok((request, respond))) => {
                        accept_one(request, respond, state, settings.tunnel.limits, &accept, false);
                    }
                    Some(Err(error)) => return ended(&error),
                    None if draining.is_on() || goaway.is_cancelled() => {
                        // An idle responder closes right behind its GOAWAY, and both may be seen at once. spec: EV-46
                        draining.begin(state, PEER_DRAINS);
                        return reason(CloseCode::Done, "drained");
                    }
                    None => return reason(CloseCode::Done, "the responder ended the connection"),
                },
                () = goaway.cancelled(), if !draining.is_on() => draining.begin(state, PEER_DRAINS),
                watched = pings.next(state) => if let Err(dead) = watched { return dead },
                command = commands.recv() => match command {
                    Some(Command::Drain(drain)) => {
                        draining.begin(state, drain);
                        connection.graceful_shutdown();
                    }
                    Some(Command::Services(_)) => {}
                    Some(Command::Close(closed)) => {
                        abandon(&mut connection, &cork).await;
                        return closed;
                    }
                    None => return reason(CloseCode::Done, "released"),
                },
                () = draining.over() => {
                    abandon(&mut connection, &cork).await;
                    return reason(CloseCode::Done, "the drain deadline passed");
                }
            }
        }
    }
}

/// Says GOAWAY, as far as the socket takes it at once.
async fn abandon(connection: &mut server::Connection<Corked<Wire>, Bytes>, cork: &Cork<Wire>) {
    connection.abrupt_shutdown(h2::Reason::NO_ERROR);
    let last = cork.run(std::future::poll_fn(|cx| connection.poll_closed(cx)));
    // A peer that does not listen is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(1), last).await;
}
