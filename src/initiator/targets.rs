//! The local services behind the initiator, and how an exchange reaches them.
//!
//! A target is named in the configuration and nowhere else; nothing a request carries changes what is dialled.
//! HTTP/1.1 connections are reused, one exchange at a time; h2c targets share one connection.
//!
//! Bodies stream both ways. A body that was cut is an error, never a clean end: a cut upload leaves the target with an
//! incomplete message, a cut download leaves the caller with an error. Dropping an exchange, as a future or as a
//! response body, ends it at the target at once: HTTP/1.1 closes its connection, HTTP/2 resets its stream.

mod body;
mod connect;
mod http1;
mod http2;
mod outbound;
mod pool;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response};
use http_body::Body;

pub use self::body::TargetBody;
use self::connect::Address;
use self::outbound::Outbound;
use self::upload::Upload;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::protocol::limits;

/// How long a target may take to accept a connection.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept. Targets often give up after 60 to 75 s; ours should be gone before.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many unused connections are kept per target.
pub const DEFAULT_MAX_IDLE: usize = 64;
/// The most bytes in the head of a target's response.
pub const DEFAULT_HEAD_BYTES: usize = limits::DEFAULT_HEAD_BYTES as usize;
/// The most fields in the head of a target's response.
pub const DEFAULT_HEAD_FIELDS: usize = limits::DEFAULT_HEAD_FIELDS as usize;

/// Where a service is, and what it speaks there.
///
/// Written `http://host:port`, `h2c://host:port`, `unix:/path` (HTTP/1.1) or `unix+h2c:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    address: Address,
    speaks: Speaks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The scheme is unknown or not there yet.
    #[error("{0:?} is not a target; expected http://host:port, h2c://host:port, unix:/path or unix+h2c:/path")]
    Scheme(String),
    /// What follows the scheme is not a host with an optional port.
    #[error("{0:?} does not name a host; expected host or host:port and nothing behind it")]
    Host(String),
    /// A unix target without an absolute path.
    #[error("{0:?} does not name a socket; expected an absolute path")]
    Path(String),
}

impl Target {
    /// Reads a target; the error says what would be accepted. A missing port is 80.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(rest) = text.strip_prefix("http://") {
            Ok(Self { address: tcp(rest)?, speaks: Speaks::Http1 })
        } else if let Some(rest) = text.strip_prefix("h2c://") {
            Ok(Self { address: tcp(rest)?, speaks: Speaks::Http2 })
        } else if let Some(rest) = text.strip_prefix("unix+h2c:") {
            Ok(Self { address: unix(rest)?, speaks: Speaks::Http2 })
        } else if let Some(rest) = text.strip_prefix("unix:") {
            Ok(Self { address: unix(rest)?, speaks: Speaks::Http1 })
        } else {
            Err(TargetError::Scheme(text.to_owned()))
        }
    }
}

fn tcp(rest: &str) -> Result<Address, TargetError> {
    let wrong = || TargetError::Host(rest.to_owned());
    let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| wrong())?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port_is_sound = authority.port_u16().is_some() || authority.as_str().len() == authority.host().len();
    if host.is_empty() || authority.as_str().contains('@') || !port_is_sound {
        return Err(wrong());
    }
    Ok(Address::Tcp { host: host.to_owned(), port: authority.port_u16().unwrap_or(80) })
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
            (Address::Tcp { .. }, Speaks::Http1) => write!(f, "http://{}", self.address),
            (Address::Tcp { .. }, Speaks::Http2) => write!(f, "h2c://{}", self.address),
            (Address::Unix(_), Speaks::Http1) => write!(f, "unix:{}", self.address),
            (Address::Unix(_), Speaks::Http2) => write!(f, "unix+h2c:{}", self.address),
        }
    }
}

/// How connections to a target are made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSettings {
    /// Gives up dialling; default 5 s. A request that waits for a connection waits no longer than this.
    pub connect_timeout: Duration,
    /// Closes a connection unused for this long; default 60 s. Longer than the target's own limit costs retries.
    pub idle_timeout: Duration,
    /// Unused HTTP/1.1 connections kept; default 64. Each costs a socket here and one at the target.
    pub max_idle: usize,
    /// The most bytes in a response head; default 64 KiB. Beyond: 502.
    pub head_bytes: usize,
    /// The most fields in a response head; default 100. Beyond: 502.
    pub head_fields: usize,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            max_idle: DEFAULT_MAX_IDLE,
            head_bytes: DEFAULT_HEAD_BYTES,
            head_fields: DEFAULT_HEAD_FIELDS,
        }
    }
}

/// Exchanges with one target. Clones share its connections.
#[derive(Clone)]
pub struct TargetClient(Client);

#[derive(Clone)]
enum Client {
    Http1(http1::Client),
    Http2(Arc<http2::Client>),
}

impl TargetClient {
    /// A client without a connection yet; the first exchange makes one.
    pub fn new(target: &Target, settings: TargetSettings) -> Self {
        let address = target.address.clone();
        Self(match target.speaks {
            Speaks::Http1 => Client::Http1(http1::Client::new(address, settings)),
            Speaks::Http2 => Client::Http2(Arc::new(http2::Client::new(address, settings))),
        })
    }

    /// Sends the request and waits for the head of the final response.
    ///
    /// 1xx responses go to the [`InformationalSink`](crate::message::interim::InformationalSink) among the request's
    /// extensions, if there is one.
    ///
    /// # Errors
    ///
    /// No response: the target could not be reached, broke HTTP, or the request's own body failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the exchange at the target; the request may have been processed or not.
    pub async fn exchange<B>(&self, request: Request<B>) -> Result<Response<TargetBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let upload = Upload::read(body).await?;
        let outbound = Outbound::new(head, &upload)?;
        let mut response = match &self.0 {
            Client::Http1(client) => client.exchange(outbound, upload).await?,
            Client::Http2(client) => client.exchange(outbound, upload).await?,
        };
        if response.status().is_informational() {
            return Err(Failure::new(Cause::TargetProtocol, "the target switched protocols without being asked"));
        }
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }
}
