//! The initiator's side of an idle tunnel: sends pings back, finds where something else begins, and notices when the
//! responder no longer pings, which Envoy's initiator does not.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::protocol::envoy::rping::{Run, Step};

/// How long an initiator waits for pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoSettings {
    /// For the first two pings each, since only then their interval is known. Default 350 s: the longest interval of an
    /// Envoy with its jitter, and some. Shorter than the responder's interval, it ends every idle tunnel. spec: EV-33
    pub grace: Duration,
}

impl Default for EchoSettings {
    fn default() -> Self {
        Self { grace: Duration::from_secs(350) }
    }
}

/// The next thing for the caller to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EchoOutput {
    /// Write [`PING`](super::PING), in one write of its own. spec: EV-31
    Echo,
    /// Bytes for HTTP/2 or TLS. From the first of these on the phase is over, and all that arrives is handed on so.
    Rest(Bytes),
    /// Close the connection and dial anew. Always the last output. spec: EV-33
    Dead,
}

/// The pings of one tunnel, as its initiator sees them.
#[derive(Debug)]
pub struct Echoer {
    settings: EchoSettings,
    run: Run,
    input: Bytes,
    /// When `input` arrived, until a ping in it has been counted.
    received_at: Option<Instant>,
    heard_at: Instant,
    pinged: bool,
    gaps: Gaps,
    death: Death,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    No,
    Due,
    Told,
}

/// The last gaps between pings. A few: the longest tells the interval despite one that a stall stretched or squeezed,
/// and a stall is forgotten in time.
#[derive(Debug, Default)]
struct Gaps {
    last: [Option<Duration>; Self::KEPT],
    next: usize,
}

impl Gaps {
    const KEPT: usize = 8;

    fn note(&mut self, gap: Duration) {
        self.last[self.next % Self::KEPT] = Some(gap);
        self.next += 1;
    }

    fn longest(&self) -> Option<Duration> {
        self.last.iter().flatten().max().copied()
    }
}

impl Echoer {
    /// The interval of a responder that has not shown a longer one: Envoy's default. spec: EV-33
    pub const LEAST_INTERVAL: Duration = Duration::from_secs(2);
    /// The longest interval that is believed: Envoy's longest with its jitter. spec: EV-33
    pub const LONGEST_INTERVAL: Duration = Duration::from_secs(345);
    /// How many intervals without a ping make the responder dead. spec: EV-33
    pub const DEAD_INTERVALS: u32 = 3;

    /// Starts when the responder has accepted.
    pub fn new(now: Instant, settings: EchoSettings) -> Self {
        Self {
            settings,
            run: Run::default(),
            input: Bytes::new(),
            received_at: None,
            heard_at: now,
            pinged: false,
            gaps: Gaps::default(),
            death: Death::No,
        }
    }

    /// When to call [`Echoer::timeout`]; `None` once the phase is over.
    pub fn deadline(&self) -> Option<Instant> {
        let patience = match self.gaps.longest() {
            Some(gap) => gap.clamp(Self::LEAST_INTERVAL, Self::LONGEST_INTERVAL) * Self::DEAD_INTERVALS,
            None => self.settings.grace,
        };
        if self.is_over() || self.death != Death::No { None } else { self.heard_at.checked_add(patience) }
    }

    /// Whether something else has begun: what liveness there is from then on is that protocol's.
    pub const fn is_over(&self) -> bool {
        self.run.is_over()
    }

    /// Gives up the responder if nothing was heard until the deadline.
    pub fn timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.death = Death::Due;
        }
    }

    /// Takes what the responder sends, in any split. Call [`Echoer::poll`] until `None` before the next call. spec: EV-32
    pub fn receive(&mut self, now: Instant, bytes: Bytes) {
        self.received_at = Some(now);
        if self.input.is_empty() {
            self.input = bytes;
        } else {
            let mut joined = BytesMut::from(&self.input[..]);
            joined.extend_from_slice(&bytes);
            self.input = joined.freeze();
        }
    }

    /// The next thing to do; call until `None`.
    pub fn poll(&mut self) -> Option<EchoOutput> {
        match self.death {
            Death::No => match self.run.next(&mut self.input) {
                Step::Ping => {
                    self.heard();
                    Some(EchoOutput::Echo)
                }
                Step::Rest(rest) => Some(EchoOutput::Rest(rest)),
                Step::More => None,
            },
            Death::Due => {
                self.death = Death::Told;
                Some(EchoOutput::Dead)
            }
            Death::Told => None,
        }
    }

    /// Pings that arrive together tell nothing about their interval, so each read counts once.
    fn heard(&mut self) {
        let Some(now) = self.received_at.take() else { return };
        let gap = now.saturating_duration_since(self.heard_at);
        if std::mem::replace(&mut self.pinged, true) {
            self.gaps.note(gap);
        }
        self.heard_at = now;
    }
}
