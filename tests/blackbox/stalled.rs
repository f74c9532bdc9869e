//! Clients and services that do not read take nothing from others: not their credit, and not the tunnel.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Method, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http2::{Http2, whole};
use crate::support::site::{Cloud, Edge, NODE, Running, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    clients_that_do_not_read_leave_the_others_alone,
    services_that_do_not_read_leave_the_others_alone,
    a_client_with_many_streams_that_reads_none_of_them_costs_little,
    requests_of_which_little_has_come_may_wait_for_their_turn,
);

/// More streams than may be held back that each hold their whole window; `HELD_BYTES` of the code.
const BOUND: u64 = 64;
/// Streams that hold more than the window of a tunnel, when each holds its own window.
const TOO_MANY: u64 = 12;

/// A service that answers every connection without end, or takes it and reads nothing.
struct Service {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Service {
    async fn start(talks: bool) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // What the kernel takes is no longer in the tunnel.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut held = Vec::new();
            let mut answers = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if talks {
                    answers.spawn(talk(stream));
                } else {
                    held.push(stream);
                }
            }
        });
        Self { address, _tasks: tasks }
    }

    /// A site with this service under `/stall`.
    async fn site(&self, transport: Transport) -> Site {
        let stall = format!("{{ name: stall, match: {{ prefix: /stall }}, target: \"http://{}\" }}", self.address);
        let edge = Edge::new(transport).service(&stall).service("{ name: web, match: {}, target: \"{target}\" }");
        Site::with(Cloud::new(), edge).await
    }
}

/// Answers one request, and never comes to an end.
async fn talk(mut stream: TcpStream) {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head).await;
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await;
    while stream.write_all(&[7; 1 << 16]).await.is_ok() {}
}

/// A client with small buffers that asks and does not read.
async fn stalled_client(egress: SocketAddr, head: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(egress).await.unwrap();
    stream.write_all(format!("{head}\r\nhost: x\r\n{TO_NODE}\r\n").as_bytes()).await.unwrap();
    stream
}

