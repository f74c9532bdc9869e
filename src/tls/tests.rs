//! Real handshakes in memory: who is let in, who is not, and what the text says.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig,
    ServerConnection,
};

use super::pki::{Authority, Issued, LEAF_LIFETIME, Validity};
use super::*;
use crate::policy::San;

const ALPN: &[&[u8]] = &[b"adit/1"];
const NODE: &str = "spiffe://example.org/tenant/acme/cluster/stores-eu/node/edge-17";
const HOST: &str = "cloud.example.com";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn identity() -> San {
    San::Uri(NODE.to_owned())
}

fn now() -> Validity {
    Validity { from: SystemTime::now(), lifetime: LEAF_LIFETIME }
}

fn last_month() -> Validity {
    Validity { from: SystemTime::now() - 30 * DAY, lifetime: DAY }
}

fn next_month() -> Validity {
    Validity { from: SystemTime::now() + 30 * DAY, lifetime: DAY }
}

/// One CA, one responder, one node: everything is in order until a test breaks one thing.
struct World {
    ca: Authority,
    responder: Issued,
    node: Issued,
}

impl World {
    fn new() -> Self {
        let ca = Authority::create("sites CA", now()).unwrap();
        let responder = ca.responder(&[HOST.to_owned(), "192.0.2.7".to_owned()], now()).unwrap();
        let node = ca.node(&[identity(), San::Dns("edge-17.example.org".to_owned())], now()).unwrap();
        Self { ca, responder, node }
    }

    fn trust(&self) -> Trust {
        Trust { roots: vec![self.ca.certificate().clone()], ..Trust::default() }
    }

    fn initiator(&self) -> InitiatorTls {
        InitiatorTls { credentials: Some(self.node.credentials().unwrap()), responder: self.trust() }
    }

    fn responder(&self) -> ResponderTls {
        ResponderTls {
            credentials: self.responder.credentials().unwrap(),
            initiators: ClientCertificates::Required(self.trust()),
        }
    }

    fn crl(&self, revoked: &Issued) -> Vec<CertificateRevocationListDer<'static>> {
        let serial = Summary::of(revoked.certificate()).unwrap().serial;
        parse_crls(self.ca.crl(&[serial], 1, now()).unwrap().as_bytes()).unwrap()
    }
}

/// How a handshake ended on each side.
#[derive(Debug)]
struct Outcome {
    initiator: Result<ClientConnection, rustls::Error>,
    responder: Result<ServerConnection, rustls::Error>,
}

impl Outcome {
    #[track_caller]
    fn accepted(self) -> (ClientConnection, ServerConnection) {
        (self.initiator.unwrap(), self.responder.unwrap())
    }

    #[track_caller]
    fn rejected_by_initiator(self) -> Rejection {
        Rejection::find(&self.initiator.unwrap_err()).expect("a rejection of the certificate").clone()
    }

    #[track_caller]
    fn rejected_by_responder(self) -> Rejection {
        assert!(matches!(self.initiator, Err(rustls::Error::AlertReceived(_))), "{:?}", self.initiator);
        Rejection::find(&self.responder.unwrap_err()).expect("a rejection of the certificate").clone()
    }
}

fn handshake(initiator: &InitiatorTls, responder: &ResponderTls, host: &str) -> Outcome {
    connect(initiator_config(initiator, ALPN).unwrap(), responder_config(responder, ALPN).unwrap(), host)
}

fn connect(client: ClientConfig, server: ServerConfig, host: &str) -> Outcome {
    let mut client = Connection::from(ClientConnection::new(client.into(), server_name(host).unwrap()).unwrap());
    let mut server = Connection::from(ServerConnection::new(server.into()).unwrap());
    let (mut client_fault, mut server_fault) = (None, None);
    while pass(&mut client, &mut server, &mut server_fault) | pass(&mut server, &mut client, &mut client_fault) {}
    let (Connection::Client(client), Connection::Server(server)) = (client, server) else { unreachable!() };
    assert!(client_fault.is_some() || server_fault.is_some() || !client.is_handshaking() && !server.is_handshaking());
    Outcome { initiator: client_fault.map_or(Ok(client), Err), responder: server_fault.map_or(Ok(server), Err) }
}

