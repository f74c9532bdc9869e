//! A tunnel on a bad network, and a responder under pressure.

use std::time::{Duration, Instant};

use adit::id::TunnelId;
use adit::protocol::session::Timing;
use adit::transport::quic::{CongestionControl, QuicSettings};
use adit::transport::{DialError, Phase, TransportKind, TunnelSettings};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use tokio::time::timeout;

use crate::support::eventually::PATIENCE;
use crate::support::link::udp::UdpLink;
use crate::support::link::{CLEAN, HOSTILE, Impairment};
use crate::support::site::Transport;
use crate::tunnel::lifetime::Hello;
use crate::tunnel::pair::{Ends, exchange, welcome};

/// A tunnel whose packets pass through `link`, with the responder's end to send requests from.
async fn through(ends: &Ends, link: &UdpLink) -> adit::transport::Tunnel {
    let dial = ends.dial_at(link.address(), 0);
    let ((responder, _), dialed) = tokio::join!(ends.admit(), dial);
    let dialed = dialed.unwrap();
    let initiator = dialed.tunnel.clone();
    tokio::spawn(async move {
        let _initiator = initiator;
        dialed.serve(Hello).await
    });
    responder
}

async fn get(tunnel: &adit::transport::Tunnel) -> Bytes {
    let (head, body) = http::Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap().into_parts();
    let response = exchange(tunnel, &head, &mut Some(body)).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn loss_and_reordering_cut_no_body_whatever_the_congestion_control() {
    for congestion in [CongestionControl::Bbr, CongestionControl::Cubic, CongestionControl::NewReno] {
        let settings = QuicSettings { congestion, ..QuicSettings::default() };
        let ends = Ends::with(Transport::Quic, TunnelSettings::default(), settings);
        let delay = Duration::from_millis(2);
        let lossy = Impairment { delay, jitter: delay, rate: 0, loss: 0.03, reorder: 0.02, ..HOSTILE };
        let link = UdpLink::new(ends.address, lossy, 1).await.unwrap();
        let tunnel = through(&ends, &link).await;
        for _ in 0..4 {
            assert_eq!(get(&tunnel).await.len(), 1 << 20, "{congestion:?}");
        }
    }
}

#[tokio::test]
async fn a_network_that_forgets_the_initiator_hears_from_it_again() {
    let timing =
        Timing { keepalive_interval: Duration::from_millis(200), idle_timeout: 5 * PATIENCE, ..Timing::default() };
    let ends = Ends::new(Transport::Quic, TunnelSettings { timing, ..TunnelSettings::default() });
    let link = UdpLink::new(ends.address, CLEAN, 1).await.unwrap();
    let tunnel = through(&ends, &link).await;
    let before = tunnel.remote();
    link.rebind();
    // Only the initiator can repair this: its keep-alive shows the responder the new address.
    let body = timeout(PATIENCE, get(&tunnel)).await.unwrap();
    assert_eq!(body.len(), 1 << 20);
    assert_ne!(tunnel.remote(), before);
}

// spec: CT-42
#[tokio::test]
async fn a_tunnel_in_use_that_falls_silent_is_suspect_before_the_keepalive_would_ask() {
    // Two looks, a second apart, and 3 s for the answer; the keepalive alone takes 8 s to 13 s.
    const SOON: Duration = Duration::from_secs(7);
    let timing = Timing { idle_timeout: 5 * PATIENCE, ..Timing::default() };
    let ends = Ends::new(Transport::Quic, TunnelSettings { timing, ..TunnelSettings::default() });
    let link = UdpLink::new(ends.address, CLEAN, 1).await.unwrap();
    let tunnel = through(&ends, &link).await;
    let mut phase = tunnel.phase();
    let mut fastest = Duration::MAX;
    // A time that another program made long proves nothing; of five, one is enough.
    for _ in 0..5 {
        // In the middle of an interval: what was heard then must not count as heard at its end.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            get(&tunnel).await;
        }
        link.blackout(true);
        let silent = Instant::now();
        let suspect = phase.wait_for(|phase| *phase == Phase::Suspect);
        timeout(PATIENCE, suspect).await.expect("it is suspect").unwrap();
        fastest = fastest.min(silent.elapsed());
        if fastest < SOON {
            break;
        }
        link.blackout(false);
        let healthy = phase.wait_for(|phase| *phase == Phase::Open);
        timeout(PATIENCE, healthy).await.expect("it is healthy again").unwrap();
    }
    assert!(fastest < SOON, "{fastest:?}");
}

