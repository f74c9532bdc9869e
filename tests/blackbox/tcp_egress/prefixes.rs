//! How many connections sources of one address prefix may have.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Bytes, site_with};
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Site, Transport, over_each_transport};

over_each_transport!(
    sources_of_one_prefix_have_so_many_connections_and_others_their_own,
    behind_a_proxy_that_is_trusted_those_count_whom_it_names,
);

/// A connection from there that begins with these bytes, and its other end; `None`: it is reset.
async fn opened(site: &Site, target: &Bytes, from: [u8; 4], bytes: &[u8]) -> Option<(TcpStream, TcpStream)> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::from(from), 0).into()).unwrap();
    let mut client = socket.connect(site.responder.tcp_at(0)).await.ok()?;
    client.write_all(bytes).await.ok()?;
    let accepted = tokio::select! {
        peer = target.accept() => Some(peer),
        end = client.read_u8() => {
            assert!(end.is_err());
            None
        }
    };
    accepted.map(|peer| (client, peer))
}

async fn refused(site: &Site) -> u64 {
    site.responder.0.metric("adit_listener_limits_total{listener=\"egress\",limit=\"prefix\"}").await
}

async fn sources_of_one_prefix_have_so_many_connections_and_others_their_own(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().and_tcp("bytes").egress("limits", "{ connections_per_prefix: 2 }");
    let site = site_with(cloud, transport, target.address()).await;
    let open = async |from| opened(&site, &target, from, b"").await;
    let first = open([127, 7, 0, 1]).await.unwrap();
    let _second = open([127, 7, 0, 2]).await.unwrap();
    assert!(open([127, 7, 0, 3]).await.is_none() && open([127, 7, 0, 1]).await.is_none());
    assert_eq!(refused(&site).await, 2);
    let _others = (open([127, 7, 1, 1]).await.unwrap(), open([127, 7, 1, 2]).await.unwrap());
    drop(first);
    let _room = eventually("room for one that ended", async || open([127, 7, 0, 3]).await).await;
    assert!(open([127, 7, 0, 4]).await.is_none());
}

async fn behind_a_proxy_that_is_trusted_those_count_whom_it_names(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().and_tcp("bytes").egress("limits", "{ connections_per_prefix: 1 }");
    let site = site_with(cloud.egress("proxy_protocol", "[\"127.0.0.0/8\"]"), transport, target.address()).await;
    let open = async |client: &str| {
        let header = format!("PROXY TCP4 {client} 198.51.100.1 4711 443\r\n");
        opened(&site, &target, [127, 0, 0, 1], header.as_bytes()).await
    };
    let _first = open("192.0.2.7").await.unwrap();
    assert!(open("192.0.2.200").await.is_none());
    let _others = (open("192.0.3.7").await.unwrap(), open("203.0.113.7").await.unwrap());
    assert_eq!(refused(&site).await, 1);
}
