//! Whom to trust.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::id::SpkiPin;

/// What makes a peer's certificate genuine. At least one root or one pin; CRLs need roots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// CA certificates; the chain must end at one of them. Empty: pin-only.
    pub roots: Vec<CertificateDer<'static>>,
    /// The peer's key must be one of these. Empty: any key.
    pub pins: Vec<SpkiPin>,
    /// Revocation lists. Empty: nothing is checked for revocation.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
}

impl Trust {
    /// Whatever these roots signed, whichever key it has.
    pub fn roots(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        Self { roots: roots.into_iter().collect(), ..Self::default() }
    }
}
