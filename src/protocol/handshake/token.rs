//! The credential that HELLO and REAUTH carry, kept out of logs.

use std::fmt;
use std::ops::Deref;

use crate::protocol::limits;
use crate::protocol::wire::Malformed;

/// A credential beside TLS: opaque bytes, 1 to 8192, that `Debug` never shows. spec: HS-16
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Vec<u8>);

impl Token {
    /// Checks the length; `None` when there are no bytes or more than 8192.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (1..=limits::MAX_TOKEN_BYTES).contains(&bytes.len()).then_some(Self(bytes))
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        // The length is checked before anything is copied.
        if value.len() > limits::MAX_TOKEN_BYTES {
            return Err(Malformed::Invalid("token"));
        }
        Self::new(value).ok_or(Malformed::Invalid("token"))
    }
}

impl Deref for Token {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: HS-16
    #[test]
    fn a_token_has_bytes_and_never_shows_them() {
        assert_eq!(Token::new(Vec::new()), None);
        assert_eq!(Token::new(vec![0; 8193]), None);
        let token = Token::new("secret").unwrap();
        assert_eq!(&token[..], b"secret");
        assert_eq!(format!("{token:?}"), "Token(6 bytes)");
    }
}
