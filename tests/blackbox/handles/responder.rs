//! A responder whose terms change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use adit::initiator::Destination;
use adit::policy::{RuleSettings, Rules};
use adit::protocol::code::{CloseCode, RefusalCode};
use adit::protocol::handshake::PeerLimits;
use adit::protocol::limits::Limits;
use adit::responder::Listen;
use adit::telemetry::DestinationState;
use adit::tls::{self, ClientCertificates, InitiatorTls, ResponderTls, Trust, spki_pin};
use adit::transport::DialError;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::handles::played::{self, hello};
use crate::handles::world::{Cloud, LOOPBACK, Site, choice, credentials, node, service, trust};
use crate::support::certificates::{Authority, Certificate, IDENTITY, Node};
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http1::get;
use crate::support::load::Load;
use crate::support::site::{Transport, over_each_transport};

over_each_transport!(
    who_is_no_longer_admitted_loses_its_tunnel_and_nobody_else_does,
    another_certificate_is_seen_by_the_next_handshake_and_by_no_live_tunnel,
    a_connection_from_before_the_change_of_rules_is_decided_about_by_the_new_ones,
    a_connection_from_before_the_change_of_tls_is_told_to_come_back,
    no_handshake_that_the_former_rules_admitted_survives_the_change,
    name_and_limits_are_in_the_next_welcome_and_live_tunnels_stay,
    a_change_that_cannot_be_made_leaves_everything_as_it_was,
    a_list_that_revokes_one_node_ends_its_tunnel_after_what_runs_and_no_other,
    a_bundle_that_holds_the_former_ca_ends_nothing_and_one_that_does_not_drains_them_all,
    who_listens_elsewhere_keeps_its_tunnels_and_is_found_there,
);

const DEPOT: Node<'_> = Node { tenant: "default", cluster: "depots", node: "edge-2" };

/// Rules that admit nodes of this cluster, or of any.
fn rules(cluster: Option<&str>) -> Rules {
    let (identity, cluster) = (Some(IDENTITY.to_owned()), cluster.map(|cluster| cluster.parse().unwrap()));
    Rules::new(RuleSettings { identity, cluster, ..RuleSettings::default() }).unwrap()
}

fn responder_tls(authority: &Authority, certificate: &Certificate) -> Arc<ResponderTls> {
    let initiators = ClientCertificates::Required(trust(authority));
    Arc::new(ResponderTls { credentials: credentials(certificate), initiators })
}

/// A node that takes no responder for genuine but the one with this certificate.
fn expecting(
    transport: Transport,
    authority: &Authority,
    of: Node<'_>,
    only: &CertificateDer<'_>,
) -> played::Initiator {
    let responder = Trust { pins: vec![spki_pin(only).unwrap()], ..trust(authority) };
    let credentials = Some(credentials(&authority.node(of)));
    played::Initiator::with(transport, &Arc::new(InitiatorTls { credentials, responder }))
}

async fn who_is_no_longer_admitted_loses_its_tunnel_and_nobody_else_does(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let stays = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    let goes = Site::start(&authority, DEPOT, vec![cloud.destination(transport, 1)]);
    cloud.has(2).await;
    goes.up(1).await;
    let load = Load::start(cloud.egress, "edge-1").await;

    assert_eq!(cloud.handle.update(|terms| terms.rules = rules(Some("stores"))).unwrap(), 1);
    let slot = goes.slot("the end of the tunnel", |slot| slot.tunnel.is_none() && slot.reason.is_some()).await;
    // Either the end of the tunnel, or already what the next handshake was told.
    let reason = slot.reason.unwrap();
    assert!(reason.contains("revoked") || reason.contains("cluster"), "{reason}");
    assert_eq!(cloud.has(1).await, before);
    load.finish().await;
    assert_eq!(cloud.tunnels(), before);
    assert!(stays.status().slots()[0].reason.is_none());

    assert_eq!(cloud.handle.update(|terms| terms.rules = rules(None)).unwrap(), 0);
    cloud.has(2).await;
}

