//! Which tunnel a request takes, and what it is told when there is none.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, Response, get};
use crate::support::ports::free_address;
use crate::support::raw_target::RawTarget;
use crate::support::site::{Cloud, Edge, NODE, Running, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_node_is_asked_by_its_name_and_a_cluster_by_its_own,
    a_node_is_looked_for_before_a_cluster,
    a_request_without_a_host_id_is_400,
    an_unknown_node_is_503_with_a_time_to_come_back,
    a_tenant_does_not_see_the_nodes_of_another,
    routes_lead_to_services_by_name,
    a_service_that_is_not_exported_is_404,
    a_client_cannot_choose_a_service_by_a_field_of_ours,
    services_are_matched_by_host_and_longest_prefix,
    a_listener_for_one_node_needs_no_field,
    the_nodes_of_a_cluster_share_its_requests,
    what_hashes_to_a_node_stays_there,
    the_tunnels_of_a_node_share_its_requests,
    a_target_that_refuses_is_502_and_names_the_cause,
    a_target_that_does_not_speak_http_is_502,
    a_late_response_is_504_and_the_target_is_told,
    a_node_that_reconnects_is_waited_for,
    a_node_that_stays_away_is_503,
);

const SECOND: Node<'static> = Node { node: "edge-2", ..NODE };

fn second(transport: Transport) -> Edge {
    Edge::new(transport).claim(SECOND).named("second")
}

async fn ask(site: &Site, field: &str) -> Response {
    get(site.egress(), "/", &[field]).await.unwrap()
}

/// Status and error type of a failure.
fn failure(response: &Response) -> (u16, &str) {
    let cause = response.field("proxy-status").unwrap();
    let cause = cause.strip_prefix("adit; error=").unwrap();
    (response.status(), cause.split(';').next().unwrap())
}

async fn a_node_is_asked_by_its_name_and_a_cluster_by_its_own(transport: Transport) {
    let site = Site::start(transport).await;
    for field in ["x-node-id: edge-1", "x-cluster-id: stores", "x-node-id: stores"] {
        assert_eq!(ask(&site, field).await.status(), 200, "{field}");
    }
}

async fn a_node_is_looked_for_before_a_cluster(transport: Transport) {
    let site = Site::start(transport).await;
    let (_second, target) = site.join(second(transport)).await;
    for _ in 0..10 {
        let fields = ["x-cluster-id: stores", "x-node-id: edge-2"];
        assert_eq!(get(site.egress(), "/", &fields).await.unwrap().status(), 200);
    }
    assert_eq!((site.target.requests().len(), target.requests().len()), (0, 10));
}

async fn a_request_without_a_host_id_is_400(transport: Transport) {
    let site = Site::start(transport).await;
    for field in ["x-other: 1", "x-node-id: ", "x-node-id: not/an:id"] {
        assert_eq!(failure(&ask(&site, field).await), (400, "http_request_error"), "{field}");
    }
    assert_eq!(site.target.requests().len(), 0);
}

async fn an_unknown_node_is_503_with_a_time_to_come_back(transport: Transport) {
    let site = Site::start(transport).await;
    let response = ask(&site, "x-node-id: edge-404").await;
    assert_eq!(failure(&response), (503, "destination_not_found"));
    assert!(response.field("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert!(response.text().contains("edge-404"), "{}", response.text());
}

async fn a_tenant_does_not_see_the_nodes_of_another(transport: Transport) {
    let cloud = Cloud::new().egress("tenant", "\"%REQ(x-tenant)%\"");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let other = Edge::new(transport).claim(Node { tenant: "other", ..NODE }).named("other");
    let (_other, target) = site.join(other).await;
    let ask = async |tenant: &str| get(site.egress(), "/", &[TO_NODE, &format!("x-tenant: {tenant}")]).await.unwrap();
    assert_eq!(ask("other").await.status(), 200);
    assert_eq!((site.target.requests().len(), target.requests().len()), (0, 1), "the same name, another world");
    assert_eq!(failure(&ask("third").await), (503, "destination_not_found"));
}

/// A site with two services at targets of their own, and the second target.
async fn two_services(transport: Transport, cloud: Cloud, matches: [&str; 2]) -> (Site, RawTarget) {
    let raw = RawTarget::new().await;
    let [first, second] = matches;
    let edge = Edge::new(transport)
        .service(&format!("{{ name: web, match: {first}, target: \"{{target}}\" }}"))
        .service(&format!("{{ name: raw, match: {second}, target: \"http://{}\" }}", raw.address()));
    (Site::with(cloud, edge).await, raw)
}

/// Shows that a request arrives at the scripted target.
async fn reaches(site: &Site, raw: &RawTarget, host: &str, path: &str) {
    let mut client = RawHttp::connect(site.egress()).await.unwrap();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut peer, head) = raw.accept().await;
    assert!(head.starts_with(&format!("get {path} ")) && head.contains(&format!("host: {host}")), "{head}");
    peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 200);
}

