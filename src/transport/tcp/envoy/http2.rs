//! A tunnel in use: HTTP/2 whose client is the responder, watched, drained and ended by its driver. spec: EV-40, EV-43

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::net::{Cork, Corked};
use crate::protocol::code::CloseCode;
use crate::protocol::control::NOT_HEARD;
use crate::protocol::envoy::{InUse, InUseOutput, PingSettings};
use crate::protocol::goaway::GoawayWatch;
use crate::protocol::http2::Unserved;
use crate::registry::Health;
use crate::transport::arrival::Accept;
use crate::transport::control::Command;
use crate::transport::credit::balance;
use crate::transport::kind::Dialect;
use crate::transport::state::{CloseReason, Phase, TunnelState};
use crate::transport::tcp::connection::Starter;
use crate::transport::tcp::control::{Carrier, ended};
use crate::transport::tcp::envoy::entropy;
use crate::transport::tcp::envoy::idle::{Awake, reason};
use crate::transport::tcp::envoy::pings::Pings;
use crate::transport::tcp::serve::{accept_one, hearing};
use crate::transport::tcp::settings::{Http2Wire, Settings};
use crate::transport::tcp::window::{Window, drive};
use crate::transport::tcp::wire::{Meter, Wire};

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
        let (wire, cork) = Corked::new(settings.guarded(wire, state));
        let (sender, mut connection) = match settings.http2_client(Dialect::Envoy).handshake(wire).await {
            Ok(started) => started,
            Err(error) => return ended(&error),
        };
        let mut pings = Pings::new(connection.ping_pong());
        let (window, wanted) = Window::new(&settings.tcp);
        let mut balance = pin!(balance(state.credit(), window.lend()));
        let carrier = Carrier::run(async move {
            match drive(connection, cork, wanted).await {
                Ok(()) => reason(CloseCode::Done, "the connection ended"),
                Err(error) => ended(&error),
            }
        });
        let mut tunnel = InUse::new(Instant::now(), ping, meter.received(), entropy());
        match awake {
            Awake::Request => starter.begin(sender),
            Awake::Drain(drain) => {
                drop(sender);
                tunnel.drain(Instant::now(), drain);
                tunnel.hurry();
            }
        }
        let (reason, farewell) = loop {
            let done = act(&mut tunnel, &mut pings, state);
            if let Some((reason, farewell)) = done.end {
                break (reason, farewell);
            }
            tokio::select! {
                gone = carrier.gone() => return gone,
                never = &mut balance => match never {},
                () = goaway.cancelled(), if !tunnel.is_draining() => tunnel.peer_drains(Instant::now()),
                answered = pings.answered() => answer(&mut tunnel, answered),
                () = due(tunnel.deadline()) => tunnel.timeout(Instant::now(), meter.received(), entropy()),
                command = commands.recv() => obey(&mut tunnel, command, state),
                () = state.idle(), if tunnel.is_draining() => tunnel.idle(),
            }
        };
        // Without a handle on it, HTTP/2 says GOAWAY and ends. spec: EV-43
        starter.end();
        if farewell {
            carrier.stop()
        } else {
            carrier.abort()
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
        let unserved = Arc::<Unserved>::default();
        let (wire, goaway) = wire.metered(Arc::clone(&meter)).watched(GoawayWatch::of_client());
        let (wire, cork) = Corked::new(settings.guarded_server(wire, state, &unserved));
        let mut connection =
            match settings.http2_server(Dialect::Envoy).enable_connect_protocol().handshake::<_, Bytes>(wire).await {
                Ok(connection) => connection,
                Err(error) => return ended(&error),
            };
        let mut pings = Pings::new(connection.ping_pong());
        let mut tunnel = InUse::new(Instant::now(), ping, meter.received(), entropy());
        let (window, mut wanted) = Window::new(&settings.tcp);
        let mut balance = pin!(balance(state.credit(), window.lend()));
        loop {
            let done = act(&mut tunnel, &mut pings, state);
            if let Some((reason, farewell)) = done.end {
                if farewell {
                    abandon(&mut connection, &cork).await;
                }
                return reason;
            }
            if done.announce {
                connection.graceful_shutdown();
            }
            tokio::select! {
                accepted = hearing(cork.next(connection.accept()), &unserved, state, &accept) => match accepted {
                    Some(Ok((request, respond))) => {
                        unserved.taken(respond.stream_id().into());
                        accept_one(request, respond, state, &accept, Dialect::Envoy);
                    }
                    Some(Err(error)) => return ended(&error),
                    None => tunnel.ended_by_peer(Instant::now(), goaway.is_cancelled()),
                },
                size = wanted.changed() => connection.set_target_window_size(size),
                never = &mut balance => match never {},
                () = goaway.cancelled(), if !tunnel.is_draining() => tunnel.peer_drains(Instant::now()),
                answered = pings.answered() => answer(&mut tunnel, answered),
                () = due(tunnel.deadline()) => tunnel.timeout(Instant::now(), meter.received(), entropy()),
                command = commands.recv() => obey(&mut tunnel, command, state),
            }
        }
    }
}

