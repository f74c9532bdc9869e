//! `transport: auto`: QUIC, TCP where QUIC does not work, and back, without losing what runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit::admin::{DialledTunnel, TransportPath};
use quinn::crypto::rustls::QuicServerConfig;
use tokio::task::JoinHandle;

use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::link::tcp::TcpLink;
use crate::support::link::udp::UdpLink;
use crate::support::link::{CLEAN, Impairment};
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, Running, TO_NODE};
use crate::support::targets::Target;

const TO_TCP: &str = "adit_initiator_transport_switches_total{from=\"quic\",to=\"tcp\"}";
const TO_QUIC: &str = "adit_initiator_transport_switches_total{from=\"tcp\",to=\"quic\"}";

/// A responder, and the network before it: one port that can lose UDP alone.
struct Net {
    folder: Folder,
    target: Target,
    responder: Responder,
    udp: UdpLink,
    _tcp: TcpLink,
}

impl Net {
    async fn start() -> Self {
        Self::behind(Cloud::new()).await
    }

    async fn behind(cloud: Cloud) -> Self {
        let (folder, target) = (Folder::new(), Target::http1().await);
        let responder = cloud.responder("keepalive", "500ms").egress("access_log", "false").start(&folder).await;
        let behind = responder.tunnel_address();
        let (udp, tcp) = loop {
            // Between the two, somebody else may take the port.
            let at = free_address();
            if let (Ok(udp), Ok(tcp)) =
                (UdpLink::at(at, behind, CLEAN, 1).await, TcpLink::at(at, behind, CLEAN, 1).await)
            {
                break (udp, tcp);
            }
        };
        Self { folder, target, responder, udp, _tcp: tcp }
    }

    async fn edge(&self) -> Running {
        let edge = Edge::auto().target(&format!("http://{}", self.target.address()));
        edge.start(&self.folder, self.udp.address()).await
    }

    /// Waits until requests go through a tunnel over this transport; another one may be draining.
    async fn on(&self, edge: &Running, transport: &str) -> DialledTunnel {
        eventually(&format!("a tunnel over {transport}"), async || {
            // None before the name is resolved.
            let dialled = edge.tunnels().await.dialled.into_iter().next()?;
            let accepted = self.responder.0.tunnels().await.accepted;
            let healthy: Vec<_> = accepted.iter().filter(|tunnel| tunnel.health == "healthy").collect();
            let there = healthy.len() == 1 && healthy[0].transport == transport;
            (there && dialled.id.as_ref() == Some(&healthy[0].id)).then_some(dialled)
        })
        .await
    }

    /// One GET after the other until told to stop; each must be answered. How many there were.
    fn requests(&self) -> (Arc<AtomicBool>, JoinHandle<usize>) {
        let (stop, egress) = (Arc::new(AtomicBool::new(false)), self.responder.egress());
        let stopped = Arc::clone(&stop);
        let asking = tokio::spawn(async move {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                let response = get(egress, &format!("/request/{count}"), &[TO_NODE]).await.unwrap();
                assert_eq!(response.status(), 200, "request {count}: {}", response.text());
                count += 1;
            }
            count
        });
        (stop, asking)
    }
}

fn path<'a>(tunnel: &'a DialledTunnel, transport: &str) -> &'a TransportPath {
    tunnel.paths.iter().find(|path| path.transport == transport).unwrap()
}

