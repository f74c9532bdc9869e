//! What has to hold, and whether it did.

use std::process::ExitCode;

/// Counts what did not hold.
#[derive(Default)]
pub(crate) struct Promises {
    broken: usize,
}

impl Promises {
    /// Prints the promise with its figures.
    pub(crate) fn expect(&mut self, kept: bool, promise: &str) {
        println!("{} {promise}", if kept { "kept  " } else { "BROKEN" });
        self.broken += usize::from(!kept);
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
