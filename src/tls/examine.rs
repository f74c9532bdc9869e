//! Looking at a certificate of this end as its peers will: would they take it, and until when?

use std::time::SystemTime;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use time::OffsetDateTime;

use crate::tls::certificate::{Summary, hosts, peer_identity, subject_and_issuer};
use crate::tls::reject::{Fault, Peer, Rejection};
use crate::tls::trust::Trust;
use crate::tls::verify::{ClientVerifier, ServerVerifier};
use crate::tls::{TlsError, server_name};

/// What a peer with these roots would object to in a chain that this end shows as `role`; dates alone without roots.
///
/// # Errors
/// [`TlsError`] if a certificate or a root cannot be read.
pub fn examine(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    role: Peer,
    now: SystemTime,
) -> Result<Option<Rejection>, TlsError> {
    let Some((own, issuers)) = chain.split_first() else { return Err(TlsError::NoCredentials) };
    if roots.is_empty() {
        return dates(own, role, now);
    }
    let trust = Trust::roots(roots.iter().cloned());
    let at = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let verified = match role {
        Peer::Responder | Peer::Target => {
            // Any name of its own: which one is dialled is not known here.
            let Some(name) = hosts(own).first().and_then(|host| server_name(host.trim_start_matches("*.")).ok()) else {
                return Ok(Some(nameless(own, role)?));
            };
            let verified = ServerVerifier::new(role, &trust)?.verify_server_cert(own, issuers, &name, &[], at);
            verified.map(drop).or_else(tolerate_name)
        }
        Peer::Initiator | Peer::Client => {
            ClientVerifier::new(role, &trust, true)?.verify_client_cert(own, issuers, at).map(drop)
        }
    };
    Ok(verified.err().and_then(|error| Rejection::find(&error).cloned()))
}

/// A wildcard is good for no name that could be made up here.
fn tolerate_name(error: rustls::Error) -> Result<(), rustls::Error> {
    match Rejection::find(&error).map(|rejection| &rejection.fault) {
        Some(Fault::WrongName { .. }) => Ok(()),
        _ => Err(error),
    }
}

fn dates(own: &CertificateDer<'_>, peer: Peer, now: SystemTime) -> Result<Option<Rejection>, TlsError> {
    let (certificate, now) = (Summary::of(own)?, OffsetDateTime::from(now));
    let fault = if certificate.not_after < now {
        Fault::Expired { now }
    } else if certificate.not_before > now {
        Fault::NotYetValid { now }
    } else {
        return Ok(None);
    };
    Ok(Some(Rejection { peer, certificate: Some(certificate), fault }))
}

fn nameless(own: &CertificateDer<'_>, peer: Peer) -> Result<Rejection, TlsError> {
    let fault = Fault::Other("it is for no DNS name and no IP address, so nobody can dial it".to_owned());
    Ok(Rejection { peer, certificate: Some(Summary::of(own)?), fault })
}

/// Every name that the certificate proves: URIs, DNS names and IP addresses.
///
/// # Errors
/// [`TlsError::Malformed`] if it cannot be read.
pub fn names(certificate: &CertificateDer<'static>) -> Result<Vec<String>, TlsError> {
    let identity = peer_identity(std::slice::from_ref(certificate))?;
    let addresses = hosts(certificate).into_iter().filter(|host| host.parse::<std::net::IpAddr>().is_ok());
    Ok(identity.uri_sans.into_iter().chain(identity.dns_sans).chain(addresses).collect())
}

/// When a chain stops to prove anything: at the end of the first of its certificates, or of the root that vouches for it.
/// `None` without certificates that can be read.
pub fn valid_until(chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let end = |certificate: &CertificateDer<'_>| Summary::of(certificate).ok().map(|summary| summary.not_after);
    let shown = chain.iter().filter_map(end).min()?;
    let issuers: Vec<_> =
        chain.iter().filter_map(|own| subject_and_issuer(own).ok()).map(|(_, issuer)| issuer).collect();
    let vouches =
        |root: &&CertificateDer<'_>| subject_and_issuer(root).is_ok_and(|(subject, _)| issuers.contains(&subject));
    // Of two roots of one name, one being replaced, the longer one counts.
    let root = roots.iter().filter(vouches).filter_map(end).max();
    Some(SystemTime::from(root.map_or(shown, |root| shown.min(root))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::San;
    use crate::tls::pki::{Authority, Validity};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    fn days(lifetime: u32) -> Validity {
        Validity { from: now(), lifetime: lifetime * DAY }
    }

    fn fault(chain: &CertificateDer<'static>, ca: &Authority, role: Peer, at: SystemTime) -> Option<&'static str> {
        let roots = [ca.certificate().clone()];
        examine(std::slice::from_ref(chain), &roots, role, at).unwrap().map(|rejection| rejection.fault.label())
    }

    #[test]
    fn a_certificate_is_judged_as_its_peer_will() {
        let (ca, other) = (Authority::create("ca", days(100)).unwrap(), Authority::create("other", days(100)).unwrap());
        let node = ca.node(&[San::Uri("spiffe://x/n".into())], days(10)).unwrap();
        let responder = ca.responder(&["cloud.example.com".into(), "10.0.0.1".into()], days(10)).unwrap();
        let (node, responder) = (node.certificate(), responder.certificate());
        assert_eq!(fault(node, &ca, Peer::Initiator, now()), None);
        assert_eq!(fault(responder, &ca, Peer::Responder, now()), None);
        assert_eq!(fault(node, &ca, Peer::Initiator, now() + 11 * DAY), Some("expired"));
        assert_eq!(fault(node, &ca, Peer::Initiator, now() - DAY), Some("not_yet_valid"));
        assert_eq!(fault(node, &other, Peer::Initiator, now()), Some("untrusted"));
        assert_eq!(fault(responder, &ca, Peer::Initiator, now()), Some("wrong_purpose"));
        assert_eq!(fault(node, &ca, Peer::Responder, now()), Some("other"), "it has no name that can be dialled");
        let alone = examine(std::slice::from_ref(node), &[], Peer::Initiator, now() + 11 * DAY).unwrap().unwrap();
        assert_eq!(alone.fault.label(), "expired");
        assert_eq!(names(node).unwrap(), ["spiffe://x/n"]);
        assert_eq!(names(responder).unwrap(), ["cloud.example.com", "10.0.0.1"]);
    }

    #[test]
    fn a_chain_ends_with_its_first_certificate_or_its_root() {
        let ca = Authority::create("ca", days(5)).unwrap();
        let long = ca.node(&[San::Uri("spiffe://x/n".into())], days(10)).unwrap();
        let chain = [long.certificate().clone()];
        assert_eq!(valid_until(&chain, &[]), Some(now() + 10 * DAY));
        assert_eq!(valid_until(&chain, &[ca.certificate().clone()]), Some(now() + 5 * DAY));
        let stranger = Authority::create("stranger", days(1)).unwrap();
        assert_eq!(valid_until(&chain, &[stranger.certificate().clone()]), Some(now() + 10 * DAY));
        assert_eq!(valid_until(&[], &[ca.certificate().clone()]), None);
    }
}
