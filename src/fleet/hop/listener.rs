//! Where siblings come in: who greets is served if its certificate proves who it is. spec: FL-31 to FL-39

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::fleet::Siblings;
use crate::fleet::hop::askers::{Askers, Entered, MAX_CONNECTIONS};
use crate::fleet::hop::dial::Dialling;
use crate::fleet::hop::find::LocalTunnels;
use crate::fleet::hop::relay::Relayed;
use crate::fleet::hop::served::Served;
use crate::fleet::hop::settings::{HopError, HopSettings};
use crate::fleet::hop::terms::{Standing, Terms};
use crate::fleet::hop::ways::Ways;
use crate::lifecycle::DrainWatch;
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::handshake::Refusal;
use crate::proxy::{AccessLog, Recorder};
use crate::telemetry::{HopMetrics, Limiter, Metrics, Role, Side};
use crate::tls::{SiblingTls, peer_identity};
use crate::transport::quic::{self, Keys, Listener, bind, dialling_socket, listening_socket};
use crate::transport::{Claiming, Tunnel};

/// Lines a minute about those who are not served, for one reason.
const MAX_LINES: u32 = 10;
/// How long the last packets may take to leave.
const FAREWELL: Duration = Duration::from_millis(20);

/// This responder among its siblings: bound, and ready to run.
#[derive(Debug)]
pub struct Hop {
    shared: Arc<Shared>,
    ways: Ways,
    endpoints: [quinn::Endpoint; 2],
}

/// Changes what a [`Hop`] goes by. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HopHandle(Arc<Shared>);

/// Other credentials and roots between siblings, ready to be put in force.
#[derive(Debug)]
pub struct Renewal(Terms);

impl HopHandle {
    /// Makes everything that other credentials, roots and revocation lists need, without a change to what runs. `None`: they
    /// are those that hold.
    ///
    /// # Errors
    /// [`HopError`]: they cannot be used.
    pub fn prepare(&self, tls: SiblingTls) -> Result<Option<Renewal>, HopError> {
        if self.0.terms.borrow().tls == tls {
            return Ok(None);
        }
        Terms::new(tls, &self.0.settings, &self.0.dialling).map(|terms| Some(Renewal(terms)))
    }

    /// Puts them in force for both ends: whoever is dialled or dials from now on is judged by them and shown them, and every
    /// connection that lives is judged again; those that they do not admit are drained. Returns at once. spec: FL-48
    pub fn renew(&self, Renewal(terms): Renewal) {
        let HopSettings { tunnel, quic, .. } = &self.0.settings;
        // Handshakes that are under way are judged when they are done: whoever waits for one has seen the former terms.
        self.0.listener.reconfigure(terms.server.clone(), (*tunnel, quic.clone()), 0);
        self.0.terms.send_replace(Arc::new(terms));
    }
}

#[derive(Debug)]
struct Shared {
    listener: Listener,
    settings: HopSettings,
    terms: watch::Sender<Arc<Terms>>,
    dialling: quinn::Endpoint,
    relayed: Relayed,
    served: Mutex<Askers<Tunnel>>,
    /// It takes nobody any more, and drains those it has.
    draining: OnceLock<DrainWatch>,
    metrics: HopMetrics,
    tasks: TaskTracker,
    /// How often is said that somebody did not greet, and was refused.
    strangers: Limiter,
    refused: Limiter,
}

/// A place among those who ask, which is free again when this is dropped.
struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.served().leave(self.number);
    }
}

impl Hop {
    /// Binds a UDP address for siblings; port 0 takes a free one. `siblings` says where others are and what they have,
    /// `tunnels` what ends here. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`HopError`] says which setting, credential or address is at fault.
    pub fn bind(
        address: SocketAddr,
        settings: HopSettings,
        (siblings, tunnels): (Arc<dyn Siblings>, Arc<dyn LocalTunnels>),
        metrics: &Metrics,
    ) -> Result<Self, HopError> {
        let (tunnel, quic) = (settings.tunnel, settings.quic.clone());
        let dialling = bind(dialling_socket(metrics)?, &Keys::ephemeral(), None)?;
        let terms = Terms::new(settings.tls.clone(), &settings, &dialling)?;
        let (socket, server) = (listening_socket(address, Role::Responder, metrics)?, terms.server.clone());
        let listening = bind(socket, &Keys::ephemeral(), Some(server.endpoint()))?;
        let terms = watch::Sender::new(Arc::new(terms));
        let (own, identity) = (settings.greeting(), settings.identity.clone());
        let dials = Dialling { terms: terms.subscribe(), own, identity };
        let shares = Arc::clone(tunnels.shares());
        let ways = Ways::new((siblings, shares), (dials, settings.idle, tunnel.drain_timeout), metrics.hops());
        let recorder = Recorder::new(metrics, Side::Relay, None, AccessLog::Off);
        let shared = Shared {
            listener: Listener::new(listening.clone(), server, tunnel, quic),
            settings,
            terms,
            dialling: dialling.clone(),
            relayed: Relayed(Arc::new(Served { tunnels, recorder })),
            served: Mutex::default(),
            draining: OnceLock::new(),
            metrics: metrics.hops(),
            tasks: TaskTracker::new(),
            strangers: Limiter::new(MAX_LINES, Duration::from_secs(60)),
            refused: Limiter::new(MAX_LINES, Duration::from_secs(60)),
        };
        Ok(Self { shared: Arc::new(shared), ways, endpoints: [listening, dialling] })
    }

