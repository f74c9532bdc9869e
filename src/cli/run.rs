//! `adit run`: the roles of a file, until a signal.

use std::path::Path;
use std::process::ExitCode;

use adit::app::{App, AppError, Handle};
use adit::config::{Checked, Source};
use adit::lifecycle::{Drain, DrainWatch, Hangups, Signals, Stand, notify};
use adit::net;
use adit::telemetry::log;
use tokio::runtime::{Builder, Runtime};

use super::MISUSED;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let source = Source::file(file);
    let checked = match source.load() {
        Ok(checked) => checked,
        Err(report) => {
            log::say(&format!("{report}\n"));
            return Ok(ExitCode::from(MISUSED));
        }
    };
    log::init(checked.log.format, checked.log.level.as_str())?;
    start_line(file, &checked);
    if let Err(error) = net::raise_descriptors() {
        tracing::warn!(%error, limit = net::descriptors(), "the limit of open files cannot be raised");
    }
    let runtime = runtime(checked.workers)?;
    let served = runtime.block_on(serve(source, checked));
    // A name that is still being resolved, for one, would hold the end up.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

/// What runs, in the first line of every log.
fn start_line(file: &Path, checked: &Checked) {
    let roles = [("responder", checked.responder.is_some()), ("initiator", checked.initiator.is_some())];
    let roles: Vec<&str> = roles.into_iter().filter_map(|(role, runs)| runs.then_some(role)).collect();
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        file = %file.display(),
        pid = std::process::id(),
        roles = roles.join(" and "),
        "adit starts"
    );
}

async fn serve(source: Source, checked: Checked) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let drain = Drain::new();
    let app = App::build(checked).await?.read_from(source);
    let handle = app.handle();
    let reloading = signals.hangups().map(|hangups| tokio::spawn(reload(hangups, handle.clone(), drain.watch())));
    let running = app.run(drain.clone());
    tell(Stand::Ready);
    let running = async {
        tokio::pin!(running);
        let drained = drain.watch();
        tokio::select! {
            ended = &mut running => return ended,
            () = drained.announced() => tell(Stand::Stopping(handle.settings().lame_duck + drained.limit())),
        }
        running.await
    };
    let stopped = stop(running, &mut signals, (&drain, &handle)).await;
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    stopped
}

/// Runs until a signal asks to stop, and a second one to stop at once.
async fn stop(
    running: impl Future<Output = Result<(), AppError>>,
    signals: &mut Signals,
    (drain, handle): (&Drain, &Handle),
) -> anyhow::Result<()> {
    tokio::pin!(running);
    let signal = tokio::select! {
        ended = &mut running => return Ok(ended?),
        signal = signals.next() => signal,
    };
    tracing::info!(signal = signal.label(), "stopping; once more to stop at once");
    drain.begin(handle.settings().drain_timeout);
    let signal = tokio::select! {
        ended = &mut running => return Ok(ended?),
        signal = signals.next() => signal,
    };
    // What still runs may say goodbye, and is then cut.
    drain.stop();
    running.await?;
    anyhow::bail!("{} while draining: stopped at once, what still ran was cut", signal.label())
}

/// Reads the file again at each SIGHUP, until the process drains. What comes of it is in the log.
async fn reload(mut hangups: Hangups, handle: Handle, draining: DrainWatch) {
    loop {
        hangups.next().await;
        tracing::info!(signal = "SIGHUP", "reading the file again");
        if draining.is_draining() {
            tracing::info!("the process drains: the file is not read again");
            continue;
        }
        tell(Stand::Reloading);
        // The handle says it.
        let _ = handle.reload().await;
        if !draining.is_draining() {
            tell(Stand::Ready);
        }
    }
}

/// Tells the service manager how the process stands.
fn tell(stand: Stand) {
    if let Err(error) = notify(stand) {
        tracing::warn!(%error, ?stand, "the service manager cannot be told");
    }
}

/// One worker is a current-thread runtime: nothing is handed between threads, which is faster per core.
fn runtime(workers: u32) -> std::io::Result<Runtime> {
    match usize::try_from(workers) {
        Ok(workers) if workers > 1 => Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
        _ => super::small_runtime(),
    }
}
