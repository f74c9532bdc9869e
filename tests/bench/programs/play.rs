//! A load like that of a game, with a target that sends back what comes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::game::Game;
use crate::run::Run;
use crate::support::datagrams::Peer;

pub(crate) async fn run(run: Run) {
    let target = Peer::echo().await;
    let site = run.datagrams_to(target.address()).await;
    let seconds = run.size.seconds;
    for (way, address) in [("", site.responder.udp_at(0)), (", straight to the target", target.address())] {
        run.begin(format!("60 datagrams/s of 1200 bytes for {seconds} s, there and back{way}"));
        let game = Game::play(&connected(address).await, Duration::from_secs(seconds)).await;
        assert!(game.received() > 0, "{game}");
        run.done(game.to_string());
    }
}

async fn connected(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    socket
}
