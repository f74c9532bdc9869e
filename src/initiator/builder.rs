//! An initiator in a few lines, for programs that embed one.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{Claim, InstanceId, ServiceName, TunnelAddress};
use crate::initiator::health::HealthBoard;
use crate::initiator::snapshot::Fixed;
use crate::initiator::{DEFAULT_PROBE_INTERVAL, Destination, Initiator, Terms, UpdateError};
use crate::net;
use crate::protocol::handshake::{Service, ServiceKind, Token};
use crate::telemetry::Metrics;
use crate::tls::{Credentials, InitiatorTls, Trust};
use crate::transport::quic::{self, Keys, QuicSettings, dialling_socket};
use crate::transport::tcp::TcpSettings;
use crate::transport::{Accept, HttpService, Serve, TransportChoice, TunnelSettings};

/// Builds an [`Initiator`] that serves what arrives in this program: an axum router, a hyper service, or
/// [`Services`](crate::initiator::serve::Services) for targets elsewhere.
///
/// ```no_run
/// # fn f(credentials: adit::tls::Credentials, ca: adit::tls::Trust) -> Result<(), Box<dyn std::error::Error>> {
/// let address = "rc://edge-17:stores-eu:acme@cloud.example.com:7843".parse()?;
/// let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
/// let initiator = adit::initiator::Builder::new(address, ca).credentials(credentials).serve(router)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing serves yet"]
pub struct Builder {
    claim: Claim,
    destinations: Vec<Destination>,
    tls: InitiatorTls,
    token: Option<Token>,
    services: Vec<Service>,
    health: HealthBoard,
    probe_interval: Duration,
    tunnel: TunnelSettings,
    quic: QuicSettings,
    tcp: TcpSettings,
    metrics: Metrics,
}

/// Why an initiator could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The credentials, roots or pins.
    #[error(transparent)]
    Terms(#[from] UpdateError),
    /// There is no socket to dial from.
    #[error(transparent)]
    Bind(#[from] net::BindError),
    /// The endpoint could not be made.
    #[error(transparent)]
    Endpoint(#[from] quic::BindError),
}

impl Builder {
    /// Says who dials and whom, and which responders are genuine: whose chain ends at a root of `responder`, whose key
    /// it pins, or both.
    pub fn new(address: TunnelAddress, responder: Trust) -> Self {
        let destination = Destination::new(&address.responder, address.count);
        Self::to(address.claim, vec![destination], responder)
    }

    /// The same for several responders, all of which are dialled.
    pub fn to(claim: Claim, destinations: Vec<Destination>, responder: Trust) -> Self {
        Self {
            claim,
            destinations,
            tls: InitiatorTls { credentials: None, responder },
            token: None,
            services: Vec::new(),
            health: HealthBoard::default(),
            probe_interval: DEFAULT_PROBE_INTERVAL,
            tunnel: TunnelSettings::default(),
            quic: QuicSettings::default(),
            tcp: TcpSettings::default(),
            metrics: Metrics::new(),
        }
    }

    /// What proves the claim: a certificate and its key.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.tls.credentials = Some(credentials);
        self
    }

    /// What proves the claim beside the certificate, or instead.
    pub fn token(self, token: Token) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The name that the certificate of every responder must have; by default the host that is dialled.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        for destination in &mut self.destinations {
            destination.server_name = Some(name.clone());
        }
        self
    }

    /// What carries the tunnels, to Envoys too; by default the best that works. Single responders may have their own, see
    /// [`Destination::transport`].
    pub fn transport(mut self, transport: TransportChoice) -> Self {
        for destination in &mut self.destinations {
            destination.transport.clone_from(&transport);
        }
        self
    }

    /// A service that is announced to responders. Requests that name it carry the [`ServiceName`] as an extension.
    pub fn exports(mut self, name: ServiceName) -> Self {
        self.services.push(Service { name, kind: ServiceKind::Http });
        self
    }

    /// The services that are announced to responders, in place of all before.
    pub fn services(self, services: Vec<Service>) -> Self {
        Self { services, ..self }
    }

    /// Where it says which of them are down, for responders to be told; by default none ever is.
    pub fn health(self, health: HealthBoard) -> Self {
        Self { health, ..self }
    }

    /// How long a tunnel that fell back to TCP waits before QUIC is probed; by default [`DEFAULT_PROBE_INTERVAL`].
    pub fn probe_interval(self, probe_interval: Duration) -> Self {
        Self { probe_interval, ..self }
    }

    /// Settings other than the defaults that hold over every transport: times, limits, drain.
    pub fn tunnel(self, tunnel: TunnelSettings) -> Self {
        Self { tunnel, ..self }
    }

    /// What only TCP knows, other than the defaults.
    pub fn tcp(self, tcp: TcpSettings) -> Self {
        Self { tcp, ..self }
    }

    /// What only QUIC knows, other than the defaults.
    pub fn quic(self, quic: QuicSettings) -> Self {
        Self { quic, ..self }
    }

    /// Counts into these metrics; by default into some that nobody reads.
    pub fn metrics(self, metrics: &Metrics) -> Self {
        Self { metrics: metrics.clone(), ..self }
    }

    /// As [`Self::accept`], for any service that answers requests; raw streams and flows are refused.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub fn serve<S: Serve + Sync>(self, service: S) -> Result<Initiator<HttpService<S>>, BuildError> {
        self.accept(HttpService(service))
    }

    /// Opens the socket to dial from; nothing is dialled before [`Initiator::run`]. What arrives goes to `accept`. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] says which setting or credential is at fault.
    pub fn accept<A: Accept>(self, accept: A) -> Result<Initiator<A>, BuildError> {
        let Self { claim, token, tls, services, health, destinations, probe_interval, tunnel, quic, tcp, metrics } =
            self;
        let endpoint = quic::bind(dialling_socket(&metrics)?, &Keys::ephemeral(), None)?;
        let tls = Arc::new(tls);
        let terms = Terms { tls, token, destinations, services, health, accept, probe_interval, tunnel, quic, tcp };
        let fixed = Fixed { claim, instance: InstanceId(rand::random()), endpoint };
        Ok(Initiator::new(terms, fixed, &metrics)?)
    }
}
