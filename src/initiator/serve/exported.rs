//! One exported service, and what its target does wrong.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, request};
use http_body::{Body, Frame, SizeHint};

use crate::id::ServiceName;
use crate::initiator::serve::ServiceSettings;
use crate::initiator::targets::{Prepared, RawConnection, TargetBody, TargetClient};
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::interim::SendInterim;
use crate::message::rewrite::Step;
use crate::message::upgrade::Protocol;
use crate::proxy::Record;
use crate::proxy::body::Cut;
use crate::telemetry::Limiter;
use crate::tls::TlsError;

/// How many lines about one target are written in a minute.
const MAX_WARNINGS: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// A named service with its target.
pub(super) struct Exported {
    client: TargetClient,
    steps: Vec<Step>,
    /// The protocols beside WebSocket that a request may go on in.
    upgrades: Vec<String>,
    is_raw: bool,
    watch: Arc<Watch>,
}

/// Says what a target did wrong, so often and no more.
struct Watch {
    name: ServiceName,
    target: Arc<str>,
    warnings: Limiter,
}

impl Exported {
    /// # Errors
    ///
    /// The settings of TLS to the target cannot be used.
    pub(super) fn new(settings: ServiceSettings) -> Result<Self, TlsError> {
        let ServiceSettings { name, target, connections, rewrite: steps, upgrades, .. } = settings;
        let watch = Watch { name, target: target.to_string().into(), warnings: Limiter::new(MAX_WARNINGS, MINUTE) };
        let client = TargetClient::new(&target, connections)?;
        Ok(Self { client, steps, upgrades, is_raw: target.is_raw(), watch: Arc::new(watch) })
    }

    pub(super) fn name(&self) -> &ServiceName {
        &self.watch.name
    }

    /// Whether it is for bytes, and not for requests.
    pub(super) fn is_raw(&self) -> bool {
        self.is_raw
    }

    /// Connects to a target of bytes, and notes for whom. Warns of what the target does wrong.
    ///
    /// # Errors
    ///
    /// There is no connection, and why.
    pub(super) async fn connect(&self, record: &mut Record) -> Result<RawConnection, Failure> {
        record.served(&self.watch.name, &self.watch.target);
        self.client.connect().await.inspect_err(|failure| self.watch.failed(failure.cause(), &failure.details()))
    }

    /// What a target of bytes says, watched to its end.
    pub(super) fn watched(&self, body: TargetBody) -> WatchedBody {
        WatchedBody { body, watch: Arc::clone(&self.watch) }
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
        prepared.rewrite(&self.steps)?;
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

    /// Sends a request to the target; [`Self::received`] takes what comes of it.
    pub(super) fn send<'a>(
        &'a self,
        prepared: Prepared,
        interim: Option<&'a dyn SendInterim>,
    ) -> impl Future<Output = Result<Response<TargetBody>, Failure>> + Send + use<'a> {
        self.client.send(prepared, interim)
    }

    /// What the target answered, watched to its end. Warns of what it did wrong.
    pub(super) fn received(
        &self,
        outcome: Result<Response<TargetBody>, Failure>,
    ) -> Result<Response<WatchedBody>, Failure> {
        match outcome {
            Ok(response) => Ok(response.map(|body| self.watched(body))),
            Err(failure) => {
                self.watch.failed(failure.cause(), &failure.details());
                Err(failure)
            }
        }
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

/// Most characters of an error shown; it may quote the target.
const MAX_SHOWN: usize = 256;

fn shown(details: &dyn fmt::Display) -> String {
    details.to_string().chars().take(MAX_SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
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
