//! What is known of one tunnel while it lives: health, load, traffic. Written by its driver, read from anywhere.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::id::{PeerIdentity, Place, TunnelId};
use crate::message::h2::small::SmallFrames;
use crate::protocol::budgets::{SIBLING_FACTOR, SIBLING_FLOWS, SIBLING_STREAMS};
use crate::protocol::code::CloseCode;
use crate::protocol::handshake::{PeerLimits, Service};
use crate::protocol::health::{self, Down};
use crate::protocol::limits::DEFAULT_FLOWS;
use crate::protocol::reauth::{Reauth, Reauthed};
use crate::protocol::roster::Roster;
use crate::protocol::stream::StreamType;
use crate::registry::Health;
use crate::shares::{Shares, Stake, What};
use crate::tls::peer_identity;
use crate::transport::asking::{Asked, Asking};
use crate::transport::credit::Ledger;
use crate::transport::down::DownServices;
use crate::transport::error::{OpenError, TunnelLost};
use crate::transport::heads::Heads;
use crate::transport::kind::TransportKind;
use crate::transport::latest::Latest;
use crate::transport::settings::MAX_STREAMS;
use crate::transport::unwritten::Unwritten;
use crate::transport::via::Via;

/// How long a new stream waits for room, beside some round trips, while no other gets any.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// How often it looks whether the other end allows more.
const ROOM_LOOK: Duration = Duration::from_millis(100);
/// How long it waits in all.
const MOST_ROOM_WAIT: Duration = Duration::from_secs(10);

/// Where a tunnel is in its life, as its owner watches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It carries exchanges.
    Open,
    /// It may carry exchanges, and has not shown yet that it works: a new tunnel of an Envoy. spec: EV-21
    Unproven,
    /// The peer has been silent for the suspect timeout although it owes an answer. spec: CT-42
    Suspect,
    /// One end announced a drain: no new exchanges. spec: CT-20
    Draining {
        /// Not before this much time should a replacement be dialled to the same responder.
        reconnect_after: Duration,
    },
    /// It is gone.
    Closed(CloseReason),
}

/// How a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The close code, of whichever end closed.
    pub code: CloseCode,
    /// For people.
    pub text: String,
}

/// One tunnel as `/tunnels` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TunnelSnapshot {
    /// Its name at the responder.
    pub id: String,
    /// Node id.
    pub node: String,
    /// Cluster id.
    pub cluster: String,
    /// Tenant id.
    pub tenant: String,
    /// Which start of the initiator.
    pub instance: String,
    /// Which of the instance's tunnels.
    pub slot: u32,
    /// How often that slot was connected before.
    pub generation: u64,
    /// What carries it.
    pub transport: TransportKind,
    /// `healthy`, `suspect` (also a tunnel of an Envoy that has not shown yet that it works), `draining` or `closed`.
    pub state: &'static str,
    /// The peer's address as seen here.
    pub remote: SocketAddr,
    /// Smoothed round-trip time, milliseconds.
    pub rtt_ms: f64,
    /// What is known of the path; of TCP's only the kernel knows it.
    pub path: Option<PathStats>,
    /// Seconds since the handshake.
    pub age_seconds: u64,
    /// Exchanges under way.
    pub in_flight: u32,
    /// Exchanges opened so far.
    pub exchanges: u64,
    /// Bytes sent: UDP payloads of QUIC, else what TLS encrypts.
    pub bytes_sent: u64,
    /// Bytes received, likewise.
    pub bytes_received: u64,
    /// What the initiator exports.
    pub services: Vec<String>,
    /// What of that is down, and why.
    pub down: Vec<ServiceDown>,
}

/// A service that an initiator says cannot be served now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ServiceDown {
    /// Its name.
    pub service: String,
    /// Why, in a word.
    pub cause: &'static str,
}

