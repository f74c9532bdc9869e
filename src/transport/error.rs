//! What can go wrong on a tunnel, with whose fault it is and whether another try is safe.

use std::time::Duration;

use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::protocol::budgets::BUSY_RETRY_AFTER;
use crate::protocol::code::{CloseCode, RefusalCode, StreamCode};
use crate::protocol::envoy::HandshakeError;
use crate::protocol::flows::FlowError;
use crate::protocol::handshake::{PeerLimits, Refusal};
use crate::protocol::limits;
use crate::protocol::session::SessionError;
use crate::protocol::stream::{Refused, StreamError, StreamType};
use crate::shares::Exceeded;
use crate::tls::Rejection;
use crate::transport::kind::TransportKind;

/// Why a stream was not opened, or why no response head came on it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing of the request left this process: it may go to another tunnel, body and all.
    #[error("the tunnel could not open a stream: {0}")]
    NotSent(TunnelLost),
    /// The tunnel carries as many streams as the initiator takes, and none of them ended in time: another may have room.
    #[error("the tunnel carries as many streams as the initiator takes")]
    NoRoom,
    /// The initiator says that it did not process the request: it may go to another tunnel if its body is whole.
    #[error("the initiator rejected the stream unprocessed")]
    Rejected,
    /// The initiator reset the stream.
    #[error("the initiator reset the stream: {0}")]
    Reset(StreamCode),
    /// The tunnel ended with the request under way: the target may or may not have seen it.
    #[error("the tunnel was lost with the request under way: {0}")]
    TunnelLost(TunnelLost),
    /// The initiator's bytes break the protocol.
    #[error("the initiator broke the protocol: {0}")]
    Protocol(#[from] StreamError),
    /// The request's head is larger than the initiator takes. spec: HS-15
    #[error("the request's head is larger than the initiator takes")]
    HeadTooLarge,
    /// The initiator, or the target behind it, said no; nothing of the stream reached a target. spec: ER-9
    #[error("the initiator refused, {0}")]
    Refused(Refused),
    /// The initiator takes no streams of this type.
    #[error("the initiator does not take {}", kind_of(*.0))]
    Unsupported(StreamType),
    /// The initiator did not say yes or no in time. spec: ST-58
    #[error("the initiator did not answer in time")]
    TimedOut,
    /// The tunnel has as many flows as it may. spec: ST-71
    #[error("{0}")]
    Flows(#[from] FlowError),
    /// The tenant or the node has as many flows as it may.
    #[error("{0}")]
    Share(#[from] Exceeded),
    /// The other end exports no services by name: an Envoy decides by host and path alone.
    #[error("the other end of this tunnel has no services with names")]
    NoNamedServices,
    /// The other end takes no extended CONNECT, by which another protocol than HTTP is asked for.
    #[error("the other end of this tunnel carries no other protocol than HTTP")]
    NoUpgrades,
    /// The sibling that was asked has no tunnel to the node; nothing was handed to one. spec: FL-44
    #[error("the sibling has no tunnel to it")]
    NotHere,
    /// The tenant or the node has as much as it may at the sibling that was asked. spec: FL-45
    #[error("the tenant or the node has as much as it may at the responder that it is connected to")]
    SiblingQuota,
    /// The request itself cannot be expressed: it has no authority.
    #[error("the request cannot be sent: {0}")]
    Request(&'static str),
}

const fn kind_of(stream_type: StreamType) -> &'static str {
    match stream_type {
        StreamType::Http => "requests",
        StreamType::Raw => "raw streams",
        StreamType::Flow => "flows",
    }
}

impl OpenError {
    /// What the code says with which the other end reset a stream that it has not answered. spec: ER-3
    pub(super) fn of_reset(code: StreamCode) -> Self {
        match code {
            StreamCode::Rejected => Self::Rejected,
            code => Self::Reset(code),
        }
    }

    /// The same, where a sibling may have said it: some codes have a meaning in its mouth, and in no initiator's.
    /// spec: FL-44, FL-45
    pub(super) fn said_by_sibling(self, is_sibling: bool) -> Self {
        match self {
            Self::Reset(StreamCode::NotHere) if is_sibling => Self::NotHere,
            Self::Reset(StreamCode::TunnelLost) if is_sibling => {
                Self::TunnelLost(TunnelLost("a sibling lost it".into()))
            }
            Self::Reset(StreamCode::HeadTooLarge) if is_sibling => Self::HeadTooLarge,
            Self::Reset(StreamCode::TunnelFull) if is_sibling => Self::NoRoom,
            Self::Reset(StreamCode::Quota) if is_sibling => Self::SiblingQuota,
            other => other,
        }
    }
}

/// What a stream that broke before its answer says about its opening.
impl From<BodyError> for OpenError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Reset(code) => Self::of_reset(code),
            BodyError::Protocol(error) => Self::Protocol(error),
            BodyError::TunnelLost(lost) => Self::TunnelLost(lost),
            BodyError::Length
            | BodyError::Source(_)
            | BodyError::Upstream(_)
            | BodyError::Failed(_)
            | BodyError::Idle
            | BodyError::Late => Self::Reset(StreamCode::Protocol),
            BodyError::HeldBack => Self::Reset(StreamCode::Limit),
        }
    }
}

