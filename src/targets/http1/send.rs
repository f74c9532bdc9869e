//! A request on its way to the target: the head and the body behind it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::connection::Sender;
use super::request::{Framing, write_chunk_size, write_head, write_last_chunk};
use crate::message::BoxError;
use crate::message::fields::strip_from_trailers;
use crate::net::output::Output;
use crate::targets::outbound::Outbound;
use crate::targets::upload::{Streaming, Upload};

/// While more than this waits to be written, no more of the body is asked for, bytes.
const MAX_WAITING: usize = 64 * 1024;

/// What is left to send of one request.
pub(super) struct Sending {
    /// How many bytes the connection had sent before.
    begun_at: u64,
    /// Data of a streaming body that is in the output, while nothing of the request has been written.
    unsent: Option<Bytes>,
    rest: Rest,
}

/// What is left of the body beyond the output.
enum Rest {
    Nothing,
    Length(Box<Streaming>, u64),
    Chunked(Box<Streaming>),
}

/// Why a request was not sent to its end.
#[derive(Debug)]
pub(super) enum SendError {
    /// Its own body failed, or is not as long as its head declares. The target must not take it for complete.
    Cut(BoxError),
    /// The target takes no more. It may have said why.
    Broken(io::Error),
}

/// How far a body came.
#[derive(PartialEq, Eq)]
enum Filled {
    Complete,
    Full,
    Waiting,
}

impl Sending {
    /// Puts the head, and what is there of the body, into the output of the connection.
    ///
    /// # Errors
    ///
    /// [`SendError::Cut`]; nothing was sent.
    pub(super) fn new(outbound: &Outbound, upload: Upload, output: &mut Output) -> Result<Self, SendError> {
        let framing = Framing::new(outbound, &upload);
        let mut sending = Self { begun_at: output.written(), unsent: None, rest: Rest::Nothing };
        write_head(outbound, framing, output);
        match (upload, framing) {
            (Upload::Whole(data), _) => output.push(data),
            (Upload::Streaming(body), Framing::Chunked) => sending.begin(Rest::Chunked(body), output)?,
            (Upload::Streaming(body), Framing::Length(length)) => sending.begin(Rest::Length(body, length), output)?,
        }
        Ok(sending)
    }

    /// The first data of the body goes out beside the head. It is kept until some of it is written: till then the request
    /// can be taken to another connection.
    fn begin(&mut self, mut rest: Rest, output: &mut Output) -> Result<(), SendError> {
        let (Rest::Length(body, _) | Rest::Chunked(body)) = &mut rest else { return Ok(()) };
        self.unsent = body.take_first();
        self.rest = rest;
        self.unsent.clone().map_or(Ok(()), |data| self.data(data, output))
    }

    /// All is sent.
    pub(super) fn is_complete(&self, sender: &Sender) -> bool {
        matches!(self.rest, Rest::Nothing) && sender.output.is_sent()
    }

    /// Nothing of the request has left.
    pub(super) fn is_unsent(&self, sender: &Sender) -> bool {
        sender.output.written() == self.begun_at
    }

    /// The streaming body again, of which nothing was lost: only while the request [is unsent](Self::is_unsent).
    pub(super) fn into_upload(self) -> Option<Upload> {
        let (Rest::Length(mut body, _) | Rest::Chunked(mut body)) = self.rest else { return None };
        if let Some(data) = self.unsent {
            body.put_first(data);
        }
        Some(Upload::Streaming(body))
    }

    /// Sends on, as fast as body and target allow.
    pub(super) fn poll(&mut self, sender: &mut Sender, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            let filled = if self.is_unsent(sender) { Filled::Full } else { self.fill(&mut sender.output, cx)? };
            ready!(sender.output.poll_write(&mut sender.write, cx)).map_err(SendError::Broken)?;
            self.unsent = None;
            match filled {
                Filled::Complete => return Poll::Ready(Ok(())),
                Filled::Full => {}
                Filled::Waiting => return Poll::Pending,
            }
        }
    }

    /// Sends to the end, and gives the direction back. After a failure it is gone, so that the target sees the cut.
    pub(super) async fn run(mut self, mut sender: Sender) -> Result<Sender, SendError> {
        poll_fn(|cx| self.poll(&mut sender, cx)).await?;
        Ok(sender)
    }

    /// Moves what the body has into the output.
    fn fill(&mut self, output: &mut Output, cx: &mut Context<'_>) -> Result<Filled, SendError> {
        loop {
            let body = match &mut self.rest {
                Rest::Nothing => return Ok(Filled::Complete),
                Rest::Length(body, 0) => {
                    nothing_more(body, cx)?;
                    self.rest = Rest::Nothing;
                    continue;
                }
                Rest::Length(body, _) | Rest::Chunked(body) => body,
            };
            if output.len() >= MAX_WAITING {
                return Ok(Filled::Full);
            }
            match body.poll_frame(cx) {
                Poll::Pending => return Ok(Filled::Waiting),
                Poll::Ready(Some(frame)) => self.frame(frame.map_err(SendError::Cut)?, output)?,
                Poll::Ready(None) => self.end(None, output)?,
            }
        }
    }

    fn frame(&mut self, frame: Frame<Bytes>, output: &mut Output) -> Result<(), SendError> {
        match frame.into_data() {
            Ok(data) => self.data(data, output),
            Err(frame) => self.end(frame.into_trailers().ok(), output),
        }
    }

    fn data(&mut self, data: Bytes, output: &mut Output) -> Result<(), SendError> {
        match &mut self.rest {
            _ if data.is_empty() => {}
            Rest::Nothing => {}
            Rest::Chunked(_) => chunk(data, output),
            Rest::Length(_, remaining) => {
                *remaining = remaining.checked_sub(data.len() as u64).ok_or_else(longer)?;
                output.push(data);
            }
        }
        Ok(())
    }

    /// The body has ended. A body with a length has no place for trailers.
    fn end(&mut self, trailers: Option<HeaderMap>, output: &mut Output) -> Result<(), SendError> {
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Length(_, 1..) => Err(SendError::Cut("it is shorter than its Content-Length".into())),
            Rest::Nothing | Rest::Length(..) => Ok(()),
            Rest::Chunked(_) => {
                let trailers = trailers.map(|mut fields| {
                    strip_from_trailers(&mut fields);
                    fields
                });
                write_last_chunk(trailers.as_ref(), output);
                Ok(())
            }
        }
    }
}

/// The target has all that was declared, so nothing waits for the end of the body; only what is there already is looked
/// at. How it ends no longer matters, as long as there is no more of it.
fn nothing_more(body: &mut Streaming, cx: &mut Context<'_>) -> Result<(), SendError> {
    let is_more = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(|data| !data.is_empty());
    match body.poll_frame(cx) {
        Poll::Ready(Some(Ok(frame))) if is_more(&frame) => Err(longer()),
        _ => Ok(()),
    }
}

fn longer() -> SendError {
    SendError::Cut("it is longer than its Content-Length".into())
}

fn chunk(data: Bytes, output: &mut Output) {
    write_chunk_size(data.len(), output);
    output.push(data);
    output.put(b"\r\n");
}
