//! What the admission of a live tunnel rests on, and when it no longer does: the certificates have an end, and other initiators
//! may be trusted meanwhile.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::lifecycle::moment;
use crate::registry::Handle;
use crate::responder::admission::Admission;
use crate::responder::lifetime;
use crate::responder::terms::Terms;

/// The chain that a tunnel showed, under the trust by which it was accepted.
#[derive(Debug)]
pub(super) struct Standing {
    /// Its owner's certificate first; empty where none was shown.
    chain: Vec<CertificateDer<'static>>,
    ends_at: Option<SystemTime>,
    trust: watch::Receiver<u64>,
    has_fallen: bool,
}

/// Why a tunnel is to be drained.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fall {
    /// A certificate behind it has ended. spec: SE-40
    Ended,
    /// Its chain is not accepted any more. spec: SE-42
    NotAccepted(String),
}

impl Standing {
    /// `trust` is what [`Admission::trust`] gave before the handshake began, under `terms`.
    pub(super) fn new(chain: Vec<CertificateDer<'static>>, terms: &Terms, trust: watch::Receiver<u64>) -> Self {
        Self { ends_at: lifetime::ends_at(terms, &chain), chain, trust, has_fallen: false }
    }

    /// It rests on this chain from now on, accepted under `terms`. A change of trust that came after these is still told.
    pub(super) fn rest_on(&mut self, chain: Vec<CertificateDer<'static>>, terms: &Terms) {
        self.ends_at = lifetime::ends_at(terms, &chain);
        self.chain = chain;
    }

    /// Resolves when it no longer stands, once. Cancel safe.
    pub(super) async fn fallen<H: Handle>(&mut self, admission: &Admission<H>) -> Fall {
        if self.has_fallen {
            return std::future::pending().await;
        }
        let fall = loop {
            tokio::select! {
                () = moment(self.ends_at) => break Fall::Ended,
                Ok(()) = self.trust.changed() => {
                    let terms = admission.terms();
                    if let Err(rejection) = terms.judge.judge(&self.chain, SystemTime::now()) {
                        break Fall::NotAccepted(rejection.to_string());
                    }
                    self.ends_at = lifetime::ends_at(&terms, &self.chain);
                }
            }
        };
        self.has_fallen = true;
        fall
    }
}