async fn routes_lead_to_services_by_name(transport: Transport) {
    let routes = "[{ prefix: /api, service: raw }, { host: \"*.shop.example\", service: raw }]";
    let cloud = Cloud::new().egress("service", "web").egress("routes", routes);
    let (site, raw) = two_services(transport, cloud, ["none", "none"]).await;
    reaches(&site, &raw, "x", "/api/v1").await;
    reaches(&site, &raw, "a.shop.example", "/").await;
    for path in ["/", "/apix"] {
        assert_eq!(site.get(path).await.status(), 200);
    }
    assert_eq!(site.target.requests(), ["GET /", "GET /apix"]);
}

async fn a_service_that_is_not_exported_is_404(transport: Transport) {
    let cloud = Cloud::new().egress("service", "secret");
    let site = Site::with(cloud, Edge::new(transport)).await;
    assert_eq!(failure(&site.get("/").await), (404, "destination_not_found"));
    assert_eq!(site.target.requests().len(), 0);
}

/// Over TCP that field is how the responder itself names the service.
// spec: TB-6
async fn a_client_cannot_choose_a_service_by_a_field_of_ours(transport: Transport) {
    for cloud in [Cloud::new().egress("service", "web"), Cloud::new()] {
        let (site, _never_reached) = two_services(transport, cloud, ["{ prefix: / }", "none"]).await;
        for line in ["adit-service: raw", "Adit-Service: raw", "adit-service: raw\r\nadit-service: raw"] {
            let response = get(site.egress(), "/request", &[TO_NODE, line]).await.unwrap();
            assert_eq!(response.status(), 200, "{line:?}");
            if transport == Transport::Tcp {
                assert!(!response.text().contains("adit-service"), "{}", response.text());
            }
        }
        assert_eq!(site.target.requests().len(), 3);
    }
}

async fn services_are_matched_by_host_and_longest_prefix(transport: Transport) {
    let matches = ["{ prefix: / }", "{ prefix: /api }"];
    let (site, raw) = two_services(transport, Cloud::new(), matches).await;
    reaches(&site, &raw, "x", "/api").await;
    assert_eq!(site.get("/other").await.status(), 200);
    assert_eq!(site.target.requests(), ["GET /other"]);
}

async fn a_listener_for_one_node_needs_no_field(transport: Transport) {
    let cloud = Cloud::new().egress("host_id", NODE.node);
    let site = Site::with(cloud, Edge::new(transport)).await;
    assert_eq!(get(site.egress(), "/", &[]).await.unwrap().status(), 200);
}

/// Opens requests that stay under way.
async fn hang(site: &Site, field: &str, count: usize) -> Vec<RawHttp<tokio::net::TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = site.connect().await;
        client.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\n{field}\r\n\r\n").as_bytes()).await.unwrap();
        clients.push(client);
    }
    clients
}

async fn the_nodes_of_a_cluster_share_its_requests(transport: Transport) {
    let cloud = Cloud::new().and_egress().egress("balance", "round_robin");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let (_second, target) = site.join(second(transport)).await;
    let under_way = hang(&site, "x-cluster-id: stores", 60).await;
    let counts = async || (site.target.requests().len(), target.requests().len());
    eventually("60 requests", async || Some(counts().await).filter(|(one, two)| one + two == 60)).await;
    let (one, two) = counts().await;
    assert!(one > 0 && two > 0, "two choices by load: {one} and {two}");
    drop(under_way);
    for _ in 0..20 {
        let fields = ["x-cluster-id: stores"];
        assert_eq!(get(site.responder.egress_at(1), "/", &fields).await.unwrap().status(), 200);
    }
    assert_eq!(counts().await, (one + 10, two + 10), "in turns");
}

