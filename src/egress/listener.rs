//! Accepts connections and finds out which HTTP they speak: over TCP by ALPN in TLS or by the first bytes without, over QUIC
//! HTTP/3. Or takes their bytes as they are.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderValue;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionDetails, ConnectionInfo, End, ExchangeService, LAST_CALL, Serving, Settings, Socket, failed_early, http1,
    http2, http3, lock,
};
use crate::egress::budget::ListenerBudget;
use crate::egress::introduction::{self, Unclear};
use crate::egress::standing::{Source, Standing};
use crate::egress::tcp::{self, TcpTerms};
use crate::egress::terms::{Accepting, Current};
use crate::id::PeerIdentity;
use crate::message::trust::Trust;
use crate::message::violation::Violation;
use crate::net;
use crate::protocol::stream::ClientAddresses;
use crate::telemetry::{AcceptWatch, Entrance, Metrics};
use crate::tls::peer_identity;

/// When nobody has connected for so long, nobody waits to be accepted.
const QUIET: Duration = Duration::from_millis(10);
/// Room for the first read of a plaintext connection; usually a whole request head.
const FIRST_READ: usize = 8 * 1024;

/// A bound listener for HTTP/1.1 and HTTP/2, and perhaps for HTTP/3 beside it.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    /// The port of both sockets.
    port: Option<u16>,
    http3: Arc<Slot>,
    source: Source,
    /// Dropped right after the socket.
    closed: CancelledOnDrop,
    /// What all its connections hold.
    budget: Arc<ListenerBudget>,
    watch: AcceptWatch,
}

/// Where a listener gets its UDP socket: at the start, or later.
#[derive(Debug, Default)]
pub(super) struct Slot {
    handed: OnceLock<http3::Http3Socket>,
    waiting: Mutex<Option<http3::Endpoint>>,
    changed: Notify,
}

impl Slot {
    /// Hands the socket over; there is one at most.
    pub(super) fn hand(&self, endpoint: http3::Endpoint) {
        if self.handed.set(endpoint.socket()).is_ok() {
            *lock(&self.waiting) = Some(endpoint);
            self.changed.notify_one();
        }
    }

    /// Whether there is one.
    pub(super) fn is_taken(&self) -> bool {
        self.handed.get().is_some()
    }

    /// The socket, if there is one.
    pub(super) fn socket(&self) -> Option<http3::Http3Socket> {
        self.handed.get().cloned()
    }

    /// Waits for the socket. Cancel safe.
    async fn take(&self) -> http3::Endpoint {
        loop {
            if let Some(endpoint) = lock(&self.waiting).take() {
                return endpoint;
            }
            self.changed.notified().await;
        }
    }
}

/// Tells that it is gone.
#[derive(Debug, Default)]
struct CancelledOnDrop(CancellationToken);

impl Drop for CancelledOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Listener {
    /// Serves `tcp`: over TLS with a configuration as [`egress_config`](crate::tls::egress_config) makes it, or in
    /// plaintext.
    pub fn new(tcp: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, settings: Settings) -> Self {
        let source = Source::Fixed(Accepting::tcp(tls, settings));
        Self::of(tcp, source, &Metrics::new())
    }

    /// Serves `tcp`, and HTTP/3 if there is an endpoint for it, as the terms say when a connection comes. Counts what cannot
    /// be accepted.
    pub(super) fn current(
        tcp: TcpListener,
        http3: Option<http3::Endpoint>,
        terms: Arc<Current>,
        metrics: &Metrics,
    ) -> Self {
        let listener = Self::of(tcp, Source::Current(terms), metrics);
        if let Some(endpoint) = http3 {
            listener.http3.hand(endpoint);
        }
        listener
    }

