//! A client for the few calls of etcd (version 3) that a fleet needs.
//!
//! It speaks etcd's own API, gRPC: `tonic` frames the messages, which are derived by `prost` on structs that stand in
//! `messages.rs`, so that a build needs cargo alone and no compiler of `.proto` files. The connection is hyper's HTTP/2 over the
//! TLS that the rest of this program uses. Etcd's other way in, the JSON gateway, would need no derived messages; but it can be
//! switched off, takes a user's name from no certificate, has no way to ask a watch whether it is up to date (so the age of the
//! view could not be told), and writes keys and values a third longer.
//!
//! Row 9. Knows nothing of what is stored. Every answer has a bound in bytes and in time.

mod connection;
mod error;
mod messages;
mod settings;
mod watch;

pub use connection::{Connection, Lease, Operation};
pub use error::EtcdError;
pub use settings::{Endpoint, EndpointError, EtcdSettings, MAX_ENDPOINTS, User};
pub use watch::{Heard, Watch};

/// The largest message that is read, in bytes. A page of a read and the part of a watch's answer are smaller by far. spec: FL-19
const MAX_MESSAGE_BYTES: usize = 20 << 20;

/// The key after every key that begins with these bytes.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_of_its_keys() {
        assert_eq!(end_of(b"/adit/"), b"/adit0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff\xff"), b"\0", "as etcd says: to the last key");
    }
}
