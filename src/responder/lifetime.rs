//! How long what admitted a tunnel lasts: its certificates have an end, and so has the tunnel.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use crate::responder::terms::Terms;
use crate::tls::{ClientCertificates, Peer, valid_until};

/// When the certificates of a tunnel stop to prove who it is; never where nobody looks at their dates: without roots a
/// pinned key is the whole proof.
pub(super) fn ends_at(terms: &Terms, chain: &[CertificateDer<'static>]) -> Option<SystemTime> {
    let (ClientCertificates::Required(trust) | ClientCertificates::Optional(trust)) = &terms.tls.initiators else {
        return None;
    };
    // A certificate holds through its last second: who is sent away within it would come back at once, again and again.
    let end = || valid_until(chain, &trust.roots, Peer::Initiator).map(|last| last + Duration::from_secs(1));
    if trust.roots.is_empty() { None } else { end() }
}
