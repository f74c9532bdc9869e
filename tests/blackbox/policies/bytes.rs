//! Policies of a listener for bytes: by who connects, and by the name that is asked for in TLS.

use std::io::ErrorKind;
use std::sync::Arc;

use adit::tls;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Edge, Site, Transport, over_each_transport};

over_each_transport!(connections_are_judged_by_their_source_and_by_the_name_in_their_tls);

const BY_SOURCE: &str = "[{ priority: 2, name: elsewhere, match: { source: 10.0.0.0/8 }, action: allow },\
    { priority: 1, name: all, match: { source: 127.0.0.0/8, service: first }, action: deny }]";
const BY_NAME: &str = "[{ priority: 2, name: closed, match: { host: closed.example }, action: deny },\
    { priority: 1, name: moved, match: { host: \"*.moved.example\" }, action: reroute, to: { service: second } }]";

/// Says this name, and nothing more of worth.
async fn hello(site: &Site, listener: usize, name: &str) -> std::io::Result<()> {
    let config = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(site.folder.authority.roots()).with_no_client_auth();
    let stream = TcpStream::connect(site.responder.tcp_at(listener)).await?;
    let name = name.to_owned().try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(drop)
}

/// The first bytes of a client that asks for this name.
pub(super) fn first_words(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn connections_are_judged_by_their_source_and_by_the_name_in_their_tls(transport: Transport) {
    let listeners = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let mut edge = Edge::new(transport);
    for (name, listener) in ["first", "second"].iter().zip(&listeners) {
        edge = edge.service(&format!("{{ name: {name}, target: \"tcp://{}\" }}", listener.local_addr().unwrap()));
    }
    let cloud = Cloud::new();
    let cloud = cloud.and_tcp("first").egress("policies", BY_SOURCE).and_tcp("first").egress("policies", BY_NAME);
    let site = Site::with(cloud, edge).await;

    // The reset may come before the client knows that it is connected.
    let end = async { TcpStream::connect(site.responder.tcp_at(0)).await?.read_to_end(&mut Vec::new()).await }.await;
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    let line = eventually("the line of a denial", async || {
        site.responder.0.lines_of("exchange").into_iter().find(|line| line["rule"] == "rule 1 (all)")
    })
    .await;
    assert_eq!((&line["cause"], &line["outcome"]), (&"denied".into(), &"failed".into()), "{line}");

    assert!(hello(&site, 1, "closed.example").await.is_err());
    for (name, listener) in [("a.moved.example", &listeners[1]), ("open.example", &listeners[0])] {
        let (asked, accepted) = tokio::join!(hello(&site, 1, name), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0];
            stream.read_exact(&mut first).await.unwrap();
            first[0]
        });
        assert_eq!((asked.is_err(), accepted), (true, 22), "{name}: the handshake arrives as it was sent");
    }
    let decided = async |rule: &str, action: &str| {
        let series = format!("adit_policy_decisions_total{{side=\"egress\",rule=\"{rule}\",action=\"{action}\"}}");
        site.responder.0.metric(&series).await
    };
    assert_eq!((decided("all", "deny").await, decided("closed", "deny").await), (1, 1));
    assert_eq!(decided("moved", "reroute").await, 1);
}
