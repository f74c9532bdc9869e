//! Where etcd is, and who asks.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::id::{AddressError, HostPort};
use crate::tls::TargetTls;

/// The most endpoints that may be configured.
pub const MAX_ENDPOINTS: usize = 16;

/// How long one call may take when nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// Everything that a connection to etcd needs.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// Members of one etcd, of which one is used at a time; at least one.
    pub endpoints: Vec<Endpoint>,
    /// What members over TLS must show and are shown; needed when there is such a one.
    pub tls: Option<TargetTls>,
    /// Who asks, where etcd has users.
    pub user: Option<User>,
    /// How long a connection, and each call on it, may take.
    pub timeout: Duration,
}

/// A user of etcd. Prints no password.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// One member of etcd: `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where it is.
    pub at: HostPort,
    /// Whether it is asked over TLS.
    pub is_secure: bool,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It does not say how to connect.
    #[error("does not start with \"https://\" or \"http://\"; expected such as https://10.0.0.5:2379")]
    Scheme,
    /// What follows is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl EtcdSettings {
    /// These members, in clear or with what [`EtcdSettings::tls`] will say.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self { endpoints, tls: None, user: None, timeout: DEFAULT_TIMEOUT }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (is_secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(EndpointError::Scheme),
        };
        Ok(Self { at: rest.strip_suffix('/').unwrap_or(rest).parse()?, is_secure })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_secure { "https" } else { "http" }, self.at)
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_says_how_to_connect_and_where() {
        let read = |text: &str| text.parse::<Endpoint>();
        assert_eq!(read("https://etcd-1:2379/").unwrap().to_string(), "https://etcd-1:2379");
        assert!(!read("http://[::1]:2379").unwrap().is_secure);
        assert_eq!(read("etcd-1:2379"), Err(EndpointError::Scheme));
        assert_eq!(read("http://etcd-1"), Err(EndpointError::Address(AddressError::Port)));
        assert!(read("http://etcd-1:2379/v3").is_err());
    }

    #[test]
    fn a_user_prints_no_password() {
        let user = User { name: "adit".into(), password: "hunter2".into() };
        assert!(!format!("{user:?}").contains("hunter2"));
    }
}
