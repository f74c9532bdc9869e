//! What a sibling asks for, sent on into a tunnel that ends here. spec: FL-42 to FL-46

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::Notify;

use crate::fleet::hop::find::FindHere;
use crate::fleet::hop::served::{Served, Told, told};
use crate::fleet::hop::{flow, raw};
use crate::message::failure::Failure;
use crate::message::interim::{InformationalSink, Queue};
use crate::protocol::code::OpenCause;
use crate::protocol::fleet::Route;
use crate::proxy::exchange::{Exchange, answer};
use crate::proxy::opener::Outgoing;
use crate::proxy::refused;
use crate::proxy::{Charged, Pace, Record};
use crate::shares::What;
use crate::transport::{Arrival, BodyError, Early, HttpArrival, RecvBody, Relay};

/// How long an answer may take: whoever asks has a deadline of its own, and cancels.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Serves siblings with the tunnels that end here. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Relayed(pub(super) Arc<Served>);

impl Relay for Relayed {
    async fn relay(self, route: Route, arrival: Arrival) {
        match arrival {
            Arrival::Http(arrival) => exchange(&self.0, &route, arrival).await,
            Arrival::Raw(arrival) => Box::pin(raw::relay(&self.0, &route, arrival)).await,
            Arrival::Flow(arrival) => Box::pin(flow::relay(&self.0, &route, arrival)).await,
        }
    }
}

async fn exchange(served: &Served, route: &Route, arrival: HttpArrival) {
    let HttpArrival { mut parts, body, service, mut responder } = arrival;
    let mut record = served.recorder.begin(&parts, None);
    record.asked(&route.tenant, &route.host_id, service.as_ref());
    let mut find = FindHere::new(&*served.tunnels, route, service.as_ref());
    let mut interim = Arc::new(Queue::new(true));
    let sink = InformationalSink::from(Arc::clone(&interim));
    let body = Wanted::new(body);
    let wanted = Arc::clone(&body.told);
    let outcome = {
        let request = Outgoing { service: service.as_ref(), head: &mut parts, interim: &sink };
        let work = pin!(carried(served, &mut find, request, body, &mut record));
        let (mut wanted, mut is_said) = (pin!(wanted.notified()), false);
        let early = |cx: &mut Context<'_>| {
            if !is_said && wanted.as_mut().poll(cx).is_ready() {
                is_said = true;
                return Poll::Ready(Early::Here);
            }
            interim.poll_next(cx).map(Early::Interim)
        };
        responder.drive(work, early).await
    };
    Queue::renew(&mut interim, false);
    match outcome {
        // Nobody waits for it any more.
        None => {}
        Some(Ok(response)) => {
            let response = response.map(|body| Charged::new(body, record.meter(), RecvBody::defer));
            let (parts, mut body) = answer(Ok(response), record).into_parts();
            // Where this fails, the record says how.
            let _ = responder.respond_with(parts, Pin::new(&mut body)).await;
        }
        Some(Err(failure)) => {
            record.fail(&failure);
            match told(&failure, find.has_found()) {
                Told::Reset(code) => responder.reset(code),
                Told::Full => {
                    record.responded(failure.status());
                    let mut response = failure.response().map(Full::new);
                    refused::note(Some(OpenCause::Limit), response.headers_mut());
                    let _ = responder.respond(response).await;
                }
            }
        }
    }
}

/// Brings a request through a tunnel that ends here.
async fn carried(
    served: &Served,
    find: &mut FindHere<'_>,
    request: Outgoing<'_>,
    body: Wanted,
    record: &mut Record,
) -> Result<Response<RecvBody>, Failure> {
    record.enter(served.tunnels.shares().tenant(&find.route().tenant), What::Exchange)?;
    let mut body = Some(record.upload(body));
    let mut exchange = Exchange { find, request, deadline: &NO_DEADLINE, pace: Some(&Pace::NONE) };
    exchange.run(&mut body, record).await
}

/// The body of a request, which says when it is wanted: a tunnel has taken the request then. spec: FL-47
struct Wanted {
    body: RecvBody,
    told: Arc<Notify>,
    is_told: bool,
}

impl Wanted {
    fn new(body: RecvBody) -> Self {
        Self { body, told: Arc::default(), is_told: false }
    }
}

impl Body for Wanted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !std::mem::replace(&mut self.is_told, true) {
            self.told.notify_one();
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