async fn what_hashes_to_a_node_stays_there(transport: Transport) {
    let cloud = Cloud::new().egress("balance", "hash").egress("affinity", "\"%REQ(x-session)%\"");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let (_second, target) = site.join(second(transport)).await;
    for session in 0..20 {
        let before = target.requests().len();
        let fields = ["x-cluster-id: stores", &format!("x-session: {session}")];
        for _ in 0..3 {
            assert_eq!(get(site.egress(), "/", &fields).await.unwrap().status(), 200);
        }
        assert!(matches!(target.requests().len() - before, 0 | 3), "session {session} was split");
    }
    assert!((1..60).contains(&target.requests().len()), "all sessions went to one node");
}

async fn the_tunnels_of_a_node_share_its_requests(transport: Transport) {
    let site = Site::with(Cloud::new(), Edge::new(transport).count(3)).await;
    let _under_way = hang(&site, TO_NODE, 90).await;
    eventually("90 requests", async || (site.target.requests().len() == 90).then_some(())).await;
    let tunnels = site.responder.0.tunnels().await.accepted;
    let in_flight: Vec<u32> = tunnels.iter().map(|tunnel| tunnel.in_flight).collect();
    assert_eq!(in_flight.iter().sum::<u32>(), 90);
    assert!(in_flight.iter().all(|count| *count > 0), "{in_flight:?}");
}

async fn a_target_that_refuses_is_502_and_names_the_cause(transport: Transport) {
    let service = format!("{{ name: gone, match: {{}}, target: \"http://{}\" }}", free_address());
    let site = Site::with(Cloud::new(), Edge::new(transport).service(&service)).await;
    assert_eq!(failure(&site.get("/").await), (502, "connection_refused"));
}

async fn a_target_that_does_not_speak_http_is_502(transport: Transport) {
    let raw = RawTarget::new().await;
    let service = format!("{{ name: raw, match: {{}}, target: \"http://{}\" }}", raw.address());
    let site = Site::with(Cloud::new(), Edge::new(transport).service(&service)).await;
    let answer = async {
        let (mut peer, _) = raw.accept().await;
        peer.send("220 mail.example ESMTP\r\n").await.unwrap();
    };
    let (response, ()) = tokio::join!(site.get("/"), answer);
    assert_eq!(failure(&response), (502, "http_protocol_error"));
}

async fn a_late_response_is_504_and_the_target_is_told(transport: Transport) {
    let site = Site::with(Cloud::new().egress("deadline", "300ms"), Edge::new(transport)).await;
    // One that is late before it comes to the target is nothing that the target could be told of.
    eventually("a request at the target that is given up", async || {
        assert_eq!(failure(&site.get("/hang").await), (504, "http_response_timeout"));
        (!site.target.requests().is_empty()).then_some(())
    })
    .await;
    let hanging = site.target.requests().len();
    site.cancelled(hanging).await;
    // Its end comes after 500 ms at the earliest.
    eventually("a response of which only the beginning has a deadline", async || {
        let response = get(site.egress(), "/chunks/5/100", &[TO_NODE]).await.ok()?;
        (response.status() == 200 && response.text().ends_with("chunk 4\n")).then_some(())
    })
    .await;
}

/// A site whose initiator has left, and the file to start it from.
async fn left(transport: Transport, hold: &str) -> (Site, std::path::PathBuf) {
    let site = Site::with(Cloud::new().egress("hold", hold), Edge::new(transport)).await;
    let mut site = site;
    site.initiator.terminate();
    assert!(site.initiator.exit().await.success());
    site.responder.registered(0).await;
    let file = site.initiator.file().to_owned();
    (site, file)
}

async fn a_node_that_reconnects_is_waited_for(transport: Transport) {
    let (site, file) = left(transport, "5m").await;
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(get(site.egress(), "/", &[TO_NODE]));
    }
    eventually("5 requests in flight", async || {
        let in_flight = site.responder.0.metric("adit_exchanges_in_flight{side=\"egress\"}").await;
        (in_flight == 5).then_some(())
    })
    .await;
    let _again = Running::start(file).await;
    while let Some(response) = waiting.join_next().await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
}

async fn a_node_that_stays_away_is_503(transport: Transport) {
    let (site, _) = left(transport, "300ms").await;
    let since = std::time::Instant::now();
    let response = site.get("/").await;
    assert_eq!(failure(&response), (503, "destination_unavailable"));
    assert!(since.elapsed() >= Duration::from_millis(300), "it was waited for");
    assert!(response.field("retry-after").is_some());
}
