//! What cannot be brought to a target: the connection is reset, and the cause is logged and counted.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Bytes, opened};
use crate::support::ports;
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};

over_each_transport!(
    what_is_brought_nowhere_is_reset_and_the_cause_is_logged_and_counted,
    who_leaves_in_the_middle_of_what_says_where_to_go_is_logged_and_counted,
);

async fn is_reset(to: SocketAddr) {
    // It may come before the client knows that it is connected.
    let read = async { TcpStream::connect(to).await?.read_to_end(&mut Vec::new()).await };
    let kind = read.await.map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::ConnectionReset));
}

async fn what_is_brought_nowhere_is_reset_and_the_cause_is_logged_and_counted(transport: Transport) {
    let target = Bytes::new().await;
    let nobody = format!("{{ node: nobody, service: bytes, tenant: {} }}", NODE.tenant);
    let cloud = Cloud::new()
        .and_tcp("bytes")
        .and_tcp("bytes")
        .egress("to", &nobody)
        .and_tcp("nothing")
        .and_tcp("web")
        .and_tcp("refused");
    let edge = Edge::new(transport)
        .service("{ name: web, match: {}, target: \"{target}\" }")
        .service(&format!("{{ name: refused, target: \"tcp://{}\" }}", ports::free_address()))
        .service(&format!("{{ name: bytes, target: \"tcp://{}\" }}", target.address()));
    let site = Site::with(cloud, edge).await;
    for (listener, cause) in
        [(1, "unknown_host"), (2, "unknown_service"), (3, "unknown_service"), (4, "target_refused")]
    {
        let to = site.responder.tcp_at(listener);
        let series = format!("adit_exchanges_failed_total{{side=\"egress\",cause=\"{cause}\"}}");
        let before = site.responder.0.metric(&series).await;
        is_reset(to).await;
        let line = site.responder.0.line_with(&format!("\"listener\":\"{to}\"")).await;
        assert_eq!((&line["outcome"], &line["cause"]), (&"failed".into(), &cause.into()), "{line}");
        site.responder.0.counted(&series, before + 1).await;
    }
    let _both = opened(&site, &target).await;
}

async fn who_leaves_in_the_middle_of_what_says_where_to_go_is_logged_and_counted(transport: Transport) {
    let routes = "[{ server_name: a.example, service: bytes }]";
    let by_name = Cloud::new().and_tcp("bytes").egress("routes", routes).egress("to", "{ node: edge-1 }");
    let cloud = by_name.egress("tenant", NODE.tenant).and_tcp("bytes").egress("proxy_protocol", "[127.0.0.0/8]");
    let target = Bytes::new().await;
    let edge = Edge::new(transport).service(&format!("{{ name: bytes, target: \"tcp://{}\" }}", target.address()));
    let site = Site::with(cloud, edge).await;
    let series = "adit_exchanges_failed_total{side=\"egress\",cause=\"request_cut\"}";
    // The beginnings of a ClientHello, and of a PROXY header.
    for (listener, begins) in [(0, &b"\x16\x03\x01\x02\x00\x01"[..]), (1, b"PROXY TCP4 192.0.2.1 ")] {
        let to = site.responder.tcp_at(listener);
        let before = site.responder.0.metric(series).await;
        let mut client = TcpStream::connect(to).await.unwrap();
        client.write_all(begins).await.unwrap();
        client.shutdown().await.unwrap();
        let _ = client.read_to_end(&mut Vec::new()).await;
        site.responder.0.counted(series, before + 1).await;
        let line = site.responder.0.line_with(&format!("\"listener\":\"{to}\"")).await;
        assert_eq!((&line["outcome"], &line["cause"]), (&"refused".into(), &"request_cut".into()), "{line}");
    }
}
