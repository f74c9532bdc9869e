//! What a rule is about.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::id::{PeerIdentity, ServiceName, TenantId};
use crate::message::failure::{Cause, Failure};
use crate::message::pattern::{HostPattern, PathPrefix};
use crate::message::trust::Prefix;
use crate::policy::traffic::subject::{Fact, Subject};

/// Conditions, all of which must hold. Of the values of one condition any will do; one without values always holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matcher {
    /// Addresses that it comes from.
    pub source: Vec<Prefix>,
    /// Whose node it asks for.
    pub tenant: Vec<TenantId>,
    /// A name in the certificate of who connected.
    pub peer: Vec<PeerPattern>,
    /// The host it asks for.
    pub host: Vec<HostPattern>,
    /// Its path, as a whole and in its normal form.
    pub path: Vec<String>,
    /// What its path begins with.
    pub prefix: Vec<PathPrefix>,
    /// Its method.
    pub method: Vec<Method>,
    /// The service it asks for, where it says one.
    pub service: Vec<ServiceName>,
    /// A field of its head.
    pub field: Option<FieldPattern>,
}

impl Matcher {
    /// Whether all conditions hold of the subject; `path` is one reading of its path.
    ///
    /// # Errors
    /// A condition is about what cannot be read, and all others hold.
    pub(super) fn holds(&self, subject: &Subject<'_>, path: Option<&str>) -> Result<bool, Failure> {
        let is_path = |want: &String| path == Some(want);
        let is_below = |prefix: &PathPrefix| path.is_some_and(|path| prefix.matches(path));
        let plain = any(&self.peer, |peer| subject.peer.is_some_and(|identity| peer.matches(identity)))
            && any(&self.host, |host| subject.host.is_some_and(|asked| host.matches(asked)))
            && any(&self.path, is_path)
            && any(&self.prefix, is_below)
            && any(&self.method, |method| subject.method == Some(method));
        if !plain {
            return Ok(false);
        }
        // One that is known not to hold settles it, whatever cannot be read.
        let rest = [
            comes_from(&self.source, subject.source),
            among(&self.tenant, subject.tenant),
            among(&self.service, subject.service),
            self.field.as_ref().map_or(Ok(true), |field| field.matches(subject.fields)),
        ];
        if rest.contains(&Ok(false)) {
            return Ok(false);
        }
        rest.into_iter().find(Result::is_err).unwrap_or(Ok(true))
    }
}

fn any<T>(values: &[T], holds: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(holds)
}

fn comes_from(prefixes: &[Prefix], source: Result<Option<IpAddr>, &Failure>) -> Result<bool, Failure> {
    if prefixes.is_empty() {
        return Ok(true);
    }
    let source = source.map_err(Clone::clone)?;
    Ok(source.is_some_and(|source| prefixes.iter().any(|prefix| prefix.covers(source))))
}

fn among<T: PartialEq>(values: &[T], fact: Fact<'_, T>) -> Result<bool, Failure> {
    if values.is_empty() {
        return Ok(true);
    }
    let fact = fact.map_err(Clone::clone)?;
    Ok(fact.is_some_and(|fact| values.contains(fact)))
}

/// A field of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPattern {
    /// Its name.
    pub name: HeaderName,
    /// Its whole value; `None`: any.
    pub value: Option<HeaderValue>,
}

impl FieldPattern {
    /// Where a value is asked for, two readers need not take the same one of two.
    fn matches(&self, fields: Option<&HeaderMap>) -> Result<bool, Failure> {
        let Some(fields) = fields else { return Ok(false) };
        let mut values = fields.get_all(&self.name).iter();
        match (&self.value, values.next(), values.next()) {
            (_, None, _) => Ok(false),
            (None, Some(_), _) => Ok(true),
            (Some(wanted), Some(value), None) => Ok(value == wanted),
            (Some(_), Some(_), Some(_)) => {
                let details = format!("a rule asks for the header {}, which is there more than once", self.name);
                Err(Failure::new(Cause::BadRequest, details))
            }
        }
    }
}

/// Names in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerPattern {
    /// This URI.
    Uri(String),
    /// URIs that begin with this, which ends in a slash.
    Below(String),
    /// Such a DNS name.
    Dns(HostPattern),
}

/// Why a text is no [`PeerPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no name of a certificate; expected a URI such as \"spiffe://example.org/ops\", one that ends in /* for all below it, or \
     a DNS name such as \"*.ops.example.org\""
)]
pub struct PeerPatternError;

impl PeerPattern {
    fn matches(&self, identity: &PeerIdentity) -> bool {
        match self {
            Self::Uri(uri) => identity.uri_sans.iter().any(|san| san == uri),
            Self::Below(start) => {
                identity.uri_sans.iter().any(|san| san.len() > start.len() && san.starts_with(start.as_str()))
            }
            Self::Dns(name) => identity.dns_sans.iter().any(|san| name.matches(san)),
        }
    }
}

impl FromStr for PeerPattern {
    type Err = PeerPatternError;

    fn from_str(text: &str) -> Result<Self, PeerPatternError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return text.parse().map(Self::Dns).map_err(|_| PeerPatternError);
        };
        let start = text.strip_suffix('*');
        let name = start.unwrap_or(text);
        let is_uri = !scheme.is_empty() && !rest.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        match start {
            _ if !is_uri || name.contains('*') => Err(PeerPatternError),
            Some(start) if start.ends_with('/') && !start.ends_with("://") => Ok(Self::Below(start.to_owned())),
            Some(_) => Err(PeerPatternError),
            None => Ok(Self::Uri(text.to_owned())),
        }
    }
}

impl fmt::Display for PeerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => f.write_str(uri),
            Self::Below(start) => write!(f, "{start}*"),
            Self::Dns(name) => name.fmt(f),
        }
    }
}
