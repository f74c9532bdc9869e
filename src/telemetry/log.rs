//! Structured logs on stderr: text for people at a terminal, JSON for everything else.
//!
//! Whoever logs never waits: lines go through a bounded queue to a thread that writes them. What finds no room is dropped,
//! counted ([`dropped`]) and said in a later line; a flood of one kind is cut, and how much was left out is said.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::panic;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, registry, reload};

mod limits;
mod queue;

use limits::{LeftOut, Limits};
use queue::{Pen, Queue};

/// The target of lines about the log itself.
const TARGET: &str = "adit::log";
/// How long the last lines may take when the process ends.
const LAST_LINES: Duration = Duration::from_secs(1);
/// What leads to standard error, once somebody wrote.
static STDERR: OnceLock<Queue> = OnceLock::new();
/// What decides which lines are written, once there is a logger whose level the settings say.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The environment variable that overrides the level: any filter that `tracing_subscriber::EnvFilter` takes, such as
/// `adit=debug,quinn=info`.
pub const LOG_VARIABLE: &str = "ADIT_LOG";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// [`Format::Text`] if stderr is a terminal, else [`Format::Json`].
    #[default]
    Auto,
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = LogError;
    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format { given: text.to_owned() }),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Not a format.
    #[error("\"{given}\" is not a log format; expected auto, text or json")]
    Format {
        /// What was given.
        given: String,
    },
    /// Not a level.
    #[error("\"{given}\" is not a log level; expected off, error, warn, info, debug or trace")]
    Level {
        /// What was given.
        given: String,
    },
    /// Not a filter.
    #[error("{LOG_VARIABLE}=\"{given}\" is not a log filter; expected a level, or a list like adit=debug,quinn=info")]
    Filter {
        /// What was given.
        given: String,
        /// What the parser says.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is no thread for it.
    #[error("the log's writer cannot be started")]
    Writer {
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else was first.
    #[error("the process has a logger already")]
    Taken,
}

/// Sets the process's logger: stderr, `format`, and `level` for adit itself (other crates log from `warn` on), unless
/// [`LOG_VARIABLE`] says otherwise. Panics are logged, too. Programs that embed adit and have their own `tracing` subscriber
/// do not call this. Before the process ends, [`finish`] waits for the last lines.
///
/// # Errors
/// [`LogError`] if the level or the variable cannot be read, or there is a logger already.
pub fn init(format: Format, level: &str) -> Result<(), LogError> {
    let variable = std::env::var(LOG_VARIABLE).ok().filter(|value| !value.is_empty());
    let (filter, handle) = reload::Layer::new(filter(level, variable.as_deref())?);
    let terminal = io::stderr().is_terminal();
    let text = match format {
        Format::Auto => terminal,
        Format::Text => true,
        Format::Json => false,
    };
    let (queue, limits) = (Queue::default(), Limits::default());
    let subscriber = subscriber(text, terminal, filter, limits.clone(), || Pen(STDERR.get_or_init(Queue::default)));
    STDERR.set(queue.clone()).map_err(|_| LogError::Taken)?;
    queue.start(stderr(), report(limits)).map_err(|source| LogError::Writer { source })?;
    subscriber.try_init().map_err(|_| LogError::Taken)?;
    if variable.is_none() {
        let _ = LEVEL.set(handle);
    }
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Writes lines of another level from now on. Returns whether it does: where [`LOG_VARIABLE`] says what is written, and in a
/// program with a logger of its own, nothing changes.
///
/// # Errors
/// [`LogError::Level`]; nothing has changed then.
pub fn set_level(level: &str) -> Result<bool, LogError> {
    let filter = filter(level, None)?;
    Ok(LEVEL.get().is_some_and(|handle| handle.reload(filter).is_ok()))
}

/// Writes text to standard error behind the lines that wait for it, without waiting. Before [`init`], or without it, at
/// once.
pub fn say(text: &str) {
    match STDERR.get() {
        Some(queue) => queue.push(text.as_bytes()),
        // Nothing can be done about a standard error that takes nothing.
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits for the lines that were logged so far, for a second at most. To be called before the process ends.
pub fn finish() {
    if let Some(queue) = STDERR.get() {
        queue.flush(LAST_LINES);
    }
}

/// Lines that were logged and not written, because standard error did not take them: a pipe that nobody reads, a full disk.
pub fn dropped() -> u64 {
    STDERR.get().map_or(0, Queue::dropped)
}

/// Standard error without the lock of the standard library, which a writer that is stuck would hold.
fn stderr() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(owned) => Box::new(File::from(owned)),
        Err(_) => Box::new(io::stderr()),
    }
}

/// Says what is missing in the log: lines dropped, and lines left out.
fn report(limits: Limits) -> impl FnMut(u64) {
    let mut said = 0;
    move |dropped| {
        if dropped > said {
            let lines = dropped - std::mem::replace(&mut said, dropped);
            tracing::warn!(target: TARGET, lines, total = dropped, "log lines were dropped: stderr did not take them");
        }
        for LeftOut { level, message, lines } in limits.ended(Instant::now()) {
            if level == tracing::Level::INFO {
                tracing::info!(target: TARGET, lines, of = message, "more lines of this kind were left out");
            } else {
                tracing::warn!(target: TARGET, lines, of = message, "more lines of this kind were left out");
            }
        }
    }
}

/// The hook of the standard library would wait for standard error.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let backtrace = std::backtrace::Backtrace::capture();
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name(),
        place = panic.location().map(tracing::field::display),
        backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then(|| backtrace.to_string()),
        "a task panicked, which is a fault of adit: {}",
        panic.payload_as_str().unwrap_or("no text")
    );
}