// spec: TB-25
#[tokio::test]
async fn a_connection_that_waits_for_its_claim_holds_until_its_path_is_gone() {
    let ends = Ends::new(Transport::Quic, TunnelSettings::default());
    let link = UdpLink::new(ends.address, CLEAN, 1).await.unwrap();
    let dialer = ends.dialer.clone();
    let accepting = tokio::spawn(async move { ends.listener.accept().await.handshake().await });
    let mut waiting = dialer.connect(TransportKind::Quic, link.address(), "localhost").await.unwrap();
    let trial = Duration::from_secs(2);
    assert!(timeout(trial, waiting.closed()).await.is_err(), "nothing is wrong with it");
    link.blackout(true);
    let error = timeout(PATIENCE, waiting.closed()).await.expect("a trial shows it");
    assert!(error.to_string().contains("nothing came back"), "{error}");
    accepting.abort();
}

/// Room for few handshakes: from `max_handshakes / 2` on an address must prove itself, `4 * max_handshakes` may wait.
fn little_room() -> TunnelSettings {
    TunnelSettings { max_handshakes: 4, ..TunnelSettings::default() }
}

#[tokio::test]
async fn under_pressure_an_address_must_prove_itself_and_then_is_served() {
    let ends = Ends::new(Transport::Quic, little_room());
    let link = UdpLink::new(ends.address, CLEAN, 1).await.unwrap();
    // Held, not served: the room that they take is all the pressure there is.
    let dialer = ends.dialer.clone();
    let crowd: Vec<_> = (0..2)
        .map(|_| {
            let (dialer, address) = (dialer.clone(), ends.address);
            tokio::spawn(async move { dialer.connect(TransportKind::Quic, address, "localhost").await })
        })
        .collect();
    let _held = [ends.listener.accept().await, ends.listener.accept().await];
    let accept = async {
        let prepared = ends.listener.accept().await.handshake().await.unwrap().prepare(TunnelId(9));
        (prepared.tunnel().clone(), tokio::spawn(prepared.welcome(welcome())))
    };
    let ((_accepted, _driver), dialed) = tokio::join!(accept, ends.dial_at(link.address(), 0));
    dialed.unwrap();
    assert!(link.first_answer() < 1200, "the first packet was answered by Retry: {} bytes", link.first_answer());
    crowd.iter().for_each(|dial| dial.abort());
}

// spec: SE-21, SE-22
#[tokio::test]
async fn whoever_waits_longest_where_there_is_no_room_is_refused_at_once_and_told_when_to_come_back() {
    let ends = Ends::new(Transport::Quic, little_room());
    let (dialer, address) = (ends.dialer.clone(), ends.address);
    let mut dialling = tokio::task::JoinSet::new();
    // One is in TLS, one has done with it, and of those who wait a prefix has room for eight.
    for _ in 0..16 {
        let dialer = dialer.clone();
        dialling.spawn(async move { dialer.connect(TransportKind::Quic, address, "localhost").await });
    }
    let mut accepted = tokio::task::JoinSet::new();
    let refused = async {
        loop {
            // Some are connected: they have been in TLS, and say no HELLO.
            if let Err(error) = dialling.join_next().await.expect("one is refused").unwrap() {
                return error;
            }
        }
    };
    let error = tokio::select! {
        error = refused => error,
        () = async { loop { accepted.spawn(ends.listener.accept().await.handshake()); } } => unreachable!(),
    };
    assert!(matches!(error, DialError::Busy), "{error}");
    assert!(error.is_answer() && error.retry_after().is_some(), "no cause to dial over TCP");
}

#[tokio::test]
async fn no_process_wide_crypto_provider_is_needed_or_installed() {
    let ends = Ends::new(Transport::Quic, TunnelSettings::default());
    let link = UdpLink::new(ends.address, CLEAN, 1).await.unwrap();
    let tunnel = through(&ends, &link).await;
    assert_eq!(get(&tunnel).await.len(), 1 << 20);
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}
