//! One connection's way from "incoming" to a registered tunnel, or to a numbered refusal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::policy::Admitted;
use crate::protocol::VERSION;
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::envoy::{Counter, Rejection};
use crate::protocol::handshake::{Refusal, Welcome};
use crate::responder::admission::{Came, NotEntered};
use crate::responder::renewal::renew;
use crate::responder::roster::Telling;
use crate::responder::shared::Shared;
use crate::responder::standing::{Fall, Standing};
use crate::responder::terms::Terms;
use crate::telemetry::HandshakeFailure;
use crate::tls;
use crate::transport::quic::new_tunnel_id;
use crate::transport::{
    AcceptError, CloseReason, Incoming, Pending, Phase, Prepared, TransportKind, Tunnel, TunnelSettings,
};

/// Runs one connection to its end.
pub(super) async fn admit(shared: Arc<Shared>, incoming: Incoming) {
    let (remote, transport) = (incoming.remote(), incoming.transport());
    let trust = shared.admission.trust();
    let begun = Begun { generation: incoming.generation(), terms: shared.admission.terms(), trust };
    let pending = match incoming.handshake().await {
        Ok(pending) => pending,
        Err(error) => return turned_away(&shared, remote, transport, &error),
    };
    let claim = pending.claimant.hello.place.claim.clone();
    let transport = pending.transport();
    let span = info_span!("tunnel", node = %claim.node, cluster = %claim.cluster, tenant = %claim.tenant, %transport);
    run(shared, pending, begun).instrument(span).await;
}

/// What held when a connection came.
struct Begun {
    /// Of what it was accepted with.
    generation: u64,
    terms: Arc<Terms>,
    /// Tells of other trust than that of `terms`.
    trust: watch::Receiver<u64>,
}

impl Begun {
    fn came(&self, pending: &Pending) -> Came {
        Came { generation: self.generation, is_envoy: pending.transport() == TransportKind::Envoy }
    }
}

async fn run(shared: Arc<Shared>, pending: Pending, begun: Begun) {
    let remote = pending.claimant.remote;
    let slot = pending.claimant.hello.place.slot;
    let is_envoy = pending.transport() == TransportKind::Envoy;
    let standing = Standing::new(pending.claimant.certificates.clone(), &begun.terms, begun.trust.clone());
    match register(&shared, pending, begun) {
        Ok((prepared, mut welcome)) => {
            let tunnel = prepared.tunnel().clone();
            let gone_for = shared.gone.came_back(&tunnel.place().claim);
            info!(%remote, slot, tunnel = %tunnel.id(), gone_for = gone_for.as_ref().map(tracing::field::debug), "tunnel up");
            let record = shared.metrics.opened(tunnel.transport().label());
            tunnel.count_streams(shared.metrics.streams());
            tunnel.share(Arc::clone(shared.admission.directory().shares()));
            if is_envoy {
                shared.metrics.envoy_handshake(Counter::Accepted);
            }
            let (roster, telling) = shared.rosters.begin(&tunnel.place().claim);
            welcome.roster = roster;
            let driver = prepared.welcome(welcome);
            let reason = attend(&shared, &tunnel, (standing, telling), driver).await;
            let registry = shared.admission.directory().registry();
            registry.remove(tunnel.id(), Instant::now());
            record.closed(reason.code);
            let claim = &tunnel.place().claim;
            shared.gone.ended(claim, tunnel.snapshot().exchanges);
            if registry.counts(claim).node == 0 {
                shared.gone.left(claim, &reason, SystemTime::now());
                // It may have come back meanwhile, before there was anything to take back.
                if registry.counts(claim).node > 0 {
                    shared.gone.came_back(claim);
                }
            }
            down(&tunnel, slot, remote, &reason);
        }
        Err((refused, refusal)) => {
            shared.metrics.refused(refusal.code);
            if let Some(counter) = Rejection::from(refusal.clone()).counter().filter(|_| is_envoy) {
                shared.metrics.envoy_handshake(counter);
            }
            warn!(%remote, slot, code = refusal.code.number(), reason = refusal.reason, "no tunnel: refused");
            match refused {
                Refused::Pending(pending) => pending.refuse(&refusal).await,
                Refused::Prepared(prepared) => prepared.refuse(&refusal).await,
            }
        }
    }
}

