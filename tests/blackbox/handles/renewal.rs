//! Another credential on a live tunnel, shown by an initiator that is played frame by frame.

use std::sync::Arc;

use adit::id::{InstanceId, SpkiPin};
use adit::policy::{NodeRule, RuleSettings, Rules, Secret};
use adit::protocol::code::RefusalCode;
use adit::protocol::handshake::{Hello, Token};
use adit::protocol::reauth::{Binding, ProvenChain, Reauth, Reauthed, signed_text};
use adit::tls::{self, ClientCertificates, InitiatorTls, ResponderTls, Trust, spki_pin};
use adit::transport::{DialError, Tunnel};
use bytes::Bytes;
use tokio::time::timeout;

use crate::handles::played::{self, hello};
use crate::handles::world::{Cloud, credentials, node, service, trust};
use crate::support::certificates::{Authority, Certificate, IDENTITY, Node};
use crate::support::eventually::PATIENCE;
use crate::support::site::{Transport, over_each_transport};

over_each_transport!(
    a_certificate_that_is_proven_on_a_live_tunnel_counts_from_then_on,
    a_proof_that_is_foreign_old_cut_or_of_somebody_else_is_refused_and_changes_nothing,
    a_token_that_is_shown_on_a_live_tunnel_is_judged_as_in_a_handshake,
);

/// A live tunnel whose initiator does what a test wants.
struct Played {
    tunnel: Tunnel,
    schemes: Vec<u16>,
}

impl Played {
    async fn start(transport: Transport, cloud: &Cloud, shown: &Certificate, hello: &Hello) -> Result<Self, DialError> {
        let responder = trust_of(cloud);
        let tls = Arc::new(InitiatorTls { credentials: Some(credentials(shown)), responder });
        let dialed = played::Initiator::with(transport, &tls).connect(cloud.address).await?.claim(hello).await?;
        let (tunnel, schemes) = (dialed.tunnel.clone(), dialed.welcome.reauth.clone().unwrap());
        tokio::spawn(dialed.serve(service("played")));
        Ok(Self { tunnel, schemes })
    }

    /// Shows it and waits for the answer to that.
    async fn show(&self, reauth: Reauth) -> Result<(), RefusalCode> {
        let number = reauth.number;
        assert!(self.tunnel.reauth(reauth));
        let Reauthed { number: answered, refusal } = timeout(PATIENCE, self.tunnel.reauthed()).await.unwrap();
        assert_eq!(answered, number);
        refusal.map_or(Ok(()), |refusal| Err(refusal.code))
    }

    /// What proves `certificate` here.
    fn proof(&self, number: u64, certificate: &Certificate) -> Reauth {
        let signed = |text: &[u8]| credentials(certificate).sign(text, &self.schemes).unwrap();
        proof(&self.tunnel.binding().unwrap(), number, certificate, signed)
    }
}

fn proof(binding: &Binding, number: u64, certificate: &Certificate, sign: impl Fn(&[u8]) -> (u16, Vec<u8>)) -> Reauth {
    let chain: Vec<_> = certificate.chain().iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let (scheme, signature) = sign(&signed_text(binding, number, &chain));
    Reauth { number, token: None, certificate: Some(ProvenChain { chain, scheme, signature: signature.into() }) }
}

/// The responder's own certificate is of a CA that the initiator trusts.
fn trust_of(cloud: &Cloud) -> Trust {
    let ClientCertificates::Required(trust) = cloud.handle.terms().tls.initiators.clone() else { panic!("none asked") };
    Trust { crls: Vec::new(), ..trust }
}

fn pin(certificate: &Certificate) -> SpkiPin {
    spki_pin(&certificate.chain()[0]).unwrap()
}

/// The key that the responder takes for that of the tunnel.
fn key(cloud: &Cloud, tunnel: &Tunnel) -> Option<SpkiPin> {
    cloud.directory().registry().proof(tunnel.id()).unwrap().1.key()
}

/// These certificates are revoked from now on.
fn revoke(cloud: &Cloud, authority: &Authority, revoked: &[&Certificate]) {
    let serials: Vec<_> =
        revoked.iter().map(|certificate| tls::Summary::of(&certificate.chain()[0]).unwrap().serial).collect();
    let crls = tls::parse_crls(authority.crl(&serials).as_bytes()).unwrap();
    let initiators = ClientCertificates::Required(Trust { crls, ..trust(authority) });
    let credentials = cloud.handle.terms().tls.credentials.clone();
    cloud.handle.update(|terms| terms.tls = Arc::new(ResponderTls { credentials, initiators })).unwrap();
}

