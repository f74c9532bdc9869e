//! The head of a request, as far as memory goes. spec: SE-15

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Uri, request};

use crate::message::fields::field_bytes;
use crate::protocol::budgets::{FIELD_COST, HEADS_IN_PLACE};
use crate::transport::state::Arriving;

/// Counts a whole head among those that are held, and copies it where there are many. `false`: it has to be refused.
pub(in crate::transport) fn hold(head: &mut request::Parts, arriving: &mut Arriving) -> bool {
    let has_room = arriving.hold_head(held_bytes(head));
    if has_room && arriving.tunnel().in_flight() > HEADS_IN_PLACE {
        detach(head);
    }
    has_room
}

/// What a head counts for among those that an initiator holds, bytes.
fn held_bytes(head: &request::Parts) -> usize {
    let authority = head.uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    authority + path + field_bytes(&head.headers) + FIELD_COST * head.headers.len()
}

/// Copies a head out of the memory that it was received in: a byte of it keeps all that came with it.
fn detach(head: &mut request::Parts) {
    for value in head.headers.values_mut() {
        // What is a value is one again.
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
    if let Some(copy) = detached(&head.uri) {
        head.uri = copy;
    }
}

fn detached(uri: &Uri) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    if let Some(authority) = &mut parts.authority {
        *authority = Authority::from_maybe_shared(copy(authority.as_str())).ok()?;
    }
    if let Some(path) = &mut parts.path_and_query {
        *path = PathAndQuery::from_maybe_shared(copy(path.as_str())).ok()?;
    }
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    // spec: SE-15
    #[test]
    fn a_copied_head_says_the_same_and_keeps_nothing_else() {
        let received = Bytes::from(b"shop.example/path?query=1 a value \xff and much more".repeat(100));
        let mut request = Request::new(());
        let uri = Uri::builder().scheme("http").authority(received.slice(..12).as_ref());
        *request.uri_mut() = uri.path_and_query(received.slice(12..25).as_ref()).build().unwrap();
        let mut secret = HeaderValue::from_maybe_shared(received.slice(26..35)).unwrap();
        secret.set_sensitive(true);
        request.headers_mut().insert("x-secret", secret);
        let (mut head, ()) = request.into_parts();
        let before = (head.uri.clone(), head.headers.clone(), held_bytes(&head));
        detach(&mut head);
        assert_eq!((head.uri.clone(), head.headers.clone(), held_bytes(&head)), before);
        assert!(head.headers["x-secret"].is_sensitive());
        drop(before);
        assert!(received.try_into_mut().is_ok(), "nobody else has it");
    }

    #[test]
    fn fields_cost_more_than_their_bytes() {
        let (mut head, ()) = Request::get("http://h/path").body(()).unwrap().into_parts();
        assert_eq!(held_bytes(&head), 6);
        head.headers.insert("x", HeaderValue::from_static("12345"));
        assert_eq!(held_bytes(&head), 12 + FIELD_COST);
    }
}
