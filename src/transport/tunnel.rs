//! The handle of a live tunnel.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};

use crate::id::{Place, ResponderId, ServiceName, TunnelId};
use crate::protocol::code::CloseCode;
use crate::protocol::handshake::Service;
use crate::protocol::health::Health as ServiceHealth;
use crate::protocol::limits::{DEFAULT_OPEN_TIMEOUT, Limits};
use crate::protocol::reauth::{Binding, Reauth, Reauthed};
use crate::protocol::roster::Roster;
use crate::protocol::session::Drain;
use crate::protocol::stream::ClientAddresses;
use crate::registry::{Handle, Health};
use crate::shares::Shares;
use crate::telemetry::StreamMetrics;
use crate::transport::control::{COMMANDS, Command};
use crate::transport::error::OpenError;
use crate::transport::flow::Flow;
use crate::transport::kind::TransportKind;
use crate::transport::open::{HttpHead, HttpStream};
use crate::transport::raw::RawStream;
use crate::transport::state::{CloseReason, Phase, TunnelSnapshot, TunnelState, Untold};
use crate::transport::tcp::envoy::{AcceptSettings, StillTaken};
use crate::transport::via::Via;
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

    /// This connection to a sibling, as the way to a node that has a tunnel there: whatever is opened on it goes on to that
    /// node. Siblings speak QUIC alone; any other connection stays what it is.
    pub(crate) fn through(&self, via: Via) -> Self {
        match &self.link {
            Link::Quic(connection) => Self::quic(connection.through(via)),
            Link::Tcp(_) => self.clone(),
        }
    }

    /// The sibling that this leads through; `None`: the node's own tunnel ends here.
    pub fn sibling(&self) -> Option<&ResponderId> {
        self.via().map(Via::sibling)
    }

    /// Whether it leads through a sibling that says when it wants the body of a request. spec: FL-47
    pub(crate) fn says_here(&self) -> bool {
        match &self.link {
            Link::Quic(connection) => connection.via.is_some() && connection.says_here,
            Link::Tcp(_) => false,
        }
    }

    fn via(&self) -> Option<&Via> {
        match &self.link {
            Link::Quic(connection) => connection.via.as_ref(),
            Link::Tcp(_) => None,
        }
    }

    /// What was opened on it has failed so: the directory of the fleet hears of a sibling that has no tunnel any more.
    /// spec: FL-44
    pub(crate) fn note(&self, error: &OpenError) {
        if let (OpenError::NotHere, Some(via)) = (error, self.via()) {
            via.not_here();
        }
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
        self.via().map_or(&self.state().place, Via::place)
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

    /// Counts one of its exchanges as one that nobody can be told to end, until the guard drops.
    pub(crate) fn begin_untold(&self) -> Untold {
        self.state().begin_untold()
    }

    /// Whether none but such exchanges are under way in it.
    pub(crate) fn has_only_untold(&self) -> bool {
        self.state().has_only_untold()
    }

    /// What binds a signature to this connection; `None` for a tunnel of an Envoy, whose connection is not bound to TLS.
    /// spec: CT-54
    pub fn binding(&self) -> Option<Binding> {
        match &self.link {
            Link::Quic(connection) => connection.binding(),
            Link::Tcp(connection) => connection.secured.as_ref().map(|secured| secured.binding),
        }
    }

    /// What becomes of it when Envoys are accepted by these settings, `None`: not any more. A tunnel that no Envoy has dialled is
    /// no matter of them.
    pub fn still_taken(&self, settings: Option<&AcceptSettings>) -> StillTaken {
        match &self.link {
            Link::Quic(_) => StillTaken::Yes,
            Link::Tcp(connection) => {
                connection.accepted.as_ref().map_or(StillTaken::Yes, |accepted| accepted.still_taken(settings))
            }
        }
    }

    /// What the peer showed in its handshake, its own certificate first; nothing where it showed none, and of an Envoy.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        match &self.link {
            Link::Quic(connection) => quic::peer_certificates(&connection.quic),
            Link::Tcp(connection) => {
                connection.secured.as_ref().map_or_else(Vec::new, |secured| secured.certificates.clone())
            }
        }
    }

    /// Shows the responder another credential (REAUTH), under a higher number than any before. Returns at once; `false` while the
    /// driver is behind with so much that this must be said again later. spec: CT-32
    #[must_use]
    pub fn reauth(&self, reauth: Reauth) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.command(Command::Reauth(Box::new(reauth)));
        }
        has_room
    }

    /// What the responder says next to a credential that it was shown; for one caller. An answer stands for those to lower
    /// numbers. Cancel safe. spec: CT-56
    pub async fn reauthed(&self) -> Reauthed {
        self.state().reauthed().take().await
    }

    /// The credential that the initiator shows next; for one caller. Cancel safe. spec: CT-32
    pub(crate) async fn shown(&self) -> Reauth {
        self.state().reauths().take().await
    }

    /// Answers [`Tunnel::shown`]. Returns at once. An answer that finds no room is lost, and the initiator opens another tunnel
    /// as it does for want of one. spec: CT-56, CT-57
    pub(crate) fn answer(&self, reauthed: Reauthed) {
        if self.has_room() {
            self.command(Command::Reauthed(reauthed));
        }
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

    /// The services that its node says are down, by name. spec: CT-58
    pub fn down_services(&self) -> Vec<ServiceName> {
        self.state().down().list().into_iter().map(|down| down.service).collect()
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

    /// Bounds the flows that are opened on it from here on; the first call decides.
    pub(crate) fn share(&self, shares: Arc<Shares>) {
        self.state().share(shares);
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
        self.open_raw_for(service, None).await
    }

    /// As [`Tunnel::open_raw`], for a client whose addresses the initiator is told, so that its target can be. spec: ST-66
    ///
    /// # Errors
    /// As [`Tunnel::open_raw`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the stream up.
    pub async fn open_raw_for(
        &self,
        service: &ServiceName,
        client: Option<ClientAddresses>,
    ) -> Result<RawStream, OpenError> {
        self.open_raw_within(DEFAULT_OPEN_TIMEOUT, service, client).await
    }

    /// As [`Tunnel::open_raw_for`], with another limit for the answer of the initiator than 10 s. spec: ST-58
    ///
    /// # Errors
    /// As [`Tunnel::open_raw`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the stream up.
    pub(crate) async fn open_raw_within(
        &self,
        limit: Duration,
        service: &ServiceName,
        client: Option<ClientAddresses>,
    ) -> Result<RawStream, OpenError> {
        match &self.link {
            Link::Quic(connection) => connection.open_raw(limit, service, client).await,
            Link::Tcp(connection) => connection.open_raw(limit, service, client).await,
        }
    }

    /// Opens a flow of datagrams to an exported service.
    ///
    /// # Errors
    /// As [`Tunnel::open_raw`]; also where the tunnel, its tenant or its node has as many flows as it may.
    ///
    /// # Cancel safety
    /// Dropping the future gives the flow up.
    pub async fn open_flow(&self, service: &ServiceName) -> Result<Flow, OpenError> {
        self.open_flow_for(service, None).await
    }

    /// As [`Tunnel::open_flow`], for a client whose addresses the initiator is told. spec: ST-66
    ///
    /// # Errors
    /// As [`Tunnel::open_flow`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the flow up.
    pub async fn open_flow_for(
        &self,
        service: &ServiceName,
        client: Option<ClientAddresses>,
    ) -> Result<Flow, OpenError> {
        let stake = self.state().begin_shared_flow(self.via())?;
        let flow = match &self.link {
            Link::Quic(connection) => connection.open_flow(service, client).await,
            Link::Tcp(connection) => connection.open_flow(service, client).await,
        };
        Ok(flow?.holding(stake))
    }

    /// Announces a drain: no new exchanges, what runs may finish until `deadline`, then the tunnel closes. The peer is
    /// asked to come back not before `reconnect_after`. Somebody waits for the end, such as a process that stops: a peer that
    /// is not heard is given up when the tunnel is suspect, or at once if it is already. Returns at once.
    pub fn drain(&self, deadline: Duration, reconnect_after: Duration) {
        self.command(Command::Drain(Drain { deadline, reconnect_after, ..Drain::default() }));
    }

    /// A responder asks the initiator for a replacement elsewhere, and still opens streams here until [`Tunnel::drain`], or for
    /// as long as `drain` says. An Envoy cannot be told. Returns at once; `false` while the driver is behind with so much that
    /// this must be said again later. spec: CT-35
    #[must_use]
    pub(crate) fn leave(&self, drain: Drain) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.command(Command::Leave(drain));
        }
        has_room
    }

    /// Like [`Tunnel::drain`] for a tunnel in whose place there is another one by now: nobody waits for its end, so that
    /// what runs has until `deadline` even if nothing is heard for a while. Returns at once.
    pub fn retire(&self, deadline: Duration) {
        self.command(Command::Retire(Drain { deadline, ..Drain::default() }));
    }

    /// Asks for a sign of life now, which decides sooner whether the tunnel is suspect. Returns at once. spec: CT-42
    pub fn probe(&self) {
        if self.has_room() {
            self.command(Command::Probe);
        }
    }

    /// How long ago the peer was heard, at most; [`Tunnel::probe`] finds out whether it still is.
    pub(crate) fn heard_ago(&self) -> Duration {
        self.state().heard_ago()
    }

    /// Tells the peer what is exported from now on. Returns at once; `false` while the driver is behind with so much that
    /// this must be said again later.
    #[must_use]
    pub fn announce(&self, services: Vec<Service>) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.command(Command::Services(services));
        }
        has_room
    }

    /// Tells the responder which services are down now (HEALTH). Returns at once; `false` while the driver is behind with so much
    /// that this must be said again later. spec: CT-58
    #[must_use]
    pub fn tell_health(&self, health: ServiceHealth) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.command(Command::Health(health));
        }
        has_room
    }

    /// Tells the initiator which responders of the fleet there are now (ROSTER). Returns at once; `false` while the driver is behind
    /// with so much that this must be said again later. spec: CT-62
    #[must_use]
    pub fn tell_roster(&self, roster: Option<Roster>) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.command(Command::Roster(Box::new(roster)));
        }
        has_room
    }

    /// Takes message heads up to these limits from now on, and tells the peer so (LIMITS). What an Envoy was told cannot be
    /// changed; over TCP a tunnel cannot be told to take more than it was set up for, 256 KiB and 240 fields at least. Returns
    /// at once. spec: CT-31, CT-33
    pub fn limit(&self, limits: Limits) {
        if self.transport() != TransportKind::Envoy {
            self.state().heads().want(limits);
        }
    }

    /// What the responder says next of its fleet; for one caller. Of several that came meanwhile the latest. Cancel safe.
    /// spec: CT-62
    pub async fn roster(&self) -> Option<Roster> {
        self.state().rosters().take().await
    }

    /// Closes without waiting for exchanges. Returns at once; [`Tunnel::closed`] tells when it is done.
    pub fn close(&self, code: CloseCode, text: &str) {
        self.command(Command::Close(CloseReason { code, text: text.to_owned() }));
    }

    /// What ends the tunnel must find room in the queue.
    fn has_room(&self) -> bool {
        self.commands().capacity() > COMMANDS / 2
    }

    fn command(&self, command: Command) {
        // Half of the queue is left to what drains or ends the tunnel: where that is full, one of them is in it.
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

    fn is_down(&self, service: Option<&ServiceName>) -> bool {
        self.via().is_none() && self.state().down().has(service)
    }

    fn rtt(&self) -> Duration {
        self.state().rtt()
    }

    fn doubt(&self) {
        self.probe();
    }
}
