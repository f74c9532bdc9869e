//! What a configuration says of a target: where it is, and what it speaks there.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

/// Where a service is, and what it speaks there.
///
/// Written `http://host:port`, `h2c://host:port`, `https://host:port` (HTTP/1.1 over TLS), `h2://host:port` (HTTP/2 over TLS),
/// `unix:/path` (HTTP/1.1) or `unix+h2c:/path`; and for bytes as they come `tcp://host:port` or `unix+raw:/path`;
/// for datagrams `udp://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) address: Address,
    pub(super) speaks: Speaks,
    pub(super) is_secure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
    /// Whatever its clients do.
    Raw,
    /// The same, in datagrams.
    Udp,
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The scheme is unknown or not there yet.
    #[error(
        "{0:?} is not a target; expected http://host:port, h2c://host:port, https://host:port, h2://host:port, unix:/path or \
         unix+h2c:/path, for bytes tcp://host:port or unix+raw:/path, or for datagrams udp://host:port"
    )]
    Scheme(String),
    /// What follows the scheme is not a host with an optional port.
    #[error("{0:?} does not name a host; expected host or host:port and nothing behind it")]
    Host(String),
    /// A target of bytes without a port: there is no usual one.
    #[error("{0:?} has no port; expected tcp://host:port or udp://host:port")]
    Port(String),
    /// Nobody listens on port 0.
    #[error("{0:?} has port 0, on which nobody listens; expected host:port with a port of 1 to 65535")]
    NoPort(String),
    /// A unix target without an absolute path.
    #[error("{0:?} does not name a socket; expected an absolute path")]
    Path(String),
}

impl Target {
    /// Reads a target; the error says what would be accepted. A missing port is 80, over TLS 443.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        use Speaks::{Http1, Http2, Raw};
        for (scheme, speaks, is_secure) in
            [("http://", Http1, false), ("h2c://", Http2, false), ("https://", Http1, true), ("h2://", Http2, true)]
        {
            if let Some(rest) = text.strip_prefix(scheme) {
                let port = if is_secure { 443 } else { 80 };
                return Ok(Self { address: tcp(rest, Some(port))?, speaks, is_secure });
            }
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            return Ok(Self { address: tcp(rest, None)?, speaks: Raw, is_secure: false });
        }
        if let Some(rest) = text.strip_prefix("udp://") {
            return Ok(Self { address: tcp(rest, None)?, speaks: Speaks::Udp, is_secure: false });
        }
        for (scheme, speaks) in [("unix+h2c:", Http2), ("unix+raw:", Raw), ("unix:", Http1)] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return Ok(Self { address: unix(rest)?, speaks, is_secure: false });
            }
        }
        Err(TargetError::Scheme(text.to_owned()))
    }

    /// Whether it takes bytes as they come, and no requests.
    pub fn is_raw(&self) -> bool {
        self.speaks == Speaks::Raw
    }

    /// What it is asked for as where no request says it: host and port, and localhost for a socket in the file system.
    pub(crate) fn authority(&self) -> String {
        match &self.address {
            Address::Tcp { .. } => self.address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Its host, without brackets, and its port; `None` for a socket in the file system.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match &self.address {
            Address::Tcp { host, port } => Some((host, *port)),
            Address::Unix(_) => None,
        }
    }

    /// Whether all its exchanges share one connection.
    pub fn shares_one_connection(&self) -> bool {
        self.speaks == Speaks::Http2
    }

    /// Its address, where it is written as one: what stands there for good, as a name does not.
    pub fn literal(&self) -> Option<IpAddr> {
        match &self.address {
            Address::Tcp { host, .. } => host.parse().ok(),
            Address::Unix(_) => None,
        }
    }

    /// Whether it takes datagrams, and neither requests nor bytes.
    pub fn is_udp(&self) -> bool {
        self.speaks == Speaks::Udp
    }

    /// Whether it is reached over TLS, and so needs [`TargetSettings::tls`](super::TargetSettings::tls).
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }
}

/// `port`: the one that is meant where none is said.
fn tcp(rest: &str, port: Option<u16>) -> Result<Address, TargetError> {
    let wrong = || TargetError::Host(rest.to_owned());
    let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| wrong())?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port_is_sound = authority.port_u16().is_some() || authority.as_str().len() == authority.host().len();
    if host.is_empty() || authority.as_str().contains('@') || !port_is_sound {
        return Err(wrong());
    }
    let port = authority.port_u16().or(port).ok_or_else(|| TargetError::Port(rest.to_owned()))?;
    if port == 0 {
        return Err(TargetError::NoPort(rest.to_owned()));
    }
    Ok(Address::Tcp { host: host.to_owned(), port })
}

fn unix(rest: &str) -> Result<Address, TargetError> {
    let path = PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
    if path.is_absolute() { Ok(Address::Unix(path)) } else { Err(TargetError::Path(rest.to_owned())) }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.speaks) {
            (Address::Tcp { .. }, Speaks::Http1) if self.is_secure => write!(f, "https://{}", self.address),
            (Address::Tcp { .. }, Speaks::Http2) if self.is_secure => write!(f, "h2://{}", self.address),
            (Address::Tcp { .. }, Speaks::Http1) => write!(f, "http://{}", self.address),
            (Address::Tcp { .. }, Speaks::Http2) => write!(f, "h2c://{}", self.address),
            (Address::Tcp { .. }, Speaks::Raw) => write!(f, "tcp://{}", self.address),
            (Address::Tcp { .. }, Speaks::Udp) => write!(f, "udp://{}", self.address),
            (Address::Unix(_), Speaks::Raw | Speaks::Udp) => write!(f, "unix+raw:{}", self.address),
            (Address::Unix(_), Speaks::Http1) => write!(f, "unix:{}", self.address),
            (Address::Unix(_), Speaks::Http2) => write!(f, "unix+h2c:{}", self.address),
        }
    }
}

/// Where a target listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A name or an IP address, asked for again at each connection; and so for datagrams.
    Tcp { host: String, port: u16 },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
