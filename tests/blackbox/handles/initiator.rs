//! An initiator whose terms change.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use adit::id::SpkiPin;
use adit::initiator::Terms;
use adit::policy::{NodeRule, RuleSettings, Rules, Secret};
use adit::protocol::code::CloseCode;
use adit::protocol::handshake::Token;
use adit::tls::{InitiatorTls, Trust, spki_pin};
use adit::transport::{HttpService, Phase};
use tokio::time::timeout;

use crate::handles::played::{self, admitted};
use crate::handles::world::{Cloud, Served, Site, credentials, exported, node, node_tls, service, trust};
use crate::support::certificates::{Authority, IDENTITY};
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http1::get;
use crate::support::load::Load;
use crate::support::site::{Transport, over_each_transport};

over_each_transport!(
    a_destination_that_is_added_gets_tunnels_and_the_others_keep_theirs,
    a_destination_that_is_removed_finishes_what_runs_and_the_others_keep_their_tunnels,
    more_and_fewer_tunnels_lose_no_request,
    a_request_by_name_reaches_the_service_that_serves_now,
    many_changes_of_the_services_end_with_the_last,
    another_server_name_replaces_a_tunnel_before_it_goes,
    the_same_credentials_read_again_change_nothing,
    another_certificate_and_another_token_are_shown_on_live_tunnels_and_replace_none,
    many_certificates_one_after_another_end_with_the_last,
    a_responder_that_takes_no_other_certificate_gets_another_tunnel_before_the_former_goes,
    responders_that_are_trusted_still_keep_their_tunnels_and_others_are_replaced,
    a_responder_that_nobody_trusts_any_more_is_left_though_there_is_no_other,
    a_responder_that_nobody_trusts_any_more_is_left_though_it_is_dialled_otherwise_now,
    another_key_takes_over_once_the_tunnel_of_the_former_one_is_drained,
    credentials_that_nobody_admits_leave_the_tunnel_alone_until_better_ones_come,
    a_claim_from_before_the_change_becomes_no_tunnel,
    two_changes_at_once_both_come_to_pass,
    a_change_during_a_drain_dials_nobody,
    a_drain_tells_the_responder_what_is_left_of_it,
);

/// The same credentials as a value of their own, as if they had been read from their files again.
fn again(tls: &InitiatorTls) -> Arc<InitiatorTls> {
    Arc::new(tls.clone())
}

async fn a_destination_that_is_added_gets_tunnels_and_the_others_keep_theirs(transport: Transport) {
    let authority = Authority::new("test CA");
    let (here, there) = (Cloud::start(transport, &authority), Cloud::start(transport, &authority));
    let site = Site::start(&authority, node("edge-1"), vec![here.destination(transport, 1)]);
    let before = here.has(1).await;
    let load = Load::start(here.egress, "edge-1").await;
    site.handle.update(|terms| terms.destinations.push(there.destination(transport, 2))).unwrap();
    there.has(2).await;
    assert_eq!(there.get("edge-1", "/").await.text(), "first api");
    load.finish().await;
    assert_eq!(here.tunnels(), before);
}

async fn a_destination_that_is_removed_finishes_what_runs_and_the_others_keep_their_tunnels(transport: Transport) {
    let authority = Authority::new("test CA");
    let (here, there) = (Cloud::start(transport, &authority), Cloud::start(transport, &authority));
    let both = vec![here.destination(transport, 1), there.destination(transport, 1)];
    let site = Site::start(&authority, node("edge-1"), both);
    let before = here.has(1).await;
    there.has(1).await;
    let load = Load::start(here.egress, "edge-1").await;
    let egress = there.egress;
    let running = tokio::spawn(async move { get(egress, "/gate", &["x-node-id: edge-1"]).await.unwrap() });
    let directory = there.directory();
    let in_flight = || directory.registry().snapshot().map(|live| live.handle.snapshot().in_flight).sum::<u32>();
    eventually("the request at the gate", async || (in_flight() == 1).then_some(())).await;
    site.has_gated(2).await;

    site.handle.update(|terms| drop(terms.destinations.pop())).unwrap();
    there.has(0).await;
    assert_eq!(in_flight(), 1, "it goes on while its tunnel drains");
    site.open_gate();
    let response = running.await.unwrap();
    assert_eq!((response.status(), response.text().as_str()), (200, "first after the gate"));
    eventually("the end of the slot", async || (site.status().slots().len() == 1).then_some(())).await;
    load.finish().await;
    assert_eq!(here.tunnels(), before);
}