async fn another_certificate_is_seen_by_the_next_handshake_and_by_no_live_tunnel(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let _site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    let load = Load::start(cloud.egress, "edge-1").await;

    let next = authority.responder();
    let initiator = expecting(transport, &authority, node("edge-2"), &next.chain()[0]);
    let refused = initiator.connect(cloud.address).await.unwrap_err();
    assert!(matches!(refused, DialError::Tls(_) | DialError::Certificate(_)), "{refused:?}");
    assert_eq!(cloud.handle.update(|terms| terms.tls = responder_tls(&authority, &next)).unwrap(), 0);
    let connected = initiator.connect(cloud.address).await.unwrap();
    let dialed = connected.claim(&hello(node("edge-2"), 0)).await.unwrap();
    let after = cloud.has(2).await;
    assert!(before.is_subset(&after), "{before:?} of {after:?}");
    drop(dialed);
    load.finish().await;
    assert!(before.is_subset(&cloud.tunnels()));
}

async fn a_connection_from_before_the_change_of_rules_is_decided_about_by_the_new_ones(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let initiator = played::Initiator::new(transport, &authority, DEPOT);
    let connected = initiator.connect(cloud.address).await.unwrap();
    cloud.handle.update(|terms| terms.rules = rules(Some("stores"))).unwrap();
    let Err(DialError::Refused(refusal)) = connected.claim(&hello(DEPOT, 0)).await else { panic!("admitted") };
    assert_eq!(refusal.code, RefusalCode::Forbidden);
}

async fn a_connection_from_before_the_change_of_tls_is_told_to_come_back(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let initiator = played::Initiator::new(transport, &authority, node("edge-1"));
    let connected = initiator.connect(cloud.address).await.unwrap();
    cloud.handle.update(|terms| terms.tls = responder_tls(&authority, &authority.responder())).unwrap();
    let Err(DialError::Refused(refusal)) = connected.claim(&hello(node("edge-1"), 0)).await else { panic!("admitted") };
    assert_eq!(refusal.code, RefusalCode::Unavailable);
    let again = initiator.connect(cloud.address).await.unwrap();
    again.claim(&hello(node("edge-1"), 1)).await.unwrap();
}

