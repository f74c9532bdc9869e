//! The `adit` command.

use std::process::ExitCode;

mod cli;

/// Gives back to the system, within seconds, what connections that have gone have held; glibc's keeps most of it.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
