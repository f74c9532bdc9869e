//! What stays of an egress while it runs, to look at it and to change it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;

use crate::egress::entrances::{Entrances, Leaving};
use crate::egress::gateway::Gateway;
use crate::egress::http3::{self, Http3Socket};
use crate::egress::listener::{Listener, Slot};
use crate::egress::lock;
use crate::egress::terms::{Current, InForce, Terms};
use crate::net;
use crate::proxy::{AccessLog, Recorder};
use crate::routing::Directory;
use crate::telemetry::{Metrics, Side};
use crate::tls::TlsError;
use crate::transport::Tunnel;
use crate::transport::quic;

/// Changes an egress while it runs. Cheap to clone; of no effect once the egress is gone.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

/// What an egress and its handles share.
pub(super) struct Shared {
    pub(super) directory: Arc<Directory<Tunnel>>,
    pub(super) current: Arc<Current>,
    pub(super) name: Option<String>,
    pub(super) metrics: Metrics,
    pub(super) entrances: Entrances<Gateway<Tunnel>>,
    /// Of listeners that left: they are taken back at their addresses.
    pub(super) left: Mutex<Vec<Http3Socket>>,
}

/// What one listener is bound to.
struct Sockets {
    tcp: TcpListener,
    /// With its real port.
    address: SocketAddr,
    http3: Option<http3::Endpoint>,
}

/// Terms that can be put in force, with the sockets that they need.
#[derive(Debug)]
#[must_use = "nothing has changed yet"]
pub struct Prepared {
    next: InForce,
    endpoints: Vec<(Arc<Slot>, http3::Endpoint)>,
}

/// How many free TCP ports are tried for one that is free over UDP, too.
const PAIRS: usize = 32;