/// Nodes that dial again and again while the rules go back and forth, so that some claims are between their admission and
/// the registry when a change comes.
async fn no_handshake_that_the_former_rules_admitted_survives_the_change(transport: Transport) {
    const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let (over, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let steps = Steps::default();
    let dialling = NODES.map(|name| {
        let steps = Arc::clone(&steps.0);
        let step = move |generation: u64, what: String| {
            steps.lock().unwrap().insert(name, format!("{generation}: {what}"));
        };
        let initiator = played::Initiator::new(transport, &authority, Node { node: name, ..DEPOT });
        let (address, over, admitted) = (cloud.address, Arc::clone(&over), Arc::clone(&admitted));
        tokio::spawn(async move {
            for generation in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                step(generation, "connects".to_owned());
                // Of so many connections one may be given up before its handshake is done, by a machine that has no time for it:
                // what it would have claimed was not admitted by anybody.
                let connected = match initiator.connect(address).await {
                    Ok(connected) => connected,
                    Err(error) => {
                        step(generation, format!("did not connect: {error:?}"));
                        continue;
                    }
                };
                step(generation, "claims".to_owned());
                match connected.claim(&hello(Node { node: name, ..DEPOT }, generation)).await {
                    Ok(dialed) => {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        step(generation, "serves".to_owned());
                        let reason = dialed.serve(service("test")).await;
                        step(generation, format!("{reason:?}"));
                        assert_eq!(reason.code, CloseCode::Revoked);
                    }
                    Err(DialError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Forbidden),
                    // Its tunnel was ended before it was welcomed.
                    Err(DialError::Connection(reason)) => step(generation, format!("{reason:?}")),
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    });
    for _ in 0..20 {
        let before = admitted.load(Ordering::Relaxed);
        cloud.handle.update(|terms| terms.rules = rules(None)).unwrap();
        eventually("a node that is admitted", async || (admitted.load(Ordering::Relaxed) > before).then_some(())).await;
        cloud.handle.update(|terms| terms.rules = rules(Some("stores"))).unwrap();
        // Nobody else ends a tunnel: one that got past the change would stay.
        let directory = cloud.directory();
        eventually("the end of them all", async || directory.registry().is_empty().then_some(())).await;
    }
    over.store(true, Ordering::Relaxed);
    for node in dialling {
        node.await.unwrap();
    }
    assert!(cloud.directory().registry().is_empty());
}

/// What each node did last; said where a test fails.
#[derive(Default)]
struct Steps(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Drop for Steps {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the nodes: {:?}", self.0.lock().unwrap());
        }
    }
}

/// The same responder, which trusts other initiators from now on.
fn trusting(cloud: &Cloud, trust: Trust) -> Arc<ResponderTls> {
    let credentials = cloud.handle.terms().tls.credentials.clone();
    Arc::new(ResponderTls { credentials, initiators: ClientCertificates::Required(trust) })
}

// spec: SE-42
async fn a_list_that_revokes_one_node_ends_its_tunnel_after_what_runs_and_no_other(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let stays = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    let goes = Site::start(&authority, node("edge-2"), vec![cloud.destination(transport, 1)]);
    cloud.has(2).await;
    let load = Load::start(cloud.egress, "edge-1").await;
    let egress = cloud.egress;
    let running = tokio::spawn(async move { get(egress, "/gate", &["x-node-id: edge-2"]).await.unwrap() });
    let directory = cloud.directory();
    let of_goes = || directory.registry().snapshot().find(|live| !before.contains(&live.id));
    let at_gate = async || of_goes().filter(|live| live.handle.snapshot().in_flight == 1);
    let tunnel = eventually("the request at the gate", at_gate).await.handle;
    goes.has_gated(1).await;

    let serial = |site: &Site| site.handle.terms().tls.credentials.as_ref().unwrap().summary().serial.clone();
    let crls = tls::parse_crls(authority.crl(&[serial(&goes)]).as_bytes()).unwrap();
    let revoking = trusting(&cloud, Trust { crls, ..trust(&authority) });
    assert_eq!(cloud.handle.update(|terms| terms.tls = revoking).unwrap(), 0, "none is cut");
    assert_eq!(cloud.has(1).await, before);
    goes.slot("the refusal", |slot| slot.state == DestinationState::CannotConnect).await;
    assert_eq!(of_goes().map(|live| live.id), Some(tunnel.id()), "what runs goes on");
    goes.open_gate();
    assert_eq!(running.await.unwrap().text(), "first after the gate");
    let reason = timeout(PATIENCE, tunnel.closed()).await.unwrap();
    assert_eq!(reason.code, CloseCode::Done, "{reason:?}");
    load.finish().await;
    assert_eq!(cloud.tunnels(), before);
    assert!(stays.status().slots()[0].reason.is_none());
}

// spec: SE-42
async fn a_bundle_that_holds_the_former_ca_ends_nothing_and_one_that_does_not_drains_them_all(transport: Transport) {
    let (authority, next) = (Authority::new("test CA"), Authority::new("next CA"));
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 2)]);
    let before = cloud.has(2).await;
    let load = Load::start(cloud.egress, "edge-1").await;
    let roots = [trust(&next), trust(&authority)].into_iter().flat_map(|trust| trust.roots);
    let both = trusting(&cloud, Trust::roots(roots));
    cloud.handle.update(|terms| terms.tls = both).unwrap();
    let renewed =
        InitiatorTls { credentials: Some(credentials(&next.node(node("edge-2")))), responder: trust(&authority) };
    let initiator = played::Initiator::with(transport, &Arc::new(renewed));
    let dialed = initiator.connect(cloud.address).await.unwrap().claim(&hello(node("edge-2"), 0)).await.unwrap();
    assert!(before.is_subset(&cloud.has(3).await), "tunnels under both CAs");
    load.finish().await;
    assert!(before.is_subset(&cloud.tunnels()));

    let only_next = trusting(&cloud, trust(&next));
    cloud.handle.update(|terms| terms.tls = only_next).unwrap();
    let left = cloud.has(1).await;
    assert!(left.is_disjoint(&before) && left.contains(&dialed.tunnel.id()));
    site.slot("the refusal", |slot| slot.state == DestinationState::CannotConnect).await;
}

