//! Every bound of the protocol, and the defaults of those that an operator may move. Compared with
//! `proto-spec/registry.toml` by a test. Sizes are bytes.

use std::time::Duration;

use crate::message::authority;
use crate::message::length;

/// The longest payload of a control frame. spec: CT-2
pub const MAX_CONTROL_PAYLOAD: usize = 65_536;
/// The longest payload of a stream frame that is skipped because its even type is unknown. spec: ST-5
pub const MAX_SKIPPED_PAYLOAD: u64 = 65_536;
/// The most responders of a roster, the sender among them. spec: HS-26
pub const MAX_ROSTER: usize = 64;
/// The longest roster, bytes. spec: HS-26
pub const MAX_ROSTER_BYTES: usize = 16_384;
/// The most addresses of one responder in a roster. spec: HS-26
pub const MAX_ROSTER_ADDRESSES: usize = 16;
/// The longest name of a region in a roster. spec: HS-26
pub const MAX_REGION_BYTES: usize = 128;
/// The most certificates of REAUTH. spec: CT-32
pub const MAX_CERTIFICATES: usize = 16;
/// The most signature schemes of WELCOME. spec: HS-25
pub const MAX_SIGNATURE_SCHEMES: usize = 64;
/// The longest token of HELLO and REAUTH. spec: HS-16
pub const MAX_TOKEN_BYTES: usize = 8_192;
/// The most services of HELLO and SERVICES. spec: HS-17
pub const MAX_SERVICES: usize = 256;
/// The longest product text of HELLO. spec: HS-18
pub const MAX_BUILD_BYTES: usize = 128;
/// The longest responder name of WELCOME. spec: HS-21
pub const MAX_RESPONDER_BYTES: usize = 128;
/// The longest observed address of WELCOME. spec: HS-22
pub const MAX_OBSERVED_BYTES: usize = 64;
/// The longest reason of REFUSE and of CONNECTION_CLOSE. spec: ER-6
pub const MAX_REASON_BYTES: usize = 512;
/// The longest method name. spec: ST-11
pub const MAX_METHOD_BYTES: usize = 32;
/// The longest authority. spec: ST-12
pub const MAX_AUTHORITY_BYTES: usize = authority::MAX_BYTES;
/// The longest `protocol` of an extended CONNECT. spec: ST-15
pub const MAX_PROTOCOL_BYTES: usize = 64;
/// The longest value of a request's Content-Length: what always fits into 64 bits. spec: ST-24
pub const MAX_CONTENT_LENGTH_DIGITS: usize = length::MAX_DIGITS;
/// The longest payload of OPEN, OPENED and REFUSED. spec: ST-55
pub const MAX_OPEN_BYTES: usize = 4_096;
/// The longest datagram of a flow: what UDP itself can carry. spec: ST-40, ST-55
pub const MAX_DATAGRAM_BYTES: usize = 65_527;
/// The most datagrams of one flow that a responder keeps until OPENED. spec: ST-74
pub const MAX_EARLY_DATAGRAMS: usize = 8;
/// The longest time that any message may state. spec: OV-13
pub const MAX_DURATION: Duration = Duration::from_secs(86_400);
/// The shortest keepalive that a WELCOME may ask for. spec: HS-23
pub const MIN_KEEPALIVE: Duration = Duration::from_millis(10);
/// The longest keepalive that a WELCOME may ask for. spec: HS-23
pub const MAX_KEEPALIVE: Duration = Duration::from_secs(3_600);
/// How long a responder that said DRAINED waits for the initiator's close. spec: CT-24
pub const FAREWELL_TIMEOUT: Duration = Duration::from_millis(250);
/// The deadline of a drain when the operator states none. spec: CT-23
pub const DEFAULT_DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// How long a responder waits for OPENED or REFUSED when nothing else is configured. spec: ST-58
pub const DEFAULT_OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The most flows of one tunnel when nothing else is configured. spec: ST-71
pub const DEFAULT_FLOWS: usize = 1_024;
/// How long a flow may carry nothing when nothing else is configured. spec: ST-76
pub const DEFAULT_FLOW_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// The smallest head limit that a peer may announce. spec: HS-15
pub const MIN_HEAD_BYTES: u32 = 4_096;
/// The smallest field count that a peer may announce. spec: HS-15
pub const MIN_HEAD_FIELDS: u32 = 32;
/// The head limit of who announces none. spec: HS-15
pub const DEFAULT_HEAD_BYTES: u32 = 65_536;
/// The field count of who announces none. spec: HS-15
pub const DEFAULT_HEAD_FIELDS: u32 = 100;

/// Bytes and fields that an end may add to a message which it passes on, such as `Via` and `X-Forwarded-For`: our ends
/// announce as much more than the defaults, so that what a listener takes fits a tunnel.
const ADDED_HEAD_BYTES: u32 = 2_048;
const ADDED_HEAD_FIELDS: u32 = 16;

/// What one end is ready to take from the other. spec: HS-15
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// Bytes of a message head or trailer section; at least 4 KiB.
    pub head_bytes: u32,
    /// Fields in one section; at least 32.
    pub head_fields: u32,
}

impl PeerLimits {
    /// The higher of each of two limits.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        Self { head_bytes: self.head_bytes.max(other.head_bytes), head_fields: self.head_fields.max(other.head_fields) }
    }

    /// As they go on the wire: none is below the least that may be announced.
    #[must_use]
    pub(crate) fn announced(self) -> Self {
        self.or_more(Self { head_bytes: MIN_HEAD_BYTES, head_fields: MIN_HEAD_FIELDS })
    }
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self { head_bytes: DEFAULT_HEAD_BYTES, head_fields: DEFAULT_HEAD_FIELDS }
    }
}

/// What a reader of messages takes before it gives up; checked before anything is buffered. spec: ST-6, ST-7
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes of one HEAD, INFO or TRAILERS frame. Default 64 KiB; each stream may hold this much in memory.
    pub head_bytes: usize,
    /// Fields in one of them. Default 100.
    pub head_fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        PeerLimits::default().into()
    }
}

impl Limits {
    /// What our ends announce unless they are told otherwise: the defaults, and room for what the other end adds.
    pub const OURS: Self =
        Self { head_bytes: DEFAULT_HEAD_BYTES as usize, head_fields: DEFAULT_HEAD_FIELDS as usize }.with_room();

    /// The higher of each of two limits.
    #[must_use]
    pub(crate) fn or_more(self, other: Self) -> Self {
        Self { head_bytes: self.head_bytes.max(other.head_bytes), head_fields: self.head_fields.max(other.head_fields) }
    }

    /// The lower of each of two limits.
    #[must_use]
    pub(crate) fn or_less(self, other: Self) -> Self {
        Self { head_bytes: self.head_bytes.min(other.head_bytes), head_fields: self.head_fields.min(other.head_fields) }
    }

    /// These, and room for what the other end adds.
    pub const fn with_room(self) -> Self {
        Self {
            head_bytes: self.head_bytes.saturating_add(ADDED_HEAD_BYTES as usize),
            head_fields: self.head_fields.saturating_add(ADDED_HEAD_FIELDS as usize),
        }
    }
}

impl From<Limits> for PeerLimits {
    fn from(limits: Limits) -> Self {
        let announced = |limit| u32::try_from(limit).unwrap_or(u32::MAX);
        Self { head_bytes: announced(limits.head_bytes), head_fields: announced(limits.head_fields) }
    }
}

impl From<PeerLimits> for Limits {
    fn from(limits: PeerLimits) -> Self {
        Self { head_bytes: limits.head_bytes as usize, head_fields: limits.head_fields as usize }
    }
}
