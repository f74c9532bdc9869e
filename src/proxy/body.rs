//! The body of an exchange's response; when it is over, the exchange is.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::record::Record;
use crate::message::failure::Cause;
use crate::protocol::stream::StreamError;
use crate::transport::BodyError;

/// Why a response ended before its end.
pub trait Cut: fmt::Display {
    /// What it counts as.
    fn cause(&self) -> Cause;
}

impl Cut for BodyError {
    fn cause(&self) -> Cause {
        match self {
            Self::TunnelLost(_) => Cause::TunnelLost,
            // Cut at its source, as a reset says it too. spec: ST-38
            Self::Protocol(StreamError::Truncated) | Self::Reset(_) | Self::Source(_) => Cause::PeerReset,
            Self::Protocol(_) | Self::Length => Cause::PeerProtocol,
            Self::HeldBack => Cause::NotRead,
            Self::Upstream(_) => Cause::TargetCut,
            Self::Failed(failure) => failure.cause(),
            Self::Idle => Cause::Idle,
            Self::Late => Cause::Deadline,
        }
    }
}

/// The body of a response: what came from the other side, or the text of a failure. Holds the record of the exchange,
/// and closes it as soon as nothing more can come, or when it is dropped.
#[derive(Debug)]
pub struct ExchangeBody<B> {
    source: Source<B>,
    record: Option<Record>,
}

#[derive(Debug)]
enum Source<B> {
    Passed(B),
    Told(Option<Bytes>),
}

impl<B: Body> ExchangeBody<B> {
    /// What came from the other side.
    pub(crate) fn passed(body: B, record: Record) -> Self {
        Self::new(Source::Passed(body), record)
    }

    /// A text of our own.
    pub(crate) fn told(text: Bytes, record: Record) -> Self {
        Self::new(Source::Told(Some(text).filter(|text| !text.is_empty())), record)
    }

    fn new(source: Source<B>, record: Record) -> Self {
        let mut body = Self { source, record: Some(record) };
        body.settle();
        body
    }

    /// What came from the other side, if that is what this is.
    pub(crate) fn source(&self) -> Option<&B> {
        match &self.source {
            Source::Passed(body) => Some(body),
            Source::Told(_) => None,
        }
    }

    /// Closes the record with this error, which is the end of the body.
    pub(crate) fn give_up(&mut self, error: &B::Error)
    where
        B::Error: Cut,
    {
        if let Some(mut record) = self.record.take() {
            record.failed_with(error.cause(), error);
        }
    }

    fn has_ended(&self) -> bool {
        match &self.source {
            Source::Passed(body) => body.is_end_stream(),
            Source::Told(text) => text.is_none(),
        }
    }

    /// Closes the record as soon as nothing more can come: a codec need not poll for an end that it knows.
    fn settle(&mut self) {
        if self.has_ended() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(record) = self.record.take() {
            record.response_complete();
        }
    }
}

impl<B> Body for ExchangeBody<B>
where
    B: Body<Data = Bytes, Error: Cut> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Told(text) => text.take().map(|text| Ok(Frame::data(text))),
            Source::Passed(body) => std::task::ready!(Pin::new(body).poll_frame(cx)),
        };
        match (&frame, &mut this.record) {
            (Some(Ok(frame)), Some(record)) => {
                record.response_bytes(frame.data_ref().map_or(0, |data| data.len() as u64));
                this.settle();
            }
            (Some(Err(error)), Some(record)) => {
                record.failed_with(error.cause(), error);
                this.record = None;
            }
            (None, _) => this.end(),
            (_, None) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Passed(body) => body.size_hint(),
            Source::Told(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt;

    use super::super::record::{AccessLog, Recorder};
    use super::*;
    use crate::protocol::code::StreamCode;
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
            (BodyError::Protocol(StreamError::Truncated), "peer_reset"),
            (BodyError::Protocol(StreamError::Http2), "peer_protocol"),
            (BodyError::Length, "peer_protocol"),
            (BodyError::HeldBack, "not_read"),
        ];
        for (error, cause) in cuts {
            let metrics = Metrics::new();
            let recorder = Recorder::new(&metrics, Side::Egress, None, AccessLog::Off);
            let record = recorder.begin(&Request::new(()).into_parts().0, None);
            let mut body = ExchangeBody::passed(Failing(Some(error)), record);
            assert!(body.frame().await.unwrap().is_err());
            drop(body);
            let series = format!("adit_exchanges_failed_total{{side=\"egress\",cause=\"{cause}\"}} 1");
            assert!(metrics.render().contains(&series), "{cause}");
        }
    }
}
