//! Targets of datagrams: a connected socket for each flow, of which there is a bounded number.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connect::{refused, resolve};
use super::settings::TargetSettings;
use super::target::{Address, Target};
use crate::message::failure::{Cause, Failure};
use crate::net::{connect_udp, take_datagram};
use crate::proxy::datagrams::{LocalError, Sink, Source};

/// Makes the sockets towards one target of datagrams.
pub(super) struct Sockets {
    host: String,
    port: u16,
    from: Option<SocketAddr>,
    limit: Duration,
    left: Arc<Semaphore>,
    most: usize,
}

/// A socket towards the target, for one flow.
pub(crate) struct FlowSocket {
    socket: UdpSocket,
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Why there is no socket for one more flow.
#[derive(Debug)]
pub(crate) enum NoSocket {
    /// The service has as many as it may.
    Service(Failure),
    /// The process has.
    Process(Failure),
    /// The target's name, or the way to it.
    Target(Failure),
}

impl Sockets {
    /// `None`: the target takes no datagrams.
    pub(super) fn new(target: &Target, settings: &TargetSettings) -> Option<Self> {
        let Address::Tcp { host, port } = &target.address else { return None };
        let most = settings.max_flows.min(Semaphore::MAX_PERMITS);
        let left = Arc::new(Semaphore::new(most));
        let (from, limit) = (settings.flow_from, settings.connect_timeout);
        Some(Self { host: host.clone(), port: *port, from, limit, left, most })
    }

    /// A socket of its own, within the limit of the settings. Its name is asked for again each time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub(super) async fn open(&self, process: &Arc<Semaphore>) -> Result<FlowSocket, NoSocket> {
        let full = |what: &str| Failure::new(Cause::ServiceFull, format!("{what} has as many flows as it may"));
        let own = Arc::clone(&self.left).try_acquire_owned();
        let own = own.map_err(|_| NoSocket::Service(full(&format!("the service, with {},", self.most))))?;
        let shared = Arc::clone(process).try_acquire_owned();
        let shared = shared.map_err(|_| NoSocket::Process(full("the process")))?;
        let socket = match timeout(self.limit, self.connect()).await {
            Ok(socket) => socket.map_err(NoSocket::Target)?,
            Err(_) => {
                let details = format!("the target's name was not resolved within {:?}", self.limit);
                return Err(NoSocket::Target(Failure::new(Cause::TargetTimeout, details)));
            }
        };
        Ok(FlowSocket { socket, _places: (own, shared) })
    }

    /// Resolves the name and finds a way there, and lets go of it again.
    ///
    /// # Errors
    ///
    /// It cannot be had. That nobody listens is not found out so.
    pub(super) async fn reach(&self) -> Result<(), Failure> {
        self.connect().await.map(drop)
    }

    async fn connect(&self) -> Result<UdpSocket, Failure> {
        let mut failed = None;
        // One socket cannot speak both families.
        let suits = |address: &SocketAddr| self.from.is_none_or(|from| from.is_ipv4() == address.is_ipv4());
        for address in resolve(&self.host, self.port).await?.into_iter().filter(suits) {
            match connect_udp(address, self.from).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = Some(refused(&error)),
            }
        }
        let none = || match self.from {
            None => "the target's name has no address".to_owned(),
            Some(from) => format!("the target's name has no address of the family of {from}, which `from` says"),
        };
        Err(failed.unwrap_or_else(|| Failure::new(Cause::TargetDns, none())))
    }
}

impl FlowSocket {
    /// What the target says, and what it is told.
    pub(crate) fn ends(&self) -> (FromTarget<'_>, ToTarget<'_>) {
        (FromTarget(&self.socket), ToTarget(&self.socket))
    }
}

/// Datagrams of the target.
pub(crate) struct FromTarget<'a>(&'a UdpSocket);

/// Datagrams for the target.
pub(crate) struct ToTarget<'a>(&'a UdpSocket);

impl Source for FromTarget<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, LocalError> {
        loop {
            match receive(self.0).await {
                Ok(datagram) => return Ok(Some(datagram)),
                Err(error) if says_nothing_of_target(&error) => {}
                Err(error) => return Err(LocalError::Target(error)),
            }
        }
    }
}

impl Sink for ToTarget<'_> {
    async fn put(&mut self, datagram: Bytes) -> Result<bool, LocalError> {
        match self.0.send(&datagram).await {
            Ok(_) => Ok(true),
            Err(error) if says_nothing_of_target(&error) => Ok(false),
            Err(error) => Err(LocalError::Target(error)),
        }
    }
}

/// The next datagram, or what ICMP says. A socket that waits holds no room for a datagram.
async fn receive(socket: &UdpSocket) -> io::Result<Bytes> {
    loop {
        // An error alone does not make a socket readable.
        if socket.ready(Interest::READABLE | Interest::ERROR).await?.is_error() {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            // Whoever sent was told. Until the next one, there is none.
            let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(ErrorKind::WouldBlock.into()));
        }
        match take_datagram(|room| socket.try_recv(room)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            taken => return taken,
        }
    }
}

/// Whether it is about this datagram, or a moment without room, and says nothing of the target.
fn says_nothing_of_target(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}
