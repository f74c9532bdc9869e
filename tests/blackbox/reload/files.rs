//! Files that the settings name, with another content.

use adit::tls::Summary;

use super::trigger::{Trigger, by_each_trigger};
use super::world::tunnels;
use crate::support::certificates::{Authority, Certificate, Node};
use crate::support::eventually::eventually;
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport};

by_each_trigger!(
    a_certificate_of_the_responder_is_shown_to_the_next_and_touches_nobody,
    a_certificate_of_the_node_is_proven_without_a_request_lost,
    a_bundle_with_another_ca_touches_nobody,
    a_list_that_revokes_one_of_two_nodes_ends_its_tunnel_and_no_other,
    a_token_in_a_file_is_followed,
);

async fn a_certificate_of_the_responder_is_shown_to_the_next_and_touches_nobody(
    transport: Transport,
    trigger: Trigger,
) {
    let site = Site::with(trigger.cloud(), Edge::new(transport)).await;
    let (before, load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let next = site.folder.authority.responder();
    let changes = trigger.change(&site.responder.0, || next.write(site.folder.path(), "cloud")).await.changes();
    assert_eq!(changes, ["~ responder.tls.cert: another certificate"]);
    let node = Node { node: "edge-2", ..NODE };
    let _second = site.join(Edge::new(transport).named("second").claim(node)).await;
    load.finish().await;
    let now = tunnels(&site.responder).await;
    assert!(before.iter().all(|tunnel| now.contains(tunnel)));
}

// spec: CT-55, CT-57
async fn a_certificate_of_the_node_is_proven_without_a_request_lost(transport: Transport, trigger: Trigger) {
    let site = Site::with(Cloud::new(), trigger.edge(transport)).await;
    let (before, load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let renewed = site.folder.authority.renewed_node(NODE);
    let changes = trigger.change(&site.initiator, || renewed.write(site.folder.path(), "edge")).await.changes();
    assert_eq!(changes, ["~ initiator.tls.cert: another certificate"]);
    site.responder.0.line_with("the tunnel rests on another credential").await;
    site.initiator.line_with("the responder takes another credential").await;
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
}

async fn a_bundle_with_another_ca_touches_nobody(transport: Transport, trigger: Trigger) {
    let site = Site::with(trigger.cloud(), Edge::new(transport)).await;
    let (before, load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let other = Authority::new("another CA");
    let bundle = site.folder.authority.pem() + &other.pem();
    site.folder.write("both.pem", &bundle);
    let changed = trigger.change(&site.responder.0, || site.folder.write("ca.pem", &bundle)).await;
    assert_eq!(changed.changes(), ["~ responder.tls.client_ca: other certificates"]);
    let cloud = trigger.cloud().responder("tls", "{ cert: cloud.pem, key: cloud.key, client_ca: both.pem }");
    let changes = trigger.rewrite(&site.responder.0, &cloud.text()).await.changes();
    assert!(changes.len() == 1 && changes[0].starts_with("~ responder.tls.client_ca: "), "{changes:?}");
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
}

/// What a list has of a certificate.
fn serial(certificate: &Certificate) -> Vec<u8> {
    Summary::of(&certificate.chain()[0]).unwrap().serial
}

async fn a_list_that_revokes_one_of_two_nodes_ends_its_tunnel_and_no_other(transport: Transport, trigger: Trigger) {
    let site = Site::with(trigger.cloud(), Edge::new(transport)).await;
    let node = Node { node: "edge-2", ..NODE };
    let second = site.folder.authority.node(node);
    let edge = Edge::new(transport).named("second").claim(node).target(&format!("http://{}", site.target.address()));
    let initiator = edge.start_with(&site.folder, site.responder.tunnel_address(), &second).await;
    site.responder.registered(2).await;
    let load = Load::paced(site.egress(), TO_NODE).await;
    site.folder.write("crl.pem", &site.folder.authority.crl(&[]));
    let tls = "{ cert: cloud.pem, key: cloud.key, client_ca: ca.pem, crl: crl.pem }";
    trigger.rewrite(&site.responder.0, &trigger.cloud().responder("tls", tls).text()).await.changes();
    site.responder.registered(2).await;
    let revoking = site.folder.authority.crl(&[serial(&second)]);
    let changed = trigger.change(&site.responder.0, || site.folder.write("crl.pem", &revoking)).await;
    assert_eq!(changed.changes(), ["~ responder.tls.crl: other revocation lists"]);
    let left = eventually("the revoked node to be gone", async || {
        let accepted = site.responder.0.tunnels().await.accepted;
        (accepted.len() == 1).then(|| accepted[0].node.clone())
    })
    .await;
    assert_eq!(left, NODE.node);
    initiator.line_with("cannot open a tunnel").await;
    load.finish().await;
}

async fn a_token_in_a_file_is_followed(transport: Transport, trigger: Trigger) {
    let folder = crate::support::site::Folder::new();
    let write = |name: &str, token: &str| folder.write(name, token);
    for name in ["of-cloud", "of-edge"] {
        write(name, "the first token of all\n");
    }
    let nodes = "[ { node: edge-1, cluster: stores, tenant: acme, token: 'file:of-cloud' } ]";
    let responder = trigger.cloud().without_identity().responder("nodes", nodes).start(&folder).await;
    let target = crate::support::targets::Target::http1().await;
    let edge = trigger.edge(transport).initiator("token", "'file:of-edge'");
    let edge = edge.target(&format!("http://{}", target.address()));
    let initiator = edge.start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
    let second = "the second token of all\n";
    let changes = trigger.change(&responder.0, || write("of-cloud", second)).await.changes();
    assert!(changes.len() == 1 && changes[0].ends_with(".token: another secret"), "{changes:?}");
    let changes = trigger.change(&initiator, || write("of-edge", second)).await.changes();
    assert_eq!(changes, ["~ initiator.token: another secret"]);
    responder.registered(1).await;
    let healthy = async || (responder.0.tunnels().await.accepted.first()?.health == "healthy").then_some(());
    eventually("a tunnel by the second token", healthy).await;
}
