//! What a slot's failures mean to the machine, to metrics and to whoever reads the log.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::Slot;
use crate::initiator::auto::{Attempt, Failure};
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::telemetry::HandshakeFailure;
use crate::transport::{CloseReason, DialError, TransportKind, Tunnel};

/// Why a slot has no tunnel, as the status board shows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Cause {
    /// Waiting alone will not help. Still retried: the operator of the other end may change something.
    pub(super) permanent: bool,
    pub(super) reason: String,
    pub(super) advice: Option<&'static str>,
    /// It is of an earlier round of attempts.
    pub(super) shown: bool,
    /// How much it says: words of the other end more than silence.
    weight: u8,
}

impl Cause {
    /// Of several attempts that failed, the one that says most counts.
    pub(super) fn note(&mut self, other: Self) {
        if self.shown || other.weight >= self.weight {
            *self = other;
        }
    }

    pub(super) fn of_dial(error: &DialError) -> Self {
        let permanent = match error {
            DialError::Refused(refusal) => !matches!(refusal.code, RefusalCode::Quota | RefusalCode::Unavailable),
            DialError::Busy => false,
            error => error.is_answer(),
        };
        let weight = match error {
            DialError::Refused(_) | DialError::Certificate(_) => 2,
            DialError::Busy | DialError::Tls(_) | DialError::Protocol(_) | DialError::Envoy(_) => 1,
            DialError::Address(_) | DialError::Timeout { .. } | DialError::Connection(_) => 0,
        };
        Self { permanent, reason: error.to_string(), advice: error.advice(), shown: false, weight }
    }

    pub(super) fn of_drain() -> Self {
        Self { reason: "the responder drained".to_owned(), ..Self::default() }
    }

    pub(super) fn of_close(reason: &CloseReason) -> Self {
        Self { reason: text(reason), advice: advice(reason), ..Self::default() }
    }
}

/// What a failed dial means for the choice of transport. spec: TB-21, TB-23
pub(super) fn dial_failure(error: &DialError) -> Failure {
    if error.is_answer() {
        Failure::refused(error.retry_after(), error.to_string())
    } else {
        Failure::transport(error.to_string())
    }
}

/// The same for a tunnel that ended.
pub(super) fn close_failure(reason: &CloseReason) -> Failure {
    match reason.code {
        CloseCode::Superseded | CloseCode::Revoked => Failure::refused(None, text(reason)),
        _ => Failure::transport(text(reason)),
    }
}

pub(super) const fn failure_label(error: &DialError) -> HandshakeFailure {
    match error {
        DialError::Tls(_) | DialError::Certificate(_) => HandshakeFailure::Tls,
        DialError::Timeout { .. } => HandshakeFailure::Timeout,
        _ => HandshakeFailure::Protocol,
    }
}

pub(super) fn up(slot: &Slot, tunnel: &Tunnel, responder: &str, observed: Option<&str>) {
    info!(
        destination = %slot.destination(), address = %slot.address, slot = slot.number, transport = %tunnel.transport(),
        tunnel = %tunnel.id(), responder, observed, "tunnel up"
    );
}

/// `retry_in` is known where nothing is tried until then; `beside` says that there is a tunnel all the same.
pub(super) fn failed(slot: &Slot, attempt: Attempt, error: &DialError, retry_in: Option<Duration>, beside: bool) {
    let (destination, address, number) = (slot.destination(), slot.address, slot.number);
    let (transport, advice) = (attempt.transport(), error.advice());
    if beside && !slot.watched.is_trial() {
        debug!(%destination, %address, slot = number, %transport, %error, advice, "the other transport does not work yet");
    } else if slot.watched.is_trial() {
        debug!(%destination, %address, slot = number, %transport, %error, advice, "another responder of the fleet cannot be reached");
    } else if let Some(retry_in) = retry_in {
        warn!(
            %destination, %address, slot = number, %transport, %error, advice, ?retry_in, "cannot open a tunnel"
        );
    } else {
        warn!(%destination, %address, slot = number, %transport, %error, advice, "cannot open a tunnel over this transport");
    }
}

pub(super) fn lost(slot: &Slot, attempt: Attempt, reason: &CloseReason, retry_in: Option<Duration>) {
    let (destination, number, transport) = (slot.destination(), slot.number, attempt.transport());
    let (reason, advice) = (text(reason), advice(reason));
    if let Some(retry_in) = retry_in {
        warn!(%destination, slot = number, %transport, reason, advice, ?retry_in, "tunnel lost");
    } else {
        warn!(%destination, slot = number, %transport, reason, advice, "tunnel lost: dialling again");
    }
}

/// Not worth a warning: the claim that did it is this slot's.
pub(super) fn superseded_by_own(slot: &Slot) {
    debug!(destination = %slot.destination(), slot = slot.number, "the responder has ended the tunnel that is replaced");
}

pub(super) fn draining(slot: &Slot, after: Duration) {
    let destination = slot.destination();
    info!(%destination, slot = slot.number, ?after, "the responder drains: a replacement will be dialled");
}

pub(super) fn switched(slot: &Slot, from: TransportKind, to: TransportKind, reason: &str) {
    let destination = slot.destination();
    match to {
        TransportKind::Tcp | TransportKind::Envoy => {
            warn!(%destination, slot = slot.number, %from, %to, reason, "now over TCP")
        }
        TransportKind::Quic => info!(%destination, slot = slot.number, %from, %to, reason, "back on QUIC"),
    }
}

fn text(reason: &CloseReason) -> String {
    if reason.text.is_empty() { reason.code.to_string() } else { format!("{}: {}", reason.code, reason.text) }
}

fn advice(reason: &CloseReason) -> Option<&'static str> {
    (reason.code == CloseCode::Superseded)
        .then_some("another process runs with this node's certificate and name; stop one of the two")
}
