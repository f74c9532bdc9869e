//! Exchanges over HTTP/2, in clear with prior knowledge (h2c) or over TLS: all on one connection, or a few, see `shared`.
//!
//! Built on `h2` itself: hyper's client drops 1xx responses, and takes a response that the target cancelled for one
//! that has ended.

mod liveness;
mod shared;

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::header::CONTENT_LENGTH;
use http::uri::Scheme;
use http::{Method, Response};
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use self::liveness::OpenStream;
use self::shared::Shared;
use super::connect::Dialer;
use super::held::Held;
use super::outbound::Outbound;
use super::settings::TargetSettings;
use super::upload::Upload;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::FieldRules;
use crate::message::h2::head::final_head;
use crate::message::h2::recv::StreamBody;
use crate::message::h2::send::{ANY_TRAILERS, OnCut, Terms, send_body};
use crate::message::h2::small::Inflow;
use crate::message::interim::{Flood, SendInterim};
use crate::message::length;

/// How often a request is sent at most, where the target says each time that it did not process it.
const MOST_ATTEMPTS: u32 = 4;

/// A target that speaks HTTP/2.
pub(super) struct Client {
    connection: Shared,
    scheme: Scheme,
}

/// Why an attempt brought no response, and whether another may follow.
struct Attempt {
    failure: Failure,
    unprocessed: bool,
    stale: bool,
    /// The body of the request, from its beginning, where it streams and is not lost.
    upload: Option<Upload>,
}

/// An upload in a task of its own, which ends with the body.
type Uploading = AbortOnDropHandle<Upload>;

/// What both directions of a stream hold that has changed its protocol, until the last of them is over.
type BothHold = Arc<OnceLock<Held>>;

impl Client {
    pub(super) fn new(dialer: Dialer, settings: TargetSettings) -> Self {
        let scheme = if dialer.is_secure() { Scheme::HTTPS } else { Scheme::HTTP };
        Self { connection: Shared::new(dialer, settings), scheme }
    }

    /// Makes a connection of its own, and lets go of it again.
    pub(super) async fn reach(&self) -> Result<(), Failure> {
        self.connection.reach().await
    }

    /// One exchange; another attempt is made when the target says that the last one was not processed, and one when the
    /// connection ended and sending the request twice does no harm.
    pub(super) async fn exchange(
        &self,
        mut outbound: Outbound,
        mut upload: Upload,
        interim: Option<&dyn SendInterim>,
    ) -> Result<Response<Http2Body>, Failure> {
        let mut may_be_twice = outbound.is_idempotent();
        let mut left = MOST_ATTEMPTS;
        loop {
            let (copy, spare) = (upload.replay(), outbound.clone());
            let error = match self.attempt(outbound, upload, interim).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            left -= 1;
            let again = left > 0 && (error.unprocessed || (error.stale && std::mem::take(&mut may_be_twice)));
            match copy.or(error.upload) {
                Some(whole) if again => (outbound, upload) = (spare, whole),
                _ => return Err(error.failure),
            }
        }
    }

    async fn attempt(
        &self,
        outbound: Outbound,
        upload: Upload,
        interim: Option<&dyn SendInterim>,
    ) -> Result<Response<Http2Body>, Attempt> {
        let (mut sender, open) = self.connection.open().await?;
        let answers_head = outbound.method == Method::HEAD;
        let declared = outbound.declared;
        let switches = outbound.protocol.is_some();
        if switches {
            self.connection.check_switches(&sender, &open).await?;
        }
        let request = outbound.into_http2(self.scheme.clone())?;
        let ends = !switches && matches!(&upload, Upload::Whole(data) if data.is_empty());
        let (mut response, stream) =
            sender.send_request(request, ends).map_err(|error| Attempt::from(error).explained_by(&open))?;
        let both = switches.then(BothHold::default);
        let upload = if ends { None } else { start(stream, upload, declared, both.clone())? };
        let pass_on = |early| {
            if let Some(interim) = interim {
                interim.send(early);
            }
            Ok::<_, Attempt>(())
        };
        let (mut head, incoming) = match final_head(&mut response, pass_on).await {
            Ok(head) => head.into_parts(),
            Err(error) => return Err(Box::pin(error.explained_by(&open).with(upload)).await),
        };
        let both = both.filter(|_| head.status.is_success());
        if both.is_some() {
            // What follows is no body.
            head.headers.remove(CONTENT_LENGTH);
        }
        let length = length::of_response(answers_head, head.status, &head.headers);
        let incoming = StreamBody::new(Inflow::new(incoming, open.small_frames()), length, self.rules());
        Ok(Response::from_parts(head, Http2Body { incoming, upload, both, _open: open }))
    }

