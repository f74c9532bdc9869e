//! Tokens: compared without telling how much was right, never printed.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::protocol::limits::MAX_TOKEN_BYTES;

/// The shortest token, in bytes: a shorter one could be guessed.
pub const MIN_SECRET_BYTES: usize = 16;
/// The longest token, in bytes: what HELLO may carry. spec: HS-16
pub const MAX_SECRET_BYTES: usize = MAX_TOKEN_BYTES;

/// A token that proves one node's claim, [`MIN_SECRET_BYTES`] to [`MAX_SECRET_BYTES`] long. Prints as masked.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// `None` when the length is out of bounds.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// Whether `other` is the same token. The time it takes depends on the length alone.
    pub fn equals(&self, other: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, other).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_equals_only_itself_and_prints_nothing() {
        let secret = Secret::new(b"0123456789abcdef").unwrap();
        assert!(secret.equals(b"0123456789abcdef"));
        for other in [&b"0123456789abcdeX"[..], b"0123456789abcde", b"0123456789abcdef0", b""] {
            assert!(!secret.equals(other));
        }
        assert_eq!(format!("{secret:?}"), "Secret(***)");
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(Secret::new(&[0; MIN_SECRET_BYTES - 1]).is_none());
        assert!(Secret::new(&[0; MAX_SECRET_BYTES]).is_some());
        assert!(Secret::new(&[0; MAX_SECRET_BYTES + 1]).is_none());
    }
}
