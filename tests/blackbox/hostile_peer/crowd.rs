//! Crowds of strangers that open connections and stop somewhere in the handshake, for ever: a site gets its tunnel.

use std::sync::Arc;
use std::time::Duration;

use adit::tls::{self, InitiatorTls};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::raw::{HOSTILE, attempt, trust};
use super::tcp::Peer;
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Edge, Folder, Responder, Transport, over_each_transport};

/// Room of the responder: 128 silent ones of a prefix, 32 in TLS, 32 behind it.
const ROOM: &str = "64";
/// More than there is room for in any stage but that of waiting.
const STRANGERS: usize = 96;
/// The same of those who say nothing.
const SILENT_STRANGERS: usize = 160;
/// How long a stranger that was ended stays away.
const PAUSE: Duration = Duration::from_millis(500);
/// How many of them had to leave.
const GAVE_WAY: &str = "adit_handshakes_failed_total{role=\"responder\",reason=\"gave_way\"}";

/// Where a stranger stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Before the first byte over TCP.
    Silent,
    /// In its ClientHello over TCP.
    HalfClientHello,
    /// Behind its ClientHello over TCP.
    ClientHello,
    /// With TLS done over TCP: it has a certificate.
    NoHello,
    /// The same over QUIC.
    NoHelloOverQuic,
}

/// A responder with room for few. Its timeouts help nobody: who is ended by one comes again.
async fn responder(folder: &Folder) -> Responder {
    let cloud = Cloud::new().responder("max_pending_handshakes", ROOM).responder("handshake_timeout", "60s");
    cloud.start(folder).await
}

/// Strangers that stop there; whichever is ended comes again.
fn crowd(folder: &Arc<Folder>, responder: &Responder, stop: Stop) -> JoinSet<()> {
    let address = responder.tunnel_address();
    let mut strangers = JoinSet::new();
    for _ in 0..if stop == Stop::Silent { SILENT_STRANGERS } else { STRANGERS } {
        let folder = Arc::clone(folder);
        strangers.spawn(async move {
            loop {
                match stop {
                    Stop::NoHello => {
                        let peer = Peer::dial(&folder, address, HOSTILE, &[b"adit/1"]).await;
                        if let Ok(mut peer) = peer {
                            peer.gone().await;
                        }
                    }
                    Stop::NoHelloOverQuic => {
                        let keep = quinn::TransportConfig::default();
                        if let Ok(connection) = attempt(&folder, address, HOSTILE, keep).await {
                            connection.closed().await;
                        }
                    }
                    Stop::Silent | Stop::HalfClientHello | Stop::ClientHello => {
                        if let Ok(mut stream) = TcpStream::connect(address).await {
                            let said = stream.write_all(&first_words(&folder, stop)).await;
                            let mut answer = [0; 4096];
                            while said.is_ok() && stream.read(&mut answer).await.is_ok_and(|length| length > 0) {}
                        }
                    }
                }
                sleep(PAUSE).await;
            }
        });
    }
    strangers
}

fn first_words(folder: &Folder, stop: Stop) -> Vec<u8> {
    if stop == Stop::Silent {
        return Vec::new();
    }
    let config = tls::initiator_config(&InitiatorTls { credentials: None, responder: trust(folder) }, &[b"adit/1"]);
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    let mut client = rustls::ClientConnection::new(Arc::new(config.unwrap()), name).unwrap();
    client.write_tls(&mut hello).unwrap();
    if stop == Stop::HalfClientHello {
        hello.truncate(hello.len() / 2);
    }
    hello
}

async fn a_site_gets_in_beside(stop: Stop, transport: Transport) {
    let folder = Arc::new(Folder::new());
    let responder = responder(&folder).await;
    let _strangers = crowd(&folder, &responder, stop);
    let over_its_own = (stop == Stop::NoHelloOverQuic) == (transport == Transport::Quic);
    if over_its_own || stop != Stop::NoHelloOverQuic {
        eventually("some gave way", async || (responder.0.metric(GAVE_WAY).await > 0).then_some(())).await;
    }
    let _initiator = Edge::new(transport).start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
    let lines = responder.0.log().matches("gave way to a newer connection").count();
    assert!(lines <= 2, "{lines} lines within a minute or two");
}

macro_rules! beside {
    ($($name:ident: $stop:expr),* $(,)?) => {
        $(mod $name {
            use super::*;

            async fn a_site_gets_in(transport: Transport) {
                a_site_gets_in_beside($stop, transport).await;
            }
            over_each_transport!(a_site_gets_in);
        })*
    };
}

// spec: SE-21
beside! {
    strangers_who_say_nothing: Stop::Silent,
    strangers_with_half_a_client_hello: Stop::HalfClientHello,
    strangers_who_stop_in_tls: Stop::ClientHello,
    initiators_who_never_say_hello: Stop::NoHello,
    initiators_who_never_say_hello_over_quic: Stop::NoHelloOverQuic,
}
