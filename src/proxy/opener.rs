//! What can carry an exchange to a node, and who finds it.

use std::future::Future;

use bytes::Bytes;
use http::{Response, request};
use http_body::Body;

use crate::id::{Place, ServiceName, TunnelId};
use crate::message::BoxError;
use crate::message::failure::Failure;
use crate::registry::Handle;
use crate::transport::{BodyError, OpenError, RecvBody, TransportKind, Tunnel};

/// A way to a node: a tunnel, later also a sibling that has one.
pub trait Opener: Handle {
    /// The body of its responses. Its error means that the response was cut.
    type Body: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static;

    /// Which tunnel it is.
    fn id(&self) -> TunnelId;

    /// Whose tunnel it is.
    fn place(&self) -> &Place;

    /// What carries it.
    fn transport(&self) -> TransportKind;

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
    ) -> impl Future<Output = Result<Response<Self::Body>, OpenError>> + Send
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

/// Finds the ways to where one request goes.
pub trait Find: Send {
    /// What it finds.
    type Opener: Opener;

    /// A way that is not among those to `avoid`, on which the request has failed already. May wait for one.
    ///
    /// # Errors
    ///
    /// There is none, and why; the client is told so unless an earlier way failed.
    fn find(&mut self, avoid: &[TunnelId]) -> impl Future<Output = Result<Self::Opener, Failure>> + Send;
}

impl Opener for Tunnel {
    type Body = RecvBody;

    fn id(&self) -> TunnelId {
        Self::id(self)
    }

    fn place(&self) -> &Place {
        Self::place(self)
    }

    fn transport(&self) -> TransportKind {
        Self::transport(self)
    }

    async fn exchange<B>(
        &self,
        service: Option<&ServiceName>,
        head: &request::Parts,
        body: &mut Option<B>,
    ) -> Result<Response<RecvBody>, OpenError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::exchange(self, service, head, body).await
    }
}
