//! What connections between siblings rest on, and how that becomes another while they live. spec: FL-48

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::fleet::hop::{HopError, HopSettings};
use crate::lifecycle::moment;
use crate::tls::{SiblingJudge, SiblingTls, sibling_client_config, sibling_server_config};
use crate::transport::SiblingDialer;
use crate::transport::quic::{Listener, ServerConfig};

/// What is shown and trusted, and all that follows from it.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) tls: SiblingTls,
    pub(super) judge: SiblingJudge,
    pub(super) dialer: SiblingDialer,
    pub(super) server: ServerConfig,
}

impl Terms {
    /// For connections that are dialled from this endpoint, or accepted, with these settings but for what they say of TLS.
    pub(super) fn new(tls: SiblingTls, settings: &HopSettings, dialling: &quinn::Endpoint) -> Result<Self, HopError> {
        let (tunnel, quic) = (settings.tunnel, settings.quic.clone());
        let server = Listener::sibling_config(sibling_server_config(&tls)?, &tunnel, &quic)?;
        let dialer = SiblingDialer::new(dialling.clone(), sibling_client_config(&tls)?, (tunnel, quic))?;
        Ok(Self { judge: SiblingJudge::new(&tls.siblings)?, tls, dialer, server })
    }
}

/// The chain that a sibling showed, under the terms that hold.
#[derive(Debug)]
pub(super) struct Standing {
    /// Its own certificate first.
    chain: Vec<CertificateDer<'static>>,
    has_dialled: bool,
    ends_at: Option<SystemTime>,
    terms: watch::Receiver<Arc<Terms>>,
    has_fallen: bool,
}

/// Why a connection is to be drained.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fall {
    #[error("a certificate behind it has ended")]
    Ended,
    #[error("its certificate is not accepted any more: {0}")]
    NotAccepted(String),
}

impl Standing {
    /// `terms` are those of before the handshake: a change since then is still told. `has_dialled`: the sibling has.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        has_dialled: bool,
        terms: watch::Receiver<Arc<Terms>>,
    ) -> Self {
        let ends_at = terms.borrow().judge.ends_at(&chain);
        Self { chain, has_dialled, ends_at, terms, has_fallen: false }
    }

    /// Resolves when it no longer stands, once. Cancel safe.
    pub(super) async fn fallen(&mut self) -> Fall {
        if self.has_fallen {
            return std::future::pending().await;
        }
        let fall = loop {
            tokio::select! {
                () = moment(self.ends_at) => break Fall::Ended,
                Ok(()) = self.terms.changed() => {
                    let judge = self.terms.borrow_and_update().judge.clone();
                    if let Err(rejection) = judge.judge(&self.chain, self.has_dialled, SystemTime::now()) {
                        break Fall::NotAccepted(rejection.to_string());
                    }
                    self.ends_at = judge.ends_at(&self.chain);
                }
            }
        };
        self.has_fallen = true;
        fall
    }
}
