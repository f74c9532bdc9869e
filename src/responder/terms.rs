//! What a responder goes by: one snapshot of everything that can be changed while it runs.

use std::sync::Arc;

use crate::policy::Rules;
use crate::protocol::ALPN;
use crate::tls::{self, ResponderTls, TlsError};
use crate::transport::TunnelSettings;
use crate::transport::tcp::envoy::AcceptSettings;

/// What a responder goes by. All of it can be changed while it runs, see [`Handle::update`](super::Handle::update).
#[derive(Debug, Clone)]
pub struct Terms {
    /// Its name in WELCOME, 1 to 128 bytes.
    pub name: String,
    /// Who may open a tunnel.
    pub rules: Rules,
    /// What TLS shows and asks. Another `Arc` means other settings: a handshake that began under the former ones is
    /// refused with the advice to come back.
    pub tls: Arc<ResponderTls>,
    /// Takes Envoy's reverse tunnels on the TCP socket, if there is one.
    pub envoy: Option<AcceptSettings>,
    /// Times, limits and the admission of handshakes, for tunnels that are accepted from now on.
    pub tunnel: TunnelSettings,
    /// The generation of the first terms with this `tls`; connections of an earlier one come under another.
    pub(super) tls_since: u64,
}

/// Why terms could not be put in force; those before are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The credentials, roots or revocation lists.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS configuration has no cipher suite that QUIC can start with.
    #[error("the TLS configuration cannot be used for QUIC")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// The TLS configurations that follow from terms.
pub(super) struct Configured {
    pub(super) adit: rustls::ServerConfig,
    pub(super) envoy: Option<(rustls::ServerConfig, AcceptSettings)>,
}

impl Terms {
    pub(super) fn configured(&self) -> Result<Configured, TlsError> {
        let envoy = match &self.envoy {
            Some(accept) => Some((tls::envoy_responder_config(&self.tls)?, accept.clone())),
            None => None,
        };
        Ok(Configured { adit: tls::responder_config(&self.tls, &[ALPN])?, envoy })
    }
}
