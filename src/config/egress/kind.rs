//! One listener of the list, of whatever kind.

use std::net::SocketAddr;

use serde::Serialize;

use super::{HttpEgress, TcpEgress};
use crate::config::policies::{self, PolicyConfig};
use crate::config::tls::{ListenerTls, TargetTlsConfig};
use crate::routing::RouterSettings;
use crate::template::Template;

/// One listener for application traffic: `http` or `tcp`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EgressConfig {
    /// `http`: requests.
    Http(Box<HttpEgress>),
    /// `tcp`: bytes.
    Tcp(Box<TcpEgress>),
}

impl EgressConfig {
    /// A listener for requests in clear text with every default; `host_id` says which node or cluster a request is for.
    pub fn new(http: SocketAddr, host_id: Template) -> Self {
        Self::Http(Box::new(HttpEgress::new(http, host_id)))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Http(http) => http.http,
            Self::Tcp(tcp) => tcp.tcp,
        }
    }

    /// Which tunnel a request or connection takes.
    pub fn router(&self) -> &RouterSettings {
        match self {
            Self::Http(http) => &http.router,
            Self::Tcp(tcp) => &tcp.router,
        }
    }

    /// The same, to be changed.
    pub fn router_mut(&mut self) -> &mut RouterSettings {
        match self {
            Self::Http(http) => &mut http.router,
            Self::Tcp(tcp) => &mut tcp.router,
        }
    }

    /// What a listener for requests has beside, to be changed; `None`: it is of another kind.
    pub fn http_mut(&mut self) -> Option<&mut HttpEgress> {
        match self {
            Self::Http(http) => Some(http),
            Self::Tcp(_) => None,
        }
    }

    /// The TLS that it takes, if it does not take clear text or pass on what comes.
    pub fn tls(&self) -> Option<&ListenerTls> {
        match self {
            Self::Http(http) => http.tls.as_ref(),
            Self::Tcp(_) => None,
        }
    }

    /// Its rules.
    pub fn policies(&self) -> &[PolicyConfig] {
        match self {
            Self::Http(http) => &http.policies,
            Self::Tcp(tcp) => &tcp.policies,
        }
    }

    /// The `tls` of each of its `policies` that forwards over TLS, with the name or priority of that rule.
    pub fn upstream_tls(&self) -> Vec<(String, &TargetTlsConfig)> {
        match self {
            Self::Http(http) => policies::upstream_tls(&http.policies).collect(),
            // Nothing there forwards.
            Self::Tcp(_) => Vec::new(),
        }
    }
}

impl From<HttpEgress> for EgressConfig {
    fn from(http: HttpEgress) -> Self {
        Self::Http(Box::new(http))
    }
}

impl From<TcpEgress> for EgressConfig {
    fn from(tcp: TcpEgress) -> Self {
        Self::Tcp(Box::new(tcp))
    }
}