/// Moves what `from` has to say; the first error of `to` is kept. Returns whether anything moved.
fn pass(from: &mut Connection, to: &mut Connection, fault: &mut Option<rustls::Error>) -> bool {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut unread = &bytes[..];
    while !unread.is_empty() && fault.is_none() {
        to.read_tls(&mut unread).unwrap();
        *fault = to.process_new_packets().err();
    }
    !bytes.is_empty()
}

#[test]
fn a_genuine_pair_meets_on_tls_13_with_the_hybrid_key_exchange() {
    let world = World::new();
    let (initiator, responder) = handshake(&world.initiator(), &world.responder(), HOST).accepted();
    assert_eq!(initiator.alpn_protocol(), Some(&b"adit/1"[..]));
    assert_eq!(responder.server_name(), Some(HOST));
    assert_eq!(responder.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = responder.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    // Offered first means: no second hello was needed.
    assert_eq!(responder.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(provider().kx_groups[0].name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn no_configuration_relies_on_a_provider_of_the_process() {
    let world = World::new();
    handshake(&world.initiator(), &world.responder(), HOST).accepted();
    egress_config(&EgressTls {
        credentials: world.responder.credentials().unwrap(),
        clients: ClientCertificates::NotAsked,
    })
    .unwrap();
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}

#[test]
fn the_identity_of_a_node_is_its_names_and_its_key() {
    let world = World::new();
    let (_, responder) = handshake(&world.initiator(), &world.responder(), HOST).accepted();
    let identity = peer_identity(responder.peer_certificates().unwrap()).unwrap();
    assert_eq!(identity.uri_sans, [NODE]);
    assert_eq!(identity.dns_sans, ["edge-17.example.org"]);
    assert_eq!(identity.key, Some(spki_pin(world.node.certificate()).unwrap()));
}

#[test]
fn the_pin_is_the_hash_of_the_public_key_alone() {
    let world = World::new();
    let other = world.ca.node(&[identity()], now()).unwrap();
    assert_ne!(spki_pin(world.node.certificate()).unwrap(), spki_pin(other.certificate()).unwrap());
    // Made with: openssl x509 -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64
    let known = parse_roots(include_bytes!("testdata/pinned.pem")).unwrap();
    assert_eq!(spki_pin(&known[0]).unwrap().to_string(), include_str!("testdata/pinned.pin").trim());
}

// spec: SE-1
#[test]
fn the_responder_is_verified_for_the_host_that_was_dialled() {
    let world = World::new();
    for host in [HOST, "192.0.2.7"] {
        handshake(&world.initiator(), &world.responder(), host).accepted();
    }
    for host in ["other.example.com", "192.0.2.8", "[2001:db8::1]"] {
        let rejection = handshake(&world.initiator(), &world.responder(), host).rejected_by_initiator();
        assert_eq!(rejection.fault.label(), "wrong_name");
        let text = rejection.to_string();
        let words = format!("\"{}\"; it is for \"{HOST}\", \"192.0.2.7\"", host.trim_matches(['[', ']']));
        assert!(text.ends_with(&words), "{text}");
    }
}

#[test]
fn a_certificate_of_an_unknown_ca_is_rejected_by_either_side() {
    let (world, stranger) = (World::new(), Authority::create("other CA", now()).unwrap());

    let node = stranger.node(&[identity()], now()).unwrap();
    let initiator = InitiatorTls { credentials: Some(node.credentials().unwrap()), ..world.initiator() };
    let text = handshake(&initiator, &world.responder(), HOST).rejected_by_responder().to_string();
    for part in ["the initiator's certificate", NODE, "issuer is \"CN=other CA\"", "trusted here is \"CN=sites CA\""] {
        assert!(text.contains(part), "{part} in {text}");
    }

    let responder = stranger.responder(&[HOST.to_owned()], now()).unwrap();
    let responder = ResponderTls { credentials: responder.credentials().unwrap(), ..world.responder() };
    let text = handshake(&world.initiator(), &responder, HOST).rejected_by_initiator().to_string();
    assert!(text.starts_with(&format!("the responder's certificate \"{HOST}\"")), "{text}");
    assert!(text.contains("is not signed by a trusted CA"), "{text}");
}

#[test]
fn a_ca_of_the_same_name_with_another_key_is_told_apart() {
    let (world, twin) = (World::new(), Authority::create("sites CA", now()).unwrap());
    let node = twin.node(&[identity()], now()).unwrap();
    let initiator = InitiatorTls { credentials: Some(node.credentials().unwrap()), ..world.initiator() };
    let text = handshake(&initiator, &world.responder(), HOST).rejected_by_responder().to_string();
    assert!(text.contains("the trusted CA of that name has another key"), "{text}");
}

#[test]
fn dates_that_do_not_fit_are_rejected_with_both_clocks() {
    let world = World::new();
    for (validity, label, words) in
        [(last_month(), "expired", "has expired"), (next_month(), "not_yet_valid", "is not valid yet")]
    {
        let node = world.ca.node(&[identity()], validity).unwrap();
        let initiator = InitiatorTls { credentials: Some(node.credentials().unwrap()), ..world.initiator() };
        let rejection = handshake(&initiator, &world.responder(), HOST).rejected_by_responder();
        assert_eq!(rejection.fault.label(), label);
        let (text, dates) = (rejection.to_string(), Summary::of(node.certificate()).unwrap());
        let until = dates.not_after.date().to_string();
        assert!(text.contains(words) && text.contains(&until) && text.contains("the clock here says"), "{text}");

        let responder = world.ca.responder(&[HOST.to_owned()], validity).unwrap();
        let responder = ResponderTls { credentials: responder.credentials().unwrap(), ..world.responder() };
        let rejection = handshake(&world.initiator(), &responder, HOST).rejected_by_initiator();
        assert_eq!(rejection.fault.label(), label);
    }
}

#[test]
fn a_root_counts_within_its_own_dates_only() {
    let world = World::new();
    for (validity, label, words) in [
        (last_month(), "root_expired", "which has expired"),
        (next_month(), "root_not_yet_valid", "which is not valid yet"),
    ] {
        let ca = Authority::create("old CA", validity).unwrap();
        let node = ca.node(&[identity()], now()).unwrap();
        let initiator = InitiatorTls { credentials: Some(node.credentials().unwrap()), ..world.initiator() };
        // Alone, and beside one that is valid.
        for roots in [vec![&ca], vec![&world.ca, &ca]] {
            let trust = Trust::roots(roots.iter().map(|ca| ca.certificate().clone()));
            let responder = ResponderTls { initiators: ClientCertificates::Required(trust), ..world.responder() };
            let rejection = handshake(&initiator, &responder, HOST).rejected_by_responder();
            assert_eq!(rejection.fault.label(), label);
            let text = rejection.to_string();
            assert!(text.contains(NODE) && text.contains("CA \"CN=old CA\"") && text.contains(words), "{text}");
        }
        let responder = ca.responder(&[HOST.to_owned()], now()).unwrap();
        let responder = ResponderTls { credentials: responder.credentials().unwrap(), ..world.responder() };
        let trusting = InitiatorTls { responder: Trust::roots([ca.certificate().clone()]), ..world.initiator() };
        assert_eq!(handshake(&trusting, &responder, HOST).rejected_by_initiator().fault.label(), label);
    }
}

#[test]
fn a_root_that_has_ended_does_not_harm_those_beside_it() {
    let world = World::new();
    let old = Authority::create("sites CA", last_month()).unwrap();
    let trust = Trust::roots([old.certificate().clone(), world.ca.certificate().clone()]);
    let responder = ResponderTls { initiators: ClientCertificates::Required(trust.clone()), ..world.responder() };
    let initiator = InitiatorTls { responder: trust, ..world.initiator() };
    handshake(&initiator, &responder, HOST).accepted();
}

#[test]
fn a_revoked_certificate_is_rejected_by_either_side() {
    let world = World::new();

    let trust = Trust { crls: world.crl(&world.node), ..world.trust() };
    let responder = ResponderTls { initiators: ClientCertificates::Required(trust), ..world.responder() };
    let rejection = handshake(&world.initiator(), &responder, HOST).rejected_by_responder();
    assert_eq!(rejection.fault, Fault::Revoked);
    assert!(rejection.to_string().contains(NODE));

    let trust = Trust { crls: world.crl(&world.responder), ..world.trust() };
    let initiator = InitiatorTls { responder: trust, ..world.initiator() };
    assert_eq!(handshake(&initiator, &world.responder(), HOST).rejected_by_initiator().fault, Fault::Revoked);
}

#[test]
fn a_crl_lets_those_pass_that_it_does_not_list() {
    let world = World::new();
    let trust = Trust { crls: world.crl(&world.responder), ..world.trust() };
    let responder = ResponderTls { initiators: ClientCertificates::Required(trust), ..world.responder() };
    handshake(&world.initiator(), &responder, HOST).accepted();
}

#[test]
fn a_certificate_that_no_crl_covers_is_rejected_once_there_are_crls() {
    let (world, other) = (World::new(), World::new());
    let twin = Authority::create("other CA", now()).unwrap();
    let serial = Summary::of(other.node.certificate()).unwrap().serial;
    let crls = parse_crls(twin.crl(&[serial], 1, now()).unwrap().as_bytes()).unwrap();
    let trust = Trust { crls, ..world.trust() };
    let responder = ResponderTls { initiators: ClientCertificates::Required(trust), ..world.responder() };
    let rejection = handshake(&world.initiator(), &responder, HOST).rejected_by_responder();
    assert_eq!(rejection.fault, Fault::RevocationUnknown);
}

/// Of two CAs with one name, the list of the first was taken for that of the second, whose certificates were all refused.
#[test]
fn each_ca_has_its_own_list_although_both_have_one_name() {
    let (old, new) = (World::new(), World::new());
    let roots = vec![old.ca.certificate().clone(), new.ca.certificate().clone()];
    let none = |world: &World| parse_crls(world.ca.crl(&[], 1, now()).unwrap().as_bytes()).unwrap();
    let admits = |crls: Vec<_>, world: &World| {
        let trust = Trust { roots: roots.clone(), crls, ..Trust::default() };
        let responder = ResponderTls { initiators: ClientCertificates::Required(trust), ..old.responder() };
        let initiator = InitiatorTls { responder: old.trust(), ..world.initiator() };
        let ended = handshake(&initiator, &responder, HOST);
        if ended.responder.is_ok() { Ok(()) } else { Err(ended.rejected_by_responder().fault) }
    };
    let both = || [none(&old), none(&new)].concat();
    assert_eq!((admits(both(), &old), admits(both(), &new)), (Ok(()), Ok(())));
    let revoked = [old.crl(&old.node), new.crl(&new.node)].concat();
    assert_eq!((admits(revoked.clone(), &old), admits(revoked, &new)), (Err(Fault::Revoked), Err(Fault::Revoked)));
    let of_new = [none(&old), new.crl(&new.node)].concat();
    assert_eq!((admits(of_new.clone(), &old), admits(of_new, &new)), (Ok(()), Err(Fault::Revoked)));
    // Whose list is missing is said before anybody is refused for it.
    let trust = Trust { roots: roots.clone(), crls: none(&old), ..Trust::default() };
    assert_eq!(admits(trust.crls.clone(), &old), Ok(()));
    assert!(admits(trust.crls.clone(), &new).is_err());
    let new_ca = Summary::of(new.ca.certificate()).unwrap();
    let long_after = SystemTime::from(new_ca.not_after) + DAY;
    assert_eq!(without_list(&trust, SystemTime::now()), [new_ca]);
    assert_eq!(without_list(&trust, long_after), []);
    assert_eq!(without_list(&Trust { crls: Vec::new(), ..trust }, SystemTime::now()), []);
}

#[test]
fn a_crl_past_its_next_update_still_revokes_and_still_admits() {
    let world = World::new();
    let serial = Summary::of(world.responder.certificate()).unwrap().serial;
    let crls = parse_crls(world.ca.crl(&[serial], 1, last_month()).unwrap().as_bytes()).unwrap();
    let trust = Trust { crls, ..world.trust() };
    let responder = ResponderTls { initiators: ClientCertificates::Required(trust.clone()), ..world.responder() };
    handshake(&world.initiator(), &responder, HOST).accepted();
    let initiator = InitiatorTls { responder: trust, ..world.initiator() };
    assert_eq!(handshake(&initiator, &world.responder(), HOST).rejected_by_initiator().fault, Fault::Revoked);
}

#[test]
fn certificates_do_not_work_in_the_other_role() {
    let world = World::new();
    let initiator = InitiatorTls { credentials: Some(world.responder.credentials().unwrap()), ..world.initiator() };
    let rejection = handshake(&initiator, &world.responder(), HOST).rejected_by_responder();
    assert_eq!(rejection.fault, Fault::WrongPurpose);
    assert!(rejection.to_string().contains("clientAuth"), "{rejection}");
}

#[test]
fn a_pin_restricts_what_the_ca_allows_in_either_direction() {
    let world = World::new();
    let pin = |issued: &Issued| vec![spki_pin(issued.certificate()).unwrap()];
    let trusting = |pins| Trust { pins, ..world.trust() };
    let both = |responder_pins, initiator_pins| {
        let initiator = InitiatorTls { responder: trusting(responder_pins), ..world.initiator() };
        let initiators = ClientCertificates::Required(trusting(initiator_pins));
        handshake(&initiator, &ResponderTls { initiators, ..world.responder() }, HOST)
    };
    both(pin(&world.responder), pin(&world.node)).accepted();

    let rejection = both(pin(&world.node), vec![]).rejected_by_initiator();
    assert_eq!(rejection.fault, Fault::WrongPin { expected: pin(&world.node) });
    let text = rejection.to_string();
    let (seen, expected) = (pin(&world.responder)[0].to_string(), pin(&world.node)[0].to_string());
    assert!(text.contains(&format!("key {seen}")) && text.contains(&format!("expected \"{expected}\"")), "{text}");

    let rejection = both(vec![], pin(&world.responder)).rejected_by_responder();
    assert_eq!(rejection.fault, Fault::WrongPin { expected: pin(&world.responder) });
}

#[test]
fn a_pinned_key_does_not_excuse_a_bad_chain() {
    let (world, stranger) = (World::new(), Authority::create("other CA", now()).unwrap());
    let impostor = stranger.responder(&[HOST.to_owned()], now()).unwrap();
    let pins = vec![spki_pin(impostor.certificate()).unwrap()];
    let initiator = InitiatorTls { responder: Trust { pins, ..world.trust() }, ..world.initiator() };
    let responder = ResponderTls { credentials: impostor.credentials().unwrap(), ..world.responder() };
    assert_eq!(handshake(&initiator, &responder, HOST).rejected_by_initiator().fault.label(), "untrusted");
}

#[test]
fn without_a_ca_the_pinned_key_is_the_whole_proof() {
    let (world, stranger) = (World::new(), Authority::create("unknown to all", last_month()).unwrap());
    let old_responder = stranger.responder(&["elsewhere.example.com".to_owned()], last_month()).unwrap();
    let old_node = stranger.node(&[identity()], last_month()).unwrap();
    let only = |issued: &Issued| Trust { pins: vec![spki_pin(issued.certificate()).unwrap()], ..Trust::default() };
    let initiator =
        InitiatorTls { credentials: Some(old_node.credentials().unwrap()), responder: only(&old_responder) };
    let responder = ResponderTls {
        credentials: old_responder.credentials().unwrap(),
        initiators: ClientCertificates::Required(only(&old_node)),
    };
    handshake(&initiator, &responder, HOST).accepted();

    let impostor = ResponderTls { credentials: world.responder.credentials().unwrap(), ..responder };
    assert_eq!(handshake(&initiator, &impostor, HOST).rejected_by_initiator().fault.label(), "wrong_pin");
}

#[test]
fn a_self_signed_certificate_serves_where_its_key_is_pinned() {
    let (world, own) = (World::new(), Authority::create("itself", now()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("own.pem"), folder.path().join("own.key"));
    own.save(&certificate, &key).unwrap();
    let responder = ResponderTls { credentials: Credentials::load(&certificate, &key).unwrap(), ..world.responder() };
    let pins = vec![spki_pin(own.certificate()).unwrap()];
    let initiator = InitiatorTls { responder: Trust { pins, ..Trust::default() }, ..world.initiator() };
    handshake(&initiator, &responder, HOST).accepted();
}

#[test]
fn a_stolen_certificate_without_its_key_is_useless() {
    let world = World::new();
    let thief = World::new();
    let folder = tempfile::tempdir().unwrap();
    let [own, own_key, theirs, their_key] =
        ["own.pem", "own.key", "theirs.pem", "theirs.key"].map(|name| folder.path().join(name));
    world.node.save(&own, &own_key).unwrap();
    thief.node.save(&theirs, &their_key).unwrap();
    let error = Credentials::load(&own, &their_key).unwrap_err();
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
    assert!(error.to_string().contains("theirs.key") && error.to_string().contains(NODE), "{error}");
}

#[test]
fn an_initiator_without_a_certificate_is_let_in_only_where_it_may() {
    let world = World::new();
    let anonymous = InitiatorTls { credentials: None, ..world.initiator() };
    let accepting = |initiators| ResponderTls { initiators, ..world.responder() };

    let outcome = handshake(&anonymous, &world.responder(), HOST);
    assert_eq!(outcome.responder.unwrap_err(), rustls::Error::NoCertificatesPresented);

    for initiators in [ClientCertificates::Optional(world.trust()), ClientCertificates::NotAsked] {
        let (_, responder) = handshake(&anonymous, &accepting(initiators), HOST).accepted();
        assert!(responder.peer_certificates().is_none());
    }
}

#[test]
fn an_optional_certificate_that_is_shown_must_be_genuine() {
    let (world, stranger) = (World::new(), World::new());
    let responder = ResponderTls { initiators: ClientCertificates::Optional(world.trust()), ..world.responder() };
    let (_, accepted) = handshake(&world.initiator(), &responder, HOST).accepted();
    assert_eq!(peer_identity(accepted.peer_certificates().unwrap()).unwrap().uri_sans, [NODE]);

    let initiator = InitiatorTls { credentials: stranger.initiator().credentials, ..world.initiator() };
    assert_eq!(handshake(&initiator, &responder, HOST).rejected_by_responder().fault.label(), "untrusted");
}

#[test]
fn settings_that_prove_nothing_are_not_built() {
    let world = World::new();
    let initiator = InitiatorTls { responder: Trust::default(), ..world.initiator() };
    let error = initiator_config(&initiator, ALPN).unwrap_err();
    assert!(matches!(error, TlsError::NoTrust { peer: "responder" }), "{error}");
    for initiators in [ClientCertificates::Required(Trust::default()), ClientCertificates::Optional(Trust::default())] {
        let error = responder_config(&ResponderTls { initiators, ..world.responder() }, ALPN).unwrap_err();
        assert!(matches!(error, TlsError::NoTrust { peer: "initiator" }), "{error}");
    }
    let pins = vec![spki_pin(world.responder.certificate()).unwrap()];
    let trust = Trust { roots: vec![], pins, crls: world.crl(&world.responder) };
    let error = initiator_config(&InitiatorTls { responder: trust, ..world.initiator() }, ALPN).unwrap_err();
    assert!(matches!(error, TlsError::CrlWithoutRoots), "{error}");
}

#[test]
fn roots_and_crls_that_cannot_be_used_are_named() {
    let world = World::new();
    let roots = vec![CertificateDer::from(b"not a certificate".to_vec())];
    let initiator = InitiatorTls { responder: Trust { roots, ..Trust::default() }, ..world.initiator() };
    assert!(initiator_config(&initiator, ALPN).is_err());
    let crls = vec![CertificateRevocationListDer::from(b"not a list".to_vec())];
    let initiator = InitiatorTls { responder: Trust { crls, ..world.trust() }, ..world.initiator() };
    assert!(matches!(initiator_config(&initiator, ALPN), Err(TlsError::Crl { .. })));
}

/// Twice with the same two configurations; how the second one went.
fn second_time(client: &ClientConfig, server: &ServerConfig) -> HandshakeKind {
    let mut last = None;
    for _ in 0..2 {
        let (initiator, responder) = connect(client.clone(), server.clone(), HOST).accepted();
        assert_eq!(initiator.handshake_kind(), responder.handshake_kind());
        last = responder.handshake_kind();
    }
    last.unwrap()
}

/// A config whose peer would resume gladly.
fn resuming_client(world: &World) -> ClientConfig {
    let mut config = initiator_config(&world.initiator(), ALPN).unwrap();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    config
}

fn resuming_server(world: &World) -> ServerConfig {
    let mut config = responder_config(&world.responder(), ALPN).unwrap();
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    config.send_tls13_tickets = 2;
    config
}

// spec: OV-4, SE-3
#[test]
fn no_tunnel_is_ever_resumed_even_if_the_peer_would() {
    let world = World::new();
    assert_eq!(second_time(&resuming_client(&world), &resuming_server(&world)), HandshakeKind::Resumed, "the control");

    let responder = responder_config(&world.responder(), ALPN).unwrap();
    assert_eq!(second_time(&resuming_client(&world), &responder), HandshakeKind::Full);
    let initiator = initiator_config(&world.initiator(), ALPN).unwrap();
    assert_eq!(second_time(&initiator, &resuming_server(&world)), HandshakeKind::Full);

    let (initiator, _) = connect(resuming_client(&world), responder, HOST).accepted();
    assert_eq!(initiator.tls13_tickets_received(), 0);
}

// spec: OV-4, SE-1
#[test]
fn tunnels_do_not_speak_tls_12() {
    let world = World::new();
    let mut old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    old.alpn_protocols = vec![b"adit/1".to_vec()];
    let outcome = connect(old, responder_config(&world.responder(), ALPN).unwrap(), HOST);
    assert!(matches!(outcome.responder, Err(rustls::Error::PeerIncompatible(_))), "{:?}", outcome.responder);
}

#[test]
fn an_egress_listener_resumes_only_where_there_is_no_identity_to_restore() {
    let world = World::new();
    let serving =
        |clients| egress_config(&EgressTls { credentials: world.responder.credentials().unwrap(), clients }).unwrap();
    let mut client = resuming_client(&world);
    client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    assert_eq!(second_time(&client, &serving(ClientCertificates::NotAsked)), HandshakeKind::Resumed);
    for clients in [ClientCertificates::Required(world.trust()), ClientCertificates::Optional(world.trust())] {
        assert_eq!(second_time(&client, &serving(clients)), HandshakeKind::Full);
    }
    let (client, _) = connect(client, serving(ClientCertificates::NotAsked), HOST).accepted();
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]), "the listener prefers HTTP/2");
}

#[test]
fn early_data_is_taken_only_where_sessions_are_resumed_and_in_those_of_its_own() {
    let world = World::new();
    let serving =
        |clients| http3_config(&EgressTls { credentials: world.responder.credentials().unwrap(), clients }).unwrap();
    let open = serving(ClientCertificates::NotAsked);
    let early = with_early_data(&open);
    assert_eq!((open.max_early_data_size, early.max_early_data_size), (0, u32::MAX));
    assert!(!Arc::ptr_eq(&open.session_storage, &early.session_storage), "older tickets were given under other terms");
    for clients in [ClientCertificates::Required(world.trust()), ClientCertificates::Optional(world.trust())] {
        assert_eq!(with_early_data(&serving(clients)).max_early_data_size, 0);
    }
    assert_eq!(egress_config_of(&world).max_early_data_size, 0, "there is none over TCP");
}

fn egress_config_of(world: &World) -> ServerConfig {
    let credentials = world.responder.credentials().unwrap();
    egress_config(&EgressTls { credentials, clients: ClientCertificates::NotAsked }).unwrap()
}

#[test]
fn the_configurations_serve_quic() {
    let world = World::new();
    let initiator = initiator_config(&world.initiator(), ALPN).unwrap();
    let responder = responder_config(&world.responder(), ALPN).unwrap();
    quinn::crypto::rustls::QuicClientConfig::try_from(initiator).unwrap();
    quinn::crypto::rustls::QuicServerConfig::try_from(responder).unwrap();
}

/// TLS has an alert for it, which says "certificate unknown"; QUIC carries the words as well.
#[tokio::test]
async fn over_quic_an_initiator_that_is_not_accepted_learns_why() {
    let world = World::new();
    let node = world.ca.node(&[identity()], last_month()).unwrap();
    let initiator = InitiatorTls { credentials: Some(node.credentials().unwrap()), ..world.initiator() };
    let initiator = initiator_config(&initiator, ALPN).unwrap();
    let responder = responder_config(&world.responder(), ALPN).unwrap();

    let serving = Arc::new(quinn::crypto::rustls::QuicServerConfig::try_from(responder).unwrap());
    let dialling = Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(initiator).unwrap());
    let loopback = "127.0.0.1:0".parse().unwrap();
    let server = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(serving), loopback).unwrap();
    let client = quinn::Endpoint::client(loopback).unwrap();
    let accepting = tokio::spawn({
        let server = server.clone();
        async move { server.accept().await.unwrap().await.unwrap_err() }
    });
    let connecting =
        client.connect_with(quinn::ClientConfig::new(dialling), server.local_addr().unwrap(), HOST).unwrap();
    // The initiator is done first: TLS 1.3 lets it finish before its own certificate was looked at.
    let seen = connecting.await.unwrap().closed().await.to_string();
    let known = accepting.await.unwrap().to_string();
    for text in [seen, known] {
        assert_eq!(Rejection::of_client(&text), Some(Rejection::plain(&text)));
        let text = Rejection::plain(&text);
        assert!(text.starts_with("the initiator's certificate \"spiffe://") && text.contains("has expired"), "{text}");
        assert!(text.ends_with("renew it, or correct the clock"), "{text}");
    }
    assert_eq!(Rejection::plain("timed out"), "timed out");
    assert_eq!(Rejection::of_client("timed out"), None);
    let none = rustls::Error::NoCertificatesPresented.to_string();
    assert!(Rejection::of_client(&none).unwrap().contains("no certificate"));
}

#[test]
fn a_host_is_a_dns_name_or_an_address() {
    assert!(matches!(server_name("[::1]").unwrap(), rustls::pki_types::ServerName::IpAddress(_)));
    assert_eq!(server_name("127.0.0.1").unwrap().to_str(), "127.0.0.1".parse::<IpAddr>().unwrap().to_string());
    assert_eq!(server_name(HOST).unwrap().to_str(), HOST);
    for bad in ["", "a b", "host:443", "-.-"] {
        assert!(matches!(server_name(bad), Err(TlsError::Host { .. })), "{bad}");
    }
}
