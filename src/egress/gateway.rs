//! The service behind the HTTP listeners: takes a request, finds the tunnel, forwards, and says exactly what failed.
//!
//! It joins who decides where a request goes ([`routing`](crate::routing)) to who brings it there
//! ([`proxy::exchange`](crate::proxy::exchange)), and leaves one record of each exchange.

mod attributes;
mod passage;
#[cfg(test)]
mod tests;
mod time;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version, request, response};
use http_body::Body;
use tracing::Instrument;

use self::attributes::RequestAttributes;
pub(super) use self::passage::Passage;
use self::time::{Rest, Time};
use crate::egress::body::Reports;
use crate::egress::find::FindTunnel;
use crate::egress::terms::{Current, InForce};
use crate::egress::{ConnectionInfo, Context, ExchangeService, RequestBody};
use crate::message::BoxError;
use crate::message::connect::is_plain;
use crate::message::failure::{Cause, Failure};
use crate::message::forward;
use crate::message::interim::InformationalSink;
use crate::message::upgrade::{DECLINED_FIELD, Declined};
use crate::message::violation::Violation;
use crate::proxy::connect::IdleLimit;
use crate::proxy::exchange::{Exchange, answer};
use crate::proxy::opener::{Opener, Outgoing};
use crate::proxy::{Record, Recorder, UnderWay, Upload};
use crate::routing::{Destination, Directory};

/// Answers the requests of one listener. Clones are cheap and share everything.
pub(super) struct Gateway<T>(Arc<Inner<T>>);

struct Inner<T> {
    directory: Arc<Directory<T>>,
    current: Arc<Current>,
    recorder: Recorder,
}

impl<T> Clone for Gateway<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Opener> Gateway<T> {
    /// A gateway to these tunnels that goes by these terms, which say what `recorder` logs, too.
    pub(super) fn new(directory: Arc<Directory<T>>, current: Arc<Current>, recorder: Recorder) -> Self {
        Self(Arc::new(Inner { directory, current, recorder }))
    }

    /// Answers one request that has passed the validator. Failures are responses, too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the response's body, cancels the exchange at the target.
    pub(super) fn answer<B>(
        &self,
        request: Request<B>,
        context: Context,
    ) -> impl Future<Output = Response<Passage<T::Body>>> + Send
    where
        B: Reports + Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let connection = &context.connection;
        // One look at the terms for all that they say of this request; they may be others when it is sent.
        let (mut record, way) = {
            let now = self.0.current.load();
            let mut record = self.0.recorder.begin_with(now.access_log(), &head, Some(connection.remote));
            let way = Way::new(&now, &RequestAttributes { head: &head, connection }).and_then(|way| {
                record.asked(&way.to.tenant, &way.to.host_id, way.to.service.as_ref());
                match way.time {
                    // No field of it goes any further.
                    Time::Connect => note_idle_limit(&mut head, connection),
                    _ => now.prepare(&mut head, connection)?,
                }
                Ok(way)
            });
            (record, way)
        };
        let connection = connection.begin();
        let mut body = record.upload(body);
        body.introduce(B::report_to);
        if way.as_ref().is_ok_and(|way| way.time == Time::Connect)
            && let Some(upload) = body.progress()
        {
            upload.counts_to_its_end();
        }
        let body = Some(body);
        // What the future holds, it holds once: everything below borrows it.
        let mut request = Received { head, body, connection, interim: context.interim, record };
        async move {
            let outcome = match &way {
                Ok(way) => self.exchange(&mut request, way).await,
                Err(failure) => Err(failure.clone()),
            };
            let Received { connection, record, .. } = request;
            let rest = Rest::of(&outcome, &way, &record);
            let upload = record.upload_progress();
            answer(outcome, record).map(|body| Passage::new(body, connection, upload, rest))
        }
    }

    async fn exchange<B>(&self, request: &mut Received<B>, way: &Way) -> Result<Response<T::Body>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let Way { to, hold, deadline, time } = way;
        // A copy: a reference would be kept while the response is waited for.
        let is_switch = *time == Time::Switch;
        let Received { head, body, connection, interim, record } = request;
        let find = FindTunnel::new(&self.0.directory, to, *hold).sharing(connection);
        let request = Outgoing { service: to.service.as_ref(), head, interim };
        let mut exchange = Exchange { find, request, deadline, pace: time.pace(connection) };
        let (mut answer, body) = exchange.run(body, record).await?.into_parts();
        if is_switch {
            settle_switch(&mut answer, exchange.request.head.version)?;
        }
        if !is_plain(exchange.request.head) {
            forward::response(&mut answer);
        }
        Ok(Response::from_parts(answer, body))
    }
}

/// Says in the head of a CONNECT how long it may rest, where that is not for ever.
fn note_idle_limit(head: &mut request::Parts, connection: &ConnectionInfo) {
    let limit = connection.pace().connect_idle;
    if limit < Duration::MAX {
        head.extensions.insert(IdleLimit(limit));
    }
}

/// What the target has answered to a wish for another protocol. A 2xx means that it was granted, unless it says otherwise;
/// only an Upgrade of HTTP/1.1 can be answered so and declined at once. spec: ST-43
fn settle_switch(answer: &mut response::Parts, asked_in: Version) -> Result<(), Failure> {
    let is_declined = answer.headers.remove(DECLINED_FIELD).is_some();
    if !answer.status.is_success() || !is_declined {
        return Ok(());
    }
    if asked_in == Version::HTTP_11 {
        answer.extensions.insert(Declined);
        return Ok(());
    }
    let details = format!("the target answered {} and did not switch protocols", answer.status.as_u16());
    Err(Failure::new(Cause::UpgradeFailed, details))
}

/// A request and all that is kept of it while it is answered.
struct Received<B> {
    head: request::Parts,
    body: Option<Upload<B>>,
    connection: UnderWay,
    interim: InformationalSink,
    record: Record,
}

/// What the terms say of one request: where it goes, and how long that may take.
struct Way {
    to: Destination,
    hold: Duration,
    deadline: Duration,
    time: Time,
}

impl Way {
    fn new(now: &InForce, request: &RequestAttributes<'_>) -> Result<Self, Failure> {
        let router = &now.router;
        let uri = &request.head.uri;
        let to =
            if is_plain(request.head) { router.resolve_connect(request, uri) } else { router.resolve(request, uri) }?;
        let (time, deadline) = Time::of(request.head, router.deadline());
        Ok(Self { to, hold: router.hold(), deadline, time })
    }
}

impl<T: Opener> ExchangeService for Gateway<T> {
    type Body = Passage<T::Body>;

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

    fn takes_connect(&self) -> bool {
        self.0.current.load().router.takes_connect()
    }

    fn refused(&self, connection: &ConnectionInfo, violation: Violation) {
        self.0.recorder.refused_with(self.0.current.load().access_log(), connection.remote, violation);
    }
}
