//! Which name in a certificate proves that its owner is a certain responder of the fleet. spec: FL-32

use std::fmt;
use std::str::FromStr;

use crate::id::{PeerIdentity, ResponderId};

const PLACEHOLDER: &str = "{responder}";
const DNS_PREFIX: &str = "dns:";
const URI_MARK: &str = "://";

/// A certificate name with `{responder}` in it once, such as `spiffe://example.org/responder/{responder}` or
/// `dns:{responder}.responders.example.org`. Text with `://` is a URI name; other text, and text behind `dns:`, a DNS name.
///
/// It is the role, too: no name that a CA of the fleet gives to a node may have this shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiblingIdentity {
    is_uri: bool,
    before: String,
    after: String,
}

/// Why a text is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiblingIdentityError {
    /// The placeholder is missing, so that one certificate would prove every responder, or is there twice.
    #[error("has {{responder}} {0} times; expected it once, as in spiffe://example.org/responder/{{responder}}")]
    Placeholder(usize),
    /// A byte that such a name cannot have.
    #[error("has {0:?} in it, which cannot stand in such a name")]
    Text(char),
    /// Nothing, or too little, is fixed beside the placeholder, so that a name that was given to somebody else would prove a
    /// responder.
    #[error(
        "fixes too little beside {{responder}}: the name of any host or node would prove a responder; expected a path behind a fixed \
         host as in spiffe://example.org/responder/{{responder}}, or the first label of a fixed domain as in \
         dns:{{responder}}.responders.example.org"
    )]
    Open,
}

/// The fewest labels of the domain that stands behind the placeholder of a DNS name: that of a whole organization has two, and its
/// hosts and nodes have names in it.
const MIN_LABELS: usize = 2;

impl SiblingIdentity {
    /// Reads and checks a name with its placeholder.
    ///
    /// # Errors
    /// [`SiblingIdentityError`].
    pub fn parse(text: &str) -> Result<Self, SiblingIdentityError> {
        let (is_uri, name) = match text.strip_prefix(DNS_PREFIX) {
            Some(name) => (false, name),
            None => (text.contains(URI_MARK), text),
        };
        let parts: Vec<&str> = name.split(PLACEHOLDER).collect();
        let [before, after] = parts[..] else { return Err(SiblingIdentityError::Placeholder(parts.len() - 1)) };
        let may_stand = |c: char| match is_uri {
            true => c.is_ascii_graphic() && c != '{' && c != '}',
            // No `*`: the wildcard of a web server is no responder.
            false => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'),
        };
        if let Some(c) = [before, after].concat().chars().find(|&c| !may_stand(c)) {
            return Err(SiblingIdentityError::Text(c));
        }
        let is_fixed = if is_uri { is_path(before) } else { is_first_label(before, after) };
        if !is_fixed {
            return Err(SiblingIdentityError::Open);
        }
        Ok(Self { is_uri, before: before.to_owned(), after: after.to_owned() })
    }

    /// The name that this responder's certificate must have; `None` where no DNS name can hold it.
    pub fn name(&self, responder: &ResponderId) -> Option<String> {
        let id = responder.as_str();
        let fits = self.is_uri || id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        fits.then(|| format!("{}{id}{}", self.before, self.after))
    }

    /// Whether this is proven to be that responder.
    pub fn proves(&self, identity: &PeerIdentity, responder: &ResponderId) -> bool {
        let Some(name) = self.name(responder) else { return false };
        match self.is_uri {
            true => identity.uri_sans.contains(&name),
            false => identity.dns_sans.iter().any(|dns| dns.eq_ignore_ascii_case(&name)),
        }
    }
}

/// Whether this is a scheme, a host and the beginning of a path.
fn is_path(before: &str) -> bool {
    let Some((scheme, rest)) = before.split_once(URI_MARK) else { return false };
    let Some((host, _)) = rest.split_once('/') else { return false };
    !scheme.is_empty() && !host.is_empty()
}

