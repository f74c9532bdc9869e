//! Looking at a certificate of this end as its peers will: would they take it, and until when?

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use time::OffsetDateTime;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::tls::certificate::{Summary, hosts, peer_identity};
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
        Peer::Sibling => {
            // It dials and is dialled; of any name, so that this one says nothing.
            let name = server_name(ANY_NAME)?;
            let asked = ServerVerifier::of_any_name(role, &trust)?.verify_server_cert(own, issuers, &name, &[], at);
            let asking = ClientVerifier::new(role, &trust, true)?;
            asked.map(drop).and_then(|()| asking.verify_client_cert(own, issuers, at).map(drop))
        }
    };
    Ok(verified.err().and_then(|error| Rejection::find(&error).cloned()))
}

/// Asked for where the name in the certificate is not compared with what is asked for.
const ANY_NAME: &str = "sibling.invalid";

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

/// When a chain that this end shows as `role`, or a peer does, stops to prove anything: at the end of its first certificate,
/// or at an earlier one behind which the roots no longer vouch for it. What is shown beside and not needed does not count.
/// Without roots, at the first end of all that is shown. `None` without certificates that can be read.
pub fn valid_until(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    role: Peer,
) -> Option<SystemTime> {
    let end = |certificate: &CertificateDer<'_>| {
        Summary::of(certificate).ok().map(|summary| SystemTime::from(summary.not_after))
    };
    let own = end(chain.first()?)?;
    let earlier: BTreeSet<_> = chain.iter().chain(roots).filter_map(end).filter(|end| *end < own).collect();
    let vouches = |at| matches!(examine(chain, roots, role, at), Ok(None));
    // A certificate holds through its last second.
    let counts = |end: &SystemTime| roots.is_empty() || (vouches(*end) && !vouches(*end + Duration::from_secs(1)));
    Some(earlier.into_iter().find(counts).unwrap_or(own))
}

/// When a revocation list should have been followed by another one; `None` if it does not say, or cannot be read. It counts
/// still: what was revoked since is not known.
pub fn next_update(list: &CertificateRevocationListDer<'_>) -> Option<SystemTime> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    Some(SystemTime::from(list.next_update()?.to_datetime()))
}

#[cfg(test)]
mod tests {
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

    fn until(chain: &[CertificateDer<'static>], roots: &[&Authority]) -> Option<u32> {
        let roots: Vec<_> = roots.iter().map(|ca| ca.certificate().clone()).collect();
        let until = valid_until(chain, &roots, Peer::Initiator)?;
        Some((until.duration_since(now()).unwrap().as_secs() / DAY.as_secs()) as u32)
    }

    #[test]
    fn a_chain_ends_with_its_first_certificate_or_its_root() {
        let ca = Authority::create("ca", days(5)).unwrap();
        let long = ca.node(&[San::Uri("spiffe://x/n".into())], days(10)).unwrap();
        let chain = [long.certificate().clone()];
        assert_eq!(until(&chain, &[]), Some(10));
        assert_eq!(until(&chain, &[&ca]), Some(5));
        let stranger = Authority::create("stranger", days(1)).unwrap();
        assert_eq!(until(&chain, &[&stranger, &ca]), Some(5));
        assert_eq!(until(&[], &[&ca]), None);
    }

    // Regression: of two roots of one name the longer one counted, whichever had signed; and a certificate that was shown
    // for nothing ended what did not need it, again at each dial.
    #[test]
    fn what_vouches_for_a_chain_ends_it_and_nothing_else_does() {
        let (old, new) = (Authority::create("ca", days(5)).unwrap(), Authority::create("ca", days(100)).unwrap());
        let identity = [San::Uri("spiffe://x/n".into())];
        let [by_old, by_new] = [&old, &new].map(|ca| [ca.node(&identity, days(10)).unwrap().certificate().clone()]);
        assert_eq!(until(&by_old, &[&old, &new]), Some(5));
        assert_eq!(until(&by_new, &[&old, &new]), Some(10));
        let beside = Authority::create("not needed", days(1)).unwrap();
        let [own] = by_new;
        assert_eq!(until(&[own, beside.certificate().clone()], &[&new]), Some(10));
    }
}
