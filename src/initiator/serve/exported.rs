//! One exported service, and what its target does wrong.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, request};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Semaphore;

use crate::id::ServiceName;
use crate::initiator::health::HealthBoard;
use crate::initiator::serve::ServiceSettings;
use crate::initiator::serve::board::OnBoard;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::interim::SendInterim;
use crate::message::rewrite::{Settled, Step};
use crate::message::upgrade::Protocol;
use crate::protocol::handshake::ServiceKind;
use crate::protocol::stream::ClientAddresses;
use crate::proxy::Record;
use crate::proxy::body::Cut;
use crate::targets::health::checks::{self, Asked};
use crate::targets::health::{HealthCheck, Wellness, shown};
use crate::targets::{FlowSocket, NoSocket, Place, Places, Prepared, RawConnection, TargetBody, TargetClient};
use crate::telemetry::{Limiter, TargetMetrics};
use crate::tls::TlsError;

/// How many lines about one target are written in a minute.
const MAX_WARNINGS: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// A named service with its target.
pub(super) struct Exported {
    client: TargetClient,
    steps: Vec<Step>,
    /// What no trailers may bring.
    settled: Settled,
    /// The protocols beside WebSocket that a request may go on in.
    upgrades: Vec<String>,
    kind: ServiceKind,
    flow_idle_timeout: Duration,
    /// Whether the target is told who connected.
    proxy_header: bool,
    places: Places,
    check: Option<HealthCheck>,
    authority: String,
    wellness: Wellness,
    watch: Arc<Watch>,
}

/// Says what a target did wrong, so often and no more.
struct Watch {
    name: ServiceName,
    target: Arc<str>,
    warnings: Limiter,
}

impl Exported {
    /// `former`: the service of this name before, of which what is under way counts.
    ///
    /// # Errors
    ///
    /// The settings of TLS to the target cannot be used.
    pub(super) fn new(
        settings: ServiceSettings,
        (board, targets): (HealthBoard, &TargetMetrics),
        former: Option<&Self>,
    ) -> Result<Self, TlsError> {
        let ServiceSettings { rewrite: steps, upgrades, proxy_header, .. } = settings;
        let ServiceSettings { name, target, connections, limits, health: check, .. } = settings;
        let connections = connections.within(limits.connections);
        let wellness =
            Wellness::new(check.as_ref().map(|check| check.rules), OnBoard::new(name.clone(), board, targets));
        let watch = Watch { name, target: target.to_string().into(), warnings: Limiter::new(MAX_WARNINGS, MINUTE) };
        let flow_idle_timeout = connections.flow_idle_timeout;
        let client = TargetClient::new(&target, connections)?;
        let kind = match &target {
            target if target.is_raw() => ServiceKind::Tcp,
            target if target.is_udp() => ServiceKind::Udp,
            _ => ServiceKind::Http,
        };
        let places = former.map_or_else(|| Places::new("the service", limits), |former| former.places.renewed(limits));
        Ok(Self {
            client,
            settled: Settled::new(&steps, []),
            steps,
            upgrades,
            kind,
            flow_idle_timeout,
            proxy_header,
            places,
            check,
            authority: target.authority(),
            wellness,
            watch: Arc::new(watch),
        })
    }

    pub(super) fn name(&self) -> &ServiceName {
        &self.watch.name
    }

    /// Where it is.
    pub(super) fn target(&self) -> &str {
        &self.watch.target
    }

    /// How many exchanges found no place.
    pub(super) fn refused(&self) -> u64 {
        self.places.refused()
    }

    /// What it is for: requests, bytes or datagrams.
    pub(super) fn kind(&self) -> ServiceKind {
        self.kind
    }

    /// How long a flow may carry nothing.
    pub(super) fn flow_idle_timeout(&self) -> Duration {
        self.flow_idle_timeout
    }

    /// A socket towards a target of datagrams, and notes for whom. Warns of what the target does wrong.
    ///
    /// # Errors
    ///
    /// There is none, and why.
    pub(super) async fn open_flow(
        &self,
        process: &Arc<Semaphore>,
        record: &mut Record,
    ) -> Result<FlowSocket, NoSocket> {
        record.served(&self.watch.name, &self.watch.target);
        self.client.open_flow(process).await.inspect_err(|none| {
            if let NoSocket::Target(failure) = none {
                self.watch.failed(failure.cause(), &failure.details());
            }
        })
    }

    /// Connects to a target of bytes, and notes for whom. Warns of what the target does wrong.
    ///
    /// # Errors
    ///
    /// There is no connection, and why.
    pub(super) async fn connect(
        self: &Arc<Self>,
        client: Option<&ClientAddresses>,
        record: &mut Record,
    ) -> Result<(RawConnection, Place), Failure> {
        record.served(&self.watch.name, &self.watch.target);
        let connected = async {
            let place = self.places.take().await?;
            let mut connection = self.client.connect().await?;
            if self.proxy_header {
                connection.introduce(client).await?;
            }
            Ok((connection, place))
        };
        let outcome: Result<_, Failure> = connected.await;
        self.note(outcome.as_ref().err());
        outcome
    }

