//! Ends of a QUIC tunnel that say whatever a test wants.

use std::net::SocketAddr;
use std::sync::Arc;

use adit::id::{Claim, InstanceId, Place, TunnelId};
use adit::protocol::ALPN;
use adit::protocol::control::{Frame, FrameReader};
use adit::protocol::handshake::{Hello, PeerLimits, Welcome};
use adit::tls::{self, ClientCertificates, Credentials, InitiatorTls, ResponderTls, Trust};
use bytes::BytesMut;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, SendStream};

use crate::support::certificates::{Certificate, Node};
use crate::support::eventually::PATIENCE;
use crate::support::site::{Folder, NODE};

pub(super) fn credentials(certificate: &Certificate) -> Credentials {
    Credentials::from_pem(certificate.pem().as_bytes(), certificate.key_pem().as_bytes()).unwrap()
}

pub(super) fn trust(folder: &Folder) -> Trust {
    Trust { roots: tls::parse_roots(folder.authority.pem().as_bytes()).unwrap(), ..Trust::default() }
}

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Connects as `node`, with a valid certificate; not a word is said yet.
pub(super) async fn connect(folder: &Folder, address: SocketAddr, node: Node<'_>) -> Connection {
    connect_with(folder, address, node, quinn::TransportConfig::default()).await
}

pub(super) async fn connect_with(
    folder: &Folder,
    address: SocketAddr,
    node: Node<'_>,
    transport: quinn::TransportConfig,
) -> Connection {
    attempt(folder, address, node, transport).await.unwrap()
}

/// Like [`connect_with`], where the responder may have no room.
pub(super) async fn attempt(
    folder: &Folder,
    address: SocketAddr,
    node: Node<'_>,
    transport: quinn::TransportConfig,
) -> Result<Connection, quinn::ConnectionError> {
    let shown = InitiatorTls { credentials: Some(credentials(&folder.authority.node(node))), responder: trust(folder) };
    let tls = tls::initiator_config(&shown, &[ALPN]).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(loopback()).unwrap();
    endpoint.connect_with(config, address, "localhost").unwrap().await
}

/// A responder with a valid certificate, which admits anybody.
pub(super) fn listen(folder: &Folder) -> Endpoint {
    let shown = ResponderTls {
        credentials: credentials(&folder.authority.responder()),
        initiators: ClientCertificates::Required(trust(folder)),
    };
    let tls = tls::responder_config(&shown, &[ALPN]).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    Endpoint::server(config, loopback()).unwrap()
}

pub(super) fn hello(node: Node<'_>) -> Hello {
    let claim = Claim {
        tenant: node.tenant.parse().unwrap(),
        cluster: node.cluster.parse().unwrap(),
        node: node.node.parse().unwrap(),
    };
    Hello {
        versions: (1, 1),
        place: Place { claim, instance: InstanceId([7; 16]), slot: 0, generation: 0 },
        token: None,
        services: Vec::new(),
        limits: PeerLimits::default(),
        build: "test".into(),
    }
}

pub(super) fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes.to_vec()
}

pub(super) fn hello_bytes(node: Node<'_>) -> Vec<u8> {
    encoded(&Frame::Hello(Box::new(hello(node))))
}

pub(super) fn welcome_bytes() -> Vec<u8> {
    welcome_with(std::time::Duration::from_secs(5))
}

/// The same with this keepalive, and six times as much silence before either end gives up.
pub(super) fn welcome_with(keepalive: std::time::Duration) -> Vec<u8> {
    encoded(&Frame::Welcome(Box::new(Welcome {
        version: 1,
        tunnel: TunnelId(7),
        responder: "hostile".into(),
        observed: None,
        limits: PeerLimits::default(),
        keepalive,
        idle: 6 * keepalive,
        reauth: None,
        roster: None,
    })))
}

/// Says HELLO as an honest peer would and waits for WELCOME.
pub(super) async fn open(connection: &Connection, node: Node<'_>) -> (SendStream, RecvStream) {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello_bytes(node)).await.unwrap();
    assert!(matches!(frame(&mut recv).await, Frame::Welcome(_)));
    (send, recv)
}

/// The next frame of a control stream.
pub(super) async fn frame(recv: &mut RecvStream) -> Frame {
    let mut reader = FrameReader::new();
    let mut byte = [0];
    loop {
        recv.read_exact(&mut byte).await.unwrap();
        if let Some(frame) = reader.next(&mut &byte[..]).unwrap() {
            return frame;
        }
    }
}

/// How the other side closed the connection: the code, and its words.
pub(super) async fn closed(connection: &Connection) -> (u64, String) {
    match tokio::time::timeout(PATIENCE, connection.closed()).await.expect("the connection is closed") {
        quinn::ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("not closed by the peer: {other}"),
    }
}

/// Who the hostile peers say they are; their certificates prove it.
pub(super) const HOSTILE: Node<'static> = Node { node: "hostile", ..NODE };
