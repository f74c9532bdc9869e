//! The responder role: accepts while it runs, drains when it is told to.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::lifecycle::{DrainWatch, LAST_WORDS};
use crate::protocol::code::CloseCode;
use crate::registry::LiveTunnel;
use crate::responder::admission::{Admission, reconnect_spread};
use crate::responder::admit;
use crate::responder::gone::GoneNodes;
use crate::responder::handle::Handle;
use crate::responder::listeners::{Listeners, Sockets, StartError};
use crate::responder::roster::Rosters;
use crate::responder::shared::Shared;
use crate::responder::terms::Terms;
use crate::responder::warnings::Warnings;
use crate::routing::Directory;
use crate::telemetry::{Metrics, Role};
use crate::transport::quic::Keys;
use crate::transport::{Incoming, Tunnel};

/// How long the last words of tunnels over TCP may take, and whatever else has no tunnel.
const LINGER: Duration = Duration::from_millis(250);
/// How long the last packets may take to leave.
const FAREWELL: Duration = Duration::from_millis(20);
/// For how long a responder that begins to drain leaves whoever dials without an answer. Most drains are over by then, and
/// the next process takes the dial; a refusal would send it away for longer.
const SILENCE: Duration = Duration::from_secs(1);

/// What stays as it was at the start.
#[derive(Debug)]
pub(super) struct Fixed {
    /// Reset and connection-id keys.
    pub(super) keys: Keys,
    /// For how long after the start requests wait for nodes that nobody knows.
    pub(super) grace: Duration,
}

/// The responder role: bound, and ready to run.
#[derive(Debug)]
pub struct Responder {
    shared: Arc<Shared>,
}

impl Responder {
    /// Makes a listener of each bound socket. Needs a tokio runtime.
    pub(super) fn bind(sockets: Sockets, fixed: Fixed, terms: Terms, metrics: &Metrics) -> Result<Self, StartError> {
        let directory = Arc::new(Directory::new());
        directory.begin(fixed.grace);
        directory.shares().count_with(metrics.shares());
        let shared = Shared {
            listeners: Listeners::new(sockets, fixed.keys, &terms, metrics)?,
            admission: Admission::new(directory, terms),
            rosters: Rosters::default(),
            metrics: metrics.tunnels(Role::Responder),
            gone: GoneNodes::default(),
            tasks: TaskTracker::new(),
            warnings: Warnings::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where it listens: for tunnels over QUIC, or else over TCP.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        let none = || std::io::Error::other("the responder has no socket");
        self.quic_addr().or_else(|| self.tcp_addr()).ok_or_else(none)
    }

    /// Where it listens for tunnels over QUIC, if it does.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.shared.listeners.quic_addr()
    }

    /// Where it listens for tunnels over TCP, if it does.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.shared.listeners.tcp_addr()
    }

    /// Accepts tunnels until a drain is announced; then refuses new ones, drains those there are and is done when the
    /// last is gone, at the latest when the drain expires: what is left is cut. The drain waits for it.
    ///
    /// Not cancel safe: dropping the future closes every tunnel abruptly.
    pub fn run(self, drain: DrainWatch) -> impl Future<Output = ()> + Send + 'static {
        // Taken before the future is first polled, so that a drain never overlooks a role that is about to start.
        let guard = drain.guard();
        async move {
            tokio::select! {
                () = self.accept(&drain) => {}
                never = self.shared.rosters.follow() => match never {},
            }
            self.drain(&drain).await;
            drop(guard);
        }
    }

    async fn accept(&self, drain: &DrainWatch) {
        loop {
            tokio::select! {
                () = drain.announced() => return,
                incoming = self.shared.listeners.accept() => match incoming {
                    Some(incoming) => self.admit(incoming),
                    None => return,
                }
            }
        }
    }

    fn admit(&self, incoming: Incoming) {
        self.shared.tasks.spawn(admit::admit(Arc::clone(&self.shared), incoming));
    }

    async fn drain(&self, drain: &DrainWatch) {
        let live = self.shared.admission.drain();
        let spread = reconnect_spread(live.len());
        info!(tunnels = live.len(), "draining: no new tunnels, and those that are up may finish");
        for LiveTunnel { handle: tunnel, .. } in &live {
            tunnel.drain(drain.remaining(), spread.mul_f64(rand::random()));
        }
        self.shared.tasks.close();
        let refusing = async {
            tokio::time::sleep(SILENCE).await;
            // Whoever dials a draining responder is told so, rather than left to time out.
            while let Some(incoming) = self.shared.listeners.accept().await {
                self.admit(incoming);
            }
        };
        let closed = async {
            for LiveTunnel { handle: tunnel, .. } in &live {
                tunnel.closed().await;
            }
            // What is left are last words, and handshakes of those who may never say anything.
            let _ = timeout(LINGER, self.shared.tasks.wait()).await;
        };
        tokio::select! {
            () = self.shared.tasks.wait() => {}
            () = closed => {}
            () = refusing => {}
            () = drain.expired() => self.cut().await,
        }
        if let Some(endpoint) = self.shared.listeners.endpoint() {
            endpoint.close(quinn::VarInt::from_u32(CloseCode::Done.number()), b"stopped");
            // Every tunnel has ended by itself, or has had its time: what is left is to answer late packets.
            let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        }
    }

    /// Ends what is left, and leaves it the time to say so.
    async fn cut(&self) {
        for LiveTunnel { handle: tunnel, .. } in self.shared.admission.drain() {
            tunnel.close(CloseCode::Done, "the drain deadline passed");
        }
        let _ = timeout(LAST_WORDS, self.shared.tasks.wait()).await;
    }

    /// The tunnels that it admitted, for egress listeners to send into.
    pub fn directory(&self) -> Arc<Directory<Tunnel>> {
        Arc::clone(self.shared.admission.directory())
    }

    /// The nodes that were here and are gone.
    pub fn gone(&self) -> GoneNodes {
        self.shared.gone.clone()
    }

    /// What changes it while it runs.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }
}
