//! The body of a request, whatever connection it comes from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::http1::Download;
use crate::egress::error::BodyError;
use crate::egress::http3::StreamBody as Http3Body;
use crate::message::h2::recv::StreamBody;
use crate::proxy::Progress;

/// The body of a request; can be read in another task than the one that answers the request.
///
/// Reading is what makes the sender send: bytes that are not read are held back by flow control. A sender that waits for
/// `100 Continue` (there is an `Expect` field then) is told so by the service, or by nobody. Dropping the body means the rest
/// is not wanted.
#[derive(Debug)]
pub struct RequestBody {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Http1(Download),
    Http2 { body: StreamBody, progress: Option<Arc<Progress>> },
    Http3(Box<Http3Body>),
    Told(Box<Told>),
}

/// A body of which somebody hears when it is gone.
#[derive(Debug)]
struct Told {
    body: RequestBody,
    _over: DropGuard,
}

/// A body that can say which rule its sender broke.
pub(super) trait Reports {
    /// Tells `progress` of it, as soon as it is known.
    fn report_to(&mut self, progress: &Arc<Progress>);
}

impl Reports for RequestBody {
    fn report_to(&mut self, to: &Arc<Progress>) {
        match &mut self.kind {
            Kind::Whole(_) => {}
            Kind::Http1(download) => download.report_to(to),
            Kind::Http2 { progress, .. } => *progress = Some(Arc::clone(to)),
            Kind::Http3(body) => body.report_to(to),
            Kind::Told(told) => told.body.report_to(to),
        }
    }
}

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self { kind: Kind::Whole(None) }
    }

    /// A body that is already here.
    pub fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())) }
    }

    pub(super) fn http1(download: Download) -> Self {
        Self { kind: Kind::Http1(download) }
    }

    pub(super) fn http2(body: StreamBody) -> Self {
        Self { kind: Kind::Http2 { body, progress: None } }
    }

    /// The same, telling when it is over, or nobody reads it any more.
    pub(super) fn telling(self, over: CancellationToken) -> Self {
        Self { kind: Kind::Told(Box::new(Told { body: self, _over: over.drop_guard() })) }
    }

    pub(super) fn http3(body: Http3Body) -> Self {
        Self { kind: Kind::Http3(Box::new(body)) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Http1(download) => download.poll_frame(cx),
            Kind::Http2 { body, progress } => Pin::new(body).poll_frame(cx).map_err(|error| {
                let error = BodyError::from(error);
                if let (BodyError::Invalid(violation), Some(progress)) = (&error, progress) {
                    progress.break_rule(*violation);
                }
                error
            }),
            Kind::Http3(body) => body.poll_frame(cx),
            Kind::Told(told) => Pin::new(&mut told.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Http1(download) => download.is_end_stream(),
            Kind::Http2 { body, .. } => body.is_end_stream(),
            Kind::Http3(body) => body.is_end_stream(),
            Kind::Told(told) => told.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let known = match &self.kind {
            Kind::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Http1(download) => download.remaining(),
            Kind::Http2 { body, .. } => body.remaining(),
            Kind::Http3(body) => body.remaining(),
            Kind::Told(told) => return told.body.size_hint(),
        };
        known.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
