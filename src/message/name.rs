//! Names of fields as those see them who make variables of names (CGI): `_` and `-` are the same there.

use http::{HeaderMap, HeaderName};

/// What fields and protocols of our own begin with; no client may ask for one.
pub(super) const OWN: &str = "adit-";

/// Whether a name is this one, be it with `_` for `-`.
pub(super) fn is_same(name: &[u8], other: &str) -> bool {
    let alike = |(byte, other): (&u8, u8)| *byte == other || (*byte == b'_' && other == b'-');
    name.len() == other.len() && name.iter().zip(other.bytes()).all(alike)
}

/// Whether some readers take both names for one.
pub(super) fn is_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (one, other) = (one.as_str().bytes(), other.as_str().bytes());
    one.len() == other.len() && one.map(plain).eq(other.map(plain))
}

/// Removes the fields of this name, and of those that some readers take for it. Where there are none it costs one look at each
/// name.
pub(super) fn remove_alike(fields: &mut HeaderMap, name: &HeaderName) {
    fields.remove(name);
    while let Some(name) = fields.keys().find(|other| is_alike(other, name)).cloned() {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_readers_take_for_a_name_goes_with_it() {
        for name in ["x-role-id", "x_role_id", "x-role_id"] {
            let all = ["x-role-id", "x_role-id", "x_role_id", "x-role-ids", "x-roleid"];
            let mut fields: HeaderMap =
                all.into_iter().map(|name| (HeaderName::from_static(name), "1".parse().unwrap())).collect();
            remove_alike(&mut fields, &HeaderName::from_static(name));
            let mut left: Vec<&str> = fields.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, ["x-role-ids", "x-roleid"], "{name}");
        }
    }
}
