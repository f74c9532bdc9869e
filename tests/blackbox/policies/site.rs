//! Policies of an initiator: what reaches which of its services.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use crate::support::certificates::Node;
use crate::support::datagrams::{Client, Peer, ask};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(
    a_site_decides_what_reaches_its_services,
    a_denial_of_a_site_is_an_answer_and_not_tried_elsewhere,
    a_site_knows_its_responder_by_name,
    who_is_denied_by_address_sends_no_bytes_and_no_datagrams_either,
    where_nobody_says_who_connects_a_rule_about_it_denies,
);

const RULES: &str = "[\
    { priority: 900, name: closed, match: { prefix: /closed }, action: deny, status: 451 },\
    { priority: 800, name: no-shell, match: { method: CONNECT, service: shell }, action: deny },\
    { priority: 700, name: moved, match: { service: old, method: [GET] }, action: reroute, to: { service: web } },\
    { priority: 600, name: moved-bytes, match: { service: bytes }, action: reroute, to: { service: echo } },\
    { priority: 500, name: far, match: { source: 192.0.2.0/24 }, action: deny },\
    { priority: 400, name: near, match: { source: 127.0.0.0/8, path: /near }, action: deny }]";

async fn a_site_decides_what_reaches_its_services(transport: Transport) {
    let (bytes, old) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Target::http1().await);
    let address = bytes.local_addr().unwrap();
    let edge = Edge::new(transport)
        .service("{ name: web, match: {}, target: \"{target}\" }")
        .service(&format!("{{ name: old, match: none, target: \"http://{}\" }}", old.address()))
        .service("{ name: shell, target: \"tcp://127.0.0.1:9\" }")
        .service("{ name: bytes, target: \"tcp://127.0.0.1:9\" }")
        .service(&format!("{{ name: echo, target: \"tcp://{address}\" }}"))
        .initiator("policies", RULES);
    let cloud = Cloud::new().egress("connect", "true").and_egress().egress("service", "old");
    let site = Site::with(cloud, edge).await;

    let denied = site.get("/x/../closed/a").await;
    assert_eq!(denied.status(), 451);
    let said = denied.field("proxy-status").unwrap();
    assert!(said.contains("http_request_denied") && said.contains("rule 900 (closed) of this initiator"), "{said}");
    assert_eq!((site.get("/near").await.status(), site.target.requests().len()), (403, 0));
    let claims = [TO_NODE, "x-forwarded-for: 192.0.2.7", "forwarded: for=192.0.2.7"];
    assert_eq!(
        get(site.egress(), "/open", &claims).await.unwrap().status(),
        200,
        "what a client says of itself is nothing"
    );

    assert_eq!(get(site.responder.egress_at(1), "/a", &[TO_NODE]).await.unwrap().status(), 200);
    assert_eq!((site.target.requests().len(), old.requests().len()), (2, 0), "another service has taken it");

    let connect = async |service: &str| {
        let mut client = RawHttp::connect(site.egress()).await.unwrap();
        client
            .send(format!("CONNECT {service}:1 HTTP/1.1\r\nhost: {service}:1\r\n{TO_NODE}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let head = client.head().await.unwrap();
        (client, head)
    };
    let (_, head) = connect("shell").await;
    assert_eq!(head.status, 403);
    assert!(head.field("proxy-status").unwrap().contains("no-shell"), "{head:?}");
    let (client, mut target) = tokio::join!(connect("bytes"), async { bytes.accept().await.unwrap().0 });
    assert_eq!(client.1.status, 200);
    target.write_all(b"hello").await.unwrap();
    let mut said = [0; 5];
    client.0.into_parts().0.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");

    for (rule, action) in
        [("closed", "deny"), ("no-shell", "deny"), ("moved", "reroute"), ("moved-bytes", "reroute"), ("near", "deny")]
    {
        let series = format!("adit_policy_decisions_total{{side=\"target\",rule=\"{rule}\",action=\"{action}\"}}");
        assert_eq!(site.initiator.metric(&series).await, 1, "{series}");
    }
    let line = eventually("a line that names the rule", async || {
        site.initiator.lines_of("exchange").into_iter().find(|line| line["rule"] == "rule 900 (closed)")
    })
    .await;
    assert_eq!((&line["status"], &line["cause"]), (&451.into(), &"denied".into()));
}

// spec: ST-80
async fn a_denial_of_a_site_is_an_answer_and_not_tried_elsewhere(transport: Transport) {
    let raw = "{ name: shell, target: \"tcp://127.0.0.1:9\" }";
    let edge = |rules: &str| {
        let edge = Edge::new(transport).service("{ name: web, match: {}, target: \"{target}\" }").service(raw);
        edge.initiator("policies", rules)
    };
    let rules = "[{ priority: 1, match: any, action: deny }]";
    let site = Site::with(Cloud::new().egress("connect", "true"), edge(rules)).await;
    let second = edge(rules).claim(Node { node: "edge-2", ..NODE }).named("second");
    let (second, _) = site.join(second).await;
    for _ in 0..8 {
        assert_eq!(get(site.egress(), "/", &["x-cluster-id: stores"]).await.unwrap().status(), 403);
        let mut client = RawHttp::connect(site.egress()).await.unwrap();
        let head = "CONNECT shell:1 HTTP/1.1\r\nhost: shell:1\r\nx-cluster-id: stores\r\n\r\n";
        client.send(head.as_bytes()).await.unwrap();
        assert_eq!(client.head().await.unwrap().status, 403);
    }
    let series = "adit_policy_decisions_total{side=\"target\",rule=\"1\",action=\"deny\"}";
    assert_eq!(site.initiator.metric(series).await + second.metric(series).await, 16, "each was asked of one node");
    assert!(site.responder.0.ask(Method::GET, "/tunnels").await.1.contains("edge-2"));
}

async fn a_site_knows_its_responder_by_name(transport: Transport) {
    let rules = "[{ priority: 2, name: ours, match: { peer: localhost }, action: allow }, { priority: 1, match: any, action: deny }]";
    let site = Site::with(Cloud::new(), Edge::new(transport).initiator("policies", rules)).await;
    assert_eq!(site.get("/").await.status(), 200);
    let others = rules.replace("localhost", "other.example");
    let site = Site::with(Cloud::new(), Edge::new(transport).initiator("policies", &others)).await;
    assert_eq!(site.get("/").await.status(), 403);
}

// spec: ST-66, TB-16
async fn who_is_denied_by_address_sends_no_bytes_and_no_datagrams_either(transport: Transport) {
    let (bytes, datagrams) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Peer::echo().await);
    let rules = "[{ priority: 9, name: far, match: { source: 127.7.0.1 }, action: deny }]";
    let edge = Edge::new(transport)
        .service(&format!("{{ name: bytes, target: \"tcp://{}\" }}", bytes.local_addr().unwrap()))
        .service(&format!("{{ name: echo, target: \"udp://{}\" }}", datagrams.address()))
        .initiator("policies", rules);
    let site = Site::with(Cloud::new().and_tcp("bytes").and_udp("echo"), edge).await;
    let from = |last: u8| IpAddr::V4(Ipv4Addr::new(127, 7, 0, last));
    let connect = async |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from(last), 0).into()).unwrap();
        socket.connect(site.responder.tcp_at(0)).await
    };
    let decided = async |count: u64| {
        let series = "adit_policy_decisions_total{side=\"target\",rule=\"far\",action=\"deny\"}";
        eventually("a denial", async || (site.initiator.metric(series).await == count).then_some(())).await;
    };

    // The reset may come before the client knows that it is connected.
    let end = async { connect(1).await?.read_to_end(&mut Vec::new()).await }.await;
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    decided(1).await;
    let (connected, accepted) = tokio::join!(connect(2), bytes.accept());
    assert!(connected.is_ok() && accepted.is_ok());

    let udp = site.responder.udp_at(0);
    Client::at(from(1), udp).await.send(b"denied").await;
    decided(2).await;
    assert_eq!(ask(&Client::at(from(2), udp).await, b"plain").await, b"plain");
    assert!(datagrams.seen().iter().all(|(_, datagram)| datagram == b"plain"));
}

async fn where_nobody_says_who_connects_a_rule_about_it_denies(transport: Transport) {
    let rules = "[{ priority: 9, name: far, match: { source: 192.0.2.0/24, path: /near }, action: deny }]";
    let cloud = Cloud::new().and_egress().egress("forwarded", "none");
    let site = Site::with(cloud, Edge::new(transport).initiator("policies", rules)).await;
    assert_eq!(site.get("/near").await.status(), 200, "who connects is known, and another one");
    let ask = |path: &'static str| get(site.responder.egress_at(1), path, &[TO_NODE]);
    let denied = ask("/near").await.unwrap();
    assert_eq!(denied.status(), 403);
    let said = denied.field("proxy-status").unwrap();
    assert!(said.contains("a rule asks who connected"), "{said}");
    assert_eq!(ask("/open").await.unwrap().status(), 200, "the rule is not about it");
}
