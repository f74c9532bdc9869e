//! Reading a certificate: its names, its key's pin, and one line about it for people.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::id::{Issued, PeerIdentity, SpkiPin};
use crate::tls::TlsError;

/// The most characters of a name taken from a certificate that are shown. Names come from strangers.
const MAX_SHOWN_CHARS: usize = 160;

/// What the chain that TLS verified says about its owner: the names and the key hash of the first certificate.
///
/// No certificate (TLS did not ask, or the peer showed none) is an identity that proves nothing.
///
/// # Errors
/// [`TlsError::Malformed`] if the first certificate or its alternative names cannot be read.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, TlsError> {
    let Some(own) = chain.first() else { return Ok(PeerIdentity::default()) };
    let parsed = parse(own)?;
    let mut identity =
        PeerIdentity { key: Some(pin(&parsed)), issued: Some(issued(&parsed)), ..PeerIdentity::default() };
    for name in alternative_names(&parsed)? {
        match name {
            GeneralName::URI(uri) => identity.uri_sans.push((*uri).to_owned()),
            GeneralName::DNSName(dns) => identity.dns_sans.push((*dns).to_owned()),
            _ => {}
        }
    }
    Ok(identity)
}

/// SHA-256 of the certificate's SubjectPublicKeyInfo, as `openssl x509 -pubkey | openssl pkey -pubin -outform der |
/// openssl dgst -sha256 -binary | base64` prints it.
///
/// # Errors
/// [`TlsError::Malformed`] if the certificate cannot be read.
pub fn spki_pin(certificate: &CertificateDer<'_>) -> Result<SpkiPin, TlsError> {
    Ok(pin(&parse(certificate)?))
}

/// One certificate for people: logs, errors, `adit check`. Every text in it is escaped and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The name it is known by: the first URI or DNS alternative name, else the subject.
    pub name: String,
    /// Its subject: for people, since nothing is proven by it.
    pub subject: String,
    /// Who says so.
    pub issuer: String,
    /// Serial number, as bytes.
    pub serial: Vec<u8>,
    /// Not valid before.
    pub not_before: OffsetDateTime,
    /// Not valid after.
    pub not_after: OffsetDateTime,
    /// Hash of its public key.
    pub key: SpkiPin,
}

impl Summary {
    /// Reads `certificate`.
    ///
    /// # Errors
    /// [`TlsError::Malformed`] if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let parsed = parse(certificate)?;
        let alternative = alternative_names(&parsed)?.iter().find_map(|name| match name {
            GeneralName::URI(text) | GeneralName::DNSName(text) => Some((*text).to_owned()),
            _ => None,
        });
        let validity = parsed.validity();
        Ok(Self {
            name: shown(&alternative.unwrap_or_else(|| parsed.subject().to_string())),
            subject: shown(&parsed.subject().to_string()),
            issuer: shown(&parsed.issuer().to_string()),
            serial: parsed.serial.to_bytes_be(),
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
            key: pin(&parsed),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" (serial {}, key {})", self.name, Hex(&self.serial), self.key)
    }
}

/// The certificate's subject as it appears in other certificates' issuer field.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Result<String, TlsError> {
    Ok(shown(&parse(certificate)?.subject().to_string()))
}

/// Subject and issuer as they stand in the certificate, to see which one signed which.
pub(super) fn subject_and_issuer(certificate: &CertificateDer<'_>) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let parsed = parse(certificate)?;
    Ok((parsed.subject().as_raw().to_vec(), parsed.issuer().as_raw().to_vec()))
}

/// The DNS names and IP addresses the certificate is for.
pub(super) fn hosts(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = parse(certificate) else { return Vec::new() };
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(dns) => Some(shown(dns)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    alternative_names(&parsed).unwrap_or_default().iter().filter_map(host).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
}

/// Whether others may be signed with it.
pub(super) fn is_ca(certificate: &CertificateDer<'_>) -> bool {
    parse(certificate).is_ok_and(|parsed| parsed.is_ca())
}

/// A text from a certificate, fit for one log line.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// A point in time, to the second, in UTC.
#[derive(Debug, Clone, Copy)]
pub struct Utc(pub OffsetDateTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, (hour, minute, second)) = (self.0.date(), self.0.time().as_hms());
        write!(f, "{date} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(20).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    match X509Certificate::from_der(certificate) {
        Ok((&[], parsed)) => Ok(parsed),
        Ok(_) => Err(TlsError::Malformed { reason: "bytes follow the certificate".to_owned() }),
        Err(error) => Err(TlsError::Malformed { reason: error.to_string() }),
    }
}

fn pin(certificate: &X509Certificate<'_>) -> SpkiPin {
    let hash = digest::digest(&digest::SHA256, certificate.public_key().raw);
    SpkiPin(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

fn issued(certificate: &X509Certificate<'_>) -> Issued {
    let key_of_issuer = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref().map(|key| key.0),
        _ => None,
    });
    let mut authority = digest::Context::new(&digest::SHA256);
    authority.update(certificate.issuer().as_raw());
    authority.update(key_of_issuer.unwrap_or_default());
    let validity = certificate.validity();
    Issued {
        authority: authority.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"),
        validity: (validity.not_before.timestamp(), validity.not_after.timestamp()),
    }
}

fn alternative_names<'a>(certificate: &'a X509Certificate<'a>) -> Result<&'a [GeneralName<'a>], TlsError> {
    match certificate.subject_alternative_name() {
        Ok(found) => Ok(found.map_or(&[], |extension| &extension.value.general_names)),
        Err(error) => Err(TlsError::Malformed { reason: format!("subject alternative names: {error}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_strangers_stay_on_one_short_line() {
        assert_eq!(shown("a\nb\u{1b}[31m\"c"), "a\\nb\\u{1b}[31m\\\"c");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), MAX_SHOWN_CHARS + 1);
    }

    #[test]
    fn what_is_not_a_certificate_is_malformed() {
        for bytes in [&b""[..], b"\x30", b"\x30\x00", &[0xff; 300]] {
            let der = CertificateDer::from(bytes.to_vec());
            assert!(matches!(peer_identity(&[der]), Err(TlsError::Malformed { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn no_certificate_proves_nothing() {
        assert_eq!(peer_identity(&[]).unwrap(), PeerIdentity::default());
    }
}
