//! How tunnels begin and end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit::id::TunnelId;
use adit::protocol::code::{CloseCode, RefusalCode};
use adit::protocol::handshake::Refusal;
use adit::protocol::session::Timing;
use adit::transport::quic::{CongestionControl, Keys, QuicSettings};
use adit::transport::tcp::TcpSettings;
use adit::transport::{DialError, Dialer, Incoming, OpenError, Phase, TransportKind, TunnelSettings};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::timeout;

use crate::support::certificates::Authority;
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::site::{Transport, over_each_transport};
use crate::tunnel::pair::{Ends, Pair, dialer, exchange, hello, listen, listen_at, welcome};

over_each_transport!(
    a_drain_by_either_end_finishes_what_runs_then_closes_as_done,
    no_stream_is_opened_before_the_welcome,
    a_draining_tunnel_takes_no_new_exchange,
    a_drain_tells_the_other_end_when_to_come_back,
    a_refusal_arrives_with_its_number_reason_and_retry_after,
    a_close_tells_the_other_end_why,
    an_idle_tunnel_is_probed_and_lives_past_its_idle_timeout,
);

#[derive(Clone)]
pub(super) struct Hello;

impl tower_service::Service<http::Request<adit::transport::RecvBody>> for Hello {
    type Response = http::Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<adit::transport::RecvBody>) -> Self::Future {
        std::future::ready(Ok(http::Response::new(Full::new(Bytes::from(vec![1; 1 << 20])))))
    }
}

async fn get(pair: &Pair) -> http::Response<adit::transport::RecvBody> {
    let (head, body) = http::Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap().into_parts();
    exchange(&pair.responder, &head, &mut Some(body)).await.unwrap()
}

async fn a_drain_by_either_end_finishes_what_runs_then_closes_as_done(transport: Transport) {
    for initiator_drains in [false, true] {
        let pair = Pair::open(transport, Hello).await;
        let response = get(&pair).await;
        let drainer = if initiator_drains { &pair.initiator } else { &pair.responder };
        drainer.drain(Duration::from_secs(30), Duration::from_millis(250));
        let mut phase = pair.initiator.phase();
        phase.wait_for(|phase| matches!(phase, Phase::Draining { .. })).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), 1 << 20, "nothing is lost by the close");
        assert_eq!(pair.initiator_driver.await.unwrap().code, CloseCode::Done);
        assert_eq!(pair.responder_driver.await.unwrap().code, CloseCode::Done);
    }
}

// spec: HS-32
async fn no_stream_is_opened_before_the_welcome(transport: Transport) {
    let ends = Arc::new(Ends::new(transport, TunnelSettings::default()));
    let dialing = Arc::clone(&ends);
    let initiator = tokio::spawn(async move {
        let dialed = dialing.dial(0).await.unwrap();
        let _handle = dialed.tunnel.clone();
        dialed.serve(Hello).await
    });
    let prepared = ends.pending().await.prepare(TunnelId(7));
    let tunnel = prepared.tunnel().clone();
    let exchange = tokio::spawn(async move {
        let (head, body) = http::Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap().into_parts();
        exchange(&tunnel, &head, &mut Some(body)).await.map(|response| response.status())
    });
    // The exchange is registered with the tunnel, and still no stream is open.
    let handle = prepared.tunnel().clone();
    eventually("the exchange waits", async || (handle.snapshot().in_flight == 1).then_some(())).await;
    assert!(!exchange.is_finished());
    tokio::spawn(prepared.welcome(welcome()));
    assert_eq!(exchange.await.unwrap().unwrap(), 200);
    initiator.abort();
}

// spec: CT-21
async fn a_draining_tunnel_takes_no_new_exchange(transport: Transport) {
    let pair = Pair::open(transport, Hello).await;
    let _running = get(&pair).await;
    pair.responder.drain(Duration::from_secs(30), Duration::ZERO);
    let mut phase = pair.responder.phase();
    phase.wait_for(|phase| matches!(phase, Phase::Draining { .. })).await.unwrap();
    let (head, body) = http::Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap().into_parts();
    let mut body = Some(body);
    let refused = exchange(&pair.responder, &head, &mut body).await;
    assert!(matches!(refused, Err(OpenError::NotSent(_))), "{refused:?}");
    assert!(body.is_some(), "the request is whole and may go elsewhere");
}

async fn a_drain_tells_the_other_end_when_to_come_back(transport: Transport) {
    let pair = Pair::open(transport, Hello).await;
    let _running = get(&pair).await;
    pair.responder.drain(Duration::from_secs(30), Duration::from_millis(250));
    let mut phase = pair.initiator.phase();
    let draining = phase.wait_for(|phase| matches!(phase, Phase::Draining { .. })).await.unwrap().clone();
    assert_eq!(draining, Phase::Draining { reconnect_after: Duration::from_millis(250) });
}

