//! The ceiling: the same bytes over quinn alone, a bidirectional stream per exchange, mTLS, no proxy around it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime, TransportConfig, VarInt};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use socket2::{Domain, Socket, Type};
use tokio::task::JoinSet;

use crate::line::{Direction, Kind, Line, Sample, Shape, Stopwatch, Workload, sum};
use crate::support::certificates::{Authority, Node, RESPONDER_NAME};
use crate::target::{PAYLOAD, PIECE};
use crate::thread::{block_on, on_own_thread};

const ALPN: &[u8] = b"raw";
const MIB: u32 = 1 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A server that lives as long as the benchmark, and how to reach it.
pub(crate) struct RawQuic {
    server: SocketAddr,
    client: quinn::ClientConfig,
}

impl RawQuic {
    pub(crate) fn start() -> Self {
        let authority = Authority::new("raw");
        let server_config = server_config(&authority);
        let server = on_own_thread("raw-server", async |started| {
            let endpoint = endpoint(Some(server_config));
            started.send(endpoint.local_addr().unwrap()).unwrap();
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async { serve(incoming.await?).await });
            }
        });
        Self { server, client: client_config(&authority) }
    }

    async fn connect(&self) -> (Endpoint, Connection) {
        let endpoint = endpoint(None);
        let connecting = endpoint.connect_with(self.client.clone(), self.server, RESPONDER_NAME).unwrap();
        (endpoint, connecting.await.unwrap())
    }
}

impl Line for RawQuic {
    fn name(&self) -> &str {
        "raw quinn"
    }

    fn requests(&self, workload: Workload) -> Option<Sample> {
        let Shape::Http1(streams) = workload.shape else { return None };
        Some(block_on(async {
            let (_endpoint, connection) = self.connect().await;
            let mut workers = JoinSet::new();
            for _ in 0..streams {
                workers.spawn(exchanges(connection.clone(), workload));
            }
            sum(workers).await
        }))
    }

    fn bulk(&self, direction: Direction, bytes: usize) -> Option<Duration> {
        let transfer = async {
            let (_endpoint, connection) = self.connect().await;
            let start = Instant::now();
            let (mut send, mut recv) = connection.open_bi().await?;
            let request = match direction {
                Direction::Up => Ask { up: bytes as u64, down: 0 },
                Direction::Down => Ask { up: 0, down: bytes as u64 },
            };
            send.write_all(&request.to_bytes()).await?;
            write_bytes(&mut send, request.up).await?;
            send.finish()?;
            let received = read_bytes(&mut recv).await?;
            assert_eq!(received, request.down);
            Ok::<_, BoxError>(start.elapsed())
        };
        Some(block_on(transfer).expect("a bulk transfer failed"))
    }
}

async fn exchanges(connection: Connection, workload: Workload) -> Sample {
    let up = match workload.kind {
        // Each has a stream of its own anyway.
        Kind::Get | Kind::Connect => 0,
        Kind::Echo => PAYLOAD,
    };
    let head = Ask { up: up as u64, down: PAYLOAD as u64 }.to_bytes();
    let request = [&head[..], &vec![b'x'; up]].concat();
    let mut stopwatch = Stopwatch::start(workload.duration);
    while stopwatch.is_running() {
        assert_eq!(exchange(&connection, &request).await.unwrap(), PAYLOAD as u64);
        stopwatch.lap();
    }
    stopwatch.sample()
}

/// How many bytes came back.
async fn exchange(connection: &Connection, request: &[u8]) -> Result<u64, BoxError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(request).await?;
    send.finish()?;
    read_bytes(&mut recv).await
}

/// How much follows, and how much to send back.
#[derive(Debug, Clone, Copy)]
struct Ask {
    up: u64,
    down: u64,
}

impl Ask {
    const LENGTH: usize = 16;

    fn to_bytes(self) -> [u8; Self::LENGTH] {
        (u128::from(self.up) << 64 | u128::from(self.down)).to_be_bytes()
    }

    fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { up: (both >> 64) as u64, down: both as u64 }
    }
}

async fn serve(connection: Connection) -> Result<(), BoxError> {
    loop {
        let (send, recv) = connection.accept_bi().await?;
        tokio::spawn(answer(send, recv));
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream) -> Result<(), BoxError> {
    let mut head = [0; Ask::LENGTH];
    recv.read_exact(&mut head).await?;
    let ask = Ask::from_bytes(head);
    if read_bytes(&mut recv).await? == ask.up {
        write_bytes(&mut send, ask.down).await?;
        send.finish()?;
    }
    Ok(())
}

/// Reads to the end and counts.
async fn read_bytes(recv: &mut RecvStream) -> Result<u64, BoxError> {
    let mut count = 0;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        count += chunk.bytes.len() as u64;
    }
    Ok(count)
}

async fn write_bytes(send: &mut SendStream, count: u64) -> Result<(), BoxError> {
    static PIECES: [u8; PIECE] = [b'x'; PIECE];
    let mut left = count;
    while left > 0 {
        let length = left.min(PIECE as u64);
        send.write_chunk(bytes::Bytes::from_static(&PIECES[..length as usize])).await?;
        left -= length;
    }
    Ok(())
}

/// With the socket buffers of a tunnel.
fn endpoint(server: Option<quinn::ServerConfig>) -> Endpoint {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.set_recv_buffer_size(4 * MIB as usize).unwrap();
    socket.set_send_buffer_size(4 * MIB as usize).unwrap();
    Endpoint::new(EndpointConfig::default(), server, socket.into(), Arc::new(TokioRuntime)).unwrap()
}

/// The windows and the congestion control of a tunnel.
pub(crate) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .max_concurrent_bidi_streams(VarInt::from_u32(1024))
        .stream_receive_window(VarInt::from_u32(2 * MIB))
        .receive_window(VarInt::from_u32(16 * MIB))
        .send_window(u64::from(16 * MIB));
    transport
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn server_config(authority: &Authority) -> quinn::ServerConfig {
    let certificate = authority.responder();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(certificate.chain(), certificate.private_key())
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport()));
    config
}

fn client_config(authority: &Authority) -> quinn::ClientConfig {
    let certificate = authority.node(Node { tenant: "acme", cluster: "benches", node: "raw" });
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(certificate.chain(), certificate.private_key())
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport()));
    config
}
