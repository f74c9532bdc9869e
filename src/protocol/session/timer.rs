//! Everything that can wake a session, in one list.

use std::time::{Duration, Instant};

/// How often the round trip is measured where the transport does not do it.
pub(super) const RTT_INTERVAL: Duration = Duration::from_secs(5);

/// The timers of a session, in the order in which they act when several are due: what ends the tunnel comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The handshake must have ended in WELCOME or REFUSE. spec: CT-40
    Handshake,
    /// A drain must be over. spec: CT-23
    Drain,
    /// Nothing was heard for so long that the peer is dead. spec: CT-43
    Idle,
    /// The last probe should have been answered; probe again. spec: CT-42
    Suspect,
    /// A tunnel in use is looked at: has it fallen silent? spec: CT-42
    Look,
    /// The round trip is measured again. spec: CT-13
    Sample,
    /// Nothing was heard for a while: probe. spec: CT-41
    Keepalive,
    /// The peer may be told other limits, or does not go by former ones any more. spec: CT-33, CT-64
    Limits,
}

impl Timer {
    pub(super) const ALL: [Self; 8] = [
        Self::Handshake,
        Self::Drain,
        Self::Idle,
        Self::Suspect,
        Self::Look,
        Self::Sample,
        Self::Keepalive,
        Self::Limits,
    ];
}

/// When each timer acts; a timer that is not set does not.
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    /// Sets `timer` to act `after` from `now`; never, if that is beyond what a clock can tell.
    pub(super) fn set(&mut self, timer: Timer, now: Instant, after: Duration) {
        self.0[timer as usize] = now.checked_add(after);
    }

    /// Like [`Timers::set`], but never later than already set.
    pub(super) fn set_earlier(&mut self, timer: Timer, now: Instant, after: Duration) {
        let earlier = [self.get(timer), now.checked_add(after)].into_iter().flatten().min();
        self.0[timer as usize] = earlier;
    }

    pub(super) const fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) const fn stop_all(&mut self) {
        self.0 = [None; Timer::ALL.len()];
    }

    pub(super) const fn get(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes the first timer that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = Timer::ALL.into_iter().find(|&timer| self.get(timer).is_some_and(|at| at <= now))?;
        self.stop(due);
        Some(due)
    }
}

/// How long a session waits for what. Both ends have one; WELCOME overrides the initiator's keepalive and idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the first byte to WELCOME or REFUSE; longer gives up. Default 10 s. spec: CT-40
    pub handshake_timeout: Duration,
    /// Silence after which a probe is sent. Default 5 s; shorter finds a dead path sooner and wakes idle links more
    /// often. It must stay below the shortest NAT timeout on the way. spec: CT-41
    pub keepalive_interval: Duration,
    /// Silence after a probe that makes the tunnel suspect. Default 3 s; it must exceed the worst round trip, and
    /// is at least 10 ms. spec: CT-42
    pub suspect_timeout: Duration,
    /// Silence after which the tunnel is dead. Default 30 s. spec: CT-43
    pub idle_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(5),
            suspect_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(30),
        }
    }
}