fn count_lines(log: &str, words: &[&str]) -> usize {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

// spec: TB-20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_is_lost_from_the_start_the_tunnel_comes_up_over_tcp() {
    let net = Net::start().await;
    net.udp.blackout(true);
    let edge = net.edge().await;
    let tunnel = net.on(&edge, "tcp").await;
    assert_eq!(path(&tunnel, "tcp").state, "up");
    assert_eq!(path(&tunnel, "quic").reason.as_deref(), Some("no answer before TCP was admitted"));
    assert_eq!(tunnel.switches, 0, "it was nowhere before");
    assert_eq!(get(net.responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    for (process, role) in [(&edge, "initiator"), (&net.responder.0, "responder")] {
        for (transport, expected) in [("tcp", 1), ("quic", 0)] {
            let series = format!("adit_tunnels_by_transport{{role=\"{role}\",transport=\"{transport}\"}}");
            assert_eq!(process.metric(&series).await, expected, "{series}");
        }
    }
}

// spec: TB-21
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_where_something_else_speaks_quic_is_reached_over_tcp() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let certificate = folder.authority.responder();
    let mut tls = rustls::ServerConfig::builder_with_provider(adit::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificate.chain(), certificate.private_key())
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let foreign = quinn::Endpoint::server(config, free_address()).unwrap();
    let address = foreign.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Some(incoming) = foreign.accept().await {
            assert!(incoming.await.is_err(), "it has no protocol in common with an initiator");
        }
    });
    let responder = Cloud::new().responder("listen", &format!("{{ tcp: \"{address}\" }}")).start(&folder).await;
    let edge = Edge::auto().target(&format!("http://{}", target.address())).start(&folder, address).await;
    assert_eq!(responder.registered(1).await.accepted[0].transport, "tcp");
    edge.connected(1).await;
    // Where that does not answer in time TCP comes first, and the next probe says it.
    eventually("that QUIC has another protocol there", async || {
        let tunnel = edge.tunnels().await.dialled.remove(0);
        path(&tunnel, "quic").reason.as_ref().filter(|reason| reason.contains("protocol")).map(drop)
    })
    .await;
    assert_eq!(get(responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    accepting.abort();
}

// spec: TB-24, TB-25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_udp_blackout_in_mid_life_costs_no_request_and_ends_back_on_quic() {
    let net = Net::start().await;
    let edge = net.edge().await;
    // On a machine that is busy TCP may come up first.
    let before = net.on(&edge, "quic").await.switches;
    let (stop, asking) = net.requests();

    net.udp.blackout(true);
    let tunnel = net.on(&edge, "tcp").await;
    assert_eq!((tunnel.switches, tunnel.switch_reason.as_deref()), (before + 1, Some("the tunnel went silent")));
    assert!(matches!(path(&tunnel, "quic").state.as_str(), "waiting_to_probe" | "trying"), "{tunnel:?}");
    assert_eq!(edge.line_with("now over TCP").await["reason"], "the tunnel went silent");
    let mut download = RawHttp::connect(net.responder.egress()).await.unwrap();
    download.send(format!("GET /held HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let head = download.head().await.unwrap();

    net.udp.blackout(false);
    let tunnel = net.on(&edge, "quic").await;
    eventually("a download that still runs over TCP, alone, when QUIC takes over", async || {
        let accepted = net.responder.0.tunnels().await.accepted;
        let old = accepted.iter().find(|old| old.transport == "tcp").unwrap();
        assert_eq!(old.health, "draining");
        (old.in_flight == 1).then_some(())
    })
    .await;
    assert_eq!((tunnel.switches, path(&tunnel, "tcp").state.as_str()), (before + 2, "standby"));
    edge.line_with("back on QUIC").await;
    net.target.release();
    let (body, _) = download.body(&head).await.unwrap();
    assert_eq!(body, b"begun\nended\n", "the download over TCP is whole");

    stop.store(true, Ordering::Relaxed);
    let count = asking.await.unwrap();
    let mut seen = BTreeMap::<_, usize>::new();
    net.target.requests().into_iter().for_each(|request| *seen.entry(request).or_default() += 1);
    for number in 0..count {
        // What hung in the old tunnel was tried again.
        let times = seen.get(&format!("GET /request/{number}"));
        assert!(matches!(times, Some(1 | 2)), "request {number} reached the target {times:?} times");
    }
    let switches = (edge.metric(TO_TCP).await, edge.metric(TO_QUIC).await);
    assert_eq!((switches, net.on(&edge, "quic").await.switches), ((1, before + 1), before + 2));
    assert_eq!(count_lines(&edge.log(), &["tunnel lost"]), 0, "it was replaced, not lost");
    assert_eq!(count_lines(&net.responder.0.log(), &["no tunnel"]), 0, "nothing failed at the responder");
}

/// The site heard the responder's probes and took them for proof that it was heard.
// spec: CT-10, TB-24
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_passes_one_direction_only_is_left_for_tcp() {
    for towards_the_responder in [true, false] {
        // Nobody waits for that here: it would help too.
        let net = Net::behind(Cloud::new().responder("idle_timeout", "600s")).await;
        let edge = net.edge().await;
        net.on(&edge, "quic").await;
        net.udp.blackout(!towards_the_responder);
        net.udp.blackout_up(towards_the_responder);
        net.on(&edge, "tcp").await;
        assert_eq!(get(net.responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    }
}

// spec: TB-23, HS-31
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_taken_to_the_other_transport() {
    let net = Net::start().await;
    let another = net.folder.authority.node(Node { node: "edge-2", ..NODE });
    let edge = Edge::auto().start_with(&net.folder, net.udp.address(), &another).await;
    eventually("three refusals at the initiator", async || {
        (count_lines(&edge.log(), &["cannot open a tunnel", "refused, 403"]) >= 3).then_some(())
    })
    .await;
    // Where QUIC does not answer in time TCP is asked beside it, and perhaps refused as well. Were each refusal taken to TCP, there
    // would be one over it for each over QUIC.
    let seen = |transport| {
        let over = format!("\"transport\":\"{transport}\"");
        count_lines(&net.responder.0.log(), &["no tunnel: refused", &over])
    };
    eventually("three refusals over QUIC alone", async || (seen("quic") >= seen("tcp") + 3).then_some(())).await;
    let tunnel = edge.tunnels().await.dialled.remove(0);
    assert!(tunnel.reason.as_ref().unwrap().starts_with("refused, 403"), "{tunnel:?}");
    assert_eq!(net.responder.0.tunnels().await.accepted.len(), 0);
}

// What broke: a connection that lost the race was a failed handshake to the responder, and a warning in its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_lost_the_race_is_no_failure_to_the_responder() {
    // QUIC answers, but only after TCP was begun too. Which of the two wins is no matter here.
    let net = Net::behind(Cloud::new().process("log", "{ level: debug, format: json }")).await;
    net.udp.impair(Impairment { delay: Duration::from_millis(200), ..CLEAN });
    let _edge = net.edge().await;
    net.responder.registered(1).await;
    net.responder.0.line_with("did not need this connection").await;
    for reason in ["tls", "timeout", "protocol"] {
        let series = format!("adit_handshakes_failed_total{{role=\"responder\",reason=\"{reason}\"}}");
        assert_eq!(net.responder.0.metric(&series).await, 0, "{series}");
    }
}
