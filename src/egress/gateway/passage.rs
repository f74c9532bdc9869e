//! The body of an exchange's response on its way to the client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::time::Rest;
use crate::egress::quiet::Quiet;
use crate::message::fields::strip_from_response_trailers;
use crate::message::grpc;
use crate::proxy::body::Cut;
use crate::proxy::{Charged, ExchangeBody, Progress, UnderWay};
use crate::transport::BodyError;

/// What came through a tunnel, or the text of a failure. As long as it lives the exchange counts as one of its connection;
/// it is cut when nothing moves any more, and a call of gRPC that is cut ends with the trailers that say so.
#[derive(Debug)]
pub(in crate::egress) struct Passage<B> {
    body: ExchangeBody<Charged<B>>,
    under_way: UnderWay,
    upload: Option<Arc<Progress>>,
    watch: Watch,
    /// It was given up, and that was told.
    is_over: bool,
}

/// What ends a response that rests.
#[derive(Debug)]
enum Watch {
    Paced(Quiet),
    Connected(Quiet),
    Free,
    Call(Option<(Instant, Option<Pin<Box<Sleep>>>)>),
}

impl<B> Passage<B> {
    /// `upload`: how what is left of the request is getting on.
    pub(super) fn new(
        body: ExchangeBody<Charged<B>>,
        under_way: UnderWay,
        upload: Option<Arc<Progress>>,
        rest: Rest,
    ) -> Self {
        let watch = match rest {
            Rest::Paced => Watch::Paced(Quiet::default()),
            Rest::Connected if under_way.pace().connect_idle < Duration::MAX => Watch::Connected(Quiet::default()),
            Rest::Connected | Rest::Free => Watch::Free,
            Rest::Call => Watch::Call(None),
            Rest::CallUntil(end) => Watch::Call(Some((end, None))),
        };
        Self { body, under_way, upload, watch, is_over: false }
    }

    /// Whether it waits for a rate or a turn, which is nobody's rest. The time of a call passes all the same.
    fn rests_by_order(&mut self) -> bool
    where
        B: Body<Data = Bytes> + Unpin,
    {
        match &mut self.watch {
            Watch::Paced(quiet) | Watch::Connected(quiet) => {
                let is_upload_held = self.upload.as_ref().is_some_and(|upload| upload.is_held());
                if is_upload_held {
                    quiet.moves();
                }
                self.body.source().is_some_and(Charged::is_held)
            }
            Watch::Free | Watch::Call(_) => false,
        }
    }

    /// Ready, with what is to be told, when it has rested for too long.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let pace = self.under_way.pace();
        let limit = if matches!(self.watch, Watch::Paced(_)) { pace.exchange_idle } else { pace.connect_idle };
        match &mut self.watch {
            Watch::Paced(quiet) | Watch::Connected(quiet) => {
                let uploaded = self.upload.as_ref().map_or(0, |upload| upload.bytes());
                quiet.poll(limit, uploaded, cx).map(|()| BodyError::Idle)
            }
            Watch::Call(Some((end, sleep))) => {
                let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(*end)));
                sleep.as_mut().poll(cx).map(|()| BodyError::Late)
            }
            Watch::Free | Watch::Call(None) => Poll::Pending,
        }
    }
}

impl<B> Body for Passage<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        let error = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => error,
            Poll::Ready(mut frame) => {
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    strip_from_response_trailers(trailers);
                }
                if let Watch::Paced(quiet) | Watch::Connected(quiet) = &mut this.watch {
                    quiet.moves();
                }
                return Poll::Ready(frame);
            }
            Poll::Pending => {
                if this.rests_by_order() {
                    return Poll::Pending;
                }
                let error = ready!(this.poll_rest(cx));
                this.body.give_up(&error);
                error
            }
        };
        this.is_over = true;
        Poll::Ready(Some(match this.watch {
            Watch::Call(_) => Ok(Frame::trailers(grpc::trailers(error.cause(), &error))),
            Watch::Paced(_) | Watch::Connected(_) | Watch::Free => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
