//! A responder's end and an initiator's end of one tunnel, in one process.

use std::net::SocketAddr;
use std::time::Duration;

use adit::id::{Claim, InstanceId, Place, TunnelId};
use adit::message::BoxError;
use adit::message::interim::InformationalSink;
use adit::protocol::handshake::{Hello, PeerLimits, Welcome};
use adit::tls::{self, ClientCertificates, Credentials, InitiatorTls, ResponderTls, Trust};
use adit::transport::quic::{self, Keys, QuicSettings, bind};
use adit::transport::tcp::{self, TcpSettings};
use adit::transport::{
    Accept, AnswerHead, CloseReason, DialError, Dialed, Dialer, HeadParts, HttpHead, HttpService, HttpStream, Incoming,
    OpenError, Pending, RecvBody, Serve, TransportKind, Tunnel, TunnelSettings,
};
use bytes::Bytes;
use http::{Response, request};
use http_body::Body;
use tokio::task::JoinHandle;

use crate::support::certificates::{Authority, Certificate, Node};
use crate::support::site::Transport;

const ALPN: &[&[u8]] = &[b"adit/1"];

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
    pub(super) async fn open<S: Serve + Sync>(transport: Transport, service: S) -> Self {
        Self::open_with(transport, service, TunnelSettings::default()).await
    }

    pub(super) async fn open_with<S: Serve + Sync>(transport: Transport, service: S, tunnel: TunnelSettings) -> Self {
        Self::accept_with(transport, HttpService(service), tunnel).await
    }

    /// Raw streams and flows arrive too.
    pub(super) async fn accept<A: Accept>(transport: Transport, accept: A) -> Self {
        Self::accept_with(transport, accept, TunnelSettings::default()).await
    }

    async fn accept_with<A: Accept>(transport: Transport, accept: A, tunnel: TunnelSettings) -> Self {
        let ends = Ends::new(transport, tunnel);
        let (responder, dialed) = tokio::join!(ends.admit(), ends.dial(0));
        let (responder, responder_driver) = responder;
        let dialed = dialed.unwrap();
        let initiator = dialed.tunnel.clone();
        assert_eq!(initiator.transport().label(), transport.label());
        let initiator_driver = tokio::spawn(dialed.run(accept));
        Self { responder, responder_driver, initiator, initiator_driver }
    }
}

/// A listener and a dialer that trust each other.
pub(super) struct Ends {
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    over: TransportKind,
    pub(super) dialer: Dialer,
}

/// Where tunnels come in.
pub(super) enum Listener {
    Quic(quic::Listener),
    Tcp(tcp::Listener),
}

impl Listener {
    /// The next connection.
    pub(super) async fn accept(&self) -> Incoming {
        match self {
            Self::Quic(listener) => Incoming::Quic(Box::new(listener.accept().await.unwrap())),
            Self::Tcp(listener) => Incoming::Tcp(Box::new(listener.accept().await)),
        }
    }
}

impl Ends {
    pub(super) fn new(transport: Transport, tunnel: TunnelSettings) -> Self {
        Self::with(transport, tunnel, QuicSettings::default())
    }

    pub(super) fn with(transport: Transport, tunnel: TunnelSettings, quic: QuicSettings) -> Self {
        let authority = Authority::new("test CA");
        let tls = initiator_tls(&authority);
        match transport {
            Transport::Quic => {
                let (listener, address) = listen(&authority, tunnel, quic.clone(), &Keys::ephemeral());
                let dialer = Dialer::new(Some(dialer(&authority, tunnel, quic)), None);
                Self { listener: Listener::Quic(listener), address, over: TransportKind::Quic, dialer }
            }
            Transport::Tcp => {
                let settings = TcpSettings::default();
                let socket = adit::net::bind_tcp(loopback()).unwrap();
                let listener = tcp::Listener::new(socket, responder_tls(&authority), tunnel, settings.clone());
                let address = listener.local_addr().unwrap();
                let dialer = Dialer::new(None, Some(tcp::Dialer::new(tls, tunnel, settings)));
                Self { listener: Listener::Tcp(listener), address, over: TransportKind::Tcp, dialer }
            }
        }
    }

