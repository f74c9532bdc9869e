//! Judging a peer's chain outside of a handshake, by the rules of one: a live tunnel is asked again when the trust changes, and a
//! certificate may be proven while it lives.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;

use crate::tls::reject::{Fault, Peer, Rejection};
use crate::tls::verify::{ClientVerifier, ServerVerifier};
use crate::tls::{ClientCertificates, TlsError, Trust, server_name, valid_until};

/// Judges the chains of initiators as a responder does in a handshake. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InitiatorJudge(Option<Arc<ClientVerifier>>);

impl InitiatorJudge {
    /// By what is asked of initiators.
    ///
    /// # Errors
    /// [`TlsError`] if nothing says which are genuine, or a root or CRL cannot be used.
    pub fn new(initiators: &ClientCertificates) -> Result<Self, TlsError> {
        let verifier = match initiators {
            ClientCertificates::Required(trust) | ClientCertificates::Optional(trust) => {
                Some(Arc::new(ClientVerifier::new(Peer::Initiator, trust, true)?))
            }
            ClientCertificates::NotAsked => None,
        };
        Ok(Self(verifier))
    }

    /// Whether a certificate can prove anything.
    pub const fn asks(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a chain, its owner's certificate first, is genuine at that time: signatures, dates, use, revocation lists and
    /// pins. One without certificates is, and any is where none is asked for: it proves nothing by itself.
    ///
    /// # Errors
    /// [`Rejection`] says which certificate is at fault, and why.
    pub fn judge(&self, chain: &[CertificateDer<'_>], at: SystemTime) -> Result<(), Box<Rejection>> {
        let (Some(verifier), Some((own, issuers))) = (&self.0, chain.split_first()) else { return Ok(()) };
        let verified = verifier.verify_client_cert(own, issuers, moment(at));
        verified.map(drop).map_err(|error| rejection(Peer::Initiator, &error))
    }
}

/// Judges the chains of clients of a listener as it does in a handshake. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientJudge {
    verifier: Option<Arc<ClientVerifier>>,
    is_required: bool,
}

impl ClientJudge {
    /// By what is asked of clients.
    ///
    /// # Errors
    /// As for [`InitiatorJudge::new`].
    pub fn new(clients: &ClientCertificates) -> Result<Self, TlsError> {
        let (trust, is_required) = match clients {
            ClientCertificates::Required(trust) => (trust, true),
            ClientCertificates::Optional(trust) => (trust, false),
            ClientCertificates::NotAsked => return Ok(Self::of_anybody()),
        };
        let verifier = Some(Arc::new(ClientVerifier::new(Peer::Client, trust, is_required)?));
        Ok(Self { verifier, is_required })
    }

    /// Where nothing is asked, and everybody may come.
    pub const fn of_anybody() -> Self {
        Self { verifier: None, is_required: false }
    }

    /// Whether a client that showed this chain, its own certificate first, would be let in at that time.
    ///
    /// # Errors
    /// [`Rejection`] says which certificate is at fault, and why; one that is asked for and not shown is a fault too.
    pub fn judge(&self, chain: &[CertificateDer<'_>], at: SystemTime) -> Result<(), Box<Rejection>> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let Some((own, issuers)) = chain.split_first() else {
            let fault = Fault::Other("none was shown".to_owned());
            let rejection = || Box::new(Rejection { peer: Peer::Client, certificate: None, fault });
            return if self.is_required { Err(rejection()) } else { Ok(()) };
        };
        let verified = verifier.verify_client_cert(own, issuers, moment(at));
        verified.map(drop).map_err(|error| rejection(Peer::Client, &error))
    }
}

/// Judges the chains of responders as an initiator does in a handshake. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ResponderJudge(Arc<ServerVerifier>);

impl ResponderJudge {
    /// By what an initiator trusts.
    ///
    /// # Errors
    /// As for [`InitiatorJudge::new`].
    pub fn new(trust: &Trust) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ServerVerifier::new(Peer::Responder, trust)?)))
    }

    /// Whether a chain, its owner's certificate first, is genuine at that time for who dialled this name.
    ///
    /// # Errors
    /// As for [`InitiatorJudge::judge`]; a name that is none, and no chain, are faults too.
    pub fn judge(&self, chain: &[CertificateDer<'_>], dialled: &str, at: SystemTime) -> Result<(), Box<Rejection>> {
        let fault = |text| Box::new(Rejection { peer: Peer::Responder, certificate: None, fault: Fault::Other(text) });
        let name = server_name(dialled).map_err(|error| fault(error.to_string()))?;
        let (own, issuers) = chain.split_first().ok_or_else(|| fault("none was shown".to_owned()))?;
        let verified = self.0.verify_server_cert(own, issuers, &name, &[], moment(at));
        verified.map(drop).map_err(|error| rejection(Peer::Responder, &error))
    }
}

/// Judges the chains of siblings as either end of a hop does in a handshake. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SiblingJudge {
    asked: Arc<ServerVerifier>,
    asking: Arc<ClientVerifier>,
    roots: Arc<[CertificateDer<'static>]>,
}

