//! Which revocation list is whose. A list names its issuer, and a CA that was made anew often has the name of the one before
//! it: only the signature tells them apart.

use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::tls::{Summary, Trust, provider};

/// Whether this CA has signed this list. Not what is unreadable.
pub(super) fn has_signed(ca: &CertificateDer<'_>, list: &CertificateRevocationListDer<'_>) -> bool {
    let (Ok((_, ca)), Ok((_, list))) = (X509Certificate::from_der(ca), CertificateRevocationList::from_der(list))
    else {
        return false;
    };
    if list.tbs_cert_list.issuer.as_raw() != ca.subject().as_raw() {
        return false;
    }
    let (key, signature) = (&ca.public_key().subject_public_key.data, &list.signature_value.data);
    let algorithms = provider().signature_verification_algorithms.all;
    // A signature that any of them finds good was made with this key.
    algorithms.iter().any(|algorithm| algorithm.verify_signature(key, list.tbs_cert_list.as_ref(), signature).is_ok())
}

/// What is trusted of one root: the root, with its own lists and those that none of the roots has signed, which may be of CAs
/// below it.
pub(super) fn of_root(trust: &Trust, root: &CertificateDer<'static>) -> Trust {
    let mut crls: Vec<_> = trust.crls.iter().filter(|list| has_signed(root, list)).cloned().collect();
    // Behind its own: the first list of a name is the one that counts.
    crls.extend(trust.crls.iter().filter(|list| !trust.roots.iter().any(|root| has_signed(root, list))).cloned());
    if crls.is_empty() {
        // Without any list nobody would be asked whether he is revoked. Those of others cover nobody here, so that all are refused.
        crls.clone_from(&trust.crls);
    }
    Trust { roots: vec![root.clone()], crls, ..trust.clone() }
}

/// The CAs of which there is no revocation list although there is one of others: none of their certificates is accepted. One
/// that has expired vouches for nobody, and needs none.
pub fn without_list(trust: &Trust, now: SystemTime) -> Vec<Summary> {
    if trust.crls.is_empty() {
        return Vec::new();
    }
    let now = OffsetDateTime::from(now);
    let lacking = trust.roots.iter().filter(|root| !trust.crls.iter().any(|list| has_signed(root, list)));
    lacking.filter_map(|root| Summary::of(root).ok()).filter(|root| root.not_after >= now).collect()
}
