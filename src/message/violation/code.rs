//! The names of the error codes of HTTP/2 and HTTP/3.

use std::fmt;

/// The code with which a stream was reset or a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// Of HTTP/2. RFC 9113 section 7
    Http2(u32),
    /// Of HTTP/3, QPACK or HTTP datagrams. RFC 9114 section 8.1, RFC 9204 section 6, RFC 9297 section 5.2
    Http3(u64),
    /// Of QUIC itself. RFC 9000 section 20.1
    Quic(u64),
}

/// From 0 on.
const HTTP2: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// From 0x100 on.
const HTTP3: [&str; 17] = [
    "H3_NO_ERROR",
    "H3_GENERAL_PROTOCOL_ERROR",
    "H3_INTERNAL_ERROR",
    "H3_STREAM_CREATION_ERROR",
    "H3_CLOSED_CRITICAL_STREAM",
    "H3_FRAME_UNEXPECTED",
    "H3_FRAME_ERROR",
    "H3_EXCESSIVE_LOAD",
    "H3_ID_ERROR",
    "H3_SETTINGS_ERROR",
    "H3_MISSING_SETTINGS",
    "H3_REQUEST_REJECTED",
    "H3_REQUEST_CANCELLED",
    "H3_REQUEST_INCOMPLETE",
    "H3_MESSAGE_ERROR",
    "H3_CONNECT_ERROR",
    "H3_VERSION_FALLBACK",
];

/// From 0x200 on.
const QPACK: [&str; 3] = ["QPACK_DECOMPRESSION_FAILED", "QPACK_ENCODER_STREAM_ERROR", "QPACK_DECODER_STREAM_ERROR"];

fn at(names: &'static [&'static str], index: u64) -> Option<&'static str> {
    names.get(usize::try_from(index).ok()?).copied()
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, code) = match *self {
            Self::Http2(code) => (at(&HTTP2, code.into()), code.into()),
            Self::Http3(0x33) => (Some("H3_DATAGRAM_ERROR"), 0x33),
            Self::Http3(code @ 0x100..0x200) => (at(&HTTP3, code - 0x100), code),
            Self::Http3(code) => (code.checked_sub(0x200).and_then(|index| at(&QPACK, index)), code),
            Self::Quic(code) => return write!(f, "QUIC {code:#x}"),
        };
        match name {
            Some(name) => f.write_str(name),
            None => write!(f, "{code:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_that_others_know_them_by() {
        for code in 0..=13 {
            let name = format!("{:?}", h2::Reason::from(code));
            assert_eq!(ErrorCode::Http2(code).to_string(), name);
        }
        for (code, name) in [
            (h3::error::Code::H3_DATAGRAM_ERROR, "H3_DATAGRAM_ERROR"),
            (h3::error::Code::H3_NO_ERROR, "H3_NO_ERROR"),
            (h3::error::Code::H3_FRAME_ERROR, "H3_FRAME_ERROR"),
            (h3::error::Code::H3_VERSION_FALLBACK, "H3_VERSION_FALLBACK"),
            (h3::error::Code::QPACK_DECODER_STREAM_ERROR, "QPACK_DECODER_STREAM_ERROR"),
        ] {
            assert_eq!(ErrorCode::Http3(code.value()).to_string(), name);
        }
        for code in [ErrorCode::Http2(14), ErrorCode::Http3(0xe), ErrorCode::Http3(0x203), ErrorCode::Http3(u64::MAX)] {
            assert!(code.to_string().starts_with("0x"), "{code}");
        }
    }
}