/// Why an egress listener could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The credentials or roots.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] net::BindError),
    /// The UDP port beside it cannot be bound.
    #[error("{0}; HTTP/3 is served there beside the TCP port of the same number, unless http3 is false")]
    Http3(#[source] net::BindError),
    /// The UDP socket cannot be used.
    #[error("HTTP/3 cannot be served, which http3: false leaves out")]
    Endpoint(#[source] quic::BindError),
    /// A bound socket that does not tell its address.
    #[error("a listener does not know its address")]
    Address(#[source] io::Error),
    /// A listener for an egress that takes no more.
    #[error("the egress drains or is gone")]
    Over,
}

impl Handle {
    /// The terms that hold now.
    pub fn terms(&self) -> Terms {
        self.0.current.terms()
    }

    /// Changes the terms, all at once: `change` is applied to a copy of those that hold, which is then put in force.
    /// Updates wait for each other, so none is lost; `change` must not call this itself.
    ///
    /// A request is routed and logged as the terms say when it was read, and an exchange keeps the limits that held when it
    /// began, so nothing that runs is disturbed. An open connection keeps the TLS that it came over. Where the limits are other
    /// ones by now, or TLS came or went, it is asked to send its next request over a new one (GOAWAY, `Connection: close`), and
    /// serves what comes all the same; over HTTP/1 the next head is read under the new limits. Where its client would not be let
    /// in any more (another `client_ca`, a revocation list, pins), it takes nothing new, finishes what it carries, and is cut
    /// after 30 s. A connection of bytes, and what was upgraded, keeps what it began with. HTTP/3 is not served where no UDP port
    /// was bound for it: see [`Handle::prepare`].
    ///
    /// # Errors
    /// The credentials or what is trusted cannot be used: nothing has changed then.
    pub fn update(&self, change: impl FnOnce(&mut Terms)) -> Result<(), TlsError> {
        self.0.current.update(change)?;
        tracing::info!("the terms of an egress changed");
        Ok(())
    }

    /// Makes terms ready to be put in force, and binds what they need that is not there: the UDP ports of HTTP/3. Changes
    /// nothing. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`]: credentials, roots or a port cannot be used.
    pub fn prepare(&self, terms: Terms) -> Result<Prepared, BuildError> {
        let next = self.0.current.next(terms)?;
        let mut endpoints = Vec::new();
        if let Some(config) = &next.accepting().http3 {
            for (address, slot) in self.0.entrances.without_http3() {
                endpoints.push((slot, self.http3(address, config)?));
            }
        }
        Ok(Prepared { next, endpoints })
    }

    /// Puts in force what [`Handle::prepare`] made, unless something else has been put in force since: whoever calls this is
    /// the only one who changes this egress.
    pub fn commit(&self, prepared: Prepared) {
        let Prepared { next, endpoints } = prepared;
        for (slot, endpoint) in endpoints {
            slot.hand(endpoint);
        }
        self.0.current.put(next);
    }

    /// The UDP sockets of HTTP/3, which outlast their listeners as long as a connection is left. See
    /// [`Builder::take_back`](super::Builder::take_back).
    pub fn http3_sockets(&self) -> Vec<Http3Socket> {
        self.0.entrances.sockets()
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.entrances.addresses()
    }

    /// Binds one more TCP address, under the same terms; port 0 takes a free one. Returns the address with its real port.
    /// With TLS the UDP port of the same number is bound, too, for HTTP/3, unless [`Http3Settings`](super::Http3Settings)
    /// leave that out. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`]: the address cannot be bound, or the egress drains or is gone.
    pub fn add(&self, address: SocketAddr) -> Result<SocketAddr, BuildError> {
        let Sockets { tcp, address, http3 } = self.bind(address)?;
        let listener = Listener::current(tcp, http3, Arc::clone(&self.0.current), &self.0.metrics);
        let name = self.0.name.clone().unwrap_or_else(|| address.to_string());
        // The terms say what is logged.
        let recorder = Recorder::new(&self.0.metrics, Side::Egress, Some(name), AccessLog::Off);
        let gateway = Gateway::new(Arc::clone(&self.0.directory), Arc::clone(&self.0.current), recorder);
        self.0.entrances.add(address, listener, gateway).map_err(|_| BuildError::Over)?;
        Ok(address)
    }

    /// Binds TCP, and UDP on the same port where there is HTTP/3.
    fn bind(&self, address: SocketAddr) -> Result<Sockets, BuildError> {
        let http3 = self.0.current.accepting().http3;
        for last in (0..PAIRS).rev() {
            let tcp = net::bind_tcp(address)?;
            let bound = tcp.local_addr().map_err(BuildError::Address)?;
            let Some(config) = &http3 else { return Ok(Sockets { tcp, address: bound, http3: None }) };
            match self.http3(bound, config) {
                Ok(http3) => return Ok(Sockets { tcp, address: bound, http3: Some(http3) }),
                // A free port of TCP need not be one of UDP: another pair may be.
                Err(BuildError::Http3(_)) if address.port() == 0 && last > 0 => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last pair is taken or refused")
    }

    /// A socket that listeners which left still need is theirs and this one's.
    fn http3(&self, address: SocketAddr, config: &quinn::ServerConfig) -> Result<http3::Endpoint, BuildError> {
        let back = lock(&self.0.left).iter().find(|left| left.address() == address).cloned();
        if let Some(endpoint) = back.and_then(|left| left.take_back(config.clone())) {
            return Ok(endpoint.counting(&self.0.metrics));
        }
        let (udp, _) = net::bind_udp(address).map_err(BuildError::Http3)?;
        endpoint(udp, config, &self.0.metrics)
    }

    /// Takes a listener away: one of [`Handle::addresses`]; `None` if it is none of them. Returns once its TCP socket is
    /// closed, so that the address can be bound again; the UDP port of HTTP/3 is free for others when [`Leaving::ended`]
    /// returns, and for this egress at once. Its connections finish what they carry, say so to their clients (GOAWAY, `Connection: close`), and are cut after
    /// `limit`; [`Leaving::ended`] waits for that.
    ///
    /// # Cancel safety
    /// Cancel safe: once polled, the listener leaves all the same.
    pub async fn remove(&self, address: SocketAddr, limit: Duration) -> Option<Leaving> {
        let (leaving, socket) = self.0.entrances.remove(address, limit).await?;
        let mut left = lock(&self.0.left);
        left.retain(Http3Socket::is_there);
        left.extend(socket);
        Some(leaving)
    }
}

/// Serves HTTP/3 on a socket that was bound.
fn endpoint(udp: UdpSocket, config: &quinn::ServerConfig, metrics: &Metrics) -> Result<http3::Endpoint, BuildError> {
    let endpoint = http3::Endpoint::new(udp, config.clone()).map_err(BuildError::Endpoint)?;
    Ok(endpoint.counting(metrics))
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
