//! The rules of HTTP that a message may break, and the answer to each.

mod code;

use http::{HeaderValue, StatusCode};

pub use self::code::ErrorCode;

/// Why a message was rejected. The text of each is safe to show to the sender: it quotes nothing of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The head exceeds its byte limit.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// The head or a trailer section exceeds its field limit.
    #[error("the request has too many fields")]
    TooManyFields,
    /// The head did not arrive in time.
    #[error("the request head took too long")]
    HeadTimeout,
    /// The connection or stream ended, or was reset, in the middle of the head. Nobody is answered.
    #[error("the request ended in the middle of its head")]
    HeadCut,
    /// The sender ended the body before its end.
    #[error("the request's body was cut")]
    BodyCut,
    /// The body is longer or shorter than its Content-Length. RFC 9114 section 4.1.2
    #[error("the request's body is longer or shorter than its Content-Length")]
    BodyLength,
    /// The target exceeds [`MAX_TARGET`](crate::message::validate::MAX_TARGET).
    #[error("the request target is too long")]
    TargetTooLong,
    /// The method exceeds [`MAX_METHOD`](crate::message::validate::MAX_METHOD).
    #[error("the method is too long")]
    MethodTooLong,
    /// CONNECT.
    #[error("CONNECT is not supported")]
    Connect,
    /// A CONNECT whose target is not a host and a port. RFC 9110 section 9.3.6
    #[error("the target of CONNECT is not host:port with a port from 1 to 65535")]
    ConnectTarget,
    /// A CONNECT that says how long its body is: it has none.
    #[error("CONNECT has neither Content-Length nor Transfer-Encoding: what follows it is no body")]
    ConnectLength,
    /// An offer to go on in another protocol that cannot be carried. To answer it as if it was not there would be lawful,
    /// and leave the sender with what it did not ask for.
    #[error("the upgrade to another protocol is not supported")]
    Upgrade,
    /// A WebSocket of another version than 13.
    #[error("the WebSocket is not of version 13")]
    WebSocketVersion,
    /// A WebSocket over HTTP/1.1 without its key.
    #[error("the Sec-WebSocket-Key is missing, repeated or not 16 bytes in base64")]
    WebSocketKey,
    /// Neither HTTP/1.0 nor HTTP/1.1 in an HTTP/1 request line.
    #[error("the HTTP version is not supported")]
    Version,
    /// The head is not HTTP: a bad request line, field name or field value, or a line that continues another (obs-fold).
    #[error("the request head is malformed")]
    Syntax,
    /// A line ends in LF without CR.
    #[error("a line ends without CR")]
    BareLineFeed,
    /// The target has a form its method does not allow, or a byte no target may have.
    #[error(
        "the request target is malformed: it is no path that begins with a slash, no http URI, or has a byte that RFC 3986 \
         does not allow there and that must be percent-encoded, such as <, >, # or one above 0x7e"
    )]
    Target,
    /// HTTP/1.1 without Host, or HTTP/2 without both `:authority` and Host.
    #[error("the Host field is missing")]
    MissingHost,
    /// More than one Host.
    #[error("there is more than one Host field")]
    DuplicateHost,
    /// Not `host` or `host:port`.
    #[error("the Host or authority is malformed")]
    BadHost,
    /// Host names something else than the target does.
    #[error("the Host field differs from the request target")]
    HostMismatch,
    /// Content-Length is not one field with one decimal number.
    #[error("the Content-Length is malformed or repeated")]
    ContentLength,
    /// Both Content-Length and Transfer-Encoding.
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    LengthAndCoding,
    /// Transfer-Encoding is anything but one `chunked`.
    #[error("the Transfer-Encoding is not exactly chunked")]
    TransferEncoding,
    /// Transfer-Encoding on HTTP/1.0, which does not have it.
    #[error("Transfer-Encoding needs HTTP/1.1")]
    CodingVersion,
    /// A field that is about the connection, in HTTP/2 or in trailers, or one that belongs in a head, in trailers.
    #[error("a field is not allowed here: it is about the connection, or it belongs in a head and is in trailers")]
    ConnectionField,
    /// A field value that begins or ends with white space (HTTP/2).
    #[error("a field value begins or ends with white space")]
    FieldWhitespace,
    /// An Expect field with something else than `100-continue`.
    #[error("the expectation is not known")]
    Expectation,
    /// A method that is not safe in early data, which somebody else may send again. RFC 8470 section 5.2
    #[error("the method is not safe before the handshake is done")]
    TooEarly,
    /// A chunk size that is not 1 to 16 hexadecimal digits, or one that does not end its line.
    #[error("a chunk size is malformed")]
    ChunkSize,
    /// More bytes in chunk extensions than any sender needs.
    #[error("the chunk extensions are too long")]
    ChunkExtensions,
    /// Something else than CR LF after the data of a chunk.
    #[error("chunk data does not end where its size says")]
    ChunkEnd,
    /// What a connection of bytes begins with, and tells where it goes, did not arrive in time.
    #[error("the beginning of the connection, which tells where it goes, took too long")]
    BeginTimeout,
    /// The connection ended, or was reset, in the middle of that. Nobody is answered.
    #[error("the connection ended in the middle of its beginning, which tells where it goes")]
    BeginCut,
    /// A proxy that is trusted does not say who connected to it.
    #[error("the connection does not begin with a PROXY header, or with a malformed one")]
    ProxyHeader,
    /// A connection that begins as TLS does, and then is not.
    #[error("the connection begins as TLS does, and has no ClientHello that can be read")]
    ClientHello,
    /// A trailer section that cannot be read, or one with fields that belong in a head.
    #[error(
        "the trailer section cannot be read, or has a field that belongs in a head: one that frames or routes the message, \
         says who asks, or how the body is to be read"
    )]
    Trailers,
    /// The codec of HTTP/2 or HTTP/3 has reset the stream of a request, or of a body, that is malformed. Nobody is answered.
    #[error("the request or its body is malformed, and its stream was reset with {0}")]
    Reset(ErrorCode),
    /// The codec of HTTP/2 has reset the stream of a request beyond the number that a connection may have at once. Nobody is
    /// answered.
    #[error("the connection has more requests at once than it may, and the stream of this one was reset with {0}")]
    AtOnce(ErrorCode),
    /// The sender broke the rules of HTTP/2, HTTP/3 or QUIC itself, which ended its connection. Nobody is answered.
    #[error("the sender broke the rules of its connection, which was ended with {0}")]
    Connection(ErrorCode),
}

impl Violation {
    /// The status a sender that broke this rule is answered with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTimeout | Self::BeginTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::MethodTooLong | Self::Connect | Self::Upgrade => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::TooEarly => StatusCode::TOO_EARLY,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::AtOnce(_) => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether its sender is answered. There is nobody left, or the codec resets what the answer would have gone to.
    pub const fn is_answered(self) -> bool {
        !self.is_cut() && !matches!(self, Self::Reset(_) | Self::AtOnce(_) | Self::Connection(_))
    }

    /// Whether its sender has gone with it.
    pub const fn is_cut(self) -> bool {
        matches!(self, Self::HeadCut | Self::BeginCut | Self::BodyCut)
    }

    /// The value of the Proxy-Status field (RFC 9209) of that answer.
    pub fn proxy_status(self) -> HeaderValue {
        HeaderValue::try_from(format!("adit; error=http_request_error; details=\"{self}\""))
            .expect("the texts of this enum are printable ASCII without quotes")
    }
}
