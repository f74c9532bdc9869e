//! What the responder's streams carry: encoders, and readers that take bytes in any split. spec: `3-streams.md`
//!
//! A stream starts with its type ([`StreamType::of`]). [`MessageReader`] reads HTTP streams, [`ServiceReader`] raw streams
//! and flows. On an HTTP stream each direction then carries one message: (INFO)* HEAD (DATA)*
//! TRAILERS? END. The END is explicit because a QUIC stream that merely finishes says nothing about completeness: a
//! library that drops a stream finishes it, and a truncated body must never look whole.

mod head;
mod input;
mod names;
mod reader;
mod service;
mod service_reader;
#[cfg(test)]
mod tests;
mod text;

use bytes::{BufMut, BytesMut};
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode};

use crate::id::ServiceName;
use crate::message::fields;
use crate::message::interim::Flood;
use crate::message::violation::Violation;
use crate::protocol::code::StreamCode;
use crate::protocol::varint;
use crate::protocol::wire::Malformed;

pub use self::head::{HEAD_FLAGS, METHODS, check_http_target, content_length as check_content_length};
pub use self::names::NAMES;
pub use self::reader::{Event, MessageReader, Role};
pub use self::service::{CLIENT_OPTION, ClientAddresses, ClientError, Open, Refused, ServiceFrame};
pub use self::service::{encode_datagram_header, encode_open, encode_opened, encode_refused};
pub use self::service_reader::{ServiceEvent, ServiceReader};
pub use self::text::Text;

/// What a stream carries: its first integer. spec: ST-1
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamType {
    /// One HTTP exchange.
    Http = 0x01,
    /// Bytes to and from a named service.
    Raw = 0x03,
    /// The datagrams of one UDP association with a named service.
    Flow = 0x05,
}

impl StreamType {
    /// Every type, in wire order.
    pub const ALL: [Self; 3] = [Self::Http, Self::Raw, Self::Flow];

    /// The number on the wire.
    pub const fn number(self) -> u64 {
        self as u64
    }

    /// The type with this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }

    /// The type of the stream whose first bytes these are; `None` while they are too few to tell. Takes nothing: the
    /// reader of a stream reads its type again. spec: ST-1, ST-2
    pub fn of(mut first: &[u8]) -> Result<Option<Self>, StreamError> {
        let Some(number) = varint::decode(&mut first).map_err(Malformed::from)? else { return Ok(None) };
        Self::from_number(number).map(Some).ok_or(StreamError::UnknownType(number))
    }
}

/// The type of a frame on a request stream. spec: ST-4
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameType {
    /// The head of a request or of the final response.
    Head = 0x01,
    /// A piece of the body.
    Data = 0x03,
    /// The head of an interim response (1xx).
    Info = 0x05,
    /// The fields after the body.
    Trailers = 0x07,
    /// The message is whole.
    End = 0x09,
}

impl FrameType {
    /// Every type, in wire order.
    pub const ALL: [Self; 5] = [Self::Head, Self::Data, Self::Info, Self::Trailers, Self::End];

    /// The number on the wire.
    pub const fn number(self) -> u64 {
        self as u64
    }

    /// The type with this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }
}

/// The frame by which a sibling says that it wants the body of a request. Who knows tunnels only skips it. spec: FL-47
pub const HERE: u64 = 0x02;

/// The head of a request. spec: ST-10
#[derive(Debug, Clone, PartialEq)]
pub struct RequestHead {
    /// The method; at most 32 bytes. spec: ST-11
    pub method: Method,
    /// `http` or `https`, as the client of the egress used it.
    pub scheme: Scheme,
    /// Host and port; may be empty; at most 512 bytes. spec: ST-12
    pub authority: Text,
    /// Path and query; `*` for OPTIONS; empty for a CONNECT without `protocol`. spec: ST-13
    pub path: Text,
    /// The exported service that it is for; without one the initiator matches authority and path. spec: ST-14
    pub service: Option<ServiceName>,
    /// What an extended CONNECT (RFC 8441) asks for; at most 64 bytes. spec: ST-15
    pub protocol: Option<String>,
    /// The fields, without `Host` and without what speaks of one connection. spec: ST-17, ST-18
    pub fields: HeaderMap,
}

/// A request head whose parts stand elsewhere: what a proxy encodes without copying it first. spec: ST-10
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// See [`RequestHead::method`].
    pub method: &'a Method,
    /// See [`RequestHead::scheme`].
    pub scheme: &'a Scheme,
    /// See [`RequestHead::authority`].
    pub authority: &'a str,
    /// See [`RequestHead::path`].
    pub path: &'a str,
    /// See [`RequestHead::service`].
    pub service: Option<&'a ServiceName>,
    /// See [`RequestHead::protocol`].
    pub protocol: Option<&'a str>,
    /// See [`RequestHead::fields`].
    pub fields: &'a HeaderMap,
}

impl<'a> From<&'a RequestHead> for RequestView<'a> {
    fn from(head: &'a RequestHead) -> Self {
        Self {
            method: &head.method,
            scheme: &head.scheme,
            authority: &head.authority,
            path: &head.path,
            service: head.service.as_ref(),
            protocol: head.protocol.as_deref(),
            fields: &head.fields,
        }
    }
}

/// The head of a response, interim or final. spec: ST-20
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseHead {
    /// The status; interim ones are 100 to 199 without 101.
    pub status: StatusCode,
    /// The fields, without what speaks of one connection. spec: ST-17
    pub fields: HeaderMap,
}

