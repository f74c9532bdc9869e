//! HTTP alone: any service that turns a request into a response answers what arrives through a tunnel.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tracing::debug;

use crate::message::BoxError;
use crate::message::interim::{InformationalSink, Queue};
use crate::protocol::code::{OpenCause, StreamCode};
use crate::transport::arrival::{Accept, Arrival, HttpArrival};
use crate::transport::body::RecvBody;

/// Answers the exchanges of a tunnel.
///
/// Implemented for every cloneable `tower_service::Service` over [`RecvBody`], such as an axum router. The name of the
/// exported service that the responder asked for, if it named one, is a [`ServiceName`](crate::id::ServiceName) request
/// extension, and interim responses may be said through an
/// [`InformationalSink`] that is one too. The returned future is dropped at
/// once when the responder cancels the exchange.
pub trait Serve: Clone + Send + 'static {
    /// The response body.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static;

    /// Answers one request; an error resets the stream with `internal`.
    fn serve(
        &mut self,
        request: Request<RecvBody>,
    ) -> impl Future<Output = Result<Response<Self::Body>, BoxError>> + Send;
}

impl<S, B> Serve for S
where
    S: tower_service::Service<Request<RecvBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Body = B;

    async fn serve(&mut self, request: Request<RecvBody>) -> Result<Response<B>, BoxError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await.map_err(Into::into)?;
        self.call(request).await.map_err(Into::into)
    }
}

/// Why [`HttpService`] takes no raw stream and no flow.
const HTTP_ONLY: &str = "this initiator serves HTTP only";

/// Takes the HTTP part of what arrives with a [`Serve`], and refuses the rest: raw streams, flows, and requests that want to go
/// on in another protocol.
#[derive(Debug, Clone)]
pub struct HttpService<S>(pub S);

/// A refusal on its way; resolves when it has left.
pub type Refusing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The request that arrived; what is none is refused once the returned future has run.
///
/// # Errors
/// A raw stream or a flow arrived.
pub fn http_only(arrival: Arrival) -> Result<HttpArrival, Refusing> {
    match arrival {
        Arrival::Http(arrival) => Ok(arrival),
        // Whoever has gone needs no answer.
        Arrival::Raw(arrival) => {
            Err(Box::pin(async move { drop(arrival.refuse(OpenCause::UnknownService, HTTP_ONLY).await) }))
        }
        Arrival::Flow(arrival) => {
            Err(Box::pin(async move { drop(arrival.refuse(OpenCause::UnknownService, HTTP_ONLY).await) }))
        }
    }
}

impl<S: Serve + Sync> Accept for HttpService<S> {
    async fn accept(self, arrival: Arrival) {
        let HttpArrival { parts, body, service, mut responder } = match http_only(arrival) {
            Ok(arrival) => arrival,
            Err(refusing) => return refusing.await,
        };
        if parts.method == Method::CONNECT {
            let mut answer = Response::new(http_body_util::Empty::new());
            *answer.status_mut() = StatusCode::NOT_IMPLEMENTED;
            // Whoever has gone needs no answer.
            return drop(responder.respond(answer).await);
        }
        let interim = Arc::new(Queue::new(true));
        let mut request = Request::from_parts(parts, body);
        if let Some(service) = service {
            request.extensions_mut().insert(service);
        }
        request.extensions_mut().insert(InformationalSink::from(Arc::clone(&interim)));
        let mut server = self.0;
        let response = {
            let work = pin!(server.serve(request));
            responder.drive(work, |cx| interim.poll_next(cx)).await
        };
        match response {
            None => {}
            Some(Ok(response)) => {
                if let Err(error) = responder.respond(response).await {
                    debug!(%error, "a response was cut");
                }
            }
            Some(Err(error)) => {
                debug!(%error, "the service failed");
                responder.reset(StreamCode::Internal);
            }
        }
    }
}
