//! The body of an exchange's response on its way to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::egress::quiet::Quiet;
use crate::proxy::{ExchangeBody, Progress, UnderWay};
use crate::transport::BodyError;

/// What came through a tunnel, or the text of a failure. As long as it lives the exchange counts as one of its connection;
/// it is cut when nothing moves any more.
#[derive(Debug)]
pub(in crate::egress) struct Passage<B> {
    body: ExchangeBody<B>,
    under_way: UnderWay,
    upload: Option<Arc<Progress>>,
    quiet: Quiet,
}

impl<B> Passage<B> {
    /// `upload`: how what is left of the request is getting on.
    pub(super) fn new(body: ExchangeBody<B>, under_way: UnderWay, upload: Option<Arc<Progress>>) -> Self {
        Self { body, under_way, upload, quiet: Quiet::default() }
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
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.quiet.moves();
            return Poll::Ready(frame);
        }
        let uploaded = this.upload.as_ref().map_or(0, |upload| upload.bytes());
        ready!(this.quiet.poll(this.under_way.pace().exchange_idle, uploaded, cx));
        this.body.give_up(&BodyError::Idle);
        Poll::Ready(Some(Err(BodyError::Idle)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