/// A client that opens all windows of HTTP/2, asks this often and reads nothing.
async fn deaf_client(egress: SocketAddr, requests: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(egress).await.unwrap();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let literal = |(name, value): (&str, &str)| {
        [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let path = ("x-node-id", NODE.node);
    let head = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/bytes/250000"), path];
    let head = head.map(literal).concat();
    let window = [&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &window));
    bytes.extend(frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
    bytes.extend((0..requests).flat_map(|number| frame(1, 5, 1 + 2 * number, &head)));
    stream.write_all(&bytes).await.unwrap();
    stream
}

async fn held_back(process: &Running, role: &str) -> u64 {
    process.metric(&format!("adit_streams_held_back{{role=\"{role}\"}}")).await
}

/// Streams that were ended, for whichever reason: on a machine that is busy for long the least rate may be first.
async fn not_read(process: &Running, role: &str) -> u64 {
    let mut ended = 0;
    for reason in ["bound", "rate"] {
        let series = format!("adit_streams_not_read_total{{role=\"{role}\",reason=\"{reason}\"}}");
        ended += process.metric(&series).await;
    }
    ended
}

/// Others are answered at once, and the tunnel is the one that it was.
async fn others_are_served(site: &Site, tunnel: &str) {
    for _ in 0..20 {
        assert_eq!(timeout(PATIENCE, site.get("/")).await.expect("others wait").status(), 200);
    }
    let tunnels = site.responder.0.tunnels().await.accepted;
    let seen: Vec<_> = tunnels.iter().map(|tunnel| (tunnel.id.as_str(), tunnel.health.as_str())).collect();
    assert_eq!(seen, [(tunnel, "healthy")]);
}

async fn tunnel_of(site: &Site) -> String {
    site.responder.0.tunnels().await.accepted[0].id.clone()
}

// spec: SE-9, SE-10, SE-11
async fn clients_that_do_not_read_leave_the_others_alone(transport: Transport) {
    let service = Service::start(true).await;
    let site = service.site(transport).await;
    let tunnel = tunnel_of(&site).await;
    let mut held = Vec::new();
    for _ in 0..BOUND / 2 {
        held.push(stalled_client(site.egress(), "GET /stall HTTP/1.1").await);
        held.last_mut().unwrap().write_all(b"\r\n").await.unwrap();
    }
    eventually("more held back than the window has room for", async || {
        (held_back(&site.responder.0, "responder").await >= TOO_MANY).then_some(())
    })
    .await;
    others_are_served(&site, &tunnel).await;
    for _ in 0..BOUND {
        held.push(stalled_client(site.egress(), "GET /stall HTTP/1.1").await);
        held.last_mut().unwrap().write_all(b"\r\n").await.unwrap();
    }
    eventually("some of those ended", async || (not_read(&site.responder.0, "responder").await > 0).then_some(()))
        .await;
    others_are_served(&site, &tunnel).await;
    drop(held);
    eventually("nothing held back", async || (held_back(&site.responder.0, "responder").await == 0).then_some(()))
        .await;
    others_are_served(&site, &tunnel).await;
}

/// 55 MiB a client were in the windows of its streams in the tunnel.
// spec: SE-9, SE-11
async fn a_client_with_many_streams_that_reads_none_of_them_costs_little(transport: Transport) {
    let site = Site::start(transport).await;
    let tunnel = tunnel_of(&site).await;
    others_are_served(&site, &tunnel).await;
    let before = site.responder.0.memory();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(deaf_client(site.egress(), 250).await);
    }
    eventually("responses that are not read", async || {
        (held_back(&site.responder.0, "responder").await >= TOO_MANY).then_some(())
    })
    .await;
    others_are_served(&site, &tunnel).await;
    let growth = site.responder.0.memory().saturating_sub(before) >> 20;
    assert!(growth < 80, "three clients cost {growth} MiB");
}

// spec: SE-9, SE-10
async fn services_that_do_not_read_leave_the_others_alone(transport: Transport) {
    let service = Service::start(false).await;
    let site = service.site(transport).await;
    let tunnel = tunnel_of(&site).await;
    let mut uploads = JoinSet::new();
    for _ in 0..BOUND / 2 {
        let mut client = stalled_client(site.egress(), "POST /stall HTTP/1.1").await;
        uploads.spawn(async move {
            client.write_all(b"content-length: 1000000000000\r\n\r\n").await.unwrap();
            while client.write_all(&[7; 1 << 16]).await.is_ok() {}
        });
    }
    eventually("more uploads held back than the window has room for", async || {
        (held_back(&site.initiator, "initiator").await >= TOO_MANY).then_some(())
    })
    .await;
    others_are_served(&site, &tunnel).await;
}

/// Answers each request on a connection once it has come whole.
async fn answer(mut stream: TcpStream) {
    let (mut buffer, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        buffer.extend_from_slice(&piece[..length]);
        if buffer.ends_with(b"\r\n0\r\n\r\n") {
            buffer.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    }
}

// Regression: each that waited for its turn at the service counted as if its whole window were full, and those beyond
// twenty were cut with 400.
// spec: SE-11, SE-16
async fn requests_of_which_little_has_come_may_wait_for_their_turn(transport: Transport) {
    const CLIENTS: u32 = 7;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let service = format!("{{ name: web, match: {{}}, target: \"http://{}\" }}", listener.local_addr().unwrap());
    let site = Site::with(Cloud::new(), Edge::new(transport).service(&service)).await;
    let asked = Arc::<AtomicU32>::default();
    let asked_by = Arc::clone(&asked);
    let serving = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        loop {
            tasks.spawn(answer(listener.accept().await.unwrap().0));
            asked_by.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (mut clients, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let mut client = Http2::connect(site.egress()).await;
        for _ in 0..100 {
            let request = Request::builder().method(Method::POST).uri(format!("http://{}/", site.egress()));
            let request = request.header("x-node-id", NODE.node).body(()).unwrap();
            let (response, mut upload) = client.send(request, false).await;
            for piece in [&[1; 300][..], &[2; 700]] {
                upload.send_data(Bytes::from_static(piece), false).unwrap();
            }
            waiting.push((response, upload));
        }
        clients.push(client);
    }
    eventually("all of them at the service, or one that was ended", async || {
        let is_ended = not_read(&site.initiator, "initiator").await > 0;
        (is_ended || asked.load(Ordering::Relaxed) == CLIENTS * 100).then_some(())
    })
    .await;
    for (response, mut upload) in waiting {
        upload.send_data(Bytes::new(), true).unwrap();
        assert_eq!(whole(timeout(PATIENCE, response).await.unwrap().unwrap()).await.unwrap().status(), 200);
    }
    assert_eq!(not_read(&site.initiator, "initiator").await, 0);
    serving.abort();
}
