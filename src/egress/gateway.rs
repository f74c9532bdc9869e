//! The service behind the HTTP listeners: takes a request, finds the tunnel, forwards, and says exactly what failed.
//!
//! A request is tried again only where that does no harm: it goes to another tunnel when the first did not send or did
//! not process it, and once more when its tunnel ended before a response began, provided that its method is idempotent
//! and it has no body. Nothing is buffered for this; a body that was begun is never begun again.

mod attributes;
mod deadline;
mod retry;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Either, Full};

use self::attributes::RequestAttributes;
use self::deadline::within;
use self::retry::Attempts;
use self::upload::Upload;
use crate::egress::ConnectionInfo;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::forward::{self, Hop};
use crate::proxy::opener::Opener;
use crate::routing::{Directory, Router};

/// The body of a gateway's response: what came through the tunnel, or the text of a failure.
pub type GatewayBody<B> = Either<B, Full<Bytes>>;

/// Answers the requests of one listener. Clones are cheap and share everything.
pub struct Gateway<T> {
    directory: Arc<Directory<T>>,
    router: Arc<Router>,
}

impl<T> Clone for Gateway<T> {
    fn clone(&self) -> Self {
        Self { directory: Arc::clone(&self.directory), router: Arc::clone(&self.router) }
    }
}

impl<T: Opener> Gateway<T> {
    /// A gateway to these tunnels, with what its listener was configured to do.
    pub fn new(directory: Arc<Directory<T>>, router: Router) -> Self {
        Self { directory, router: Arc::new(router) }
    }

    /// Answers one request that has passed the validator. Failures are responses, too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the response's body, cancels the exchange at the target.
    pub async fn call<B>(&self, request: Request<B>) -> Response<GatewayBody<T::Body>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        match self.exchange(request).await {
            Ok(response) => response.map(Either::Left),
            Err(failure) => {
                tracing::debug!(cause = failure.cause().label(), details = failure.details(), "exchange failed");
                failure.response().map(Either::Right)
            }
        }
    }

    async fn exchange<B>(&self, request: Request<B>) -> Result<Response<T::Body>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let connection = head.extensions.remove::<ConnectionInfo>();
        let connection = connection.ok_or_else(|| Failure::new(Cause::Internal, "a request of unknown origin"))?;
        let to = self.router.resolve(&RequestAttributes { head: &head, connection: &connection }, &head.uri)?;
        forward::request(&mut head, &Hop { remote: connection.remote, local: connection.local, tls: connection.tls })?;

        let (upload, progress) = Upload::new(body);
        let mut attempts = Attempts::new(&self.directory, &to, &head, self.router.hold());
        let limit = self.router.deadline();
        let outcome = within(limit, progress.as_deref(), attempts.run(upload)).await;
        let response = outcome.unwrap_or_else(|_| Err(late(limit)))?;

        let (mut head, body) = response.into_parts();
        forward::response(&mut head);
        Ok(Response::from_parts(head, body))
    }
}

fn late(limit: Duration) -> Failure {
    Failure::new(Cause::Deadline, format!("no response began within {limit:?}"))
}