/// Why a message could not be sent whole.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The peer does not want the rest.
    #[error("the peer does not want the rest: {0}")]
    Stopped(StreamCode),
    /// The connection is gone.
    #[error("the tunnel was lost: {0}")]
    Lost(TunnelLost),
    /// The body failed at its source.
    #[error("the body failed at its source: {0}")]
    Source(BoxError),
    /// The head of the message cannot be sent.
    #[error("the head cannot be sent: {0}")]
    Head(&'static str),
    /// The trailers are larger than the peer takes. spec: ER-10
    #[error("the trailers are larger than the peer takes")]
    Limit,
}

/// Why a message body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer reset the stream.
    #[error("the peer reset the stream: {0}")]
    Reset(StreamCode),
    /// The peer's bytes break the protocol, or stop without an END.
    #[error("{0}")]
    Protocol(#[from] StreamError),
    /// The body is shorter or longer than its content-length. spec: ST-9
    #[error("the body does not have the length that its head declared")]
    Length,
    /// The tunnel ended.
    #[error("the tunnel was lost: {0}")]
    TunnelLost(TunnelLost),
    /// The body that was to be sent failed at its source.
    #[error("the body failed at its source: {0}")]
    Source(BoxError),
    /// Whoever reads the body took too little of it for too long, and this end has stopped it. spec: SE-11, SE-12
    #[error("the body was not read: too little of it was taken for too long")]
    HeldBack,
    /// An upstream that is reached without a tunnel cut it.
    #[error("the upstream's response was cut: {0}")]
    Upstream(BoxError),
    /// What stands for a body here failed, and why.
    #[error("{0}")]
    Failed(Failure),
    /// This end gave it up: nothing moved for too long.
    #[error("nothing moved for too long")]
    Idle,
    /// This end gave it up: the time that its client had set was over.
    #[error("the time that the client had set is over")]
    Late,
}

/// Why a tunnel is gone, as far as this end knows.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct TunnelLost(pub String);

/// Why a dial did not become a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address or name cannot be dialled at all.
    #[error("cannot dial: {0}")]
    Address(String),
    /// Nothing answered in time.
    #[error("no answer within {after:?}: is {} open on the way, and does a responder listen there?", over.protocol())]
    Timeout {
        /// What was dialled over.
        over: TransportKind,
        /// How long was waited.
        after: Duration,
    },
    /// TLS did not agree: an untrusted or expired certificate, a pin, or no common ALPN.
    #[error("TLS: {0}")]
    Tls(String),
    /// The responder's TLS does not accept this end's certificate: an answer, like a refusal. spec: HS-36
    #[error("TLS: {0}")]
    Certificate(String),
    /// The connection failed below TLS.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// The responder has no room for another handshake at the moment: an answer, like a refusal. spec: SE-22
    #[error("the responder has no room for another handshake at the moment")]
    Busy,
    /// An Envoy responder did not take the handshake, or what answered is none. spec: EV-4 to EV-7
    #[error("{0}")]
    Envoy(HandshakeError),
    /// The responder said no.
    #[error("refused, {}: {}", .0.code, .0.reason)]
    Refused(Refusal),
    /// The responder's bytes break the protocol.
    #[error("the responder broke the protocol: {0}")]
    Protocol(#[from] SessionError),
}

