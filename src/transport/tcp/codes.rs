//! What HTTP/2 says, in the words of a tunnel, and the other way round. spec: TB-7, TB-8

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::message::BoxError;
use crate::message::fields::{FieldRules, is_forbidden, is_forbidden_in_trailers};
use crate::message::h2::recv::RecvError;
use crate::message::h2::send::{self, ANY_TRAILERS, OnCut, Outlet, Terms};
use crate::protocol::code::StreamCode;
use crate::protocol::limits::Limits;
use crate::protocol::stream::StreamError;
use crate::transport::error::{BodyError, SendError, TunnelLost, peer_text};
use crate::transport::raw::RawError;
use crate::transport::state::TunnelState;

/// What the fields of a head are held to.
pub(super) const fn head_rules(limits: Limits) -> FieldRules {
    FieldRules { max_fields: limits.head_fields, max_bytes: limits.head_bytes, forbids: is_forbidden }
}

/// What the fields of trailers are held to. spec: ST-24
pub(super) const fn trailer_rules(limits: Limits) -> FieldRules {
    FieldRules { forbids: is_forbidden_in_trailers, ..head_rules(limits) }
}

/// What a body that failed at its source is reset with.
pub(super) const SOURCE_FAILED: Reason = Reason::INTERNAL_ERROR;

/// Sends the body of a response to its end, or resets the stream behind what its source gave. spec: ST-38, TB-8
pub(crate) fn send_response_body<'a, B>(
    stream: &'a mut SendStream<Bytes>,
    tunnel: Arc<TunnelState>,
    body: Pin<&'a mut B>,
) -> impl Future<Output = Result<(), SendError>> + use<'a, B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    send_body(stream, tunnel, body, OnCut::Deliver)
}

/// What a body is held to, apart from trailers. Not in the future of an exchange, where they would be a part of its size.
const DISCARDED: Terms = Terms {
    declared: None,
    stall_timeout: None,
    max_trailers: ANY_TRAILERS,
    reset: reset_code,
    on_cut: OnCut::Discard,
};
const DELIVERED: Terms = Terms { on_cut: OnCut::Deliver, ..DISCARDED };

fn reset_code(error: &send::SendError) -> Reason {
    match error {
        send::SendError::Trailers => Reason::ENHANCE_YOUR_CALM,
        _ => SOURCE_FAILED,
    }
}

/// Bodies leave through the room that their tunnel has for what is not written. spec: SE-17
impl Outlet for Arc<TunnelState> {
    type Data = Bytes;

    fn try_reserve(&self, wanted: usize) -> Option<usize> {
        self.unwritten().try_reserve(wanted)
    }

    fn reserve(&self, wanted: usize) -> impl Future<Output = usize> + Send {
        self.unwritten().reserve(wanted)
    }

    fn put(&self, data: Bytes, reserved: usize) -> Bytes {
        self.unwritten().put(data, reserved)
    }

    // spec: ER-10
    fn max_trailers(&self, _: &Terms) -> (u32, u32) {
        let limits = self.peer_limits();
        (limits.head_bytes, limits.head_fields)
    }
}

/// Sends a body to its end, or resets the stream.
pub(super) async fn send_body<B>(
    stream: &mut SendStream<Bytes>,
    tunnel: Arc<TunnelState>,
    body: Pin<&mut B>,
    on_cut: OnCut,
) -> Result<(), SendError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let terms = if on_cut == OnCut::Deliver { &DELIVERED } else { &DISCARDED };
    Ok(send::send_body_through(&tunnel, stream, body, terms).await?)
}

impl From<send::SendError> for SendError {
    fn from(error: send::SendError) -> Self {
        match error {
            send::SendError::Stopped(reason) => Self::Stopped(stream_code(reason)),
            send::SendError::Lost(error) => Self::Lost(lost(&error)),
            send::SendError::Source(error) => Self::Source(error),
            send::SendError::Trailers => Self::Limit,
            send::SendError::Stalled | send::SendError::Length => Self::Source(error.into()),
        }
    }
}

