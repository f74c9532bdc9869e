//! Whether the targets of an initiator can be had, and who is told.
//!
//! What requests meet decides (passive), and where a service asks for it checks of its own (active). A service that is down is
//! none that is refused: requests that come are sent all the same, and one that succeeds ends it. Responders are told, so that
//! those which may go to another node do. spec: CT-58 to CT-61

mod board;

pub use crate::targets::health::{CheckRules, Standing};
pub use board::HealthBoard;
