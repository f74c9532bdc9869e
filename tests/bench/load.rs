//! The load generator: HTTP/1.1 on connections that stay open, one exchange at a time on each. HTTP/2 is left to h2load.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::h2load::{self, Load};
use crate::line::{Direction, Kind, Line, Sample, Shape, Stopwatch, Workload, sum};
use crate::target::{PAYLOAD, PIECE, content_length, discard};
use crate::thread::block_on;
use crate::usage::Process;

/// A line that begins at an HTTP listener: the target itself, or any proxy in front of it.
pub(crate) struct HttpLine {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Whole header lines for every request.
    pub(crate) fields: String,
    /// Whether it takes HTTP/2 in clear, too.
    pub(crate) takes_http2: bool,
    pub(crate) processes: Vec<Process>,
}

impl Line for HttpLine {
    fn name(&self) -> &str {
        &self.name
    }

    fn requests(&self, workload: Workload) -> Option<Sample> {
        match workload.shape {
            Shape::Http1(connections) => Some(block_on(self.over_http1(connections, workload))),
            Shape::Http2 { connections, streams } if self.takes_http2 => {
                let load = Load { address: self.address, fields: &self.fields, connections, streams };
                h2load::requests(&load, workload)
            }
            Shape::Http2 { .. } => None,
        }
    }

    fn bulk(&self, direction: Direction, bytes: usize) -> Option<Duration> {
        let transfer = async {
            let mut client = Client::connect(self.address).await?;
            let start = Instant::now();
            match direction {
                Direction::Up => client.upload(&self.head("POST", "/sink", bytes), bytes).await?,
                Direction::Down => client.exchange(&self.head("GET", &format!("/bytes/{bytes}"), 0), bytes).await?,
            }
            io::Result::Ok(start.elapsed())
        };
        Some(block_on(transfer).expect("a bulk transfer failed"))
    }

    fn processes(&self) -> Vec<Process> {
        self.processes.clone()
    }
}

impl HttpLine {
    pub(crate) async fn over_http1(&self, count: usize, workload: Workload) -> Sample {
        let mut connections = JoinSet::new();
        for _ in 0..count {
            let request = self.small_request(workload.kind);
            match workload.kind {
                Kind::Connect => connections.spawn(new_connections(self.address, request, workload.duration)),
                Kind::Get | Kind::Echo => {
                    let client = Client::connect(self.address).await.unwrap();
                    connections.spawn(exchanges(client, request, workload.duration))
                }
            };
        }
        sum(connections).await
    }

    /// The whole of a request of this kind.
    pub(crate) fn small_request(&self, kind: Kind) -> Vec<u8> {
        match kind {
            Kind::Get | Kind::Connect => self.head("GET", "/", 0),
            Kind::Echo => [self.head("POST", "/echo", PAYLOAD), vec![b'x'; PAYLOAD]].concat(),
        }
    }

    fn head(&self, method: &str, path: &str, length: usize) -> Vec<u8> {
        let length = if length > 0 { format!("content-length: {length}\r\n") } else { String::new() };
        format!("{method} {path} HTTP/1.1\r\nhost: target.example\r\n{}{length}\r\n", self.fields).into_bytes()
    }
}

async fn exchanges(mut client: Client, request: Vec<u8>, duration: Duration) -> Sample {
    let mut stopwatch = Stopwatch::start(duration);
    while stopwatch.is_running() {
        client.exchange(&request, PAYLOAD).await.unwrap();
        stopwatch.lap();
    }
    stopwatch.sample()
}

/// Each exchange on a connection of its own, which its client ends.
async fn new_connections(address: SocketAddr, request: Vec<u8>, duration: Duration) -> Sample {
    let mut stopwatch = Stopwatch::start(duration);
    while stopwatch.is_running() {
        let mut client = Client::connect(address).await.unwrap();
        client.exchange(&request, PAYLOAD).await.unwrap();
        drop(client);
        stopwatch.lap();
    }
    stopwatch.sample()
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(PIECE) })
    }

    /// One request, and a response that must be 200 with a body of `expected` bytes.
    pub(crate) async fn exchange(&mut self, request: &[u8], expected: usize) -> io::Result<()> {
        self.stream.write_all(request).await?;
        let length = self.read_head().await?;
        if length != expected {
            return Err(io::Error::other(format!("a body of {length} bytes instead of {expected}")));
        }
        discard(&mut self.stream, &mut self.buffer, length).await
    }

    async fn upload(&mut self, head: &[u8], bytes: usize) -> io::Result<()> {
        self.stream.write_all(head).await?;
        let piece = vec![b'x'; PIECE];
        let mut left = bytes;
        while left > 0 {
            let length = left.min(PIECE);
            self.stream.write_all(&piece[..length]).await?;
            left -= length;
        }
        self.exchange(&[], 0).await
    }

    /// The length of the body that follows.
    async fn read_head(&mut self) -> io::Result<usize> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(end) = head.parse(&self.buffer).map_err(io::Error::other)? {
                let (code, length) = (head.code, content_length(head.headers));
                self.buffer.advance(end);
                return match (code, length) {
                    (Some(200), Some(length)) => Ok(length),
                    other => Err(io::Error::other(format!("not the expected response: {other:?}"))),
                };
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
