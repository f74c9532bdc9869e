//! The `adit` command.

use std::process::ExitCode;

mod cli;

/// Every exchange allocates a few dozen times; the system's allocator took a tenth of the processor time for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
