//! Whether one target can be had: what requests and checks met goes in, when to ask it next comes out.
//!
//! ```text
//!            a success                      a refusal, three other failures, failed checks
//! Unknown ───────────────▶ Up ◀──────────────────────────────────────────────────────────▶ Down
//!     └───────── the first failed check, or failures of requests as above ───────────────────▲
//! ```
//!
//! A target without checks is asked only while it is down: whether it takes a connection. It is asked less and less often, also
//! when it comes and goes, so that one that takes connections and answers nothing does not cost requests all the time.

use std::time::{Duration, Instant};

use crate::protocol::code::DownCause;

/// How many requests fail in a row before their target is down; one that refuses connections is at once.
const FAULTS: u32 = 3;
/// How soon a target that went down is asked for the first time, and how seldom at last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Who goes down again within this time is asked less often than before.
const RELAPSE: Duration = Duration::from_secs(30);
/// The first check comes within this time: services that begin together are not checked at once.
const FIRST_CHECK: Duration = Duration::from_secs(1);

/// How a target is checked, where that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckRules {
    /// From one check to the next, give or take a tenth.
    pub interval: Duration,
    /// How many succeed in a row before a service that is down is up; at least 1.
    pub healthy_after: u32,
    /// How many fail in a row before one that is up is down; at least 1.
    pub unhealthy_after: u32,
}

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing has been asked of its target yet. Nobody takes it for down.
    Unknown,
    /// Its target can be had.
    Up,
    /// It cannot.
    Down(DownCause),
}

impl Standing {
    /// The word in status and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down(_) => "down",
        }
    }

    /// Why it is down, if it is.
    pub const fn down(self) -> Option<DownCause> {
        match self {
            Self::Down(cause) => Some(cause),
            Self::Unknown | Self::Up => None,
        }
    }
}

/// A service is otherwise than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "somebody wants to be told"]
pub(crate) struct Change {
    pub(crate) to: Standing,
    /// How long it was as before.
    pub(crate) after: Duration,
}

/// The state of one target.
#[derive(Debug)]
pub(crate) struct Machine {
    rules: Option<CheckRules>,
    standing: Standing,
    since: Instant,
    /// Requests that failed, one after the other.
    faults: u32,
    /// Checks of one outcome, one after the other.
    streak: (bool, u32),
    next: Option<Instant>,
    /// How long it is left alone, while it is down and has no checks.
    pause: Duration,
    longest_pause: Duration,
}

impl Machine {
    /// Nothing is known of it. `random` is from 0 to 1, here and below.
    pub(crate) fn new(now: Instant, rules: Option<CheckRules>, random: f64) -> Self {
        let first = |rules: CheckRules| now + rules.interval.min(FIRST_CHECK).mul_f64(random);
        let (standing, next) = (Standing::Unknown, rules.map(first));
        Self {
            rules,
            standing,
            since: now,
            faults: 0,
            streak: (true, 0),
            next,
            pause: FIRST_PAUSE,
            longest_pause: LONGEST_PAUSE,
        }
    }

    /// While it is down and has no checks, it is left alone for no longer than this at last; 10 s otherwise.
    pub(crate) fn ask_every(&mut self, longest: Duration) {
        self.longest_pause = longest;
    }

    /// How it is, and since when.
    pub(crate) const fn standing(&self) -> (Standing, Instant) {
        (self.standing, self.since)
    }

    /// Whether another success would change nothing.
    pub(crate) fn is_calm(&self) -> bool {
        self.faults == 0 && (self.standing == Standing::Up || (self.rules.is_some() && self.standing.down().is_some()))
    }

    /// When the target is to be asked next; `None`: it is being asked, or need not be.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Whether the target is to be asked now; [`Machine::checked`] says what came of it.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.next.is_some_and(|next| next <= now);
        if is_due {
            self.next = None;
        }
        is_due
    }

    /// A request was answered. One that is checked comes up by its checks alone: a target may answer and not be well.
    pub(crate) fn served(&mut self, now: Instant) -> Option<Change> {
        self.faults = 0;
        match self.standing {
            Standing::Up => None,
            Standing::Down(_) if self.rules.is_some() => None,
            Standing::Down(_) | Standing::Unknown => Some(self.turn(Standing::Up, now)),
        }
    }

    /// A request failed for the target.
    pub(crate) fn failed(&mut self, now: Instant, cause: DownCause, random: f64) -> Option<Change> {
        self.faults = self.faults.saturating_add(1);
        let is_decided = cause == DownCause::TargetRefused || self.faults >= FAULTS;
        if !is_decided || self.standing.down().is_some() {
            return None;
        }
        Some(self.go_down(now, cause, random))
    }

    /// The target was asked how it is.
    pub(crate) fn checked(&mut self, now: Instant, outcome: Result<(), DownCause>, random: f64) -> Option<Change> {
        let is_good = outcome.is_ok();
        self.streak = (is_good, if self.streak.0 == is_good { self.streak.1.saturating_add(1) } else { 1 });
        let (standing, in_row) = (self.standing, self.streak.1);
        if let Some(rules) = self.rules {
            self.next = Some(now + rules.interval.mul_f64(0.9 + 0.2 * random));
            return match (standing, outcome) {
                (Standing::Unknown, Ok(())) => Some(self.turn(Standing::Up, now)),
                (Standing::Unknown, Err(cause)) => Some(self.go_down(now, cause, random)),
                (Standing::Down(_), Ok(())) if in_row >= rules.healthy_after => Some(self.turn(Standing::Up, now)),
                (Standing::Up, Err(cause)) if in_row >= rules.unhealthy_after => Some(self.go_down(now, cause, random)),
                _ => None,
            };
        }
        match (standing, outcome) {
            (Standing::Down(_), Ok(())) => Some(self.turn(Standing::Up, now)),
            (Standing::Down(_), Err(_)) => {
                self.pause = (self.pause * 2).min(self.longest_pause);
                self.ask_later(now, random);
                None
            }
            // A request was faster.
            _ => None,
        }
    }

    fn go_down(&mut self, now: Instant, cause: DownCause, random: f64) -> Change {
        let is_relapse = self.standing == Standing::Up && now.saturating_duration_since(self.since) < RELAPSE;
        let change = self.turn(Standing::Down(cause), now);
        if self.rules.is_none() {
            self.pause = if is_relapse { (self.pause * 2).min(self.longest_pause) } else { FIRST_PAUSE };
            self.ask_later(now, random);
        }
        change
    }

    fn ask_later(&mut self, now: Instant, random: f64) {
        self.next = Some(now + self.pause.mul_f64(0.5 + random / 2.0));
    }

    fn turn(&mut self, to: Standing, now: Instant) -> Change {
        let after = now.saturating_duration_since(self.since);
        (self.standing, self.since, self.faults, self.streak) = (to, now, 0, (true, 0));
        if self.rules.is_none() {
            self.next = None;
        }
        Change { to, after }
    }
}

#[cfg(test)]
mod tests;
