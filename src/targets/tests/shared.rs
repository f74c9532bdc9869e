//! All who wait for the connection to a target wait for the same one.

use std::time::Duration;

use http_body_util::Empty;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::*;
use crate::message::failure::Cause;

/// How long a connection may take to be made.
const LIMIT: Duration = Duration::from_secs(2);

/// A target whose kernel takes no more connections, as long as what comes with it is held.
async fn unreachable() -> (TargetClient, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(LIMIT / 2, TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
    }
    let settings = TargetSettings { connect_timeout: LIMIT, ..TargetSettings::default() };
    (TargetClient::new(&Target::parse(&format!("h2c://{address}")).unwrap(), settings).unwrap(), (listener, waiting))
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("http://example.com/").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn all_who_wait_for_a_connection_share_its_failure() {
    let (client, _target) = unreachable().await;
    let began = Instant::now();
    let mut exchanges = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        exchanges.spawn(async move { client.exchange(get()).await.err().map(|failure| failure.cause()) });
    }
    while let Some(cause) = exchanges.join_next().await {
        assert_eq!(cause.unwrap(), Some(Cause::TargetTimeout));
    }
    assert!(began.elapsed() < LIMIT * 10, "one after the other: {:?}", began.elapsed());
}

#[tokio::test]
async fn who_gives_up_waiting_takes_the_connection_from_nobody() {
    let (client, _target) = unreachable().await;
    let first = timeout(LIMIT / 4, client.exchange(get())).await;
    assert!(first.is_err(), "it waits");
    assert_eq!(client.exchange(get()).await.err().map(|failure| failure.cause()), Some(Cause::TargetTimeout));
}
