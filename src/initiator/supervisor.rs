//! One slot: dial, serve, and dial again; at once after a healthy tunnel, with backoff after a failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::id::Place;
use crate::initiator::dialer::Initiator;
use crate::initiator::status::Change;
use crate::lifecycle::Backoff;
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::handshake::{Hello, PeerLimits};
use crate::telemetry::HandshakeFailure;
use crate::transport::{CloseReason, DialError, Dialed, Dialer, Phase, Serve, TransportKind, Tunnel};

/// A tunnel that ends sooner than this after its welcome counts as a failed attempt: a responder that admits and then
/// closes must not be dialled in a tight loop.
const SETTLED: Duration = Duration::from_secs(5);

/// The highest and lowest protocol version this build speaks. spec: HS-4
const VERSIONS: (u32, u32) = (1, 1);

/// Where one tunnel goes and which one it is.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) destination: Arc<str>,
    pub(super) address: SocketAddr,
    pub(super) server_name: String,
    pub(super) transport: TransportKind,
    pub(super) dialer: Dialer,
    /// Told of each failure, so that the name is resolved again.
    pub(super) failed: Arc<Notify>,
}

/// Keeps one slot filled until `stop` is cancelled, then drains its tunnel.
pub(super) async fn keep<S: Serve + Sync>(initiator: Initiator<S>, slot: Slot, stop: CancellationToken) {
    initiator.board.add(slot.number, Arc::clone(&slot.destination), slot.address, slot.transport);
    let mut backoff = Backoff::default();
    let mut generation = 0;
    while !stop.is_cancelled() {
        initiator.board.apply(slot.number, Change::Connecting);
        let dialed = tokio::select! {
            () = stop.cancelled() => break,
            dialed = dial(&initiator, &slot, generation) => dialed,
        };
        generation += 1;
        let pause = match dialed {
            Ok(dialed) => attend(&initiator, &slot, dialed, &stop, &mut backoff).await,
            Err(error) => Some(dial_failed(&initiator, &slot, &error, &mut backoff)),
        };
        if let Some(pause) = pause {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
    initiator.board.remove(slot.number);
}

async fn dial<S: Serve + Sync>(initiator: &Initiator<S>, slot: &Slot, generation: u64) -> Result<Dialed, DialError> {
    let settings = &initiator.settings;
    let limits = settings.quic.limits;
    let hello = Hello {
        versions: VERSIONS,
        place: Place { claim: settings.claim.clone(), instance: initiator.instance, slot: slot.number, generation },
        token: settings.token.clone(),
        services: settings.services.clone(),
        limits: PeerLimits {
            head_bytes: u32::try_from(limits.head_bytes).unwrap_or(u32::MAX),
            head_fields: u32::try_from(limits.head_fields).unwrap_or(u32::MAX),
        },
        build: concat!("adit/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let connected = slot.dialer.connect(slot.transport, slot.address, &slot.server_name).await?;
    connected.claim(&hello).await
}

/// Serves a tunnel until a replacement is due. Returns how long to wait before the next dial; `None` means at once.
async fn attend<S: Serve + Sync>(
    initiator: &Initiator<S>,
    slot: &Slot,
    dialed: Dialed,
    stop: &CancellationToken,
    backoff: &mut Backoff,
) -> Option<Duration> {
    let tunnel = dialed.tunnel.clone();
    let opened = Instant::now();
    info!(
        destination = %slot.destination, address = %slot.address, slot = slot.number, tunnel = %tunnel.id(),
        responder = dialed.welcome.responder, observed = dialed.welcome.observed, "tunnel up"
    );
    let record = initiator.metrics.opened();
    let (service, responder) = (initiator.service.clone(), dialed.welcome.responder.clone());
    let running = initiator.tasks.spawn(async move {
        let reason = dialed.run(service).await;
        record.closed(reason.code);
        reason
    });
    initiator.board.apply(slot.number, Change::Connected { tunnel: tunnel.clone(), responder });
    let ended = watch(&tunnel, running, stop, initiator.settings.quic.drain_timeout).await;
    match ended {
        Ended::Stopped => None,
        Ended::Draining(wait) => {
            let destination = &slot.destination;
            info!(%destination, slot = slot.number, after = ?wait, "the responder drains: a replacement will be dialled");
            backoff.reset();
            let reason = "the responder drained".to_owned();
            initiator.board.apply(slot.number, Change::Waiting { permanent: false, reason, advice: None, wait });
            Some(wait)
        }
        Ended::Closed(reason) => {
            slot.failed.notify_one();
            let healthy = opened.elapsed() >= SETTLED && reason.code != CloseCode::Superseded;
            if healthy {
                backoff.reset();
                let reason = text(&reason);
                warn!(destination = %slot.destination, slot = slot.number, reason, "tunnel lost: dialling again");
                initiator.board.apply(slot.number, Change::Lost { reason });
                return None;
            }
            let wait = backoff.next_delay(rand::random(), None);
            warn!(
                destination = %slot.destination, slot = slot.number, reason = %text(&reason), advice = advice(&reason),
                retry_in = ?wait, "tunnel lost"
            );
            let (permanent, advice) = (false, advice(&reason));
            initiator.board.apply(slot.number, Change::Waiting { permanent, reason: text(&reason), advice, wait });
            Some(wait)
        }
    }
}

/// Why a slot no longer attends to its tunnel.
enum Ended {
    /// This end stops: the tunnel is drained and gone.
    Stopped,
    /// The responder announced a drain; the old tunnel finishes beside its replacement.
    Draining(Duration),
    Closed(CloseReason),
}

async fn watch(
    tunnel: &Tunnel,
    running: JoinHandle<CloseReason>,
    stop: &CancellationToken,
    drain_timeout: Duration,
) -> Ended {
    let mut phase = tunnel.phase();
    loop {
        match &*phase.borrow_and_update() {
            Phase::Draining { reconnect_after } => return Ended::Draining(*reconnect_after),
            Phase::Closed(reason) => {
                let drained = tunnel.reconnect_after().filter(|_| reason.code == CloseCode::Done);
                return drained.map_or_else(|| Ended::Closed(reason.clone()), Ended::Draining);
            }
            Phase::Open | Phase::Suspect => {}
        }
        tokio::select! {
            changed = phase.changed() => if changed.is_err() {
                return Ended::Closed(CloseReason { code: CloseCode::Internal, text: "the driver is gone".into() });
            },
            () = stop.cancelled() => {
                tunnel.drain(drain_timeout, Duration::ZERO);
                // The session's drain timer bounds this wait.
                let _ = running.await;
                return Ended::Stopped;
            }
        }
    }
}

fn dial_failed<S: Serve + Sync>(
    initiator: &Initiator<S>,
    slot: &Slot,
    error: &DialError,
    backoff: &mut Backoff,
) -> Duration {
    slot.failed.notify_one();
    if backoff.failures() == 0 {
        // The schedule begins with "at once", and the dial that just failed was that.
        backoff.next_delay(0, None);
    }
    let wait = backoff.next_delay(rand::random(), error.retry_after());
    let advice = error.advice();
    warn!(
        destination = %slot.destination, address = %slot.address, slot = slot.number, %error, advice, retry_in = ?wait,
        "cannot open a tunnel"
    );
    match error {
        DialError::Refused(refusal) => initiator.metrics.refused(refusal.code),
        other => initiator.metrics.handshake_failed(failure(other)),
    }
    let change = Change::Waiting { permanent: is_permanent(error), reason: error.to_string(), advice, wait };
    initiator.board.apply(slot.number, change);
    wait
}

fn failure(error: &DialError) -> HandshakeFailure {
    match error {
        DialError::Tls(_) | DialError::Certificate(_) => HandshakeFailure::Tls,
        DialError::Timeout { .. } => HandshakeFailure::Timeout,
        _ => HandshakeFailure::Protocol,
    }
}

/// Whether waiting alone will not help. Still retried: the operator of the other end may change something.
fn is_permanent(error: &DialError) -> bool {
    match error {
        DialError::Refused(refusal) => !matches!(refusal.code, RefusalCode::Quota | RefusalCode::Unavailable),
        error => error.is_answer(),
    }
}

fn text(reason: &CloseReason) -> String {
    if reason.text.is_empty() { reason.code.to_string() } else { format!("{}: {}", reason.code, reason.text) }
}

fn advice(reason: &CloseReason) -> Option<&'static str> {
    (reason.code == CloseCode::Superseded)
        .then_some("another process runs with this node's certificate and name; stop one of the two")
}
