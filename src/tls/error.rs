//! What can be wrong with the TLS settings of this end. What is wrong with a peer's certificate is a `Rejection`.

use std::io;

/// Credentials, roots, CRLs or settings that cannot be used. Every text says what would be accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {origin}")]
    Read {
        /// The file.
        origin: String,
        /// Why.
        source: io::Error,
    },
    /// PEM text that is broken.
    #[error("{origin} is not valid PEM: {reason}")]
    Pem {
        /// File or description of the text.
        origin: String,
        /// What the parser says.
        reason: String,
    },
    /// PEM text without the section that is needed.
    #[error("{origin} has no {expected}; expected a PEM section \"-----BEGIN {label}-----\"")]
    Missing {
        /// File or description of the text.
        origin: String,
        /// What was looked for.
        expected: &'static str,
        /// The PEM label it stands under.
        label: &'static str,
    },
    /// A private key behind a passphrase, which nobody could type.
    #[error(
        "the private key in {origin} is encrypted; expected one without a passphrase, as \"openssl pkey -in {origin}\" writes it"
    )]
    Encrypted {
        /// File or description of the text.
        origin: String,
    },
    /// A certificate that cannot be read.
    #[error("the certificate cannot be read: {reason}")]
    Malformed {
        /// What the parser says.
        reason: String,
    },
    /// A private key of a kind that cannot be used.
    #[error("the private key in {origin} cannot be used: {reason}; expected ECDSA P-256/P-384/P-521, Ed25519 or RSA")]
    Key {
        /// File or description of the text.
        origin: String,
        /// What rustls says.
        reason: String,
    },
    /// A text was not signed as it should have been.
    #[error("the text is not signed by the key of the certificate: {reason}")]
    Signature {
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error(
        "the private key in {key} does not belong to the first certificate in {certificate}, which is {subject}; the \
         certificate of this end must come first, then its issuers"
    )]
    KeyMismatch {
        /// Where the certificate came from.
        certificate: String,
        /// Where the key came from.
        key: String,
        /// Which certificate it is.
        subject: String,
    },
    /// A root certificate that cannot serve as one.
    #[error("root certificate {name} cannot be used: {reason}")]
    Root {
        /// Its subject.
        name: String,
        /// What rustls says.
        reason: String,
    },
    /// A revocation list that cannot be used.
    #[error("a certificate revocation list cannot be used: {reason}")]
    Crl {
        /// What rustls says.
        reason: String,
    },
    /// Nothing says whom to trust.
    #[error("no way to tell a genuine {peer} from another: expected CA certificates, key pins, or both")]
    NoTrust {
        /// Whose certificate it is about.
        peer: &'static str,
    },
    /// This end must show a certificate and has none.
    #[error("there is no certificate to show; expected cert and key")]
    NoCredentials,
    /// CRLs were given, but no roots.
    #[error("revocation lists need CA certificates: with pins alone no chain is verified; remove a pin instead")]
    CrlWithoutRoots,
    /// A host that is neither a DNS name nor an IP address.
    #[error("\"{host}\" is neither a DNS name nor an IP address, so no certificate can be valid for it")]
    Host {
        /// What was given.
        host: String,
    },
    /// rustls refuses the combination of settings.
    #[error("TLS settings cannot be used")]
    Settings(#[source] rustls::Error),
}
