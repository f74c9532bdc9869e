//! The byte stream below a tunnel: TCP, or TLS over it. What passes is counted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::net::{self, Prefixed, Tuning};
use crate::protocol::goaway::GoawayWatch;
use crate::protocol::reauth::{Binding, EXPORTER_LABEL};
use crate::transport::tcp::raw::Raw;

/// What a tunnel's bytes go through.
#[derive(Debug)]
enum Layer {
    Tcp(Raw),
    Tls(Box<Prefixed<TlsStream<Raw>>>),
}

/// The stream of one tunnel.
#[derive(Debug)]
pub(super) struct Wire {
    layer: Layer,
    meter: Arc<Meter>,
    /// Watches for a GOAWAY among what is read.
    goaway: Option<(GoawayWatch, CancellationToken)>,
}

/// What the TLS of a connection says about it.
#[derive(Debug)]
pub(crate) struct Secured {
    /// What no other connection has. spec: CT-54
    pub(crate) binding: Binding,
    /// What the peer showed.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

/// How many bytes have passed, inside TLS where there is TLS.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    received: AtomicU64,
    sent: Arc<AtomicU64>,
}

impl Meter {
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// What [`Meter::sent`] reads.
    pub(super) fn sent_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }
}

impl Wire {
    /// TLS, with bytes of inside it that were read already.
    pub(super) fn tls(prefix: Bytes, stream: TlsStream<Raw>) -> Self {
        Self { layer: Layer::Tls(Box::new(Prefixed::new(prefix, stream))), meter: Arc::default(), goaway: None }
    }

    /// TCP in the clear.
    pub(super) fn tcp(stream: Raw) -> Self {
        Self { layer: Layer::Tcp(stream), meter: Arc::default(), goaway: None }
    }

    /// The same stream with bytes put back in front of what comes next.
    pub(super) fn unread(self, bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return self;
        }
        let layer = match self.layer {
            Layer::Tcp(mut stream) => {
                stream.unread(bytes);
                Layer::Tcp(stream)
            }
            Layer::Tls(stream) => {
                let (rest, stream) = stream.into_parts();
                Layer::Tls(Box::new(Prefixed::new(joined(bytes, &rest), stream)))
            }
        };
        Self { layer, ..self }
    }

    /// What TLS says about the connection; nothing where there is none.
    pub(super) fn secured(&self) -> Option<Secured> {
        let Layer::Tls(stream) = &self.layer else { return None };
        let tls = stream.get_ref();
        let exported = match tls {
            TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")),
            TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")),
        };
        let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
        exported.ok().map(|binding| Secured { binding: Binding(binding), certificates })
    }

    /// Takes TLS off: what follows on the connection is in clear. Nothing is said to the peer. spec: EV-41
    pub(super) fn into_raw(self) -> Raw {
        match self.layer {
            Layer::Tcp(stream) => stream,
            Layer::Tls(stream) => {
                let (rest, stream) = stream.into_parts();
                let mut raw = match stream {
                    TlsStream::Server(stream) => stream.into_inner().0,
                    TlsStream::Client(stream) => stream.into_inner().0,
                };
                raw.read_records(false);
                raw.unread(rest);
                raw
            }
        }
    }

    /// Counts into this meter.
    pub(super) fn metered(self, meter: Arc<Meter>) -> Self {
        Self { meter, ..self }
    }

    /// Cancels the token when a GOAWAY is read.
    pub(super) fn watched(self, watch: GoawayWatch) -> (Self, CancellationToken) {
        let token = CancellationToken::new();
        (Self { goaway: Some((watch, token.clone())), ..self }, token)
    }

    pub(super) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    /// Asks the kernel for other things from now on.
    pub(super) fn tune(&self, tuning: &Tuning) {
        net::tune_tcp(self.socket(), tuning);
    }

    fn socket(&self) -> &TcpStream {
        match &self.layer {
            Layer::Tcp(stream) => stream.stream(),
            Layer::Tls(stream) => stream.get_ref().get_ref().0.stream(),
        }
    }
}

/// Reads no further than one record. A TLS stream as such goes on as long as there is room, into what may be no record
/// any more. spec: EV-41
fn poll_record(
    mut stream: Pin<&mut Prefixed<TlsStream<Raw>>>,
    cx: &mut Context<'_>,
    into: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let bytes = ready!(stream.as_mut().poll_fill_buf(cx))?;
    let length = bytes.len().min(into.remaining());
    into.put_slice(&bytes[..length]);
    stream.consume(length);
    Poll::Ready(Ok(()))
}

fn joined(front: Bytes, rest: &Bytes) -> Bytes {
    if rest.is_empty() { front } else { [&front[..], &rest[..]].concat().into() }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Layer::Tls(stream) if stream.get_ref().get_ref().0.reads_records() => {
                poll_record(Pin::new(stream.as_mut()), cx, into)
            }
            Layer::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, into),
        };
        self.meter.received.fetch_add((into.filled().len() - before) as u64, Ordering::Relaxed);
        if let Some((watch, token)) = &mut self.goaway
            && watch.see(&into.filled()[before..])
        {
            token.cancel();
            self.goaway = None;
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Layer::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        };
        count(&self.meter, &polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Layer::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bytes),
        };
        count(&self.meter, &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Tcp(stream) => stream.is_write_vectored(),
            Layer::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Layer::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Layer::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

fn count(meter: &Meter, polled: &Poll<io::Result<usize>>) {
    if let Poll::Ready(Ok(bytes)) = polled {
        meter.sent.fetch_add(*bytes as u64, Ordering::Relaxed);
    }
}
