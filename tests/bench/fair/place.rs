//! One responder, and a site of each tenant.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::support::certificates::Node;
use crate::support::http1::RawHttp;
use crate::support::site::{Cloud, Edge, Folder, Responder, Running, Transport};
use crate::thread::on_own_thread;

const A: Node<'_> = Node { tenant: "a", cluster: "stores", node: "edge-a" };
const B: Node<'_> = Node { tenant: "b", cluster: "stores", node: "edge-b" };
/// A second site of tenant B.
const A_WITHIN_B: Node<'_> = Node { tenant: "b", cluster: "stores", node: "edge-c" };

const PIECE: [u8; 16 << 10] = [b'x'; 16 << 10];
/// What `/bulk` sends.
const BULK: usize = 16 << 20;

/// Everything, as processes of their own; the services are threads of this one.
pub(crate) struct Place {
    responder: Responder,
    _sites: [Running; 3],
    _folder: Folder,
}

/// Whom requests ask for.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) egress: SocketAddr,
    /// Whole lines of a request's head.
    pub(crate) fields: String,
}

impl Place {
    pub(crate) async fn start(transport: Transport, service: Duration) -> Self {
        let folder = Folder::new();
        let cloud = Cloud::new().egress("tenant", "\"%REQ(x-tenant)%\"").egress("access_log", "false");
        let responder = cloud.start(&folder).await;
        let start = async |node: Node<'static>, delay| {
            let edge = Edge::new(transport).claim(node).named(node.node).initiator("access_log", "false");
            let edge = edge.target(&format!("http://{}", target(delay)));
            edge.start(&folder, responder.tunnel_address()).await
        };
        let sites = [start(A, Duration::ZERO).await, start(B, service).await, start(A_WITHIN_B, Duration::ZERO).await];
        responder.registered(sites.len()).await;
        Self { responder, _sites: sites, _folder: folder }
    }

    pub(crate) fn a(&self) -> Way {
        self.way(A)
    }

    pub(crate) fn b(&self) -> Way {
        self.way(B)
    }

    pub(crate) fn a_within_b(&self) -> Way {
        self.way(A_WITHIN_B)
    }

    fn way(&self, node: Node<'_>) -> Way {
        let fields = format!("host: x\r\nx-tenant: {}\r\nx-node-id: {}\r\n", node.tenant, node.node);
        Way { egress: self.responder.egress(), fields }
    }
}

/// Listens until the process ends: `/bulk` is answered with [`BULK`] bytes, anything else with a few after `delay`.
fn target(delay: Duration) -> SocketAddr {
    on_own_thread("target", async move |started| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        started.send(listener.local_addr().unwrap()).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            // A client that goes away ends its own connection only.
            tokio::spawn(async move { drop(serve(stream, delay).await) });
        }
    })
}

async fn serve(stream: TcpStream, delay: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut peer = RawHttp::over(stream);
    loop {
        let head = peer.lines_until_empty().await?;
        if head.starts_with("GET /bulk ") {
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {BULK}\r\n\r\n").as_bytes()).await?;
            for _ in 0..BULK / PIECE.len() {
                peer.send(&PIECE).await?;
            }
        } else {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
}
