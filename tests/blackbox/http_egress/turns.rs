//! Many bodies that never end share one tunnel over a narrow link. spec: SE-20

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::eventually::eventually;
use crate::support::link::tcp::TcpLink;
use crate::support::link::udp::UdpLink;
use crate::support::link::{CLEAN, Impairment, MBIT};
use crate::support::site::{Cloud, Edge, Folder, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(downloads_that_never_end_all_get_on, uploads_that_never_end_all_get_on);

/// As many as fill all that a tunnel may have under way, several times.
const BODIES: usize = 48;
/// What each of them has to get, in the time in which all together get this at least.
const EACH: usize = 512 * 1024;
const LONG: &str = "100000000000";
/// Wide enough for all to be done in seconds, and far slower than the two processes.
const NARROW: Impairment = Impairment { delay: Duration::from_millis(5), rate: 160 * MBIT, ..CLEAN };

/// Sends a request to a node behind a narrow link from many connections at once, lets `talk` count what comes back on each, and
/// waits until all have their part.
async fn all_get_on<F>(transport: Transport, talk: impl Fn(TcpStream, Arc<AtomicUsize>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = Cloud::new().start(&folder).await;
    let to = responder.tunnel_address();
    let (mut udp, mut tcp) = (None, None);
    let address: SocketAddr = match transport {
        Transport::Quic => udp.insert(UdpLink::new(to, NARROW, 1).await.unwrap()).address(),
        Transport::Tcp => tcp.insert(TcpLink::new(to, NARROW, 1).await.unwrap()).address(),
    };
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let _initiator = edge.start(&folder, address).await;
    responder.registered(1).await;

    let mut clients = JoinSet::new();
    let counts: Vec<_> = std::iter::repeat_with(Arc::<AtomicUsize>::default).take(BODIES).collect();
    for count in &counts {
        clients.spawn(talk(TcpStream::connect(responder.egress()).await.unwrap(), Arc::clone(count)));
    }
    let got = || counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    eventually("that all have their part", async || got().iter().all(|&got| got >= EACH).then_some(())).await;
    drop((udp, tcp));
}

async fn count(mut from: impl tokio::io::AsyncRead + Unpin, count: &AtomicUsize) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        count.fetch_add(read, Ordering::Relaxed);
    }
}

async fn downloads_that_never_end_all_get_on(transport: Transport) {
    all_get_on(transport, |mut client, got| async move {
        let head = format!("GET /bytes/{LONG} HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        count(client, &got).await;
    })
    .await;
}

async fn uploads_that_never_end_all_get_on(transport: Transport) {
    all_get_on(transport, |mut client, got| async move {
        let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ncontent-length: {LONG}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let (from, mut to) = client.into_split();
        let upload = async {
            let piece = vec![7; 64 * 1024];
            while to.write_all(&piece).await.is_ok() {}
        };
        tokio::join!(upload, count(from, &got));
    })
    .await;
}
