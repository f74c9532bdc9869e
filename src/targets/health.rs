//! Whether a target can be had.
//!
//! What exchanges meet decides (passive), and where it is asked for checks of its own (active). What follows from that is for
//! whoever has the target to say.

pub(crate) mod checks;
mod machine;
mod wellness;

pub use checks::{Asks, HealthCheck};
pub(crate) use machine::Change;
pub use machine::{CheckRules, Standing};
pub(crate) use wellness::{Told, Wellness, shown};
