//! Listeners for application traffic: for requests, with the HTTP codecs behind them, for bytes, and for datagrams ([`udp`]).
//!
//! A codec turns the bytes of one connection into exchanges: it hands each request to an [`ExchangeService`] and writes
//! what the service answers. Requests look the same whatever version they came in:
//!
//! * the URI is in absolute form, `scheme://authority/path?query`, and there is no Host field; only an HTTP/1.0 request
//!   without Host has a bare path. `*` is the path of a server-wide OPTIONS. That of a CONNECT is an authority alone, unless
//!   it asks for another protocol;
//! * the head passed [`message::validate`](crate::message::validate); hop-by-hop fields are still there for whoever forwards
//!   it. An `Expect` field is there only where a sender waits for 100 before its body, and is the service's to answer:
//!   [`InformationalSink::proceed`](crate::message::interim::InformationalSink::proceed);
//! * what else is known of it comes beside it, as its [`Context`].
//!
//! A response body that fails never ends cleanly: HTTP/1 resets the connection, HTTP/2 and HTTP/3 the stream. When the sender of
//! a request goes away, the service's future and the response body are dropped at once.
//!
//! Row 10: uses the rows above it; accepts no tunnels, reads no configuration.

mod gateway;
pub mod http1;
mod http2;
mod http3;
pub mod listener;

mod answer;
mod attributes;
mod body;
mod budget;
mod builder;
mod client;
mod date;
mod deadline;
mod entrances;
mod error;
mod explain;
mod find;
mod gate;
mod handle;
mod heads;
mod introduction;
mod judge;
mod quiet;
mod socket;
mod standing;
mod tcp;
mod terms;
pub mod udp;
mod upstream;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALT_SVC, EXPECT};
use http::{HeaderMap, HeaderValue, Version};
use tokio_util::sync::CancellationToken;

use crate::message::BoxError;
use crate::message::violation::Violation;
use crate::protocol::limits::Limits;
use crate::tls::Rejection;

use self::budget::ListenerBudget;
use self::heads::HeadBounds;
pub use crate::proxy::{AccessLog, ConnectionDetails, ConnectionInfo, Context, Pace};
pub use body::RequestBody;
pub use builder::{Builder, Egress};
pub use client::{Client, ClientBody};
pub use entrances::Leaving;
pub use error::BodyError;
pub use explain::{Explained, ExplainedWay, Refused, explain, explain_connection, explain_flow};
pub use handle::{BuildError, Handle, Prepared};
pub use http3::Http3Socket;
pub use judge::{TrafficRule, TrafficRules};
pub use socket::Socket;
pub use tcp::TcpTerms;
pub use terms::Terms;
pub use upstream::{Upstream, UpstreamSettings};

/// Answers requests. Failing is answering: a service that cannot do what was asked says so with a status.
///
/// Codecs drop the returned future, and later the response body, as soon as the sender of the request is gone.
pub trait ExchangeService: Clone + Send + Sync + 'static {
    /// The body of the responses. Its error, after the head, resets the connection or stream.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;

    /// Answers one request. The request body may outlive the future and be read in another task.
    fn call(
        &self,
        request: http::Request<RequestBody>,
        context: Context,
    ) -> impl Future<Output = http::Response<Self::Body>> + Send;

    /// Whether it answers CONNECT. Where it does, what follows an answer of 2xx is no body but bytes both ways, each direction
    /// up to its own end; where it does not, which is the default, the codec refuses such requests with 501.
    fn takes_connect(&self) -> bool {
        false
    }

    /// The codec has refused what it read on this connection, and answers it itself, resets its stream or ends the connection.
    /// `version` is that of HTTP there; `None` where bytes are taken and not HTTP. By default nobody is told.
    fn refused(&self, connection: &ConnectionInfo, version: Option<Version>, violation: Violation) {
        let _ = (connection, version, violation);
    }
}

