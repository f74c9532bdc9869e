//! Connections of TLS that go by the name that they ask for, and are not decrypted.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use adit::tls;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Bytes, connect, nothing_is_left};
use crate::support::certificates::Authority;
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};
use crate::support::targets::pattern;
use crate::support::tools;

over_each_transport!(
    three_names_on_one_port_reach_three_services_that_show_their_own_certificates,
    a_hello_arrives_as_it_was_sent_however_it_is_split,
    what_names_nobody_goes_where_the_listener_says_or_is_reset,
    who_waits_for_the_server_to_speak_has_no_name_and_who_begins_with_tls_is_waited_for,
    the_name_is_the_node_that_is_asked,
    openssl_is_served_by_the_name_it_asks_for,
);

const ROUTES: &str = "[{ server_name: \"A.example.org\", service: a }, { server_name: b.example.org, service: b }, \
                      { server_name: \"*.example.org\", service: other }]";

/// A site with a service for each name, and one for those that have none.
pub(super) async fn site(transport: Transport, targets: &[Bytes; 4], keys: &[(&str, &str)]) -> Site {
    let mut edge = Edge::new(transport);
    for (name, target) in ["a", "b", "other", "none"].iter().zip(targets) {
        edge = edge.service(&format!("{{ name: {name}, target: \"tcp://{}\" }}", target.address()));
    }
    let to = format!("{{ node: {}, tenant: {} }}", NODE.node, NODE.tenant);
    let cloud = Cloud::new().and_tcp("none").egress("to", &to).egress("routes", ROUTES);
    let cloud = keys.iter().fold(cloud, |cloud, (key, value)| cloud.egress(key, value));
    Site::with(cloud, edge).await
}

pub(super) async fn targets() -> [Bytes; 4] {
    [Bytes::new().await, Bytes::new().await, Bytes::new().await, Bytes::new().await]
}

fn client_config(authority: &Authority) -> Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    Arc::new(config.unwrap().with_root_certificates(authority.roots()).with_no_client_auth())
}

