//! What is lost comes back: quickly, in the right place, and without taking what belongs to somebody else.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use tokio::time::timeout;

use crate::support::envoy::{EnvoyResponder, ResponderOptions, Variant};
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, Folder, NODE, Running, Site, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

/// After this a request to an Envoy that has not answered is asked on another connection.
const UNREAD: Duration = Duration::from_secs(10);

over_each_transport!(
    a_responder_that_was_killed_and_restarted_is_noticed_long_before_the_idle_timeout,
    an_initiator_that_was_killed_and_restarted_takes_its_own_place,
    a_second_process_of_the_same_name_and_key_takes_over_and_the_first_says_why,
    a_second_process_of_the_same_name_with_another_key_is_refused,
    a_node_with_a_newer_certificate_takes_the_place_of_its_killed_former_self,
    a_responder_that_comes_late_is_found,
    a_tunnel_that_was_lost_shows_as_recovered,
    each_address_of_a_name_gets_its_tunnels,
);

async fn a_responder_that_was_killed_and_restarted_is_noticed_long_before_the_idle_timeout(transport: Transport) {
    // The next keep-alive meets a responder that does not know the tunnel and says so; nobody waits for the idle timeout.
    let cloud = Cloud::new().responder("state_dir", "state").responder("keepalive", "500ms");
    let cloud = cloud.responder("idle_timeout", "600s");
    let Site { target, responder, initiator, folder } = Site::with(cloud, Edge::new(transport)).await;
    let responder = responder.restart().await;
    responder.registered(1).await;
    assert_eq!(get(responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    assert_eq!(target.requests(), ["GET /"]);
    drop((initiator, folder));
}

async fn an_initiator_that_was_killed_and_restarted_takes_its_own_place(transport: Transport) {
    let site = Site::start(transport).await;
    let first = site.responder.0.tunnels().await.accepted[0].id.clone();
    let file = site.initiator.kill();
    let _again = Running::start(file).await;
    eventually("another tunnel, in the place of the first", async || {
        let accepted = site.responder.0.tunnels().await.accepted;
        (accepted.len() == 1 && accepted[0].id != first).then_some(())
    })
    .await;
    assert_eq!(get(site.responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
}

async fn a_second_process_of_the_same_name_and_key_takes_over_and_the_first_says_why(transport: Transport) {
    let site = Site::start(transport).await;
    let _second = Running::start(site.initiator.file().to_owned()).await;
    let line = site.initiator.line_with("superseded").await;
    assert!(line["advice"].as_str().unwrap().contains("another process runs with this node's certificate"), "{line}");
    site.responder.registered(1).await;
    assert_eq!(site.get("/").await.status(), 200);
    eventually("the first backs off", async || {
        let tunnel = site.initiator.tunnels().await.dialled.remove(0);
        (matches!(tunnel.state.as_str(), "backoff" | "cannot_connect") && tunnel.retry_in_seconds.is_some())
            .then_some(())
    })
    .await;
}

async fn a_second_process_of_the_same_name_with_another_key_is_refused(transport: Transport) {
    let site = Site::start(transport).await;
    let before = site.responder.0.tunnels().await.accepted[0].id.clone();
    let second = Edge::new(transport).named("second").start(&site.folder, site.responder.tunnel_address()).await;
    let line = second.line_with("cannot open a tunnel").await;
    assert!(line["error"].as_str().unwrap().starts_with("refused, 409 conflict"), "{line}");
    let accepted = site.responder.0.tunnels().await.accepted;
    assert_eq!((accepted.len(), &accepted[0].id), (1, &before));
    assert_eq!(site.get("/").await.status(), 200);
}

async fn a_node_with_a_newer_certificate_takes_the_place_of_its_killed_former_self(transport: Transport) {
    // Long after the test the old tunnel would be given up by itself.
    let cloud = Cloud::new().responder("idle_timeout", "600s").responder("keepalive", "25s");
    let Site { target, responder, initiator, folder } = Site::with(cloud, Edge::new(transport)).await;
    // It keeps its connection, as a machine does that lost its power.
    initiator.freeze();
    let edge = Edge::new(transport).named("renewed").target(&format!("http://{}", target.address()));
    let renewed = folder.authority.renewed_node(NODE);
    let _renewed = edge.start_with(&folder, responder.tunnel_address(), &renewed).await;
    eventually("its tunnel", async || {
        let answer = get(responder.egress(), "/", &[TO_NODE]).await.unwrap();
        (answer.status() == 200).then_some(())
    })
    .await;
    responder.registered(1).await;
    // The former self is told, and refused.
    initiator.thaw();
    initiator.line_with("409").await;
    assert_eq!(get(responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
}

async fn a_responder_that_comes_late_is_found(transport: Transport) {
    // Not one that the system gives away: nobody must have it before the responder comes.
    let (folder, address) = (Folder::new(), free_address());
    let initiator = Edge::new(transport).start(&folder, address).await;
    eventually("a first attempt", async || {
        let dialled = initiator.tunnels().await.dialled;
        // Nobody answers over UDP, so the attempt goes on; over TCP it is over at once.
        dialled.iter().any(|tunnel| matches!(tunnel.state.as_str(), "connecting" | "backoff")).then_some(())
    })
    .await;
    let cloud = Cloud::new().responder("listen", &format!("{{ quic: \"{address}\", tcp: \"{address}\" }}"));
    cloud.start(&folder).await.registered(1).await;
}

async fn a_tunnel_that_was_lost_shows_as_recovered(transport: Transport) {
    let cloud = Cloud::new().responder("state_dir", "state").responder("keepalive", "500ms");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let Site { responder, initiator, .. } = site;
    assert_eq!(initiator.tunnels().await.dialled[0].state, "connected");
    let _responder = responder.restart().await;
    let dialled = eventually("the tunnel recovers", async || {
        initiator.tunnels().await.dialled.into_iter().find(|tunnel| tunnel.state == "recovered")
    })
    .await;
    assert!(dialled.reason.is_some(), "why the one before was lost stays to be seen");
    initiator.counted("adit_initiator_destinations{state=\"recovered\"}", 1).await;
}

async fn each_address_of_a_name_gets_its_tunnels(transport: Transport) {
    // One address on some machines, two on others: what is promised holds for both.
    let expected: std::collections::BTreeSet<_> = ("localhost", 0).to_socket_addrs().unwrap().collect();
    let folder = Folder::new();
    let responder = Cloud::new().responder("listen", "{ quic: \"[::]:0\", tcp: \"[::]:0\" }").start(&folder).await;
    let edge = Edge::new(transport).count(2);
    folder.authority.node(NODE).write(folder.path(), "edge");
    let address = format!("localhost:{}", responder.tunnel_address().port());
    let file = folder.write("edge.yaml", &edge.text(&address));
    let initiator = Running::start(file).await;
    responder.registered(2 * expected.len()).await;
    let addresses: std::collections::BTreeSet<_> =
        initiator.connected(2 * expected.len()).await.dialled.into_iter().map(|tunnel| tunnel.remote).collect();
    assert_eq!(addresses.len(), expected.len());
}

/// When it goes on, the end of the old tunnel and the next handshake wait for it together. spec: EV-47
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_was_frozen_takes_the_next_tunnel_at_once() {
    let Some(responder) = EnvoyResponder::start(Variant::Plaintext, ResponderOptions::default()).await else { return };
    let (target, folder) = (Target::http1().await, Folder::new());
    // A handshake that is not answered would hold the next one up for longer than anybody waits here.
    let edge = Edge::envoy("{ security: none, handshake_timeout: 300s }");
    let edge = edge.target(&format!("http://{}", target.address()));
    let initiator = edge.start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
    let egress = responder.egress();
    let under_way = tokio::spawn(async move { get(egress, "/hang", &[TO_NODE]).await });
    eventually("a request at the target", async || (target.requests() == ["GET /hang"]).then_some(())).await;

    responder.freeze();
    initiator.line_with("tunnel lost: dialling again").await;
    eventually("a dial", async || {
        initiator.tunnels().await.dialled.iter().find(|tunnel| tunnel.state == "connecting").map(drop)
    })
    .await;
    responder.thaw();
    eventually("a request that comes through", async || {
        // Envoy 1.40 may never read a connection of its clients that got the descriptor of the old tunnel: another one
        // is asked then. spec: EV-47
        let asked = timeout(UNREAD, get(egress, "/", &[TO_NODE])).await;
        (asked.ok()?.ok()?.status() == 200).then_some(())
    })
    .await;
    under_way.abort();
}