/// A function from request to response is a service. It sees no [`Context`], so a sender that waits for 100 is told to go on
/// before the function is asked.
impl<F, Answer, B> ExchangeService for F
where
    F: Fn(http::Request<RequestBody>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = http::Response<B>> + Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;

    fn call(
        &self,
        request: http::Request<RequestBody>,
        context: Context,
    ) -> impl Future<Output = http::Response<B>> + Send {
        if request.headers().contains_key(EXPECT) {
            context.interim.proceed();
        }
        self(request)
    }
}

/// Limits and timeouts of an HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Largest request head and largest trailer section, bytes. Default 64 KiB; more is answered 431.
    pub max_head_bytes: usize,
    /// Most fields in a head or trailer section. Default 100, at most 256 for HTTP/1; more is answered 431.
    pub max_head_fields: usize,
    /// Most connections open at once, over TCP and QUIC together. Default 16,384; beyond it those over TCP wait in the backlog
    /// of the kernel, and those over QUIC are refused.
    pub max_connections: usize,
    /// Ends a connection whose TLS handshake or request head is not complete by then. Default 10 s.
    pub head_timeout: Duration,
    /// Ends a connection that carries no exchange for this long. Default 75 s.
    pub idle_timeout: Duration,
    /// Ends an HTTP/1 exchange whose response is not read for this long, and an HTTP/2 connection likewise at its end.
    /// Default 60 s.
    pub send_timeout: Duration,
    /// How long what still arrives is thrown away before an HTTP/1 connection is closed, so that the last response is not
    /// lost to a TCP reset. Default 2 s; at most 256 KiB are read.
    pub linger_timeout: Duration,
    /// HTTP/1: what the end of the incoming bytes means. `false` (default): the sender is gone, what it asked for is
    /// cancelled at once. `true`: it only sends no more and still reads; a sender that is gone is noticed when writing
    /// to it fails.
    pub half_close: bool,
    /// Most bytes of response bodies that wait to be written to all HTTP/2 connections together. Default 64 MiB. A connection
    /// gets an eighth of what is left of it at most, and 16 KiB at least.
    pub send_budget: usize,
    /// How long an exchange, and the sender of a request's body, may rest.
    pub pace: Pace,
    /// HTTP/2 only.
    pub http2: Http2Settings,
    /// HTTP/3 only.
    pub http3: Http3Settings,
}

/// Bounds on what one HTTP/2 connection may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Settings {
    /// Most exchanges at once. Default 256.
    pub max_streams: u32,
    /// Receive window of a stream, bytes: what a request body may have in flight unread. Default 1 MiB.
    pub stream_window: u32,
    /// Receive window of the connection, bytes. Default 4 MiB.
    pub connection_window: u32,
    /// Most response bytes buffered for a stream, bytes. Default 256 KiB.
    pub max_send_buffer: usize,
    /// Most bytes of response bodies that wait to be written to a connection, bytes. Default 1 MiB; see
    /// [`Settings::send_budget`] for when it is less.
    pub send_budget: usize,
    /// Streams reset by the other end before they were served, beyond which the connection is closed: the bound on
    /// rapid reset. Default 20.
    pub max_pending_resets: usize,
}

/// Whether there is HTTP/3, and bounds on what one connection of it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http3Settings {
    /// Whether a listener with TLS serves HTTP/3 on the UDP port of its number, and says so (`Alt-Svc`) in its answers over
    /// TCP. Default true. The port is bound with the listener, or by [`Handle::prepare`] later; it stays bound where there is
    /// no HTTP/3 any more, and refuses who comes.
    pub enabled: bool,
    /// Whether requests with safe methods are taken before the handshake is done. Default false; never where a certificate
    /// is asked for. RFC 8470
    pub early_data: bool,
    /// The UDP port that answers over TCP name; `None` (default): the one that is listened on.
    pub public_port: Option<u16>,
    /// Most exchanges at once. Default 256.
    pub max_streams: u32,
    /// Receive window of a stream, bytes: what a request body may have in flight unread. Default 1 MiB.
    pub stream_window: u32,
    /// Receive window of the connection, bytes. Default 4 MiB.
    pub connection_window: u32,
    /// Most bytes of responses that are sent and not acknowledged, bytes. Default 1 MiB; all connections of a listener have
    /// [`Settings::send_budget`] together.
    pub send_budget: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            max_head_bytes: limits.head_bytes,
            max_head_fields: limits.head_fields,
            max_connections: 16_384,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(60),
            linger_timeout: Duration::from_secs(2),
            half_close: false,
            send_budget: 64 * 1024 * 1024,
            pace: Pace::default(),
            http2: Http2Settings::default(),
            http3: Http3Settings::default(),
        }
    }
}