    fn of(tcp: TcpListener, source: Source, metrics: &Metrics) -> Self {
        let watch = AcceptWatch::new(metrics, Entrance::Egress);
        let budget = ListenerBudget::counting(metrics.limits(Entrance::Egress));
        Self {
            port: tcp.local_addr().ok().map(|local| local.port()),
            tcp,
            http3: Arc::default(),
            source,
            closed: CancelledOnDrop::default(),
            budget: Arc::new(budget),
            watch,
        }
    }

    /// Cancelled once the listening TCP socket is closed.
    pub(super) fn closed(&self) -> CancellationToken {
        self.closed.0.clone()
    }

    /// Where it takes a UDP socket.
    pub(super) fn http3(&self) -> Arc<Slot> {
        Arc::clone(&self.http3)
    }

    /// The address that is listened on, with its real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Accepts and serves until the drain of `end` is cancelled, then takes those who have connected already, closes the
    /// listening socket and returns when the last connection is done. The UDP socket is that of its connections, too, and
    /// is closed with the last of them.
    ///
    /// Cancel safety: dropping the future drops the listening socket and every connection; that is how a drain deadline is
    /// enforced.
    pub async fn run<S: ExchangeService>(self, service: S, end: End) {
        let (source, budget) = (self.source.clone(), Arc::clone(&self.budget));
        let (slot, drain) = (self.http3(), end.drain.clone());
        let accept =
            http3::Accept { service: service.clone(), end: end.clone(), budget, watch: self.watch.clone(), source };
        let udp = async move {
            if let Some(endpoint) = drain.run_until_cancelled(slot.take()).await {
                endpoint.run(accept).await;
            }
        };
        tokio::join!(self.run_tcp(service, end), udp);
    }

    async fn run_tcp<S: ExchangeService>(self, service: S, end: End) {
        let mut connections = JoinSet::new();
        loop {
            // Before looking: a change in between is not missed.
            let (changed, left) = (self.source.changed(), self.budget.left());
            let has_room = self.has_room();
            if !has_room {
                self.watch.is_full(self.budget.connections());
            }
            tokio::select! {
                biased;
                () = end.drain.cancelled() => break,
                _ = connections.join_next(), if !connections.is_empty() => {}
                () = changed, if !has_room => {}
                () = left, if !has_room => {}
                accepted = self.tcp.accept(), if has_room => match accepted {
                    Ok((stream, remote)) => {
                        connections.spawn(self.serve(stream, remote, service.clone(), end.clone()));
                    }
                    Err(error) => {
                        self.watch.failed(&error);
                        sleep(net::accept_pause(&error)).await;
                    }
                },
            }
        }
        // To close over a connection that nobody has accepted yet would reset it, with the request that it brought.
        let closes = Instant::now() + LAST_CALL;
        while self.has_room()
            && let Ok(Ok((stream, remote))) = timeout_at(closes.min(Instant::now() + QUIET), self.tcp.accept()).await
        {
            connections.spawn(self.serve(stream, remote, service.clone(), end.clone()));
        }
        drop((self.tcp, self.closed));
        while connections.join_next().await.is_some() {}
    }

    /// Whether there may be another connection, over TCP and QUIC together.
    fn has_room(&self) -> bool {
        self.budget.connections() < self.source.accepting().settings.max_connections
    }

    /// Serves a connection, which counts as one from now on until it has ended.
    fn serve<S: ExchangeService>(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        service: S,
        end: End,
    ) -> impl Future<Output = ()> + use<S> {
        let (accepted, connected) = (self.accepted(remote, service, end), self.budget.connect());
        async move {
            accepted.serve(stream).await;
            drop(connected);
        }
    }

    fn accepted<S>(&self, remote: SocketAddr, service: S, end: End) -> Accepted<S> {
        let accepting = self.source.accepting();
        let standing = Standing::new(remote, self.source.clone(), &accepting, &end);
        let Accepting { tls, http3, settings, tcp, proxies, .. } = accepting;
        let own = self.port.filter(|_| http3.is_some() && self.http3.is_taken());
        let alternative = own.and_then(|own| alternative(settings.http3.public_port.unwrap_or(own)));
        let (budget, deadline) = (Arc::clone(&self.budget), Instant::now() + settings.head_timeout);
        Accepted { remote, tls, tcp, proxies, alternative, settings, service, end, standing, budget, deadline }
    }
}