    /// Trailers are judged by size alone: what must not be in them is taken away when they go into the tunnel.
    fn rules(&self) -> FieldRules {
        FieldRules { max_fields: usize::MAX, max_bytes: self.connection.head_bytes(), forbids: |_, _| false }
    }
}

impl From<h2::Error> for Attempt {
    fn from(error: h2::Error) -> Self {
        let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        // RFC 9113 section 6.8: h2 fails with the GOAWAY those streams only that the target did not process.
        let passed_by = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        let cut = !error.is_remote() && error.reason() == Some(Reason::CANCEL);
        let cause = match () {
            () if cut => Cause::RequestCut,
            () if error.is_library() => Cause::TargetProtocol,
            () => Cause::TargetClosed,
        };
        Self {
            failure: Failure::new(cause, error.to_string()),
            unprocessed: refused || passed_by,
            stale: error.is_io() || error.is_go_away(),
            upload: None,
        }
    }
}

impl From<Flood> for Attempt {
    fn from(flood: Flood) -> Self {
        Self::from(Failure::new(Cause::TargetProtocol, flood.to_string()))
    }
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self { failure, unprocessed: false, stale: false, upload: None }
    }
}

impl Attempt {
    /// What TLS says of the connection is the reason, and will be said of the next one, too.
    fn explained_by(self, open: &OpenStream) -> Self {
        open.insecure().map_or(self, |failure| failure.clone().into())
    }

    /// Takes back what was being sent, where another attempt may need it. The stream is over, so its upload is too.
    async fn with(mut self, upload: Option<Uploading>) -> Self {
        if let (true, Some(task)) = (self.unprocessed || self.stale, upload)
            && let Ok(Upload::Streaming(mut body)) = task.await
            && body.rewind()
        {
            self.upload = Some(Upload::Streaming(body));
        }
        self
    }
}

/// Begins the upload. What is whole goes out at once, the rest in a task that ends with the handle. The target tells by
/// the response, or its failure, what became of it.
fn start(
    mut stream: SendStream<Bytes>,
    upload: Upload,
    declared: Option<u64>,
    both: Option<BothHold>,
) -> Result<Option<Uploading>, Attempt> {
    match upload {
        Upload::Whole(data) => {
            stream.send_data(data, true).map_err(Attempt::from)?;
            Ok(None)
        }
        Upload::Streaming(mut body) => Ok(Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let terms = Terms {
                declared,
                stall_timeout: None,
                max_trailers: ANY_TRAILERS,
                reset: |_| Reason::CANCEL,
                on_cut: OnCut::Discard,
            };
            body.keep();
            let mut upload = Upload::Streaming(body);
            if let Err(error) = send_body(&mut stream, Pin::new(&mut upload), &terms).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "the upload to a target ends early");
            }
            drop(both);
            upload
        })))),
    }
}

/// A response body; dropping it before its end resets the stream.
pub(super) struct Http2Body {
    incoming: StreamBody,
    /// Keeps the upload going while the response is wanted.
    upload: Option<Uploading>,
    /// It is no response, but one of two directions, of which the other may go on behind its end.
    both: Option<BothHold>,
    _open: OpenStream,
}

impl Http2Body {
    /// Holds this until both directions are over, where it is no response but two directions.
    pub(super) fn hold(&self, held: Held) {
        if let Some(both) = &self.both {
            // There is one exchange, which holds what it has once.
            let _ = both.set(held);
        }
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        let is_over = frame.is_none() || matches!(frame, Some(Ok(_))) && self.incoming.is_end_stream();
        if self.both.is_some() && is_over {
            self.upload.take().map(AbortOnDropHandle::detach);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
