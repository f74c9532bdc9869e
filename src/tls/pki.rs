//! A small certificate authority: enough for `adit pki`, the demo, the examples and the tests.
//!
//! ECDSA P-256 throughout. A CA signs leaf certificates only (path length 0). Files: certificates 0644, keys 0600,
//! nothing is overwritten unasked, and what is takes the place of the old at once. Whoever already has a CA does not need any of this.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, DnsName, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::policy::San;
use crate::tls::certificate::is_ca;
use crate::tls::provider::provider;
use crate::tls::secret::{self, SecretError};
use crate::tls::store::read_text;
use crate::tls::{Credentials, Summary, TlsError, lists, load_crls};

/// How long a CA made here is valid: ten years.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long the certificate of a node or a responder made here is valid: one year.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// How much earlier than asked a certificate becomes valid: clocks at sites run late.
const BACKDATE: Duration = Duration::from_secs(3600);
/// The most characters of a common name. RFC 5280 appendix A.1, ub-common-name.
const MAX_COMMON_NAME: usize = 64;

/// Why a certificate could not be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A name that cannot stand in a certificate.
    #[error("\"{name}\" cannot be {expected}")]
    Name {
        /// What was given.
        name: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A certificate without any name proves nothing.
    #[error("no name given; expected at least one {expected}")]
    NoName {
        /// What was expected.
        expected: &'static str,
    },
    /// A lifetime that ends beyond what a certificate can say.
    #[error("the lifetime ends beyond the year 9999")]
    Lifetime,
    /// The certificate to sign with is not a CA's.
    #[error("{subject} is not a CA certificate, so nothing it signs would be trusted")]
    NotACa {
        /// Which certificate.
        subject: String,
    },
    /// A file could not be read, or not be written.
    #[error(transparent)]
    File(#[from] SecretError),
    /// A file has more lists than the one that is continued: the others would be lost.
    #[error("{} has {found} revocation lists; expected one alone, which the next one takes the place of", path.display())]
    OneList {
        /// The file.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// A list is another CA's.
    #[error(
        "{} is no list that this CA has signed, and must not be replaced by one; expected it elsewhere (`crl` takes \
         several files)", path.display()
    )]
    ListOfAnother {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key could not be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate could not be made.
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// From when on. One hour is subtracted, so that a clock that is a little late does not refuse it.
    pub from: SystemTime,
    /// For how long.
    pub lifetime: Duration,
}

impl Validity {
    fn dates(self) -> Result<(OffsetDateTime, OffsetDateTime), PkiError> {
        let since_epoch =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| PkiError::Lifetime);
        let from = since_epoch(self.from)?;
        let at = |offset: Duration| {
            let seconds = i64::try_from(offset.as_secs()).map_err(|_| PkiError::Lifetime)?;
            OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Lifetime)
        };
        Ok((at(from.saturating_sub(BACKDATE))?, at(from.saturating_add(self.lifetime))?))
    }
}

