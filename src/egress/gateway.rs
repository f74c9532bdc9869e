//! The service behind the HTTP listeners: takes a request, finds the tunnel, forwards, and says exactly what failed.
//!
//! It joins who decides where a request goes ([`routing`](crate::routing)) to who brings it there
//! ([`proxy::exchange`](crate::proxy::exchange)), and leaves one record of each exchange.

mod attributes;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body;
use tracing::Instrument;

use self::attributes::RequestAttributes;
use crate::egress::find::FindTunnel;
use crate::egress::{ConnectionInfo, Context, ExchangeService, RequestBody};
use crate::message::BoxError;
use crate::message::failure::Failure;
use crate::message::forward::{self, Hop};
use crate::message::violation::Violation;
use crate::proxy::exchange::{Exchange, answer};
use crate::proxy::opener::{Opener, Outgoing};
use crate::proxy::{ExchangeBody, Record, Recorder, Upload};
use crate::routing::{Directory, Router};

/// Answers the requests of one listener. Clones are cheap and share everything.
pub struct Gateway<T>(Arc<Inner<T>>);

struct Inner<T> {
    directory: Arc<Directory<T>>,
    router: Router,
    recorder: Recorder,
}

impl<T> Clone for Gateway<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Opener> Gateway<T> {
    /// A gateway to these tunnels, with what its listener was configured to do.
    pub fn new(directory: Arc<Directory<T>>, router: Router, recorder: Recorder) -> Self {
        Self(Arc::new(Inner { directory, router, recorder }))
    }

    /// Answers one request that has passed the validator. Failures are responses, too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the response's body, cancels the exchange at the target.
    pub fn answer<B>(
        &self,
        request: Request<B>,
        context: Context,
    ) -> impl Future<Output = Response<ExchangeBody<T::Body>>> + Send
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let (head, body) = request.into_parts();
        let mut record = self.0.recorder.begin(&head, Some(context.connection.remote));
        let body = Some(record.upload(body));
        // What the future holds, it holds once: everything below borrows it.
        let mut request = Received { head, body, context, record };
        async move {
            let outcome = self.exchange(&mut request).await;
            answer(outcome, request.record)
        }
    }

    async fn exchange<B>(&self, request: &mut Received<B>) -> Result<Response<T::Body>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let Inner { directory, router, .. } = &*self.0;
        let Received { head, body, context, record } = request;
        let connection = &context.connection;
        let to = router.resolve(&RequestAttributes { head, connection }, &head.uri)?;
        record.asked(&to.tenant, &to.host_id, to.service.as_ref());
        forward::request(head, &Hop { remote: connection.remote, local: connection.local, tls: connection.tls })?;

        let find = FindTunnel::new(directory, &to, router.hold());
        let request = Outgoing { service: to.service.as_ref(), head, interim: &context.interim };
        let mut exchange = Exchange { find, request, deadline: router.deadline() };
        let (mut head, body) = exchange.run(body, record).await?.into_parts();
        forward::response(&mut head);
        Ok(Response::from_parts(head, body))
    }
}

/// A request and all that is kept of it while it is answered.
struct Received<B> {
    head: request::Parts,
    body: Option<Upload<B>>,
    context: Context,
    record: Record,
}

impl<T: Opener> ExchangeService for Gateway<T> {
    type Body = ExchangeBody<T::Body>;

    fn call(
        &self,
        request: Request<RequestBody>,
        context: Context,
    ) -> impl Future<Output = Response<Self::Body>> + Send {
        let span = tracing::debug_span!(
            "exchange",
            side = "egress",
            listener = self.0.recorder.listener(),
            remote = %context.connection.remote,
            method = request.method().as_str(),
        );
        self.answer(request, context).instrument(span)
    }

    fn refused(&self, connection: &ConnectionInfo, violation: Violation) {
        self.0.recorder.refused(connection.remote, violation);
    }
}
