//! `responder.envoy` and `envoy` of a tunnel: Envoy's reverse tunnels, in either role.

use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;
use serde::{Serialize, Serializer};

use crate::config::reader::{At, Section};
use crate::config::show;
use crate::config::tls::{KeyPairFiles, ListenerTls, key_pair, server_name};
use crate::protocol::envoy::{DEFAULT_PATH, HandshakeRules, PingSettings, RequestPath};
use crate::tls::{self, Credentials, TlsError};
use crate::transport::TransportChoice;
use crate::transport::tcp::envoy::{AcceptSettings, DialSettings, Inner, Security};

const MAX_CLUSTER_NAME_BYTES: usize = 256;

/// `responder.envoy`: Envoy initiators are taken on `listen.tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvoyAcceptConfig {
    /// `security`: `inner_tls` (default), `handshake_tls` or `none`; nothing else is taken from an Envoy.
    pub security: Security,
    /// `path`: where their handshake goes. Default `/reverse_connections/request`.
    pub path: String,
    /// `upgrade`: whether they ask for an upgrade (`use_http_upgrade`). Default false.
    pub upgrade: bool,
    /// `required_cluster`: what they must call this responder; anything when absent.
    pub required_cluster: Option<String>,
    /// `ping_interval`: between pings of an idle tunnel. Default 2 s, 1 s to 300 s; an echo is late after half of it.
    #[serde(serialize_with = "show::duration")]
    pub ping_interval: Duration,
    /// `ping_threshold`: how many misses in a row end a tunnel. Default 3, 1 to 100.
    pub ping_threshold: u32,
    /// `inner_cert` and `inner_key`: what is shown inside a tunnel, where this end is the TLS client; those of `tls` when
    /// absent.
    pub inner_credentials: Option<KeyPairFiles>,
    /// `inner_name`: the name that an initiator's certificate must have inside its tunnel, under the roots of
    /// `tls.client_ca`. When absent it must have the key of the certificate that it showed in the handshake.
    pub inner_name: Option<String>,
}

/// `transport` and `envoy` of a tunnel, as `/config` shows them.
#[derive(Debug, Serialize)]
struct ChoiceAsWritten<'a> {
    transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    envoy: Option<DialAsWritten<'a>>,
}

/// `envoy` of a tunnel, as `/config` shows it.
#[derive(Debug, Serialize)]
struct DialAsWritten<'a> {
    security: Security,
    path: Option<&'a str>,
    upgrade: bool,
    upstream_cluster: Option<&'a str>,
    #[serde(serialize_with = "show::duration")]
    handshake_timeout: Duration,
}

/// A choice of transport as the keys of a tunnel that say it.
pub(super) fn choice_as_written<S: Serializer>(choice: &TransportChoice, serializer: S) -> Result<S::Ok, S::Error> {
    let envoy = match choice {
        TransportChoice::Envoy(dial) => Some(DialAsWritten {
            security: dial.security,
            path: Some(dial.path.as_str()).filter(|path| *path != DEFAULT_PATH),
            upgrade: dial.upgrade,
            upstream_cluster: dial.upstream_cluster.as_ref().and_then(|name| name.to_str().ok()),
            handshake_timeout: dial.handshake_timeout,
        }),
        TransportChoice::Auto | TransportChoice::Quic | TransportChoice::Tcp => None,
    };
    ChoiceAsWritten { transport: choice.label(), envoy }.serialize(serializer)
}

impl EnvoyAcceptConfig {
    /// Loads what is shown and expected inside tunnels; `tls` is that of the responder.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn settings(&self, tls: &ListenerTls) -> Result<AcceptSettings, TlsError> {
        let credentials = match (&self.inner_credentials, self.security) {
            (_, Security::HandshakeTls | Security::None) => None,
            (Some(files), _) => Some(Credentials::load(&files.cert, &files.key)?),
            (None, _) => Some(tls.credentials()?),
        };
        let expected = match &self.inner_name {
            Some(name) => Some((inner_name(name)?, tls.trust()?)),
            None => None,
        };
        Ok(AcceptSettings {
            rules: HandshakeRules {
                path: RequestPath::new(&self.path).unwrap_or_default(),
                upgrade: self.upgrade,
                required_cluster: self.required_cluster.clone(),
            },
            security: self.security,
            inner: Inner { credentials, expected },
            ping: PingSettings {
                interval: self.ping_interval,
                threshold: self.ping_threshold,
                ..PingSettings::default()
            },
            ..AcceptSettings::default()
        })
    }
}

fn inner_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    tls::server_name(name)
}

/// `responder.envoy`.
pub(super) fn accept(at: At<'_>) -> Option<EnvoyAcceptConfig> {
    at.section(|section| {
        let security = security(section);
        let path = section.or("path", DEFAULT_PATH.to_owned(), path);
        let upgrade = section.or("upgrade", false, |at| at.boolean());
        let required_cluster = section.optional("required_cluster", |at| cluster_name(&at));
        let standard = PingSettings::default();
        let ping_interval = section.or("ping_interval", standard.interval, |at| at.duration(PingSettings::INTERVALS));
        let ping_threshold = section.or("ping_threshold", standard.threshold, |at| at.count(1..=100));
        let inner_credentials = key_pair(section, "inner_cert", "inner_key");
        let inner_name = section.optional("inner_name", |at| server_name(&at));
        for key in ["inner_cert", "inner_key", "inner_name"] {
            if let Some(at) = section.find(key).filter(|_| security != Security::InnerTls) {
                at.wrong("says what is inside a tunnel, where security has no TLS; expected security: inner_tls");
            }
        }
        Some(EnvoyAcceptConfig {
            security,
            path,
            upgrade,
            required_cluster,
            ping_interval,
            ping_threshold,
            inner_credentials,
            inner_name,
        })
    })
}

/// `envoy` of a tunnel: `security` (`inner_tls` by default, `handshake_tls` or `none`); `path`, Envoy's own when absent;
/// `upgrade`, default false; `upstream_cluster`, what this end calls the responder, needed where that has a
/// `required_cluster_name`; `handshake_timeout`, from the first byte to a complete answer, default 15 s, 1 s to 300 s.
pub(super) fn dial(at: At<'_>) -> Option<DialSettings> {
    at.section(|section| {
        let standard = DialSettings::default();
        let security = security(section);
        let path = section.or("path", standard.path.clone(), |at| at.parsed());
        let upgrade = section.or("upgrade", standard.upgrade, |at| at.boolean());
        let upstream_cluster = section.optional("upstream_cluster", |at| cluster_name(&at));
        let upstream_cluster = upstream_cluster.and_then(|name| HeaderValue::from_str(&name).ok());
        let bounds = Duration::from_secs(1)..=Duration::from_secs(300);
        let handshake_timeout = section.or("handshake_timeout", standard.handshake_timeout, |at| at.duration(bounds));
        Some(DialSettings { security, path, upgrade, upstream_cluster, handshake_timeout, ..standard })
    })
}

fn security(section: &mut Section<'_>) -> Security {
    let words = Security::ALL.map(|security| (security.label(), security));
    section.or("security", Security::default(), |at| at.word(&words))
}

fn path(at: At<'_>) -> Option<String> {
    at.checked(|text| RequestPath::new(text).map(|_| text.to_owned()))
}

/// A name that can stand in a field.
fn cluster_name(at: &At<'_>) -> Option<String> {
    at.understood("printable ASCII of 1 to 256 bytes", |text| {
        let fits =
            (1..=MAX_CLUSTER_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| text.to_owned())
    })
}
