//! What can carry an exchange to a node.

use std::future::Future;

use bytes::Bytes;
use http::{Response, request};
use http_body::Body;

use crate::id::{ServiceName, TunnelId};
use crate::message::BoxError;
use crate::registry::Handle;
use crate::transport::{ExchangeError, RecvBody, Tunnel};

/// A way to a node: a tunnel, later also a sibling that has one.
pub trait Opener: Handle {
    /// The body of its responses. Its error means that the response was cut.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;

    /// Which tunnel it is.
    fn id(&self) -> TunnelId;

    /// Sends a request and waits for the head of the final response.
    ///
    /// `body` is taken once the stream is open, and not before: as long as it is there, nothing of it was polled and the
    /// request can go another way. 1xx responses go to the
    /// [`InformationalSink`](crate::message::interim::InformationalSink) among the extensions of `head`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the body it brings, cancels the exchange at the target.
    fn exchange<B>(
        &self,
        service: Option<&ServiceName>,
        head: &request::Parts,
        body: &mut Option<B>,
    ) -> impl Future<Output = Result<Response<Self::Body>, ExchangeError>> + Send
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl Opener for Tunnel {
    type Body = RecvBody;

    fn id(&self) -> TunnelId {
        Self::id(self)
    }

    async fn exchange<B>(
        &self,
        service: Option<&ServiceName>,
        head: &request::Parts,
        body: &mut Option<B>,
    ) -> Result<Response<RecvBody>, ExchangeError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::exchange(self, service, head, body).await
    }
}
