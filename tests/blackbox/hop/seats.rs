//! What one sibling may hold here that connects again and again.

use std::sync::Arc;

use adit::protocol::fleet::{Greeted, Greeting};
use adit::protocol::handshake::PeerLimits;
use adit::tls::{SiblingTls, sibling_client_config};
use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};

use super::world::{Member, Table, certificate_of, credentials, trust};
use crate::support::certificates::Authority;

/// Greets as `z` and says nothing more; whether it was taken.
async fn greets(authority: &Authority, member: &Member) -> (Connection, SendStream, RecvStream, bool) {
    let shows = certificate_of(authority, "spiffe://example.org/responder/z");
    let tls = SiblingTls { credentials: credentials(&shows), siblings: trust(authority) };
    let crypto = QuicClientConfig::try_from(sibling_client_config(&tls).unwrap()).unwrap();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connection = endpoint.connect_with(config, member.hop, "sibling").unwrap().await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let mut said = BytesMut::new();
    Greeting { responder: "z".parse().unwrap(), epoch: 1, limits: PeerLimits::default(), here: true }.encode(&mut said);
    send.write_all(&said).await.unwrap();
    let mut heard = BytesMut::new();
    let greeted = loop {
        if let Some(greeted) = Greeted::take(&mut heard).unwrap() {
            break greeted;
        }
        heard.extend_from_slice(&recv.read_chunk(1024, true).await.unwrap().unwrap().bytes);
    };
    (connection, send, recv, matches!(greeted, Greeted::By(_)))
}

// Regression: a sibling whose former connections died without a word was refused until the last of them was given up.
// spec: FL-38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_connections_on_which_a_sibling_asks_nothing_the_oldest_gives_way_to_a_new_one() {
    let (authority, table) = (Authority::new("test CA"), Arc::new(Table::default()));
    let a = Member::start(&authority, &table, "a");
    let mut open = Vec::new();
    for number in 0..6 {
        let (connection, send, recv, is_taken) = greets(&authority, &a).await;
        assert!(is_taken, "{number}");
        open.push((connection, send, recv));
    }
    for (connection, ..) in open.iter().take(2) {
        let why = connection.closed().await;
        assert!(why.to_string().contains("newer connection"), "{why}");
    }
    assert!(open[2..].iter().all(|(connection, ..)| connection.close_reason().is_none()), "four may be there");
}