/// What QUIC measures of its path.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct PathStats {
    /// Packets lost over packets sent, 0 to 1.
    pub loss: f64,
    /// Packets lost in this direction so far.
    pub lost_packets: u64,
    /// Path MTU in use, bytes.
    pub mtu: u16,
    /// Congestion window, bytes.
    pub congestion_window: u64,
}

/// The facts shared by a tunnel's handle, its driver and its exchanges.
#[derive(Debug)]
pub(crate) struct TunnelState {
    pub(crate) id: TunnelId,
    pub(crate) place: Place,
    pub(crate) transport: TransportKind,
    pub(crate) opened: Instant,
    in_flight: AtomicU32,
    /// Those of them that wait for a stream, where this end has to know how many there may be, and what wakes one of them.
    without_stream: AtomicU32,
    /// Of the exchanges under way, those of which nobody can be told.
    untold: AtomicU32,
    room: tokio::sync::Notify,
    exchanges: AtomicU64,
    /// Streams that were opened from here.
    streams: AtomicU64,
    /// How large message heads may be. spec: CT-31
    heads: Heads,
    /// When the peer was heard last as far as its driver knows, milliseconds after `opened`.
    heard: AtomicU64,
    /// Smoothed, microseconds; a copy, so that picking a tunnel does not lock its connection.
    rtt_micros: AtomicU64,
    phase: watch::Sender<Phase>,
    /// The credential that the initiator showed after HELLO, at the responder. spec: CT-32
    reauths: Latest<Reauth>,
    /// What the responder said to that, at the initiator. spec: CT-56
    reauthed: Latest<Reauthed>,
    /// What the responder says of its fleet after WELCOME, at the initiator. spec: CT-62
    rosters: Latest<Option<Roster>>,
    /// What the phase means for new requests; a copy, so that picking a tunnel takes no lock.
    health: AtomicU8,
    /// Outlasts the phase: a tunnel without exchanges closes before anybody saw it drain.
    reconnect_after: OnceLock<Duration>,
    /// Whether WELCOME is on its way: before it, no stream may be opened. spec: HS-32
    welcomed: AtomicBool,
    welcome_sent: tokio::sync::Notify,
    idle: tokio::sync::Notify,
    /// Whether the driver wants to know of the next exchange that begins; while it does not, nobody is woken.
    awaits_use: AtomicBool,
    use_begun: tokio::sync::Notify,
    services: Mutex<Vec<Service>>,
    /// Those of them that are down, at the responder. spec: CT-58
    down: DownServices,
    /// A bit for each stream type that the peer does not know.
    refused_types: AtomicU8,
    /// Flows that are open, where no table of them counts. spec: ST-71
    flows: AtomicU32,
    /// It is a connection between siblings, which leads to many nodes. spec: FL-53
    leads_to_many: AtomicBool,
    /// What TLS proved of the responder, at an initiator; set before anything comes through.
    peer: OnceLock<PeerIdentity>,
    /// What bounds the flows of its tenant and node, at a responder.
    shares: OnceLock<Arc<Shares>>,
    /// What its streams hold unread.
    credit: Ledger,
    /// What comes in small frames, over TCP. spec: SE-19
    small_frames: Arc<SmallFrames>,
    /// What its peer asks, at an initiator.
    asking: Asking,
    /// What waits to be written, over TCP.
    unwritten: Arc<Unwritten>,
}

