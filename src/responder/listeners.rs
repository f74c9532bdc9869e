//! Where connections come in: a socket for each transport, each of which can be exchanged while the responder runs.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::net;
use crate::responder::terms::{Configured, Terms, UpdateError};
use crate::telemetry::{Metrics, Role};
use crate::transport::Incoming;
use crate::transport::quic::{self, BindError, Keys, listening_socket};
use crate::transport::tcp;

/// How often a free UDP port is tried whose TCP port turns out to be taken.
const PORT_PAIRS: usize = 16;

/// Why a responder could not start on sockets that are bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its terms cannot be put in force.
    #[error(transparent)]
    Terms(#[from] UpdateError),
    /// The endpoint could not be made.
    #[error(transparent)]
    Endpoint(#[from] BindError),
}

/// What a responder listens on; at least one of the two.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// For tunnels over QUIC.
    pub(super) quic: Option<UdpSocket>,
    /// For tunnels over TCP.
    pub(super) tcp: Option<TcpListener>,
}

impl Sockets {
    /// Binds a UDP address, a TCP address or both. Two free ports on one address are the same number.
    pub(super) fn bind(
        quic: Option<SocketAddr>,
        tcp: Option<SocketAddr>,
        metrics: &Metrics,
    ) -> Result<Self, net::BindError> {
        let Some(quic) = quic else {
            return Ok(Self { quic: None, tcp: tcp.map(net::bind_tcp).transpose()? });
        };
        let pair = tcp == Some(quic) && quic.port() == 0;
        let mut tries = if pair { PORT_PAIRS } else { 1 };
        loop {
            tries -= 1;
            let socket = listening_socket(quic, Role::Responder, metrics)?;
            let same = socket.local_addr().ok().filter(|_| pair);
            match tcp.map(|address| net::bind_tcp(same.unwrap_or(address))).transpose() {
                Ok(tcp) => return Ok(Self { quic: Some(socket), tcp }),
                Err(error) if tries == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// A listener over QUIC and what it listens on.
#[derive(Debug)]
pub(super) struct Quic {
    pub(super) listener: quic::Listener,
    pub(super) endpoint: quinn::Endpoint,
}

/// Listeners that nobody accepts from yet.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) quic: Option<Arc<Quic>>,
    pub(super) tcp: Option<Arc<tcp::Listener>>,
}

/// What becomes of the listener of one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// It stays as it is.
    Stay,
    /// It listens at this address, instead of where it did or for the first time. Port 0 takes a free one.
    At(SocketAddr),
    /// There is none any more.
    Nowhere,
}

impl Listen {
    pub(super) const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Stay | Self::Nowhere => None,
        }
    }
}

/// Where connections come in.
#[derive(Debug)]
pub(super) struct Listeners {
    quic: ArcSwapOption<Quic>,
    tcp: ArcSwapOption<tcp::Listener>,
    /// Those over QUIC that were left, and whose tunnels live on.
    left: Mutex<Vec<Weak<Quic>>>,
    /// There are others.
    changed: Notify,
    /// Reset and connection-id keys, persisted so that a restart is noticed at once.
    keys: Keys,
    metrics: Metrics,
}

impl Listeners {
    /// Makes a listener of each bound socket. Needs a tokio runtime.
    pub(super) fn new(sockets: Sockets, keys: Keys, terms: &Terms, metrics: &Metrics) -> Result<Self, StartError> {
        let (quic, tcp) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        let (left, changed) = (Mutex::default(), Notify::new());
        let listeners = Self { quic, tcp, left, changed, keys, metrics: metrics.clone() };
        let Made { quic, tcp } = listeners.make(sockets, terms)?;
        listeners.quic.store(quic);
        listeners.tcp.store(tcp);
        Ok(listeners)
    }

    /// Binds other addresses and makes listeners of them, from which nobody accepts yet. A socket that was left and is still
    /// there for its tunnels is taken back. Needs a tokio runtime.
    pub(super) fn bind(
        &self,
        quic: Option<SocketAddr>,
        tcp: Option<SocketAddr>,
        terms: &Terms,
    ) -> Result<Made, ListenError> {
        let back = quic.and_then(|address| self.left_at(address));
        let quic = quic.filter(|_| back.is_none());
        let mut made = self.make(Sockets::bind(quic, tcp, &self.metrics)?, terms)?;
        made.quic = made.quic.or(back);
        Ok(made)
    }

