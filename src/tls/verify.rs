//! Verifying a peer's certificate: rustls' chain verification, then the pins, then words for what is wrong.
//!
//! The handshake signature (possession of the key) is always verified by rustls itself, in every mode.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::id::SpkiPin;
use crate::tls::certificate::{spki_pin, subject};
use crate::tls::{Peer, Rejection, TlsError, provider};

/// What makes a peer's certificate genuine. At least one root or one pin; CRLs need roots.
#[derive(Debug, Clone, Default)]
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

/// What both directions share: the pins, and what errors need to know.
#[derive(Debug)]
struct Checks {
    peer: Peer,
    pins: Vec<SpkiPin>,
    roots: Vec<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Checks {
    fn new(peer: Peer, trust: &Trust) -> Result<Self, TlsError> {
        match (trust.roots.is_empty(), trust.pins.is_empty(), trust.crls.is_empty()) {
            (true, true, _) => Err(TlsError::NoTrust { peer: peer.label() }),
            (true, false, false) => Err(TlsError::CrlWithoutRoots),
            _ => Ok(Self {
                peer,
                pins: trust.pins.clone(),
                roots: trust.roots.iter().map(subject).collect::<Result<_, _>>()?,
                algorithms: provider().signature_verification_algorithms,
            }),
        }
    }

    /// Runs after the chain verified (or instead, when there are no roots).
    fn pin(&self, own: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let accepted = self.pins.is_empty() || spki_pin(own).is_ok_and(|pin| self.pins.contains(&pin));
        if accepted { Ok(()) } else { Err(Rejection::pin(self.peer, own, &self.pins).into()) }
    }

    fn explain(&self, own: &CertificateDer<'_>, issuers: &[CertificateDer<'_>], error: &rustls::Error) -> Rejection {
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(own).chain(issuers).collect();
        Rejection::chain(self.peer, &chain, &self.roots, error)
    }
}

fn root_store(trust: &Trust) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in &trust.roots {
        let unusable = |error: rustls::Error| TlsError::Root {
            name: subject(root).unwrap_or_else(|_| "(unreadable)".to_owned()),
            reason: error.to_string(),
        };
        store.add(root.clone()).map_err(unusable)?;
    }
    Ok(Arc::new(store))
}

fn crl_error(error: &rustls::server::VerifierBuilderError) -> TlsError {
    TlsError::Crl { reason: error.to_string() }
}

/// How an initiator verifies whom it dials: a responder, or a target.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    checks: Checks,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerVerifier {
    pub(super) fn new(peer: Peer, trust: &Trust) -> Result<Self, TlsError> {
        let checks = Checks::new(peer, trust)?;
        let chain = if trust.roots.is_empty() {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(root_store(trust)?, provider());
            Some(builder.with_crls(trust.crls.iter().cloned()).build().map_err(|error| crl_error(&error))?)
        };
        Ok(Self { checks, chain })
    }

    /// Takes every certificate; that its key is the peer's is verified all the same, which tells broken TLS from a stranger's.
    pub(super) fn unverified(peer: Peer) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { checks: Checks { peer, pins: Vec::new(), roots: Vec::new(), algorithms }, chain: None }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(chain) = &self.chain {
            chain
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| self.checks.explain(end_entity, intermediates, &error))?;
        }
        self.checks.pin(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.checks.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.checks.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checks.algorithms.supported_schemes()
    }
}

/// How a responder verifies its initiators, and an egress listener its HTTP clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    checks: Checks,
    chain: Option<Arc<dyn ClientCertVerifier>>,
    mandatory: bool,
}

impl ClientVerifier {
    /// `mandatory`: whether a peer that shows no certificate is refused by TLS.
    pub(super) fn new(peer: Peer, trust: &Trust, mandatory: bool) -> Result<Self, TlsError> {
        let checks = Checks::new(peer, trust)?;
        let chain = if trust.roots.is_empty() {
            None
        } else {
            let builder = WebPkiClientVerifier::builder_with_provider(root_store(trust)?, provider());
            Some(builder.with_crls(trust.crls.iter().cloned()).build().map_err(|error| crl_error(&error))?)
        };
        Ok(Self { checks, chain, mandatory })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if let Some(chain) = &self.chain {
            chain
                .verify_client_cert(end_entity, intermediates, now)
                .map_err(|error| self.checks.explain(end_entity, intermediates, &error))?;
        }
        self.checks.pin(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.checks.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.checks.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checks.algorithms.supported_schemes()
    }
}
