//! Envoy's reverse tunnels, in both roles: the sockets around [`protocol::envoy`](crate::protocol::envoy). proto-spec
//! `5-envoy.md`.
//!
//! What is Envoy's on the wire stands in `protocol::envoy`; here are the phases of a connection: TLS or none, the
//! handshake, the idle phase of pings in clear, then HTTP/2, inside TLS or not, watched with HTTP/2's own pings.

mod accept;
mod accepted;
mod dial;
mod http2;
mod idle;
mod pings;
mod retained;
pub(super) mod websocket;

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;

use crate::protocol::envoy::{
    EchoSettings, HandshakeRules, PingSettings, REQUEST_TIMEOUT, RESPONSE_TIMEOUT, RequestPath,
};
use crate::tls::{Credentials, Trust};

pub(super) use accept::greet;
pub(crate) use accept::{Pending, Prepared};
pub(crate) use accepted::Accepted;
pub use accepted::StillTaken;
pub(crate) use dial::Dialed;
pub use dial::{Connected, Dialer};

/// How an Envoy tunnel is protected. Both ends must agree. spec: EV-41, EV-42
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// TLS for the handshake, and TLS again inside the tunnel. The default.
    #[default]
    InnerTls,
    /// TLS for the handshake only: heads and bodies of all requests travel in clear, and whoever is on the path can change
    /// them.
    HandshakeTls,
    /// No TLS at all: identities, too, are claimed in clear.
    None,
}

impl Security {
    /// Every choice, safest first.
    pub const ALL: [Self; 3] = [Self::InnerTls, Self::HandshakeTls, Self::None];

    /// The word in configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::InnerTls => "inner_tls",
            Self::HandshakeTls => "handshake_tls",
            Self::None => "none",
        }
    }

    /// What travels in clear, for a warning; `None` where nothing but pings does.
    pub const fn exposes(self) -> Option<&'static str> {
        match self {
            Self::InnerTls => None,
            Self::HandshakeTls => {
                Some("every request and response travels in clear after the handshake, open to reading and changing")
            }
            Self::None => {
                Some("the claim, every token, request and response travel in clear, and nobody is authenticated")
            }
        }
    }
}

/// How a responder takes tunnels from Envoys.
#[derive(Clone)]
pub struct AcceptSettings {
    /// Path, upgrade mode, and the name that Envoys must give this responder.
    pub rules: HandshakeRules,
    /// How protected their tunnels must be; nothing less is taken, nothing more expected.
    pub security: Security,
    /// What to show inside a tunnel, and whom to expect there.
    pub inner: Inner,
    /// The pings of idle tunnels, and of HTTP/2 after them.
    pub ping: PingSettings,
    /// From the first byte to a complete request. Default 10 s. spec: EV-16
    pub handshake_timeout: Duration,
}

/// The TLS inside a tunnel as the responder, its client, sees it.
#[derive(Debug, Clone, Default)]
pub struct Inner {
    /// What it shows; it must be usable for client authentication. `None`: nothing.
    pub credentials: Option<Credentials>,
    /// The name that the initiator's certificate must have, and the roots that must have signed it. `None`: it must have
    /// the very key of the certificate that was shown in the handshake.
    pub expected: Option<(ServerName<'static>, Trust)>,
}

impl Default for AcceptSettings {
    fn default() -> Self {
        Self {
            rules: HandshakeRules::default(),
            security: Security::default(),
            inner: Inner::default(),
            ping: PingSettings::default(),
            handshake_timeout: REQUEST_TIMEOUT,
        }
    }
}

impl fmt::Debug for AcceptSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptSettings")
            .field("rules", &self.rules)
            .field("security", &self.security)
            .field("ping", &self.ping)
            .finish_non_exhaustive()
    }
}

/// How an initiator dials an Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialSettings {
    /// Where the handshake goes. Default Envoy's own.
    pub path: RequestPath,
    /// Whether to ask for an upgrade; default no.
    pub upgrade: bool,
    /// What this end calls the responder; needed where the responder demands its name.
    pub upstream_cluster: Option<HeaderValue>,
    /// How protected the tunnel must be.
    pub security: Security,
    /// How long the responder may be silent while the tunnel is idle.
    pub echo: EchoSettings,
    /// Pings of HTTP/2 once it has begun.
    pub ping: PingSettings,
    /// From the first byte to a complete answer. Default 15 s. spec: EV-8
    pub handshake_timeout: Duration,
}

impl Default for DialSettings {
    fn default() -> Self {
        Self {
            path: RequestPath::default(),
            upgrade: false,
            upstream_cluster: None,
            security: Security::default(),
            echo: EchoSettings::default(),
            ping: PingSettings::default(),
            handshake_timeout: RESPONSE_TIMEOUT,
        }
    }
}

/// Random bits for a schedule.
fn entropy() -> u32 {
    rand::random()
}
