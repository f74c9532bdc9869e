//! How one target is: what its requests and checks meet, who is told, and the task that asks it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::machine::{Change, CheckRules, Machine, Standing};
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::DownCause;
use crate::telemetry::Limiter;

/// How many changes of one target are logged in a minute.
const MAX_LINES: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// Whoever has a target, and is told how it is.
pub(crate) trait Told: Send + Sync + 'static {
    /// It is down, or not any more: also where nobody has it any more. What is told last is what holds.
    fn tell(&self, down: Option<DownCause>);

    /// Writes a line about a change; so many were left out before.
    fn say(&self, change: Change, details: &str, left_out: Option<u64>);
}

/// How one target is.
pub(crate) struct Wellness {
    told: Box<dyn Told>,
    watched: Mutex<Watched>,
    /// Whether another success would change nothing: this is on the path of every exchange.
    is_calm: AtomicBool,
    lines: Limiter,
    /// Cancelled when nobody has the target any more.
    over: CancellationToken,
}

struct Watched {
    machine: Machine,
    /// Whether a task asks the target when that is due.
    is_asked: bool,
}

impl Wellness {
    pub(crate) fn new(rules: Option<CheckRules>, told: impl Told) -> Self {
        let machine = Machine::new(Instant::now(), rules, rand::random());
        Self {
            told: Box::new(told),
            watched: Mutex::new(Watched { machine, is_asked: false }),
            is_calm: AtomicBool::new(false),
            lines: Limiter::new(MAX_LINES, MINUTE),
            over: CancellationToken::new(),
        }
    }

    /// The same, asked at least so often while it is down and has no checks of its own.
    pub(crate) fn asked_every(self, longest: Duration) -> Self {
        self.watched().machine.ask_every(longest);
        self
    }

    /// How long it is until the target is asked again; `None`: it is being asked, or need not be.
    pub(crate) fn asked_in(&self) -> Option<Duration> {
        let next = self.watched().machine.deadline()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// How it is, and for how long.
    pub(crate) fn standing(&self) -> (Standing, Duration) {
        let (standing, since) = self.watched().machine.standing();
        (standing, since.elapsed())
    }

    /// Resolves when nobody has the target any more. Cancel safe.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Nobody has it any more: nobody asks, and nobody is told.
    pub(crate) fn retire(&self) {
        // Under the lock, so that nothing is told behind it.
        let _watched = self.watched();
        self.over.cancel();
        self.told.tell(None);
    }

    /// An exchange has reached the target. Cheap where that is nothing new.
    pub(crate) fn served(&self) {
        if !self.is_calm.load(Ordering::Relaxed) {
            self.note("", |machine, now| machine.served(now));
        }
    }

    /// An exchange has failed; `true`: somebody may have to ask the target from now on, see [`Wellness::starts_asking`].
    #[must_use]
    pub(crate) fn failed(&self, failure: &Failure) -> bool {
        let Some(cause) = down_cause(failure.cause()) else { return false };
        self.note(failure.details(), |machine, now| machine.failed(now, cause, rand::random()));
        true
    }

    /// What came of asking the target.
    pub(crate) fn checked(&self, outcome: Result<(), (DownCause, String)>) {
        let (outcome, details) = match outcome {
            Ok(()) => (Ok(()), "it was asked, and is well".to_owned()),
            Err((cause, details)) => (Err(cause), details),
        };
        self.note(&details, |machine, now| machine.checked(now, outcome, rand::random()));
    }

    /// Whether the caller is to ask the target from now on: that is due some time, and nobody else does.
    pub(crate) fn starts_asking(&self) -> bool {
        let mut watched = self.watched();
        let starts = !watched.is_asked && !self.over.is_cancelled() && watched.machine.deadline().is_some();
        watched.is_asked |= starts;
        starts
    }

    /// When the target is to be asked next; `None`: not any more, and whoever did is done.
    pub(crate) fn due(&self) -> Option<Instant> {
        let mut watched = self.watched();
        let due = watched.machine.deadline().filter(|_| !self.over.is_cancelled());
        watched.is_asked = due.is_some();
        due
    }

    /// Whether to ask the target now.
    pub(crate) fn begin(&self) -> bool {
        self.watched().machine.begin(Instant::now())
    }

    fn note(&self, details: &str, happened: impl FnOnce(&mut Machine, Instant) -> Option<Change>) {
        let mut watched = self.watched();
        if self.over.is_cancelled() {
            return;
        }
        let change = happened(&mut watched.machine, Instant::now());
        self.is_calm.store(watched.machine.is_calm(), Ordering::Relaxed);
        if let Some(change) = change {
            self.told.tell(change.to.down());
            if let Some(left_out) = self.lines.pass(Instant::now()) {
                self.told.say(change, &shown(&details), (left_out > 0).then_some(left_out));
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a failure says of a target; `None`: it is there, or nobody knows.
pub(crate) const fn down_cause(cause: Cause) -> Option<DownCause> {
    use Cause as C;
    match cause {
        C::TargetRefused => Some(DownCause::TargetRefused),
        C::TargetDns | C::TargetUnreachable => Some(DownCause::TargetUnreachable),
        C::TargetTimeout => Some(DownCause::TargetTimedOut),
        C::TargetClosed => Some(DownCause::TargetClosed),
        C::TargetTlsCertificate | C::TargetTlsAlert | C::TargetTlsProtocol => Some(DownCause::Failed),
        _ => None,
    }
}

/// Most characters of an error shown; it may quote the target.
const MAX_SHOWN: usize = 256;

/// An error as it may stand in a log.
pub(crate) fn shown(details: &dyn fmt::Display) -> String {
    details.to_string().chars().take(MAX_SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
}
