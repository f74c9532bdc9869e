//! TLS and HTTP/3 of listeners that are there already, or were.

use std::sync::Arc;

use adit::tls;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trigger::{reload, rewrite};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, Response};
use crate::support::http3::{Http3, request, wait};
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    tls_and_http3_come_and_go_at_a_listener_that_stays,
    a_listener_that_was_removed_is_there_again_while_its_http3_still_drains,
);

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n";

async fn secured(site: &Site) -> RawHttp<TlsStream<TcpStream>> {
    let config = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let roots = site.folder.authority.roots();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(site.egress()).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await;
    RawHttp::over(stream.unwrap())
}

async fn ask(site: &Site) -> Response {
    let mut client = secured(site).await;
    client.send(format!("{GET}{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    client.response().await.unwrap()
}

async fn tls_and_http3_come_and_go_at_a_listener_that_stays(transport: Transport) {
    // The UDP port comes later: it is that of TCP, and must be free then, too.
    let address = free_address();
    let cloud = Cloud::new().egress("http", &format!("\"{address}\""));
    let of_listener = |key: &str| format!("egress[{address}].{key}");
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let mut former = site.connect().await;
    let with_tls = cloud.clone().egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    let changes = rewrite(&site.responder.0, &with_tls.text()).await.changes();
    assert!(changes.iter().any(|change| change.starts_with(&format!("+ {}", of_listener("tls")))), "{changes:?}");
    let answer = ask(&site).await;
    assert_eq!(answer.status(), 200);
    let alternative = format!("h3=\":{}\"", site.egress().port());
    assert!(answer.field("alt-svc").unwrap().starts_with(&alternative), "{answer:?}");
    if let Some(client) = Http3::start(site.egress(), &site.folder, vec![request("a", "GET", "/"), wait("a")]) {
        assert_eq!(client.answer("a").await.status(), 200);
    }
    // Who came before goes on as he came.
    former.send(format!("{GET}{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(former.response().await.unwrap().status(), 200);

    let without = with_tls.clone().egress("http3", "false");
    rewrite(&site.responder.0, &without.text()).await.changes();
    assert_eq!(ask(&site).await.field("alt-svc"), None);
    let before = secured(&site).await;
    site.folder.authority.responder().write(site.folder.path(), "cloud");
    let changes = reload(&site.responder.0).await.changes();
    assert!(changes.contains(&format!("~ {}: another certificate", of_listener("tls.cert"))), "{changes:?}");
    let shown = |client: RawHttp<TlsStream<TcpStream>>| {
        client.into_parts().0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    assert_ne!(shown(secured(&site).await), shown(before));

    rewrite(&site.responder.0, &cloud.text()).await.changes();
    eventually("clear text again", async || (site.get("/").await.status() == 200).then_some(())).await;
}

// Regression: its UDP port could not be bound as long as a connection of before lasted.
async fn a_listener_that_was_removed_is_there_again_while_its_http3_still_drains(transport: Transport) {
    let (address, cloud) = (free_address(), Cloud::new());
    let both = cloud.clone().and_egress().egress("http", &format!("\"{address}\""));
    let both = both.egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    let site = Site::with(both.clone(), Edge::new(transport)).await;
    let steps = vec![
        request("long", "GET", "/chunks/100/100"),
        json!({ "do": "head", "name": "long" }),
        json!({ "do": "goaway" }),
        wait("long"),
        json!({ "do": "closed" }),
    ];
    let Some(former) = Http3::start(address, &site.folder, steps) else { return };
    former.did("head", "long").await;
    rewrite(&site.responder.0, &cloud.text()).await.changes();
    former.did_once("goaway").await;
    for _ in 0..2 {
        rewrite(&site.responder.0, &both.text()).await.changes();
        // Without a connection of its own it is over at once, which is nothing to the one before.
        rewrite(&site.responder.0, &cloud.text()).await.changes();
    }
    rewrite(&site.responder.0, &both.text()).await.changes();
    for _ in 0..2 {
        let client = Http3::start(address, &site.folder, vec![request("a", "GET", "/"), wait("a")]).unwrap();
        assert_eq!(client.answer("a").await.status(), 200);
    }
    let answer = former.answer("long").await;
    assert!(answer.is_whole() && answer.text().ends_with("chunk 99\n"), "{answer:?}");
    // That of the former listener, which leaves the socket to the other one.
    assert_eq!(former.did_once("closed").await["code"], 0x100);
    let client = Http3::start(address, &site.folder, vec![request("a", "GET", "/"), wait("a")]).unwrap();
    assert_eq!(client.answer("a").await.status(), 200);
}
