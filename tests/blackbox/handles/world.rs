//! Both roles in this process, and requests that run beside whatever a test changes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit::id::{ServiceName, TunnelId};
use adit::initiator::{self, Destination, SlotStatus, StatusBoard};
use adit::lifecycle::Drain;
use adit::message::pattern::Match;
use adit::protocol::handshake::{Service, ServiceKind};
use adit::routing::{Directory, Route, RouterSettings, Tenant};
use adit::tls::{self, Credentials, InitiatorTls, Trust};
use adit::transport::{HttpService, TransportChoice, Tunnel};
use adit::{egress, responder};
use axum::extract::Extension;
use axum::{Router, routing};
use tokio::sync::Semaphore;

use crate::support::certificates::{Authority, Certificate, IDENTITY, Node};
use crate::support::eventually::eventually;
use crate::support::http1::{Response, get};
use crate::support::site::Transport;

/// What serves at the initiators here.
pub(super) type Served = HttpService<Router>;

pub(super) const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// The node of this name in the cluster `stores`.
pub(super) const fn node(name: &str) -> Node<'_> {
    Node { tenant: "default", cluster: "stores", node: name }
}

pub(super) fn choice(transport: Transport) -> TransportChoice {
    match transport {
        Transport::Quic => TransportChoice::Quic,
        Transport::Tcp => TransportChoice::Tcp,
    }
}

pub(super) fn credentials(certificate: &Certificate) -> Credentials {
    Credentials::from_pem(certificate.pem().as_bytes(), certificate.key_pem().as_bytes()).unwrap()
}

pub(super) fn trust(authority: &Authority) -> Trust {
    Trust { roots: tls::parse_roots(authority.pem().as_bytes()).unwrap(), ..Trust::default() }
}

/// What a node shows, with a key of its own each time.
pub(super) fn node_tls(authority: &Authority, of: Node<'_>) -> Arc<InitiatorTls> {
    let credentials = Some(credentials(&authority.node(of)));
    Arc::new(InitiatorTls { credentials, responder: trust(authority) })
}

/// A responder with an egress listener in front. A request goes to the node that `x-node-id` names; one below `/new` means
/// the service `new`, every other one the service `api`.
pub(super) struct Cloud {
    pub(super) handle: responder::Handle,
    pub(super) address: SocketAddr,
    pub(super) egress: SocketAddr,
    drain: Drain,
}

impl Cloud {
    /// One whose requests wait for no tunnel: a moment without any is a lost request.
    pub(super) fn start(transport: Transport, authority: &Authority) -> Self {
        Self::holding(transport, authority, Duration::ZERO)
    }

    /// One whose requests wait for a tunnel for so long.
    pub(super) fn holding(transport: Transport, authority: &Authority, hold: Duration) -> Self {
        let builder = responder::Builder::new(credentials(&authority.responder()));
        let builder = builder.admit_certificates(trust(authority).roots, IDENTITY).unwrap();
        let responder = match transport {
            Transport::Quic => builder.bind(LOOPBACK.into()).unwrap(),
            Transport::Tcp => builder.bind_tcp(LOOPBACK.into()).unwrap(),
        };
        let (address, handle) = (responder.local_addr().unwrap(), responder.handle());
        let matches = Match { host: None, prefix: "/new".parse().unwrap() };
        let router = RouterSettings {
            tenant: Tenant::Fixed("default".parse().unwrap()),
            routes: vec![Route { matches, service: Some("new".parse().unwrap()), host_id: None }],
            service: Some("api".parse().unwrap()),
            hold,
            ..RouterSettings::new("%REQ(x-node-id)%".parse().unwrap())
        };
        let entrance = egress::Builder::new(responder.directory(), router).bind(LOOPBACK.into()).unwrap();
        let (drain, egress) = (Drain::new(), entrance.local_addr());
        tokio::spawn(responder.run(drain.watch()));
        tokio::spawn(entrance.run(drain.watch()));
        Self { handle, address, egress, drain }
    }

    pub(super) fn directory(&self) -> Arc<Directory<Tunnel>> {
        self.handle.directory()
    }

    /// The tunnels that get new requests.
    pub(super) fn tunnels(&self) -> BTreeSet<TunnelId> {
        let directory = self.directory();
        directory.registry().snapshot().filter(|live| !live.leaving).map(|live| live.id).collect()
    }

