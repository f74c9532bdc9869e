//! The exchange of a request for a response, over whatever is found to carry it.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::attempts::{Attempts, FoundBody, Ways};
use super::body::ExchangeBody;
use super::connect::IdleLimit;
use super::deadline::{Late, Limits, within};
use super::opener::{Find, Outgoing};
use super::pace::Pace;
use super::record::Record;
use super::upload::{Progress, Upload};
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::grpc;

/// A request that is ready to be sent, and who carries it how long.
#[derive(Debug)]
pub struct Exchange<'a, F> {
    /// Finds who carries it.
    pub find: F,
    /// The request.
    pub request: Outgoing<'a>,
    /// How long the response may take to begin, from when it is no longer the client's turn.
    pub deadline: &'a Duration,
    /// How long its client may rest; `None`: the deadline counts from the start, whoever's turn it is.
    pub pace: Option<&'a Pace>,
}

impl<F: Find> Exchange<'_, F> {
    /// Brings the request through, and writes down in `record` how. The body, which the record counts
    /// ([`Record::upload`]), is taken as soon as it is on its way.
    ///
    /// # Errors
    ///
    /// No response began: why, as the client is to be told.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the response's body, cancels the exchange at the target.
    pub async fn run<B>(
        &mut self,
        body: &mut Option<Upload<B>>,
        record: &mut Record,
    ) -> Result<Response<FoundBody<F>>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        if let Some(idle) = self.request.head.extensions.get_mut::<IdleLimit>() {
            idle.follow(body.as_ref().and_then(Upload::progress));
        }
        let progress = self.pace.and(body.as_ref()).and_then(Upload::progress);
        let limits = Limits { answer: self.deadline, pace: self.pace.unwrap_or(&Pace::NONE) };
        let ways = Ways { find: &mut self.find, record };
        let attempts = Attempts { ways, request: &mut self.request };
        let outcome = within(limits, progress.as_deref(), pin!(attempts.run(body))).await;
        let response = outcome.unwrap_or_else(|late| Err(failure(late, limits)))?;
        Ok(note_told(response, record))
    }
}

/// Waits for an answer that needs no tunnel, under the limits of an [`Exchange`]: `deadline` for the other side, `pace` for the
/// sender of the body that `progress` tells of.
///
/// # Errors
///
/// Somebody was late, or what `work` failed with.
///
/// # Cancel safety
///
/// As that of `work`.
pub(crate) async fn within_limits<R>(
    work: impl Future<Output = Result<R, Failure>>,
    progress: Option<&Progress>,
    deadline: &Duration,
    pace: Option<&Pace>,
) -> Result<R, Failure> {
    let progress = pace.and(progress);
    let limits = Limits { answer: deadline, pace: pace.unwrap_or(&Pace::NONE) };
    within(limits, progress, pin!(work)).await.unwrap_or_else(|late| Err(failure(late, limits)))
}

/// A failure that the initiator has put into words is one in the record, too.
fn note_told<B>(response: Response<B>, record: &mut Record) -> Response<B> {
    let (head, body) = response.into_parts();
    if let Some((cause, told)) = Cause::told_by_initiator(&head) {
        record.failed_with(cause, &told);
    }
    Response::from_parts(head, body)
}

fn failure(late: Late, Limits { answer, pace }: Limits<'_>) -> Failure {
    match late {
        Late::Answer => Failure::new(Cause::Deadline, format!("no response began within {answer:?}")),
        Late::Silent => {
            let details = format!("nothing of the request's body came for {:?}", pace.body_idle);
            Failure::new(Cause::BodyTimeout, details)
        }
        Late::Slow => {
            let details = format!("the request's body came at less than {} bytes a second", pace.body_rate);
            Failure::new(Cause::BodyTimeout, details)
        }
    }
}

/// What the client gets: the response, or the text of the failure. Its body closes the record.
pub fn answer<B: Body>(outcome: Result<Response<B>, Failure>, mut record: Record) -> Response<ExchangeBody<B>> {
    match outcome {
        Ok(response) => {
            if let Some(fault) = record.fault_of_client() {
                // Passed on all the same: it may say more than we know.
                record.fail(&fault);
            }
            record.responded(response.status());
            response.map(|body| ExchangeBody::passed(body, record))
        }
        Err(failure) => {
            let failure = record.fault_of_client().unwrap_or(failure);
            tracing::debug!(cause = failure.cause().label(), details = failure.details(), "exchange failed");
            record.fail(&failure);
            let response = if record.is_call() { grpc::response(&failure) } else { failure.response() };
            record.responded(response.status());
            response.map(|text| ExchangeBody::told(text, record))
        }
    }
}
