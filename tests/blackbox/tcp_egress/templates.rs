//! Connections whose node, tenant and service are made of what is known of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::passthrough::{hello, sent_whole, targets};
use super::{Bytes, connect};
use crate::support::certificates::Node;
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};

over_each_transport!(
    labels_of_the_name_in_tls_say_service_node_and_tenant,
    who_a_proxy_names_may_be_the_node_that_is_asked,
);

async fn labels_of_the_name_in_tls_say_service_node_and_tenant(transport: Transport) {
    let targets = targets().await;
    let mut edge = Edge::new(transport);
    for (name, target) in ["a", "b"].iter().zip(&targets) {
        edge = edge.service(&format!("{{ name: {name}, target: \"tcp://{}\" }}", target.address()));
    }
    let cloud = Cloud::new()
        .and_tcp("a")
        .without("to")
        .egress("service", "\"%REQUESTED_SERVER_NAME(1)%\"")
        .egress("host_id", "\"%REQUESTED_SERVER_NAME(2)%\"")
        .egress("tenant", "\"%REQUESTED_SERVER_NAME(3)%\"")
        .egress("routes", "[{ server_name: fixed.example, service: b, host_id: edge-1 }]")
        .egress("hold", "0s");
    let site = Site::with(cloud, edge).await;
    for (name, target) in [("a.edge-1.acme.example.org", 0), ("B.edge-1.acme", 1), ("a.stores.acme.x", 0)] {
        sent_whole(&site, &targets[target], &hello(name), usize::MAX).await;
    }
    for (name, cause) in [
        ("nobody.edge-1.acme.example.org", "unknown_service"),
        ("a.edge-2.acme.example.org", "unknown_host"),
        ("a.edge-1.other.example.org", "unknown_host"),
        ("a.edge-1", "no_host_id"),
        ("fixed.example", "no_host_id"),
        ("127.0.0.1", "unknown_service"),
    ] {
        let mut client = connect(&site).await;
        client.write_all(&hello(name)).await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap_err();
        let authority = if name == "127.0.0.1" { site.responder.tcp_at(0).ip().to_string() } else { name.to_owned() };
        let line = site.responder.0.line_with(&format!("\"authority\":\"{authority}:")).await;
        assert_eq!(line["cause"], cause, "{line}");
    }
}

async fn who_a_proxy_names_may_be_the_node_that_is_asked(transport: Transport) {
    let target = Bytes::new().await;
    let edge = Edge::new(transport).claim(Node { node: "192.0.2.7", ..NODE });
    let edge = edge.service(&format!("{{ name: a, target: \"tcp://{}\" }}", target.address()));
    let cloud = Cloud::new()
        .and_tcp("a")
        .without("to")
        .egress("host_id", "\"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"")
        .egress("tenant", NODE.tenant)
        .egress("service", "a")
        .egress("proxy_protocol", "[\"127.0.0.1\"]");
    let site = Site::with(cloud, edge).await;
    let mut client = connect(&site).await;
    client.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nhello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut arrived = Vec::new();
    target.accept().await.read_to_end(&mut arrived).await.unwrap();
    assert_eq!(arrived, b"hello");
}
