//! Ends of a TCP tunnel that say whatever a test wants: TLS, then bare control frames, then frames of HTTP/2 by hand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit::protocol::control::{Close, Frame, FrameReader};
use adit::tls::{self, ClientCertificates, InitiatorTls, ResponderTls};
use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::hostile_peer::raw::{HOSTILE, credentials, encoded, hello_bytes, loopback, trust, welcome_bytes};
use crate::support::certificates::Node;
use crate::support::eventually::PATIENCE;
use crate::support::site::Folder;

pub(super) const ALPN: &[&[u8]] = &[b"adit/1"];
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const MOST_IN_A_FRAME: usize = 16_384;

/// The stream that carries the control frames.
pub(super) const CONTROL: u32 = 1;

/// Whoever gives no window for so long has stopped to read.
const QUIET: Duration = Duration::from_secs(1);

/// One frame of HTTP/2.
#[derive(Debug)]
pub(super) struct Http2 {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Bytes,
}

/// A frame of HTTP/2 as bytes.
pub(super) fn http2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HEADERS with these fields, none of them compressed; pseudo-fields first. In as many frames as that takes.
pub(super) fn headers(stream: u32, end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut pieces = block.chunks(MOST_IN_A_FRAME).peekable();
    let (mut kind, mut flags, mut bytes) = (HEADERS, if end { END_STREAM } else { 0 }, Vec::new());
    while let Some(piece) = pieces.next() {
        flags |= if pieces.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(http2(kind, flags, stream, piece));
        (kind, flags) = (CONTINUATION, 0);
    }
    bytes
}

/// A field of HPACK without indexing (RFC 7541, section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        let mut rest = text.len();
        if rest < 127 {
            bytes.push(rest as u8);
        } else {
            bytes.push(127);
            rest -= 127;
            while rest >= 128 {
                bytes.push(rest as u8 | 128);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// DATA frames, each of at most what HTTP/2 allows by default.
pub(super) fn data(stream: u32, end: bool, payload: &[u8]) -> Vec<u8> {
    let last = if end { END_STREAM } else { 0 };
    if payload.len() <= MOST_IN_A_FRAME {
        return http2(DATA, last, stream, payload);
    }
    let (piece, rest) = payload.split_at(MOST_IN_A_FRAME);
    [http2(DATA, 0, stream, piece), data(stream, end, rest)].concat()
}

/// Control frames on the control stream.
pub(super) fn control(frame: &Frame) -> Vec<u8> {
    data(CONTROL, false, &encoded(frame))
}

/// The fields of a GET; `more` come behind the pseudo-fields.
pub(super) fn get<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let head = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.example"), (":path", path)];
    [&head, more].concat()
}

/// One end of a connection whose TLS is done.
pub(in crate::hostile_peer) struct Peer {
    stream: TlsStream<TcpStream>,
    held: BytesMut,
    control: FrameReader,
    /// What was read of the control stream inside HTTP/2.
    inside: BytesMut,
}

impl Peer {
    /// Dials as [`HOSTILE`], with a valid certificate.
    pub(super) async fn connect(folder: &Folder, address: SocketAddr) -> Self {
        Self::dial(folder, address, HOSTILE, ALPN).await.unwrap()
    }

    pub(in crate::hostile_peer) async fn dial(
        folder: &Folder,
        address: SocketAddr,
        node: Node<'_>,
        alpn: &[&[u8]],
    ) -> io::Result<Self> {
        let shown =
            InitiatorTls { credentials: Some(credentials(&folder.authority.node(node))), responder: trust(folder) };
        let config = tls::initiator_config(&shown, alpn).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(TlsConnector::from(Arc::new(config)).connect(name, stream).await?.into()))
    }

    fn over(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, held: BytesMut::new(), control: FrameReader::new(), inside: BytesMut::new() }
    }

    /// An initiator whose tunnel is open, HTTP/2 and control stream included.
    pub(super) async fn open(folder: &Folder, address: SocketAddr) -> Self {
        let mut peer = Self::connect(folder, address).await;
        peer.send(&hello_bytes(HOSTILE)).await.unwrap();
        peer.welcomed().await;
        peer.serve().await;
        peer
    }

    /// Reads WELCOME and the preface of HTTP/2 behind it.
    pub(super) async fn welcomed(&mut self) {
        assert!(matches!(self.bare_frame().await, Some(Frame::Welcome(_))));
        assert_eq!(self.bytes(PREFACE.len()).await.unwrap(), PREFACE);
    }

    /// Begins HTTP/2 and takes the control stream.
    pub(super) async fn serve(&mut self) {
        self.send(&http2(SETTINGS, 0, 0, &[])).await.unwrap();
        self.frame_of(HEADERS, CONTROL).await;
        self.send(&headers(CONTROL, false, &[(":status", "200")])).await.unwrap();
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Sends what ends the connection, which may be before all of it is written, and waits for that end.
    pub(super) async fn offend(&mut self, bytes: &[u8]) {
        let _ = self.send(bytes).await;
        self.gone().await;
    }

    /// Resets the connection.
    pub(super) fn reset(self) {
        self.stream.get_ref().0.set_zero_linger().unwrap();
    }

    /// Reads more; `false` at the end, however it came about.
    async fn read(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.held)).await.expect("bytes, or the end");
        read.is_ok_and(|count| count > 0)
    }

    /// This many bytes; `None` if it ends before.
    async fn bytes(&mut self, count: usize) -> Option<Bytes> {
        while self.held.len() < count {
            if !self.read().await {
                return None;
            }
        }
        Some(self.held.split_to(count).freeze())
    }

    /// The next control frame outside HTTP/2; `None` at the end.
    pub(super) async fn bare_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = next(&mut self.control, &mut self.held) {
                return Some(frame);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next frame of HTTP/2; `None` at the end.
    pub(super) async fn frame(&mut self) -> Option<Http2> {
        let mut head = self.bytes(9).await?;
        let length = head.get_uint(3) as usize;
        let (kind, _flags, stream) = (head.get_u8(), head.get_u8(), head.get_u32());
        Some(Http2 { kind, stream, payload: self.bytes(length).await? })
    }

    /// The next frame of this kind on this stream; others are passed over.
    pub(super) async fn frame_of(&mut self, kind: u8, stream: u32) -> Http2 {
        loop {
            let frame = self.frame().await.expect("not the end");
            if frame.kind == kind && frame.stream == stream {
                return frame;
            }
        }
    }

    /// The stream of the next request.
    pub(super) async fn request(&mut self) -> u32 {
        loop {
            let frame = self.frame().await.expect("not the end");
            if frame.kind == HEADERS && frame.stream != CONTROL {
                return frame.stream;
            }
        }
    }

    /// The next control frame inside HTTP/2; `None` at the end of the connection.
    pub(super) async fn control_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = next(&mut self.control, &mut self.inside) {
                return Some(frame);
            }
            let frame = self.frame().await?;
            if frame.kind == DATA && frame.stream == CONTROL {
                self.inside.extend_from_slice(&frame.payload);
            }
        }
    }

    /// Sends small frames on a stream for as long as its window takes any, `window` bytes at first, and its reader wants no more.
    /// The other end must not have ended the connection by then.
    pub(super) async fn trickle(&mut self, stream: u32, mut window: usize) {
        const PIECE: &[u8] = &[7; 16];
        loop {
            let many = window / PIECE.len();
            window -= many * PIECE.len();
            // In pieces: what the other end has to say meanwhile is little.
            for count in std::iter::repeat_n(1000, many / 1000).chain([many % 1000]) {
                self.send(&http2(DATA, 0, stream, PIECE).repeat(count)).await.unwrap();
            }
            match timeout(QUIET, self.frame()).await {
                Ok(Some(Http2 { kind: WINDOW_UPDATE, stream: of, payload })) if of == stream => {
                    window += u32::from_be_bytes(payload[..].try_into().unwrap()) as usize;
                }
                Ok(Some(Http2 { kind: GOAWAY, payload, .. })) => panic!("GOAWAY: {}", payload.escape_ascii()),
                Ok(Some(_)) => {}
                Ok(None) => panic!("the connection ended"),
                Err(_) if window < PIECE.len() => return,
                Err(_) => {}
            }
        }
    }

    /// The last words of the other end on the control stream.
    pub(super) async fn closed(&mut self) -> Close {
        loop {
            match self.control_frame().await {
                Some(Frame::Close(close)) => return close,
                Some(_) => {}
                None => panic!("the connection ended without CLOSE"),
            }
        }
    }

    /// Waits for the end of the connection, passing over everything else.
    pub(in crate::hostile_peer) async fn gone(&mut self) {
        while self.read().await {
            self.held.clear();
        }
    }
}

