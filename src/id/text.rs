//! The text of an identifier: in place while it is short, so that reading one out of a request allocates nothing.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The longest text that is held in place, in bytes: most names are shorter, and it fills the place up.
const MAX_INLINE: usize = 22;

/// A text that is cheap to clone. Equal, ordered and hashed as a `str` is.
#[derive(Clone)]
pub(super) struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Inline { length: u8, bytes: [u8; MAX_INLINE] },
    Shared(Arc<str>),
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Inline { length, bytes } => {
                std::str::from_utf8(&bytes[..usize::from(*length)]).expect("it was made of a whole str")
            }
            Repr::Shared(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; MAX_INLINE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text.as_bytes());
                Self(Repr::Inline { length, bytes })
            }
            _ => Self(Repr::Shared(text.into())),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_comes_back_and_takes_three_words() {
        for length in [0, 1, MAX_INLINE - 1, MAX_INLINE, MAX_INLINE + 1, 200, 256, 300] {
            let text = "ä".repeat(length / 2) + &"x".repeat(length % 2);
            assert_eq!(Text::from(text.as_str()).clone().as_str(), text);
        }
        assert_eq!(size_of::<Text>(), 24);
    }

    #[test]
    fn a_short_and_a_long_text_are_ordered_as_texts() {
        let long = "a".repeat(100);
        assert!(Text::from("b") > Text::from(long.as_str()));
        assert!(Text::from("a") < Text::from(long.as_str()));
        assert!(Text::from(long.as_str()) == Text::from(long.as_str()));
    }
}
