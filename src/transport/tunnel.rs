//! The handle of a live tunnel.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::id::{Place, ServiceName, TunnelId};
use crate::protocol::code::CloseCode;
use crate::protocol::handshake::Service;
use crate::protocol::handshake::Token;
use crate::protocol::session::Drain;
use crate::registry::{Handle, Health};
use crate::telemetry::StreamMetrics;
use crate::transport::control::{COMMANDS, Command};
use crate::transport::error::OpenError;
use crate::transport::flow::Flow;
use crate::transport::kind::TransportKind;
use crate::transport::open::{HttpHead, HttpStream};
use crate::transport::raw::RawStream;
use crate::transport::state::{CloseReason, Phase, TunnelSnapshot, TunnelState};
use crate::transport::{quic, tcp};

/// One authenticated connection between an initiator and a responder. Cheap to clone; the tunnel closes when the last
/// clone is dropped.
#[derive(Debug, Clone)]
pub struct Tunnel {
    link: Link,
}

/// What the tunnel runs over.
#[derive(Debug, Clone)]
enum Link {
    Quic(Arc<quic::Connection>),
    Tcp(Arc<tcp::Connection>),
}

impl Tunnel {
    pub(crate) fn quic(connection: quic::Connection) -> Self {
        Self { link: Link::Quic(Arc::new(connection)) }
    }

    pub(crate) fn tcp(connection: tcp::Connection) -> Self {
        Self { link: Link::Tcp(Arc::new(connection)) }
    }

    fn state(&self) -> &Arc<TunnelState> {
        match &self.link {
            Link::Quic(connection) => &connection.state,
            Link::Tcp(connection) => &connection.state,
        }
    }

    /// Its name at the responder.
    pub fn id(&self) -> TunnelId {
        self.state().id
    }

    /// Who the initiator is and which of its tunnels this is.
    pub fn place(&self) -> &Place {
        &self.state().place
    }

    /// What carries it.
    pub fn transport(&self) -> TransportKind {
        match &self.link {
            Link::Quic(_) => TransportKind::Quic,
            Link::Tcp(connection) => connection.transport(),
        }
    }

    /// The peer's address as seen here; follows a peer that moves.
    pub fn remote(&self) -> SocketAddr {
        match &self.link {
            Link::Quic(connection) => connection.quic.remote_address(),
            Link::Tcp(connection) => connection.remote,
        }
    }