impl SiblingJudge {
    /// By what a responder trusts of its siblings.
    ///
    /// # Errors
    /// As for [`InitiatorJudge::new`].
    pub fn new(siblings: &Trust) -> Result<Self, TlsError> {
        Ok(Self {
            asked: Arc::new(ServerVerifier::of_any_name(Peer::Sibling, siblings)?),
            asking: Arc::new(ClientVerifier::new(Peer::Sibling, siblings, true)?),
            roots: siblings.roots.clone().into(),
        })
    }

    /// Whether a chain, its owner's certificate first, is genuine at that time for a sibling that was dialled, or that has
    /// dialled. Its name is for the caller to see.
    ///
    /// # Errors
    /// As for [`InitiatorJudge::judge`]; no chain is a fault too.
    pub fn judge(&self, chain: &[CertificateDer<'_>], has_dialled: bool, at: SystemTime) -> Result<(), Box<Rejection>> {
        let fault = |text: &str| {
            let fault = Fault::Other(text.to_owned());
            Box::new(Rejection { peer: Peer::Sibling, certificate: None, fault })
        };
        let (own, issuers) = chain.split_first().ok_or_else(|| fault("none was shown"))?;
        let verified = match has_dialled {
            true => self.asking.verify_client_cert(own, issuers, moment(at)).map(drop),
            false => {
                // Of any name, so that this one says nothing.
                let name = server_name(ANY_NAME).map_err(|error| fault(&error.to_string()))?;
                self.asked.verify_server_cert(own, issuers, &name, &[], moment(at)).map(drop)
            }
        };
        verified.map_err(|error| rejection(Peer::Sibling, &error))
    }

    /// When a chain stops to be genuine by its dates; never without roots, where nobody looks at them.
    pub fn ends_at(&self, chain: &[CertificateDer<'static>]) -> Option<SystemTime> {
        if self.roots.is_empty() {
            return None;
        }
        // A certificate holds through its last second.
        valid_until(chain, &self.roots, Peer::Sibling).map(|last| last + Duration::from_secs(1))
    }
}

/// Asked for where the name in the certificate is not compared with what is asked for.
const ANY_NAME: &str = "sibling.invalid";

fn moment(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn rejection(peer: Peer, error: &rustls::Error) -> Box<Rejection> {
    let other = || Rejection { peer, certificate: None, fault: Fault::Other(error.to_string()) };
    Box::new(Rejection::find(error).cloned().unwrap_or_else(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::San;
    use crate::tls::Summary;
    use crate::tls::parse_crls;
    use crate::tls::pki::{Authority, Validity};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    fn days(lifetime: u32) -> Validity {
        Validity { from: now(), lifetime: lifetime * DAY }
    }

    fn fault(judged: Result<(), Box<Rejection>>) -> Option<&'static str> {
        judged.err().map(|rejection| rejection.fault.label())
    }

    // spec: SE-42
    #[test]
    fn an_initiators_chain_is_judged_by_roots_dates_use_and_revocation() {
        let (ca, other) = (Authority::create("ca", days(100)).unwrap(), Authority::create("other", days(100)).unwrap());
        let [node, revoked] = [1, 2].map(|_| ca.node(&[San::Uri("spiffe://x/n".into())], days(10)).unwrap());
        let crl = ca.crl(&[Summary::of(revoked.certificate()).unwrap().serial], 1, days(1)).unwrap();
        let mut trust = Trust::roots([ca.certificate().clone()]);
        trust.crls = parse_crls(crl.as_bytes()).unwrap();
        let judge = InitiatorJudge::new(&ClientCertificates::Required(trust)).unwrap();
        let chain = |issued: &crate::tls::pki::Issued| vec![issued.certificate().clone()];
        assert_eq!(fault(judge.judge(&chain(&node), now())), None);
        assert_eq!(fault(judge.judge(&chain(&revoked), now())), Some("revoked"));
        assert_eq!(fault(judge.judge(&chain(&node), now() + 11 * DAY)), Some("expired"));
        // A list that is out of date still counts: a late one must not cut off a fleet.
        assert_eq!(fault(judge.judge(&chain(&revoked), now() + 5 * DAY)), Some("revoked"));
        assert_eq!(fault(judge.judge(&chain(&node), now() + 5 * DAY)), None);
        let responder = ca.responder(&["localhost".into()], days(10)).unwrap();
        assert_eq!(fault(judge.judge(&chain(&responder), now())), Some("wrong_purpose"));
        let overlap = Trust::roots([other.certificate().clone(), ca.certificate().clone()]);
        let overlap = InitiatorJudge::new(&ClientCertificates::Optional(overlap)).unwrap();
        assert_eq!(fault(overlap.judge(&chain(&node), now())), None);
        let strange = Trust::roots([other.certificate().clone()]);
        let strange = InitiatorJudge::new(&ClientCertificates::Required(strange)).unwrap();
        assert_eq!(fault(strange.judge(&chain(&node), now())), Some("untrusted"));
        assert_eq!(fault(strange.judge(&[], now())), None, "a token may be the whole proof");
        let none = InitiatorJudge::new(&ClientCertificates::NotAsked).unwrap();
        assert!(!none.asks() && fault(none.judge(&chain(&node), now())).is_none());
    }

    #[test]
    fn a_clients_chain_is_judged_by_what_is_asked_of_clients() {
        let (ca, other) = (Authority::create("ca", days(100)).unwrap(), Authority::create("other", days(100)).unwrap());
        let [client, revoked] = [1, 2].map(|_| ca.node(&[San::Uri("spiffe://x/n".into())], days(10)).unwrap());
        let crl = ca.crl(&[Summary::of(revoked.certificate()).unwrap().serial], 1, days(1)).unwrap();
        let mut trust = Trust::roots([ca.certificate().clone()]);
        trust.crls = parse_crls(crl.as_bytes()).unwrap();
        let chain = |issued: &crate::tls::pki::Issued| vec![issued.certificate().clone()];
        let required = ClientJudge::new(&ClientCertificates::Required(trust.clone())).unwrap();
        assert_eq!(fault(required.judge(&chain(&client), now())), None);
        assert_eq!(fault(required.judge(&chain(&revoked), now())), Some("revoked"));
        assert_eq!(fault(required.judge(&[], now())), Some("other"));
        let optional = ClientJudge::new(&ClientCertificates::Optional(trust)).unwrap();
        assert_eq!(fault(optional.judge(&[], now())), None);
        assert_eq!(fault(optional.judge(&chain(&revoked), now())), Some("revoked"));
        let strange = Trust::roots([other.certificate().clone()]);
        let strange = ClientJudge::new(&ClientCertificates::Required(strange)).unwrap();
        assert_eq!(fault(strange.judge(&chain(&client), now())), Some("untrusted"));
        let anybody = ClientJudge::new(&ClientCertificates::NotAsked).unwrap();
        assert_eq!(fault(anybody.judge(&[], now())), None);
        assert_eq!(fault(anybody.judge(&chain(&revoked), now())), None);
    }

    // spec: SE-43
    #[test]
    fn a_responders_chain_is_judged_for_the_name_that_was_dialled() {
        let (ca, other) = (Authority::create("ca", days(100)).unwrap(), Authority::create("other", days(100)).unwrap());
        let responder = ca.responder(&["cloud.example.com".into()], days(10)).unwrap();
        let chain = [responder.certificate().clone()];
        let judge = ResponderJudge::new(&Trust::roots([ca.certificate().clone()])).unwrap();
        assert_eq!(fault(judge.judge(&chain, "cloud.example.com", now())), None);
        assert_eq!(fault(judge.judge(&chain, "elsewhere.example.com", now())), Some("wrong_name"));
        assert_eq!(fault(judge.judge(&[], "cloud.example.com", now())), Some("other"));
        let strange = ResponderJudge::new(&Trust::roots([other.certificate().clone()])).unwrap();
        assert_eq!(fault(strange.judge(&chain, "cloud.example.com", now())), Some("untrusted"));
    }
    // spec: FL-48
    #[test]
    fn a_siblings_chain_is_judged_for_its_end_of_the_hop_and_ends_with_its_dates() {
        let ca = Authority::create("ca", days(100)).unwrap();
        let other = Authority::create("other", days(100)).unwrap();
        let issued = ca.responder(&["r1.example.org".into()], days(10)).unwrap();
        let node = ca.node(&[San::Uri("spiffe://x/n".into())], days(10)).unwrap();
        let chain = [issued.certificate().clone()];
        let judge = SiblingJudge::new(&Trust::roots([ca.certificate().clone()])).unwrap();
        assert_eq!(fault(judge.judge(&chain, false, now())), None);
        assert_eq!(fault(judge.judge(&[node.certificate().clone()], false, now())), Some("wrong_purpose"));
        assert_eq!(fault(judge.judge(&[node.certificate().clone()], true, now())), None);
        assert_eq!(fault(judge.judge(&[], true, now())), Some("other"));
        let end = judge.ends_at(&[node.certificate().clone()]).unwrap();
        assert_eq!(fault(judge.judge(&[node.certificate().clone()], true, end - Duration::from_secs(1))), None);
        assert_eq!(fault(judge.judge(&[node.certificate().clone()], true, end)), Some("expired"));
        let strange = SiblingJudge::new(&Trust::roots([other.certificate().clone()])).unwrap();
        assert_eq!(fault(strange.judge(&chain, false, now())), Some("untrusted"));
        let list = ca.crl(&[Summary::of(issued.certificate()).unwrap().serial], 1, days(1)).unwrap();
        let crls = parse_crls(list.as_bytes()).unwrap();
        let listed = SiblingJudge::new(&Trust { crls, ..Trust::roots([ca.certificate().clone()]) }).unwrap();
        assert_eq!(fault(listed.judge(&chain, false, now())), Some("revoked"));
    }
}