impl From<RecvError> for BodyError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Stopped(reason) | RecvError::Cancelled(reason) => Self::Reset(stream_code(reason)),
            RecvError::Protocol(_) => Self::Protocol(StreamError::Http2),
            RecvError::Lost(error) => Self::TunnelLost(lost(&error)),
            RecvError::Length => Self::Length,
            RecvError::Trailers(violation) => Self::Protocol(StreamError::Fields(violation)),
        }
    }
}

/// What an error of the stream says about what was to be sent.
pub(super) fn failed_send(error: h2::Error) -> SendError {
    send::SendError::from(error).into()
}

/// What an error of the stream says about a raw stream or a flow that was to be read. HTTP/2 knows no other cut than this
/// reset. spec: TB-14
pub(super) fn failed_read(error: h2::Error) -> RawError {
    match BodyError::from(RecvError::from(error)) {
        BodyError::Reset(StreamCode::Internal) => RawError::Cut,
        error => error.into(),
    }
}

pub(super) fn lost(error: &h2::Error) -> TunnelLost {
    TunnelLost(peer_text(error.to_string().as_bytes()))
}

/// What a reset of HTTP/2 means in our words. spec: TB-8
pub(super) fn stream_code(reason: Reason) -> StreamCode {
    match reason {
        Reason::NO_ERROR => StreamCode::NoError,
        Reason::PROTOCOL_ERROR | Reason::FRAME_SIZE_ERROR | Reason::FLOW_CONTROL_ERROR => StreamCode::Protocol,
        Reason::CANCEL => StreamCode::Cancelled,
        Reason::REFUSED_STREAM => StreamCode::Rejected,
        Reason::ENHANCE_YOUR_CALM => StreamCode::Limit,
        _ => StreamCode::Internal,
    }
}

/// Our words as a reset of HTTP/2. spec: TB-8
pub(super) fn reason(code: StreamCode) -> Reason {
    match code {
        StreamCode::NoError => Reason::NO_ERROR,
        StreamCode::Protocol | StreamCode::UnknownType => Reason::PROTOCOL_ERROR,
        StreamCode::Cancelled => Reason::CANCEL,
        StreamCode::Rejected => Reason::REFUSED_STREAM,
        StreamCode::Limit => Reason::ENHANCE_YOUR_CALM,
        StreamCode::Internal
        | StreamCode::Truncated
        // Between siblings only, which do not speak HTTP/2.
        | StreamCode::NotHere
        | StreamCode::TunnelLost
        | StreamCode::HeadTooLarge
        | StreamCode::TunnelFull
        | StreamCode::Quota => Reason::INTERNAL_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    // spec: TB-8
    #[test]
    fn a_code_that_decides_about_a_second_attempt_survives_http2() {
        for code in [StreamCode::NoError, StreamCode::Cancelled, StreamCode::Rejected, StreamCode::Limit] {
            assert_eq!(stream_code(reason(code)), code);
        }
        assert_eq!(stream_code(reason(StreamCode::Truncated)), StreamCode::Internal);
        assert_eq!(stream_code(Reason::from(0xabcd)), StreamCode::Internal);
    }

    fn judged(name: &'static str, value: &'static [u8]) -> Result<(), StreamCode> {
        let mut fields = HeaderMap::new();
        fields.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        let rules = head_rules(Limits { head_bytes: 32, head_fields: 1 });
        rules.judge(&fields, 10).map_err(|violation| StreamError::Fields(violation).code())
    }

    // spec: TB-7
    #[test]
    fn a_head_obeys_the_rules_of_our_own_frames() {
        assert_eq!(judged("x-some", b"0123456789abcdef"), Ok(()), "32 bytes");
        assert_eq!(judged("x-some", b"0123456789abcdefg"), Err(StreamCode::Limit));
        assert_eq!(judged("x", b"a\xff b"), Ok(()));
        for value in [&b" a"[..], b"a ", b"\ta", b"a\t"] {
            assert_eq!(judged("x", value), Err(StreamCode::Protocol));
        }
        for name in ["host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"] {
            assert_eq!(judged(name, b"x"), Err(StreamCode::Protocol), "{name}");
        }
        assert_eq!(judged("te", b"trailers"), Ok(()));
    }
}
