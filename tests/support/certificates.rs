//! Certificates made on the spot: authorities, nodes, responders, and the wrong ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

/// The identity template that the names in [`Authority::node`] fit.
pub(crate) const IDENTITY: &str = "spiffe://example.org/tenant/{tenant}/cluster/{cluster}/node/{node}";

/// The DNS name in every responder certificate, beside the loopback addresses.
pub(crate) const RESPONDER_NAME: &str = "responder.example";

/// Who a node certificate speaks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) node: &'a str,
}

/// A certificate authority; two of them do not trust each other.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// `name` shows up as the issuer, so that a failing handshake can be read.
    pub(crate) fn new(name: &str) -> Self {
        Self::of(name, CertificateParams::default())
    }

    /// One that ended an hour ago.
    pub(crate) fn expired(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.not_after = OffsetDateTime::now_utc() - Duration::from_secs(3600);
        Self::of(name, params)
    }

    fn of(name: &str, mut params: CertificateParams) -> Self {
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// What goes into a `ca:` or `client_ca:` file.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes `name.pem`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(format!("{name}.pem"));
        std::fs::write(&path, self.pem()).unwrap();
        path
    }

    /// A trust store with only this authority in it.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A valid certificate for a node, named as [`IDENTITY`] says.
    pub(crate) fn node(&self, node: Node<'_>) -> Certificate {
        self.issue(node_params(node))
    }

    /// Like [`Authority::node`], and later than any of those.
    pub(crate) fn renewed_node(&self, node: Node<'_>) -> Certificate {
        let mut params = node_params(node);
        params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(60);
        self.issue(params)
    }

    /// Like [`Authority::node`], but it ended an hour ago.
    pub(crate) fn expired_node(&self, node: Node<'_>) -> Certificate {
        let mut params = node_params(node);
        params.not_after = OffsetDateTime::now_utc() - Duration::from_secs(3600);
        self.issue(params)
    }

    /// Like [`Authority::node`], but it ends so long from now.
    pub(crate) fn node_lasting(&self, node: Node<'_>, lifetime: Duration) -> Certificate {
        let mut params = node_params(node);
        params.not_after = OffsetDateTime::now_utc() + lifetime;
        self.issue(params)
    }

    /// A valid certificate for a responder on loopback, also called [`RESPONDER_NAME`].
    pub(crate) fn responder(&self) -> Certificate {
        self.issue(responder_params())
    }

    /// Like [`Authority::responder`], but it ended an hour ago.
    pub(crate) fn expired_responder(&self) -> Certificate {
        let mut params = responder_params();
        params.not_after = OffsetDateTime::now_utc() - Duration::from_secs(3600);
        self.issue(params)
    }

    /// Like [`Authority::responder`], but it ends so long from now.
    pub(crate) fn responder_lasting(&self, lifetime: Duration) -> Certificate {
        let mut params = responder_params();
        params.not_after = OffsetDateTime::now_utc() + lifetime;
        self.issue(params)
    }

    /// A certificate that is good in both TLS roles, under this DNS name, on loopback, and for this node if any: what
    /// Envoy needs when its inner TLS reverses the roles.
    pub(crate) fn either_role(&self, dns: &str, node: Option<Node<'_>>) -> Certificate {
        let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
        params.subject_alt_names.extend(node.map(node_name));
        params.distinguished_name = common_name(dns);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// A list that revokes these serial numbers, as PEM.
    pub(crate) fn crl(&self, revoked: &[Vec<u8>]) -> String {
        self.crl_from(OffsetDateTime::now_utc(), revoked)
    }

    /// One that was to be renewed long ago.
    pub(crate) fn late_crl(&self, revoked: &[Vec<u8>]) -> String {
        self.crl_from(OffsetDateTime::now_utc() - Duration::from_secs(30 * 24 * 3600), revoked)
    }

    fn crl_from(&self, now: OffsetDateTime, revoked: &[Vec<u8>]) -> String {
        let entry = |serial: &Vec<u8>| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::from_secs(60),
            next_update: now + Duration::from_secs(3600),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Signs whatever a test needs that has no name here.
    pub(crate) fn issue(&self, mut params: CertificateParams) -> Certificate {
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { certificate, key }
    }
}

/// An end-entity certificate with its key.
pub(crate) struct Certificate {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// Where [`Certificate::write`] put it.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The public key as DER, which is what a pin is the hash of.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&self.key)
    }

    /// Writes `name.pem` and `name.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Files {
        let files = Files { cert: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        std::fs::write(&files.cert, self.pem()).unwrap();
        std::fs::write(&files.key, self.key.serialize_pem()).unwrap();
        files
    }
}

fn responder_params() -> CertificateParams {
    let mut params = CertificateParams::new(vec![RESPONDER_NAME.into(), "localhost".into()]).unwrap();
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
    params.distinguished_name = common_name("responder");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn node_params(node: Node<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![node_name(node)];
    params.distinguished_name = common_name(node.node);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// As [`IDENTITY`] says.
fn node_name(node: Node<'_>) -> SanType {
    let uri = IDENTITY.replace("{tenant}", node.tenant).replace("{cluster}", node.cluster).replace("{node}", node.node);
    SanType::URI(uri.try_into().unwrap())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
