//! Responders that are siblings, by a list instead of a directory, and a site that is connected to one of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use adit::egress::udp::{UdpEgress, UdpTerms};
use adit::fleet::hop::{Hop, HopHandle, HopSettings, LocalTunnels, Ways};
use adit::fleet::{Perhaps, Sibling, Siblings};
use adit::id::{ClusterId, HostId, HostPort, NodeId, ResponderId, TenantId};
use adit::initiator::serve::{ServiceLimits, ServiceSettings, Services};
use adit::initiator::{self, Destination};
use adit::lifecycle::Drain;
use adit::message::pattern::Match;
use adit::protocol::handshake::Service;
use adit::protocol::session::Timing;
use adit::registry::{Handle as _, Health};
use adit::routing::{Connect, Directory, RouterSettings, Tenant};
use adit::targets::TargetSettings;
use adit::telemetry::Metrics;
use adit::tls::{self, Credentials, SiblingTls, Trust};
use adit::transport::{Accept, TransportChoice, Tunnel, TunnelSettings};
use adit::{egress, responder};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};

use crate::support::certificates::{Authority, Certificate, IDENTITY, Node};
use crate::support::eventually::eventually;
use crate::support::http1::{Response, get};
use crate::support::site::Transport;

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// A node that no responder has.
const NOBODY: &str = "edge-0";
/// Which name proves a responder here.
const RESPONDERS: &str = "spiffe://example.org/responder/{responder}";

/// Who has what, as a test says it.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<Vec<(Arc<Sibling>, BTreeSet<String>)>>, Mutex<BTreeSet<String>>);

impl Table {
    /// There is such a responder.
    pub(super) fn enters(&self, id: &str, at: SocketAddr) {
        let sibling = Sibling {
            id: id.parse().unwrap(),
            siblings_at: vec![HostPort { host: at.ip().to_string(), port: at.port() }],
            initiators_at: Vec::new(),
            region: None,
            weight: 1,
            epoch: 1,
            draining: false,
            tunnels: 0,
        };
        self.0.lock().unwrap().push((Arc::new(sibling), BTreeSet::new()));
    }

    /// It has this node or cluster, whether or not that is true.
    pub(super) fn says(&self, id: &str, host: &str) {
        let mut table = self.0.lock().unwrap();
        let (_, hosts) = table.iter_mut().find(|(sibling, _)| sibling.id.as_str() == id).unwrap();
        hosts.insert(host.to_owned());
    }

    /// Somebody has this node or cluster, or had it lately.
    pub(super) fn knows(&self, host: &str) {
        self.1.lock().unwrap().insert(host.to_owned());
    }

    /// Whether it is still said to have it.
    pub(super) fn still_says(&self, id: &str, host: &str) -> bool {
        let table = self.0.lock().unwrap();
        table.iter().any(|(sibling, hosts)| sibling.id.as_str() == id && hosts.contains(host))
    }

    /// It can be reached at this address, too, which stands before those that it has.
    pub(super) fn also_at(&self, id: &str, at: SocketAddr) {
        let mut table = self.0.lock().unwrap();
        let (sibling, _) = table.iter_mut().find(|(sibling, _)| sibling.id.as_str() == id).unwrap();
        let mut siblings_at = vec![HostPort { host: at.ip().to_string(), port: at.port() }];
        siblings_at.extend(sibling.siblings_at.clone());
        *sibling = Arc::new(Sibling { siblings_at, ..Sibling::clone(sibling) });
    }

    /// Its address is this now.
    pub(super) fn moves(&self, id: &str, at: SocketAddr) {
        let mut table = self.0.lock().unwrap();
        let (sibling, _) = table.iter_mut().find(|(sibling, _)| sibling.id.as_str() == id).unwrap();
        let siblings_at = vec![HostPort { host: at.ip().to_string(), port: at.port() }];
        *sibling = Arc::new(Sibling { siblings_at, epoch: sibling.epoch + 1, ..Sibling::clone(sibling) });
    }
}