async fn more_and_fewer_tunnels_lose_no_request(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    let mut load = Load::start(cloud.egress, "edge-1").await;
    for count in [3, 1, 2] {
        site.handle.update(|terms| terms.destinations[0].count = count).unwrap();
        let now = cloud.has(count as usize).await;
        assert!(before.is_subset(&now), "the first tunnel is none too many");
        load.goes_on().await;
    }
    load.finish().await;
}

async fn a_request_by_name_reaches_the_service_that_serves_now(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    let load = Load::start(cloud.egress, "edge-1").await;
    let change = site.handle.update(|terms| {
        terms.services = exported(&["api", "new"]);
        terms.accept = HttpService(service("second"));
    });
    change.unwrap();
    // Whoever asks after the change is served by the new one.
    assert_eq!(cloud.get("edge-1", "/").await.text(), "second api");
    assert_eq!(cloud.get("edge-1", "/new").await.text(), "second new");
    let directory = cloud.directory();
    let told = async || {
        let services: Vec<_> =
            directory.registry().snapshot().flat_map(|live| live.handle.snapshot().services).collect();
        (services == ["api", "new"]).then_some(())
    };
    eventually("the announcement", told).await;
    let answers: Vec<_> = load.finish().await.into_iter().collect();
    assert_eq!(answers, ["first api", "second api"]);
    assert_eq!(cloud.tunnels(), before);
}

async fn many_changes_of_the_services_end_with_the_last(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    site.up(1).await;
    for number in 0..=100 {
        let name = format!("service-{number}");
        site.handle.update(|terms| terms.services = exported(&[&name])).unwrap();
        tokio::task::yield_now().await;
    }
    let directory = cloud.directory();
    let services = || directory.registry().snapshot().flat_map(|live| live.handle.snapshot().services);
    eventually("the last", async || services().eq(["service-100"]).then_some(())).await;
    assert_eq!(cloud.tunnels(), before);
}

/// The responder by its address.
fn by_address(terms: &mut Terms<Served>) {
    terms.destinations[0].server_name = Some("127.0.0.1".to_owned());
}

async fn another_server_name_replaces_a_tunnel_before_it_goes(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 2)]);
    let before = cloud.has(2).await;
    // No request waits for a tunnel here: one moment without, and one is lost.
    let load = Load::start(cloud.egress, "edge-1").await;
    site.handle.update(by_address).unwrap();
    let renewed = async || Some(cloud.tunnels()).filter(|now| now.len() == 2 && now.is_disjoint(&before));
    let after = eventually("two other tunnels", renewed).await;
    eventually("the end of the former slots", async || (site.status().slots().len() == 2).then_some(())).await;
    load.finish().await;
    assert_eq!(cloud.tunnels(), after);
}

async fn the_same_credentials_read_again_change_nothing(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 2)]);
    let before = cloud.has(2).await;
    site.up(2).await;
    site.handle.update(|terms| terms.tls = again(&terms.tls)).unwrap();
    // What is announced after it has been followed after it.
    site.handle.update(|terms| terms.services = exported(&["api", "new"])).unwrap();
    let told = async || (cloud.get("edge-1", "/new").await.status() == 200).then_some(());
    eventually("the announcement", told).await;
    assert_eq!(cloud.tunnels(), before);
}

/// The keys that the responder takes for those of its tunnels.
fn keys(cloud: &Cloud) -> Vec<SpkiPin> {
    cloud.directory().registry().snapshot().filter_map(|live| live.proof.key()).collect()
}

/// The key of what a site shows.
fn key(tls: &InitiatorTls) -> SpkiPin {
    tls.credentials.as_ref().unwrap().summary().key
}

/// Whether all tunnels show this token.
fn show_token(cloud: &Cloud, token: &str) -> bool {
    let rule = NodeRule {
        claim: played::hello(node("edge-1"), 0).place.claim,
        pins: Vec::new(),
        token: Some(Secret::new(token.as_bytes()).unwrap()),
    };
    let identity = Some(IDENTITY.to_owned());
    let rules = Rules::new(RuleSettings { identity, nodes: vec![rule], ..RuleSettings::default() }).unwrap();
    let directory = cloud.directory();
    directory.registry().snapshot().all(|live| live.proof.authorize(live.place.clone(), &rules).is_ok())
}

