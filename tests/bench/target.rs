//! A target that costs as little as possible: HTTP/1.1 on one thread, nothing checked that the benchmark does not send.
//!
//! `GET /` and `POST /echo` answer with [`PAYLOAD`] bytes, `POST /sink` reads its body, `GET /bytes/N` sends N bytes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::thread::on_own_thread;

/// Body bytes of a small exchange, each way.
pub(crate) const PAYLOAD: usize = 1024;

/// Read and written at once in bulk transfers.
pub(crate) const PIECE: usize = 256 * 1024;

/// What large answers are made of.
static FILLER: [u8; PIECE] = [b'x'; PIECE];

/// Starts the target; it lives as long as the benchmark.
pub(crate) fn start() -> SocketAddr {
    on_own_thread("target", async |started| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        started.send(listener.local_addr().unwrap()).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(PIECE);
    let mut answer = Vec::with_capacity(2 * PAYLOAD);
    while let Some(request) = read_head(&mut stream, &mut buffer).await? {
        match request.path.as_str() {
            "/sink" => {
                discard(&mut stream, &mut buffer, request.length).await?;
                write_head(&mut answer, 0);
                stream.write_all(&answer).await?;
            }
            "/echo" => {
                fill(&mut stream, &mut buffer, request.length).await?;
                write_head(&mut answer, request.length);
                answer.extend_from_slice(&buffer.split_to(request.length));
                stream.write_all(&answer).await?;
            }
            path => send_bytes(&mut stream, &mut answer, path).await?,
        }
    }
    Ok(())
}

async fn send_bytes(stream: &mut TcpStream, answer: &mut Vec<u8>, path: &str) -> io::Result<()> {
    let mut left = path.strip_prefix("/bytes/").map_or(PAYLOAD, |count| count.parse().unwrap());
    write_head(answer, left);
    if left <= PAYLOAD {
        answer.extend_from_slice(&FILLER[..left]);
        left = 0;
    }
    stream.write_all(answer).await?;
    while left > 0 {
        let length = left.min(PIECE);
        stream.write_all(&FILLER[..length]).await?;
        left -= length;
    }
    Ok(())
}

struct Request {
    path: String,
    length: usize,
}

/// `None` when the connection ended between requests.
async fn read_head(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Option<Request>> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut fields);
        if let httparse::Status::Complete(end) = head.parse(buffer).map_err(io::Error::other)? {
            let path = head.path.unwrap_or_default().to_owned();
            let length = content_length(head.headers).unwrap_or(0);
            buffer.advance(end);
            return Ok(Some(Request { path, length }));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The one field that both ends of the benchmark need.
pub(crate) fn content_length(fields: &[httparse::Header<'_>]) -> Option<usize> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(field.value).ok()?.parse().ok()
}

fn write_head(answer: &mut Vec<u8>, length: usize) {
    answer.clear();
    answer.extend_from_slice(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes());
}

/// Reads until `length` bytes are in the buffer.
pub(crate) async fn fill(stream: &mut TcpStream, buffer: &mut BytesMut, length: usize) -> io::Result<()> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Reads `length` bytes and forgets them.
pub(crate) async fn discard(stream: &mut TcpStream, buffer: &mut BytesMut, length: usize) -> io::Result<()> {
    let mut left = length;
    loop {
        let here = left.min(buffer.len());
        buffer.advance(here);
        left -= here;
        if left == 0 {
            return Ok(());
        }
        buffer.reserve(PIECE);
        fill(stream, buffer, 1).await?;
    }
}
