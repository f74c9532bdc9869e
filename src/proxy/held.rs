//! A piece of a body that is here and may not move on yet.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use crate::shares::Wait;

/// Room for one piece. What it waits for was charged when it came, so that its size is known.
#[derive(Debug, Default)]
pub(super) struct Held(Option<Box<(Frame<Bytes>, Wait)>>);

impl Held {
    /// Keeps a piece until the wait is over, where there is one.
    pub(super) fn hold(&mut self, frame: Frame<Bytes>, wait: Option<Wait>, cx: &mut Context<'_>) -> Poll<Frame<Bytes>> {
        match wait {
            None => Poll::Ready(frame),
            Some(wait) => {
                self.0 = Some(Box::new((frame, wait)));
                self.poll(cx)
            }
        }
    }

    /// The piece, once it may move on. Only while there is one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Frame<Bytes>> {
        if let Some(held) = &mut self.0
            && Pin::new(&mut held.1).poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        self.0.take().map_or(Poll::Pending, |held| Poll::Ready(held.0))
    }

    /// Whether there is one.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |held| length(&held.0))
    }
}

/// Bytes of the body that a frame carries.
pub(super) fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

/// The hint of what is still to come, with what is held back of it.
pub(super) fn with_held(mut hint: http_body::SizeHint, held: &Held) -> http_body::SizeHint {
    if held.is_some() {
        let (lower, upper) = (hint.lower(), hint.upper());
        hint = http_body::SizeHint::new();
        hint.set_lower(lower + held.len());
        if let Some(upper) = upper {
            hint.set_upper(upper + held.len());
        }
    }
    hint
}
