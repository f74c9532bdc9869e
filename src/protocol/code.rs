//! Every number that ends something: refusals, tunnel closes, stream resets. One home, compared with
//! `proto-spec/registry.toml` by a test.

use std::fmt;

/// Why a handshake was refused; Envoy's numbers, shared by both transports, logs and metrics. spec: ER-1
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
pub enum RefusalCode {
    /// 400: HELLO could not be read or breaks a limit.
    Malformed,
    /// 401: no credential that could prove the claim.
    Unauthenticated,
    /// 403: a credential, but not for this identity, or not admitted by the rules.
    Forbidden,
    /// 404: no version in common, or (Envoy) a wrong path.
    Unsupported,
    /// 409: the name is taken by something it must not become.
    Conflict,
    /// 429: a quota is used up; comes with a retry-after.
    Quota,
    /// 503: the responder is draining or cannot register.
    Unavailable,
}

impl RefusalCode {
    /// Every code, in wire order.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Unsupported,
        Self::Conflict,
        Self::Quota,
        Self::Unavailable,
    ];

    /// The number on the wire (and the HTTP status on Envoy's path).
    pub const fn number(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::Unsupported => 404,
            Self::Conflict => 409,
            Self::Quota => 429,
            Self::Unavailable => 503,
        }
    }

    /// The code with this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }

    /// The code that a received number means: itself, or for one that is not known here the most ordinary one of its
    /// hundred, 403 or 503. `None` outside of 400 to 599. spec: ER-1
    pub fn nearest(number: u64) -> Option<Self> {
        Self::from_number(number).or(match number {
            400..500 => Some(Self::Forbidden),
            500..600 => Some(Self::Unavailable),
            _ => None,
        })
    }

    /// The metric label and the word in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Unsupported => "unsupported",
            Self::Conflict => "conflict",
            Self::Quota => "quota",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.label())
    }
}

macro_rules! wire_codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $label:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every code, in wire order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The number on the wire.
            pub const fn number(self) -> u32 {
                match self { $(Self::$variant => $number),* }
            }

            /// The code with this number, if there is one.
            pub const fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The metric label and the word in logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

wire_codes!(
    /// Why a tunnel ended; the application error code of CONNECTION_CLOSE. spec: ER-2
    CloseCode {
        /// Drained, or stopped on purpose: nothing is wrong.
        Done = 0x00, "done";
        /// A fault of the sender of this code.
        Internal = 0x01, "internal";
        /// The peer broke the protocol.
        Protocol = 0x02, "protocol";
        /// The handshake did not finish in time.
        HandshakeTimeout = 0x03, "handshake_timeout";
        /// The handshake was refused; REFUSE says why.
        Refused = 0x04, "refused";
        /// A newer tunnel took this one's place.
        Superseded = 0x05, "superseded";
        /// Nothing was heard for the idle timeout.
        Idle = 0x06, "idle";
        /// The peer broke a limit.
        Limit = 0x07, "limit";
        /// The rules changed and no longer admit the peer.
        Revoked = 0x08, "revoked";
    }
);

wire_codes!(
    /// Why one stream was reset or its sending stopped. spec: ER-3
    StreamCode {
        /// The exchange is complete; the rest of this direction is not needed.
        NoError = 0x00, "no_error";
        /// A fault of the sender of this code.
        Internal = 0x01, "internal";
        /// The stream's bytes break the protocol.
        Protocol = 0x02, "protocol";
        /// Whoever asked no longer wants it.
        Cancelled = 0x03, "cancelled";
        /// Not processed at all: safe to send again elsewhere.
        Rejected = 0x04, "rejected";
        /// The stream type is not known here.
        UnknownType = 0x05, "unknown_type";
        /// A head or a field section breaks a limit.
        Limit = 0x06, "limit";
        /// The message was cut at its source: a truncated body, a failed read.
        Truncated = 0x07, "truncated";
        /// Between siblings: there is no tunnel to the node here. Nothing was handed to one. spec: FL-44
        NotHere = 0x08, "not_here";
        /// Between siblings: the tunnel was lost with the stream under way. spec: FL-45
        TunnelLost = 0x09, "tunnel_lost";
        /// Between siblings: the head is larger than the node takes. spec: FL-45
        HeadTooLarge = 0x0a, "head_too_large";
        /// Between siblings: no tunnel of the node has room for another stream. spec: FL-45
        TunnelFull = 0x0b, "tunnel_full";
        /// Between siblings: the tenant or the node has as much as it may there. spec: FL-45
        Quota = 0x0c, "quota";
    }
);

wire_codes!(
    /// Why an initiator refused a raw stream or a flow; nothing of it reached a target. spec: ER-9
    OpenCause {
        /// A fault of the initiator; what an unknown cause means too.
        Internal = 0x01, "internal";
        /// It exports no service of that name.
        UnknownService = 0x02, "unknown_service";
        /// The service is of another kind.
        WrongKind = 0x03, "wrong_kind";
        /// The target refused the connection.
        TargetRefused = 0x04, "target_refused";
        /// There is no way to the target, or its name is unknown.
        TargetUnreachable = 0x05, "target_unreachable";
        /// The target did not answer in time.
        TargetTimedOut = 0x06, "target_timed_out";
        /// Too many flows, streams or connections.
        Limit = 0x07, "limit";
        /// The rules of the initiator do not let it in.
        Denied = 0x08, "denied";
    }
);

wire_codes!(
    /// Why a service is down, in HEALTH. spec: CT-59
    DownCause {
        /// Another cause; what an unknown one means too.
        Failed = 0x01, "failed";
        /// The target refuses connections.
        TargetRefused = 0x04, "target_refused";
        /// There is no way to the target, or its name is unknown.
        TargetUnreachable = 0x05, "target_unreachable";
        /// The target does not answer in time.
        TargetTimedOut = 0x06, "target_timed_out";
        /// The target closes connections instead of answering.
        TargetClosed = 0x08, "target_closed";
        /// The target answers its health check, and not as it should.
        CheckFailed = 0x09, "check_failed";
    }
);

impl OpenCause {
    /// The status that goes with it where the refusal is an HTTP response. spec: TB-13
    pub const fn status(self) -> http::StatusCode {
        match self {
            Self::Internal => http::StatusCode::INTERNAL_SERVER_ERROR,
            Self::UnknownService | Self::WrongKind => http::StatusCode::NOT_FOUND,
            Self::TargetRefused | Self::TargetUnreachable => http::StatusCode::BAD_GATEWAY,
            Self::TargetTimedOut => http::StatusCode::GATEWAY_TIMEOUT,
            Self::Limit => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied => http::StatusCode::FORBIDDEN,
        }
    }
}
