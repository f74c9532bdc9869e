//! Room for connections that are not tunnels yet, by stage and address prefix. spec: SE-21

use std::time::Duration;

/// Connections in handshake per transport, unless an operator says otherwise: what the budgets of the stages are made of.
pub const DEFAULT_MAX_HANDSHAKES: usize = 1_024;
/// From the first byte on, the longest that a connection over TCP may take to a whole ClientHello; and from its beginning
/// to its first byte. spec: SE-21
pub const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection has to itself in a stage in which it cost this end work, whoever waits for its place: some round
/// trips, and the time of an initiator whose machine does other things. spec: SE-21
pub const HANDSHAKE_GRACE: Duration = Duration::from_secs(3);
/// How often at most a connection gives way in such a stage. A thousand sites that come back at once all take their time;
/// if each newcomer ended one of them, none would get through. spec: SE-21
pub const EVICTION_INTERVAL: Duration = Duration::from_millis(50);
/// When an initiator whose connection a responder refused for want of room dials again, before jitter. spec: SE-22
pub const BUSY_RETRY_AFTER: Duration = Duration::from_millis(500);

/// Room for the connections that are in one stage of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageBudget {
    /// Of all addresses together.
    pub all: usize,
    /// Of one address prefix: /24 of IPv4, /56 of IPv6.
    pub share: usize,
    /// How old the oldest must be before it gives way to a newer one; until then the newer one waits.
    pub grace: Duration,
}

/// The budgets of one transport's handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeBudgets {
    /// Over TCP: connected, and nothing was read yet. Wide, since each costs little and whoever is sent away comes again at
    /// once, which costs more.
    pub silent: StageBudget,
    /// It has begun: a part of a ClientHello over TCP, or a whole one that waits for its turn. Costs no computing yet.
    pub hello: StageBudget,
    /// TLS is under way.
    pub tls: StageBudget,
    /// TLS is done: HELLO, a decision about it or the end of a refusal is awaited.
    pub claim: StageBudget,
    /// From so many connections in handshake on an address that dials over QUIC must prove by Retry that it is not forged
    /// (RFC 9000 section 8.1.2).
    pub retry: usize,
}

impl HandshakeBudgets {
    /// Those of a listener for QUIC that follow from `max`, at least 1. Who waits there costs one packet, so many may.
    pub const fn over_quic(max: usize) -> Self {
        Self::new(max, max.saturating_mul(4))
    }

    /// The same for TCP, where who waits costs a descriptor.
    pub const fn over_tcp(max: usize) -> Self {
        Self::new(max, max.saturating_mul(2))
    }

    const fn new(max: usize, waiting: usize) -> Self {
        let silent = max.saturating_mul(4);
        let working = StageBudget { all: max, share: half(max), grace: HANDSHAKE_GRACE };
        Self {
            silent: StageBudget { all: silent, share: half(silent), grace: Duration::ZERO },
            hello: StageBudget { all: waiting, share: half(waiting), grace: Duration::ZERO },
            tls: working,
            claim: working,
            retry: half(max),
        }
    }
}

/// A half, at least 1.
const fn half(number: usize) -> usize {
    if number > 1 { number / 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: SE-21
    #[test]
    fn no_stage_is_without_room_and_no_prefix_takes_all_of_it() {
        for max in [1, 2, 3, 16, DEFAULT_MAX_HANDSHAKES, usize::MAX] {
            let (quic, tcp) = (HandshakeBudgets::over_quic(max), HandshakeBudgets::over_tcp(max));
            for stage in [quic, tcp].into_iter().flat_map(|own| [own.silent, own.hello, own.tls, own.claim]) {
                assert!(stage.share >= 1 && stage.share <= stage.all, "{max}: {stage:?}");
                assert!(max < 16 || stage.share <= stage.all / 2, "{max}: {stage:?}");
            }
        }
    }
}