    /// Where it listens, with the real port.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoints[0].local_addr()
    }

    /// The ways through siblings, for whoever looks for what has no tunnel here.
    pub fn ways(&self) -> Ways {
        self.ways.clone()
    }

    /// Changes what it goes by, also while it runs.
    pub fn handle(&self) -> HopHandle {
        HopHandle(Arc::clone(&self.shared))
    }

    /// Serves siblings until a drain is announced; then refuses whoever comes, and is done when what they have asked for and
    /// what was asked of them has ended, at the latest when the drain expires. The drain waits for it. spec: FL-38, FL-39
    ///
    /// # Cancel safety
    /// Dropping the future ends every connection abruptly.
    pub fn run(self, drain: DrainWatch) -> impl Future<Output = ()> + Send + 'static {
        // Taken before the future is first polled, so that a drain never overlooks a role that is about to start.
        let guard = drain.guard();
        async move {
            let accepting = self.accept();
            tokio::pin!(accepting);
            tokio::select! {
                () = drain.announced() => {}
                never = &mut accepting => match never {},
            }
            // Whoever is served from here on notices by itself.
            let _ = self.shared.draining.set(drain.clone());
            for tunnel in self.shared.served().tunnels() {
                tunnel.drain(drain.remaining(), Duration::ZERO);
            }
            self.shared.tasks.close();
            let ended = async {
                self.shared.tasks.wait().await;
                self.ways.at_rest().await;
            };
            tokio::select! {
                () = ended => {}
                () = drain.expired() => {}
                never = &mut accepting => match never {},
            }
            self.stop().await;
            drop(guard);
        }
    }

    /// Takes whoever comes, or says why not. A connection that is not served yet is nothing to wait for.
    async fn accept(&self) -> Infallible {
        loop {
            // Before it is decided by which terms it is let in: what comes later is told.
            let mut terms = self.shared.terms.subscribe();
            terms.mark_unchanged();
            let Some(incoming) = self.shared.listener.accept().await else { break };
            tokio::spawn(admit(Arc::clone(&self.shared), incoming, terms));
        }
        std::future::pending().await
    }

    async fn stop(&self) {
        self.ways.close();
        for endpoint in &self.endpoints {
            endpoint.close(quinn::VarInt::from_u32(CloseCode::Done.number()), b"stopped");
            let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        }
    }
}

impl Shared {
    /// Plain values: nothing that a panic elsewhere could leave half-changed.
    fn served(&self) -> MutexGuard<'_, Askers<Tunnel>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether who greets so may ask; it has its place among the others from then on. spec: FL-32, FL-38
    fn judge(self: &Arc<Self>, claiming: &Claiming) -> Result<Place, Refusal> {
        let refuse = |code, reason: String| Err(Refusal { code, reason, retry_after: None });
        let id = &claiming.greeting.responder;
        let shown = peer_identity(&claiming.certificates).unwrap_or_default();
        if !self.settings.identity.proves(&shown, id) {
            let name = self.settings.identity.name(id).unwrap_or_default();
            return refuse(RefusalCode::Forbidden, format!("the certificate does not have the name {name:?}"));
        }
        if *id == self.settings.id {
            return refuse(RefusalCode::Conflict, format!("{id} is the name of this responder"));
        }
        if self.draining.get().is_some() {
            return refuse(RefusalCode::Unavailable, "the responder stops".to_owned());
        }
        let entered = self.served().enter(id, Instant::now());
        let Some(Entered { number, former }) = entered else {
            return refuse(RefusalCode::Quota, format!("{id} asks on {MAX_CONNECTIONS} connections here"));
        };
        if let Some(former) = former {
            former.close(CloseCode::Superseded, "the same sibling has a newer connection");
        }
        Ok(Place { shared: Arc::clone(self), number })
    }
}

/// `terms` are those of before it came: the handshake may end after others have come.
async fn admit(shared: Arc<Shared>, incoming: quic::Incoming, terms: watch::Receiver<Arc<Terms>>) {
    let remote = incoming.remote();
    let claiming = match incoming.greeting().await {
        Ok(claiming) => claiming,
        Err(error) => {
            if let Some(left_out) = shared.strangers.pass(Instant::now()) {
                warn!(%remote, %error, left_out, "somebody who should be a sibling does not greet");
            }
            return;
        }
    };
    let id = claiming.greeting.responder.clone();
    // Before it is judged: a drain that it does not know of waits for it.
    let waited_for = shared.tasks.token();
    let place = match shared.judge(&claiming) {
        Ok(place) => place,
        Err(refusal) => {
            drop(waited_for);
            if let Some(left_out) = shared.refused.pass(Instant::now()) {
                warn!(%remote, sibling = %id, reason = refusal.reason, left_out, "a sibling was refused");
            }
            return claiming.refuse(&refusal).await;
        }
    };
    let _open = shared.metrics.serves();
    let mut standing = Standing::new(claiming.certificates.clone(), true, terms);
    let (tunnel, serving) = claiming.serve(shared.settings.greeting(), shared.relayed.clone());
    {
        let mut served = shared.served();
        if let Some(drain) = shared.draining.get() {
            tunnel.drain(drain.remaining(), Duration::ZERO);
        }
        served.greeted(place.number, tunnel.clone());
    }
    info!(%remote, sibling = %id, "a sibling may ask here");
    let mut serving = pin!(serving);
    let reason = loop {
        tokio::select! {
            reason = &mut serving => break reason,
            fall = standing.fallen() => {
                warn!(%remote, sibling = %id, reason = %fall, "a sibling has to dial again: draining its connection");
                tunnel.retire(shared.settings.tunnel.drain_timeout);
            }
        }
    };
    drop(place);
    drop(waited_for);
    debug!(sibling = %id, code = %reason.code, reason = reason.text, "a sibling has gone");
}