/// A server of TLS for this name: answers a connection with what it sent.
pub(super) fn acceptor(authority: &Authority, name: &str) -> TlsAcceptor {
    let shown = authority.either_role(name, None);
    let config = rustls::ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(shown.chain(), shown.private_key());
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn three_names_on_one_port_reach_three_services_that_show_their_own_certificates(transport: Transport) {
    let (authority, targets) = (Authority::new("targets"), targets().await);
    let site = site(transport, &targets, &[]).await;
    let config = client_config(&authority);
    for (index, name) in ["a.example.org", "b.example.org", "c.example.org"].into_iter().enumerate() {
        let acceptor = acceptor(&authority, name);
        let serving = async {
            let mut stream = acceptor.accept(targets[index].accept().await).await.unwrap();
            let mut bytes = vec![0; 300_000];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let asking = async {
            let stream = connect(&site).await;
            let name = ServerName::try_from(name).unwrap();
            // It checks that the certificate has the name.
            let mut stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
            let sent = pattern(0, 300_000);
            stream.write_all(&sent).await.unwrap();
            stream.flush().await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            assert!(received == sent);
        };
        tokio::join!(serving, asking);
        let line = site.responder.0.line_with(&format!("\"authority\":\"{name}:")).await;
        assert_eq!(line["outcome"], "complete", "{line}");
    }
    nothing_is_left(&site).await;
}

/// The first bytes of a client that asks for this name.
pub(super) fn hello(name: &str) -> Vec<u8> {
    let config = client_config(&Authority::new("nobody"));
    let mut client = rustls::ClientConnection::new(config, ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same message in records of this many bytes.
pub(super) fn records(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&hello[..3], &u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat();
    hello[5..].chunks(size).flat_map(record).collect()
}

pub(super) async fn sent_whole(site: &Site, target: &Bytes, sent: &[u8], segment: usize) {
    let mut client = connect(site).await;
    let sending = async {
        for part in sent.chunks(segment) {
            client.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
    };
    let arriving = async {
        let mut bytes = Vec::new();
        target.accept().await.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    // Where it goes elsewhere, that is a failure and no wait without end.
    let both = timeout(PATIENCE, async { tokio::join!(sending, arriving) });
    let ((), arrived) = both.await.expect("the target is reached");
    assert!(arrived == sent, "{} bytes of {} in segments of {segment}", arrived.len(), sent.len());
}

async fn a_hello_arrives_as_it_was_sent_however_it_is_split(transport: Transport) {
    let targets = targets().await;
    let site = site(transport, &targets, &[]).await;
    for (index, name) in ["a.EXAMPLE.org", "b.example.org", "x.y.example.org"].into_iter().enumerate() {
        let hello = hello(name);
        for (segment, record) in [(usize::MAX, 16_000), (1, 16_000), (100, 64), (usize::MAX, 1)] {
            sent_whole(&site, &targets[index], &records(&hello, record), segment).await;
        }
    }
}

async fn what_names_nobody_goes_where_the_listener_says_or_is_reset(transport: Transport) {
    let targets = targets().await;
    let with_default = site(transport, &targets, &[("service", "none")]).await;
    for sent in [&hello("127.0.0.1")[..], &hello("example.net"), b"SSH-2.0-somebody\r\n"] {
        sent_whole(&with_default, &targets[3], sent, usize::MAX).await;
    }
    let without = site(transport, &targets, &[]).await;
    let listener = without.responder.tcp_at(0);
    for (nth, (sent, cause)) in [
        (&hello("127.0.0.1")[..], "unknown_service"),
        (&hello("example.net"), "unknown_service"),
        (b"SSH-2.0-somebody\r\n", "unknown_service"),
        (b"\x16\x03\x01\0\0", "bad_request"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = TcpStream::connect(listener).await.unwrap();
        client.write_all(sent).await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap_err();
        let lines = async || without.responder.0.lines_of("exchange").into_iter().nth(nth);
        assert_eq!(eventually("a line of each", lines).await["cause"], cause);
    }
    assert_eq!(without.responder.0.lines_of("exchange").len(), 4);
}

async fn who_waits_for_the_server_to_speak_has_no_name_and_who_begins_with_tls_is_waited_for(transport: Transport) {
    let targets = targets().await;
    let site = site(transport, &targets, &[("service", "none"), ("nameless_after", "2s")]).await;
    let mut client = connect(&site).await;
    let greeting = async {
        let mut peer = targets[3].accept().await;
        peer.write_all(b"220 ready").await.unwrap();
        peer
    };
    let mut heard = [0; 9];
    let both = timeout(PATIENCE, async { tokio::join!(client.read_exact(&mut heard), greeting) });
    let (read, _peer) = both.await.expect("the server is reached although its client says nothing");
    read.unwrap();
    assert_eq!(&heard, b"220 ready");

    // One that has begun with TLS takes longer than that for the rest.
    let hello = hello("a.example.org");
    let mut slow = connect(&site).await;
    slow.write_all(&hello[..1]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    slow.write_all(&hello[1..]).await.unwrap();
    let mut arrived = vec![0; hello.len()];
    let arriving = async { targets[0].accept().await.read_exact(&mut arrived).await };
    timeout(PATIENCE, arriving).await.expect("its name counts").unwrap();
    assert!(arrived == hello);
}

async fn the_name_is_the_node_that_is_asked(transport: Transport) {
    let targets = targets().await;
    let edge = Edge::new(transport).service(&format!("{{ name: a, target: \"tcp://{}\" }}", targets[0].address()));
    let cloud = Cloud::new()
        .and_tcp("a")
        .without("to")
        .egress("host_id", "\"%REQUESTED_SERVER_NAME%\"")
        .egress("tenant", NODE.tenant)
        .egress("service", "a");
    let site = Site::with(cloud, edge).await;
    sent_whole(&site, &targets[0], &hello(NODE.node), usize::MAX).await;
    let mut client = connect(&site).await;
    client.write_all(&hello("another-node")).await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(site.responder.0.line_with("another-node").await["cause"], "unknown_host");
}

async fn openssl_is_served_by_the_name_it_asks_for(transport: Transport) {
    let Some(openssl) = tools::find("openssl") else { return };
    let (authority, targets) = (Authority::new("targets"), targets().await);
    let site = site(transport, &targets, &[]).await;
    for (index, name) in ["a.example.org", "b.example.org"].into_iter().enumerate() {
        let acceptor = acceptor(&authority, name);
        let serving = async {
            let mut stream = acceptor.accept(targets[index].accept().await).await.unwrap();
            stream.write_all(b"served\n").await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let mut command = Command::new(&openssl);
        command.args(["s_client", "-quiet", "-connect", &site.responder.tcp_at(0).to_string(), "-servername", name]);
        command.stdin(std::process::Stdio::null());
        let asking = tokio::task::spawn_blocking(move || command.output().unwrap());
        let ((), output) = tokio::join!(serving, asking);
        let said = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
        assert!(said.contains("served"), "{said}");
    }
}