async fn name_and_limits_are_in_the_next_welcome_and_live_tunnels_stay(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let _site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    let limits = Limits { head_bytes: 8192, head_fields: 77 };
    let changed = cloud.handle.update(|terms| {
        terms.name = "renamed".to_owned();
        terms.tunnel.limits = limits;
    });
    assert_eq!(changed.unwrap(), 0);
    let initiator = played::Initiator::new(transport, &authority, node("edge-2"));
    let dialed = initiator.connect(cloud.address).await.unwrap().claim(&hello(node("edge-2"), 0)).await.unwrap();
    assert_eq!((dialed.welcome.responder.as_str(), dialed.welcome.limits), ("renamed", PeerLimits::from(limits)));
    assert!(before.is_subset(&cloud.has(2).await));
    assert_eq!(cloud.get("edge-1", "/").await.status(), 200);
}

async fn a_change_that_cannot_be_made_leaves_everything_as_it_was(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let _site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    let unusable = ClientCertificates::Required(Trust::default());
    let tls = ResponderTls { credentials: credentials(&authority.responder()), initiators: unusable };
    let changed = cloud.handle.update(|terms| {
        terms.tls = Arc::new(tls);
        terms.rules = rules(Some("depots"));
        terms.name = "renamed".to_owned();
    });
    assert!(changed.is_err());
    assert_eq!(cloud.tunnels(), before);
    let initiator = played::Initiator::new(transport, &authority, node("edge-2"));
    let dialed = initiator.connect(cloud.address).await.unwrap().claim(&hello(node("edge-2"), 0)).await.unwrap();
    assert_eq!(dialed.welcome.responder, "adit");
}

async fn who_listens_elsewhere_keeps_its_tunnels_and_is_found_there(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let _stays = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    let load = Load::start(cloud.egress, "edge-1").await;
    // What is bound first and then left alone changes nothing.
    let taken = cloud.handle.bind(Listen::At(LOOPBACK.into()), Listen::At(LOOPBACK.into())).unwrap();
    let occupied = taken.tcp_addr().unwrap();
    let refused = cloud.handle.bind(Listen::Stay, Listen::At(occupied)).unwrap_err().to_string();
    assert!(refused.contains("another process listens there"), "{refused}");
    drop(taken);

    let elsewhere = match transport {
        Transport::Quic => cloud.handle.bind(Listen::At(LOOPBACK.into()), Listen::Stay),
        Transport::Tcp => cloud.handle.bind(Listen::Stay, Listen::At(LOOPBACK.into())),
    };
    let elsewhere = elsewhere.unwrap();
    let address = elsewhere.quic_addr().or_else(|| elsewhere.tcp_addr()).unwrap();
    cloud.handle.update(|terms| terms.tls = responder_tls(&authority, &authority.responder())).unwrap();
    cloud.handle.listen(elsewhere);
    assert_eq!(cloud.handle.quic_addr().or_else(|| cloud.handle.tcp_addr()), Some(address));
    let target = format!("localhost:{}", address.port()).parse().unwrap();
    let there = Destination { transport: choice(transport), ..Destination::new(&target, 1) };
    let _joins = Site::start(&authority, node("edge-2"), vec![there]);
    assert!(cloud.has(2).await.is_superset(&before));
    assert!(cloud.get("edge-2", "/").await.status() == 200);
    if transport == Transport::Tcp {
        eventually("the former address to be closed", async || {
            TcpStream::connect(cloud.address).await.is_err().then_some(())
        })
        .await;
    }

    // Back to where it was, which the first tunnel has kept over QUIC.
    // Whoever was given its port meanwhile, by chance, is waited for.
    let back = eventually("that the address is free", async || match transport {
        Transport::Quic => cloud.handle.bind(Listen::At(cloud.address), Listen::Stay).ok(),
        Transport::Tcp => cloud.handle.bind(Listen::Stay, Listen::At(cloud.address)).ok(),
    });
    cloud.handle.listen(back.await);
    let _joins_too = Site::start(&authority, node("edge-3"), vec![cloud.destination(transport, 1)]);
    assert!(cloud.has(3).await.is_superset(&before));
    assert!(cloud.get("edge-3", "/").await.status() == 200);
    load.finish().await;
    assert!(cloud.tunnels().is_superset(&before));
}
