//! What concerns the process as a whole: the log, the admin listener, worker threads, the drain deadline.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::config::listeners::Protocol;
use crate::config::reader::At;
use crate::telemetry::log::Format;

const FORMATS: [(&str, Format); 3] = [("auto", Format::Auto), ("text", Format::Text), ("json", Format::Json)];

/// `log`: what is written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct LogConfig {
    /// `level`: the least severe line that is written. Default `info`.
    pub level: LogLevel,
    /// `format`: how a line looks. Default `auto`: text on a terminal, JSON otherwise.
    #[serde(serialize_with = "format_as_written")]
    pub format: Format,
}

/// How severe a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs somebody to act.
    Error,
    /// Also what may need somebody to act.
    Warn,
    /// Also each change of state: one or a few lines per tunnel.
    #[default]
    Info,
    /// Also the details of each tunnel and failure.
    Debug,
    /// Everything; costs throughput.
    Trace,
}

impl LogLevel {
    /// The word in the file and in log directives.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `admin`: where the admin listener is reached: `ip:port`, or `unix:` and a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum AdminAddress {
    /// A TCP listener; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, mode 0600.
    Unix(PathBuf),
}

/// Why a text is not an admin address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not an admin address; expected ip:port such as 127.0.0.1:9901, or unix:/path")]
pub struct AdminAddressError;

impl FromStr for AdminAddress {
    type Err = AdminAddressError;

    fn from_str(text: &str) -> Result<Self, AdminAddressError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(AdminAddressError),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_| AdminAddressError),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<AdminAddress> for String {
    fn from(address: AdminAddress) -> Self {
        address.to_string()
    }
}

pub(super) fn log(at: At<'_>) -> Option<LogConfig> {
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    at.section(|section| {
        Some(LogConfig {
            level: section.or("level", LogLevel::default(), |at| {
                at.word(&[Error, Warn, Info, Debug, Trace].map(|level| (level.as_str(), level)))
            }),
            format: section.or("format", Format::default(), |at| at.word(&FORMATS)),
        })
    })
}

pub(super) fn admin(at: At<'_>) -> Option<AdminAddress> {
    let address = at.parsed()?;
    match &address {
        AdminAddress::Tcp(address) => at.listens(Protocol::Tcp, *address),
        AdminAddress::Unix(path) => return Some(AdminAddress::Unix(at.resolve(path))),
    }
    Some(address)
}

fn format_as_written<S: Serializer>(format: &Format, serializer: S) -> Result<S::Ok, S::Error> {
    let word = FORMATS.iter().find(|(_, known)| known == format).map(|(word, _)| *word);
    word.serialize(serializer)
}
