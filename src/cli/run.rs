//! `adit run`: the roles of a file, until a signal.

use std::path::Path;
use std::process::ExitCode;

use adit::app::App;
use adit::config::{self, Checked};
use adit::lifecycle::Signals;
use adit::telemetry::log;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

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
    let stop = CancellationToken::new();
    let running = App::build(checked).await?.run(stop.clone().cancelled_owned());
    tokio::pin!(running);
    loop {
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            signal = signals.next() => {
                if stop.is_cancelled() {
                    anyhow::bail!("{} while draining: stopped at once, what still ran was cut", signal.label());
                }
                tracing::info!(signal = signal.label(), "stopping; once more to stop at once");
                stop.cancel();
            }
        }
    }
}

/// One worker is a current-thread runtime: nothing is handed between threads, which is faster per core.
fn runtime(workers: u32) -> std::io::Result<Runtime> {
    match usize::try_from(workers) {
        Ok(workers) if workers > 1 => Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
        _ => super::small_runtime(),
    }
}
