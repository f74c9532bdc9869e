//! `Cookie`: one field, however many crumbs HTTP/2 has made of it.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

/// Joins the crumbs to one field with `; ` between them, as everybody must before the request leaves HTTP/2: a service that
/// speaks HTTP/1.1 may read the first field only. Where there is one field or none, it costs a look. RFC 9113 section
/// 8.2.3
pub fn join(fields: &mut HeaderMap) {
    if fields.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = BytesMut::new();
    for crumb in fields.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.put_slice(b"; ");
        }
        joined.put_slice(crumb.as_bytes());
    }
    let joined: Bytes = joined.freeze();
    let mut joined = HeaderValue::from_maybe_shared(joined).expect("field values with text between them are one");
    joined.set_sensitive(true);
    fields.insert(COOKIE, joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(crumbs: &[&'static str]) -> Vec<String> {
        let mut fields = HeaderMap::new();
        for crumb in crumbs {
            fields.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join(&mut fields);
        fields.get_all(COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn crumbs_become_one_field_in_their_order() {
        assert_eq!(joined(&[]), [""; 0]);
        assert_eq!(joined(&["a=1; b=2"]), ["a=1; b=2"]);
        assert_eq!(joined(&["a=1", "b=2", "c=3; d=4"]), ["a=1; b=2; c=3; d=4"]);
    }
}
