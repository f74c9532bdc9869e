//! Large bodies, made and hashed as they go by, and a reader that takes its time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use crate::content::{Content, Hasher, PIECE};
use crate::line::Direction;
use crate::origin::Origin;
use crate::support::http1::{Head, RawHttp};

/// Where requests enter, and the header lines that take them to the target.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) egress: SocketAddr,
    pub(crate) fields: String,
}

/// One body, as hashed at both ends.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) sent: String,
    pub(crate) arrived: String,
    pub(crate) taken: Duration,
}

impl Way {
    /// Moves `bytes` of content in one exchange.
    pub(crate) async fn transfer(
        &self,
        direction: Direction,
        content: Content,
        bytes: u64,
        origin: &Origin,
    ) -> io::Result<Transfer> {
        let start = Instant::now();
        let (sent, arrived) = match direction {
            Direction::Up => self.upload(content, bytes).await?,
            Direction::Down => {
                let arrived = self.download(content, bytes).await?;
                (origin.sum_of_sent(content.seed).unwrap_or_default(), arrived)
            }
        };
        Ok(Transfer { sent, arrived, taken: start.elapsed() })
    }

    async fn upload(&self, content: Content, bytes: u64) -> io::Result<(String, String)> {
        let mut client = RawHttp::connect(self.egress).await?;
        client.send(self.head("POST", "/digest", &format!("content-length: {bytes}\r\n")).as_bytes()).await?;
        let mut hasher = Hasher::new();
        let mut piece = vec![0; PIECE];
        for at in (0..bytes).step_by(PIECE) {
            let piece = &mut piece[..(bytes - at).min(PIECE as u64) as usize];
            content.fill(at, piece);
            hasher.update(piece);
            client.send(piece).await?;
        }
        let response = client.response().await?;
        expect_ok(&response.head)?;
        Ok((hasher.sum(), response.text()))
    }

    async fn download(&self, content: Content, bytes: u64) -> io::Result<String> {
        let mut client = RawHttp::connect(self.egress).await?;
        client.send(self.head("GET", &format!("/content/{}/{bytes}", content.seed), "").as_bytes()).await?;
        expect_ok(&client.head().await?)?;
        let (mut stream, beginning) = client.into_parts();
        let mut hasher = Hasher::new();
        hasher.update(&beginning);
        let mut left = bytes - beginning.len() as u64;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            match stream.read(&mut piece).await? {
                0 => return Err(io::Error::other(format!("the body ended {left} bytes early"))),
                length => {
                    hasher.update(&piece[..length]);
                    left -= length as u64;
                }
            }
        }
        Ok(hasher.sum())
    }

    fn head(&self, method: &str, path: &str, length: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nhost: target.example\r\n{}{length}\r\n", self.fields)
    }
}

fn expect_ok(head: &Head) -> io::Result<()> {
    if head.status == 200 { Ok(()) } else { Err(io::Error::other(format!("not the expected response: {head:?}"))) }
}

/// A download of which little is taken at a time. Ends when dropped.
pub(crate) struct SlowReader {
    start: Instant,
    taken: Arc<AtomicU64>,
    task: JoinHandle<io::Result<()>>,
}

impl SlowReader {
    /// Bytes per second.
    pub(crate) const RATE: u64 = 64 * 1024;
    /// Far more than it reads, so that everything on the way has as much as it wants to hold.
    const BODY: u64 = 64 << 30;
    const STEP: u64 = Self::RATE / 4;

    pub(crate) fn start(way: &Way, content: Content) -> Self {
        let taken = Arc::<AtomicU64>::default();
        let task = tokio::spawn(read_slowly(way.clone(), content, Arc::clone(&taken)));
        Self { start: Instant::now(), taken, task }
    }

    /// The share of its rate that it got so far; all of it was what was sent. Zero once it failed.
    pub(crate) fn share(&self) -> f64 {
        if self.task.is_finished() {
            return 0.0;
        }
        self.taken.load(Ordering::Relaxed) as f64 / (self.start.elapsed().as_secs_f64() * Self::RATE as f64)
    }
}

impl Drop for SlowReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_slowly(way: Way, content: Content, taken: Arc<AtomicU64>) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    // What the kernel holds for the reader is not what is looked at here.
    socket.set_recv_buffer_size(SlowReader::STEP as u32)?;
    let mut client = RawHttp::over(socket.connect(way.egress).await?);
    client.send(way.head("GET", &format!("/content/{}/{}", content.seed, SlowReader::BODY), "").as_bytes()).await?;
    expect_ok(&client.head().await?)?;
    let mut expected = vec![0; SlowReader::STEP as usize];
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    for at in (0..SlowReader::BODY).step_by(SlowReader::STEP as usize) {
        tick.tick().await;
        content.fill(at, &mut expected);
        if client.exactly(expected.len()).await? != expected {
            return Err(io::Error::other("not what was sent"));
        }
        taken.fetch_add(SlowReader::STEP, Ordering::Relaxed);
    }
    Ok(())
}
