//! Counting and logging of a listener's exchanges: one record each, closed when its response body is over.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tracing::{debug, info};

use crate::egress::gateway::{Gateway, GatewayBody};
use crate::egress::{ConnectionInfo, ExchangeService, RequestBody};
use crate::message::BoxError;
use crate::message::failure::Cause;
use crate::telemetry::{Direction, ExchangeMetrics, ExchangeRecord};
use crate::transport::{BodyError, RecvBody, Tunnel};

/// A gateway whose exchanges are counted, and logged if asked for.
#[derive(Clone)]
pub struct Observed {
    gateway: Gateway<Tunnel>,
    metrics: ExchangeMetrics,
    access_log: bool,
}

impl Observed {
    /// Counts into `metrics`; `access_log` writes one line per exchange.
    pub fn new(gateway: Gateway<Tunnel>, metrics: ExchangeMetrics, access_log: bool) -> Self {
        Self { gateway, metrics, access_log }
    }
}

impl ExchangeService for Observed {
    type Body = ObservedBody<GatewayBody<RecvBody>>;

    async fn call(&self, request: Request<RequestBody>) -> Response<Self::Body> {
        let mut record = self.metrics.begin();
        let line = self.access_log.then(|| Line::begin(&request));
        let count = (self.metrics.clone(), Direction::Request);
        let response = self.gateway.call(request.map(|body| CountedBody { body, count: Some(count) })).await;
        record.responded(response.status().as_u16());
        if let Some(cause) = response.extensions().get::<Cause>() {
            record.fail(cause.label());
        }
        let status = response.status().as_u16();
        let metrics = self.metrics.clone();
        response.map(|body| {
            let mut observed = ObservedBody { body, metrics, record, line: line.map(|line| (line, status)), bytes: 0 };
            observed.settle();
            observed
        })
    }
}

/// What the access log says of an exchange, collected from its beginning.
#[derive(Debug)]
struct Line {
    began: Instant,
    remote: Option<SocketAddr>,
    method: Method,
    uri: String,
}

impl Line {
    fn begin<B>(request: &Request<B>) -> Self {
        Self {
            began: Instant::now(),
            remote: request.extensions().get::<ConnectionInfo>().map(|connection| connection.remote),
            method: request.method().clone(),
            uri: request.uri().to_string(),
        }
    }

    fn write(self, status: u16, bytes: u64, outcome: &str) {
        let remote = self.remote.map_or(Cow::Borrowed("-"), |remote| Cow::Owned(remote.to_string()));
        let millis = self.began.elapsed().as_secs_f64() * 1e3;
        let (method, uri) = (self.method.as_str(), self.uri);
        info!(target: "adit::access", %remote, method, uri, status, bytes, millis, outcome, "exchange");
    }
}

/// A request body whose bytes are counted.
pub struct CountedBody<B> {
    body: B,
    count: Option<(ExchangeMetrics, Direction)>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(Ok(frame)), Some((metrics, direction))) = (&frame, &self.count) {
            metrics.body_bytes(*direction, frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body; when it is over the exchange is.
pub struct ObservedBody<B> {
    body: B,
    metrics: ExchangeMetrics,
    record: ExchangeRecord,
    line: Option<(Line, u16)>,
    bytes: u64,
}

impl<B: Body> ObservedBody<B> {
    /// Closes the record as soon as nothing more can come: a codec need not poll for an end that it knows.
    fn settle(&mut self) {
        if self.body.is_end_stream() {
            self.record.complete();
            self.log("complete");
        }
    }
}

impl<B> ObservedBody<B> {
    fn log(&mut self, outcome: &str) {
        if let Some((line, status)) = self.line.take() {
            line.write(status, self.bytes, outcome);
        }
    }
}

impl<B> Drop for ObservedBody<B> {
    fn drop(&mut self) {
        self.log("cancelled");
    }
}

/// What cut a response.
fn cause_of(cut: &BoxError) -> Cause {
    match cut.downcast_ref() {
        Some(BodyError::TunnelLost(_)) => Cause::TunnelLost,
        Some(BodyError::Protocol(_) | BodyError::Length) => Cause::PeerProtocol,
        Some(BodyError::Reset(_) | BodyError::Source(_)) | None => Cause::PeerReset,
    }
}

impl<B> Body for ObservedBody<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.bytes += bytes;
                this.metrics.body_bytes(Direction::Response, bytes);
                this.settle();
            }
            Some(Err(error)) => {
                let cause = cause_of(error).label();
                debug!(%error, cause, bytes = this.bytes, "a response was cut");
                this.record.fail(cause);
                this.log("cut");
            }
            None => {
                this.record.complete();
                this.log("complete");
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::protocol::code::StreamCode;
    use crate::protocol::stream::StreamError;
    use crate::telemetry::{Metrics, Side};
    use crate::transport::TunnelLost;

    /// A body that fails at once.
    struct Failing(Option<BodyError>);

    impl Body for Failing {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.take().map(Err))
        }
    }

    #[tokio::test]
    async fn a_cut_response_is_counted_under_what_cut_it() {
        let cuts = [
            (BodyError::Reset(StreamCode::Truncated), "peer_reset"),
            (BodyError::TunnelLost(TunnelLost("idle".into())), "tunnel_lost"),
            (BodyError::Protocol(StreamError::Truncated), "peer_protocol"),
            (BodyError::Length, "peer_protocol"),
        ];
        for (error, cause) in cuts {
            let metrics = Metrics::new();
            let exchanges = metrics.exchanges(Side::Egress, &Cause::ALL.map(Cause::label));
            let record = exchanges.begin();
            let body = GatewayBody::Left(Failing(Some(error)));
            let mut body = ObservedBody { body, metrics: exchanges, record, line: None, bytes: 0 };
            assert!(body.frame().await.unwrap().is_err());
            drop(body);
            let series = format!("adit_exchanges_failed_total{{side=\"egress\",cause=\"{cause}\"}} 1");
            assert!(metrics.render().contains(&series), "{cause}");
        }
    }
}
