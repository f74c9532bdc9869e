//! An egress listener in a few lines, for programs that embed a responder.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::egress::Settings;
use crate::egress::entrances::Entrances;
use crate::egress::handle::{BuildError, Handle, Shared};
use crate::egress::http3::Http3Socket;
use crate::egress::terms::{Current, Terms};
use crate::lifecycle::DrainWatch;
use crate::message::forward::Forms;
use crate::message::rewrite::Step;
use crate::message::trust::Trust;
use crate::proxy::AccessLog;
use crate::routing::{Directory, RouterSettings};
use crate::telemetry::{Metrics, Side};
use crate::tls::EgressTls;
use crate::transport::Tunnel;

/// Builds an [`Egress`] in front of the tunnels of a responder.
///
/// ```no_run
/// # fn f(responder: adit::responder::Responder) -> Result<(), Box<dyn std::error::Error>> {
/// let router = adit::routing::RouterSettings::new("%REQ(x-node-id)%".parse()?);
/// let egress = adit::egress::Builder::new(responder.directory(), router).bind(([127, 0, 0, 1], 8085).into())?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is bound yet"]
pub struct Builder {
    directory: Arc<Directory<Tunnel>>,
    terms: Terms,
    name: Option<String>,
    metrics: Metrics,
    left: Vec<Http3Socket>,
}

/// An egress: bound listeners for application traffic, and who answers there.
pub struct Egress {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Builder {
    /// Sends requests into these tunnels, as `router` says: see
    /// [`Responder::directory`](../responder/struct.Responder.html#method.directory).
    pub fn new(directory: Arc<Directory<Tunnel>>, router: RouterSettings) -> Self {
        Self { directory, terms: Terms::new(router), name: None, metrics: Metrics::new(), left: Vec::new() }
    }

    /// All terms at once, in place of those before.
    pub fn terms(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }

    /// TLS with ALPN; by default the listener speaks HTTP/1.1 and HTTP/2 in clear text.
    pub fn tls(mut self, tls: EgressTls) -> Self {
        self.terms.tls = Some(Arc::new(tls));
        self
    }

    /// Limits and timeouts other than the defaults.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.terms.settings = settings;
        self
    }

    /// The listener's name in the access log; by default its address.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Whether each exchange is logged, at level info; default no.
    pub fn access_log(mut self, access_log: impl Into<AccessLog>) -> Self {
        self.terms.access_log = access_log.into();
        self
    }

    /// Who may say on whose behalf a request comes; by default nobody.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.terms.trust = trust;
        self
    }

    /// In which forms a target is told on whose behalf a request comes; by default in both.
    pub fn forwarded(mut self, forwarded: Forms) -> Self {
        self.terms.forwarded = forwarded;
        self
    }

    /// What is done to each request before it enters a tunnel, in this order; by default nothing.
    pub fn rewrite(mut self, rewrite: Vec<Step>) -> Self {
        self.terms.rewrite = rewrite;
        self
    }

    /// Counts into these metrics; by default into some that nobody reads.
    pub fn metrics(self, metrics: &Metrics) -> Self {
        Self { metrics: metrics.clone(), ..self }
    }

    /// UDP sockets of listeners that leave, and whose connections over HTTP/3 need them still: one at an address that this
    /// egress binds is taken back, which could not be bound.
    pub fn take_back(self, left: Vec<Http3Socket>) -> Self {
        Self { left, ..self }
    }

    /// Binds a TCP address; port 0 takes a free one. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] says which credential or address is at fault.
    pub fn bind(self, address: SocketAddr) -> Result<Egress, BuildError> {
        let Self { directory, terms, name, metrics, left } = self;
        let current = Current::new(terms, metrics.targets(Side::Egress))?;
        let entrances = Entrances::new();
        let shared = Arc::new(Shared {
            directory,
            current: Arc::new(current),
            name,
            metrics,
            entrances,
            left: Mutex::new(left),
        });
        let address = Handle(Arc::clone(&shared)).add(address)?;
        Ok(Egress { shared, address })
    }
}

impl Egress {
    /// Where it listens from the start, with the real port; [`Handle::addresses`] are all.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What changes it while it runs.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Takes requests until a drain is announced, then is done when the last connection is, at the latest when the drain
    /// expires: what is left is cut. The drain waits for it.
    ///
    /// # Cancel safety
    /// Dropping the future drops every listening socket and connection.
    pub fn run(self, drain: DrainWatch) -> impl Future<Output = ()> + Send + 'static {
        // Taken before the future is first polled, so that a drain never overlooks a role that is about to start.
        let guard = drain.guard();
        async move {
            tokio::select! {
                () = self.shared.entrances.run(&drain) => {}
                () = drain.expired() => {}
            }
            drop(guard);
        }
    }
}

impl Drop for Egress {
    /// Handles may be left; what they would add, nobody would run.
    fn drop(&mut self) {
        self.shared.entrances.end(Duration::ZERO);
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("address", &self.address).finish_non_exhaustive()
    }
}
