//! A target that does exactly what a test says, and what tests ask of it.

use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::*;
use crate::message::failure::Cause;

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A target that does exactly what a test says.
pub(super) struct Origin(pub(super) TcpListener);

impl Origin {
    pub(super) async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) fn client(&self) -> TargetClient {
        self.client_with(TargetSettings::default())
    }

    pub(super) fn client_with(&self, settings: TargetSettings) -> TargetClient {
        let target = format!("http://{}", self.0.local_addr().unwrap());
        TargetClient::new(&Target::parse(&target).unwrap(), settings).unwrap()
    }

    pub(super) async fn accept(&self) -> Wire<TcpStream> {
        Wire { stream: self.0.accept().await.unwrap().0, read: Vec::new() }
    }
}

pub(super) struct Wire<S> {
    pub(super) stream: S,
    pub(super) read: Vec<u8>,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Wire<S> {
    /// Everything up to and including this text.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                return String::from_utf8(self.read.drain(..at + end.len()).collect()).unwrap();
            }
            assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "closed before {end:?}");
        }
    }

    pub(super) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    pub(super) async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// What came until the other end closed, however it did.
    pub(super) async fn closed(mut self) -> String {
        while matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {}
        String::from_utf8(self.read).unwrap()
    }
}

pub(super) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://example.com{path}")).body(Empty::new()).unwrap()
}

pub(super) fn post<B>(body: B) -> Request<B> {
    Request::post("http://example.com/").body(body).unwrap()
}

pub(super) async fn text(response: Response<TargetBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub(super) fn cause<T>(outcome: Result<T, Failure>) -> Cause {
    outcome.err().expect("the exchange should fail").cause()
}

/// Lets the runtime see what the sockets have to tell by now.
pub(super) async fn io_turn() {
    let (near, far) = UnixStream::pair().unwrap();
    near.writable().await.unwrap();
    near.try_write(b"x").unwrap();
    far.readable().await.unwrap();
}