/// A certificate authority: its certificate and the key it signs with.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    both_roles: bool,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new CA with its own key. `name` is its common name: 1 to 64 characters.
    ///
    /// # Errors
    /// [`PkiError::Name`] or [`PkiError::Lifetime`].
    pub fn create(name: &str, validity: Validity) -> Result<Self, PkiError> {
        if name.is_empty() || name.chars().count() > MAX_COMMON_NAME {
            return Err(PkiError::Name { name: name.to_owned(), expected: "a CA's name: 1 to 64 characters" });
        }
        let mut params = parameters(name, validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let (pem, certificate) = (certificate.pem(), certificate.der().clone());
        Ok(Self { issuer: Issuer::new(params, key), certificate, pem, both_roles: false })
    }

    /// Reads a CA from PEM files: one made here, or any other.
    ///
    /// # Errors
    /// [`PkiError`] if a file cannot be read, the key is not the certificate's, or it is not a CA's.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        // Proves that the two belong together.
        let credentials = Credentials::load(certificate, key)?;
        let own = credentials.chain().first().ok_or(PkiError::NoName { expected: "certificate" })?.clone();
        if !is_ca(&own) {
            return Err(PkiError::NotACa { subject: credentials.summary().to_string() });
        }
        let key = KeyPair::from_pem(&read_text(key)?)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&own, key)?,
            certificate: own,
            pem: read_text(certificate)?,
            both_roles: false,
        })
    }

    /// Writes certificate (0644) and key (0600).
    ///
    /// # Errors
    /// [`PkiError::File`] if one of them exists or cannot be written.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), PkiError> {
        save(certificate, &self.pem, key, &self.issuer.key().serialize_pem())
    }

    /// As [`Authority::save`], in place of files that exist. What cannot be written leaves them as they are.
    ///
    /// # Errors
    /// [`PkiError::File`] if one of them cannot be written.
    pub fn replace(&self, certificate: &Path, key: &Path) -> Result<(), PkiError> {
        replace(certificate, &self.pem, key, &self.issuer.key().serialize_pem())
    }

    /// The certificate, as others need it to trust what this CA signs.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The same CA, whose certificates from here on are good for TLS clients and servers alike: the TLS inside an Envoy
    /// tunnel has its client at the responder.
    pub fn for_both_roles(self) -> Self {
        Self { both_roles: true, ..self }
    }

    /// Makes the certificate of a node. `names` are its identity, as
    /// [`IdentityTemplate::render`](crate::policy::IdentityTemplate::render) makes it from the claim, and further
    /// names, usually none.
    ///
    /// # Errors
    /// [`PkiError::NoName`] without any name, [`PkiError::Name`] or [`PkiError::Lifetime`].
    pub fn node(&self, names: &[San], validity: Validity) -> Result<Issued, PkiError> {
        let alternative = |name: &San| match name {
            San::Uri(uri) => Ok(SanType::URI(ia5(uri, "a URI")?)),
            San::Dns(dns) => dns_name(dns),
        };
        let names: Vec<SanType> = names.iter().map(alternative).collect::<Result<_, PkiError>>()?;
        self.issue(names, "URI or DNS name", ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    /// Makes the certificate of a responder: `names` are the DNS names and IP addresses that initiators dial.
    ///
    /// # Errors
    /// As for [`Authority::node`].
    pub fn responder(&self, names: &[String], validity: Validity) -> Result<Issued, PkiError> {
        let names: Vec<SanType> = names
            .iter()
            .map(|name| name.parse().map_or_else(|_| dns_name(name), |address| Ok(SanType::IpAddress(address))))
            .collect::<Result<_, PkiError>>()?;
        self.issue(names, "DNS name or IP address", ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// Whether a certificate is one that this CA has issued to somebody, whatever its use, and whether it still holds.
    pub fn has_issued(&self, certificate: &CertificateDer<'_>) -> bool {
        let (Ok(own), Ok(summary)) = (webpki::EndEntityCert::try_from(certificate), Summary::of(certificate)) else {
            return false;
        };
        let Ok(anchor) = webpki::anchor_from_trusted_cert(&self.certificate) else { return false };
        let algorithms = provider().signature_verification_algorithms.all;
        // When it began to hold it did.
        let seconds = u64::try_from(summary.not_before.unix_timestamp()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        [webpki::KeyUsage::client_auth(), webpki::KeyUsage::server_auth()].into_iter().any(|usage| {
            own.verify_for_usage(algorithms, std::slice::from_ref(&anchor), &[], at, usage, None, None).is_ok()
        })
    }

    /// A revocation list as PEM: `revoked` are the serial numbers ([`Summary::serial`](crate::tls::Summary)).
    /// `number` must rise from list to list.
    ///
    /// # Errors
    /// [`PkiError::Lifetime`].
    pub fn crl(&self, revoked: &[Vec<u8>], number: u64, validity: Validity) -> Result<String, PkiError> {
        let (this_update, next_update) = validity.dates()?;
        let entry = |serial: &Vec<u8>| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }

    /// What the list in this file says, which this CA has signed: what is not in the next one is not revoked any more.
    /// Nothing where there is no file.
    ///
    /// # Errors
    /// [`PkiError::Tls`] if it cannot be read, [`PkiError::OneList`] where there are several, [`PkiError::ListOfAnother`].
    pub fn revocations(&self, path: &Path) -> Result<Revocations, PkiError> {
        if !path.exists() {
            return Ok(Revocations::default());
        }
        let list = only_list(path)?;
        if !lists::has_signed(&self.certificate, &list) {
            return Err(PkiError::ListOfAnother { path: path.to_owned() });
        }
        Revocations::read(&list)
    }

    /// Writes the next list, of these certificates, in place of the one that is there. The file keeps its mode; a new one has
    /// 0644. What cannot be written leaves it as it is.
    ///
    /// # Errors
    /// As [`Authority::crl`]; [`PkiError::File`] if it cannot be written.
    pub fn save_crl(&self, path: &Path, revoked: &Revocations, validity: Validity) -> Result<(), PkiError> {
        let text = self.crl(&revoked.serials, revoked.number + 1, validity)?;
        let mode = std::fs::metadata(path).map_or(0o644, |file| file.permissions().mode() & 0o777);
        Ok(secret::replace(&[(path, text.as_bytes(), mode)])?)
    }

    fn issue(
        &self,
        names: Vec<SanType>,
        expected: &'static str,
        usage: ExtendedKeyUsagePurpose,
        validity: Validity,
    ) -> Result<Issued, PkiError> {
        let first = names.first().ok_or(PkiError::NoName { expected })?;
        let mut params = parameters(&common_name(first), validity)?;
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.both_roles {
            true => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            false => vec![usage],
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { pem: certificate.pem(), certificate: certificate.der().clone(), key })
    }
}

/// A certificate that was just made, and its key.
pub struct Issued {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

impl Issued {
    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Certificate and key, ready for use without a file.
    ///
    /// # Errors
    /// [`PkiError::Tls`]; not expected for what was made here.
    pub fn credentials(&self) -> Result<Credentials, PkiError> {
        Ok(Credentials::from_pem(self.pem.as_bytes(), self.key.serialize_pem().as_bytes())?)
    }

    /// Writes certificate (0644) and key (0600).
    ///
    /// # Errors
    /// [`PkiError::File`] if one of them exists or cannot be written.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), PkiError> {
        save(certificate, &self.pem, key, &self.key.serialize_pem())
    }

    /// As [`Issued::save`], in place of files that exist. What cannot be written leaves them as they are.
    ///
    /// # Errors
    /// [`PkiError::File`] if one of them cannot be written.
    pub fn replace(&self, certificate: &Path, key: &Path) -> Result<(), PkiError> {
        replace(certificate, &self.pem, key, &self.key.serialize_pem())
    }
}

/// The key first: a key without a certificate is visibly unfinished, the other way round is not.
fn save(certificate: &Path, pem: &str, key: &Path, key_pem: &str) -> Result<(), PkiError> {
    if certificate.exists() {
        return Err(SecretError::Exists { path: certificate.to_owned() }.into());
    }
    secret::create_new(key, key_pem.as_bytes(), 0o600)?;
    secret::create_new(certificate, pem.as_bytes(), 0o644)?;
    Ok(())
}

fn replace(certificate: &Path, pem: &str, key: &Path, key_pem: &str) -> Result<(), PkiError> {
    Ok(secret::replace(&[(key, key_pem.as_bytes(), 0o600), (certificate, pem.as_bytes(), 0o644)])?)
}

/// What a revocation list says: whom it revokes, and the how manieth it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocations {
    /// Serial numbers ([`Summary::serial`](crate::tls::Summary)).
    pub serials: Vec<Vec<u8>>,
    /// The number of the list; the next one has a higher one.
    pub number: u64,
}

impl Revocations {
    /// Reads the list in a PEM file, whoever has made it.
    ///
    /// # Errors
    /// [`PkiError::Tls`] if it cannot be read; [`PkiError::OneList`] where there are several.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        Self::read(&only_list(path)?)
    }

    fn read(list: &CertificateRevocationListDer<'_>) -> Result<Self, PkiError> {
        let malformed = |reason: String| TlsError::Crl { reason };
        let (_, list) = CertificateRevocationList::from_der(list).map_err(|error| malformed(error.to_string()))?;
        let serials = list.iter_revoked_certificates().map(|revoked| revoked.user_certificate.to_bytes_be()).collect();
        let number = list.crl_number().and_then(|number| number.to_u64_digits().first().copied()).unwrap_or_default();
        Ok(Self { serials, number })
    }

    /// Adds a serial number. Whether it was not there before.
    pub fn add(&mut self, serial: &[u8]) -> bool {
        let news = !self.serials.iter().any(|known| known == serial);
        if news {
            self.serials.push(serial.to_owned());
        }
        news
    }
}

/// The list in a file that has no other.
fn only_list(path: &Path) -> Result<CertificateRevocationListDer<'static>, PkiError> {
    let mut lists = load_crls(path)?;
    match (lists.pop(), lists.is_empty()) {
        (Some(list), true) => Ok(list),
        (None, _) => Err(TlsError::Crl { reason: "there is none".to_owned() }.into()),
        (Some(_), false) => Err(PkiError::OneList { path: path.to_owned(), found: lists.len() + 1 }),
    }
}

fn parameters(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity.dates()?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}

fn ia5(name: &str, expected: &'static str) -> Result<Ia5String, PkiError> {
    let invalid = || PkiError::Name { name: name.to_owned(), expected };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid());
    }
    Ia5String::try_from(name).map_err(|_| invalid())
}

