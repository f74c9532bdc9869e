//! Why a handshake is rejected, and how the initiator is told. spec: EV-11, EV-14

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::protocol::code::RefusalCode;
use crate::protocol::envoy::head::HeadError;
use crate::protocol::envoy::{UPGRADE_TOKEN, names};
use crate::protocol::handshake::Refusal;
use crate::protocol::limits::MAX_REASON_BYTES;
use crate::protocol::wire::printable;

/// Why there is no tunnel. The text is Envoy's where Envoy has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The bytes are not a request of HTTP/1.
    #[error("Bad Request")]
    NotHttp,
    /// The head is longer than 60 KiB or has more than 100 fields.
    #[error("Request Header Fields Too Large")]
    TooLarge,
    /// HTTP/1.0.
    #[error("Upgrade Required")]
    OldVersion,
    /// There is a body, or a length that announces one.
    #[error("Reverse tunnel handshake must not carry a body")]
    Body,
    /// Another method or path.
    #[error("Not a reverse tunnel request")]
    NotFound,
    /// Upgrade mode, and the request does not ask for it.
    #[error("Upgrade: reverse-tunnel required")]
    UpgradeRequired,
    /// No node, no cluster or no tenant.
    #[error("Missing required reverse tunnel headers")]
    MissingIds,
    /// The tenant is empty.
    #[error("Empty tenant-id header value")]
    EmptyTenant,
    /// A colon in an id.
    #[error("Reverse tunnel identifiers must not contain ':' when tenant isolation is enabled")]
    Colon,
    /// The responder must be named and is not.
    #[error("Missing upstream cluster name header")]
    MissingUpstreamCluster,
    /// The responder is named, but otherwise.
    #[error("Cluster name mismatch")]
    UpstreamClusterMismatch,
    /// Ours: a decisive field comes twice and says two things. spec: EV-13
    #[error("Contradictory values of {0}")]
    Contradiction(&'static str),
    /// Ours: an id that could not be registered. spec: EV-12
    #[error("The {what} id {problem}")]
    Identifier {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Policy, the registry or a drain said no. spec: EV-17
    #[error("{}", .0.reason)]
    Refused(Refusal),
}

/// What Envoy counts of the handshakes of a responder, under `reverse_tunnel.handshake`. spec: EV-18
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// A tunnel came of it.
    Accepted,
    /// It had a body.
    BodyRejected,
    /// No valid credential.
    JwtDenied,
    /// It could not be read.
    ParseError,
    /// It could not be registered.
    RegistrationFailed,
    /// A quota was used up.
    Rejected,
    /// It was not complete in time.
    Timeout,
    /// The claim is not admitted.
    ValidationFailed,
}

impl Counter {
    /// Every counter, by name.
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::BodyRejected,
        Self::JwtDenied,
        Self::ParseError,
        Self::RegistrationFailed,
        Self::Rejected,
        Self::Timeout,
        Self::ValidationFailed,
    ];

    /// Envoy's name for it; the metric label here.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::BodyRejected => "body_rejected",
            Self::JwtDenied => "jwt_denied",
            Self::ParseError => "parse_error",
            Self::RegistrationFailed => "registration_failed",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::ValidationFailed => "validation_failed",
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<HeadError> for Rejection {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Syntax => Self::NotHttp,
            HeadError::TooLarge => Self::TooLarge,
        }
    }
}

impl Rejection {
    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::OldVersion | Self::UpgradeRequired => 426,
            Self::TooLarge => 431,
            Self::Refused(refusal) => refusal.code.number(),
            _ => 400,
        }
    }

    /// The same in the numbers that all transports share, for logs and metrics.
    pub fn refusal(&self) -> RefusalCode {
        code_of(self.status()).unwrap_or(RefusalCode::Malformed)
    }

    /// Which of Envoy's counters this one raises, if any. spec: EV-18
    pub const fn counter(&self) -> Option<Counter> {
        match self {
            Self::NotHttp | Self::TooLarge | Self::OldVersion | Self::NotFound => None,
            Self::Body => Some(Counter::BodyRejected),
            Self::UpstreamClusterMismatch => Some(Counter::ValidationFailed),
            Self::Refused(refusal) => Some(match refusal.code {
                RefusalCode::Malformed | RefusalCode::Unsupported => Counter::ParseError,
                RefusalCode::Unauthenticated => Counter::JwtDenied,
                RefusalCode::Forbidden | RefusalCode::Conflict => Counter::ValidationFailed,
                RefusalCode::Quota => Counter::Rejected,
                RefusalCode::Unavailable => Counter::RegistrationFailed,
            }),
            _ => Some(Counter::ParseError),
        }
    }

    /// How long the initiator is asked to wait: with 429 and 503 only. spec: EV-14
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(Refusal { code: RefusalCode::Quota | RefusalCode::Unavailable, retry_after, .. }) => {
                *retry_after
            }
            _ => None,
        }
    }

    /// The whole response; the connection is closed after it. There is no body, and the reason is in a field, because
    /// Envoy 1.40 may crash at a body. spec: EV-14
    pub fn encode(&self) -> Bytes {
        let status = self.status();
        let phrase = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
        let upgrade = self.upgrade();
        let connection = if upgrade.is_some() { "close, upgrade" } else { "close" };
        let reason = field_text(&self.to_string());
        let mut text = format!(
            "HTTP/1.1 {status} {phrase}\r\ncontent-length: 0\r\nconnection: {connection}\r\n{}: {reason}\r\n",
            names::REASON
        );
        // Writing to a string cannot fail.
        if let Some(protocol) = upgrade {
            let _ = write!(text, "upgrade: {protocol}\r\n");
        }
        if let Some(wait) = self.retry_after() {
            let _ = write!(text, "retry-after: {}\r\n", wait.as_nanos().div_ceil(1_000_000_000));
        }
        text.push_str("\r\n");
        text.into()
    }

    /// What would be accepted instead; 426 must say so (RFC 9110 section 15.5.22).
    const fn upgrade(&self) -> Option<&'static str> {
        match self {
            Self::OldVersion => Some("HTTP/1.1"),
            Self::UpgradeRequired => Some(UPGRADE_TOKEN),
            _ => None,
        }
    }
}

/// The code of a status, where one of ours means the same.
pub(super) fn code_of(status: u16) -> Option<RefusalCode> {
    match status {
        426 => Some(RefusalCode::Unsupported),
        431 => Some(RefusalCode::Malformed),
        _ => RefusalCode::from_number(status.into()),
    }
}

/// A text as it may stand in a field: bounded printable ASCII.
fn field_text(text: &str) -> String {
    let ascii = |c: char| if c.is_ascii() { c } else { '?' };
    printable(text, MAX_REASON_BYTES).chars().map(ascii).collect::<String>().trim().to_owned()
}