    /// What a target says, watched to its end. The place is kept until then, and where bytes go both ways, until both have
    /// ended.
    pub(super) fn watched(&self, body: TargetBody, place: Place) -> WatchedBody {
        place.lend(&body);
        WatchedBody { body, watch: Arc::clone(&self.watch), _place: place }
    }

    /// Makes a request ready for the target: checked, and as the steps of the service want it.
    ///
    /// # Errors
    ///
    /// The request is at fault.
    pub(super) fn prepare<B>(&self, head: request::Parts, body: B, record: &mut Record) -> Result<Prepared, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        record.served(&self.watch.name, &self.watch.target);
        if let Some(protocol) = head.extensions.get::<Protocol>() {
            self.check_upgrade(protocol)?;
        }
        let mut prepared = Prepared::new(head, record.counted_upload(body))?;
        prepared.rewrite(&self.steps, &self.settled)?;
        Ok(prepared)
    }

    /// WebSockets are for every service, other protocols where they are allowed by name. spec: ST-25
    fn check_upgrade(&self, protocol: &Protocol) -> Result<(), Failure> {
        if protocol.is_websocket() || self.upgrades.iter().any(|allowed| protocol.is(allowed)) {
            return Ok(());
        }
        let details = format!("the service {} takes no Upgrade to {}", self.watch.name, protocol.as_str());
        Err(Failure::new(Cause::UpgradeRefused, details))
    }

    /// Sends a request to the target, once there is a place for it; [`Self::received`] takes what comes of it.
    pub(super) fn send<'a>(
        &'a self,
        prepared: Prepared,
        interim: Option<&'a dyn SendInterim>,
    ) -> impl Future<Output = Result<(Response<TargetBody>, Place), Failure>> + Send + use<'a> {
        let sending = self.client.send(prepared, interim);
        async move {
            let place = self.places.take().await?;
            Ok((sending.await?, place))
        }
    }

    /// What the target answered, watched to its end. Warns of what it did wrong.
    pub(super) fn received(
        self: &Arc<Self>,
        outcome: Result<(Response<TargetBody>, Place), Failure>,
    ) -> Result<Response<WatchedBody>, Failure> {
        self.note(outcome.as_ref().err());
        outcome.map(|(response, place)| response.map(|body| self.watched(body, place)))
    }

    /// Takes note of what came of reaching the target, and warns of what it did wrong.
    fn note(self: &Arc<Self>, failed: Option<&Failure>) {
        let Some(failure) = failed else { return self.wellness.served() };
        self.watch.failed(failure.cause(), &failure.details());
        if self.wellness.failed(failure) {
            checks::begin(self);
        }
    }
}

impl Asked for Exported {
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

impl Watch {
    /// Warns of a failure that is the target's.
    fn failed(&self, cause: Cause, details: &dyn fmt::Display) {
        if !is_of_target(cause) {
            return;
        }
        let Some(left_out) = self.warnings.pass(Instant::now()) else { return };
        let details = shown(details);
        tracing::warn!(
            service = %self.name,
            to = &*self.target,
            cause = cause.label(),
            details,
            left_out = (left_out > 0).then_some(left_out),
            "the target failed a request"
        );
    }
}

const fn is_of_target(cause: Cause) -> bool {
    use Cause as C;
    matches!(
        cause,
        C::TargetDns
            | C::TargetRefused
            | C::TargetUnreachable
            | C::TargetTimeout
            | C::TargetClosed
            | C::TargetTlsCertificate
            | C::TargetTlsAlert
            | C::TargetTlsProtocol
            | C::TargetProtocol
            | C::TargetHeadTooLarge
            | C::TargetCut
            | C::UpgradeFailed
    )
}

/// A target's response that ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("the target's response was cut: {0}")]
pub struct TargetCut(#[source] BoxError);

impl TargetCut {
    /// Whether it was the target that cut it, and not the end of those for whom it was.
    pub(super) fn is_of_target(&self) -> bool {
        self.cause() == Cause::TargetCut
    }
}

impl Cut for TargetCut {
    fn cause(&self) -> Cause {
        match self.0.downcast_ref::<Failure>() {
            Some(failure) if failure.cause() == Cause::RequestCut => Cause::RequestCut,
            _ => Cause::TargetCut,
        }
    }
}

/// The body of a target's response. Warns when it is cut.
pub struct WatchedBody {
    body: TargetBody,
    watch: Arc<Watch>,
    _place: Place,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = TargetCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TargetCut>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                let error = TargetCut(error);
                self.watch.failed(error.cause(), &error.0);
                error
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
