//! What can carry an exchange to a node, and who finds it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, request};
use http_body::Body;

use super::connect::connect;
use super::connect_udp::{self, OverFlow};
use crate::id::{Place, ResponderId, ServiceName, TunnelId};
use crate::message::BoxError;
use crate::message::connect::is_plain;
use crate::message::failure::Failure;
use crate::message::grpc;
use crate::message::interim::InformationalSink;
use crate::registry::Handle;
use crate::shares::Account;
use crate::transport::{
    Answer, AnswerHead, BodyError, HeadParts, HttpHead, HttpStream, OpenError, RecvBody, Started, TransportKind, Tunnel,
};

/// A way to a node: a tunnel, or a sibling that has one.
pub trait Opener: Handle {
    /// The body of its responses. Its error means that the response was cut.
    type Body: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static;

    /// Which tunnel it is.
    fn id(&self) -> TunnelId;

    /// Whose tunnel it is.
    fn place(&self) -> &Place;

    /// What carries it.
    fn transport(&self) -> TransportKind;

    /// The sibling that it leads through; by default none.
    fn sibling(&self) -> Option<&ResponderId> {
        None
    }

    /// An exchange on it has failed so.
    fn note(&self, error: &OpenError) {
        let _ = error;
    }

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
        request: &mut Outgoing<'_>,
        body: &mut Option<B>,
    ) -> impl Future<Output = Result<Response<Self::Body>, OpenError>> + Send
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static;

    /// Says whether what was read last of a response is kept waiting for a rate: whoever reads it is not slow then.
    fn defer(body: &mut Self::Body, until: Instant) {
        let _ = (body, until);
    }
}

/// The head of a request on its way, and who is told of its interim responses.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The exported service it is for; `None`: the initiator matches host and path.
    pub service: Option<&'a ServiceName>,
    /// The head itself: it has passed the validator and is one that the next hop may see. It may be left without fields
    /// once a stream was opened for a body.
    pub head: &'a mut request::Parts,
    /// Where interim (1xx) responses go.
    pub interim: &'a InformationalSink,
}

impl Outgoing<'_> {
    /// Takes time that has passed from the time that the client gives a call; says whether it was worth it.
    pub(super) fn take_time(&mut self, passed: Duration) -> bool {
        let is_worth = passed >= WORTH_TELLING;
        if is_worth && let Some(allowed) = grpc::timeout(&self.head.headers) {
            grpc::set_timeout(&mut self.head.headers, allowed.saturating_sub(passed));
        }
        is_worth
    }
}

/// Less than this is not taken from the time that the other end is told.
const WORTH_TELLING: Duration = Duration::from_millis(10);

/// Finds the ways to where one request goes.
pub trait Find: Send + Sync {
    /// What it finds.
    type Opener: Opener;

    /// A way that is not among those to `avoid`, on which the request has failed already. May wait for one.
    ///
    /// # Errors
    ///
    /// There is none, and why; the client is told so unless an earlier way failed.
    fn find(&mut self, avoid: &[TunnelId]) -> impl Future<Output = Result<Self::Opener, Failure>> + Send;

    /// The account of the node to which a way leads, if that has one. By default none has.
    fn account(&self, opener: &Self::Opener) -> Option<Arc<Account>> {
        let _ = opener;
        None
    }

    /// All ways to the node to which this one leads, itself among them.
    fn beside(&self, opener: &Self::Opener) -> Vec<TunnelId> {
        vec![opener.id()]
    }

    /// From here on nothing is waited for.
    fn hurry(&mut self);

    /// Resolves when a way is not heard any more and there is another one that is not among those to `avoid`. May never
    /// resolve. Cancel safe.
    fn overtaken(&self, opener: &Self::Opener, avoid: &[TunnelId]) -> impl Future<Output = ()> + Send;
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

    fn sibling(&self) -> Option<&ResponderId> {
        Self::sibling(self)
    }

    fn note(&self, error: &OpenError) {
        Self::note(self, error);
    }

    fn defer(body: &mut RecvBody, until: Instant) {
        body.defer(until);
    }

    async fn exchange<B>(
        &self,
        request: &mut Outgoing<'_>,
        body: &mut Option<B>,
    ) -> Result<Response<RecvBody>, OpenError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        if is_plain(request.head) {
            return Box::pin(connect(self, (request.service, request.head), body)).await;
        }
        if let Some(over) = request.head.extensions.get::<OverFlow>() {
            return Box::pin(connect_udp::connect(self, (request.service, over.clone()), body)).await;
        }
        let Outgoing { service, head, interim } = request;
        let end = body.as_ref().is_none_or(Body::is_end_stream);
        // A request whose body has begun is not tried again; that to a sibling begins when it is wanted, if that says so.
        let waits = !end && self.says_here();
        let parts = if end || waits { HeadParts::Lent(head) } else { HeadParts::Given(head) };
        let stream = self.open_http(HttpHead { service: *service, parts, end }).await?;
        if waits {
            // Boxed: it is rare, and would be part of every exchange.
            return Box::pin(offer(stream, body, interim)).await;
        }
        let mut answer = send(stream, body.take());
        loop {
            match answer.next().await? {
                AnswerHead::Here => {}
                AnswerHead::Interim(early) => interim.send(early),
                AnswerHead::Final(parts, body) => return Ok(Response::from_parts(parts, body)),
            }
        }
    }
}

/// Sends a body on an open stream, and keeps the answer. What is not on its way at once is for a task; what stops it
/// reaches the peer as a reset and the client as the end of the response.
fn send<B>(stream: HttpStream, body: Option<B>) -> Answer
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    let HttpStream { upload, mut answer } = stream;
    if let (Some(mut body), Some(mut upload)) = (body, upload)
        && upload.start(Pin::new(&mut body)) == Started::Goes
    {
        let interest = answer.tie_upload();
        tokio::spawn(async move { drop(upload.send(body, interest).await) });
    }
    answer
}

/// As [`send`], for a sibling: the body begins when that has found the node, and until then it can go elsewhere. spec: FL-47
async fn offer<B>(
    mut stream: HttpStream,
    body: &mut Option<B>,
    interim: &InformationalSink,
) -> Result<Response<RecvBody>, OpenError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    let mut upload = stream.upload.take();
    let mut answer = stream.answer;
    loop {
        match answer.next().await? {
            AnswerHead::Here => answer = send(HttpStream { upload: upload.take(), answer }, body.take()),
            AnswerHead::Interim(early) => interim.send(early),
            AnswerHead::Final(parts, body) => return Ok(Response::from_parts(parts, body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_time_that_has_passed_is_taken_from_what_the_other_end_is_told() {
        let interim = InformationalSink::new(|_| {});
        for (passed, told) in [(1, "2S"), (500, "1500000u"), (5000, "1n")] {
            let mut head = Request::post("http://a/").header("grpc-timeout", "2S").body(()).unwrap().into_parts().0;
            let mut request = Outgoing { service: None, head: &mut head, interim: &interim };
            request.take_time(Duration::from_millis(passed));
            assert_eq!(head.headers["grpc-timeout"], told, "after {passed} ms");
        }
    }
}
