//! The table of field names that cost one byte on the wire. spec: ST-16
//!
//! Which names: those of the HPACK and QPACK tables that are in use, what proxies and tracing add, and what gRPC and
//! browsers send with each request. The order is part of the protocol and never changes; there is room for 255.

use http::header::HeaderName;

macro_rules! names {
    ($($name:literal)*) => {
        /// The names with an index, in order; the first one has index 1. spec: ST-16
        pub static NAMES: [HeaderName; COUNT] = [$(HeaderName::from_static($name)),*];
        const TEXTS: [&str; COUNT] = [$($name),*];
        const COUNT: usize = [$($name),*].len();
    };
}

names! {
    "accept" "accept-charset" "accept-encoding" "accept-language" "accept-ranges" "access-control-allow-credentials"
    "access-control-allow-headers" "access-control-allow-methods" "access-control-allow-origin"
    "access-control-expose-headers" "access-control-max-age" "access-control-request-headers"
    "access-control-request-method" "age" "allow" "alt-svc" "authorization" "cache-control" "content-disposition"
    "content-encoding" "content-language" "content-length" "content-location" "content-range"
    "content-security-policy" "content-type" "cookie" "date" "dnt" "early-data" "etag" "expect" "expires" "forwarded"
    "from" "grpc-accept-encoding" "grpc-encoding" "grpc-message" "grpc-status" "grpc-timeout" "if-match"
    "if-modified-since" "if-none-match" "if-range" "if-unmodified-since" "last-event-id" "last-modified" "link"
    "location" "max-forwards" "origin" "pragma" "priority" "proxy-authenticate" "proxy-authorization" "proxy-status"
    "range" "referer" "referrer-policy" "retry-after" "sec-ch-ua" "sec-ch-ua-mobile" "sec-ch-ua-platform"
    "sec-fetch-dest" "sec-fetch-mode" "sec-fetch-site" "sec-fetch-user" "sec-websocket-accept"
    "sec-websocket-extensions" "sec-websocket-key" "sec-websocket-protocol" "sec-websocket-version" "server"
    "server-timing" "set-cookie" "strict-transport-security" "te" "timing-allow-origin" "trailer"
    "traceparent" "tracestate" "upgrade-insecure-requests" "user-agent" "vary" "via" "warning" "www-authenticate"
    "x-content-type-options" "x-correlation-id" "x-envoy-attempt-count" "x-envoy-expected-rq-timeout-ms"
    "x-forwarded-for" "x-forwarded-host" "x-forwarded-port" "x-forwarded-proto" "x-frame-options" "x-real-ip"
    "x-request-id" "x-requested-with" "x-xss-protection"
}

/// The name with this index. spec: ST-16
pub(super) fn by_index(index: u8) -> Option<&'static HeaderName> {
    NAMES.get(usize::from(index).checked_sub(1)?)
}

/// The index of this lower-case name: one hash and, mostly, one comparison.
pub(super) fn index_of(name: &[u8]) -> Option<u8> {
    let mut slot = hash(name);
    while SLOTS[slot] != 0 {
        let index = SLOTS[slot];
        if TEXTS[usize::from(index) - 1].as_bytes() == name {
            return Some(index);
        }
        slot = (slot + 1) % SLOTS.len();
    }
    None
}

/// An open-addressing hash table from name to index, built when the crate is compiled; 0 is an empty slot.
const SLOTS: [u8; 512] = {
    assert!(COUNT <= 255);
    let mut slots = [0; 512];
    let mut at = 0;
    while at < COUNT {
        let mut slot = hash(TEXTS[at].as_bytes());
        while slots[slot] != 0 {
            slot = (slot + 1) % slots.len();
        }
        slots[slot] = at as u8 + 1;
        at += 1;
    }
    slots
};

/// Length, first, middle and last byte tell nearly all names apart.
const fn hash(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let (first, middle, last) = (name[0] as usize, name[name.len() / 2] as usize, name[name.len() - 1] as usize);
    (name.len() * 37 + first * 11 + middle * 5 + last * 83) % 512
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: ST-16
    #[test]
    fn every_name_is_found_under_its_index_and_no_other_is() {
        for (at, name) in NAMES.iter().enumerate() {
            let index = at as u8 + 1;
            assert_eq!(index_of(name.as_str().as_bytes()), Some(index), "{name}");
            assert_eq!(by_index(index), Some(name));
        }
        assert_eq!(index_of(b"x-not-there"), None);
        assert_eq!(index_of(b""), None);
        assert_eq!(by_index(0), None);
        assert_eq!(by_index(COUNT as u8 + 1), None);
    }

    #[test]
    fn a_lookup_compares_few_names() {
        let longest_run = SLOTS.split(|&slot| slot == 0).map(<[u8]>::len).max().unwrap();
        assert!(longest_run <= 6, "{longest_run} names in a row: choose better multipliers");
    }
}