fn next(reader: &mut FrameReader, bytes: &mut BytesMut) -> Option<Frame> {
    let mut rest = &bytes[..];
    let frame = reader.next(&mut rest).unwrap();
    let used = bytes.len() - rest.len();
    bytes.advance(used);
    frame
}

/// A responder with a valid certificate, which admits anybody.
pub(super) struct Listener {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Listener {
    pub(super) async fn bind(folder: &Folder) -> Self {
        let shown = ResponderTls {
            credentials: credentials(&folder.authority.responder()),
            initiators: ClientCertificates::Required(trust(folder)),
        };
        let tls = TlsAcceptor::from(Arc::new(tls::responder_config(&shown, ALPN).unwrap()));
        Self { listener: TcpListener::bind(loopback()).await.unwrap(), tls }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next initiator, which has said HELLO.
    pub(super) async fn accept(&self) -> Peer {
        let accepted = timeout(PATIENCE, self.listener.accept()).await.expect("a connection");
        let (stream, _) = accepted.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = Peer::over(self.tls.accept(stream).await.unwrap().into());
        assert!(matches!(peer.bare_frame().await, Some(Frame::Hello(_))));
        peer
    }

    /// The next initiator, with its tunnel open.
    pub(super) async fn open(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.send(&[&welcome_bytes()[..], &beginning(&post_control())].concat()).await.unwrap();
        peer.frame_of(HEADERS, CONTROL).await;
        peer
    }
}

/// The head of the control stream.
pub(super) fn post_control() -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "https"), (":authority", "control.invalid"), (":path", "/adit/1")];
    headers(CONTROL, false, &fields)
}

/// What HTTP/2 begins with at the responder, with `first` as the first request.
pub(super) fn beginning(first: &[u8]) -> Vec<u8> {
    [PREFACE, &http2(SETTINGS, 0, 0, &[]), first].concat()
}
