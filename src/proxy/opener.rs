//! What can carry an exchange to a node, and who finds it.

use std::future::Future;

use bytes::Bytes;
use http::{Response, request};
use http_body::Body;

use crate::id::{Place, ServiceName, TunnelId};
use crate::message::BoxError;
use crate::message::failure::Failure;
use crate::message::interim::InformationalSink;
use crate::registry::Handle;
use crate::transport::{
    AnswerHead, BodyError, HeadParts, HttpHead, HttpStream, OpenError, RecvBody, TransportKind, Tunnel,
};

/// A way to a node: a tunnel, later also a sibling that has one.
pub trait Opener: Handle {
    /// The body of its responses. Its error means that the response was cut.
    type Body: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static;

    /// Which tunnel it is.
    fn id(&self) -> TunnelId;

    /// Whose tunnel it is.
    fn place(&self) -> &Place;

    /// What carries it.
    fn transport(&self) -> TransportKind;

    /// Sends a request and waits for the head of the final response.
    ///
    /// `body` is taken once the stream is open, and not before: as long as it is there, nothing of it was polled and the
    /// request can go another way. It is sent by a task of its own while the response comes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the body it brings, cancels the exchange at the target.
    fn exchange<B>(
        &self,
        request: Outgoing<'_>,
        body: &mut Option<B>,
    ) -> impl Future<Output = Result<Response<Self::Body>, OpenError>> + Send
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

/// The head of a request on its way, and who is told of its interim responses.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The exported service it is for; `None`: the initiator matches host and path.
    pub service: Option<&'a ServiceName>,
    /// The head itself: it has passed the validator and is one that the next hop may see.
    pub head: &'a request::Parts,
    /// Where interim (1xx) responses go.
    pub interim: &'a InformationalSink,
}

/// Finds the ways to where one request goes.
pub trait Find: Send {
    /// What it finds.
    type Opener: Opener;

    /// A way that is not among those to `avoid`, on which the request has failed already. May wait for one.
    ///
    /// # Errors
    ///
    /// There is none, and why; the client is told so unless an earlier way failed.
    fn find(&mut self, avoid: &[TunnelId]) -> impl Future<Output = Result<Self::Opener, Failure>> + Send;
}

impl Opener for Tunnel {
    type Body = RecvBody;

    fn id(&self) -> TunnelId {
        Self::id(self)
    }

    fn place(&self) -> &Place {
        Self::place(self)
    }

    fn transport(&self) -> TransportKind {
        Self::transport(self)
    }

    async fn exchange<B>(&self, request: Outgoing<'_>, body: &mut Option<B>) -> Result<Response<RecvBody>, OpenError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Outgoing { service, head, interim } = request;
        let end = body.as_ref().is_none_or(Body::is_end_stream);
        let head = HttpHead { service, parts: HeadParts::Lent(head), end };
        let HttpStream { upload, mut answer } = self.open_http(head).await?;
        if let (Some(body), Some(upload)) = (body.take(), upload) {
            // What stops it reaches the peer as a reset and the client as the end of the response.
            let task = tokio::spawn(async move { drop(upload.send(body).await) });
            answer.tie_upload(task.abort_handle());
        }
        loop {
            match answer.next().await? {
                AnswerHead::Interim(early) => interim.send(early),
                AnswerHead::Final(parts, body) => return Ok(Response::from_parts(parts, body)),
            }
        }
    }
}