/// Why a stream's bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The stream ended before END. spec: ST-9
    #[error("the message is cut: the stream ended before END")]
    Truncated,
    /// The stream's type is not known, or not one that is read here. spec: ST-2
    #[error("stream type {0:#x} is unknown")]
    UnknownType(u64),
    /// A frame of an odd type that is not known. spec: ST-5
    #[error("frame type {0:#x} is unknown and must be understood")]
    UnknownFrame(u64),
    /// A frame where the message does not allow it. spec: ST-8
    #[error("a {0:?} frame is out of place")]
    Order(FrameType),
    /// A frame where a raw stream or a flow does not allow it. spec: ST-51
    #[error("a {0:?} frame is out of place")]
    Misplaced(ServiceFrame),
    /// Bytes after END. spec: ST-9
    #[error("bytes follow END")]
    AfterEnd,
    /// A frame whose header or payload breaks a rule.
    #[error("the message {0}")]
    Malformed(#[from] Malformed),
    /// The message is none of HTTP/2, by which it came. spec: TB-7
    #[error("the message breaks HTTP/2 itself")]
    Http2,
    /// Fields that came over HTTP/2 break a rule. spec: TB-7
    #[error("the fields are refused: {0}")]
    Fields(Violation),
    /// Interim heads do not end. spec: ST-21
    #[error(transparent)]
    Interim(#[from] Flood),
    /// More than this end takes. spec: ST-5, ST-6, ST-7
    #[error("{what} has {actual}; expected at most {max}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large the peer says it is.
        actual: u64,
        /// The most that would be taken.
        max: u64,
    },
}

impl StreamError {
    /// The code to reset the stream with. spec: ER-4
    pub const fn code(&self) -> StreamCode {
        match self {
            Self::Truncated => StreamCode::Truncated,
            Self::UnknownType(_) => StreamCode::UnknownType,
            Self::Limit { .. }
            | Self::Interim(_)
            | Self::Fields(Violation::HeadTooLarge | Violation::TooManyFields) => StreamCode::Limit,
            Self::UnknownFrame(_)
            | Self::Order(_)
            | Self::Misplaced(_)
            | Self::AfterEnd
            | Self::Malformed(_)
            | Self::Fields(_)
            | Self::Http2 => StreamCode::Protocol,
        }
    }
}

/// Appends the stream type and the HEAD of a request; `end` says that no body and no trailers follow.
///
/// Returns the payload bytes of the frame, which the peer's limit counts (HS-15). Fields that must not cross a tunnel are
/// left out. A head that breaks another rule is rejected by the peer. spec: ST-10
pub fn encode_request<'a>(head: impl Into<RequestView<'a>>, end: bool, out: &mut BytesMut) -> usize {
    varint::encode(out, StreamType::Http.number());
    let head = head.into();
    put_frame(out, FrameType::Head.number(), |out| head::put_request(&head, end, out))
}

/// Appends the HEAD of a final response; `end` says that no body and no trailers follow. Returns its payload bytes.
/// spec: ST-20
pub fn encode_response(head: &ResponseHead, end: bool, out: &mut BytesMut) -> usize {
    put_frame(out, FrameType::Head.number(), |out| head::put_response(head, end, out))
}

/// Appends an INFO frame: an interim response (1xx without 101). Returns its payload bytes. spec: ST-21
pub fn encode_info(head: &ResponseHead, out: &mut BytesMut) -> usize {
    put_frame(out, FrameType::Info.number(), |out| head::put_info(head, out))
}

/// Appends HERE: the body of the request is wanted. spec: FL-47
pub fn encode_here(out: &mut BytesMut) {
    varint::encode(out, HERE);
    varint::encode(out, 0);
}

/// Appends type and length of a DATA frame; `len` bytes of payload must follow. Nothing for an empty payload, which
/// has no frame. spec: ST-22
pub fn encode_data_header(len: u64, out: &mut BytesMut) {
    if len > 0 {
        varint::encode(out, FrameType::Data.number());
        varint::encode(out, len);
    }
}

/// Appends a TRAILERS frame; END must follow. Nothing when no field may cross: empty trailers have no frame. Returns its
/// payload bytes. spec: ST-23
pub fn encode_trailers(fields: &HeaderMap, out: &mut BytesMut) -> usize {
    match fields.iter().all(|(name, value)| fields::is_forbidden_in_trailers(name, value)) {
        true => 0,
        false => put_frame(out, FrameType::Trailers.number(), |out| head::put_trailers(fields, out)),
    }
}

/// Appends an END frame: the message is whole. spec: ST-9
pub fn encode_end(out: &mut BytesMut) {
    varint::encode(out, FrameType::End.number());
    varint::encode(out, 0);
}

/// Appends a frame whose payload is written first and measured then: the length is moved in front of it in place, and
/// returned.
fn put_frame(out: &mut BytesMut, frame_type: u64, write: impl FnOnce(&mut BytesMut)) -> usize {
    /// Room for the length of any head below 1 GiB.
    const ROOM: usize = 4;
    varint::encode(out, frame_type);
    let at = out.len();
    out.put_bytes(0, ROOM);
    write(out);
    let length = out.len() - at - ROOM;
    let size = varint::size(length as u64);
    varint::encode(&mut &mut out[at..at + size], length as u64);
    out.copy_within(at + ROOM.., at + size);
    out.truncate(at + size + length);
    length
}
