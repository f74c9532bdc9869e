//! How one service is: what its requests and checks meet, who is told, and the task that asks its target.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::id::ServiceName;
use crate::initiator::health::{Change, CheckRules, HealthBoard, Machine, Standing};
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::DownCause;
use crate::telemetry::Limiter;

/// How many changes of one service are logged in a minute.
const MAX_LINES: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// Numbers those who tell a board: a service that is changed is another one under its name.
static TELLERS: AtomicU64 = AtomicU64::new(0);

/// How one service is.
pub(super) struct Wellness {
    name: ServiceName,
    teller: u64,
    board: HealthBoard,
    watched: Mutex<Watched>,
    /// Whether another success would change nothing: this is on the path of every exchange.
    is_calm: AtomicBool,
    lines: Limiter,
    /// Cancelled when the service is none of the initiator's any more.
    over: CancellationToken,
}

struct Watched {
    machine: Machine,
    /// Whether a task asks the target when that is due.
    is_asked: bool,
}

impl Wellness {
    pub(super) fn new(name: ServiceName, rules: Option<CheckRules>, board: HealthBoard) -> Self {
        let machine = Machine::new(Instant::now(), rules, rand::random());
        Self {
            name,
            teller: TELLERS.fetch_add(1, Ordering::Relaxed),
            board,
            watched: Mutex::new(Watched { machine, is_asked: false }),
            is_calm: AtomicBool::new(false),
            lines: Limiter::new(MAX_LINES, MINUTE),
            over: CancellationToken::new(),
        }
    }

    /// How it is, and for how long.
    pub(super) fn standing(&self) -> (Standing, Duration) {
        let (standing, since) = self.watched().machine.standing();
        (standing, since.elapsed())
    }

    /// Resolves when the service is none of the initiator's any more. Cancel safe.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// It is none of the initiator's any more: nobody asks, and nobody is told.
    pub(super) fn retire(&self) {
        // Under the lock, so that nothing is told behind it.
        let _watched = self.watched();
        self.over.cancel();
        self.board.tell(&self.name, self.teller, None);
    }

    /// An exchange has reached the target. Cheap where that is nothing new.
    pub(super) fn served(&self) {
        if !self.is_calm.load(Ordering::Relaxed) {
            self.note("", |machine, now| machine.served(now));
        }
    }

    /// An exchange has failed; `true`: somebody may have to ask the target from now on, see [`Wellness::starts_asking`].
    #[must_use]
    pub(super) fn failed(&self, failure: &Failure) -> bool {
        let Some(cause) = down_cause(failure.cause()) else { return false };
        self.note(failure.details(), |machine, now| machine.failed(now, cause, rand::random()));
        true
    }

    /// What came of asking the target.
    pub(super) fn checked(&self, outcome: Result<(), (DownCause, String)>) {
        let (outcome, details) = match outcome {
            Ok(()) => (Ok(()), "it was asked, and is well".to_owned()),
            Err((cause, details)) => (Err(cause), details),
        };
        self.note(&details, |machine, now| machine.checked(now, outcome, rand::random()));
    }

    /// Whether the caller is to ask the target from now on: that is due some time, and nobody else does.
    pub(super) fn starts_asking(&self) -> bool {
        let mut watched = self.watched();
        let starts = !watched.is_asked && !self.over.is_cancelled() && watched.machine.deadline().is_some();
        watched.is_asked |= starts;
        starts
    }

    /// When the target is to be asked next; `None`: not any more, and whoever did is done.
    pub(super) fn due(&self) -> Option<Instant> {
        let mut watched = self.watched();
        let due = watched.machine.deadline().filter(|_| !self.over.is_cancelled());
        watched.is_asked = due.is_some();
        due
    }

    /// Whether to ask the target now.
    pub(super) fn begin(&self) -> bool {
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
            self.board.tell(&self.name, self.teller, change.to.down());
            self.say(change, details);
        }
    }

    fn say(&self, Change { to, after }: Change, details: &str) {
        let Some(left_out) = self.lines.pass(Instant::now()) else { return };
        let (service, left_out) = (&self.name, (left_out > 0).then_some(left_out));
        let after_seconds = after.as_secs();
        match to {
            Standing::Down(cause) => {
                let (cause, details) = (cause.label(), shown(&details));
                tracing::warn!(%service, cause, details, after_seconds, left_out, "the service is down");
            }
            Standing::Up | Standing::Unknown => {
                tracing::info!(%service, after_seconds, left_out, "the service is up");
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a failure says of a target; `None`: it is there, or nobody knows.
pub(super) const fn down_cause(cause: Cause) -> Option<DownCause> {
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
pub(super) fn shown(details: &dyn fmt::Display) -> String {
    details.to_string().chars().take(MAX_SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
}