// spec: CT-25
async fn a_refusal_arrives_with_its_number_reason_and_retry_after(transport: Transport) {
    let ends = Ends::new(transport, TunnelSettings::default());
    let refusal = Refusal {
        code: RefusalCode::Quota,
        reason: "node edge-1 has 16 tunnels; 16 are allowed".into(),
        retry_after: Some(Duration::from_secs(7)),
    };
    let (error, ()) = tokio::join!(ends.dial(0), async { ends.pending().await.refuse(&refusal).await });
    let Err(DialError::Refused(seen)) = error else { panic!("expected a refusal") };
    assert_eq!(seen, refusal);
}

async fn a_close_tells_the_other_end_why(transport: Transport) {
    let pair = Pair::open(transport, Hello).await;
    pair.responder.close(CloseCode::Superseded, "a newer tunnel took its place");
    let reason = pair.initiator_driver.await.unwrap();
    assert_eq!((reason.code, reason.text.as_str()), (CloseCode::Superseded, "a newer tunnel took its place"));
}

#[tokio::test]
async fn a_restarted_responder_with_its_old_keys_is_noticed_at_once() {
    let (authority, keys) = (Authority::new("test CA"), Keys::ephemeral());
    // Without the old key it would take the idle timeout, for which nobody waits here.
    let timing =
        Timing { keepalive_interval: Duration::from_millis(300), idle_timeout: 5 * PATIENCE, ..Timing::default() };
    let (tunnel, quic) = (TunnelSettings { timing, ..TunnelSettings::default() }, QuicSettings::default());
    let dialer = dialer(&authority, tunnel, quic.clone());
    // The first life runs on a runtime of its own, which dies without a word as a killed process would.
    let first = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let address = {
        let _guard = first.enter();
        let (listener, address) = listen(&authority, tunnel, quic.clone(), &keys);
        first.spawn(async move {
            let incoming = Incoming::Quic(Box::new(listener.accept().await.unwrap()));
            let prepared = incoming.handshake().await.unwrap().prepare(welcome().tunnel);
            let _tunnel = prepared.tunnel().clone();
            prepared.welcome(welcome()).await
        });
        address
    };
    let dialer = Dialer::new(Some(dialer), None);
    let connected = dialer.connect(TransportKind::Quic, address, "localhost").await.unwrap();
    let dialed = connected.claim(&hello(0)).await.unwrap();
    let _tunnel = dialed.tunnel.clone();
    let running = tokio::spawn(dialed.serve(Hello));
    tokio::task::spawn_blocking(move || first.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
    let _second = eventually("the port is free again", async || {
        std::net::UdpSocket::bind(address).ok().map(drop)?;
        Some(listen_at(address, &authority, tunnel, quic.clone(), &keys))
    })
    .await;
    // The initiator's next keep-alive meets a stateless reset.
    let reason = timeout(PATIENCE, running).await.expect("the end of the tunnel").unwrap();
    assert!(reason.text.contains("reset"), "{reason:?}");
}

async fn an_idle_tunnel_is_probed_and_lives_past_its_idle_timeout(transport: Transport) {
    const IDLE: Duration = Duration::from_secs(1);
    let timing = Timing { keepalive_interval: Duration::from_millis(100), idle_timeout: IDLE, ..Timing::default() };
    let settings = TunnelSettings { timing, ..TunnelSettings::default() };
    // One that ends because another program took the processor for so long proves nothing; of five, one is enough.
    for _ in 0..5 {
        let pair = Pair::open_with(transport, Hello, settings).await;
        let since = Instant::now();
        while !pair.responder_driver.is_finished() && since.elapsed() <= 3 * IDLE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (head, body) = http::Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap().into_parts();
        if since.elapsed() > 3 * IDLE
            && let Ok(response) = exchange(&pair.responder, &head, &mut Some(body)).await
        {
            assert_eq!(response.status(), 200);
            return;
        }
    }
    panic!("none of five lived past three idle timeouts");
}

#[test]
fn congestion_control_is_bbr_unless_asked_otherwise() {
    assert_eq!(QuicSettings::default().congestion, CongestionControl::Bbr);
}

#[test]
fn every_window_is_bounded() {
    let settings = QuicSettings::default();
    assert!(settings.stream_receive_window <= 2 << 20, "above about 2.4 MB quinn gives up under loss");
    assert!(settings.receive_window <= 16 << 20);
    assert!(settings.send_window <= 16 << 20);
    let tcp = TcpSettings::default();
    assert!(tcp.stream_window <= 2 << 20 && tcp.connection_window <= 16 << 20 && tcp.send_buffer <= 1 << 20);
}

#[tokio::test]
async fn datagrams_become_as_large_as_the_link_carries() {
    const ORDINARY: u16 = 1452;
    let pair = Pair::open(Transport::Quic, Hello).await;
    let is_wide = adit::net::link_mtu("127.0.0.1:1".parse().unwrap()).is_some_and(|mtu| mtu > 9000);
    for tunnel in [&pair.responder, &pair.initiator] {
        eventually("the end of the search", async || {
            get(&pair).await.into_body().collect().await.unwrap();
            let mtu = tunnel.snapshot().path.unwrap().mtu;
            assert!(is_wide || mtu <= ORDINARY, "{mtu}");
            (mtu > if is_wide { 6500 } else { 1400 }).then_some(())
        })
        .await;
    }
}