impl TunnelState {
    pub(crate) fn new(
        id: TunnelId,
        place: Place,
        transport: TransportKind,
        peer_limits: PeerLimits,
        services: Vec<Service>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            place,
            transport,
            opened: Instant::now(),
            in_flight: AtomicU32::new(0),
            without_stream: AtomicU32::new(0),
            untold: AtomicU32::new(0),
            room: tokio::sync::Notify::new(),
            exchanges: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            heads: Heads::new(peer_limits),
            heard: AtomicU64::new(0),
            rtt_micros: AtomicU64::new(0),
            phase: watch::Sender::new(Phase::Open),
            reauths: Latest::default(),
            reauthed: Latest::default(),
            rosters: Latest::default(),
            health: AtomicU8::new(Health::Healthy as u8),
            reconnect_after: OnceLock::new(),
            welcomed: AtomicBool::new(false),
            welcome_sent: tokio::sync::Notify::new(),
            idle: tokio::sync::Notify::new(),
            awaits_use: AtomicBool::new(false),
            use_begun: tokio::sync::Notify::new(),
            services: Mutex::new(services),
            down: DownServices::default(),
            refused_types: AtomicU8::new(0),
            flows: AtomicU32::new(0),
            leads_to_many: AtomicBool::new(false),
            peer: OnceLock::new(),
            shares: OnceLock::new(),
            credit: Ledger::default(),
            small_frames: Arc::default(),
            asking: Asking::new(),
            unwritten: Arc::default(),
        })
    }

    /// Notes what the responder's certificate says, for whoever goes by its names. One that cannot be read proves nothing.
    pub(crate) fn know_peer(&self, chain: &[CertificateDer<'_>]) {
        if let Ok(identity) = peer_identity(chain) {
            let _ = self.peer.set(identity);
        }
    }

    /// What TLS proved of the responder, at an initiator.
    pub(crate) fn peer(&self) -> Option<&PeerIdentity> {
        self.peer.get()
    }

    /// The ledger of what its streams hold unread.
    pub(super) const fn credit(&self) -> &Ledger {
        &self.credit
    }

    /// What the readers of its streams and the guard below HTTP/2 know of small frames.
    pub(super) const fn small_frames(&self) -> &Arc<SmallFrames> {
        &self.small_frames
    }

    /// What HTTP/2 takes of answers is taken only when so many bytes are written. spec: SE-16
    pub(super) fn count_written(&self, written: Arc<AtomicU64>) {
        self.asking.count_written(written);
    }

    /// The room for what waits in HTTP/2 to be written.
    pub(super) const fn unwritten(&self) -> &Arc<Unwritten> {
        &self.unwritten
    }

    /// How large message heads may be.
    pub(crate) const fn heads(&self) -> &Heads {
        &self.heads
    }

    /// What the peer takes by now.
    pub(crate) fn peer_limits(&self) -> PeerLimits {
        self.heads.peer()
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// What the initiator shows, for the responder.
    pub(super) const fn reauths(&self) -> &Latest<Reauth> {
        &self.reauths
    }

    /// What the responder said to that, for the initiator.
    pub(super) const fn reauthed(&self) -> &Latest<Reauthed> {
        &self.reauthed
    }

    /// What the responder says of its fleet, for the initiator.
    pub(super) const fn rosters(&self) -> &Latest<Option<Roster>> {
        &self.rosters
    }

    /// Moves to `next` unless the tunnel is already closed, or draining and `next` is not closed.
    pub(crate) fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let blocked = match phase {
                Phase::Closed(_) => true,
                Phase::Draining { .. } => !matches!(next, Phase::Closed(_)),
                Phase::Open | Phase::Unproven | Phase::Suspect => *phase == next,
            };
            if !blocked {
                if let Phase::Draining { reconnect_after } = next {
                    let _ = self.reconnect_after.set(reconnect_after);
                }
                self.health.store(health(&next) as u8, Ordering::Release);
                *phase = next;
            }
            !blocked
        });
        if self.health() == Health::Draining {
            // Whoever waits for WELCOME waits in vain.
            self.welcome_sent.notify_waiters();
        }
    }

    /// What was said about a replacement when the tunnel began to drain; `None` if it did not.
    pub(crate) fn reconnect_after(&self) -> Option<Duration> {
        self.reconnect_after.get().copied()
    }

    pub(crate) fn health(&self) -> Health {
        const HEALTHY: u8 = Health::Healthy as u8;
        const UNPROVEN: u8 = Health::Unproven as u8;
        const SUSPECT: u8 = Health::Suspect as u8;
        match self.health.load(Ordering::Acquire) {
            HEALTHY => Health::Healthy,
            UNPROVEN => Health::Unproven,
            SUSPECT => Health::Suspect,
            _ => Health::Draining,
        }
    }

    pub(crate) fn label(&self) -> &'static str {
        match *self.phase.borrow() {
            Phase::Open => "healthy",
            Phase::Unproven | Phase::Suspect => "suspect",
            Phase::Draining { .. } => "draining",
            Phase::Closed(_) => "closed",
        }
    }

    /// What is known without asking the transport.
    pub(crate) fn snapshot(&self, transport: TransportKind, remote: SocketAddr) -> TunnelSnapshot {
        let place = &self.place;
        TunnelSnapshot {
            id: self.id.to_string(),
            node: place.claim.node.to_string(),
            cluster: place.claim.cluster.to_string(),
            tenant: place.claim.tenant.to_string(),
            instance: place.instance.to_string(),
            slot: place.slot,
            generation: place.generation,
            transport,
            state: self.label(),
            remote,
            rtt_ms: self.rtt().as_secs_f64() * 1e3,
            path: None,
            age_seconds: self.opened.elapsed().as_secs(),
            in_flight: self.in_flight(),
            exchanges: self.exchanges(),
            bytes_sent: 0,
            bytes_received: 0,
            services: self.services().iter().map(|service| service.name.to_string()).collect(),
            down: self.down.list().iter().map(ServiceDown::from).collect(),
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_micros.load(Ordering::Relaxed))
    }

    /// Takes one measured round trip into the estimate, an eighth of it, as TCP does. RFC 6298 section 2
    pub(crate) fn measure_rtt(&self, sample: Duration) {
        let known = self.rtt();
        self.note_rtt(if known.is_zero() { sample } else { (known * 7 + sample) / 8 });
    }

    pub(crate) fn note_rtt(&self, rtt: Duration) {
        self.rtt_micros.store(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The peer was heard then.
    pub(crate) fn note_heard(&self, at: Instant) {
        let millis = u64::try_from(at.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX);
        self.heard.store(millis, Ordering::Relaxed);
    }

    /// How long ago the peer was heard, at most: what was heard since may not be known yet. A probe finds that out.
    pub(crate) fn heard_ago(&self) -> Duration {
        self.opened.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }

    pub(crate) fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    pub(crate) fn services(&self) -> Vec<Service> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace_services(&self, services: Vec<Service>) {
        let mut exported = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        *exported = services;
        self.down.follow(&exported);
    }

    /// The services that are down.
    pub(crate) const fn down(&self) -> &DownServices {
        &self.down
    }

    pub(crate) fn replace_health(&self, health: health::Health) {
        let exported = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        self.down.replace(health.down, &exported);
    }

    /// From here on streams may be opened.
    pub(crate) fn open(&self) {
        self.welcomed.store(true, Ordering::Release);
        self.welcome_sent.notify_waiters();
    }

    /// Whether WELCOME has left: from then on streams may be opened.
    pub(crate) fn is_welcomed(&self) -> bool {
        self.welcomed.load(Ordering::Acquire)
    }

    /// Resolves when streams may be opened, or will never be. Cancel safe.
    pub(crate) async fn opened(&self) {
        let is_decided = || self.is_welcomed() || self.health() == Health::Draining;
        while !is_decided() {
            let sent = self.welcome_sent.notified();
            tokio::pin!(sent);
            // Registered before the check, so that a notification in between is not missed.
            sent.as_mut().enable();
            if !is_decided() {
                sent.await;
            }
        }
    }

    /// Waits until streams may be opened, which a tunnel that drains takes no more. Cancel safe.
    pub(crate) async fn ready_to_open(&self) -> Result<(), OpenError> {
        if !self.is_welcomed() {
            // Rare, and apart from the future of every exchange.
            Box::pin(self.opened()).await;
        }
        // The registry lets go of a draining tunnel, but a pick may have come before that. spec: CT-21
        match self.health() {
            Health::Draining => Err(OpenError::NotSent(TunnelLost(self.why_it_ends()))),
            _ => Ok(()),
        }
    }

    /// What is said to whoever would open a stream on a tunnel that takes no more of them.
    #[cold]
    fn why_it_ends(&self) -> String {
        match &*self.phase.borrow() {
            Phase::Closed(reason) => format!("it is closed: {}", reason.text),
            _ => "it drains".into(),
        }
    }

    /// Waits for a stream on a tunnel that has no room now. An initiator raises its limit with the load, so whoever comes in
    /// a crowd waits as long as others of it get their streams. `None`: there is no room, nor will there be.
    ///
    /// Cancel safety: that of `opening`.
    pub(crate) async fn wait_for_room<F: Future>(&self, opening: F) -> Option<F::Output> {
        let (mut opening, began) = (pin!(opening), Instant::now());
        while self.in_flight() <= self.most_streams() && began.elapsed() < MOST_ROOM_WAIT {
            let before = self.streams.load(Ordering::Relaxed);
            if let Ok(opened) = timeout(ROOM_WAIT + self.rtt() * 4, opening.as_mut()).await {
                return Some(opened);
            }
            if self.streams.load(Ordering::Relaxed) == before {
                break;
            }
        }
        None
    }

    /// Whether this tunnel has a stream for an exchange that is counted as under way, where it may have so many at once.
    pub(crate) fn has_stream(&self, most: usize) -> bool {
        self.in_flight().saturating_sub(self.without_stream.load(Ordering::Acquire)) as usize <= most
    }

    /// Waits until there is a stream for the exchange of the caller; `most` says how many there may be by now.
    ///
    /// Cancel safe.
    pub(crate) async fn stream(&self, most: impl Fn() -> usize) {
        let mut place = WithoutStream::new(self);
        while !place.leave(most()) {
            // Also when the other end allows more of them, which nobody tells.
            let _ = timeout(ROOM_LOOK, self.room.notified()).await;
        }
    }

    /// A stream was opened.
    pub(crate) fn note_stream(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the peer may take streams of this type, as far as it has not said otherwise. spec: ST-3
    pub(crate) fn check_takes(&self, stream_type: StreamType) -> Result<(), OpenError> {
        match self.refused_types.load(Ordering::Relaxed) & (1 << stream_type as u8) {
            0 => Ok(()),
            _ => Err(OpenError::Unsupported(stream_type)),
        }
    }

    /// The peer does not know streams of this type, and will not be asked again.
    pub(crate) fn note_refused_type(&self, stream_type: StreamType) -> OpenError {
        self.refused_types.fetch_or(1 << stream_type as u8, Ordering::Relaxed);
        OpenError::Unsupported(stream_type)
    }

    /// Counts an exchange until the returned guard drops.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        // Counted before the look at the flag, as `used_beyond` raises the flag before it looks at the count.
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        if self.awaits_use.load(Ordering::SeqCst) && self.awaits_use.swap(false, Ordering::SeqCst) {
            self.use_begun.notify_one();
        }
        InFlight(Arc::clone(self))
    }

    /// A place for one more flow until the guard drops, unless there are as many as there may be. spec: ST-71
    pub(crate) fn begin_flow(self: &Arc<Self>) -> Option<FlowCount> {
        let most = u32::try_from(DEFAULT_FLOWS).unwrap_or(u32::MAX);
        let add = |flows| (flows < most).then_some(flows + 1);
        let counted = self.flows.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        counted.is_ok().then(|| FlowCount(Arc::clone(self)))
    }

    /// It is a connection between siblings: it leads to many nodes, and carries more than a tunnel. Before anything goes through it.
    /// spec: FL-53
    pub(crate) fn leads_to_many(&self) {
        self.leads_to_many.store(true, Ordering::Relaxed);
        self.asking.takes_more(SIBLING_FACTOR);
    }

    /// How many streams there may be at once.
    fn most_streams(&self) -> u32 {
        if self.leads_to_many.load(Ordering::Relaxed) { SIBLING_STREAMS } else { MAX_STREAMS }
    }

    /// How many flows there may be at once, where a table of them counts. spec: ST-71, FL-53
    pub(crate) fn most_flows(&self) -> usize {
        if self.leads_to_many.load(Ordering::Relaxed) { SIBLING_FLOWS as usize } else { DEFAULT_FLOWS }
    }

    /// Bounds its flows from here on; the first call decides.
    pub(crate) fn share(&self, shares: Arc<Shares>) {
        let _ = self.shares.set(shares);
    }

    /// A flow of its tenant and node, where these may have one more; of one that goes on through a sibling these are for that to
    /// count, and what counts here is the way there. spec: FL-53
    pub(crate) fn begin_shared_flow(&self, via: Option<&Via>) -> Result<Option<Stake>, OpenError> {
        let Some(shares) = self.shares.get() else { return Ok(None) };
        if let Some(via) = via {
            return Ok(Some(Stake::of_tenant(shares.way(via.sibling(), via.to()), What::Flow)?));
        }
        let claim = &self.place.claim;
        let mut stake = Stake::of_tenant(shares.tenant(&claim.tenant), What::Flow)?;
        stake.go_to(shares.node(claim))?;
        Ok(Some(stake))
    }

    /// Whether the next exchange wakes the driver.
    #[cfg(test)]
    pub(crate) fn awaits_use(&self) -> bool {
        self.awaits_use.load(Ordering::SeqCst)
    }

    /// Resolves when more than this many exchanges have begun; for one caller, the driver. Cancel safe.
    pub(crate) async fn used_beyond(&self, exchanges: u64) {
        loop {
            self.awaits_use.store(true, Ordering::SeqCst);
            if self.exchanges.load(Ordering::SeqCst) != exchanges {
                self.awaits_use.store(false, Ordering::SeqCst);
                return;
            }
            self.use_begun.notified().await;
        }
    }

    /// Counts one of the exchanges that are under way as one of which nobody can be told, until the guard drops.
    pub(crate) fn begin_untold(self: &Arc<Self>) -> Untold {
        self.untold.fetch_add(1, Ordering::AcqRel);
        Untold(Arc::clone(self))
    }

    /// Whether none but such exchanges are under way.
    pub(crate) fn has_only_untold(&self) -> bool {
        self.in_flight() <= self.untold.load(Ordering::Acquire)
    }

    /// Resolves when no exchange is under way. Cancel safe.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            // Registered before the check, so that a guard dropped in between is not missed.
            notified.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl From<&Down> for ServiceDown {
    fn from(down: &Down) -> Self {
        Self { service: down.service.to_string(), cause: down.cause.label() }
    }
}

/// What a phase means for new requests.
const fn health(phase: &Phase) -> Health {
    match phase {
        Phase::Open => Health::Healthy,
        Phase::Unproven => Health::Unproven,
        Phase::Suspect => Health::Suspect,
        Phase::Draining { .. } | Phase::Closed(_) => Health::Draining,
    }
}

/// An exchange under way that has no end of its own, and nobody who could be told to end it.
#[derive(Debug)]
pub(crate) struct Untold(Arc<TunnelState>);

impl Drop for Untold {
    fn drop(&mut self) {
        self.0.untold.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One flow that is open; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct FlowCount(Arc<TunnelState>);

impl Drop for FlowCount {
    fn drop(&mut self) {
        self.0.flows.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An exchange that has no stream yet.
struct WithoutStream<'a> {
    state: &'a TunnelState,
    waits: bool,
}

impl<'a> WithoutStream<'a> {
    fn new(state: &'a TunnelState) -> Self {
        state.without_stream.fetch_add(1, Ordering::AcqRel);
        Self { state, waits: true }
    }

    /// Takes a stream, if fewer than `most` are taken.
    fn leave(&mut self, most: usize) -> bool {
        let take = |without: u32| {
            let others = self.state.in_flight().saturating_sub(without) as usize;
            (others < most).then(|| without.saturating_sub(1))
        };
        let taken = self.state.without_stream.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        self.waits = taken.is_err();
        !self.waits
    }
}

impl Drop for WithoutStream<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.state.without_stream.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// One exchange under way; dropping it says that it is over.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<TunnelState>);

impl InFlight {
    /// The tunnel, for somebody who outlives the exchange.
    pub(super) fn shared(&self) -> Arc<TunnelState> {
        Arc::clone(&self.0)
    }

    /// The tunnel that it is under way on.
    pub(crate) fn tunnel(&self) -> &TunnelState {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
        if self.0.without_stream.load(Ordering::Acquire) > 0 {
            self.0.room.notify_one();
        }
    }
}

/// An exchange of which nothing has arrived whole, or a raw stream that waits for its target.
#[derive(Debug)]
pub(super) struct Beginning<'a> {
    tunnel: &'a TunnelState,
    asked: Asked,
}

impl<'a> Beginning<'a> {
    pub(super) fn new(tunnel: &'a TunnelState) -> Self {
        Self { tunnel, asked: Asked::default() }
    }

    /// Counts so many bytes of it in all; `false`: it has to be refused. spec: SE-15
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        self.tunnel.asking.hold_head(&mut self.asked, bytes)
    }
}

impl Beginning<'_> {
    /// Resolves when a target may be asked. spec: SE-16
    pub(super) async fn turn(&mut self) {
        if !self.tunnel.asking.try_ask(&mut self.asked) {
            self.tunnel.asking.turn().await;
            Asking::begin(&mut self.asked);
        }
    }

    /// The peer has an answer.
    pub(super) fn taken(&mut self) {
        self.tunnel.asking.taken(&mut self.asked);
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.tunnel.asking.leave(&mut self.asked);
    }
}

/// An exchange under way at an initiator, and what it holds there.
#[derive(Debug)]
pub(crate) struct Arriving {
    in_flight: InFlight,
    asked: Asked,
}

impl Arriving {
    pub(super) fn new(in_flight: InFlight) -> Self {
        Self { in_flight, asked: Asked::default() }
    }

    /// The tunnel, for somebody who outlives the exchange.
    pub(super) fn shared(&self) -> Arc<TunnelState> {
        self.in_flight.shared()
    }

    /// The tunnel that it arrived through.
    pub(crate) fn tunnel(&self) -> &TunnelState {
        self.in_flight.tunnel()
    }

    /// Counts so many bytes of its head in all; `false`: it has to be refused. spec: SE-15
    pub(super) fn hold_head(&mut self, bytes: usize) -> bool {
        self.in_flight.0.asking.hold_head(&mut self.asked, bytes)
    }

    /// Begins to ask a target. `Some`: it has to wait for its turn. spec: SE-16
    pub(super) fn ask(&mut self) -> Option<Turn> {
        if self.in_flight.0.asking.try_ask(&mut self.asked) {
            return None;
        }
        let tunnel = self.shared();
        // Rare, and apart from the future of every exchange.
        Some(Box::new(Box::pin(async move { tunnel.asking.turn().await })))
    }

    /// Its turn has come.
    pub(super) const fn begin(&mut self) {
        Asking::begin(&mut self.asked);
    }

    /// There is an answer, or none will be: the head is not needed any more.
    pub(super) fn drop_head(&mut self) {
        self.in_flight.0.asking.drop_head(&mut self.asked);
    }

    /// The first piece of the answer is there.
    pub(super) fn given(&mut self) {
        self.in_flight.0.asking.given(&mut self.asked);
    }

    /// One piece is asked for while the first waits to be taken.
    pub(super) const fn asked_for_one_more(&mut self, is_so: bool) {
        self.asked.is_one_more = is_so;
    }

    /// Another piece is asked for: whether that says that the first, which waited, was taken.
    pub(super) fn is_asked_again(&mut self) -> bool {
        Asking::is_given(&self.asked) && !std::mem::take(&mut self.asked.is_one_more)
    }

    /// The peer has taken it, or an answer without any.
    pub(super) fn taken(&mut self) {
        self.in_flight.0.asking.taken(&mut self.asked);
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.in_flight.0.asking.leave(&mut self.asked);
    }
}

/// The wait of an exchange that has to ask later.
#[allow(clippy::type_complexity, reason = "one word in the future of every exchange instead of two")]
pub(super) type Turn = Box<Pin<Box<dyn Future<Output = ()> + Send>>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Claim, ClusterId, InstanceId, NodeId, TenantId};

    fn state() -> Arc<TunnelState> {
        let claim = Claim {
            tenant: TenantId::default(),
            cluster: ClusterId::new("c").unwrap(),
            node: NodeId::new("n").unwrap(),
        };
        let place = Place { claim, instance: InstanceId([0; 16]), slot: 0, generation: 0 };
        TunnelState::new(TunnelId(1), place, TransportKind::Quic, PeerLimits::default(), Vec::new())
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_stream_waits_until_one_ends_or_the_other_end_allows_more() {
        let (state, most) = (state(), AtomicU32::new(2));
        let most = || most.load(Ordering::Relaxed) as usize;
        let (first, _second, _third) = (state.begin(), state.begin(), state.begin());
        assert!(state.has_stream(3) && !state.has_stream(2));
        assert!(timeout(ROOM_LOOK * 10, state.stream(most)).await.is_err(), "no stream");
        let waits = async { tokio::join!(state.stream(most), async { drop(first) }) };
        timeout(ROOM_LOOK / 2, waits).await.expect("woken by what has ended");
        let _fourth = state.begin();
        let waits = async { tokio::join!(state.stream(most), async { drop(_second) }) };
        timeout(ROOM_LOOK / 2, waits).await.expect("again");
        assert_eq!((state.in_flight(), state.without_stream.load(Ordering::Relaxed)), (2, 0));
    }

    #[test]
    fn what_a_drain_said_about_a_replacement_outlasts_the_tunnel() {
        let state = state();
        assert_eq!(state.reconnect_after(), None);
        state.advance(Phase::Draining { reconnect_after: Duration::from_secs(2) });
        state.advance(Phase::Closed(CloseReason { code: CloseCode::Done, text: "drained".into() }));
        assert_eq!(state.reconnect_after(), Some(Duration::from_secs(2)));
    }

    // spec: HS-38
    #[tokio::test]
    async fn whoever_waits_for_welcome_is_told_when_it_will_never_leave() {
        let state = state();
        let waiting = Arc::clone(&state);
        let waiting = tokio::spawn(async move { waiting.ready_to_open().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        state.advance(Phase::Closed(CloseReason { code: CloseCode::Idle, text: "idle".into() }));
        assert!(matches!(waiting.await.unwrap(), Err(OpenError::NotSent(_))));
    }

    #[test]
    fn health_follows_the_phase() {
        let state = state();
        assert_eq!(state.health(), Health::Healthy);
        for (phase, health) in [
            (Phase::Unproven, Health::Unproven),
            (Phase::Suspect, Health::Suspect),
            (Phase::Open, Health::Healthy),
            (Phase::Draining { reconnect_after: Duration::ZERO }, Health::Draining),
            (Phase::Open, Health::Draining),
        ] {
            state.advance(phase);
            assert_eq!(state.health(), health);
        }
    }

    #[test]
    fn one_slow_round_trip_moves_the_estimate_by_an_eighth() {
        let state = state();
        state.measure_rtt(Duration::from_millis(8));
        assert_eq!(state.rtt(), Duration::from_millis(8));
        state.measure_rtt(Duration::from_millis(80));
        assert_eq!(state.rtt(), Duration::from_millis(17));
    }
}
