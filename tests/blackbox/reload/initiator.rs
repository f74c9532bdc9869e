//! What changes at an initiator.

use adit::id::SpkiPin;
use adit::tls::spki_pin;
use http::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::trigger::{Trigger, by_each_trigger, reload, rewrite};
use super::world::tunnels;
use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

by_each_trigger!(
    services_come_change_and_go_without_a_tunnel_replaced,
    tunnels_come_and_go_and_those_that_stay_are_not_touched,
    pins_are_followed_and_end_no_tunnel_that_they_let_pass,
);

over_each_transport!(
    an_initiator_that_is_another_node_comes_up_beside_the_former_one,
    what_is_under_way_at_a_service_counts_by_its_other_limits,
);

/// The file of the initiator of a site.
fn text(site: &Site, edge: &Edge) -> String {
    let edge = edge.clone().target(&format!("http://{}", site.target.address()));
    edge.text(&site.responder.tunnel_address().to_string())
}

async fn services_come_change_and_go_without_a_tunnel_replaced(transport: Transport, trigger: Trigger) {
    let all = "{ name: web, match: {}, target: \"{target}\" }";
    let edge = trigger.edge(transport).service(all);
    let site = Site::with(Cloud::new(), edge.clone()).await;
    let (before, load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let other = Target::http1().await;
    let shop = format!("{{ name: shop, match: {{ prefix: /shop }}, target: \"http://{}\" }}", other.address());
    let with_shop = edge.clone().service(&shop);
    assert_eq!(trigger.rewrite(&site.initiator, &text(&site, &with_shop)).await.changes(), ["+ services.shop"]);
    assert_eq!(site.get("/shop/1").await.status(), 200);
    assert!(other.requests().iter().any(|seen| seen.ends_with("/shop/1")));
    let connections = site.target.connections();

    let elsewhere = edge.clone().service("{ name: shop, match: { prefix: /shop }, target: \"{target}\" }");
    let changes = trigger.rewrite(&site.initiator, &text(&site, &elsewhere)).await.changes();
    assert!(changes.len() == 1 && changes[0].starts_with("~ services.shop.target: "), "{changes:?}");
    assert_eq!(site.get("/shop/2").await.status(), 200);
    site.arrived("/shop/2").await;
    assert_eq!(trigger.rewrite(&site.initiator, &text(&site, &edge)).await.changes(), ["- services.shop"]);
    let quiet = edge.clone().initiator("access_log", "false").initiator("limits", "{ head_bytes: 32 KiB }");
    trigger.rewrite(&site.initiator, &text(&site, &quiet)).await.changes();
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
    assert!(connections > 0);
}

async fn tunnels_come_and_go_and_those_that_stay_are_not_touched(transport: Transport, trigger: Trigger) {
    let edge = trigger.edge(transport);
    let site = Site::with(Cloud::new(), edge.clone()).await;
    let (before, mut load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let changes = trigger.rewrite(&site.initiator, &text(&site, &edge.clone().count(3))).await.changes();
    assert!(changes.len() == 1 && changes[0].ends_with(".count: 1 -> 3"), "{changes:?}");
    site.responder.registered(3).await;
    let three = tunnels(&site.responder).await;
    assert!(before.iter().all(|tunnel| three.contains(tunnel)), "{before:?} {three:?}");
    load.goes_on().await;
    trigger
        .rewrite(&site.initiator, &text(&site, &edge.clone().count(2).initiator("congestion", "cubic")))
        .await
        .changes();
    site.responder.registered(2).await;
    load.goes_on().await;
    // Another responder, then none but that.
    let second = Cloud::new().start(&site.folder).await;
    let both = edge.clone().also(second.tunnel_address());
    trigger.rewrite(&site.initiator, &text(&site, &both)).await.changes();
    second.registered(1).await;
    site.responder.registered(1).await;
    load.finish().await;
    let target = format!("http://{}", site.target.address());
    let only = edge.target(&target).text(&second.tunnel_address().to_string());
    trigger.rewrite(&site.initiator, &only).await.changes();
    site.responder.registered(0).await;
    assert_eq!(get(second.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
}

// spec: SE-42
async fn pins_are_followed_and_end_no_tunnel_that_they_let_pass(transport: Transport, trigger: Trigger) {
    let edge = trigger.edge(transport);
    let site = Site::with(Cloud::new(), edge.clone()).await;
    let (before, mut load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let is = spki_pin(&CertificateDer::from_pem_file(site.folder.path().join("cloud.pem")).unwrap()).unwrap();
    let other = spki_pin(&site.folder.authority.responder().chain()[0]).unwrap();
    let pinned = |pins: &[SpkiPin]| {
        let pins: Vec<_> = pins.iter().map(ToString::to_string).collect();
        let tls = format!("{{ cert: edge.pem, key: edge.key, ca: ca.pem, pins: [{}] }}", pins.join(", "));
        text(&site, &edge.clone().initiator("tls", &tls))
    };
    let changes = trigger.rewrite(&site.initiator, &pinned(&[is])).await.changes();
    assert!(changes.len() == 1 && changes[0].starts_with("+ initiator.tls.pins"), "{changes:?}");
    load.goes_on().await;
    trigger.rewrite(&site.initiator, &pinned(&[other, is])).await.changes();
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
    // One that this responder does not have: what runs is finished, and no other tunnel is opened.
    trigger.rewrite(&site.initiator, &pinned(&[other])).await.changes();
    site.responder.registered(0).await;
    site.initiator.line_with("cannot open a tunnel").await;
    trigger.rewrite(&site.initiator, &pinned(&[is])).await.changes();
    site.responder.registered(1).await;
    assert_eq!(site.get("/").await.status(), 200);
}

async fn an_initiator_that_is_another_node_comes_up_beside_the_former_one(transport: Transport) {
    let edge = Edge::new(transport);
    let site = Site::with(Cloud::new(), edge.clone()).await;
    let node = Node { node: "edge-2", ..NODE };
    site.folder.authority.node(node).write(site.folder.path(), "second");
    let another = edge.named("second").claim(node);
    let changes = rewrite(&site.initiator, &text(&site, &another)).await.changes();
    assert!(changes.iter().any(|change| change == "~ initiator.node: edge-1 -> edge-2"), "{changes:?}");
    eventually("the other node alone", async || {
        let accepted = site.responder.0.tunnels().await.accepted;
        (accepted.len() == 1 && accepted[0].node == "edge-2").then_some(())
    })
    .await;
    assert_eq!(get(site.egress(), "/", &["x-node-id: edge-2"]).await.unwrap().status(), 200);
    eventually("ready", async || (site.initiator.ask(Method::GET, "/ready").await.0 == 200).then_some(())).await;
    let _ = reload(&site.initiator).await;
}

// A service that had changed began with nothing under way.
async fn what_is_under_way_at_a_service_counts_by_its_other_limits(transport: Transport) {
    let limited = |most: u32| {
        Edge::new(transport)
            .service(&format!("{{ name: web, match: {{}}, target: \"{{target}}\", limits: {{ in_flight: {most} }} }}"))
    };
    let site = Site::with(Cloud::new(), limited(2)).await;
    let mut held = Vec::new();
    for number in 1..=2 {
        let mut client = site.connect().await;
        client.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
        held.push(client);
        let hanging = || site.target.requests().iter().filter(|seen| seen.ends_with("/hang")).count();
        eventually("the request at the target", async || (hanging() == number).then_some(())).await;
    }
    rewrite(&site.initiator, &text(&site, &limited(1))).await.changes();
    let refused = site.get("/").await;
    assert_eq!(refused.status(), 503, "{}", refused.text());
    rewrite(&site.initiator, &text(&site, &limited(3))).await.changes();
    assert_eq!(site.get("/").await.status(), 200);
    rewrite(&site.initiator, &text(&site, &limited(1))).await.changes();
    held.pop();
    assert_eq!(site.get("/").await.status(), 503, "one is under way still");
    drop(held);
    eventually("room", async || (site.get("/").await.status() == 200).then_some(())).await;
}
