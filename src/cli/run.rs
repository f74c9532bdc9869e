//! `adit run`: the roles of a file, until a signal.

use std::path::Path;
use std::process::ExitCode;

use adit::app::App;
use adit::config::{self, Checked};
use adit::lifecycle::{Drain, Signals};
use adit::telemetry::log;
use tokio::runtime::{Builder, Runtime};

use super::MISUSED;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let checked = match config::load(file, &config::Process) {
        Ok(checked) => checked,
        Err(report) => {
            eprintln!("{report}");
            return Ok(ExitCode::from(MISUSED));
        }
    };
    log::init(checked.log.format, checked.log.level.as_str())?;
    runtime(checked.workers)?.block_on(serve(checked))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(checked: Checked) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let (drain, limit) = (Drain::new(), checked.drain_timeout);
    let running = App::build(checked).await?.run(drain.clone());
    tokio::pin!(running);
    let signal = tokio::select! {
        ended = &mut running => return Ok(ended?),
        signal = signals.next() => signal,
    };
    tracing::info!(signal = signal.label(), "stopping; once more to stop at once");
    drain.begin(limit);
    let signal = tokio::select! {
        ended = &mut running => return Ok(ended?),
        signal = signals.next() => signal,
    };
    // What still runs may say goodbye, and is then cut.
    drain.stop();
    running.await?;
    anyhow::bail!("{} while draining: stopped at once, what still ran was cut", signal.label())
}

/// One worker is a current-thread runtime: nothing is handed between threads, which is faster per core.
fn runtime(workers: u32) -> std::io::Result<Runtime> {
    match usize::try_from(workers) {
        Ok(workers) if workers > 1 => Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
        _ => super::small_runtime(),
    }
}
