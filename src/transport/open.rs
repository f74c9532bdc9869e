//! What a responder opens on a tunnel: an HTTP stream, with the head sent and both directions in the caller's hands.
//!
//! To open is not to exchange: whether a request is tried again, how long it may take and what is recorded of it is for
//! whoever opens.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Response, request, response};
use http_body::Body;

use crate::id::ServiceName;
use crate::message::BoxError;
use crate::message::interim::Allowance;
use crate::message::upgrade::Protocol;
use crate::protocol::stream::StreamError;
use crate::transport::body::RecvBody;
use crate::transport::error::{OpenError, SendError};
use crate::transport::tied::{Interest, Started};
use crate::transport::{quic, tcp};

/// The head of a request, as a stream is opened with it.
#[derive(Debug)]
pub struct HttpHead<'a> {
    /// The exported service that it is for; without one the initiator matches host and path.
    pub service: Option<&'a ServiceName>,
    /// Method, URI with scheme and authority, and fields.
    pub parts: HeadParts<'a>,
    /// Nothing follows: neither body nor trailers.
    pub end: bool,
}

/// Whether the caller still needs the parts of a request once the stream is open.
#[derive(Debug)]
pub enum HeadParts<'a> {
    /// They stay whole, for another attempt; a transport that needs them for itself copies them.
    Lent(&'a request::Parts),
    /// They may be left without fields, which saves the copy.
    Given(&'a mut request::Parts),
}

/// The protocol that a request wants to go on in. spec: ST-15
///
/// # Errors
///
/// It is a CONNECT without one, which is no exchange.
pub(super) fn asked_protocol(parts: &request::Parts) -> Result<Option<&Protocol>, OpenError> {
    if parts.method != Method::CONNECT {
        return Ok(None);
    }
    parts.extensions.get::<Protocol>().map(Some).ok_or(OpenError::Request("CONNECT is not an exchange"))
}

impl HeadParts<'_> {
    pub(super) const fn get(&self) -> &request::Parts {
        match self {
            Self::Lent(parts) => parts,
            Self::Given(parts) => parts,
        }
    }

    /// The fields, copied only where they were lent.
    pub(super) fn take_fields(&mut self) -> http::HeaderMap {
        match self {
            Self::Lent(parts) => parts.headers.clone(),
            Self::Given(parts) => std::mem::take(&mut parts.headers),
        }
    }
}

/// An open HTTP stream. Both halves live on their own: an answer may end before the upload does, or the other way round.
#[derive(Debug)]
pub struct HttpStream {
    /// Takes the request's body; `None` when the head said that nothing follows. Until [`Upload::send`] runs, even the
    /// head may wait: it leaves together with the first piece of the body. Through a sibling it has left, and the body
    /// waits for [`AnswerHead::Here`].
    pub upload: Option<Upload>,
    /// Brings the response.
    pub answer: Answer,
}

/// The sending half of an HTTP stream. Dropping it unsent cancels the stream.
#[derive(Debug)]
pub struct Upload(UploadHalf);

#[derive(Debug)]
enum UploadHalf {
    Quic(quic::HttpUpload),
    Tcp(tcp::HttpUpload),
}

impl Upload {
    pub(super) const fn quic(upload: quic::HttpUpload) -> Self {
        Self(UploadHalf::Quic(upload))
    }

    pub(super) const fn tcp(upload: tcp::HttpUpload) -> Self {
        Self(UploadHalf::Tcp(upload))
    }

    /// Sends what there is already of a body and needs no waiting: a small body that is here whole needs no task. The same
    /// body goes to [`Upload::send`] if anything is left of it.
    pub fn start<B>(&mut self, body: Pin<&mut B>) -> Started
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        match &mut self.0 {
            UploadHalf::Quic(upload) => upload.start(body),
            UploadHalf::Tcp(upload) => upload.start(body),
        }
    }

    /// Sends a body and its trailers to the end, or resets the stream. A piece is pulled only when the last one was taken,
    /// so a peer that stalls stalls its source. It ends, too, when nobody has an `interest` in the answer any more; where that came
    /// whole, it goes on as long as the peer wants it.
    ///
    /// # Errors
    /// [`SendError`]: the peer wants no more of it, the tunnel is gone, or the body failed at its source.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the stream.
    pub async fn send<B>(self, body: B, interest: Interest) -> Result<(), SendError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        match self.0 {
            UploadHalf::Quic(upload) => upload.send(body, interest).await,
            UploadHalf::Tcp(upload) => upload.send(body, interest).await,
        }
    }
}

/// The receiving half of an HTTP stream: interim heads, then the final one. Dropping it, or the body that it brings before
/// that body's end, cancels the exchange: the initiator drops the service's work at once.
#[derive(Debug)]
pub struct Answer {
    half: AnswerHalf,
    /// How many interim heads may still come.
    interim: Allowance,
}

#[derive(Debug)]
enum AnswerHalf {
    Quic(quic::Answer),
    Tcp(tcp::Answer),
}

/// A head that came back.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once; the large one is the usual one")]
pub enum AnswerHead {
    /// 100, 102 to 199; the final one is still to come.
    Interim(Response<()>),
    /// The sibling that the stream leads through wants the request's body now, and not before: until then nobody has begun
    /// with the request who would miss it. No tunnel of a node says so. spec: FL-47
    Here,
    /// The response itself. The answer is over then: what follows is in the body.
    Final(response::Parts, RecvBody),
}

impl Answer {
    pub(super) fn quic(answer: quic::Answer) -> Self {
        Self { half: AnswerHalf::Quic(answer), interim: Allowance::default() }
    }

    pub(super) fn tcp(answer: tcp::Answer) -> Self {
        Self { half: AnswerHalf::Tcp(answer), interim: Allowance::default() }
    }

    /// For [`Upload::send`], which ends as soon as nobody wants the rest of the answer any more. Once the answer came whole the
    /// upload may go on to its own end.
    pub fn tie_upload(&mut self) -> Interest {
        match &mut self.half {
            AnswerHalf::Quic(answer) => answer.tie_upload(),
            AnswerHalf::Tcp(answer) => answer.tie_upload(),
        }
    }

    /// The next head. After the final one, or an error, it must not be called again.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, OpenError>> {
        let head = ready!(match &mut self.half {
            AnswerHalf::Quic(answer) => answer.poll_next(cx),
            AnswerHalf::Tcp(answer) => answer.poll_next(cx),
        });
        if matches!(head, Ok(AnswerHead::Interim(_))) {
            self.interim.take().map_err(StreamError::from)?;
        }
        Poll::Ready(head)
    }

    /// The next head; see [`Answer::poll_next`].
    ///
    /// # Errors
    /// [`OpenError`]: there will be no final head.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost between two calls.
    pub async fn next(&mut self) -> Result<AnswerHead, OpenError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}