fn dns_name(name: &str) -> Result<SanType, PkiError> {
    const EXPECTED: &str = "a DNS name, such as cloud.example.com or *.example.com";
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if DnsName::try_from(plain).is_err() {
        return Err(PkiError::Name { name: name.to_owned(), expected: EXPECTED });
    }
    Ok(SanType::DnsName(ia5(name, EXPECTED)?))
}

/// For people only; nothing is ever proven by a common name.
fn common_name(name: &SanType) -> String {
    let text = match name {
        SanType::URI(uri) => uri.as_str().rsplit('/').next().unwrap_or_default().to_owned(),
        SanType::DnsName(dns) => dns.as_str().to_owned(),
        SanType::IpAddress(address) => address.to_string(),
        _ => String::new(),
    };
    text.chars().take(MAX_COMMON_NAME).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tls::{load_roots, peer_identity};

    fn now() -> Validity {
        Validity { from: SystemTime::now(), lifetime: LEAF_LIFETIME }
    }

    fn edge_17() -> [San; 1] {
        [San::Uri("spiffe://example.org/node/edge-17".to_owned())]
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// The list was cut off before it was written anew, and what else stood in its file was lost.
    #[test]
    fn the_next_list_takes_the_place_of_its_own_last_one_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked.crl");
        // One that was made anew has the name of the one before it.
        let [own, other] = ["a CA", "a CA"].map(|name| Authority::create(name, now()).unwrap());
        let none = own.revocations(&path).unwrap();
        assert_eq!(none, Revocations::default());
        own.save_crl(&path, &Revocations { serials: vec![vec![7]], ..none }, now()).unwrap();
        assert_eq!(mode(&path), 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut revoked = own.revocations(&path).unwrap();
        assert_eq!(revoked, Revocations { serials: vec![vec![7]], number: 1 });
        assert!(revoked.add(&[9]) && !revoked.add(&[7]));
        own.save_crl(&path, &revoked, now()).unwrap();
        assert_eq!((own.revocations(&path).unwrap().number, mode(&path)), (2, 0o640));
        assert!(matches!(other.revocations(&path), Err(PkiError::ListOfAnother { .. })));
        let both = fs::read_to_string(&path).unwrap() + &other.crl(&[], 1, now()).unwrap();
        fs::write(&path, both).unwrap();
        assert!(matches!(own.revocations(&path), Err(PkiError::OneList { found: 2, .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn what_is_replaced_is_there_until_what_takes_its_place_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key, nowhere] = ["a.pem", "a.key", "missing/a.pem"].map(|name| folder.path().join(name));
        let ca = Authority::create("a CA", now()).unwrap();
        let [old, new] = [(); 2].map(|()| ca.node(&edge_17(), now()).unwrap());
        old.save(&certificate, &key).unwrap();
        let read = || [&certificate, &key].map(|path| fs::read_to_string(path).unwrap());
        let before = read();
        assert!(matches!(new.save(&certificate, &key), Err(PkiError::File(SecretError::Exists { .. }))));
        assert!(matches!(new.replace(&nowhere, &key), Err(PkiError::File(SecretError::Create { .. }))));
        assert_eq!(read(), before);
        new.replace(&certificate, &key).unwrap();
        Credentials::load(&certificate, &key).unwrap();
        assert!(read().iter().zip(&before).all(|(now, before)| now != before));
        assert_eq!((mode(&certificate), mode(&key)), (0o644, 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn a_ca_survives_being_saved_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
        let made = Authority::create("sites CA", now()).unwrap();
        made.save(&certificate, &key).unwrap();
        assert_eq!(mode(&key), 0o600);
        assert_eq!(mode(&certificate) & 0o022, 0, "nobody else may replace the CA");

        let loaded = Authority::load(&certificate, &key).unwrap();
        assert_eq!(load_roots(&certificate).unwrap(), [made.certificate().clone()]);
        let issued = loaded.node(&edge_17(), now()).unwrap();
        let summary = issued.credentials().unwrap().summary().clone();
        assert_eq!(summary.issuer, "CN=sites CA");
        assert_eq!(
            peer_identity(&[issued.certificate().clone()]).unwrap().uri_sans,
            ["spiffe://example.org/node/edge-17"]
        );
    }

    #[test]
    fn saving_overwrites_neither_certificate_nor_key() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key, other] = ["ca.pem", "ca.key", "other"].map(|name| folder.path().join(name));
        let first = Authority::create("first", now()).unwrap();
        first.save(&certificate, &key).unwrap();
        let second = Authority::create("second", now()).unwrap();
        for (certificate, key) in [(&certificate, &other), (&other, &key), (&certificate, &key)] {
            let error = second.save(certificate, key).unwrap_err();
            assert!(matches!(error, PkiError::File(SecretError::Exists { .. })), "{error}");
        }
        assert_eq!(fs::read_to_string(&certificate).unwrap(), first.pem());
        assert!(!other.exists(), "a refused save leaves nothing behind");
    }

    #[test]
    fn only_a_ca_can_sign() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("node.pem"), folder.path().join("node.key"));
        let ca = Authority::create("sites CA", now()).unwrap();
        ca.node(&edge_17(), now()).unwrap().save(&certificate, &key).unwrap();
        let error = Authority::load(&certificate, &key).unwrap_err();
        assert!(matches!(error, PkiError::NotACa { .. }), "{error}");
    }

    #[test]
    fn a_certificate_has_at_least_one_name_and_only_possible_ones() {
        let ca = Authority::create("sites CA", now()).unwrap();
        assert!(matches!(ca.node(&[], now()), Err(PkiError::NoName { .. })));
        assert!(matches!(ca.responder(&[], now()), Err(PkiError::NoName { .. })));
        for bad in ["", "spiffe://a b", "spiffe://é", "a\nb"] {
            for name in [San::Uri(bad.to_owned()), San::Dns(bad.to_owned())] {
                assert!(matches!(ca.node(&[name], now()), Err(PkiError::Name { .. })), "{bad:?}");
            }
        }
        assert!(Authority::create("", now()).is_err());
        assert!(Authority::create(&"c".repeat(65), now()).is_err());
    }

    #[test]
    fn a_certificate_is_valid_for_clocks_that_run_an_hour_late() {
        let ca = Authority::create("sites CA", now()).unwrap();
        let issued = ca.responder(&["cloud.example.com".to_owned()], now()).unwrap();
        let summary = issued.credentials().unwrap().summary().clone();
        let (early, late) = (OffsetDateTime::now_utc() - BACKDATE, OffsetDateTime::now_utc() + LEAF_LIFETIME);
        assert!(summary.not_before <= early, "{}", summary.not_before);
        assert!((late - summary.not_after).abs() < time::Duration::minutes(1), "{}", summary.not_after);
    }

    #[test]
    fn a_lifetime_beyond_the_calendar_is_refused() {
        let forever = Validity { from: SystemTime::now(), lifetime: Duration::from_secs(u64::MAX) };
        assert!(matches!(Authority::create("sites CA", forever), Err(PkiError::Lifetime)));
    }

    /// Whether it is good for clients, and for servers.
    fn usages(issued: &Issued) -> (bool, bool) {
        let (_, certificate) = x509_parser::parse_x509_certificate(issued.certificate()).unwrap();
        let usages = certificate.extended_key_usage().unwrap().unwrap().value.clone();
        (usages.client_auth, usages.server_auth)
    }

    #[test]
    fn a_certificate_is_good_for_its_own_role_only_unless_both_are_asked_for() {
        let validity = now();
        let authority = Authority::create("test CA", validity).unwrap();
        let (node, responder) = ([San::Uri("spiffe://x/y".into())], ["cloud".to_owned()]);
        assert_eq!(usages(&authority.node(&node, validity).unwrap()), (true, false));
        assert_eq!(usages(&authority.responder(&responder, validity).unwrap()), (false, true));
        let authority = authority.for_both_roles();
        assert_eq!(usages(&authority.node(&node, validity).unwrap()), (true, true));
        assert_eq!(usages(&authority.responder(&responder, validity).unwrap()), (true, true));
    }
}
