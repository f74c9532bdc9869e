//! The keys of the directory in etcd: which record stands under one. spec: FL-4, FL-5

use crate::id::{ResponderId, TunnelId};

/// The longest prefix of a fleet, in bytes. spec: FL-3
pub const MAX_PREFIX_BYTES: usize = 128;

const RESPONDERS: &str = "responders/";
const TUNNELS: &str = "tunnels/";
/// What no part of a prefix is called: so no key of one fleet begins as those of another do. spec: FL-3
const RESERVED: [&str; 2] = ["responders", "tunnels"];

/// What a key of the directory stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The record of a responder.
    Responder(ResponderId),
    /// The record of one of its tunnels.
    Tunnel(TunnelKey),
}

/// Which tunnel, of which start of which responder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Who has the tunnel.
    pub responder: ResponderId,
    /// The epoch of the responder's start.
    pub epoch: u64,
    /// The tunnel as that start names it.
    pub tunnel: TunnelId,
}

/// Where one fleet has its keys: a text that they all begin with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(String);

/// Why a text is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// It is empty, too long, or has bytes that are not accepted.
    #[error(
        "is no prefix of keys; expected 2 to {MAX_PREFIX_BYTES} bytes of printable ASCII without space that begin with \"/\", such as /adit"
    )]
    Malformed,
    /// Keys below it could lie among those of a fleet with a shorter prefix, which deletes what it finds there.
    #[error(
        "has a part that is called \"responders\" or \"tunnels\", as keys of a fleet have; expected other names between the \"/\", such as /adit/eu"
    )]
    Reserved,
}

impl Prefix {
    /// A prefix; one that does not end with `/` gets it.
    ///
    /// # Errors
    /// [`PrefixError`]: empty, too long, with bytes that are not accepted, or with a part that is called as those of keys. spec: FL-3
    pub fn new(text: &str) -> Result<Self, PrefixError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let is_fine = (2..MAX_PREFIX_BYTES).contains(&text.len())
            && text.starts_with('/')
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_fine {
            return Err(PrefixError::Malformed);
        }
        if text.split('/').any(|part| RESERVED.contains(&part)) {
            return Err(PrefixError::Reserved);
        }
        Ok(Self(format!("{text}/")))
    }

    /// The prefix with its last `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the keys of the directory begin with: those of its responders, those of their tunnels. Whatever else is below the prefix
    /// is of somebody else, such as another fleet. spec: FL-3
    pub fn parts(&self) -> [String; 2] {
        [RESPONDERS, TUNNELS].map(|part| format!("{}{part}", self.0))
    }

    /// Whether a key is one of those, well-formed or not.
    pub fn has(&self, key: &[u8]) -> bool {
        let rest = key.strip_prefix(self.0.as_bytes());
        rest.is_some_and(|rest| [RESPONDERS, TUNNELS].iter().any(|part| rest.starts_with(part.as_bytes())))
    }

    /// The key of a responder's record.
    pub fn responder(&self, id: &ResponderId) -> String {
        format!("{}{RESPONDERS}{id}", self.0)
    }

    /// What the keys of all tunnels of a responder begin with, those of former starts too.
    pub fn tunnels_of(&self, id: &ResponderId) -> String {
        format!("{}{TUNNELS}{id}/", self.0)
    }

    /// The key of a tunnel's record.
    pub fn tunnel(&self, key: &TunnelKey) -> String {
        format!("{}{:016x}/{}", self.tunnels_of(&key.responder), key.epoch, key.tunnel)
    }

    /// What a key stands for; `None` if it is none of the directory.
    pub fn parse(&self, key: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.0)?;
        if let Some(id) = rest.strip_prefix(RESPONDERS) {
            return Some(Key::Responder(id.parse().ok()?));
        }
        let mut parts = rest.strip_prefix(TUNNELS)?.split('/');
        let (id, epoch, tunnel) = (parts.next()?, parts.next()?, parts.next()?);
        let key = TunnelKey { responder: id.parse().ok()?, epoch: number(epoch)?, tunnel: TunnelId(number(tunnel)?) };
        parts.next().is_none().then_some(Key::Tunnel(key))
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("/adit/".to_owned())
    }
}

