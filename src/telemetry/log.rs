//! Structured logs on stderr: text for people at a terminal, JSON for everything else.

use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    /// Somebody else was first.
    #[error("the process has a logger already")]
    Taken,
}

/// Sets the process's logger: stderr, `format`, and `level` for adit itself (other crates log from `warn` on), unless
/// [`LOG_VARIABLE`] says otherwise. Programs that embed adit and have their own `tracing` subscriber do not call this.
///
/// # Errors
/// [`LogError`] if the level or the variable cannot be read, or there is a logger already.
pub fn init(format: Format, level: &str) -> Result<(), LogError> {
    let filter = filter(level, std::env::var(LOG_VARIABLE).ok().as_deref())?;
    let terminal = io::stderr().is_terminal();
    let text = match format {
        Format::Auto => terminal,
        Format::Text => true,
        Format::Json => false,
    };
    subscriber(text, terminal, filter, io::stderr).try_init().map_err(|_| LogError::Taken)
}

fn filter(level: &str, variable: Option<&str>) -> Result<EnvFilter, LogError> {
    let own: LevelFilter = level.parse().map_err(|_| LogError::Level { given: level.to_owned() })?;
    match variable.filter(|value| !value.is_empty()) {
        Some(given) => {
            EnvFilter::builder().parse(given).map_err(|source| LogError::Filter { given: given.to_owned(), source })
        }
        None => Ok(EnvFilter::new(format!("{},adit={own}", own.min(LevelFilter::WARN)))),
    }
}

fn subscriber<W>(text: bool, colours: bool, filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = if text {
        lines.with_ansi(colours).with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    };
    registry().with(filter).with(lines)
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
        let subscriber = subscriber(text, false, filter(level, variable).unwrap(), move || writer.clone());
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
    fn the_variable_overrides_the_level() {
        let lines = logged(true, "off", Some("quinn=info"));
        assert!(lines.contains("chatter") && !lines.contains("tunnel open"), "{lines}");
        assert!(logged(true, "info", Some("")).contains("tunnel open"), "an empty one does not");
    }

    #[test]
    fn what_cannot_be_read_says_what_could() {
        assert!(filter("loud", None).unwrap_err().to_string().contains("expected off, error, warn"));
        assert!(filter("info", Some("adit=loud")).unwrap_err().to_string().contains("ADIT_LOG=\"adit=loud\""));
        assert!("xml".parse::<Format>().unwrap_err().to_string().contains("expected auto, text or json"));
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
    }
}
