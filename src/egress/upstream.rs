//! Where rules forward to: plain upstreams, outside of any tunnel.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use crate::message::failure::{Cause, Failure};
use crate::message::interim::SendInterim;
use crate::protocol::code::DownCause;
use crate::targets::health::checks::{self, Asked};
use crate::targets::health::{Change, HealthCheck, Standing, Told, Wellness};
use crate::targets::{Place, Places, Prepared, ServiceLimits, Target, TargetBody, TargetClient, TargetSettings};
use crate::telemetry::{TargetGauge, TargetMetrics};
use crate::tls::TlsError;
use crate::transport::BodyError;

/// How seldom at last an upstream that is down is asked whether it takes a connection: nobody else is there to send requests
/// to meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// When a client is to come again at the earliest, where nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An upstream as the configuration describes it.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Where it is.
    pub target: Target,
    /// How it is connected to.
    pub connections: TargetSettings,
    /// What it may have under way.
    pub limits: ServiceLimits,
    /// How it is checked; `None`: it is what requests meet that decides, and while it is down whether it takes a connection.
    pub health: Option<HealthCheck>,
}

impl UpstreamSettings {
    /// One without limits and checks, reached as targets are by default.
    pub fn new(target: Target) -> Self {
        let (connections, limits) = (TargetSettings::default(), ServiceLimits::default());
        Self { target, connections, limits, health: None }
    }
}

/// A server that takes requests, with the connections to it. It is reached as a target of an initiator is, and found to be down
/// in the same way; nothing is sent to one that is, since there is no other.
pub struct Upstream(Arc<Inner>);

struct Inner {
    target: Arc<str>,
    client: TargetClient,
    places: Places,
    check: Option<HealthCheck>,
    authority: String,
    wellness: Wellness,
    gauge: Arc<OnceLock<TargetGauge>>,
}

impl Upstream {
    /// One without a connection yet; the first request makes one.
    ///
    /// # Errors
    /// The settings of TLS to it cannot be used.
    pub fn new(settings: UpstreamSettings) -> Result<Self, TlsError> {
        let places = Places::new("the upstream", settings.limits);
        Self::with(settings, places)
    }

    /// The same server by other settings, and with other connections: what is under way at it counts there, too.
    ///
    /// # Errors
    /// As for [`Upstream::new`].
    pub fn renewed(&self, settings: UpstreamSettings) -> Result<Self, TlsError> {
        let places = self.0.places.renewed(settings.limits);
        Self::with(settings, places)
    }

    fn with(settings: UpstreamSettings, places: Places) -> Result<Self, TlsError> {
        let UpstreamSettings { target, connections, limits, health: check } = settings;
        let name: Arc<str> = target.to_string().into();
        let rules = check.as_ref().map(|check| check.rules);
        let gauge = Arc::<OnceLock<_>>::default();
        let named = Named { name: Arc::clone(&name), gauge: Arc::clone(&gauge) };
        let wellness = Wellness::new(rules, named).asked_every(LONGEST_PAUSE);
        let client = TargetClient::new(&target, connections.within(limits.connections))?;
        let authority = target.authority();
        Ok(Self(Arc::new(Inner { target: name, client, places, check, authority, wellness, gauge })))
    }

    /// Where it is, as it is written.
    pub fn target(&self) -> &str {
        &self.0.target
    }

    /// It is in use from here on: `metrics` say how it is, and it is checked where that is asked for and nobody does. Nothing is
    /// checked without a tokio runtime.
    pub(super) fn begin(&self, metrics: &TargetMetrics) {
        self.0.gauge.get_or_init(|| metrics.target(&self.0.target));
        checks::begin(&self.0);
    }

    /// Sends it a request, once there is a place for it.
    ///
    /// # Errors
    /// It is down, has no room, or failed.
    ///
    /// # Cancel safety
    /// Dropping the future ends the exchange at the upstream.
    pub(super) async fn send(
        &self,
        prepared: Prepared,
        interim: &dyn SendInterim,
    ) -> Result<Response<UpstreamBody>, Failure> {
        let inner = &self.0;
        inner.is_there()?;
        let place = inner.places.take().await?;
        let sent = inner.client.send(prepared, Some(interim)).await;
        match &sent {
            Ok(_) => inner.wellness.served(),
            Err(failure) if inner.wellness.failed(failure) => checks::begin(inner),
            Err(_) => {}
        }
        Ok(sent?.map(|body| {
            place.lend(&body);
            UpstreamBody { body, _place: place }
        }))
    }
}

impl Inner {
    /// # Errors
    /// It is down, and will be asked again before anybody else need be.
    fn is_there(&self) -> Result<(), Failure> {
        let (Standing::Down(cause), since) = self.wellness.standing() else { return Ok(()) };
        let details = format!("{} has been down for {} s: {}", self.target, since.as_secs(), cause.label());
        let wait = self.wellness.asked_in().unwrap_or(RETRY_AFTER);
        Err(Failure::new(Cause::UpstreamDown, details).retry_after(wait.max(RETRY_AFTER)))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.0.wellness.retire();
    }
}

impl Asked for Inner {
    fn wellness(&self) -> &Wellness {
        &self.wellness
    }

    fn client(&self) -> &TargetClient {
        &self.client
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn check(&self) -> Option<&HealthCheck> {
        self.check.as_ref()
    }
}

/// An upstream as the log and the metrics know it.
struct Named {
    name: Arc<str>,
    gauge: Arc<OnceLock<TargetGauge>>,
}

impl Told for Named {
    fn tell(&self, down: Option<DownCause>) {
        if let Some(gauge) = self.gauge.get() {
            gauge.set(down.is_some());
        }
    }

    fn say(&self, Change { to, after }: Change, details: &str, left_out: Option<u64>) {
        let (upstream, after_seconds) = (&*self.name, after.as_secs());
        match to {
            Standing::Down(cause) => {
                let cause = cause.label();
                tracing::warn!(upstream, cause, details, after_seconds, left_out, "the upstream is down");
            }
            Standing::Up | Standing::Unknown => {
                tracing::info!(upstream, after_seconds, left_out, "the upstream is up");
            }
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.0.target).finish()
    }
}

/// The body of an upstream's response, which keeps the place of its request.
pub(super) struct UpstreamBody {
    body: TargetBody,
    _place: Place,
}

/// The body of a response: what came through a tunnel, or from an upstream.
pub(super) enum Inbound<B> {
    Tunnel(B),
    Upstream(Box<UpstreamBody>),
    /// An answer of this end.
    Own(Full<Bytes>),
}

impl<B> fmt::Debug for Inbound<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tunnel(_) => "Tunnel",
            Self::Upstream(_) => "Upstream",
            Self::Own(_) => "Own",
        })
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Inbound<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Tunnel(body) => Pin::new(body).poll_frame(cx),
            Self::Upstream(body) => Pin::new(&mut body.body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::Upstream))),
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Tunnel(body) => body.is_end_stream(),
            Self::Upstream(body) => body.body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Tunnel(body) => body.size_hint(),
            Self::Upstream(body) => body.body.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}
