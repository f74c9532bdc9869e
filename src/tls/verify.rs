//! Verifying a peer's certificate: rustls' chain verification, then the pins, then words for what is wrong.
//!
//! The handshake signature (possession of the key) is always verified by rustls itself, in every mode.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::id::SpkiPin;
use crate::tls::certificate::{spki_pin, subject};
use crate::tls::roots::{self, Roots};
use crate::tls::{Peer, Rejection, TlsError, Trust, provider};

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

    /// The chain, in words of ours if it is not genuine.
    fn chain<V: ?Sized>(
        &self,
        roots: &Roots<V>,
        (own, issuers): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
        verify: impl Fn(&V) -> Result<(), rustls::Error>,
    ) -> Result<(), rustls::Error> {
        let shown: Vec<&CertificateDer<'_>> = std::iter::once(own).chain(issuers).collect();
        roots.verify((self.peer, &shown), now, verify).map_err(|error| match Rejection::find(&error) {
            Some(_) => error,
            None => Rejection::chain(self.peer, &shown, &self.roots, &error).into(),
        })
    }
}

fn crl_error(error: &rustls::server::VerifierBuilderError) -> TlsError {
    TlsError::Crl { reason: error.to_string() }
}

/// How an initiator verifies whom it dials: a responder, or a target.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    checks: Checks,
    chain: Option<Roots<WebPkiServerVerifier>>,
    /// Whether the name that was dialled must be in the certificate.
    checks_name: bool,
}

impl ServerVerifier {
    pub(super) fn new(peer: Peer, trust: &Trust) -> Result<Self, TlsError> {
        let checks = Checks::new(peer, trust)?;
        Ok(Self { checks, chain: Roots::new(trust, Self::chain)?, checks_name: true })
    }

    /// The same but for the name, which whoever dials must look at himself then.
    pub(super) fn of_any_name(peer: Peer, trust: &Trust) -> Result<Self, TlsError> {
        Ok(Self { checks_name: false, ..Self::new(peer, trust)? })
    }

    fn chain(trust: &Trust) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let builder = WebPkiServerVerifier::builder_with_provider(roots::store(trust)?, provider());
        builder.with_crls(trust.crls.iter().cloned()).build().map_err(|error| crl_error(&error))
    }

    /// Takes every certificate; that its key is the peer's is verified all the same, which tells broken TLS from a stranger's.
    pub(super) fn unverified(peer: Peer) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        let checks = Checks { peer, pins: Vec::new(), roots: Vec::new(), algorithms };
        Self { checks, chain: None, checks_name: false }
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
            self.checks.chain(chain, (end_entity, intermediates), now, |chain| {
                let verified = chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                match verified {
                    // The last that is looked at: the chain, its dates, its use and its revocation are in order.
                    Err(error) if !self.checks_name && is_of_name(&error) => Ok(()),
                    verified => verified.map(drop),
                }
            })?;
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

/// Whether only the name is wrong.
const fn is_of_name(error: &rustls::Error) -> bool {
    use rustls::CertificateError as E;
    matches!(error, rustls::Error::InvalidCertificate(E::NotValidForName | E::NotValidForNameContext { .. }))
}

/// How a responder verifies its initiators, and an egress listener its HTTP clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    checks: Checks,
    chain: Option<Roots<dyn ClientCertVerifier>>,
    mandatory: bool,
}

impl ClientVerifier {
    /// `mandatory`: whether a peer that shows no certificate is refused by TLS.
    pub(super) fn new(peer: Peer, trust: &Trust, mandatory: bool) -> Result<Self, TlsError> {
        let checks = Checks::new(peer, trust)?;
        Ok(Self { checks, chain: Roots::new(trust, Self::chain)?, mandatory })
    }

    fn chain(trust: &Trust) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots::store(trust)?, provider());
        builder.with_crls(trust.crls.iter().cloned()).build().map_err(|error| crl_error(&error))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.all().root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if let Some(chain) = &self.chain {
            self.checks.chain(chain, (end_entity, intermediates), now, |chain| {
                chain.verify_client_cert(end_entity, intermediates, now).map(drop)
            })?;
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