// spec: CT-55, CT-57
async fn another_certificate_and_another_token_are_shown_on_live_tunnels_and_replace_none(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 2)]);
    let before = cloud.has(2).await;
    site.up(2).await;
    let load = Load::start(cloud.egress, "edge-1").await;
    let next = node_tls(&authority, node("edge-1"));
    let expected = key(&next);
    site.handle.update(|terms| terms.tls = next).unwrap();
    let proven = async || (keys(&cloud) == [expected; 2]).then_some(());
    eventually("the other key on both tunnels", proven).await;

    for token in ["0123456789abcdef", "fedcba9876543210"] {
        assert!(!show_token(&cloud, token));
        site.handle.update(|terms| terms.token = Token::new(token)).unwrap();
        eventually("the token on both tunnels", async || show_token(&cloud, token).then_some(())).await;
    }
    load.finish().await;
    assert_eq!(cloud.tunnels(), before);
    let slots = site.status().slots();
    assert!(slots.len() == 2 && slots.iter().all(|slot| slot.reason.is_none()), "{slots:?}");
}

// spec: CT-57, SE-14
async fn many_certificates_one_after_another_end_with_the_last(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    site.up(1).await;
    let all: Vec<_> = (0..20).map(|_| node_tls(&authority, node("edge-1"))).collect();
    let last = key(&all[19]);
    for tls in all {
        site.handle.update(|terms| terms.tls = tls).unwrap();
        tokio::task::yield_now().await;
    }
    eventually("the last", async || (keys(&cloud) == [last]).then_some(())).await;
    assert_eq!(cloud.tunnels(), before);
    assert_eq!(cloud.get("edge-1", "/").await.status(), 200);
}

// spec: CT-57, HS-25
async fn a_responder_that_takes_no_other_certificate_gets_another_tunnel_before_the_former_goes(transport: Transport) {
    let authority = Authority::new("test CA");
    let responder = played::Responder::new(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![responder.destination()]);
    let (prepared, welcome) = admitted(responder.claimed().await, 1);
    assert_eq!(welcome.reauth, None, "it is of a time before REAUTH");
    let former = prepared.tunnel().clone();
    let driver = tokio::spawn(prepared.welcome(welcome));
    site.slot("the tunnel", |slot| slot.tunnel.is_some()).await;

    let next = node_tls(&authority, node("edge-1"));
    let expected = key(&next);
    site.handle.update(|terms| terms.tls = next).unwrap();
    let claimed = responder.claimed().await;
    assert_eq!(spki_pin(&claimed.claimant.certificates[0]).unwrap(), expected);
    assert_eq!(*former.phase().borrow(), Phase::Open, "it stays until the other one is up");
    let (prepared, welcome) = admitted(claimed, 2);
    let _tunnel = prepared.tunnel().clone();
    tokio::spawn(prepared.welcome(welcome));
    assert_eq!(timeout(PATIENCE, driver).await.unwrap().unwrap().code, CloseCode::Done);
    eventually("the end of the former slot", async || (site.status().slots().len() == 1).then_some(())).await;
}

// spec: SE-42, SE-43
async fn responders_that_are_trusted_still_keep_their_tunnels_and_others_are_replaced(transport: Transport) {
    let (authority, next) = (Authority::new("test CA"), Authority::new("next CA"));
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 2)]);
    let before = cloud.has(2).await;
    site.up(2).await;
    let mut load = Load::start(cloud.egress, "edge-1").await;
    let trusting = |roots: &[&Authority]| {
        let roots = Trust::roots(roots.iter().flat_map(|authority| trust(authority).roots));
        move |terms: &mut Terms<Served>| {
            let credentials = terms.tls.credentials.clone();
            terms.tls = Arc::new(InitiatorTls { credentials, responder: roots });
        }
    };
    site.handle.update(trusting(&[&next, &authority])).unwrap();
    let initiators = cloud.handle.terms().tls.initiators.clone();
    let shown = adit::tls::ResponderTls { credentials: credentials(&next.responder()), initiators };
    cloud.handle.update(|terms| terms.tls = Arc::new(shown)).unwrap();
    load.goes_on().await;
    assert_eq!(cloud.tunnels(), before, "what is trusted still stays, and what is shown next concerns no live tunnel");

    site.handle.update(trusting(&[&next])).unwrap();
    let replaced = async || Some(cloud.tunnels()).filter(|now| now.len() == 2 && now.is_disjoint(&before));
    eventually("two tunnels to whom is trusted now", replaced).await;
    load.finish().await;
}