/// The table as one of those in it sees it.
#[derive(Debug)]
struct Seen(Arc<Table>, ResponderId);

impl Siblings for Seen {
    fn having(&self, _: &TenantId, host: &HostId) -> Vec<Arc<Sibling>> {
        let table = self.0.0.lock().unwrap();
        let others = table.iter().filter(|(sibling, hosts)| sibling.id != self.1 && hosts.contains(host.as_str()));
        others.map(|(sibling, _)| Arc::clone(sibling)).collect()
    }

    fn hear(&self, tenant: &TenantId, node: &NodeId) -> bool {
        self.having(tenant, &HostId::from(node)).iter().any(|sibling| !sibling.draining)
    }

    fn perhaps_having(&self, _: &TenantId, _: &HostId) -> Vec<Perhaps> {
        Vec::new()
    }

    fn has_known(&self, _: &TenantId, host: &HostId, _: Instant) -> bool {
        self.0.1.lock().unwrap().contains(host.as_str())
    }

    fn cluster_of(&self, _: &TenantId, _: &HostId) -> Option<ClusterId> {
        None
    }

    fn not_here(&self, id: &ResponderId, _: &TenantId, host: &HostId) {
        let mut table = self.0.0.lock().unwrap();
        for (_, hosts) in table.iter_mut().filter(|(sibling, _)| sibling.id == *id) {
            hosts.remove(host.as_str());
        }
    }

    fn all(&self) -> Vec<Arc<Sibling>> {
        let table = self.0.0.lock().unwrap();
        table.iter().filter(|(sibling, _)| sibling.id != self.1).map(|(sibling, _)| Arc::clone(sibling)).collect()
    }
}

pub(super) fn credentials(certificate: &Certificate) -> Credentials {
    Credentials::from_pem(certificate.pem().as_bytes(), certificate.key_pem().as_bytes()).unwrap()
}

pub(super) fn trust(authority: &Authority) -> Trust {
    Trust { roots: tls::parse_roots(authority.pem().as_bytes()).unwrap(), ..Trust::default() }
}

/// What a responder shows its siblings, with this name.
pub(crate) fn certificate_of(authority: &Authority, name: &str) -> Certificate {
    authority.issue(sibling(name))
}

/// The same, which ends then.
pub(crate) fn certificate_lasting(authority: &Authority, name: &str, lifetime: Duration) -> Certificate {
    let mut params = sibling(name);
    params.not_after = (std::time::SystemTime::now() + lifetime).into();
    authority.issue(params)
}

