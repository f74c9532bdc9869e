//! The path of a handshake: part of the configuration of both ends.

use std::fmt;
use std::str::FromStr;

use crate::protocol::envoy::{DEFAULT_PATH, MAX_PATH_BYTES};

/// Where a handshake goes: 1 to 255 bytes of printable ASCII that start with `/`, compared byte by byte. spec: EV-1
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath(String);

/// Why a text is not the path of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("does not start with \"/\"")]
    Relative,
    /// It has more than 255 bytes.
    #[error("has {0} bytes; expected 1 to {MAX_PATH_BYTES}")]
    TooLong(usize),
    /// It has a byte that no request line may hold there.
    #[error("has the byte 0x{0:02x}; expected printable ASCII without space and without #")]
    Byte(u8),
}

impl RequestPath {
    /// Checks length and alphabet; the error says what would be accepted.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(text.len()));
        }
        if let Some(byte) = text.bytes().find(|byte| !byte.is_ascii_graphic() || *byte == b'#') {
            return Err(PathError::Byte(byte));
        }
        if text.starts_with('/') { Ok(Self(text.to_owned())) } else { Err(PathError::Relative) }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RequestPath {
    fn default() -> Self {
        Self(DEFAULT_PATH.to_owned())
    }
}

impl FromStr for RequestPath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}

impl fmt::Display for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: EV-1
    #[test]
    fn a_path_fits_a_request_line() {
        assert_eq!(RequestPath::default(), DEFAULT_PATH.parse().unwrap());
        assert!(RequestPath::new(&format!("/{}", "p".repeat(254))).is_ok());
        assert_eq!(RequestPath::new(&format!("/{}", "p".repeat(255))), Err(PathError::TooLong(256)));
        assert_eq!(RequestPath::new(""), Err(PathError::Relative));
        assert_eq!(RequestPath::new("*"), Err(PathError::Relative));
        for byte in *b" \r\n#\x7f" {
            assert_eq!(RequestPath::new(&format!("/{}", char::from(byte))), Err(PathError::Byte(byte)));
        }
    }
}