    fn left_at(&self, address: SocketAddr) -> Option<Arc<Quic>> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there = left.iter().filter_map(Weak::upgrade);
        there.find(|quic| quic.endpoint.local_addr().is_ok_and(|local| local == address))
    }

    fn make(&self, sockets: Sockets, terms: &Terms) -> Result<Made, StartError> {
        let Configured { adit, envoy } = terms.configured().map_err(UpdateError::Tls)?;
        let quic = match sockets.quic {
            Some(socket) => {
                let config = quic::Listener::server_config(adit.clone(), &terms.tunnel, &terms.quic);
                let config = config.map_err(UpdateError::Quic)?;
                let endpoint = quic::bind(socket, &self.keys, Some(config.endpoint()))?;
                let listener = quic::Listener::new(endpoint.clone(), config, terms.tunnel, terms.quic.clone());
                Some(Arc::new(Quic { listener: listener.counting(&self.metrics), endpoint }))
            }
            None => None,
        };
        let tcp = sockets.tcp.map(|listener| {
            let listener = tcp::Listener::new(listener, adit, terms.tunnel, terms.tcp.clone()).counting(&self.metrics);
            Arc::new(match envoy {
                Some((tls, envoy)) => listener.with_envoy(tls, envoy),
                None => listener,
            })
        });
        Ok(Made { quic, tcp })
    }

    /// Puts listeners in the place of others, which are returned: nobody accepts from those any more.
    pub(super) fn exchange(&self, quic: Listen, tcp: Listen, made: Made) -> Made {
        let left = Made {
            quic: if quic == Listen::Stay { None } else { self.quic.swap(made.quic) },
            tcp: if tcp == Listen::Stay { None } else { self.tcp.swap(made.tcp) },
        };
        if let Some(quic) = &left.quic {
            let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|quic| quic.strong_count() > 0);
            all.push(Arc::downgrade(quic));
        }
        self.changed.notify_waiters();
        left
    }

    /// Takes connections under other terms from now on; nothing has changed when it fails.
    pub(super) fn reconfigure(&self, terms: &Terms) -> Result<(), UpdateError> {
        self.now().reconfigure(terms)
    }

    fn now(&self) -> Made {
        Made { quic: self.quic.load_full(), tcp: self.tcp.load_full() }
    }

    /// Whether connections come in here.
    pub(super) fn listens_with(&self, quic: &Arc<Quic>) -> bool {
        self.quic.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, quic))
    }

    /// The endpoint over QUIC, if there is one.
    pub(super) fn endpoint(&self) -> Option<quinn::Endpoint> {
        self.quic.load().as_ref().map(|quic| quic.endpoint.clone())
    }

    /// Where it listens for tunnels over QUIC, if it does.
    pub(super) fn quic_addr(&self) -> Option<SocketAddr> {
        self.quic.load().as_ref().and_then(|quic| quic.endpoint.local_addr().ok())
    }

    /// Where it listens for tunnels over TCP, if it does.
    pub(super) fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp.load().as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The next connection of either kind; `None` once the QUIC endpoint is closed. Cancel safe.
    pub(super) async fn accept(&self) -> Option<Incoming> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking: an exchange in between is not missed.
            changed.as_mut().enable();
            let now = self.now();
            tokio::select! {
                incoming = now.accept() => return incoming,
                () = changed => {}
            }
        }
    }
}

impl Made {
    /// Takes connections under other terms from now on; nothing has changed when it fails.
    pub(super) fn reconfigure(&self, terms: &Terms) -> Result<(), UpdateError> {
        let (Configured { adit, envoy }, generation) = (terms.configured()?, terms.rules.generation());
        if let Some(quic) = &self.quic {
            let config = quic::Listener::server_config(adit.clone(), &terms.tunnel, &terms.quic)?;
            quic.listener.reconfigure(config, (terms.tunnel, terms.quic.clone()), generation);
        }
        if let Some(listener) = &self.tcp {
            listener.reconfigure(adit, envoy, (terms.tunnel, terms.tcp.clone()), generation);
        }
        Ok(())
    }

    /// The next connection of either kind; `None` once the QUIC endpoint is closed. Cancel safe.
    pub(super) async fn accept(&self) -> Option<Incoming> {
        let quic = async {
            match &self.quic {
                Some(quic) => quic.listener.accept().await.map(Box::new).map(Incoming::Quic),
                None => std::future::pending().await,
            }
        };
        let tcp = async {
            match &self.tcp {
                Some(listener) => Incoming::Tcp(Box::new(listener.accept().await)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            incoming = quic => incoming,
            incoming = tcp => Some(incoming),
        }
    }
}

/// Why a responder cannot listen elsewhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] net::BindError),
    /// It is bound, and cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
}
