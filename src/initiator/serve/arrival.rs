//! What arrives through a tunnel, taken to its target. Small: one of these futures lives in the task of every exchange.

use std::pin::Pin;
use std::sync::Arc;

use http::{Response, response};
use tracing::{Instrument, Span, debug};

use super::exported::{Exported, WatchedBody};
use super::{ServiceBody, Services, answer, flow, raw, span};
use crate::message::failure::Failure;
use crate::message::interim::Queue;
use crate::proxy::{Record, refused};
use crate::targets::Prepared;
use crate::transport::{Accept, Arrival, HttpArrival, Responder, StreamRefusal, TunnelFacts};

impl Accept for Services {
    fn refused(&self, tunnel: TunnelFacts<'_>, refusal: &StreamRefusal) {
        self.0.recorder.refused_stream(tunnel, refusal);
    }

    /// Answers a request; a failure is an answer, too. Raw streams and flows are taken to their target.
    fn accept(self, arrival: Arrival) -> impl Future<Output = ()> + Send + 'static {
        // Outside the future, which would otherwise hold the arrival twice.
        let mut taken = match arrival {
            Arrival::Raw(arrival) => Taken::Other(Box::pin(raw::serve(self, arrival))),
            Arrival::Flow(arrival) => Taken::Other(Box::pin(flow::serve(self, arrival))),
            Arrival::Http(arrival) => Taken::Http(Serving::new(&self, arrival)),
        };
        async move {
            match &mut taken {
                Taken::Http(serving) => serving.run().await,
                Taken::Other(work) => work.await,
            }
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "one allocation less per exchange; the large one is the usual one")]
enum Taken {
    Http(Serving),
    Other(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// One exchange.
struct Serving {
    stage: Stage,
    /// Whom it goes to; `None` where nobody answers.
    exported: Option<Arc<Exported>>,
    /// Both are there until the response is.
    record: Option<Record>,
    responder: Option<Responder>,
}

/// How far it is; what a later stage needs takes the place of what an earlier one had.
#[allow(clippy::large_enum_variant, reason = "it is changed in place")]
enum Stage {
    Ready(Prepared, Span),
    Failed(Failure),
    Passing(ServiceBody),
    Over,
}

impl Serving {
    fn new(services: &Services, arrival: HttpArrival) -> Self {
        let HttpArrival { parts, body, service, responder } = arrival;
        let span = span(&parts.method, Some(responder.tunnel()));
        let (mut record, begun) = services.begin(Some(responder.tunnel()), service.as_ref(), parts, body);
        record.through(responder.tunnel());
        let (exported, stage) = match begun {
            Ok((exported, prepared)) => (Some(exported), Stage::Ready(prepared, span)),
            Err(failure) => (None, Stage::Failed(failure)),
        };
        Self { stage, exported, record: Some(record), responder: Some(responder) }
    }

    async fn run(&mut self) {
        let Some(outcome) = self.exchange().await else { return };
        let (Some(record), Some(responder)) = (self.record.take(), self.responder.take()) else { return };
        let (parts, body) = told(outcome, record);
        self.stage = Stage::Passing(body);
        let Stage::Passing(body) = &mut self.stage else { return };
        if let Err(error) = responder.respond_with(parts, Pin::new(body)).await {
            debug!(%error, "a response was cut");
        }
    }

    /// What comes of the request; `None` where nobody waits for it any more.
    async fn exchange(&mut self) -> Option<Result<Response<WatchedBody>, Failure>> {
        let interim = Queue::new(true);
        let (exported, responder) = (self.exported.as_ref(), self.responder.as_mut()?);
        // In a box of its own, which is gone before the response is passed on.
        let mut work = match (std::mem::replace(&mut self.stage, Stage::Over), exported) {
            (Stage::Ready(prepared, span), Some(exported)) => {
                Box::pin(exported.send(prepared, Some(&interim)).instrument(span))
            }
            (Stage::Failed(failure), _) => return Some(Err(failure)),
            _ => return None,
        };
        let outcome = responder.drive(work.as_mut(), |cx| interim.poll_next(cx)).await?;
        exported.map(|exported| exported.received(outcome))
    }
}

/// What the responder gets, with what is for it alone. Apart from the future of every exchange. spec: ST-45
fn told(outcome: Result<Response<WatchedBody>, Failure>, record: Record) -> (response::Parts, ServiceBody) {
    let refused = outcome.as_ref().err().and_then(|failure| refused::cause_of(failure.cause()));
    let (mut parts, body) = answer(outcome, record).into_parts();
    refused::note(refused, &mut parts.headers);
    (parts, body)
}
