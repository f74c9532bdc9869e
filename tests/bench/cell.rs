//! One cell of the matrix: what comes through a tunnel between two given ends.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::bulk::Way;
use crate::content::Content;
use crate::line::Direction;
use crate::mixed_pair::{Kind, MixedPair};
use crate::origin::Origin;
use crate::support::http1::{RawHttp, Response};
use crate::support::site::{NODE, TO_NODE};

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    pub(crate) requests: u64,
    pub(crate) at_once: u64,
    /// Of the large body.
    pub(crate) bytes: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Cell {
    /// How often each status came; `error` where none did.
    pub(crate) statuses: BTreeMap<String, u64>,
    /// Answers with the bytes that were sent.
    pub(crate) equal: u64,
    pub(crate) taken: Duration,
    pub(crate) up: Bulk,
    pub(crate) down: Bulk,
    /// Whether trailers came back that were sent with a request.
    pub(crate) trailers: bool,
}

/// What came of a large body.
#[derive(Debug)]
pub(crate) struct Bulk {
    pub(crate) taken: Duration,
    /// The SHA-256 on both sides, or why there is none.
    pub(crate) sum: Result<String, String>,
}

impl Cell {
    /// `None`: there is no Envoy here, and it was said so.
    pub(crate) async fn run(kind: Kind, amount: Amount, origin: &Origin) -> Option<Self> {
        let pair = MixedPair::start(kind, origin.address()).await?;
        let start = Instant::now();
        let (statuses, equal) = crowd(pair.egress(), amount).await;
        let taken = start.elapsed();
        let way = Way { egress: pair.egress(), fields: format!("{TO_NODE}\r\n") };
        let up = bulk(&way, Direction::Up, amount, origin).await;
        let down = bulk(&way, Direction::Down, amount, origin).await;
        let trailers = trailers(pair.egress()).await.unwrap_or(false);
        Some(Self { statuses, equal, taken, up, down, trailers })
    }

    /// Whether all of it arrived, and as it was sent.
    pub(crate) fn is_whole(&self, amount: Amount) -> bool {
        let good = self.statuses.get("200") == Some(&amount.requests) && self.equal == amount.requests;
        good && self.up.sum.is_ok() && self.down.sum.is_ok() && self.trailers
    }
}

/// Every request has a body of its own; half of them name the node, half the cluster.
async fn crowd(egress: SocketAddr, amount: Amount) -> (BTreeMap<String, u64>, u64) {
    let next = Arc::<AtomicU64>::default();
    let mut clients = JoinSet::new();
    for _ in 0..amount.at_once {
        clients.spawn(client(egress, Arc::clone(&next), amount.requests));
    }
    let (mut statuses, mut equal) = (BTreeMap::new(), 0);
    while let Some(outcomes) = clients.join_next().await {
        for (status, is_equal) in outcomes.unwrap() {
            *statuses.entry(status).or_default() += 1;
            equal += u64::from(is_equal);
        }
    }
    (statuses, equal)
}

/// One connection, which takes the next number as long as there are some.
async fn client(egress: SocketAddr, next: Arc<AtomicU64>, requests: u64) -> Vec<(String, bool)> {
    let mut outcomes = Vec::new();
    let mut connection = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= requests {
            return outcomes;
        }
        let content = Content { seed: number }.bytes(1024 + number as usize);
        match echo(egress, &mut connection, number, &content).await {
            Ok(response) => outcomes.push((response.status().to_string(), response.body == content)),
            Err(_) => {
                connection = None;
                outcomes.push(("error".to_owned(), false));
            }
        }
    }
}

type Connection = Option<RawHttp<tokio::net::TcpStream>>;

async fn echo(egress: SocketAddr, connection: &mut Connection, number: u64, content: &[u8]) -> io::Result<Response> {
    let field = if number.is_multiple_of(2) { TO_NODE.to_owned() } else { format!("x-cluster-id: {}", NODE.cluster) };
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{field}\r\ncontent-length: {}\r\n\r\n", content.len());
    let client = match connection {
        Some(client) => client,
        None => connection.insert(RawHttp::connect(egress).await?),
    };
    client.send(&[head.as_bytes(), content].concat()).await?;
    client.response().await
}

async fn bulk(way: &Way, direction: Direction, amount: Amount, origin: &Origin) -> Bulk {
    // The target keeps sums by seed, so every body has one.
    static SEED: AtomicU64 = AtomicU64::new(1 << 32);
    let content = Content { seed: SEED.fetch_add(1, Ordering::Relaxed) };
    let start = Instant::now();
    let sum = match way.transfer(direction, content, amount.bytes, origin).await {
        Ok(moved) if moved.sent.is_empty() || moved.sent != moved.arrived => {
            Err(format!("sent {}, arrived {}", moved.sent, moved.arrived))
        }
        Ok(moved) => Ok(moved.sent),
        Err(error) => Err(error.to_string()),
    };
    Bulk { taken: start.elapsed(), sum }
}

/// Of a request to the target and of its answer back.
async fn trailers(egress: SocketAddr) -> io::Result<bool> {
    let head = format!(
        "POST /echo HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let mut client = RawHttp::connect(egress).await?;
    client.send(format!("{head}5\r\nbody\n\r\n0\r\nx-sum: 42\r\n\r\n").as_bytes()).await?;
    let response = client.response().await?;
    Ok(response.text() == "body\n" && response.trailers == [("x-sum".to_owned(), "42".to_owned())])
}