    pub(super) async fn dial(&self, generation: u64) -> Result<Dialed, DialError> {
        self.dial_at(self.address, generation).await
    }

    /// Dials another address, from which a relay leads to the listener.
    pub(super) async fn dial_at(&self, address: SocketAddr, generation: u64) -> Result<Dialed, DialError> {
        let hello = hello(generation);
        self.dialer.connect(self.over, address, "localhost").await?.claim(&hello).await
    }

    pub(super) async fn pending(&self) -> Pending {
        self.listener.accept().await.handshake().await.unwrap()
    }

    pub(super) async fn admit(&self) -> (Tunnel, JoinHandle<CloseReason>) {
        let prepared = self.pending().await.prepare(TunnelId(7));
        let tunnel = prepared.tunnel().clone();
        (tunnel, tokio::spawn(prepared.welcome(welcome())))
    }
}

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(super) fn listen(
    authority: &Authority,
    tunnel: TunnelSettings,
    quic: QuicSettings,
    keys: &Keys,
) -> (quic::Listener, SocketAddr) {
    listen_at(loopback(), authority, tunnel, quic, keys)
}

pub(super) fn listen_at(
    address: SocketAddr,
    authority: &Authority,
    tunnel: TunnelSettings,
    quic: QuicSettings,
    keys: &Keys,
) -> (quic::Listener, SocketAddr) {
    let (socket, _) = adit::net::bind_udp(address).unwrap();
    let server = quic::Listener::server_config(responder_tls(authority), &tunnel, &quic).unwrap();
    let endpoint = bind(socket, keys, Some(server.endpoint())).unwrap();
    let address = endpoint.local_addr().unwrap();
    (quic::Listener::new(endpoint, server, tunnel, quic), address)
}

pub(super) fn dialer(authority: &Authority, tunnel: TunnelSettings, quic: QuicSettings) -> quic::Dialer {
    let (socket, _) = adit::net::bind_udp(loopback()).unwrap();
    let endpoint = bind(socket, &Keys::ephemeral(), None).unwrap();
    quic::Dialer::new(endpoint, initiator_tls(authority), tunnel, quic).unwrap()
}

fn responder_tls(authority: &Authority) -> rustls::ServerConfig {
    let tls = ResponderTls {
        credentials: credentials(&authority.responder()),
        initiators: ClientCertificates::Required(trust(authority)),
    };
    tls::responder_config(&tls, ALPN).unwrap()
}

fn initiator_tls(authority: &Authority) -> rustls::ClientConfig {
    let tls = InitiatorTls { credentials: Some(credentials(&authority.node(NODE))), responder: trust(authority) };
    tls::initiator_config(&tls, ALPN).unwrap()
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
        reauth: None,
        roster: None,
    }
}

/// Sends a request and waits for the head of the response. The body is taken out of `body` only once a stream is open.
pub(super) async fn exchange<B>(
    tunnel: &Tunnel,
    head: &request::Parts,
    body: &mut Option<B>,
) -> Result<Response<RecvBody>, OpenError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let end = body.as_ref().is_none_or(Body::is_end_stream);
    let head_of_stream = HttpHead { service: None, parts: HeadParts::Lent(head), end };
    let HttpStream { upload, mut answer } = tunnel.open_http(head_of_stream).await?;
    if let (Some(upload), Some(body)) = (upload, body.take()) {
        let interest = answer.tie_upload();
        tokio::spawn(async move { drop(upload.send(body, interest).await) });
    }
    loop {
        match answer.next().await? {
            AnswerHead::Final(parts, body) => return Ok(Response::from_parts(parts, body)),
            AnswerHead::Here => panic!("no node says so"),
            AnswerHead::Interim(early) => {
                if let Some(sink) = head.extensions.get::<InformationalSink>() {
                    sink.send(early);
                }
            }
        }
    }
}
