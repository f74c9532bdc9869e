//! What a responder goes by: one snapshot of everything that can be changed while it runs.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use crate::id::PeerIdentity;
use crate::policy::{Rules, refuse};
use crate::protocol::ALPN;
use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::Refusal;
use crate::shares::ShareSettings;
use crate::tls::{self, InitiatorJudge, ResponderTls, TlsError};
use crate::transport::TunnelSettings;
use crate::transport::quic::QuicSettings;
use crate::transport::tcp::TcpSettings;
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
    /// Times and the admission of handshakes, for tunnels that are accepted from now on; and what is taken of message heads,
    /// which live tunnels are told (LIMITS). spec: CT-31
    pub tunnel: TunnelSettings,
    /// What only QUIC knows, for tunnels that are accepted from now on.
    pub quic: QuicSettings,
    /// What only TCP knows, for tunnels that are accepted from now on.
    pub tcp: TcpSettings,
    /// What each tenant and node may have. Holds at once: what is under way stays, and what is left of each rate.
    pub shares: ShareSettings,
    /// The generation of the first terms with this `tls`; connections of an earlier one come under another.
    pub(super) tls_since: u64,
    /// The generation of the first terms that take the same tunnels of Envoys.
    pub(super) envoy_since: u64,
    /// What follows from `tls` for the chains of initiators.
    pub(super) judge: InitiatorJudge,
    /// The generation of the first terms that trust the same initiators.
    pub(super) trust_since: u64,
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
    /// Whether these are the first that take other tunnels of Envoys than those before.
    pub(super) fn takes_other_envoys(&self) -> bool {
        self.envoy_since == self.rules.generation()
    }

    /// What a chain proves that a live tunnel shows, judged as in a handshake. spec: CT-55
    pub(super) fn identify(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, Refusal> {
        let refuse = |reason: String| refuse(RefusalCode::Unauthenticated, reason);
        if !self.judge.asks() {
            return Err(refuse("no certificate is asked for here".to_owned()));
        }
        self.judge.judge(chain, SystemTime::now()).map_err(|rejection| refuse(rejection.to_string()))?;
        tls::peer_identity(chain).map_err(|error| refuse(error.to_string()))
    }

    pub(super) fn configured(&self) -> Result<Configured, TlsError> {
        let envoy = match &self.envoy {
            Some(accept) => Some((tls::envoy_responder_config(&self.tls)?, accept.clone())),
            None => None,
        };
        Ok(Configured { adit: tls::responder_config(&self.tls, &[ALPN])?, envoy })
    }
}