    /// Watches the tunnel's life; the last value is [`Phase::Closed`].
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.state().phase()
    }

    /// The fresh tokens that the peer shows after HELLO (REAUTH); `None` before the first.
    pub(crate) fn tokens(&self) -> watch::Receiver<Option<Token>> {
        self.state().tokens()
    }

    /// How long to wait before the peer is dialled again: what the drain said that ends or ended this tunnel, whichever
    /// end asked for it. `None`: nothing was drained.
    pub fn reconnect_after(&self) -> Option<Duration> {
        self.state().reconnect_after()
    }

    /// Resolves when WELCOME has left, or never will. Cancel safe.
    pub(crate) async fn welcomed(&self) {
        self.state().opened().await;
    }

    /// Resolves when the tunnel is gone, with the reason. Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        let mut phase = self.phase();
        loop {
            if let Phase::Closed(reason) = &*phase.borrow_and_update() {
                return reason.clone();
            }
            if phase.changed().await.is_err() {
                return CloseReason { code: CloseCode::Internal, text: "the driver is gone".into() };
            }
        }
    }

    /// The tunnel as operators see it.
    pub fn snapshot(&self) -> TunnelSnapshot {
        match &self.link {
            Link::Quic(connection) => connection.snapshot(),
            Link::Tcp(connection) => connection.snapshot(),
        }
    }

    /// Counts what becomes of its streams that are not read, from here on.
    pub(crate) fn count_streams(&self, metrics: StreamMetrics) {
        self.state().credit().count_with(metrics);
    }

    /// Opens an HTTP stream and sends the head. What follows goes into [`HttpStream::upload`], what comes back is in
    /// [`HttpStream::answer`]; the head of a message that goes on leaves with the first piece of the upload.
    ///
    /// # Errors
    /// [`OpenError`]; after [`OpenError::NotSent`] the request may go elsewhere.
    ///
    /// # Cancel safety
    /// Dropping the future, or both halves of the stream, cancels the exchange at once.
    #[allow(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice; this is the path of every request"
    )]
    pub fn open_http<'a>(
        &'a self,
        head: HttpHead<'a>,
    ) -> impl Future<Output = Result<HttpStream, OpenError>> + Send + 'a {
        async move {
            match &self.link {
                Link::Quic(connection) => connection.open_http(head).await,
                Link::Tcp(connection) => connection.open_http(head).await,
            }
        }
    }

    /// Opens a raw stream to an exported service, once the initiator has connected its target.
    ///
    /// # Errors
    /// [`OpenError`]: [`OpenError::Refused`] says why the target could not be had, [`OpenError::Unsupported`] that this
    /// initiator takes no raw streams. Neither harms the tunnel.
    ///
    /// # Cancel safety
    /// Dropping the future gives the stream up.
    pub async fn open_raw(&self, service: &ServiceName) -> Result<RawStream, OpenError> {
        match &self.link {
            Link::Quic(connection) => connection.open_raw(service).await,
            Link::Tcp(connection) => connection.open_raw(service).await,
        }
    }

    /// Opens a flow of datagrams to an exported service.
    ///
    /// # Errors
    /// As [`Tunnel::open_raw`]; also where the tunnel has as many flows as it may.
    ///
    /// # Cancel safety
    /// Dropping the future gives the flow up.
    pub async fn open_flow(&self, service: &ServiceName) -> Result<Flow, OpenError> {
        match &self.link {
            Link::Quic(connection) => connection.open_flow(service).await,
            Link::Tcp(connection) => connection.open_flow(service).await,
        }
    }

    /// Announces a drain: no new exchanges, what runs may finish until `deadline`, then the tunnel closes. The peer is
    /// asked to come back not before `reconnect_after`. Somebody waits for the end, such as a process that stops: a peer that
    /// is not heard is given up when the tunnel is suspect, or at once if it is already. Returns at once.
    pub fn drain(&self, deadline: Duration, reconnect_after: Duration) {
        self.command(Command::Drain(Drain { deadline, reconnect_after }));
    }

    /// Like [`Tunnel::drain`] for a tunnel in whose place there is another one by now: nobody waits for its end, so that
    /// what runs has until `deadline` even if nothing is heard for a while. Returns at once.
    pub fn retire(&self, deadline: Duration) {
        self.command(Command::Retire(Drain { deadline, reconnect_after: Duration::ZERO }));
    }

    /// Asks for a sign of life now, which decides sooner whether the tunnel is suspect. Returns at once. spec: CT-42
    pub fn probe(&self) {
        self.command(Command::Probe);
    }

    /// Tells the peer what is exported from now on. Returns at once; `false` while the driver is behind with so much that
    /// this must be said again later.
    #[must_use]
    pub fn announce(&self, services: Vec<Service>) -> bool {
        // What ends the tunnel must find room in the queue.
        let has_room = self.commands().capacity() > COMMANDS / 2;
        if has_room {
            self.command(Command::Services(services));
        }
        has_room
    }

    /// Closes without waiting for exchanges. Returns at once; [`Tunnel::closed`] tells when it is done.
    pub fn close(&self, code: CloseCode, text: &str) {
        self.command(Command::Close(CloseReason { code, text: text.to_owned() }));
    }

    fn command(&self, command: Command) {
        // A full queue means that the driver is behind with earlier commands, one of which ends the tunnel.
        let _ = self.commands().try_send(command);
    }

    fn commands(&self) -> &mpsc::Sender<Command> {
        match &self.link {
            Link::Quic(connection) => &connection.commands,
            Link::Tcp(connection) => &connection.commands,
        }
    }
}

impl Handle for Tunnel {
    /// One whose WELCOME has not left takes no requests yet. spec: HS-38
    fn health(&self) -> Health {
        match self.state().health() {
            Health::Healthy | Health::Suspect if !self.state().is_welcomed() => Health::Opening,
            health => health,
        }
    }

    fn in_flight(&self) -> u32 {
        self.state().in_flight()
    }

    fn rtt(&self) -> Duration {
        self.state().rtt()
    }

    fn doubt(&self) {
        self.probe();
    }
}
