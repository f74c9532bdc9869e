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
mod expectation;
mod halves;
mod http1;
mod http2;
mod outbound;
mod settings;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::uri::Authority;
use http::{Request, Response, request};
use http_body::Body;

pub use self::body::TargetBody;
use self::connect::Address;
use self::outbound::Outbound;
pub use self::settings::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_HEAD_BYTES, DEFAULT_HEAD_FIELDS, DEFAULT_IDLE_TIMEOUT, DEFAULT_MAX_IDLE,
    TargetSettings,
};
use self::upload::Upload;
use crate::message::BoxError;
use crate::message::failure::Failure;
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::{InformationalSink, SendInterim};

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
    /// 1xx responses go to the [`InformationalSink`] among the request's extensions, if there is one.
    ///
    /// # Errors
    ///
    /// No response: the target could not be reached, broke HTTP, or the request's own body failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the exchange at the target; the request may have been processed or not.
    pub fn exchange<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<TargetBody>, Failure>> + Send + use<'_, B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        // Outside the future, which would otherwise hold the request twice.
        let (mut head, body) = request.into_parts();
        let sink = head.extensions.remove::<InformationalSink>();
        let prepared = Prepared::new(head, body);
        async move { self.send(prepared?, sink.as_ref().map(|sink| sink as &dyn SendInterim)).await }
    }

    /// As [`Self::exchange`], for a request that is ready; 1xx responses go to `interim`.
    ///
    /// # Errors
    ///
    /// As [`Self::exchange`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::exchange`].
    pub(crate) fn send<'a>(
        &'a self,
        prepared: Prepared,
        interim: Option<&'a dyn SendInterim>,
    ) -> impl Future<Output = Result<Response<TargetBody>, Failure>> + Send + use<'a> {
        let Prepared { mut outbound, upload } = prepared;
        let is_waited_for = expectation::is_waited_for(&mut outbound, &upload);
        async move {
            let mut response = match interim {
                Some(interim) if is_waited_for => Box::pin(self.send_expected(outbound, upload, interim)).await?,
                _ => match &self.0 {
                    Client::Http1(client) => {
                        client.exchange(&mut outbound, upload, interim).await?.map(TargetBody::from)
                    }
                    Client::Http2(client) => {
                        Box::pin(client.exchange(outbound, upload, interim)).await?.map(TargetBody::from)
                    }
                },
            };
            strip_hop_by_hop(response.headers_mut());
            Ok(response)
        }
    }

    /// The exchange of a request whose sender waits for 100.
    async fn send_expected(
        &self,
        mut outbound: Outbound,
        upload: Upload,
        interim: &dyn SendInterim,
    ) -> Result<Response<TargetBody>, Failure> {
        let patience = match &self.0 {
            Client::Http1(client) if client.is_old() => {
                // HTTP/1.0 knows neither the field nor the answer.
                outbound.headers.remove(EXPECT);
                Duration::ZERO
            }
            _ => expectation::PATIENCE,
        };
        let exchange = async {
            Ok(match &self.0 {
                Client::Http1(client) => {
                    client.exchange(&mut outbound, upload, Some(interim)).await?.map(TargetBody::from)
                }
                Client::Http2(client) => client.exchange(outbound, upload, Some(interim)).await?.map(TargetBody::from),
            })
        };
        expectation::answered_for(exchange, interim, patience).await
    }
}

/// A request as a target is to get it.
pub(crate) struct Prepared {
    outbound: Outbound,
    upload: Upload,
}

impl Prepared {
    /// Takes what matters out of the head, and what is there of the body.
    ///
    /// # Errors
    ///
    /// The request contradicts itself, or its body has failed already.
    pub(crate) fn new<B>(head: request::Parts, body: B) -> Result<Self, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let upload = Upload::read(body)?;
        let outbound = Outbound::new(head)?;
        outbound.check_length(&upload)?;
        Ok(Self { outbound, upload })
    }
}