// spec: SE-43
async fn a_responder_that_nobody_trusts_any_more_is_left_though_it_is_dialled_otherwise_now(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    cloud.has(1).await;
    site.up(1).await;
    let strange = trust(&Authority::new("another CA"));
    let credentials = site.handle.terms().tls.credentials.clone();
    site.handle
        .update(|terms| {
            terms.tls = Arc::new(InitiatorTls { credentials, responder: strange });
            terms.destinations[0].server_name = Some("elsewhere.example".into());
        })
        .unwrap();
    cloud.has(0).await;
}

// spec: SE-43
async fn a_responder_that_nobody_trusts_any_more_is_left_though_there_is_no_other(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    cloud.has(1).await;
    site.up(1).await;
    let strange = trust(&Authority::new("another CA"));
    let credentials = site.handle.terms().tls.credentials.clone();
    site.handle.update(|terms| terms.tls = Arc::new(InitiatorTls { credentials, responder: strange })).unwrap();
    cloud.has(0).await;
    eventually("the end of the tunnel", async || (site.status().connected() == 0).then_some(())).await;
}

/// The responder admits no two keys of one node at once, and a token cannot be taken back on a live tunnel.
async fn another_key_takes_over_once_the_tunnel_of_the_former_one_is_drained(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::holding(transport, &authority, Duration::from_secs(60));
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 2)]);
    cloud.has(2).await;
    let key =
        || cloud.directory().registry().snapshot().filter(|live| !live.leaving).map(|live| live.proof.key()).next();
    let former = key().unwrap();
    let token = "0123456789abcdef";
    site.handle.update(|terms| terms.token = Token::new(token)).unwrap();
    eventually("the token on both tunnels", async || show_token(&cloud, token).then_some(())).await;
    let before = cloud.has(2).await;
    let load = Load::start(cloud.egress, "edge-1").await;
    let next = node_tls(&authority, node("edge-1"));
    site.handle
        .update(|terms| {
            terms.tls = next;
            terms.token = None;
        })
        .unwrap();
    let renewed = async || {
        let registry = cloud.directory();
        let keys: Vec<_> = registry.registry().snapshot().map(|live| live.proof.key()).collect();
        (keys.len() == 2 && keys.iter().all(|key| *key != former)).then_some(())
    };
    eventually("two tunnels with the other key", renewed).await;
    load.finish().await;
    assert!(cloud.tunnels().is_disjoint(&before));
}

async fn credentials_that_nobody_admits_leave_the_tunnel_alone_until_better_ones_come(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    let before = cloud.has(1).await;
    site.up(1).await;
    let good = Arc::clone(&site.handle.terms().tls);
    let mut load = Load::start(cloud.egress, "edge-1").await;
    site.handle.update(|terms| terms.tls = node_tls(&authority, node("somebody-else"))).unwrap();
    site.slot("the refusal", |slot| slot.tunnel.is_none() && slot.reason.is_some()).await;
    load.goes_on().await;
    assert_eq!(cloud.tunnels(), before);

    site.handle.update(|terms| terms.tls = again(&good)).unwrap();
    let renewed = async || Some(cloud.tunnels()).filter(|now| now.len() == 1 && now.is_disjoint(&before));
    eventually("another tunnel", renewed).await;
    eventually("the end of both former slots", async || (site.status().slots().len() == 1).then_some(())).await;
    load.finish().await;
}

async fn a_claim_from_before_the_change_becomes_no_tunnel(transport: Transport) {
    let authority = Authority::new("test CA");
    let responder = played::Responder::new(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![responder.destination()]);
    let former = responder.claimed().await;
    assert_eq!(former.claimant.hello.token, None);

    // Between its claim and its welcome.
    site.handle.update(|terms| terms.token = Token::new("secret")).unwrap();
    let (prepared, welcome) = admitted(former, 1);
    let tunnel = prepared.tunnel().clone();
    let driver = tokio::spawn(prepared.welcome(welcome));
    // It may have requests already, so it is drained rather than cut.
    let mut phase = tunnel.phase();
    phase.wait_for(|phase| matches!(phase, Phase::Draining { .. } | Phase::Closed(_))).await.unwrap();
    assert_eq!(driver.await.unwrap().code, CloseCode::Done);
    assert_eq!(site.status().connected(), 0);

    let next = responder.claimed().await;
    assert_eq!(next.claimant.hello.token, Token::new("secret"));
    let (prepared, welcome) = admitted(next, 2);
    let _tunnel = prepared.tunnel().clone();
    tokio::spawn(prepared.welcome(welcome));
    let slot = site.slot("the tunnel", |slot| slot.tunnel.is_some()).await;
    assert_eq!(slot.tunnel.unwrap().id, adit::id::TunnelId(2).to_string());
    eventually("the end of the former slot", async || (site.status().slots().len() == 1).then_some(())).await;
}