impl DialError {
    /// The metric label and the word in logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Timeout { .. } => "timeout",
            Self::Tls(_) | Self::Certificate(_) => "tls",
            Self::Connection(_) => "connection",
            Self::Busy => "busy",
            Self::Envoy(_) => "envoy",
            Self::Refused(refusal) => refusal.code.label(),
            Self::Protocol(_) => "protocol",
        }
    }

    /// Whether the responder has answered: the other transport is not for getting another answer. spec: HS-31, SE-22
    pub const fn is_answer(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Certificate(_) | Self::Busy)
    }

    /// The time before which the responder does not want to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Busy => Some(BUSY_RETRY_AFTER),
            _ => None,
        }
    }

    /// What an operator would change, in one sentence; `None` when waiting is all there is.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Address(_) => "check the address and the DNS name in `tunnels`",
            Self::Timeout { over: TransportKind::Quic, .. } => "check that UDP reaches the responder's port",
            Self::Timeout { .. } | Self::Connection(_) => "check that the responder's port can be reached",
            Self::Tls(_) | Self::Certificate(_) => "check both certificates, their CA, the pins and the clocks",
            Self::Envoy(_) => {
                "check that an Envoy responder listens there, and that upgrade, path and security agree with it"
            }
            Self::Protocol(_) => "check that both ends run compatible versions",
            Self::Busy => return None,
            Self::Refused(refusal) => match refusal.code {
                RefusalCode::Malformed | RefusalCode::Unsupported => "check that both ends run compatible versions",
                RefusalCode::Unauthenticated => "configure a client certificate that the responder's CA signed",
                RefusalCode::Forbidden => {
                    "make node, cluster and tenant those of the certificate, and its key one that the responder admits"
                }
                RefusalCode::Conflict => "choose a name that no other node or cluster of the tenant uses",
                RefusalCode::Quota | RefusalCode::Unavailable => return None,
            },
        })
    }
}

/// What a responder is told in place of a response whose head is larger than it takes. spec: ER-10
pub(crate) fn head_too_large(bytes: usize, fields: usize, limits: PeerLimits) -> Failure {
    let PeerLimits { head_bytes, head_fields } = limits;
    let details = format!(
        "the head of the response has {bytes} bytes and {fields} fields; the responder takes {head_bytes} bytes and \
         {head_fields} fields"
    );
    Failure::new(Cause::TargetHeadTooLarge, details)
}

/// Whether a TLS alert (RFC 8446 section 6) is about the certificate of the end that gets it: bad, unsupported, revoked,
/// expired, unknown or missing, or of a CA that is not known; or access is denied.
pub(crate) const fn refuses_certificate(alert: u8) -> bool {
    matches!(alert, 42..=46 | 48 | 49 | 116)
}

/// That this end's TLS does not accept `peer`, and why.
pub(crate) fn not_accepted_here(peer: &str, reason: &str) -> String {
    format!("this end does not accept the {peer}: {}", Rejection::plain(reason))
}

/// That the TLS of `peer` does not accept this end, and why.
pub(crate) fn not_accepted_there(peer: &str, reason: &str) -> String {
    format!("the {peer} does not accept this end: {reason}")
}

/// A TLS alert in the words of RFC 8446 section 6, with where to look for more: TLS itself says no more than this.
pub(crate) fn alert_text(alert: u8) -> String {
    let name: &str = match alert {
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        48 => "unknown_ca",
        49 => "access_denied",
        116 => "certificate_required",
        120 => "no_application_protocol",
        other => return format!("alert {:?}", rustls::AlertDescription::from(other)),
    };
    let more = if refuses_certificate(alert) {
        "; the log of the other end says what is wrong with the certificate"
    } else {
        ""
    };
    format!("alert {name}{more}")
}

/// A peer's words, fit for a log: bounded, and on one line. spec: ER-8
pub(crate) fn peer_text(bytes: &[u8]) -> String {
    let bounded = &bytes[..bytes.len().min(limits::MAX_REASON_BYTES)];
    String::from_utf8_lossy(bounded).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The close code and reason of a connection error, for logs.
pub(crate) fn describe_close(code: u64, reason: &[u8]) -> String {
    let reason = peer_text(reason);
    match CloseCode::from_number(code) {
        Some(code) if reason.is_empty() => format!("closed by the peer: {code}"),
        Some(code) => format!("closed by the peer: {code} ({reason})"),
        None => format!("closed by the peer: code {code} ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: ER-8
    #[test]
    fn the_words_of_a_peer_stay_on_their_line_and_within_bounds() {
        assert_eq!(peer_text(b"a\r\nlevel=ERROR \x1b[31m\xff"), "a??level=ERROR ?[31m\u{fffd}");
        assert_eq!(peer_text(&[b'x'; 10_000]).len(), limits::MAX_REASON_BYTES);
    }
}
