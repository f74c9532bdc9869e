//! The responder's side of an idle tunnel: proves that the initiator lives, and notices when it no longer does.
//!
//! As [`Session`](crate::protocol::session::Session) it reads no clock: call [`Pinger::poll`] until it is `None` after
//! every other call, and [`Pinger::timeout`] at [`Pinger::deadline`].

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::protocol::envoy::PING;
use crate::protocol::envoy::rping::{Run, Step};

/// How a responder pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingSettings {
    /// From an echo to the next ping, plus up to 15 %. Default 2 s; used within [`PingSettings::INTERVALS`]. An echo is
    /// late after half of it. spec: EV-22
    pub interval: Duration,
    /// How many misses in a row end the tunnel; at least 1. Default 3. spec: EV-24
    pub threshold: u32,
    /// From the acceptance to the first ping, plus up to as much again. Default 50 ms; shorter risks that it shares a
    /// read with the acceptance, which an Envoy 1.40 does not survive. spec: EV-21
    pub proof_delay: Duration,
}

impl Default for PingSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), threshold: 3, proof_delay: Duration::from_millis(50) }
    }
}

impl PingSettings {
    /// The shortest and the longest interval. spec: EV-22
    pub const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
    /// How much of the interval may be added to it, in percent. spec: EV-22
    pub const JITTER_PERCENT: u32 = 15;

    /// When an echo is late. spec: EV-24
    pub fn reply_timeout(&self) -> Duration {
        self.within_bounds().interval / 2
    }

    fn within_bounds(self) -> Self {
        let interval = self.interval.clamp(*Self::INTERVALS.start(), *Self::INTERVALS.end());
        Self { interval, threshold: self.threshold.max(1), ..self }
    }
}

/// The next thing for the caller to do, or to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingOutput {
    /// Write [`PING`] in one write.
    SendPing,
    /// The first ping came back: the tunnel may be used. spec: EV-21
    Proven,
    /// An echo is missing: prefer other tunnels.
    Suspect,
    /// An echo came after [`PingOutput::Suspect`].
    Alive,
    /// Close the connection. Always the last output.
    Dead(DeadReason),
    /// After [`Stop::Wait`]: the connection is free for something else. Always the last output.
    Stopped {
        /// Whether the last echo came in time. If not, the initiator is suspect at best, and its echo may still stand
        /// in front of what it sends next: see [`Pinger::strip`].
        answered: bool,
    },
}

/// Why an idle tunnel is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    /// Nothing came back for too long.
    NoEcho,
    /// Something came back that is no echo, too often.
    NotAnEcho,
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEcho => "the initiator no longer echoes pings",
            Self::NotAnEcho => "the initiator answers pings with something else",
        })
    }
}

/// When the connection is free for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// At once.
    Now,
    /// At [`PingOutput::Stopped`]: an echo is on its way, or the tunnel is not proven yet.
    Wait,
    /// Never: it is dead.
    Dead,
}

/// The pings of one tunnel.
#[derive(Debug)]
pub struct Pinger {
    settings: PingSettings,
    phase: Phase,
    wait: Wait,
    /// What the next interval gets on top; drawn whenever there is entropy.
    jitter: Duration,
    /// The part of an echo that has arrived.
    run: Run,
    misses: u32,
    /// The misses before the current ping: an echo of it makes up for them, unless something else comes with it.
    carried: u32,
    /// Something that is no echo has come since the last ping was sent.
    spoilt: bool,
    proven: bool,
    suspect: bool,
    outputs: VecDeque<PingOutput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pinging,
    /// No ping but the one that proves; over as soon as no echo is outstanding.
    Stopping,
    Stopped,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// A ping is due then.
    Ping(Instant),
    /// The echo of the one that is out is missed then, again if it was missed before.
    Echo(Instant),
}

impl Pinger {
    /// Starts when the acceptance has been written and flushed. `entropy` is any random number, here and below.
    /// spec: EV-21
    pub fn new(now: Instant, settings: PingSettings, entropy: u32) -> Self {
        let settings = settings.within_bounds();
        let delay = settings.proof_delay.saturating_add(portion(settings.proof_delay, entropy));
        Self {
            settings,
            phase: Phase::Pinging,
            wait: Wait::Ping(now + delay.min(*PingSettings::INTERVALS.end())),
            jitter: jitter(&settings, entropy),
            run: Run::default(),
            misses: 0,
            carried: 0,
            spoilt: false,
            proven: false,
            suspect: false,
            outputs: VecDeque::new(),
        }
    }

    /// When to call [`Pinger::timeout`]; `None` once stopped or dead.
    pub fn deadline(&self) -> Option<Instant> {
        let (Wait::Ping(at) | Wait::Echo(at)) = self.wait;
        self.is_on().then_some(at)
    }

    /// The next thing to do; call until `None`.
    pub fn poll(&mut self) -> Option<PingOutput> {
        self.outputs.pop_front()
    }

