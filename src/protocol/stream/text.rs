//! Text that shares the memory of the bytes it came in.

use std::ops::Deref;

use bytes::Bytes;

/// Text of a head, such as its path. One that was read copies nothing; clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// `part` of `whole`; `None` if it is no UTF-8.
    pub(super) fn of(part: &[u8], whole: &Bytes) -> Option<Self> {
        std::str::from_utf8(part).ok().map(|_| Self(whole.slice_ref(part)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("every constructor takes only UTF-8")
    }

    /// Its bytes, UTF-8.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}
