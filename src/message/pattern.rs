//! What a request is matched by: a host name and a path prefix. The egress chooses a service with it, the initiator a
//! target.

use std::fmt;
use std::str::FromStr;

use crate::message::authority::host_name;
use crate::message::path::Readings;

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a host name, nor `*.` and a host name.
    #[error("{0:?} is not a host; expected a name such as \"api.example.com\", or \"*.example.com\"")]
    Host(String),
    /// Not a path.
    #[error("{0:?} is not a path prefix; expected a path such as \"/\" or \"/api\", without query")]
    Prefix(String),
    /// A path that is compared with nothing, because paths are brought into their normal form first.
    #[error("{0:?} is not a path prefix in its normal form; expected {1}")]
    NotNormal(String, String),
}

/// A host and a path that a request may be for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match {
    /// Only requests for such a host; `None`: for every host.
    pub host: Option<HostPattern>,
    /// Only requests below this path; default `/`.
    pub prefix: PathPrefix,
}

impl Match {
    /// Whether a request for this authority and path is meant; the path is one of its
    /// [`Readings`].
    pub fn covers(&self, authority: &str, path: &str) -> bool {
        self.prefix.matches(path) && self.host.as_ref().is_none_or(|host| host.matches(authority))
    }

    /// Of several that cover a request the greatest is meant: host before path, and the more exact before the less.
    pub fn specificity(&self) -> impl Ord + use<> {
        (self.host.as_ref().map_or(0, HostPattern::specificity), self.prefix.0.len())
    }
}

/// A host name, or every name below a suffix. Compared without case, without port, and as [`host_name`] writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Exactly this name, in lower case.
    Exact(String),
    /// Names that end in this suffix, which starts with a dot; the suffix alone does not match.
    Below(String),
}

impl HostPattern {
    /// Whether a request for this authority (host, maybe with a port) is meant.
    pub fn matches(&self, authority: &str) -> bool {
        let host = &*host_name(authority);
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(suffix) => {
                host.len() > suffix.len()
                    && host.get(host.len() - suffix.len()..).is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
            }
        }
    }

    /// How much it says; any pattern says more than none (0).
    fn specificity(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Below(suffix) => suffix.len(),
        }
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let literal = name.starts_with('[') && name.ends_with(']');
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b) || (literal && b"[]:".contains(&b));
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(allowed) {
            return Err(PatternError::Host(text.to_owned()));
        }
        let name = host_name(name).to_ascii_lowercase();
        Ok(if text.starts_with("*.") { Self::Below(format!(".{name}")) } else { Self::Exact(name) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// The start of a path, in whole segments: `/api` covers `/api` and `/api/x`, not `/apix`.
///
/// Compared byte by byte, with a path in its normal form: see [`path`](crate::message::path).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The prefix that covers everything.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Whether a request for this path is meant; `*` (of `OPTIONS *`) only by `/`.
    pub fn matches(&self, path: &str) -> bool {
        if self.0 == "/" {
            return true;
        }
        match path.strip_prefix(self.0.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || self.0.ends_with('/'),
            None => false,
        }
    }

    /// The path with `to` in the place of this prefix, if it begins with it.
    pub fn replaced(&self, path: &str, to: &Self) -> Option<String> {
        if !path.starts_with('/') || !self.matches(path) {
            return None;
        }
        let rest = path.strip_prefix(self.0.trim_end_matches('/'))?;
        let new = format!("{}{rest}", to.0.trim_end_matches('/'));
        Some(if new.is_empty() { "/".to_owned() } else { new })
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self::root()
    }
}

impl FromStr for PathPrefix {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let sound = text.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        if !text.starts_with('/') || !sound {
            return Err(PatternError::Prefix(text.to_owned()));
        }
        let readings = Readings::of(text);
        if readings.is_ambiguous() {
            let expected = "one without \\, %2f, %5c and dots before ;";
            return Err(PatternError::NotNormal(text.to_owned(), expected.to_owned()));
        }
        if readings.normal() != text {
            return Err(PatternError::NotNormal(text.to_owned(), format!("{:?}", readings.normal())));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> PathPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn an_exact_host_ignores_case_and_port() {
        assert!(host("Api.example.com").matches("api.EXAMPLE.com:8080"));
        assert!(!host("api.example.com").matches("xapi.example.com"));
        assert!(host("[2001:db8::1]").matches("[2001:db8::1]:443"));
        assert!(host("[2001:db8::1]").matches("[2001:db8::1]"));
    }

    #[test]
    fn a_suffix_covers_names_below_it_and_not_itself() {
        let below = host("*.example.com");
        assert!(below.matches("a.example.com"));
        assert!(below.matches("a.b.EXAMPLE.com:80"));
        assert!(!below.matches("example.com"));
        assert!(!below.matches(".example.com"));
        assert!(!below.matches("badexample.com"));
        assert!(!below.matches("é.example.co"));
    }

    #[test]
    fn another_spelling_is_the_same_host() {
        let (exact, below) = (host("a.example.com."), host("*.example.com"));
        assert!(
            exact.matches("a.example.com") && exact.matches("a.example.com.:80") && below.matches("A.example.com.")
        );
        assert!(!exact.matches("a.example.com.."), "that is no name");
        let literal = host("[2001:DB8::1]");
        assert!(literal.matches("[2001:db8:0:0::1]:80") && !literal.matches("[2001:db8::2]"));
        assert_eq!(literal.to_string(), "[2001:db8::1]");
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let api = prefix("/api");
        assert!(api.matches("/api") && api.matches("/api/") && api.matches("/api/x"));
        assert!(!api.matches("/apix") && !api.matches("/ap") && !api.matches("/"));
        let folder = prefix("/api/");
        assert!(folder.matches("/api/x") && folder.matches("/api/"));
        assert!(!folder.matches("/api"));
        assert!(prefix("/").matches("/anything") && prefix("/").matches("*"));
    }

    #[test]
    fn mistakes_are_refused() {
        for bad in ["", "*", "*.", "a b", "http://x", ".x", "a/b"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
        for bad in ["", "api", "/a?b", "/a b", "/a#b", "/a/../b", "//a", "/a%2fb", "/%61", "/a\\b"] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad:?}");
        }
        let hint = "/a/../b".parse::<PathPrefix>().unwrap_err().to_string();
        assert!(hint.ends_with("expected \"/b\""), "{hint}");
    }

    #[test]
    fn patterns_print_as_they_were_written() {
        for text in ["api.example.com", "*.example.com"] {
            assert_eq!(host(text).to_string(), text);
        }
        assert_eq!(prefix("/api").to_string(), "/api");
    }
}
