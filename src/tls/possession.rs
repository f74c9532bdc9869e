//! Showing that a key is at hand outside of a handshake: signing a text, and verifying that the key of a certificate did.

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;

use crate::tls::{Credentials, TlsError, provider};

/// The schemes of TLS 1.3 that say with which curve or padding a key signs. RFC 8446 section 4.2.3
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// The numbers of the signature schemes that [`verify_signature`] takes.
pub fn signature_schemes() -> Vec<u16> {
    let known = provider().signature_verification_algorithms.supported_schemes();
    SCHEMES.iter().filter(|scheme| known.contains(scheme)).map(|scheme| u16::from(*scheme)).collect()
}

impl Credentials {
    /// Signs `text` with this end's key, by the first way of the key's own that is among `schemes`: its number, and the signature.
    /// `None`: there is none, or the key failed.
    pub fn sign(&self, text: &[u8], schemes: &[u16]) -> Option<(u16, Vec<u8>)> {
        let offered = schemes.iter().map(|scheme| SignatureScheme::from(*scheme));
        let offered: Vec<_> = offered.filter(|scheme| SCHEMES.contains(scheme)).collect();
        let signer = self.key().choose_scheme(&offered)?;
        Some((signer.scheme().into(), signer.sign(text).ok()?))
    }
}

/// Verifies that the key of `certificate` signed `text`. The certificate itself is not judged.
///
/// # Errors
/// [`TlsError::Signature`]: an unknown scheme, one that the key is not made for, or another text or key.
pub fn verify_signature(
    certificate: &CertificateDer<'_>,
    (scheme, signature): (u16, &[u8]),
    text: &[u8],
) -> Result<(), TlsError> {
    let failed = |reason: &str| TlsError::Signature { reason: reason.to_owned() };
    let scheme = SignatureScheme::from(scheme);
    let algorithms = provider().signature_verification_algorithms;
    let algorithm = algorithms.mapping.iter().find(|(known, _)| *known == scheme && SCHEMES.contains(known));
    // Of several the first is that of TLS 1.3.
    let algorithm = algorithm.and_then(|(_, algorithms)| algorithms.first()).ok_or_else(|| failed("unknown scheme"))?;
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|error| failed(&error.to_string()))?;
    certificate.verify_signature(*algorithm, text, signature).map_err(|error| failed(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::policy::San;
    use crate::tls::pki::{Authority, Validity};

    // spec: CT-54
    #[test]
    fn only_the_key_of_the_certificate_signs_for_it_and_only_this_text() {
        let valid = Validity { from: SystemTime::UNIX_EPOCH, lifetime: Duration::from_secs(3600) };
        let ca = Authority::create("ca", valid).unwrap();
        let [own, other] = [1, 2].map(|_| ca.node(&[San::Uri("spiffe://x/n".into())], valid).unwrap());
        let (credentials, all) = (own.credentials().unwrap(), signature_schemes());
        let (scheme, mut signature) = credentials.sign(b"text", &all).unwrap();
        assert_eq!(scheme, 0x0403, "a P-256 key");
        let verify = |certificate, scheme, text: &[u8], signature: &[u8]| {
            verify_signature(certificate, (scheme, signature), text).map_err(|error| error.to_string())
        };
        assert_eq!(verify(own.certificate(), scheme, b"text", &signature), Ok(()));
        assert!(verify(own.certificate(), scheme, b"texts", &signature).is_err());
        assert!(verify(other.certificate(), scheme, b"text", &signature).is_err());
        assert!(verify(own.certificate(), 0x0503, b"text", &signature).is_err(), "another curve");
        assert!(verify(own.certificate(), 0x0201, b"text", &signature).unwrap_err().contains("unknown scheme"));
        assert!(verify(own.certificate(), scheme, b"text", &signature[..4]).is_err());
        *signature.last_mut().unwrap() ^= 1;
        assert!(verify(own.certificate(), scheme, b"text", &signature).is_err());
        assert!(verify(&CertificateDer::from(vec![0x30, 0]), scheme, b"text", &signature).is_err());
        assert!(credentials.sign(b"text", &[0x0807]).is_none(), "not a way of this key");
    }
}