/// A tunnel that ended as one of its ends wanted is worth a line; one that was lost is worth a look.
fn down(tunnel: &Tunnel, slot: u32, remote: SocketAddr, reason: &CloseReason) {
    let (id, code, text) = (tunnel.id(), reason.code, &reason.text);
    match code {
        CloseCode::Done | CloseCode::Superseded => {
            info!(%remote, slot, tunnel = %id, %code, reason = text, "tunnel down");
        }
        _ => warn!(%remote, slot, tunnel = %id, %code, reason = text, "tunnel down"),
    }
}

/// The connection to say no on.
enum Refused {
    Pending(Box<Pending>),
    Prepared(Box<Prepared>),
}

fn register(shared: &Shared, pending: Pending, begun: Begun) -> Result<(Prepared, Welcome), (Refused, Refusal)> {
    let admitted = match authorize(shared, &pending, &begun) {
        Ok(admitted) => admitted,
        Err(refusal) => return Err((Refused::Pending(Box::new(pending)), refusal)),
    };
    let (observed, came) = (pending.claimant.remote.to_string(), begun.came(&pending));
    let prepared = pending.prepare(new_tunnel_id());
    let tunnel = prepared.tunnel().clone();
    match shared.admission.enter(admitted, came, tunnel.id(), tunnel.clone()) {
        Ok(inserted) => {
            supersede(inserted.superseded);
            Ok((prepared, welcome(&begun.terms, &tunnel, observed)))
        }
        Err(NotEntered { refusal, superseded }) => {
            supersede(superseded);
            Err((Refused::Prepared(Box::new(prepared)), refusal))
        }
    }
}

fn supersede(tunnels: Vec<Tunnel>) {
    for old in tunnels {
        debug!(old = %old.id(), "superseded");
        old.close(CloseCode::Superseded, "a newer tunnel took its place");
    }
}

fn authorize(shared: &Shared, pending: &Pending, begun: &Begun) -> Result<Admitted, Refusal> {
    let hello = &pending.claimant.hello;
    let identity = tls::peer_identity(&pending.claimant.certificates).map_err(|error| Refusal {
        code: RefusalCode::Unauthenticated,
        reason: error.to_string(),
        retry_after: None,
    })?;
    shared.admission.authorize(hello.place.clone(), &identity, hello.token.as_deref(), begun.came(pending))
}

/// Counts and tells why there was no claim to decide about.
fn turned_away(shared: &Shared, remote: SocketAddr, transport: TransportKind, error: &AcceptError) {
    if let Some(counter) = error.envoy_counter() {
        shared.metrics.envoy_handshake(counter);
    }
    let failure = match error {
        AcceptError::Refused(refusal) => {
            shared.metrics.refused(refusal.code);
            return warn!(%remote, %transport, code = refusal.code.number(), reason = refusal.reason, "no tunnel: refused");
        }
        AcceptError::Rejected(rejection) => {
            shared.metrics.refused(rejection.refusal());
            let code = rejection.status();
            return warn!(%remote, transport = "envoy", code, reason = %rejection, "no tunnel: rejected");
        }
        AcceptError::GivenUp => return debug!(%remote, %transport, %error, "no tunnel"),
        AcceptError::Tls(_) => HandshakeFailure::Tls,
        AcceptError::Timeout { .. } => HandshakeFailure::Timeout,
        AcceptError::GaveWay(_) => HandshakeFailure::GaveWay,
        AcceptError::Connection(_) | AcceptError::Hello(_) => HandshakeFailure::Protocol,
    };
    shared.metrics.handshake_failed(failure);
    if let Some(left_out) = shared.warnings.pass(failure, Instant::now()) {
        warn!(%remote, %transport, %error, left_out, "no tunnel: the handshake failed");
    }
}

