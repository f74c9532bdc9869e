//! An HTTP/1.1 client that sends exactly the bytes it is given and hides nothing of the answer.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::eventually::PATIENCE;

/// One connection.
pub(crate) struct RawHttp<S> {
    stream: S,
    buffer: BytesMut,
}

/// A status line with its fields, names in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
}

/// A final response, its whole body read.
#[derive(Debug)]
pub(crate) struct Response {
    /// Interim responses (1xx) that came before.
    pub(crate) interim: Vec<Head>,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Head {
    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RawHttp<TcpStream> {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }
}

/// One GET on a connection of its own; `fields` are whole lines without their ends.
pub(crate) async fn get(address: SocketAddr, path: &str, fields: &[&str]) -> io::Result<Response> {
    let mut client = RawHttp::connect(address).await?;
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{fields}\r\n").as_bytes()).await?;
    client.response().await
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawHttp<S> {
    /// Speaks over a stream that is open already, for example TLS.
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Half-closes: no more will be sent.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next head, interim or final.
    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        let lines = self.lines_until_empty().await?;
        let mut lines = lines.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        Ok(Head { status: status.ok_or_else(|| invalid("status line"))?, fields: fields(lines) })
    }

    /// Interim responses, the final one, and its body. A body that ends early is an error.
    pub(crate) async fn response(&mut self) -> io::Result<Response> {
        let mut interim = Vec::new();
        let mut head = self.head().await?;
        while head.status < 200 {
            interim.push(std::mem::replace(&mut head, self.head().await?));
        }
        let (body, trailers) = self.body(&head).await?;
        Ok(Response { interim, head, body, trailers })
    }

    /// The body after `head`, framed as its fields say.
    pub(crate) async fn body(&mut self, head: &Head) -> io::Result<(Vec<u8>, Vec<(String, String)>)> {
        if matches!(head.status, 204 | 304) {
            return Ok((Vec::new(), Vec::new()));
        }
        if head.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.chunked().await;
        }
        match head.field("content-length") {
            Some(length) => {
                let length = length.parse().map_err(|_| invalid("content-length"))?;
                Ok((self.exactly(length).await?, Vec::new()))
            }
            None => Ok((self.read_to_end().await?, Vec::new())),
        }
    }

    /// Exactly this many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(length).to_vec())
    }

    /// The stream, and what was read of it but not asked for yet: somebody else reads on.
    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.buffer)
    }

    /// Everything until the other side closes. A reset is an error.
    pub(crate) async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.read().await? > 0 {}
        Ok(self.buffer.split().to_vec())
    }

    async fn chunked(&mut self) -> io::Result<(Vec<u8>, Vec<(String, String)>)> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            match usize::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))? {
                0 => return Ok((body, fields(self.lines_until_empty().await?.lines()))),
                size => body.extend(self.exactly(size).await?),
            }
            if !self.line().await?.is_empty() {
                return Err(invalid("chunk end"));
            }
        }
    }

    /// The lines of a head or of trailers, without the empty one.
    pub(crate) async fn lines_until_empty(&mut self) -> io::Result<String> {
        let mut lines = String::new();
        loop {
            match self.line().await?.as_str() {
                "" => return Ok(lines),
                line => lines.extend([line, "\n"]),
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(at);
                self.buffer.advance(2);
                return String::from_utf8(line.to_vec()).map_err(|_| invalid("line"));
            }
            self.fill().await?;
        }
    }

    /// A peer that is silent for [`PATIENCE`] fails the test: nothing else would end it.
    async fn read(&mut self) -> io::Result<usize> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        read.unwrap_or_else(|_| panic!("the peer sent nothing for {PATIENCE:?}"))
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.read().await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {:?}", self.buffer))),
            _ => Ok(()),
        }
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let split = lines.filter_map(|line| line.split_once(':'));
    split.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP/1.1 response: {what}"))
}
