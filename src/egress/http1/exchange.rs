//! One exchange on a connection: the service works, the body comes in, the response goes out, all at the same time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{EXPECT, TRAILER};
use http::{Response, StatusCode, Version, response};
use http_body::Body;

use super::head::{Head, Terms};
use super::response::{BodyWriter, Framing, Plan, Progress, write_head, write_informational};
use super::upload::{Upload, upload};
use super::{Connection, Stop, input};
use crate::egress::answer::{rejection, unwritable};
use crate::egress::{Context as ExchangeContext, ExchangeService, RequestBody, Socket, advertise};
use crate::message::BoxError;
use crate::message::chunked::{Chunked, Decoder};
use crate::message::connect;
use crate::message::interim::{InformationalSink, Queue};
use crate::message::validate;
use crate::message::violation::Violation;

/// Most bytes of following requests read while one is served; reading on is how a hang-up is noticed.
pub(super) const MAX_AHEAD: usize = 64 * 1024;

/// What the response has to know of the request.
pub(super) struct RequestState {
    terms: Terms,
    /// The sender waits for 100 before it sends the body.
    expects: bool,
    /// The body that is still on its way.
    pub(super) upload: Option<Upload>,
    /// The head of the response is on its way.
    pub(super) responds: bool,
    /// What is said before the response.
    informational: Arc<Queue>,
}

impl RequestState {
    pub(super) fn without_body(terms: Terms, informational: Arc<Queue>) -> Self {
        Self { terms, expects: false, upload: None, responds: false, informational }
    }

    /// What is left to be said before the response.
    pub(super) fn close(&self) -> impl Iterator<Item = Response<()>> + use<> {
        self.informational.close().into_iter()
    }
}

impl<T: Socket> Connection<T> {
    /// Serves one request. `Ok`: the connection is ready for the next.
    pub(super) async fn exchange<S: ExchangeService>(&mut self, service: &S, mut head: Head) -> Result<(), Stop> {
        if connect::is_plain_request(&head.request) {
            return Box::pin(self.connect(service, head)).await;
        }
        if let Some(offer) = head.offer.take() {
            // Rare, and apart from the future of every exchange.
            return Box::pin(self.offered(service, head, offer)).await;
        }
        Queue::renew(&mut self.interim, head.terms.version == Version::HTTP_11);
        let informational = Arc::clone(&self.interim);
        let sink = InformationalSink::from(Arc::clone(&informational));
        let (body, upload) = self.body(head.framing);
        let expects = head.expects && upload.is_some();
        let mut request = head.request.map(|()| body);
        if head.expects && !expects {
            // The body is here: nobody waits.
            request.headers_mut().remove(EXPECT);
        }
        let context = ExchangeContext { connection: self.info.clone(), interim: sink };
        let mut state = RequestState { terms: head.terms, expects, upload, responds: false, informational };
        let response = self.answer(service.call(request, context), &mut state).await?;
        self.respond(response, state).await
    }

    /// Answers a request that broke a rule.
    pub(super) async fn reject(&mut self, violation: Violation) -> io::Result<()> {
        self.conclude(rejection(violation, false)).await
    }