/// What the machine wanted done that is not the same for both ends.
#[derive(Default)]
struct Done {
    /// The other end is to be told of a drain.
    announce: bool,
    /// How the tunnel ended, and whether the other end is to be told.
    end: Option<(CloseReason, bool)>,
}

/// Does what the machine says.
fn act(tunnel: &mut InUse, pings: &mut Pings, state: &TunnelState) -> Done {
    let mut done = Done::default();
    while let Some(output) = tunnel.poll() {
        match output {
            InUseOutput::SendPing => pings.send(),
            InUseOutput::Rtt(rtt) => state.measure_rtt(rtt),
            InUseOutput::Suspect => state.advance(Phase::Suspect),
            InUseOutput::Alive => state.advance(Phase::Open),
            InUseOutput::Drain { reconnect_after, announce } => {
                state.advance(Phase::Draining { reconnect_after });
                done.announce |= announce;
            }
            InUseOutput::End { code, reason: text, farewell } => done.end = Some((reason(code, &text), farewell)),
        }
    }
    done
}

/// Tells the machine what its owner asked for; `None`: there is no owner any more.
fn obey(tunnel: &mut InUse, command: Option<Command>, state: &TunnelState) {
    match command {
        Some(Command::Drain(_)) if state.health() == Health::Suspect => tunnel.close(CloseCode::Idle, NOT_HEARD),
        Some(Command::Drain(drain)) => {
            tunnel.drain(Instant::now(), drain);
            tunnel.hurry();
        }
        Some(Command::Retire(drain)) => tunnel.drain(Instant::now(), drain),
        // An Envoy cannot be told what it does not ask for, and is pinged as it is.
        // An Envoy knows neither.
        Some(
            Command::Leave(_)
            | Command::Services(_)
            | Command::Health(_)
            | Command::Probe
            | Command::Reauth(_)
            | Command::Reauthed(_)
            | Command::Roster(_),
        ) => {}
        Some(Command::Close(reason)) => tunnel.close(reason.code, &reason.text),
        None => tunnel.close(CloseCode::Done, "released"),
    }
}

/// Tells the machine that a ping came back, or that none will.
fn answer(tunnel: &mut InUse, answered: bool) {
    if answered {
        tunnel.pong(Instant::now());
    } else {
        tunnel.stop_pings();
    }
}

async fn due(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Says GOAWAY, as far as the socket takes it at once.
async fn abandon(connection: &mut server::Connection<Corked<Http2Wire>, Bytes>, cork: &Cork<Http2Wire>) {
    connection.abrupt_shutdown(h2::Reason::NO_ERROR);
    let last = cork.run(std::future::poll_fn(|cx| connection.poll_closed(cx)));
    // A peer that does not listen is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(1), last).await;
}
