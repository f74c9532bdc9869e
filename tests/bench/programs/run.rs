//! One program over one transport: what it did, step by step, and that it comes to an end.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, Site, Transport};
use crate::support::tools;

/// The longest that one may take, beside what bytes take at [`SLOW`].
const LIMIT: Duration = Duration::from_secs(600);
/// Bytes a second, of a file that goes there and back, below which nobody waits.
const SLOW: u64 = 2 << 20;
/// The longest that a single command may take, beside the same.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// How much is to be moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Of a file.
    pub(crate) bytes: u64,
    /// Of a load that goes by time.
    pub(crate) seconds: u64,
}

impl Size {
    /// What it may add to any limit.
    fn allowance(self) -> Duration {
        Duration::from_secs(self.bytes / SLOW + self.seconds)
    }
}

/// What a program is told, and where it says what it did.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) transport: Transport,
    pub(crate) size: Size,
    steps: Arc<Mutex<Vec<Step>>>,
}

struct Step {
    what: String,
    result: Option<String>,
}

/// What came of it.
pub(crate) struct Outcome {
    /// What ran, and its result.
    pub(crate) steps: Vec<(String, String)>,
    pub(crate) failed: bool,
}

impl Run {
    /// Begins a step: it is the one that failed, where nothing more is said of it.
    pub(crate) fn begin(&self, what: impl Into<String>) {
        self.steps.lock().unwrap().push(Step { what: what.into(), result: None });
    }

    /// Ends the step that began last.
    pub(crate) fn done(&self, result: impl Into<String>) {
        self.steps.lock().unwrap().last_mut().unwrap().result = Some(result.into());
    }

    /// Runs a command to its end, which must be a good one: what it printed, and how long it took.
    pub(crate) async fn command(&self, name: &'static str, command: Command) -> (String, Duration) {
        let begun = Instant::now();
        let mut program = Program::spawn(name, command);
        let status = program.finish(COMMAND_LIMIT + self.size.allowance()).await;
        assert!(status.success(), "{name}: {status}: {}", program.log());
        (program.log(), begun.elapsed())
    }

    /// A site that exports a target of bytes, in front of which there is a listener.
    pub(crate) async fn bytes_to(&self, target: impl std::fmt::Display) -> Site {
        let edge = Edge::new(self.transport).service(&format!("{{ name: it, target: \"tcp://{target}\" }}"));
        Site::with(Cloud::new().and_tcp("it"), edge).await
    }

    /// The same for datagrams.
    pub(crate) async fn datagrams_to(&self, target: impl std::fmt::Display) -> Site {
        let edge = Edge::new(self.transport).service(&format!("{{ name: it, target: \"udp://{target}\" }}"));
        Site::with(Cloud::new().and_udp("it"), edge).await
    }
}

/// Runs `body` to its end, or to that of its time. Where it panics, the step that it was in has failed.
pub(crate) async fn supervise<F>(transport: Transport, size: Size, body: impl FnOnce(Run) -> F) -> Outcome
where
    F: Future<Output = ()> + 'static,
{
    let run = Run { transport, size, steps: Arc::default() };
    let limit = LIMIT + 2 * size.allowance();
    let task = tokio::time::timeout(limit, body(run.clone()));
    let ended = LocalSet::new().run_until(async { tokio::task::spawn_local(task).await }).await;
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(format!("not done after {limit:?}")),
        Err(error) => Some(said(error)),
    };
    let mut steps: Vec<(String, String)> = Vec::new();
    for step in run.steps.lock().unwrap().drain(..) {
        steps.push((step.what, step.result.unwrap_or_default()));
    }
    let failed = failure.is_some();
    if let Some(why) = failure {
        let why = format!("FAILED: {}", why.lines().map(str::trim).collect::<Vec<_>>().join(" "));
        match steps.last_mut().filter(|(_, result)| result.is_empty()) {
            Some((_, result)) => *result = why,
            None => steps.push(("what it needs".to_owned(), why)),
        }
    }
    Outcome { steps, failed }
}

/// What a task said when it panicked.
fn said(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was stopped".to_owned() };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// Those of these programs that are not on the path.
pub(crate) fn not_on_path(programs: &[&'static str]) -> Vec<&'static str> {
    programs.iter().copied().filter(|program| tools::on_path(program).is_none()).collect()
}

/// Whether this process may have namespaces of its own, of this kind: `--mount`, `--net`.
pub(crate) fn may_unshare(kind: &str) -> bool {
    let tried = Command::new("unshare").args([kind, "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Bytes in a time, in words.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{mib:.0} MiB in {:.1} s, {:.0} MiB/s", time.as_secs_f64(), mib / time.as_secs_f64())
}
