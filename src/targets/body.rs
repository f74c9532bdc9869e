//! The body of a target's response.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::held::Held;
use super::http1::{Http1Body, Switched};
use super::http2::Http2Body;
use crate::message::BoxError;

/// The body of a target's response. A cut is an error; dropping it before its end cancels the exchange.
pub struct TargetBody(Kind);

#[expect(clippy::large_enum_variant, reason = "a box would cost every response of HTTP/1.1 an allocation")]
enum Kind {
    Http1(Http1Body),
    Http2(Http2Body),
    Switched(Box<Switched>),
}

impl TargetBody {
    /// Holds this as long as either direction of the exchange goes on behind a change of protocol: the one to the target may
    /// outlive this body. Whatever else there is ends with the body.
    pub(crate) fn hold(&self, held: Held) {
        match &self.0 {
            Kind::Http1(_) => {}
            Kind::Http2(body) => body.hold(held),
            Kind::Switched(body) => body.hold(held),
        }
    }
}

impl From<Http1Body> for TargetBody {
    fn from(body: Http1Body) -> Self {
        Self(Kind::Http1(body))
    }
}

impl From<Http2Body> for TargetBody {
    fn from(body: Http2Body) -> Self {
        Self(Kind::Http2(body))
    }
}

impl From<Switched> for TargetBody {
    fn from(body: Switched) -> Self {
        Self(Kind::Switched(Box::new(body)))
    }
}

impl Body for TargetBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Kind::Http1(body) => Pin::new(body).poll_frame(cx),
            Kind::Http2(body) => Pin::new(body).poll_frame(cx),
            Kind::Switched(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http1(body) => body.is_end_stream(),
            Kind::Http2(body) => body.is_end_stream(),
            Kind::Switched(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http1(body) => body.size_hint(),
            Kind::Http2(body) => body.size_hint(),
            Kind::Switched(body) => body.size_hint(),
        }
    }
}