fn sibling(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A responder of the fleet, with listeners for requests and for datagrams in front.
pub(super) struct Member {
    pub(super) egress: SocketAddr,
    pub(super) udp: SocketAddr,
    pub(super) ways: Ways,
    pub(super) metrics: Metrics,
    pub(super) hop: SocketAddr,
    hop_handle: HopHandle,
    handle: responder::Handle,
    drain: Drain,
    /// Its part in the fleet alone.
    hop_drain: Drain,
}

/// How a member differs from the usual one.
pub(super) struct Choices {
    pub(super) hold: Duration,
    /// What it shows its siblings, in place of its name.
    pub(super) shows: Option<Certificate>,
    /// How long it hears nothing of a sibling before that is gone.
    pub(super) idle_timeout: Duration,
    /// How long the handshake with a sibling may take.
    pub(super) handshake_timeout: Duration,
}

impl Default for Choices {
    fn default() -> Self {
        let Timing { idle_timeout, handshake_timeout, .. } = Timing::default();
        Self { hold: Duration::ZERO, shows: None, idle_timeout, handshake_timeout }
    }
}

impl Member {
    pub(super) fn start(authority: &Authority, table: &Arc<Table>, id: &str) -> Self {
        Self::with(authority, table, (id, Choices::default()))
    }

    pub(super) fn with(authority: &Authority, table: &Arc<Table>, (id, choices): (&str, Choices)) -> Self {
        let metrics = Metrics::new();
        let builder = responder::Builder::new(credentials(&authority.responder())).grace(Duration::ZERO);
        let builder = builder.admit_certificates(trust(authority).roots, IDENTITY).unwrap().tcp(LOOPBACK.into());
        let responder = builder.metrics(&metrics).bind(LOOPBACK.into()).unwrap();
        let (handle, directory) = (responder.handle(), responder.directory());
        let router = RouterSettings {
            tenant: Tenant::Fixed("default".parse().unwrap()),
            service: Some("web".parse().unwrap()),
            connect: Connect::All,
            connect_udp: Connect::All,
            hold: choices.hold,
            ..RouterSettings::new("%REQ(x-node-id)%".parse().unwrap())
        };
        let entrance = egress::Builder::new(Arc::clone(&directory), router).metrics(&metrics);
        let entrance = entrance.bind(LOOPBACK.into()).unwrap();
        let terms =
            UdpTerms { hold: choices.hold, ..UdpTerms::new("edge-1".parse().unwrap(), "echo".parse().unwrap()) };
        let datagrams = UdpEgress::bind(LOOPBACK.into(), terms, Arc::clone(&directory), &metrics).unwrap();
        let shows = choices.shows.unwrap_or_else(|| certificate_of(authority, &RESPONDERS.replace("{responder}", id)));
        let tls = SiblingTls { credentials: credentials(&shows), siblings: trust(authority) };
        let Choices { idle_timeout, handshake_timeout, .. } = choices;
        let timing = Timing { idle_timeout, handshake_timeout, ..Timing::default() };
        let settings = HopSettings {
            tunnel: TunnelSettings { timing, ..TunnelSettings::default() },
            ..HopSettings::new(id.parse().unwrap(), 1, tls, RESPONDERS.parse().unwrap())
        };
        let seen: Arc<dyn Siblings> = Arc::new(Seen(Arc::clone(table), id.parse().unwrap()));
        let tunnels: Arc<dyn LocalTunnels> = Arc::clone(&directory) as _;
        let hop = Hop::bind(LOOPBACK.into(), settings, (seen, tunnels), &metrics).unwrap();
        let (ways, at, hop_handle) = (hop.ways(), hop.local_addr().unwrap(), hop.handle());
        directory.look_elsewhere(Some(Arc::new(hop.ways())));
        table.enters(id, at);
        let (drain, hop_drain) = (Drain::new(), Drain::new());
        let (egress, udp) = (entrance.local_addr(), datagrams.local_addr());
        tokio::spawn(responder.run(drain.watch()));
        tokio::spawn(entrance.run(drain.watch()));
        tokio::spawn(datagrams.run(drain.watch()));
        tokio::spawn(hop.run(hop_drain.watch()));
        Self { egress, udp, ways, metrics, hop: at, hop_handle, handle, drain, hop_drain }
    }

    /// Shows its siblings this from now on, and trusts those of these authorities; whether that is something else than before.
    pub(super) fn renew(&self, shows: &Certificate, trusts: Trust) -> bool {
        let tls = SiblingTls { credentials: credentials(shows), siblings: trusts };
        let renewal = self.hop_handle.prepare(tls).unwrap();
        renewal.map(|renewal| self.hop_handle.renew(renewal)).is_some()
    }

    pub(super) fn directory(&self) -> Arc<Directory<Tunnel>> {
        self.handle.directory()
    }

    /// Waits until these siblings can be asked without dialling: no request waits as long for that as a busy machine may take.
    /// They are dialled for a node that nobody has.
    pub(super) async fn reaches(&self, table: &Table, siblings: &[&str]) {
        eventually(&format!("connections to {siblings:?}"), async || {
            siblings.iter().for_each(|id| table.says(id, NOBODY));
            let _ = get(self.egress, "/", &[&format!("x-node-id: {NOBODY}")]).await.unwrap();
            let connected = self.ways.connected();
            siblings.iter().all(|id| connected.iter().any(|one| one.as_str() == *id)).then_some(())
        })
        .await;
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        get(self.egress, path, &["x-node-id: edge-1"]).await.unwrap()
    }

    /// The value of one series, as it is exposed.
    pub(super) fn metric(&self, series: &str) -> u64 {
        let text = self.metrics.render();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0)
    }

    /// Its connections to siblings end without a word of what ran on them; it listens for none any more.
    pub(super) fn leave_fleet(&self) {
        self.hop_drain.stop();
    }

    /// As [`Member::leave_fleet`], but what runs may finish.
    pub(super) fn drain_fleet(&self) {
        self.hop_drain.begin(Duration::from_secs(60));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.hop_drain.stop();
        self.drain.stop();
    }
}

