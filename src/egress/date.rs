//! The Date field, formatted at most once a second per connection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// Remembers the text of the current second.
#[derive(Debug)]
pub(super) struct DateCache {
    second: u64,
    text: HeaderValue,
}

impl DateCache {
    pub(super) fn new() -> Self {
        Self { second: u64::MAX, text: HeaderValue::from_static("") }
    }

    /// The value for a response that says no Date itself (RFC 9110 section 6.6.1 asks a proxy to add one).
    pub(super) fn now(&mut self) -> &HeaderValue {
        self.at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    fn at(&mut self, second: u64) -> &HeaderValue {
        if self.second != second {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            self.text = HeaderValue::try_from(text).expect("an HTTP date is printable ASCII");
            self.second = second;
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_follows_the_second() {
        let mut cache = DateCache::new();
        assert_eq!(cache.at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