    /// Those tunnels, once there are so many.
    pub(super) async fn has(&self, count: usize) -> BTreeSet<TunnelId> {
        let enough = async || Some(self.tunnels()).filter(|tunnels| tunnels.len() == count);
        eventually(&format!("{count} tunnels at the responder"), enough).await
    }

    pub(super) async fn get(&self, node: &str, path: &str) -> Response {
        get(self.egress, path, &[&format!("x-node-id: {node}")]).await.unwrap()
    }

    /// As a destination of initiators.
    pub(super) fn destination(&self, transport: Transport, count: u32) -> Destination {
        let target = format!("localhost:{}", self.address.port()).parse().unwrap();
        Destination { transport: choice(transport), ..Destination::new(&target, count) }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.drain.stop();
    }
}

/// Holds answers back.
struct Gate {
    permits: Semaphore,
    /// Requests that have come so far.
    came: AtomicUsize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { permits: Semaphore::new(0), came: AtomicUsize::new(0) }
    }
}

/// A running initiator.
pub(super) struct Site {
    pub(super) handle: initiator::Handle<Served>,
    gate: Arc<Gate>,
    pub(super) drain: Drain,
}

impl Site {
    /// Serves [`service`] `first` as `api`.
    pub(super) fn start(authority: &Authority, of: Node<'_>, destinations: Vec<Destination>) -> Self {
        let claim = adit::id::Claim {
            tenant: of.tenant.parse().unwrap(),
            cluster: of.cluster.parse().unwrap(),
            node: of.node.parse().unwrap(),
        };
        let (tls, gate) = (node_tls(authority, of), Arc::<Gate>::default());
        let initiator = initiator::Builder::to(claim, destinations, tls.responder.clone())
            .credentials(tls.credentials.clone().unwrap())
            .exports("api".parse().unwrap())
            .serve(gated("first", Arc::clone(&gate)))
            .unwrap();
        let (handle, drain) = (initiator.handle(), Drain::new());
        tokio::spawn(initiator.run(drain.watch()));
        Self { handle, gate, drain }
    }

    /// Lets one answer to `/gate` go on.
    pub(super) fn open_gate(&self) {
        self.gate.permits.add_permits(1);
    }

    /// Waits until a request is at the gate, which its responder has under way earlier, and the tunnels it dials are up by its own
    /// word.
    pub(super) async fn has_gated(&self, tunnels: usize) {
        eventually("the request at the gate", async || (self.gate.came.load(Ordering::Relaxed) > 0).then_some(()))
            .await;
        self.up(tunnels).await;
    }

    /// Waits until so many tunnels are up by its own word: the responder knows of them earlier.
    pub(super) async fn up(&self, count: usize) {
        let up = async || (self.status().connected() == count).then_some(());
        eventually(&format!("{count} tunnels at the initiator"), up).await;
    }

    pub(super) fn status(&self) -> StatusBoard {
        self.handle.status()
    }

    /// The first slot that fits.
    pub(super) async fn slot(&self, what: &str, fits: impl Fn(&SlotStatus) -> bool) -> SlotStatus {
        eventually(what, async || self.status().slots().into_iter().find(&fits)).await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.drain.stop();
    }
}

/// Answers with its name and that of the service that was asked for.
pub(super) fn service(name: &'static str) -> Router {
    gated(name, Arc::default())
}

/// As [`service`]; the answers to `/gate` wait for a permit.
fn gated(name: &'static str, gate: Arc<Gate>) -> Router {
    let answer = async move |service: Option<Extension<ServiceName>>| {
        let service = service.map_or_else(String::new, |Extension(service)| service.to_string());
        format!("{name} {service}")
    };
    let waiting = async move || {
        gate.came.fetch_add(1, Ordering::Relaxed);
        gate.permits.acquire().await.unwrap().forget();
        format!("{name} after the gate")
    };
    Router::new().route("/gate", routing::get(waiting)).fallback(answer)
}

pub(super) fn exported(names: &[&str]) -> Vec<Service> {
    names.iter().map(|name| Service { name: name.parse().unwrap(), kind: ServiceKind::Http }).collect()
}
