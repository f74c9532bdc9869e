//! What the initiator answers with: any service that turns a request into a response.

use std::future::Future;

use bytes::Bytes;

use crate::message::BoxError;
use crate::transport::body::RecvBody;

/// Answers the exchanges of a tunnel.
///
/// Implemented for every cloneable `tower_service::Service` over [`RecvBody`], such as an axum router. The name of the
/// exported service that the responder asked for, if it named one, is a [`ServiceName`](crate::id::ServiceName) request
/// extension. The returned future is dropped at once when the responder cancels the exchange.
pub trait Serve: Clone + Send + 'static {
    /// The response body.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static;

    /// Answers one request; an error resets the stream with `internal`.
    fn serve(
        &mut self,
        request: http::Request<RecvBody>,
    ) -> impl Future<Output = Result<http::Response<Self::Body>, BoxError>> + Send;
}

impl<S, B> Serve for S
where
    S: tower_service::Service<http::Request<RecvBody>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Body = B;

    async fn serve(&mut self, request: http::Request<RecvBody>) -> Result<http::Response<B>, BoxError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await.map_err(Into::into)?;
        self.call(request).await.map_err(Into::into)
    }
}