/// Sixteen lower-case hexadecimal digits, so that a record has one key.
fn number(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == 16 && text.bytes().all(is_digit)).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let prefix = Prefix::new("/fleets/eu/").unwrap();
        let key = TunnelKey { responder: "cloud-1".parse().unwrap(), epoch: 0x1a, tunnel: TunnelId(u64::MAX) };
        // spec: FL-4, FL-5
        let written = prefix.tunnel(&key);
        assert_eq!(written, "/fleets/eu/tunnels/cloud-1/000000000000001a/ffffffffffffffff");
        assert_eq!(prefix.parse(written.as_bytes()), Some(Key::Tunnel(key)));
        let id: ResponderId = "cloud-1".parse().unwrap();
        assert_eq!(prefix.responder(&id), "/fleets/eu/responders/cloud-1");
        assert_eq!(prefix.parse(b"/fleets/eu/responders/cloud-1"), Some(Key::Responder(id)));
    }

    #[test]
    fn what_is_no_key_of_the_directory_is_nothing() {
        let prefix = Prefix::default();
        for key in [
            "/adit",
            "/adit/",
            "/adit/responders/",
            "/adit/responders/a/b",
            "/adit/tunnels/a/1/1",
            "/adit/tunnels/a/000000000000001A/ffffffffffffffff",
            "/adit/tunnels/a/+00000000000001a/ffffffffffffffff",
            "/adit/tunnels/a/000000000000001a/ffffffffffffffff/",
            "/adit/tunnels//000000000000001a/ffffffffffffffff",
            "/other/responders/a",
        ] {
            assert_eq!(prefix.parse(key.as_bytes()), None, "{key}");
        }
        assert_eq!(prefix.parse(b"/adit/responders/\xff"), None);
    }

    #[test]
    fn a_prefix_holds_its_bounds() {
        // spec: FL-3
        assert_eq!(Prefix::new("/adit").unwrap(), Prefix::default());
        assert!(Prefix::new(&format!("/{}", "a".repeat(126))).is_ok());
        for bad in ["", "/", "//", "adit", "/a b", "/ä", &format!("/{}", "a".repeat(127))] {
            assert_eq!(Prefix::new(bad), Err(PrefixError::Malformed), "{bad:?}");
        }
    }

    // Regression: a fleet with the prefix /adit/tunnels/a lost its records whenever a responder a of the fleet /adit started.
    // spec: FL-3
    #[test]
    fn no_key_of_a_fleet_is_among_those_of_another_whatever_its_prefix_is() {
        for bad in ["/adit/tunnels", "/adit/tunnels/a", "/responders", "/a/responders/", "/a/responders/b"] {
            assert_eq!(Prefix::new(bad), Err(PrefixError::Reserved), "{bad}");
        }
        let id: ResponderId = "cloud-1".parse().unwrap();
        let key = TunnelKey { responder: id.clone(), epoch: 1, tunnel: TunnelId(1) };
        let prefixes =
            ["/adit", "/adit/b", "/adit/b/c", "/adit/s", "/adit/tunnels2", "/adit/my-tunnels", "/adit//tunnel"];
        let prefixes = prefixes.map(|prefix| Prefix::new(prefix).unwrap());
        for (outer, inner) in prefixes.iter().flat_map(|outer| prefixes.iter().map(move |inner| (outer, inner))) {
            for key in [inner.responder(&id), inner.tunnels_of(&id), inner.tunnel(&key)] {
                let is_among = outer.parts().iter().any(|part| key.starts_with(part));
                assert_eq!((outer.has(key.as_bytes()), is_among), (outer == inner, outer == inner), "{outer:?}: {key}");
            }
        }
    }
}
