//! What concerns the process as a whole: the log, the admin listener, worker threads, the drain deadline, reloads.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
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

/// `admin`: where the admin listener is reached: `ip:port`, `localhost:port`, or a path of a Unix socket, alone or behind
/// `unix:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum AdminAddress {
    /// A TCP listener; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, mode 0600.
    Unix(PathBuf),
}

/// Why a text is not an admin address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdminAddressError {
    /// It is a URL.
    #[error("is a URL; expected ip:port alone, such as 127.0.0.1:9901, or unix:/path")]
    Url,
    /// There is a port and no address that could be bound.
    #[error(
        "names a host, and names are not resolved here; expected ip:port such as 127.0.0.1:9901, localhost:9901, or unix:/path"
    )]
    Name,
    /// It is something else.
    #[error("is not an admin address; expected ip:port such as 127.0.0.1:9901, localhost:9901, or unix:/path")]
    Form,
}

impl FromStr for AdminAddress {
    type Err = AdminAddressError;

    fn from_str(text: &str) -> Result<Self, AdminAddressError> {
        let path = text.strip_prefix("unix:").or_else(|| Some(text).filter(|text| text.starts_with(['/', '.'])));
        match path {
            Some("") => return Err(AdminAddressError::Form),
            Some(path) => return Ok(Self::Unix(PathBuf::from(path))),
            None => {}
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        if text.contains("://") {
            return Err(AdminAddressError::Url);
        }
        match text.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse::<u16>().map_err(|_| AdminAddressError::Form)?;
                // The one name that every system means the same by.
                let is_loopback = host.eq_ignore_ascii_case("localhost");
                let loopback = || Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
                is_loopback.then(loopback).ok_or(if host.is_empty() {
                    AdminAddressError::Form
                } else {
                    AdminAddressError::Name
                })
            }
            None => Err(AdminAddressError::Form),
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

/// `metrics`: what can be scraped, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct MetricsConfig {
    /// `listen`: a listener for reading only: metrics and health, nothing that changes or tells more. None when absent.
    pub listen: Option<SocketAddr>,
    /// `names`: whether there are series that bear the names of tenants, clusters and nodes. Default false: names are told
    /// to whoever scrapes, and each one is a series of its own.
    pub names: bool,
}

/// `reload`: when the file is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct ReloadConfig {
    /// `watch`: whether it is read again when it, or a file that it names, has another content. Default false: only when
    /// somebody asks for it.
    pub watch: bool,
}

pub(super) fn reload(at: At<'_>) -> Option<ReloadConfig> {
    at.section(|section| Some(ReloadConfig { watch: section.or("watch", false, |at| at.boolean()) }))
}

pub(super) fn metrics(at: At<'_>) -> Option<MetricsConfig> {
    at.section(|section| {
        Some(MetricsConfig {
            listen: section.optional("listen", |at| at.listener(&[Protocol::Tcp])),
            names: section.or("names", false, |at| at.boolean()),
        })
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_what_operators_write() {
        for (text, address) in [
            ("127.0.0.1:9901", "127.0.0.1:9901"),
            ("[::1]:9901", "[::1]:9901"),
            ("localhost:9901", "127.0.0.1:9901"),
            ("LOCALHOST:0", "127.0.0.1:0"),
            ("unix:/run/adit.sock", "unix:/run/adit.sock"),
            ("unix:edge.sock", "unix:edge.sock"),
            ("/run/adit.sock", "unix:/run/adit.sock"),
            ("./adit.sock", "unix:./adit.sock"),
        ] {
            assert_eq!(text.parse::<AdminAddress>().map(|parsed| parsed.to_string()).as_deref(), Ok(address), "{text}");
        }
        use AdminAddressError::{Form, Name, Url};
        for (text, error) in [
            ("http://127.0.0.1:9901", Url),
            ("admin.example.com:9901", Name),
            ("nowhere", Form),
            ("9901", Form),
            (":9901", Form),
            ("unix:", Form),
            ("localhost:65536", Form),
            ("", Form),
        ] {
            assert_eq!(text.parse::<AdminAddress>(), Err(error), "{text}");
        }
    }
}
