//! Accepts connections and finds out which HTTP they speak: over TCP by ALPN in TLS or by the first bytes without, over QUIC
//! HTTP/3.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderValue;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionDetails, ConnectionInfo, End, ExchangeService, LAST_CALL, Serving, Settings, http1, http2, http3,
};
use crate::egress::budget::ListenerBudget;
use crate::egress::terms::{Accepting, Current};
use crate::id::PeerIdentity;
use crate::net;
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
    http3: Option<http3::Endpoint>,
    /// The port at which HTTP/3 is served, once it is.
    alternative: Option<u16>,
    source: Source,
    /// Dropped right after the socket.
    closed: CancelledOnDrop,
    /// What all its connections hold.
    budget: Arc<ListenerBudget>,
    watch: AcceptWatch,
}

/// Where it is said what connections are accepted under.
#[derive(Debug, Clone)]
enum Source {
    Fixed(Accepting),
    Current(Arc<Current>),
}

impl Source {
    fn accepting(&self) -> Accepting {
        match self {
            Self::Fixed(accepting) => accepting.clone(),
            Self::Current(current) => current.accepting(),
        }
    }

    /// Done when something else is said since this was called.
    fn changed(&self) -> impl Future<Output = ()> {
        let changed = match self {
            Self::Fixed(_) => None,
            Self::Current(current) => Some(current.changed()),
        };
        async {
            match changed {
                Some(changed) => changed.await,
                None => std::future::pending().await,
            }
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
        Self::of(tcp, None, source, &Metrics::new())
    }

    /// Serves `tcp`, and HTTP/3 if there is an endpoint for it, as the terms say when a connection comes. Counts what cannot
    /// be accepted.
    pub(super) fn current(
        tcp: TcpListener,
        http3: Option<http3::Endpoint>,
        terms: Arc<Current>,
        metrics: &Metrics,
    ) -> Self {
        Self::of(tcp, http3, Source::Current(terms), metrics)
    }

    fn of(tcp: TcpListener, http3: Option<http3::Endpoint>, source: Source, metrics: &Metrics) -> Self {
        let watch = AcceptWatch::new(metrics, Entrance::Egress);
        let budget = ListenerBudget::counting(metrics.limits(Entrance::Egress));
        Self {
            tcp,
            http3,
            alternative: None,
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
    pub async fn run<S: ExchangeService>(mut self, service: S, end: End) {
        let Some(endpoint) = self.http3.take() else { return self.run_tcp(service, end).await };
        let local = self.local_addr().ok();
        let alternative = local.map(|local| local.port());
        let (source, budget) = (self.source.clone(), Arc::clone(&self.budget));
        let watch = self.watch.clone();
        let accept = http3::Accept {
            service: service.clone(),
            end: end.clone(),
            budget,
            watch,
            accepting: move || source.accepting(),
        };
        self.alternative = alternative;
        tokio::join!(self.run_tcp(service, end), endpoint.run(accept));
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
        let Accepting { tls, http3, settings, .. } = self.source.accepting();
        let own = self.alternative.filter(|_| http3.is_some());
        let alternative = own.and_then(|own| alternative(settings.http3.public_port.unwrap_or(own)));
        Accepted { remote, tls, alternative, settings, service, end, budget: Arc::clone(&self.budget) }
    }
}

/// A connection whose protocol is not known yet.
struct Accepted<S> {
    remote: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    alternative: Option<HeaderValue>,
    settings: Arc<Settings>,
    service: S,
    end: End,
    budget: Arc<ListenerBudget>,
}

impl<S: ExchangeService> Accepted<S> {
    async fn serve(self, stream: TcpStream) {
        let remote = self.remote;
        let served = match self.tls.clone() {
            None => self.plaintext(stream).await,
            Some(config) => self.encrypted(stream, config).await,
        };
        if let Err(error) = served {
            tracing::debug!(%error, %remote, "a connection failed before its first request");
        }
    }

    async fn plaintext(self, mut stream: TcpStream) -> io::Result<()> {
        let local = prepare(&stream)?;
        let mut received = BytesMut::with_capacity(FIRST_READ);
        let is_http2 = tokio::select! {
            sniffed = timeout(self.settings.head_timeout, sniff(&mut stream, &mut received)) => sniffed??,
            () = self.end.clone().last_call() => return Ok(()),
        };
        let serving = self.serving(local, None);
        if is_http2 {
            http2::serve(net::Prefixed::new(received.freeze(), stream), serving).await;
        } else if !received.is_empty() {
            http1::serve(stream, received, serving).await;
        }
        Ok(())
    }

    async fn encrypted(self, stream: TcpStream, config: Arc<rustls::ServerConfig>) -> io::Result<()> {
        let local = prepare(&stream)?;
        let accept = TlsAcceptor::from(config).accept(stream);
        let stream = timeout(self.settings.head_timeout, accept).await??;
        let session = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let proven = Proven {
            server_name: session.server_name().map(str::to_owned),
            peer: session.peer_certificates().map(peer_identity).transpose().map_err(io::Error::other)?,
        };
        let serving = self.serving(local, Some(proven));
        if is_http2 {
            http2::serve(stream, serving).await;
        } else {
            http1::serve(stream, BytesMut::new(), serving).await;
        }
        Ok(())
    }

    fn serving(self, local: SocketAddr, proven: Option<Proven>) -> Serving<S> {
        let tls = proven.is_some();
        let Proven { server_name, peer } = proven.unwrap_or_default();
        let details = ConnectionDetails { remote: self.remote, local, tls, server_name, peer };
        let info = ConnectionInfo::paced(details, self.settings.pace);
        let Self { alternative, settings, service, end, budget, .. } = self;
        Serving { info, settings, service, end, alternative, budget }
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
    net::no_delay(stream);
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