async fn two_changes_at_once_both_come_to_pass(transport: Transport) {
    let authority = Authority::new("test CA");
    let (here, there) = (Cloud::start(transport, &authority), Cloud::start(transport, &authority));
    let site = Site::start(&authority, node("edge-1"), vec![here.destination(transport, 1)]);
    let before = here.has(1).await;
    let load = Load::start(here.egress, "edge-1").await;
    let other = there.destination(transport, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            for name in ["127.0.0.1", "localhost", "::1", "responder.example", "127.0.0.1"] {
                site.handle.update(|terms| terms.destinations[0].server_name = Some(name.to_owned())).unwrap();
            }
        });
        scope.spawn(|| {
            for count in [4, 2, 3] {
                site.handle.update(|terms| terms.destinations[0].count = count).unwrap();
                site.handle.update(|terms| terms.destinations.truncate(1)).unwrap();
                site.handle.update(|terms| terms.destinations.push(other.clone())).unwrap();
            }
        });
    });
    let settled = async || {
        let slots = site.status().slots();
        let all_up = slots.len() == 4 && slots.iter().all(|slot| slot.tunnel.is_some());
        (all_up && here.tunnels().len() == 3 && there.tunnels().len() == 1).then_some(())
    };
    eventually("three tunnels here and one there", settled).await;
    load.finish().await;
    assert!(here.tunnels().is_disjoint(&before), "all were dialled by the latest name");
}

async fn a_change_during_a_drain_dials_nobody(transport: Transport) {
    let authority = Authority::new("test CA");
    let (here, there) = (Cloud::start(transport, &authority), Cloud::start(transport, &authority));
    let site = Site::start(&authority, node("edge-1"), vec![here.destination(transport, 1)]);
    here.has(1).await;
    let egress = here.egress;
    let running = tokio::spawn(async move { get(egress, "/gate", &["x-node-id: edge-1"]).await.unwrap() });
    let directory = here.directory();
    let in_flight = || directory.registry().snapshot().map(|live| live.handle.snapshot().in_flight).sum::<u32>();
    eventually("the request at the gate", async || (in_flight() == 1).then_some(())).await;
    site.has_gated(1).await;

    let drain = site.drain.clone();
    let draining = tokio::spawn(async move { drain.drain(Duration::from_secs(60)).await });
    here.has(0).await;
    site.handle
        .update(|terms| {
            terms.tls = again(&terms.tls);
            terms.destinations[0].count = 3;
            terms.destinations.push(there.destination(transport, 1));
        })
        .unwrap();
    site.open_gate();
    assert_eq!(running.await.unwrap().status(), 200);
    assert_eq!(draining.await.unwrap(), adit::lifecycle::Drained::Complete);
    assert!(here.tunnels().is_empty() && there.tunnels().is_empty() && site.status().slots().is_empty());
}

// spec: CT-20, CT-23
async fn a_drain_tells_the_responder_what_is_left_of_it(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    cloud.has(1).await;
    let egress = cloud.egress;
    let running = tokio::spawn(async move { get(egress, "/gate", &["x-node-id: edge-1"]).await });
    let directory = cloud.directory();
    let live = directory.registry().snapshot().next().unwrap();
    eventually("the request at the gate", async || (live.handle.snapshot().in_flight == 1).then_some(())).await;
    site.has_gated(1).await;

    // Nobody enforces the drain of the process here: the tunnel ends because it was told by when.
    site.handle.update(|terms| terms.tunnel.drain_timeout = Duration::from_secs(3600)).unwrap();
    site.drain.begin(Duration::from_millis(200));
    let reason = timeout(PATIENCE, live.handle.closed()).await.unwrap();
    assert_eq!(reason.code, CloseCode::Done, "{reason:?}");
    drop(running.await.unwrap());
}
