//! How long what admitted a tunnel lasts: its certificates have an end, and so has the tunnel.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use crate::responder::terms::Terms;
use crate::tls::{ClientCertificates, Peer, valid_until};

/// How often the clock is looked at: it may be set meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

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

/// Resolves once that time has come; never without one. Cancel safe.
pub(super) async fn ended(at: Option<SystemTime>) {
    let Some(at) = at else { return std::future::pending().await };
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_is_over_has_come_and_none_never_does() {
        ended(Some(SystemTime::now() - Duration::from_secs(1))).await;
        ended(Some(SystemTime::now() + Duration::from_millis(20))).await;
        let never = tokio::time::timeout(Duration::from_millis(20), ended(None)).await;
        assert!(never.is_err());
    }
}
