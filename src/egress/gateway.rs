//! The service behind the HTTP listeners: takes a request, finds the tunnel, forwards, and says exactly what failed.
//!
//! It joins who decides where a request goes ([`routing`](crate::routing)) to who brings it there
//! ([`proxy::exchange`](crate::proxy::exchange)), and leaves one record of each exchange.

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
use http_body_util::Full;
use tracing::Instrument;

pub(super) use self::passage::Passage;
use self::time::{Rest, Time};
use crate::egress::attributes::RequestAttributes;
use crate::egress::body::Reports;
use crate::egress::find::FindTunnel;
use crate::egress::judge::Going;
use crate::egress::terms::{Current, InForce};
use crate::egress::upstream::{Inbound, Upstream};
use crate::egress::{ConnectionInfo, Context, ExchangeService, RequestBody};
use crate::message::BoxError;
use crate::message::connect::is_plain;
use crate::message::failure::{Cause, Failure};
use crate::message::forward;
use crate::message::interim::{InformationalSink, SendInterim};
use crate::message::max_forwards;
use crate::message::upgrade::{DECLINED_FIELD, Declined};
use crate::message::violation::Violation;
use crate::protocol::stream::ClientAddresses;
use crate::proxy::connect::IdleLimit;
use crate::proxy::connect_udp::OverFlow;
use crate::proxy::exchange::{Exchange, answer, within_limits};
use crate::proxy::opener::{Opener, Outgoing};
use crate::proxy::{Charged, Record, Recorder, UnderWay, Upload};
use crate::routing::{Destination, Directory};
use crate::targets::Prepared;

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
    ) -> impl Future<Output = Response<Passage<Inbound<T::Body>>>> + Send
    where
        B: Reports + Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let connection = &context.connection;
        // One look at the terms for all that they say of this request; they may be others when it is sent.
        let (mut record, way, settled) = {
            let now = self.0.current.load();
            let mut record = self.0.recorder.begin_with(now.access_log(), &head, Some(connection.remote));
            let way = self.way(&now, &RequestAttributes { head: &head, connection }, &mut record).and_then(|way| {
                if let Ok(to) = &way.to {
                    to.told(&mut record);
                }
                match way.time {
                    // No field of it goes any further.
                    Time::Connect => note_connection(&mut head, connection),
                    _ if way.is_udp => {
                        let client = ClientAddresses::new(connection.remote, connection.local);
                        head.extensions.insert(OverFlow { flows: self.0.recorder.flows().clone(), client });
                    }
                    _ => match max_forwards::count(&mut head)? {
                        Some(answer) => return Ok(Way { to: Err(Box::new(answer)), ..way }),
                        None => now.prepare(&mut head, connection)?,
                    },
                }
                // What enters no tunnel takes nothing of what tenants share.
                if let Ok(Going::Tunnel(to)) = &way.to {
                    let tenant = self.0.directory.shares().tenant(&to.tenant);
                    connection.is_of(&tenant);
                    record.enter(tenant, way.time.what())?;
                }
                Ok(way)
            });
            (record, way, now.settled.clone())
        };
        let connection = connection.begin();
        let mut body = record.upload(body);
        body.keep_back(&settled);
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
                Ok(way) => match &way.to {
                    Ok(Going::Tunnel(to)) => self.exchange(&mut request, way, to).await,
                    // Rare, and apart from the future of every exchange.
                    Ok(Going::Upstream(upstream)) => Box::pin(forward_to(upstream, &mut request, way)).await,
                    Err(answer) => Ok(Response::clone(answer).map(|text| Inbound::Own(Full::new(text)))),
                },
                Err(failure) => Err(failure.clone()),
            };
            let Received { connection, record, .. } = request;
            let rest = Rest::of(&outcome, &way, &record);
            let upload = record.upload_progress();
            let outcome = outcome.map(|response| {
                response.map(|body| {
                    Charged::new(body, record.meter(), |body, until| {
                        if let Inbound::Tunnel(body) = body {
                            T::defer(body, until);
                        }
                    })
                })
            });
            answer(outcome, record).map(|body| Passage::new(body, connection, upload, rest))
        }
    }

    /// Finds out where a request goes, and notes which rule has decided that.
    fn way(&self, now: &InForce, request: &RequestAttributes<'_>, record: &mut Record) -> Result<Way, Failure> {
        let judged = now.judge.judge(request);
        if let Some(decision) = &judged.decision {
            now.judge.counters.note(decision, &self.0.recorder, record);
        }
        Ok(Way::new(judged.way?, now, request))
    }

    async fn exchange<B>(
        &self,
        request: &mut Received<B>,
        way: &Way,
        to: &Destination,
    ) -> Result<Response<Inbound<T::Body>>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let Way { hold, deadline, time, .. } = way;
        // A copy: a reference would be kept while the response is waited for.
        let is_switch = *time == Time::Switch;
        let Received { head, body, connection, interim, record } = request;
        let find = FindTunnel::new(&self.0.directory, to, Duration::from_millis((*hold).into())).sharing(connection);
        let request = Outgoing { service: to.service.as_ref(), head, interim };
        let mut exchange = Exchange { find, request, deadline, pace: time.pace(connection) };
        let (mut answer, body) = exchange.run(body, record).await?.into_parts();
        if is_switch {
            settle_switch(&mut answer, exchange.request.head.version)?;
        }
        if !is_plain(exchange.request.head) {
            forward::response(&mut answer);
        }
        Ok(Response::from_parts(answer, Inbound::Tunnel(body)))
    }
}