/// A running initiator of this node, connected to one member.
pub(super) struct Edge(pub(super) Drain);

impl Edge {
    /// `targets`: of requests, of bytes, of datagrams.
    pub(super) async fn start(
        (authority, transport): (&Authority, Transport),
        (name, member): (&str, &Member),
        targets: [String; 3],
    ) -> Self {
        let of = Node { tenant: "default", cluster: "stores", node: name };
        Self::of((authority, transport), (of, member), targets).await
    }

    /// The same for this node of this tenant.
    pub(super) async fn of(
        at: (&Authority, Transport),
        (of, member): (Node<'_>, &Member),
        targets: [String; 3],
    ) -> Self {
        let names = ["web", "bytes", "echo"];
        let list = names.into_iter().zip(targets).map(|(name, target)| service(name, &target)).collect();
        let services = Services::new(list).unwrap();
        Self::accepting(at, (of, member), services.exported(), services).await
    }

    /// The same, which hands what arrives to `accept`.
    pub(super) async fn accepting<A: Accept>(
        (authority, transport): (&Authority, Transport),
        (of, member): (Node<'_>, &Member),
        exported: Vec<Service>,
        accept: A,
    ) -> Self {
        let open = || {
            let directory = member.directory();
            let live = directory.registry().snapshot();
            live.filter(|live| !live.leaving && live.handle.health() == Health::Healthy).count()
        };
        let before = open();
        let address = match transport {
            Transport::Quic => member.handle.quic_addr(),
            Transport::Tcp => member.handle.tcp_addr(),
        };
        let target = format!("localhost:{}", address.unwrap().port()).parse().unwrap();
        let choice = match transport {
            Transport::Quic => TransportChoice::Quic,
            Transport::Tcp => TransportChoice::Tcp,
        };
        let destination = Destination { transport: choice, ..Destination::new(&target, 1) };
        let claim = adit::id::Claim {
            tenant: of.tenant.parse().unwrap(),
            cluster: of.cluster.parse().unwrap(),
            node: of.node.parse().unwrap(),
        };
        let initiator = initiator::Builder::to(claim, vec![destination], trust(authority))
            .credentials(credentials(&authority.node(of)))
            .services(exported)
            .accept(accept)
            .unwrap();
        let drain = Drain::new();
        tokio::spawn(initiator.run(drain.watch()));
        let there = async || (open() > before).then_some(());
        eventually("the tunnel of the site", there).await;
        Self(drain)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn service(name: &str, target: &str) -> ServiceSettings {
    ServiceSettings {
        name: name.parse().unwrap(),
        matches: Some(Match { host: None, prefix: "/".parse().unwrap() }),
        target: target.parse().unwrap(),
        connections: TargetSettings::default(),
        limits: ServiceLimits::default(),
        health: None,
        rewrite: Vec::new(),
        upgrades: Vec::new(),
        proxy_header: false,
    }
}
