//! The response to one request, on its way into a stream of HTTP/2.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::HOST;
use http::{HeaderMap, Response, Version, response};

use crate::message::failure::Failure;
use crate::message::fields;
use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::tcp::strip_own_fields;
use crate::transport::error::{SendError, head_too_large};
use crate::transport::tcp::codes::{lost, reason};
use crate::transport::tcp::envoy::websocket::Asking;

/// See [`crate::transport::Responder`].
#[derive(Debug)]
pub(crate) struct Responder {
    respond: SendResponse<Bytes>,
    to_head: bool,
    peer_limits: PeerLimits,
    /// It answers an Envoy that wants to go on in another protocol.
    asking: Option<Box<Asking>>,
    /// What dropping it tells the peer; `None` once the response has begun or the peer has reset the stream.
    on_drop: Option<Reason>,
}

impl Responder {
    pub(super) const fn new(respond: SendResponse<Bytes>, to_head: bool, peer_limits: PeerLimits) -> Self {
        Self { respond, to_head, peer_limits, asking: None, on_drop: Some(Reason::REFUSED_STREAM) }
    }

    /// The same for an extended CONNECT of an Envoy.
    pub(super) fn asked_by_envoy(mut self, asking: Box<Asking>) -> Self {
        self.asking = Some(asking);
        self
    }

    pub(crate) const fn begin(&mut self) {
        self.on_drop = Some(Reason::INTERNAL_ERROR);
    }

    pub(crate) fn interim(&mut self, mut response: Response<()>) {
        fields::strip_hop_by_hop(response.headers_mut());
        strip_own_fields(response.headers_mut());
        if self.exceeds(response.headers()) {
            // spec: ER-10
            return;
        }
        // It can only fail when the stream is gone, which the next look at it tells.
        let _ = self.respond.send_informational(response);
    }

    /// Ready once the responder has reset the stream.
    pub(crate) fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.respond.poll_reset(cx).map(|_| self.on_drop = None)
    }

    /// Sends the head; `body_is_over`: nothing follows it. `None` where nothing does.
    pub(crate) fn begin_response(
        mut self,
        mut parts: response::Parts,
        body_is_over: bool,
    ) -> Result<Option<SendStream<Bytes>>, SendError> {
        let end = self.to_head || body_is_over;
        fields::strip_hop_by_hop(&mut parts.headers);
        strip_own_fields(&mut parts.headers);
        parts.headers.remove(HOST);
        parts.version = Version::HTTP_2;
        parts.extensions = http::Extensions::new();
        if parts.status.is_informational() {
            self.on_drop = Some(Reason::INTERNAL_ERROR);
            return Err(SendError::Head("it is not final"));
        }
        let unfit = self.unfit(&mut parts);
        let (mut response, mut end) = (Response::from_parts(parts, ()), end);
        if let Some(failure) = unfit {
            response = failure.bare_response();
            *response.version_mut() = Version::HTTP_2;
            end = true;
        }
        self.on_drop = None;
        let sent = self.respond.send_response(response, end);
        let stream = sent.map_err(|error| SendError::Lost(lost(&error)))?;
        Ok((!end).then_some(stream))
    }

    /// Why the responder gets another head than this one. spec: EV-49, ER-10
    fn unfit(&mut self, parts: &mut response::Parts) -> Option<Failure> {
        if let Some(Err(failure)) = self.asking.take().map(|asking| asking.settle(parts)) {
            return Some(failure);
        }
        let fields = &parts.headers;
        let failure = || head_too_large(fields::field_bytes(fields), fields.len(), self.peer_limits);
        self.exceeds(fields).then(failure)
    }

    /// Whether the responder takes no head with these fields. spec: HS-15, TB-7
    fn exceeds(&self, head: &HeaderMap) -> bool {
        fields::field_bytes(head) > self.peer_limits.head_bytes as usize
            || head.len() > self.peer_limits.head_fields as usize
    }

    pub(crate) fn reset(mut self, code: StreamCode) {
        self.on_drop = Some(reason(code));
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(reason) = self.on_drop {
            self.respond.send_reset(reason);
        }
    }
}
