//! Files that the settings name, with another content.

use std::sync::Arc;

use adit::tls::{Credentials, Summary};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::trigger::{Trigger, by_each_trigger};
use super::world::tunnels;
use crate::support::certificates::{Authority, Certificate, Node, RESPONDER_NAME};
use crate::support::eventually::eventually;
use crate::support::http1::RawHttp;
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, Folder, NODE, Site, TO_NODE, Transport};
use crate::support::targets::Target;

by_each_trigger!(
    a_certificate_of_the_responder_is_shown_to_the_next_and_touches_nobody,
    a_certificate_of_the_node_is_proven_without_a_request_lost,
    a_bundle_with_another_ca_touches_nobody,
    a_list_that_revokes_one_of_two_nodes_ends_its_tunnel_and_no_other,
    a_list_that_revokes_the_responder_ends_the_tunnel_to_it,
    a_list_that_revokes_one_of_two_clients_refuses_its_next_connection,
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

// spec: SE-43
async fn a_list_that_revokes_the_responder_ends_the_tunnel_to_it(transport: Transport, trigger: Trigger) {
    let folder = Folder::new();
    let responder = Cloud::new().start(&folder).await;
    folder.write("crl.pem", &folder.authority.crl(&[]));
    let target = Target::http1().await;
    let edge = trigger.edge(transport).initiator("tls", "{ cert: edge.pem, key: edge.key, ca: ca.pem, crl: crl.pem }");
    let edge = edge.target(&format!("http://{}", target.address()));
    let initiator = edge.start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
    let shown = Credentials::load(&folder.path().join("cloud.pem"), &folder.path().join("cloud.key")).unwrap();
    let revoking = folder.authority.crl(&[Summary::of(&shown.chain()[0]).unwrap().serial]);
    let changed = trigger.change(&initiator, || folder.write("crl.pem", &revoking)).await;
    assert_eq!(changed.changes(), ["~ initiator.tls.crl: other revocation lists"]);
    responder.registered(0).await;
    let line = initiator.line_with("cannot open a tunnel").await;
    assert!(line["error"].as_str().unwrap().contains("revoked"), "{line}");
}

/// What a client that shows this certificate is answered; `None`: it was refused.
async fn answered(site: &Site, shown: &Certificate) -> Option<u16> {
    let config = ClientConfig::builder_with_provider(adit::tls::provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(site.folder.authority.roots());
    let config = config.with_client_auth_cert(shown.chain(), shown.private_key()).unwrap();
    let stream = TcpStream::connect(site.egress()).await.unwrap();
    let name = ServerName::try_from(RESPONDER_NAME).unwrap();
    let mut client = RawHttp::over(TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?);
    client.send(format!("GET / HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.ok()?;
    Some(client.head().await.ok()?.status)
}

async fn a_list_that_revokes_one_of_two_clients_refuses_its_next_connection(transport: Transport, trigger: Trigger) {
    let tls = "{ cert: cloud.pem, key: cloud.key, client_ca: ca.pem }";
    let site = Site::with(trigger.cloud().egress("tls", tls), Edge::new(transport)).await;
    let [stays, leaves] = ["edge-3", "edge-4"].map(|node| site.folder.authority.node(Node { node, ..NODE }));
    site.folder.write("crl.pem", &site.folder.authority.crl(&[]));
    let tls = "{ cert: cloud.pem, key: cloud.key, client_ca: ca.pem, crl: crl.pem }";
    trigger.rewrite(&site.responder.0, &trigger.cloud().egress("tls", tls).text()).await.changes();
    for client in [&stays, &leaves] {
        assert_eq!(answered(&site, client).await, Some(200));
    }
    let revoking = site.folder.authority.crl(&[serial(&leaves)]);
    let changed = trigger.change(&site.responder.0, || site.folder.write("crl.pem", &revoking)).await.changes();
    assert!(changed.len() == 1 && changed[0].contains(".tls.crl: other revocation lists"), "{changed:?}");
    assert_eq!(answered(&site, &leaves).await, None);
    let line = site.responder.0.line_with("a client is not let in").await;
    assert!(line["reason"].as_str().unwrap().contains("is revoked"), "{line}");
    assert_eq!(answered(&site, &stays).await, Some(200));
}

async fn a_token_in_a_file_is_followed(transport: Transport, trigger: Trigger) {
    let folder = Folder::new();
    let write = |name: &str, token: &str| folder.write(name, token);
    for name in ["of-cloud", "of-edge"] {
        write(name, "the first token of all\n");
    }
    let nodes = "[ { node: edge-1, cluster: stores, tenant: acme, token: 'file:of-cloud' } ]";
    let responder = trigger.cloud().without_identity().responder("nodes", nodes).start(&folder).await;
    let target = Target::http1().await;
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
