//! The other end of the admin listener, for `adit status`, `adit reload` and `adit drain`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::admin::socket;
use crate::config::AdminAddress;

/// How long an answer may take as a whole.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a reload may take, with those that wait for their turn before it.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// The largest answer that is read, in bytes; 10,000 tunnels fit.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there, or not for us.
    #[error("cannot connect to the admin listener at {address}")]
    Connect {
        /// Where.
        address: AdminAddress,
        /// Why.
        source: io::Error,
    },
    /// It does not speak HTTP/1.1, or stopped.
    #[error("the admin listener at {address} did not answer")]
    Http {
        /// Where.
        address: AdminAddress,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("the admin listener at {address} did not answer within {timeout:?}")]
    Timeout {
        /// Where.
        address: AdminAddress,
        /// How long it was waited for.
        timeout: Duration,
    },
}

impl ClientError {
    /// Whether nobody listens there.
    pub fn is_nobody(&self) -> bool {
        let kinds = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];
        matches!(self, Self::Connect { source, .. } if kinds.contains(&source.kind()))
    }
}

/// Sends one request and reads its whole answer.
///
/// # Errors
/// No answer came; any status is an answer.
///
/// Cancel safety: dropping the future closes the connection; a POST may have taken effect.
pub async fn request(address: &AdminAddress, method: Method, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
    request_within(address, method, path, TIMEOUT).await
}

/// The same, for what may take longer.
///
/// # Errors
/// No answer came within `timeout`; any status is an answer.
///
/// Cancel safety: dropping the future closes the connection; a POST may have taken effect.
pub async fn request_within(
    address: &AdminAddress,
    method: Method,
    path: &str,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), ClientError> {
    match tokio::time::timeout(timeout, exchange(address, method, path)).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::Timeout { address: address.clone(), timeout }),
    }
}

async fn exchange(address: &AdminAddress, method: Method, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
    let connected = socket::connect(address).await;
    let io = connected.map_err(|source| ClientError::Connect { address: address.clone(), source })?;
    let spoken = speak(TokioIo::new(io), request_for(address, method, path)).await;
    spoken.map_err(|source| ClientError::Http { address: address.clone(), source })
}

fn request_for(address: &AdminAddress, method: Method, path: &str) -> http::Result<Request<Empty<Bytes>>> {
    let host = match address {
        AdminAddress::Tcp(address) => address.to_string(),
        AdminAddress::Unix(_) => "localhost".to_owned(),
    };
    Request::builder().method(method).uri(path).header(HOST, host).body(Empty::new())
}

async fn speak(
    io: TokioIo<Box<dyn socket::Io>>,
    request: http::Result<Request<Empty<Bytes>>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(io).await?;
    let answer = async {
        let (head, body) = sender.send_request(request?).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok((head.status, body))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end before the answer is taken out of it.
        _ = connection => answer.await,
    }
}