/// Whether the placeholder is in the first label of a name of a domain that is fixed.
fn is_first_label(before: &str, after: &str) -> bool {
    let labels: Vec<&str> = after.split('.').skip(1).collect();
    !before.contains('.') && labels.len() >= MIN_LABELS && labels.iter().all(|label| !label.is_empty())
}

impl FromStr for SiblingIdentity {
    type Err = SiblingIdentityError;

    fn from_str(text: &str) -> Result<Self, SiblingIdentityError> {
        Self::parse(text)
    }
}

impl fmt::Display for SiblingIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_uri { "" } else { DNS_PREFIX };
        write!(f, "{prefix}{}{PLACEHOLDER}{}", self.before, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_uri(name: &str) -> PeerIdentity {
        PeerIdentity { uri_sans: vec![name.to_owned()], ..PeerIdentity::default() }
    }

    // spec: FL-32
    #[test]
    fn only_the_name_of_this_responder_proves_it() {
        let identity = SiblingIdentity::parse("spiffe://x/responder/{responder}").unwrap();
        let r1: ResponderId = "r1".parse().unwrap();
        assert!(identity.proves(&of_uri("spiffe://x/responder/r1"), &r1));
        for other in
            ["spiffe://x/responder/r2", "spiffe://x/node/r1", "spiffe://x/responder/r1/", "spiffe://x/responder/R1"]
        {
            assert!(!identity.proves(&of_uri(other), &r1), "{other}");
        }
        assert!(!identity.proves(&PeerIdentity::default(), &r1));
        let dns = PeerIdentity { dns_sans: vec!["spiffe://x/responder/r1".into()], ..PeerIdentity::default() };
        assert!(!identity.proves(&dns, &r1), "a name of another kind");
    }

    // spec: FL-32
    #[test]
    fn in_a_dns_name_a_responder_is_one_label() {
        let identity = SiblingIdentity::parse("dns:{responder}.fleet.example.org").unwrap();
        let dns = |name: &str| PeerIdentity { dns_sans: vec![name.into()], ..PeerIdentity::default() };
        assert!(identity.proves(&dns("R1.fleet.example.org"), &"r1".parse().unwrap()));
        assert!(!identity.proves(&dns("a.b.fleet.example.org"), &"a.b".parse().unwrap()));
        assert!(!identity.proves(&dns("*.fleet.example.org"), &"*".parse().unwrap()));
    }

    #[test]
    fn a_name_that_would_prove_all_or_cannot_be_is_refused() {
        for (text, error) in [
            ("spiffe://x/responder", SiblingIdentityError::Placeholder(0)),
            ("", SiblingIdentityError::Placeholder(0)),
            ("{responder}.{responder}.x", SiblingIdentityError::Placeholder(2)),
            ("*.{responder}.x", SiblingIdentityError::Text('*')),
            ("spiffe://x/{node}/{responder}", SiblingIdentityError::Text('{')),
            // Regression: a name of any node, or host, would have proven a responder.
            ("{responder}", SiblingIdentityError::Open),
            ("dns:{responder}", SiblingIdentityError::Open),
            ("dns:{responder}.", SiblingIdentityError::Open),
            ("dns:{responder}.org", SiblingIdentityError::Open),
            ("dns:{responder}.example..org", SiblingIdentityError::Open),
            ("dns:{responder}example.org", SiblingIdentityError::Open),
            ("dns:fleet.{responder}.example.org", SiblingIdentityError::Open),
            ("://{responder}", SiblingIdentityError::Open),
            ("spiffe://{responder}", SiblingIdentityError::Open),
            ("spiffe://{responder}/responder", SiblingIdentityError::Open),
            ("spiffe:///{responder}", SiblingIdentityError::Open),
        ] {
            assert_eq!(SiblingIdentity::parse(text), Err(error), "{text}");
        }
        for text in ["spiffe://x/{responder}", "dns:{responder}.x.y", "dns:fleet-{responder}.example.org"] {
            assert_eq!(SiblingIdentity::parse(text).unwrap().to_string(), text);
        }
    }
}
