//! The other end of a role, played step by step.

use std::net::SocketAddr;
use std::sync::Arc;

use adit::id::{InstanceId, Place, TunnelId};
use adit::initiator::Destination;
use adit::protocol::handshake::{Hello, PeerLimits, Welcome};
use adit::tls::{self, ClientCertificates, InitiatorTls, ResponderTls};
use adit::transport::quic::{self, Keys, QuicSettings, bind};
use adit::transport::tcp::{self, TcpSettings};
use adit::transport::{
    Connected, DialError, Dialer, Incoming, Pending, Prepared, TransportChoice, TransportKind, TunnelSettings,
};

use crate::handles::world::{LOOPBACK, credentials, node_tls, trust};
use crate::support::certificates::{Authority, Node};
use crate::support::site::Transport;

const ALPN: &[&[u8]] = &[b"adit/1"];

/// An initiator that takes each step of its handshake when it is told to.
pub(crate) struct Initiator {
    dialer: Dialer,
    over: TransportKind,
}

impl Initiator {
    pub(crate) fn new(transport: Transport, authority: &Authority, of: Node<'_>) -> Self {
        Self::with(transport, &node_tls(authority, of))
    }

    pub(super) fn with(transport: Transport, tls: &Arc<InitiatorTls>) -> Self {
        let (config, tunnel) = (tls::initiator_config(tls, ALPN).unwrap(), TunnelSettings::default());
        match transport {
            Transport::Quic => {
                let (socket, _) = adit::net::bind_udp(LOOPBACK.into()).unwrap();
                let endpoint = bind(socket, &Keys::ephemeral(), None).unwrap();
                let quic = quic::Dialer::new(endpoint, config, tunnel, QuicSettings::default()).unwrap();
                Self { dialer: Dialer::new(Some(quic), None), over: TransportKind::Quic }
            }
            Transport::Tcp => {
                let tcp = tcp::Dialer::new(config, tunnel, TcpSettings::default());
                Self { dialer: Dialer::new(None, Some(tcp)), over: TransportKind::Tcp }
            }
        }
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connected, DialError> {
        self.dialer.connect(self.over, address, "localhost").await
    }
}

pub(crate) fn hello(of: Node<'_>, generation: u64) -> Hello {
    let claim = adit::id::Claim {
        tenant: of.tenant.parse().unwrap(),
        cluster: of.cluster.parse().unwrap(),
        node: of.node.parse().unwrap(),
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

/// A responder that admits when it is told to.
pub(super) struct Responder {
    listener: Listener,
    pub(super) address: SocketAddr,
}

enum Listener {
    Quic(quic::Listener),
    Tcp(tcp::Listener),
}

impl Responder {
    pub(super) fn new(transport: Transport, authority: &Authority) -> Self {
        let tls = ResponderTls {
            credentials: credentials(&authority.responder()),
            initiators: ClientCertificates::Required(trust(authority)),
        };
        let (config, tunnel) = (tls::responder_config(&tls, ALPN).unwrap(), TunnelSettings::default());
        match transport {
            Transport::Quic => {
                let (socket, _) = adit::net::bind_udp(LOOPBACK.into()).unwrap();
                let settings = QuicSettings::default();
                let server = quic::Listener::server_config(config, &tunnel, &settings).unwrap();
                let endpoint = bind(socket, &Keys::ephemeral(), Some(server.endpoint())).unwrap();
                let address = endpoint.local_addr().unwrap();
                Self { listener: Listener::Quic(quic::Listener::new(endpoint, server, tunnel, settings)), address }
            }
            Transport::Tcp => {
                let socket = adit::net::bind_tcp(LOOPBACK.into()).unwrap();
                let listener = tcp::Listener::new(socket, config, tunnel, TcpSettings::default());
                let address = listener.local_addr().unwrap();
                Self { listener: Listener::Tcp(listener), address }
            }
        }
    }

    /// It, as one of the destinations of an initiator.
    pub(super) fn destination(&self) -> Destination {
        let target = format!("localhost:{}", self.address.port()).parse().unwrap();
        let transport = match self.listener {
            Listener::Quic(_) => TransportChoice::Quic,
            Listener::Tcp(_) => TransportChoice::Tcp,
        };
        Destination { transport, ..Destination::new(&target, 1) }
    }

    /// The next connection that has made a claim.
    pub(super) async fn claimed(&self) -> Pending {
        loop {
            let incoming = match &self.listener {
                Listener::Quic(listener) => Incoming::Quic(Box::new(listener.accept().await.unwrap())),
                Listener::Tcp(listener) => Incoming::Tcp(Box::new(listener.accept().await)),
            };
            // One that was given up before its claim is no fault.
            if let Ok(pending) = incoming.handshake().await {
                return pending;
            }
        }
    }
}

/// The tunnel of a claim, still to be welcomed, and what to welcome it with.
pub(super) fn admitted(pending: Pending, id: u64) -> (Prepared, Welcome) {
    let welcome = Welcome {
        version: 1,
        tunnel: TunnelId(id),
        responder: "played".into(),
        observed: None,
        limits: PeerLimits::default(),
        keepalive: std::time::Duration::from_secs(5),
        idle: std::time::Duration::from_secs(30),
        reauth: None,
        roster: None,
    };
    (pending.prepare(TunnelId(id)), welcome)
}
