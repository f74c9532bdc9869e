//! Starting, running and stopping: who is ready, who must finish, when to try again.
//!
//! Row 5: knows nothing of what is being drained, started or retried. Every task of the crate is spawned through a
//! [`DrainWatch`], so none outlives the drain; [`Ready`] says what a start still waits for; [`Backoff`] is a schedule
//! without clock and randomness; [`Signals`] turns SIGTERM and SIGINT into values; [`notify()`] tells the service manager.

mod backoff;
mod drain;
mod moment;
mod notify;
mod ready;
mod signal;

pub use backoff::{Backoff, MAX_RETRY_AFTER, Schedule, ScheduleError};
pub use drain::{Drain, DrainGuard, DrainWatch, Drained, LAST_WORDS};
pub(crate) use moment::moment;
pub use notify::{NOTIFY_VARIABLE, Stand, notify};
pub use ready::{Ready, ReadyGuard};
pub use signal::{Hangups, Signal, Signals};
