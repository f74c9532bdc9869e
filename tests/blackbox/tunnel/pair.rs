//! A responder's end and an initiator's end of one tunnel, in one process.

use std::net::SocketAddr;
use std::time::Duration;

use adit::id::{Claim, InstanceId, Place, TunnelId};
use adit::protocol::handshake::{Hello, PeerLimits, Welcome};
use adit::tls::{self, ClientCertificates, Credentials, InitiatorTls, ResponderTls, Trust};
use adit::transport::quic::{Dialer, Keys, Listener, Pending, QuicSettings, bind};
use adit::transport::{CloseReason, DialError, Serve, Tunnel};
use tokio::task::JoinHandle;

use crate::support::certificates::{Authority, Certificate, Node};

pub(super) const ALPN: &[&[u8]] = &[b"adit/1"];

/// The node of every tunnel here.
pub(super) const NODE: Node<'_> = Node { tenant: "default", cluster: "ships", node: "edge-1" };

/// Both ends of an open tunnel.
pub(super) struct Pair {
    pub(super) responder: Tunnel,
    pub(super) responder_driver: JoinHandle<CloseReason>,
    pub(super) initiator: Tunnel,
    pub(super) initiator_driver: JoinHandle<CloseReason>,
}

impl Pair {
    pub(super) async fn open<S: Serve + Sync>(service: S) -> Self {
        Self::open_with(service, QuicSettings::default()).await
    }

    pub(super) async fn open_with<S: Serve + Sync>(service: S, settings: QuicSettings) -> Self {
        let ends = Ends::new(settings, &Keys::ephemeral());
        let (responder, dialed) = tokio::join!(ends.admit(), ends.dial(0));
        let (responder, responder_driver) = responder;
        let dialed = dialed.unwrap();
        let initiator = dialed.tunnel.clone();
        let initiator_driver = tokio::spawn(dialed.run(service));
        Self { responder, responder_driver, initiator, initiator_driver }
    }
}

/// A listener and a dialer that trust each other.
pub(super) struct Ends {
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    pub(super) dialer: Dialer,
}

impl Ends {
    pub(super) fn new(settings: QuicSettings, keys: &Keys) -> Self {
        let authority = Authority::new("test CA");
        let listener = listen(&authority, settings.clone(), keys, loopback());
        let address = listener.1;
        let dialer = dialer(&authority, settings);
        Self { listener: listener.0, address, dialer }
    }

    pub(super) async fn dial(&self, generation: u64) -> Result<adit::transport::quic::Dialed, DialError> {
        self.dialer.dial(self.address, "localhost", &hello(generation)).await
    }

    pub(super) async fn pending(&self) -> Pending {
        self.listener.accept(|| 0).await.unwrap().handshake().await.unwrap()
    }

    pub(super) async fn admit(&self) -> (Tunnel, JoinHandle<CloseReason>) {
        let prepared = self.pending().await.prepare(TunnelId(7));
        let tunnel = prepared.tunnel().clone();
        (tunnel, tokio::spawn(prepared.welcome(&welcome())))
    }
}

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(super) fn listen(
    authority: &Authority,
    settings: QuicSettings,
    keys: &Keys,
    address: SocketAddr,
) -> (Listener, SocketAddr) {
    let tls = ResponderTls {
        credentials: credentials(&authority.responder()),
        initiators: ClientCertificates::Required(trust(authority)),
    };
    let tls = tls::responder_config(&tls, ALPN).unwrap();
    let (socket, _) = adit::net::bind_udp(address).unwrap();
    let server = Listener::server_config(tls, &settings).unwrap();
    let endpoint = bind(socket, keys, Some(server)).unwrap();
    let address = endpoint.local_addr().unwrap();
    (Listener::new(endpoint, settings), address)
}

pub(super) fn dialer(authority: &Authority, settings: QuicSettings) -> Dialer {
    let tls = InitiatorTls { credentials: Some(credentials(&authority.node(NODE))), responder: trust(authority) };
    let tls = tls::initiator_config(&tls, ALPN).unwrap();
    let (socket, _) = adit::net::bind_udp(loopback()).unwrap();
    Dialer::new(bind(socket, &Keys::ephemeral(), None).unwrap(), tls, settings).unwrap()
}

fn credentials(certificate: &Certificate) -> Credentials {
    Credentials::from_pem(certificate.pem().as_bytes(), certificate.key_pem().as_bytes()).unwrap()
}

fn trust(authority: &Authority) -> Trust {
    Trust { roots: tls::parse_roots(authority.pem().as_bytes()).unwrap(), ..Trust::default() }
}

pub(super) fn hello(generation: u64) -> Hello {
    let claim = Claim {
        tenant: NODE.tenant.parse().unwrap(),
        cluster: NODE.cluster.parse().unwrap(),
        node: NODE.node.parse().unwrap(),
    };
    Hello {
        versions: (1, 1),
        place: Place { claim, instance: InstanceId([1; 16]), slot: 0, generation },
        token: None,
        services: Vec::new(),
        limits: PeerLimits::default(),
        build: "test".into(),
    }
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        version: 1,
        tunnel: TunnelId(7),
        responder: "test".into(),
        observed: None,
        limits: PeerLimits::default(),
        keepalive: Duration::from_secs(5),
        idle: Duration::from_secs(30),
    }
}