fn filter(level: &str, variable: Option<&str>) -> Result<EnvFilter, LogError> {
    let own: LevelFilter = level.parse().map_err(|_| LogError::Level { given: level.to_owned() })?;
    match variable.filter(|value| !value.is_empty()) {
        // What is only the name of a target turns all else off, and is most often a level with a mistake in it.
        Some(given) if !given.contains(['=', ',', '[', ':']) && given.trim().parse::<LevelFilter>().is_err() => {
            Err(LogError::Level { given: given.to_owned() })
        }
        Some(given) => {
            EnvFilter::builder().parse(given).map_err(|source| LogError::Filter { given: given.to_owned(), source })
        }
        // What quinn says of a packet that the system did not take is in its words; the tunnel says what came of it.
        None => {
            let (others, packets) = (own.min(LevelFilter::WARN), own.min(LevelFilter::ERROR));
            Ok(EnvFilter::new(format!("{others},quinn_udp={packets},adit={own}")))
        }
    }
}

fn subscriber<W>(
    text: bool,
    colours: bool,
    filter: reload::Layer<EnvFilter, Registry>,
    limits: Limits,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = if text {
        lines.with_ansi(colours).with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    };
    registry().with(filter).with(limits).with(lines)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(text: bool, level: &str, variable: Option<&str>) -> String {
        let page = Page::default();
        let writer = page.clone();
        let (filter, _) = reload::Layer::new(filter(level, variable).unwrap());
        let subscriber = subscriber(text, false, filter, Limits::default(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("tunnel", node = "edge-17");
            let _entered = span.enter();
            tracing::info!(rtt_ms = 80, "tunnel open");
            tracing::debug!("a detail");
            tracing::info!(target: "quinn", "chatter");
            tracing::warn!(target: "quinn", "trouble");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_carry_fields_and_the_span() {
        let lines = logged(false, "info", None);
        let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(first["level"], "INFO");
        assert_eq!(first["message"], "tunnel open");
        assert_eq!(first["rtt_ms"], 80);
        assert_eq!(first["span"]["node"], "edge-17");
        assert!(first["timestamp"].is_string());
    }

    #[test]
    fn text_lines_are_without_colours_unless_asked_for() {
        let lines = logged(true, "info", None);
        assert!(
            lines.lines().next().unwrap().contains("INFO tunnel{node=\"edge-17\"}: tunnel open rtt_ms=80"),
            "{lines}"
        );
        assert!(!lines.contains('\u{1b}'));
    }

    #[test]
    fn the_level_is_that_of_adit_and_others_only_warn() {
        let lines = logged(true, "debug", None);
        assert!(lines.contains("a detail") && lines.contains("trouble") && !lines.contains("chatter"), "{lines}");
        let lines = logged(true, "error", None);
        assert_eq!(lines, "", "a level above warn silences others too");
    }

    #[test]
    fn another_level_holds_for_the_next_line() {
        let (page, (filter, level)) = (Page::default(), reload::Layer::new(filter("info", None).unwrap()));
        let writer = page.clone();
        let subscriber = subscriber(true, false, filter, Limits::default(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let say = |text: &str| tracing::debug!("{text}");
            say("first");
            level.reload(super::filter("debug", None).unwrap()).unwrap();
            say("second");
        });
        let lines = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert!(!lines.contains("first") && lines.contains("second"), "{lines}");
    }

    #[test]
    fn the_variable_overrides_the_level() {
        let lines = logged(true, "off", Some("quinn=info"));
        assert!(lines.contains("chatter") && !lines.contains("tunnel open"), "{lines}");
        assert!(logged(true, "info", Some("")).contains("tunnel open"), "an empty one does not");
    }

    #[test]
    fn what_cannot_be_read_says_what_could() {
        assert!(filter("loud", None).unwrap_err().to_string().contains("expected off, error, warn"));
        assert!(filter("info", Some("warning")).unwrap_err().to_string().contains("\"warning\" is not a log level"));
        assert!(filter("info", Some("adit=loud")).unwrap_err().to_string().contains("ADIT_LOG=\"adit=loud\""));
        assert!("xml".parse::<Format>().unwrap_err().to_string().contains("expected auto, text or json"));
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
    }
}