fn welcome(terms: &Terms, tunnel: &Tunnel, observed: String) -> Welcome {
    let TunnelSettings { limits, timing, .. } = terms.tunnel;
    Welcome {
        version: VERSION,
        tunnel: tunnel.id(),
        responder: terms.name.clone(),
        observed: Some(observed),
        limits: limits.into(),
        keepalive: timing.keepalive_interval,
        idle: timing.idle_timeout,
        reauth: Some(tls::signature_schemes()),
        roster: None,
    }
}

/// Drains a tunnel that was admitted and would not be now. Nobody waits for its end: what runs has its time.
fn let_go(shared: &Shared, tunnel: &Tunnel, fall: &Fall) {
    match fall {
        Fall::Ended => {
            warn!(tunnel = %tunnel.id(), "the certificate that admitted this tunnel has ended: draining it");
        }
        Fall::NotAccepted(reason) => {
            shared.metrics.refused(RefusalCode::Forbidden);
            warn!(tunnel = %tunnel.id(), reason, "the certificate that admitted this tunnel is not accepted any more: draining it");
        }
    }
    tunnel.retire(shared.admission.terms().tunnel.drain_timeout);
}

/// Drives the tunnel to its end, and says why it ended. Meanwhile it is taken out of the choice as soon as it drains, drained
/// when what admitted it has ended or is not accepted any more (spec: SE-40, SE-42), and asked again when it shows another
/// credential (spec: CT-55), and told of the fleet (spec: CT-62) and of other limits (spec: CT-31); requests that wait for it are woken when it opens, is suspect or lives again. Dropped, it leaves the tunnel undriven.
async fn attend(
    shared: &Shared,
    tunnel: &Tunnel,
    (mut standing, mut telling): (Standing, Telling),
    driver: impl Future<Output = CloseReason>,
) -> CloseReason {
    let mut driver = std::pin::pin!(driver);
    let mut phase = tunnel.phase();
    // A tunnel of an Envoy begins as suspect, and its proof is nothing to tell anybody.
    let mut was_suspect = false;
    let mut welcomed = std::pin::pin!(tunnel.welcomed());
    let mut is_open = false;
    let mut limits = shared.admission.limits();
    // They may have changed during the handshake.
    tunnel.limit(*limits.borrow_and_update());
    loop {
        tokio::select! {
            reason = &mut driver => return reason,
            fall = standing.fallen(&shared.admission) => let_go(shared, tunnel, &fall),
            () = telling.due() => telling.tell(tunnel),
            Ok(()) = limits.changed() => tunnel.limit(*limits.borrow_and_update()),
            reauth = tunnel.shown() => renew(shared, tunnel, &mut standing, reauth),
            // Requests may have come while it was registered and not open. spec: HS-38
            () = &mut welcomed, if !is_open => {
                is_open = true;
                shared.admission.directory().ring(&tunnel.place().claim);
            }
            changed = phase.changed() => {
                let current = phase.borrow_and_update().clone();
                match current {
                    Phase::Draining { .. } => {
                        info!(tunnel = %tunnel.id(), in_flight = tunnel.snapshot().in_flight, "tunnel draining");
                        shared.admission.directory().registry().leave(tunnel.id());
                    }
                    Phase::Suspect => {
                        was_suspect = true;
                        warn!(tunnel = %tunnel.id(), "tunnel suspect: the initiator owes an answer");
                        shared.admission.directory().ring(&tunnel.place().claim);
                    }
                    Phase::Open if std::mem::take(&mut was_suspect) => {
                        info!(tunnel = %tunnel.id(), "tunnel alive again");
                        shared.admission.directory().ring(&tunnel.place().claim);
                    }
                    Phase::Open => debug!(tunnel = %tunnel.id(), "tunnel proven"),
                    Phase::Unproven | Phase::Closed(_) => {}
                }
                if changed.is_err() {
                    return driver.await;
                }
            }
        }
    }
}
