//! A responder whose terms change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use adit::policy::{RuleSettings, Rules};
use adit::protocol::code::{CloseCode, RefusalCode};
use adit::protocol::handshake::PeerLimits;
use adit::protocol::limits::Limits;
use adit::tls::{ClientCertificates, InitiatorTls, ResponderTls, Trust, spki_pin};
use adit::transport::DialError;
use rustls::pki_types::CertificateDer;

use crate::handles::played::{self, hello};
use crate::handles::world::{Cloud, Load, Site, credentials, node, service, trust};
use crate::support::certificates::{Authority, Certificate, IDENTITY, Node};
use crate::support::eventually::eventually;
use crate::support::site::{Transport, over_each_transport};

over_each_transport!(
    who_is_no_longer_admitted_loses_its_tunnel_and_nobody_else_does,
    another_certificate_is_seen_by_the_next_handshake_and_by_no_live_tunnel,
    a_connection_from_before_the_change_of_rules_is_decided_about_by_the_new_ones,
    a_connection_from_before_the_change_of_tls_is_told_to_come_back,
    no_handshake_that_the_former_rules_admitted_survives_the_change,
    name_and_limits_are_in_the_next_welcome_and_live_tunnels_stay,
    a_change_that_cannot_be_made_leaves_everything_as_it_was,
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
    let dialling = NODES.map(|name| {
        let initiator = played::Initiator::new(transport, &authority, Node { node: name, ..DEPOT });
        let (address, over, admitted) = (cloud.address, Arc::clone(&over), Arc::clone(&admitted));
        tokio::spawn(async move {
            for generation in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let connected = initiator.connect(address).await.unwrap();
                match connected.claim(&hello(Node { node: name, ..DEPOT }, generation)).await {
                    Ok(dialed) => {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        let reason = dialed.serve(service("test")).await;
                        assert_eq!(reason.code, CloseCode::Revoked);
                    }
                    Err(DialError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Forbidden),
                    // Its tunnel was ended before it was welcomed.
                    Err(DialError::Connection(_)) => {}
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