    /// Whether the initiator has echoed a ping: before that the tunnel must not be used. spec: EV-21
    pub const fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether an echo is missing.
    pub const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Acts on what is due at `now`.
    pub fn timeout(&mut self, now: Instant, entropy: u32) {
        self.jitter = jitter(&self.settings, entropy);
        match self.wait {
            _ if !self.is_on() => {}
            Wait::Ping(at) if at <= now => {
                self.carried = self.misses;
                self.spoilt = false;
                self.wait = Wait::Echo(now + self.settings.reply_timeout());
                self.outputs.push_back(PingOutput::SendPing);
            }
            Wait::Echo(at) if at <= now && self.may_stop() => self.stopped(false),
            Wait::Echo(at) if at <= now => {
                // TCP still carries the ping that is out: a second one could only arrive together with it. spec: EV-23
                self.wait = Wait::Echo(self.next_ping(now) + self.settings.reply_timeout());
                self.miss(DeadReason::NoEcho);
            }
            _ => {}
        }
    }

    /// Takes what the initiator sends, in any split. What it leaves was sent after the pinger stopped or died, and
    /// belongs to whatever came next. spec: EV-25, EV-26
    pub fn receive<'a>(&mut self, now: Instant, mut input: &'a [u8]) -> &'a [u8] {
        while self.is_on()
            && let Some((&byte, rest)) = input.split_first()
        {
            input = rest;
            if byte == PING[self.run.held] {
                self.run.held += 1;
            } else {
                // No two bytes of a ping are the same, so a new one can start only here.
                self.run.held = usize::from(byte == PING[0]);
                self.on_other(now);
            }
            if self.run.held == PING.len() {
                self.run.held = 0;
                self.on_echo(now);
            }
        }
        input
    }

    /// The caller wants the connection for HTTP/2 or TLS. No ping is sent from now on, except the one that proves.
    /// spec: EV-27
    pub fn stop(&mut self, now: Instant) -> Stop {
        match (self.phase, self.wait) {
            (Phase::Dead, _) => Stop::Dead,
            (Phase::Stopped, _) => Stop::Now,
            (_, Wait::Ping(_)) if self.proven => {
                self.phase = Phase::Stopped;
                Stop::Now
            }
            (_, Wait::Echo(at)) if self.proven => {
                self.phase = Phase::Stopping;
                self.wait = Wait::Echo(at.min(now + self.settings.reply_timeout()));
                Stop::Wait
            }
            _ => {
                self.phase = Phase::Stopping;
                Stop::Wait
            }
        }
    }

    /// Once stopped: what is left of the initiator's bytes without the echoes in front of them. For all bytes from there
    /// on; the first that is not an echo's ends this for good. spec: EV-28
    pub fn strip(&mut self, mut bytes: Bytes) -> Bytes {
        loop {
            match self.run.next(&mut bytes) {
                Step::Ping => {}
                Step::Rest(rest) => return rest,
                Step::More => return Bytes::new(),
            }
        }
    }

    fn is_on(&self) -> bool {
        matches!(self.phase, Phase::Pinging | Phase::Stopping)
    }

    fn may_stop(&self) -> bool {
        self.phase == Phase::Stopping && self.proven
    }

    fn next_ping(&self, now: Instant) -> Instant {
        now + self.settings.interval + self.jitter
    }

    /// An echo that nobody asked for is a sign of life too, but proves nothing: it may be older than the acceptance.
    fn on_echo(&mut self, now: Instant) {
        let answers = matches!(self.wait, Wait::Echo(_));
        if answers {
            self.wait = Wait::Ping(self.next_ping(now));
        }
        if !self.spoilt {
            self.misses = 0;
            if std::mem::take(&mut self.suspect) {
                self.outputs.push_back(PingOutput::Alive);
            }
            if answers && !std::mem::replace(&mut self.proven, true) {
                self.outputs.push_back(PingOutput::Proven);
            }
        }
        if answers && self.may_stop() {
            self.stopped(true);
        }
    }

    /// Whatever this is, it answers the ping that is out; however much of it comes, it is one miss.
    fn on_other(&mut self, now: Instant) {
        if std::mem::replace(&mut self.spoilt, true) {
            return;
        }
        let answers = matches!(self.wait, Wait::Echo(_));
        if answers {
            self.wait = Wait::Ping(self.next_ping(now));
        }
        self.misses = self.misses.max(self.carried);
        self.miss(DeadReason::NotAnEcho);
        if answers && self.may_stop() {
            self.stopped(false);
        }
    }

    fn miss(&mut self, reason: DeadReason) {
        self.misses += 1;
        if self.misses >= self.settings.threshold {
            self.phase = Phase::Dead;
            self.outputs.push_back(PingOutput::Dead(reason));
        } else if !std::mem::replace(&mut self.suspect, true) {
            self.outputs.push_back(PingOutput::Suspect);
        }
    }

    fn stopped(&mut self, answered: bool) {
        self.phase = Phase::Stopped;
        self.outputs.push_back(PingOutput::Stopped { answered });
    }
}

/// What is added to an interval. spec: EV-22
fn jitter(settings: &PingSettings, entropy: u32) -> Duration {
    portion(settings.interval * PingSettings::JITTER_PERCENT / 100, entropy)
}

/// Nothing to all of `most`, as `entropy` says.
fn portion(most: Duration, entropy: u32) -> Duration {
    most.mul_f64(f64::from(entropy) / f64::from(u32::MAX))
}