impl Default for Http3Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            early_data: false,
            public_port: None,
            max_streams: 256,
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            send_budget: 1024 * 1024,
        }
    }
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            max_streams: 256,
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            max_send_buffer: 256 * 1024,
            send_budget: 1024 * 1024,
            max_pending_resets: 20,
        }
    }
}

/// All that serving a connection takes beside its bytes.
#[derive(Debug, Clone)]
pub struct Serving<S> {
    /// Who is connected.
    pub info: ConnectionInfo,
    /// Limits and timeouts.
    pub settings: Arc<Settings>,
    /// Who answers.
    pub service: S,
    /// How it learns that it is to end.
    pub end: End,
    /// Where the same is served over HTTP/3: the `Alt-Svc` of its answers. RFC 7838
    alternative: Option<HeaderValue>,
    /// What all connections of the listener hold.
    budget: Arc<ListenerBudget>,
    /// How large the next head may be, where that follows the terms.
    heads: Option<Arc<HeadBounds>>,
}

impl<S> Serving<S> {
    /// For a connection beside which its listener has no other.
    pub fn new(info: ConnectionInfo, settings: Arc<Settings>, service: S, end: End) -> Self {
        Self { info, settings, service, end, alternative: None, budget: Arc::default(), heads: None }
    }

    /// How large the next head may be: bytes and fields.
    fn head_bounds(&self) -> (usize, usize) {
        let of_settings = || (self.settings.max_head_bytes, self.settings.max_head_fields);
        self.heads.as_ref().map_or_else(of_settings, |heads| heads.get())
    }
}

/// Says in the head of an answer where the same is served over HTTP/3, unless whoever answers says something of that kind
/// itself, or the next request should go elsewhere anyway.
fn advertise(alternative: Option<&HeaderValue>, leaving: &CancellationToken, fields: &mut HeaderMap) {
    if let Some(alternative) = alternative
        && !leaving.is_cancelled()
    {
        fields.entry(ALT_SVC).or_insert_with(|| alternative.clone());
    }
}

/// How a listener and its connections learn that they are to end.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// When cancelled, the other end is asked to take its next request elsewhere (`connection: close`, GOAWAY). What comes
    /// all the same is served.
    pub leaving: CancellationToken,
    /// When cancelled, a connection finishes its exchanges and closes.
    pub drain: CancellationToken,
}

/// For how long a request is waited for on a connection that is to end: it may be under way already.
const LAST_CALL: Duration = Duration::from_millis(100);

impl End {
    /// The same for one connection, which may end before.
    fn within(&self) -> Self {
        Self { leaving: self.leaving.child_token(), drain: self.drain.child_token() }
    }

    /// Resolves when no request is waited for any more. Cancel safe.
    async fn last_call(self) {
        self.drain.cancelled().await;
        tokio::time::sleep(LAST_CALL).await;
    }
}

impl From<CancellationToken> for End {
    /// Both at once.
    fn from(drain: CancellationToken) -> Self {
        Self { leaving: drain.clone(), drain }
    }
}

/// Says that a connection failed before its first request: for an operator to read where that is because of what its client showed.
fn failed_early(remote: SocketAddr, error: &dyn std::error::Error) {
    match Rejection::of_client(&error.to_string()) {
        Some(reason) => tracing::info!(%remote, reason, "a client is not let in: its certificate is not accepted"),
        None => tracing::debug!(%error, %remote, "a connection failed before its first request"),
    }
}

/// Locks plain data. A panic elsewhere cannot leave it half-changed in a way that matters, so poison is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod testing;