    /// A body that came with its head needs no channel.
    fn body(&mut self, framing: validate::Framing) -> (RequestBody, Option<Upload>) {
        let decoder = match framing {
            validate::Framing::None => return (RequestBody::empty(), None),
            validate::Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= self.input.buf.len() => {
                    return (RequestBody::whole(self.input.buf.split_to(length).freeze()), None);
                }
                _ => Decoder::Length(length),
            },
            validate::Framing::Chunked => {
                Decoder::Chunked(Chunked::new(self.settings.max_head_bytes, self.settings.max_head_fields))
            }
        };
        let (upload, download) = upload(decoder);
        (RequestBody::http1(download), Some(upload))
    }

    /// Waits for the response head, and drops the service's work when nobody waits for it any more.
    pub(super) async fn answer<F: Future>(&mut self, call: F, state: &mut RequestState) -> Result<F::Output, Stop> {
        let mut call = pin!(call);
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => self.poll_meanwhile(cx, state).map(Err),
        })
        .await
    }

    fn poll_meanwhile(&mut self, cx: &mut Context<'_>, state: &mut RequestState) -> Poll<Stop> {
        while let Poll::Ready(response) = state.informational.poll_next(cx) {
            write_informational(&response, &mut self.output);
        }
        if let Poll::Ready(Err(_)) = self.output.poll_write(&mut self.io, cx) {
            return Poll::Ready(Stop::Gone);
        }
        self.poll_both(cx, state)
    }

    /// The sender, and the clock.
    fn poll_both(&mut self, cx: &mut Context<'_>, state: &mut RequestState) -> Poll<Stop> {
        match self.poll_sender(cx, state) {
            Poll::Pending => self.poll_watch(cx, state),
            stop => stop,
        }
    }

    /// What the sender does while its request is served: it sends the body, then perhaps further requests, or hangs up.
    fn poll_sender(&mut self, cx: &mut Context<'_>, state: &mut RequestState) -> Poll<Stop> {
        if let Some(upload) = &mut state.upload {
            match ready!(upload.poll(&mut self.io, cx, &mut self.input)) {
                Ok(()) => state.upload = None,
                Err(stop) => return Poll::Ready(stop),
            }
        }
        self.poll_hang_up(cx)
    }

    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        while !self.input.eof && self.input.buf.len() < MAX_AHEAD {
            if ready!(self.input.poll_fill(&mut self.io, cx, input::AHEAD_READ)).is_err() {
                return Poll::Ready(Stop::Gone);
            }
        }
        if self.input.eof && !self.half_close { Poll::Ready(Stop::Gone) } else { Poll::Pending }
    }

    pub(super) async fn respond<B>(&mut self, response: Response<B>, mut state: RequestState) -> Result<(), Stop>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (mut parts, body) = response.into_parts();
        advertise(self.alternative.as_ref(), &self.leaving, &mut parts.headers);
        self.settle(&mut state).await?;
        for response in state.informational.close() {
            write_informational(&response, &mut self.output);
        }
        match Plan::new(&parts, state.terms, body.is_end_stream(), body.size_hint().exact()) {
            Ok(plan) => self.send(&parts, plan, body, state).await,
            Err(_) => {
                tracing::warn!(status = %parts.status, "a service answered with what HTTP/1 cannot say");
                let sent = self.conclude(unwritable()).await;
                Err(if sent.is_ok() { Stop::Close } else { Stop::Gone })
            }
        }
    }

    async fn send<B>(
        &mut self,
        parts: &response::Parts,
        plan: Plan,
        body: B,
        mut state: RequestState,
    ) -> Result<(), Stop>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let mut body = pin!(body);
        state.responds = true;
        // Nobody waits for a body that did not come.
        let late = parts.status == StatusCode::REQUEST_TIMEOUT;
        let close = late || self.is_last(plan, &state, body.is_end_stream());
        write_head(parts, plan, state.terms.version, close, &mut self.date, &mut self.output);
        let trailers_allowed = state.terms.takes_trailers || parts.headers.contains_key(TRAILER);
        let mut writer = BodyWriter::new(plan.framing, trailers_allowed);
        poll_fn(|cx| match self.poll_send(cx, &mut writer, body.as_mut()) {
            Poll::Pending => self.poll_both(cx, &mut state).map(|stop| Err(after_head(stop))),
            sent => sent,
        })
        .await?;
        let settled = self.settle(&mut state).await;
        // The response is complete: whatever is wrong with the rest of the request, it must still arrive.
        if close || settled.is_err() || state.upload.is_some() { Err(Stop::Close) } else { Ok(()) }
    }

    /// Whether the head says that the connection ends with this response. It does when the rest of the request may
    /// not come, or is not worth waiting for.
    fn is_last(&self, plan: Plan, state: &RequestState, ended: bool) -> bool {
        let unasked = state.expects && !state.informational.has_continued();
        let abandons = |upload: &Upload| ended || unasked || upload.is_unwanted();
        !state.terms.keep_alive
            || plan.framing == Framing::Close
            || self.leaving.is_cancelled()
            || state.upload.as_ref().is_some_and(abandons)
    }

    /// Takes in what is already here of a body nobody reads: if that is all of it, the connection can be kept.
    async fn settle(&mut self, state: &mut RequestState) -> Result<(), Stop> {
        if !state.upload.as_ref().is_some_and(Upload::is_unwanted) {
            return Ok(());
        }
        poll_fn(|cx| match self.poll_sender(cx, state) {
            Poll::Ready(stop) => Poll::Ready(Err(stop)),
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    pub(super) fn poll_send<B>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut BodyWriter,
        mut body: Pin<&mut B>,
    ) -> Poll<Result<(), Stop>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        loop {
            let progress = writer.poll_fill(body.as_mut(), cx, &mut self.output).unwrap_or_else(|failure| {
                tracing::debug!(error = &failure as &dyn std::error::Error, "a response is cut off");
                Progress::Cut
            });
            match (self.output.poll_write(&mut self.io, cx), progress) {
                (Poll::Pending, _) => return Poll::Pending,
                (Poll::Ready(Err(_)), _) => return Poll::Ready(Err(Stop::Gone)),
                (Poll::Ready(Ok(())), Progress::Complete) => return Poll::Ready(Ok(())),
                (Poll::Ready(Ok(())), Progress::Waiting) => return Poll::Pending,
                (Poll::Ready(Ok(())), Progress::Cut) => {
                    return Poll::Ready(Err(if writer.shows_its_end() { Stop::Cut } else { Stop::CutBare }));
                }
                (Poll::Ready(Ok(())), Progress::Full) => {}
            }
        }
    }

    /// Writes a last response of our own.
    async fn conclude(&mut self, response: Response<Bytes>) -> io::Result<()> {
        let (parts, body) = response.into_parts();
        let plan = Plan::whole(body.len());
        write_head(&parts, plan, Version::HTTP_11, true, &mut self.date, &mut self.output);
        self.output.push(body);
        poll_fn(|cx| self.output.poll_write(&mut self.io, cx)).await
    }
}

/// Once a response has begun, a broken request cannot be answered any more.
fn after_head(stop: Stop) -> Stop {
    if let Stop::Reject(_) = stop { Stop::Reset } else { stop }
}