// spec: CT-55, CT-56, HS-14, HS-25, SE-42
async fn a_certificate_that_is_proven_on_a_live_tunnel_counts_from_then_on(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let [first, second] = [1, 2].map(|_| authority.node(node("edge-1")));
    let played = Played::start(transport, &cloud, &first, &hello(node("edge-1"), 0)).await.unwrap();
    assert_eq!(key(&cloud, &played.tunnel), Some(pin(&first)));
    assert_eq!(played.show(played.proof(1, &second)).await, Ok(()));
    assert_eq!(key(&cloud, &played.tunnel), Some(pin(&second)));

    // The key of the node is the one that was proven last.
    let mut beside = hello(node("edge-1"), 0);
    beside.place.slot = 1;
    let Err(DialError::Refused(refusal)) = Played::start(transport, &cloud, &first, &beside).await else {
        panic!("the former key is admitted beside the new one")
    };
    assert_eq!(refusal.code, RefusalCode::Conflict);
    let other = Played::start(transport, &cloud, &second, &beside).await.unwrap();
    assert_eq!(cloud.tunnels(), [played.tunnel.id(), other.tunnel.id()].into());

    // So is what a list of revocations means to it.
    revoke(&cloud, &authority, &[&first]);
    assert_eq!(played.show(played.proof(2, &second)).await, Ok(()));
    assert_eq!(cloud.tunnels().len(), 2);
    let third = authority.node(node("edge-1"));
    assert_eq!(played.show(played.proof(3, &third)).await, Ok(()));
    revoke(&cloud, &authority, &[&first, &second]);
    assert_eq!(cloud.has(1).await, [played.tunnel.id()].into());
    assert_eq!(other.tunnel.closed().await.code, adit::protocol::code::CloseCode::Done);
    assert_eq!(played.show(played.proof(4, &first)).await, Err(RefusalCode::Unauthenticated), "it is revoked");
    assert_eq!(key(&cloud, &played.tunnel), Some(pin(&third)));
}

// spec: CT-54, CT-55
async fn a_proof_that_is_foreign_old_cut_or_of_somebody_else_is_refused_and_changes_nothing(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let [own, next] = [1, 2].map(|_| authority.node(node("edge-1")));
    let played = Played::start(transport, &cloud, &own, &hello(node("edge-1"), 0)).await.unwrap();
    let mut of_other = hello(node("edge-2"), 0);
    of_other.place.instance = InstanceId([2; 16]);
    let other = Played::start(transport, &cloud, &authority.node(node("edge-2")), &of_other).await.unwrap();
    assert_ne!(played.tunnel.binding(), other.tunnel.binding());

    let (here, sign) =
        (played.tunnel.binding().unwrap(), |text: &[u8]| credentials(&next).sign(text, &played.schemes).unwrap());
    let cut = |text: &[u8]| (sign(text).0, sign(text).1[..20].to_vec());
    let by_another_key = |text: &[u8]| credentials(&own).sign(text, &played.schemes).unwrap();
    let unknown_scheme = |text: &[u8]| (0x0201, sign(text).1);
    let unauthenticated = [
        ("seen in another tunnel", Reauth { number: 1, ..other.proof(1, &next) }),
        ("of an earlier number", Reauth { number: 3, ..played.proof(2, &next) }),
        ("cut", proof(&here, 4, &next, cut)),
        ("signed with another key", proof(&here, 5, &next, by_another_key)),
        ("of a scheme that is not taken", proof(&here, 6, &next, unknown_scheme)),
        ("ended", played.proof(7, &authority.expired_node(node("edge-1")))),
        ("of another CA", played.proof(8, &Authority::new("another CA").node(node("edge-1")))),
        ("for another use", played.proof(9, &authority.responder())),
    ];
    for (what, reauth) in unauthenticated {
        assert_eq!(played.show(reauth).await, Err(RefusalCode::Unauthenticated), "{what}");
    }
    let somebody = played.proof(10, &authority.node(Node { node: "edge-3", ..node("edge-1") }));
    assert_eq!(played.show(somebody).await, Err(RefusalCode::Forbidden));
    assert_eq!(key(&cloud, &played.tunnel), Some(pin(&own)));
    assert_eq!(played.show(played.proof(11, &next)).await, Ok(()));
    assert_eq!(cloud.get("edge-1", "/").await.status(), 200);
}

// spec: CT-55
async fn a_token_that_is_shown_on_a_live_tunnel_is_judged_as_in_a_handshake(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let (right, wrong) = ("0123456789abcdef", "fedcba9876543210");
    let rule = NodeRule {
        claim: hello(node("edge-1"), 0).place.claim,
        pins: Vec::new(),
        token: Some(Secret::new(right.as_bytes()).unwrap()),
    };
    let settings = RuleSettings { identity: Some(IDENTITY.to_owned()), nodes: vec![rule], ..RuleSettings::default() };
    let rules = Rules::new(settings).unwrap();
    cloud.handle.update(|terms| terms.rules = rules).unwrap();
    let shown = authority.node(node("edge-1"));
    let hello = Hello { token: Token::new(right), ..hello(node("edge-1"), 0) };
    let played = Played::start(transport, &cloud, &shown, &hello).await.unwrap();
    let token = |number, text: &str| Reauth { number, token: Token::new(text), certificate: None };
    assert_eq!(played.show(token(1, wrong)).await, Err(RefusalCode::Unauthenticated));
    assert_eq!(cloud.tunnels(), [played.tunnel.id()].into());
    assert_eq!(played.show(token(2, right)).await, Ok(()));
    // A certificate alone leaves the token as it was shown.
    assert_eq!(played.show(played.proof(3, &authority.node(node("edge-1")))).await, Ok(()));
    assert_eq!(cloud.get("edge-1", "/").await.status(), 200);
}
