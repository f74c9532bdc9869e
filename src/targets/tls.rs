//! TLS on the connections to a target, and what is wrong where it does not come about.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConnection};
use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::message::failure::{Cause, Failure};
use crate::net::{self, Acknowledged, Grace};
use crate::tls::{Rejection, TargetTls, TlsError, server_name, target_config};

/// The ALPN of HTTP/2. RFC 9113 section 3.2
const H2: &[u8] = b"h2";
/// The ALPN of HTTP/1.1. RFC 7301 section 6
const HTTP1: &[u8] = b"http/1.1";

/// TLS to one target.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    is_http2: bool,
}

impl Tls {
    /// # Errors
    ///
    /// Nothing says which targets are genuine, or what says it cannot be used.
    pub(super) fn new(settings: &TargetTls, host: &str, is_http2: bool) -> Result<Self, TlsError> {
        let config = target_config(settings, if is_http2 { H2 } else { HTTP1 })?;
        let name = server_name(settings.server_name.as_deref().unwrap_or(host))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, is_http2 })
    }

    /// Begins TLS on a new connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(super) async fn begin(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
        let stream = self.connector.connect(self.name.clone(), stream).await.map_err(|error| {
            failure(&error).unwrap_or_else(|| {
                Failure::new(Cause::TargetTlsProtocol, format!("the target ended the handshake of TLS: {error}"))
            })
        })?;
        if self.is_http2 && stream.get_ref().1.alpn_protocol() != Some(H2) {
            let details =
                "the target does not choose HTTP/2 in the handshake of TLS (ALPN h2); https:// takes HTTP/1.1";
            return Err(Failure::new(Cause::TargetTlsProtocol, details));
        }
        Ok(stream)
    }
}

/// What TLS found wrong, if it was TLS. RFC 9209 section 2.3
pub(super) fn failure(error: &io::Error) -> Option<Failure> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(_) => {
            let details = Rejection::find(error).map_or_else(|| error.to_string(), ToString::to_string);
            Failure::new(Cause::TargetTlsCertificate, details)
        }
        rustls::Error::AlertReceived(alert) => {
            let details = format!("the target ended TLS with the alert {alert:?}{}", advice(*alert));
            Failure::new(Cause::TargetTlsAlert, details)
        }
        rustls::Error::InvalidMessage(_) => {
            let details = format!("the target does not speak TLS ({error}); http:// and h2c:// are without");
            Failure::new(Cause::TargetTlsProtocol, details)
        }
        other => Failure::new(Cause::TargetTlsProtocol, format!("no TLS with the target: {other}")),
    })
}

/// What an operator can do about an alert.
fn advice(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired => ": it asks for a certificate; expected tls.cert and tls.key",
        AlertDescription::NoApplicationProtocol => {
            ": it does not speak this version of HTTP; https:// takes HTTP/1.1, h2:// HTTP/2"
        }
        AlertDescription::UnrecognisedName => ": it does not know the name; expected another tls.server_name",
        AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            ": it does not take the certificate in tls.cert"
        }
        _ => "",
    }
}

/// One direction of a TLS session. Both share one lock, which nobody holds across a wait.
pub(super) struct TlsHalf(Arc<Mutex<TlsStream<TcpStream>>>);

/// The direction to the target. Dropping it ends the direction in TCP and not in TLS: what was sent is no whole message then.
pub(super) struct TlsWriteHalf(TlsHalf);

/// The two directions, each for an owner of its own.
pub(super) fn split(stream: TlsStream<TcpStream>) -> (TlsHalf, TlsWriteHalf) {
    let shared = Arc::new(Mutex::new(stream));
    (TlsHalf(Arc::clone(&shared)), TlsWriteHalf(TlsHalf(shared)))
}

impl TlsHalf {
    fn lock(&self) -> MutexGuard<'_, TlsStream<TcpStream>> {
        // A session that a panic left half-changed fails by itself at its next record.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the target says nothing, as far as tokio has heard.
    pub(super) fn is_silent(&self) -> bool {
        let mut stream = self.lock();
        let (socket, session) = stream.get_mut();
        is_silent(session, &mut Heard(socket))
    }

    /// Whether the target says nothing, as far as the kernel has heard.
    pub(super) fn is_silent_now(&self) -> bool {
        let mut stream = self.lock();
        let (socket, session) = stream.get_mut();
        let socket = SockRef::from(&*socket);
        let mut socket: &Socket = &socket;
        is_silent(session, &mut socket)
    }

    /// Dropping it, and the other half, resets the connection instead of ending it.
    pub(super) fn reset_on_drop(&self) -> io::Result<()> {
        self.lock().get_ref().0.set_zero_linger()
    }

    /// Takes that back.
    pub(super) fn end_on_drop(&self) -> io::Result<()> {
        SockRef::from(self.lock().get_ref().0).set_linger(None)
    }

    /// Waits until the target has acknowledged all that it was sent, is gone, or takes too little; see [`net::acknowledged`].
    pub(super) fn acknowledged(&self, grace: Grace) -> Option<Acknowledged> {
        net::acknowledged(self.lock().get_ref().0, grace)
    }

    /// Ready when the socket is, as far as tokio has heard.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().get_ref().0.poll_read_ready(cx)
    }
}

impl TlsWriteHalf {
    /// As [`TlsHalf::acknowledged`].
    pub(super) fn acknowledged(&self, grace: Grace) -> Option<Acknowledged> {
        self.0.acknowledged(grace)
    }

    /// As [`TlsHalf::end_on_drop`].
    pub(super) fn end_on_drop(&self) -> io::Result<()> {
        self.0.end_on_drop()
    }
}

/// What tokio lets a reader have.
struct Heard<'a>(&'a TcpStream);

impl Read for Heard<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

/// Whether there is nothing for whoever reads HTTP. What concerns TLS alone is taken in on the way: servers send tickets
/// after the handshake.
fn is_silent(session: &mut ClientConnection, socket: &mut dyn Read) -> bool {
    loop {
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
            _ => return false,
        }
        match session.read_tls(socket) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

impl AsyncRead for TlsHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, into)
    }
}

impl AsyncWrite for TlsWriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }
}

impl Drop for TlsWriteHalf {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = SockRef::from(self.0.lock().get_ref().0).shutdown(std::net::Shutdown::Write);
    }
}