/// Brings a request to an upstream outside of any tunnel, under the limits that hold for a tunnel.
async fn forward_to<B, T>(
    upstream: &Upstream,
    request: &mut Received<B>,
    way: &Way,
) -> Result<Response<Inbound<T>>, Failure>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    let Received { head, body, connection, interim, record } = request;
    record.forwarded(upstream.target());
    let body = body.take().ok_or_else(|| Failure::new(Cause::Internal, "the body of the request is gone"))?;
    let progress = body.progress();
    let prepared = Prepared::new(head.clone(), body)?;
    let sent = upstream.send(prepared, interim as &dyn SendInterim);
    let pace = way.time.pace(connection);
    let response = within_limits(sent, progress.as_deref(), &way.deadline, pace).await?;
    let (mut answer, body) = response.into_parts();
    if way.time == Time::Switch {
        settle_switch(&mut answer, head.version)?;
    }
    forward::response(&mut answer);
    Ok(Response::from_parts(answer, Inbound::Upstream(Box::new(body))))
}

/// Says in the head of a CONNECT who connected, and how long it may rest where that is not for ever.
fn note_connection(head: &mut request::Parts, connection: &ConnectionInfo) {
    head.extensions.insert(ClientAddresses::new(connection.remote, connection.local));
    let limit = connection.pace().connect_idle;
    if limit < Duration::MAX {
        head.extensions.insert(IdleLimit::new(limit));
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
    /// Nowhere, by what the request says itself: then this is the answer.
    to: Result<Going, Box<Response<Bytes>>>,
    /// Milliseconds: it is part of every exchange.
    hold: u32,
    deadline: Duration,
    time: Time,
    /// It is for datagrams, and goes over a flow.
    is_udp: bool,
}

impl Way {
    fn new(to: Going, now: &InForce, request: &RequestAttributes<'_>) -> Self {
        let router = &now.judge.router;
        let is_udp = now.judge.is_udp(request);
        let (time, deadline) = Time::of(request.head, router.deadline());
        let hold = u32::try_from(router.hold().as_millis()).unwrap_or(u32::MAX);
        Self { to: Ok(to), hold, deadline, time, is_udp }
    }
}

impl<T: Opener> ExchangeService for Gateway<T> {
    type Body = Passage<Inbound<T::Body>>;

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
        self.0.current.load().judge.router.takes_connect()
    }

    fn refused(&self, connection: &ConnectionInfo, version: Option<Version>, violation: Violation) {
        self.0.recorder.refused_with(self.0.current.load().access_log(), connection.remote, version, violation);
    }
}
