//! Loading what this end shows and trusts: certificate chains, keys, roots, CRLs. PEM only.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};

use crate::tls::certificate::Summary;
use crate::tls::{TlsError, provider};

/// A certificate chain and its private key: what this end shows to prove who it is. Cheap to clone; prints no secret.
#[derive(Clone)]
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    summary: Arc<Summary>,
}

impl Credentials {
    /// Reads the chain (this end's certificate first) and the key from PEM files.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be read or parsed, or the key does not belong to the first certificate.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let (chain_pem, key_pem) = (Text::read(certificate)?, Text::read(key)?);
        Self::parse(&chain_pem, &key_pem)
    }

    /// As [`Credentials::load`], from PEM text.
    ///
    /// # Errors
    /// As for [`Credentials::load`].
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::parse(&Text::given("the certificate text", certificate), &Text::given("the key text", key))
    }

    fn parse(chain_pem: &Text, key_pem: &Text) -> Result<Self, TlsError> {
        let chain: Vec<CertificateDer<'static>> = chain_pem.sections("certificate", "CERTIFICATE")?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem.bytes).map_err(|error| key_pem.key_error(&error))?;
        let summary = Summary::of(&chain[0])?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch {
                certificate: chain_pem.origin.clone(),
                key: key_pem.origin.clone(),
                subject: summary.to_string(),
            },
            other => TlsError::Key { origin: key_pem.origin.clone(), reason: other.to_string() },
        })?;
        Ok(Self { certified: Arc::new(certified), summary: Arc::new(summary) })
    }

    /// What this end's own certificate says.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The chain, this end's certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(super) fn key(&self) -> &dyn SigningKey {
        &*self.certified.key
    }

    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)))
    }
}

/// The same chain, whose first certificate says which key belongs to it.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.certified, &other.certified) || self.chain() == other.chain()
    }
}

impl Eq for Credentials {}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.summary)
    }
}

/// Reads every CA certificate of a PEM file.
///
/// # Errors
/// [`TlsError`] if the file cannot be read or parsed, or has no certificate.
pub fn load_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Text::read(path)?.sections("certificate", "CERTIFICATE")
}

/// As [`load_roots`], from PEM text.
///
/// # Errors
/// As for [`load_roots`].
pub fn parse_roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Text::given("the CA text", pem).sections("certificate", "CERTIFICATE")
}

/// Reads every certificate revocation list of a PEM file.
///
/// # Errors
/// [`TlsError`] if the file cannot be read or parsed, or has no list.
pub fn load_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    Text::read(path)?.sections("certificate revocation list", "X509 CRL")
}

/// As [`load_crls`], from PEM text.
///
/// # Errors
/// As for [`load_crls`].
pub fn parse_crls(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    Text::given("the CRL text", pem).sections("certificate revocation list", "X509 CRL")
}

/// In the label of an encrypted PKCS #8 key, and in the `Proc-Type` of an older one. RFC 7468 section 11, RFC 1421 section 4.6
const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// The text of a PEM file.
pub(super) fn read_text(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::Read { origin: path.display().to_string(), source })
}

/// PEM text and where it came from, for errors.
struct Text {
    origin: String,
    bytes: Vec<u8>,
}

impl Text {
    fn read(path: &Path) -> Result<Self, TlsError> {
        let origin = path.display().to_string();
        match fs::read(path) {
            Ok(bytes) => Ok(Self { origin, bytes }),
            Err(source) => Err(TlsError::Read { origin, source }),
        }
    }

    fn given(origin: &str, bytes: &[u8]) -> Self {
        Self { origin: origin.to_owned(), bytes: bytes.to_vec() }
    }

    /// All sections of one kind; at least one.
    fn sections<T: PemObject>(&self, expected: &'static str, label: &'static str) -> Result<Vec<T>, TlsError> {
        let found: Result<Vec<T>, PemError> = T::pem_slice_iter(&self.bytes).collect();
        match found {
            Ok(sections) if sections.is_empty() => Err(self.error(&PemError::NoItemsFound, expected, label)),
            Ok(sections) => Ok(sections),
            Err(error) => Err(self.error(&error, expected, label)),
        }
    }

    /// As [`Text::error`], for a private key. Both forms of an encrypted one say so in a line of their own.
    fn key_error(&self, error: &PemError) -> TlsError {
        let is_encrypted = self.bytes.windows(ENCRYPTED.len()).any(|text| text == ENCRYPTED);
        match error {
            _ if is_encrypted => TlsError::Encrypted { origin: self.origin.clone() },
            error => self.error(error, "private key", "PRIVATE KEY"),
        }
    }

    fn error(&self, error: &PemError, expected: &'static str, label: &'static str) -> TlsError {
        let origin = self.origin.clone();
        match error {
            PemError::NoItemsFound => TlsError::Missing { origin, expected, label },
            other => TlsError::Pem { origin, reason: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_key_is_called_that() {
        let label = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let header = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        for key in [&label[..], &header[..]] {
            let error = Text::given("node.key", key).key_error(&PemError::NoItemsFound).to_string();
            assert!(error.contains("is encrypted") && error.contains("openssl pkey -in node.key"), "{error}");
        }
        let plain = Text::given("node.key", b"nothing").key_error(&PemError::NoItemsFound).to_string();
        assert!(plain.contains("has no private key"), "{plain}");
    }
}