/// A connection whose protocol is not known yet.
struct Accepted<S> {
    remote: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    tcp: Option<Arc<TcpTerms>>,
    proxies: Arc<Trust>,
    alternative: Option<HeaderValue>,
    settings: Arc<Settings>,
    service: S,
    end: End,
    standing: Standing,
    budget: Arc<ListenerBudget>,
    /// Until when it must have said enough to know what it is.
    deadline: Instant,
}

impl<S: ExchangeService> Accepted<S> {
    async fn serve(mut self, mut stream: TcpStream) {
        let remote = self.remote;
        let served = match prepare(&stream) {
            Ok(local) => match self.introduced(&mut stream, local).await {
                Ok(Some(local)) => match (self.tcp.clone(), self.tls.clone()) {
                    (Some(terms), _) => self.bare(stream, local, &terms).await,
                    (None, None) => self.plaintext(stream, local).await,
                    (None, Some(config)) => self.encrypted(stream, local, config).await,
                },
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            failed_early(remote, &error);
        }
    }

    /// Learns from a proxy that is trusted who connected, and to which address, which is returned; without one it is `local`.
    /// `None`: the listener ends. A proxy that does not say it is reset.
    async fn introduced(&mut self, stream: &mut TcpStream, local: SocketAddr) -> io::Result<Option<SocketAddr>> {
        if !self.proxies.covers(self.remote.ip()) {
            return Ok(Some(local));
        }
        let read = tokio::select! {
            read = timeout_at(self.deadline, introduction::read(stream)) => read,
            () = self.end.clone().last_call() => return Ok(None),
        };
        match read.unwrap_or(Err(Unclear::Broken(Violation::BeginTimeout))) {
            Ok(None) => Ok(Some(local)),
            Ok(Some(ClientAddresses { source, destination })) => {
                self.remote = source;
                Ok(Some(destination))
            }
            Err(unclear) => {
                stream.reset_on_drop();
                Err(self.unclear(local, unclear))
            }
        }
    }

    async fn plaintext(self, mut stream: TcpStream, local: SocketAddr) -> io::Result<()> {
        let mut received = BytesMut::with_capacity(FIRST_READ);
        let is_http2 = tokio::select! {
            sniffed = timeout_at(self.deadline, sniff(&mut stream, &mut received)) => sniffed??,
            () = self.end.clone().last_call() => return Ok(()),
        };
        let (serving, standing) = self.serving(local, None);
        if is_http2 {
            let served = pin!(http2::serve(net::Prefixed::new(received.freeze(), stream), serving));
            standing.hold(served).await;
        } else if !received.is_empty() {
            standing.hold(pin!(http1::serve(stream, received, serving))).await;
        }
        Ok(())
    }

    async fn encrypted(
        mut self,
        stream: TcpStream,
        local: SocketAddr,
        config: Arc<rustls::ServerConfig>,
    ) -> io::Result<()> {
        let accept = TlsAcceptor::from(config).accept(stream);
        let stream = timeout_at(self.deadline, accept).await??;
        let session = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        self.standing.showed(session.peer_certificates().map_or_else(Vec::new, <[_]>::to_vec));
        let proven = Proven {
            server_name: session.server_name().map(str::to_owned),
            peer: session.peer_certificates().map(peer_identity).transpose().map_err(io::Error::other)?,
        };
        let (serving, standing) = self.serving(local, Some(proven));
        if is_http2 {
            standing.hold(pin!(http2::serve(stream, serving))).await;
        } else {
            standing.hold(pin!(http1::serve(stream, BytesMut::new(), serving))).await;
        }
        Ok(())
    }

    /// Bytes as they come. What cannot be brought anywhere is reset.
    async fn bare(self, mut stream: TcpStream, local: SocketAddr, terms: &TcpTerms) -> io::Result<()> {
        stream.reset_on_drop();
        let most = terms.max_per_prefix.unwrap_or(usize::MAX);
        let Some(_of_prefix) = self.budget.enter(self.remote.ip(), most) else {
            return Err(io::Error::other("sources of this address prefix have as many connections as they may"));
        };
        let mut received = BytesMut::new();
        let mut server_name = None;
        if terms.server_name {
            let named = tokio::select! {
                named = timeout_at(self.deadline, tcp::server_name(terms, &mut stream, &mut received)) => named,
                () = self.end.clone().last_call() => return Ok(()),
            };
            match named.unwrap_or(Err(Unclear::Broken(Violation::BeginTimeout))) {
                Ok(named) => server_name = named,
                Err(unclear) => return Err(self.unclear(local, unclear)),
            }
        }
        let head = tcp::head(local, server_name.as_deref());
        let serving = self.named(local, server_name);
        http1::pass(stream, received, head, serving).await;
        Ok(())
    }

    /// Has it recorded what a connection that goes nowhere has done wrong.
    fn unclear(&self, local: SocketAddr, unclear: Unclear) -> io::Error {
        match unclear {
            Unclear::Broken(violation) => {
                let (remote, server_name, peer) = (self.remote, None, None);
                let details = ConnectionDetails { remote, local, tls: false, server_name, peer };
                self.service.refused(&ConnectionInfo::paced(details, self.settings.pace), None, violation);
                io::Error::other(violation)
            }
            Unclear::Ended => io::ErrorKind::UnexpectedEof.into(),
            Unclear::Failed(error) => error,
        }
    }

    /// For bytes, of which nothing changes on the way.
    fn named(self, local: SocketAddr, server_name: Option<String>) -> Serving<S> {
        let details = ConnectionDetails { remote: self.remote, local, tls: false, server_name, peer: None };
        self.serving_of(details).0
    }

    /// For requests: it follows the terms.
    fn serving(mut self, local: SocketAddr, proven: Option<Proven>) -> (Serving<S>, Standing) {
        let tls = proven.is_some();
        let Proven { server_name, peer } = proven.unwrap_or_default();
        let details = ConnectionDetails { remote: self.remote, local, tls, server_name, peer };
        self.end = self.standing.end();
        let (mut serving, standing) = self.serving_of(details);
        serving.heads = Some(standing.heads());
        (serving, standing)
    }

    fn serving_of(self, details: ConnectionDetails) -> (Serving<S>, Standing) {
        let info = ConnectionInfo::paced(details, self.settings.pace);
        let Self { alternative, settings, service, end, standing, budget, .. } = self;
        (Serving { info, settings, service, end, alternative, budget, heads: None }, standing)
    }
}

/// The value of Alt-Svc that names HTTP/3 on a port of the same host, for a day. RFC 7838 section 3, RFC 9114 section 3.1.1
fn alternative(port: u16) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok()
}

/// What a TLS handshake tells.
#[derive(Default)]
struct Proven {
    server_name: Option<String>,
    peer: Option<PeerIdentity>,
}

fn prepare(stream: &TcpStream) -> io::Result<SocketAddr> {
    net::tune_client(stream);
    net::keep_alive(stream)?;
    stream.local_addr()
}

/// Reads until it is clear whether the first bytes are the preface of HTTP/2.
async fn sniff(stream: &mut TcpStream, received: &mut BytesMut) -> io::Result<bool> {
    while received.len() < http2::PREFACE.len() && http2::PREFACE.starts_with(received) {
        if stream.read_buf(received).await? == 0 {
            return Ok(false);
        }
    }
    Ok(received.starts_with(http2::PREFACE))
}

#[cfg(test)]
mod tests;
