//! How an initiator parts with tunnels that it does not want any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit::initiator::Destination;
use adit::tls::{self, ClientCertificates, InitiatorTls, ResponderTls, Trust};
use adit::transport::{Phase, Tunnel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::handles::world::{Cloud, Site, credentials as shows, node, trust};
use crate::support::certificates::Authority;
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http1::{Response, get};
use crate::support::link::CLEAN;
use crate::support::link::tcp::TcpLink;
use crate::support::link::udp::UdpLink;
use crate::support::site::{Transport, over_each_transport};

over_each_transport!(
    what_runs_in_a_silent_tunnel_that_is_not_wanted_any_more_goes_on_if_that_is_heard_again,
    a_tunnel_that_is_drained_for_a_day_is_left_when_its_responder_is_not_trusted_any_more,
);

/// A path that can fall silent.
enum Line {
    Udp(UdpLink),
    Tcp(TcpLink),
}

impl Line {
    async fn to(transport: Transport, target: SocketAddr) -> Self {
        match transport {
            Transport::Quic => Self::Udp(UdpLink::new(target, CLEAN, 1).await.unwrap()),
            Transport::Tcp => Self::Tcp(TcpLink::new(target, CLEAN, 1).await.unwrap()),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Udp(link) => link.address().port(),
            Self::Tcp(link) => link.address().port(),
        }
    }

    fn blackout(&self, on: bool) {
        match self {
            Self::Udp(link) => link.blackout(on),
            Self::Tcp(link) => link.blackout(on),
        }
    }
}

/// A request that waits at the gate of the node, and the tunnel that it is in.
async fn at_the_gate(cloud: &Cloud) -> (JoinHandle<Option<Response>>, Tunnel) {
    let egress = cloud.egress;
    let running = tokio::spawn(async move { get(egress, "/gate", &["x-node-id: edge-1"]).await.ok() });
    let directory = cloud.directory();
    let tunnel = eventually("the request at the gate", async || {
        let mut live = directory.registry().snapshot();
        live.find(|live| live.handle.snapshot().in_flight == 1).map(|live| live.handle.clone())
    });
    (running, tunnel.await)
}

// spec: CT-28, CT-45
async fn what_runs_in_a_silent_tunnel_that_is_not_wanted_any_more_goes_on_if_that_is_heard_again(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let line = Line::to(transport, cloud.address).await;
    let target = format!("localhost:{}", line.port()).parse().unwrap();
    let destination =
        Destination { transport: cloud.destination(transport, 1).transport, ..Destination::new(&target, 1) };
    let site = Site::start(&authority, node("edge-1"), vec![destination]);
    cloud.has(1).await;
    let (running, _) = at_the_gate(&cloud).await;
    site.has_gated(1).await;
    let mut phase = site.status().tunnels()[0].phase();

    line.blackout(true);
    timeout(PATIENCE, phase.wait_for(|phase| matches!(phase, Phase::Suspect))).await.unwrap().unwrap();
    site.handle.update(|terms| terms.destinations.clear()).unwrap();
    let is_told = |phase: &Phase| !matches!(phase, Phase::Suspect);
    let told = timeout(PATIENCE, phase.wait_for(is_told)).await.unwrap().unwrap().clone();
    assert!(matches!(told, Phase::Draining { .. }), "{told:?}");
    line.blackout(false);
    site.open_gate();
    assert_eq!(running.await.unwrap().unwrap().text(), "first after the gate");
    eventually("the end of the slot", async || site.status().slots().is_empty().then_some(())).await;
}

// spec: CT-23, SE-43
async fn a_tunnel_that_is_drained_for_a_day_is_left_when_its_responder_is_not_trusted_any_more(transport: Transport) {
    let (authority, next) = (Authority::new("test CA"), Authority::new("the next CA"));
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    cloud.has(1).await;
    let (running, former) = at_the_gate(&cloud).await;
    site.has_gated(1).await;
    // What comes in its place is trusted later as well: only the former one is not.
    let both = format!("{}{}", authority.pem(), next.pem());
    let both = Trust { roots: tls::parse_roots(both.as_bytes()).unwrap(), ..Trust::default() };
    let credentials = site.handle.terms().tls.credentials.clone();
    let now = InitiatorTls { credentials: credentials.clone(), responder: both };
    site.handle.update(|terms| terms.tls = Arc::new(now)).unwrap();
    let initiators = ClientCertificates::Required(trust(&authority));
    let shown = ResponderTls { credentials: shows(&next.responder()), initiators };
    cloud.handle.update(|terms| terms.tls = Arc::new(shown)).unwrap();
    former.drain(Duration::from_secs(86_400), Duration::ZERO);
    let replaced = async || site.status().tunnels().iter().any(|tunnel| tunnel.id() != former.id()).then_some(());
    eventually("another tunnel in its place", replaced).await;
    assert!(!matches!(*former.phase().borrow(), Phase::Closed(_)), "what runs goes on");

    let change = site.handle.update(|terms| {
        terms.tunnel.drain_timeout = Duration::from_millis(200);
        terms.tls = Arc::new(InitiatorTls { credentials, responder: trust(&next) });
    });
    change.unwrap();
    timeout(PATIENCE, former.closed()).await.expect("the responder does not say for how long any more");
    drop(running.await);
}
