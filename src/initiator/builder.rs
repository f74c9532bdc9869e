//! An initiator in a few lines, for programs that embed one.

use std::time::Duration;

use crate::id::{HostPort, ServiceName, TunnelAddress};
use crate::initiator::{DEFAULT_PROBE_INTERVAL, Destination, Initiator, InitiatorSettings};
use crate::net;
use crate::protocol::ALPN;
use crate::protocol::handshake::{Service, ServiceKind, Token};
use crate::telemetry::Metrics;
use crate::tls::{self, Credentials, InitiatorTls, TlsError, Trust};
use crate::transport::quic::{self, Keys, QuicSettings, dialling_socket};
use crate::transport::tcp::{self, TcpSettings};
use crate::transport::{DialError, Dialer, HttpService, Serve, TransportChoice, TunnelSettings};

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
    address: TunnelAddress,
    more: Vec<Destination>,
    server_name: Option<String>,
    transport: TransportChoice,
    tls: InitiatorTls,
    token: Option<Token>,
    services: Vec<Service>,
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
    Tls(#[from] TlsError),
    /// There is no socket to dial from.
    #[error(transparent)]
    Bind(#[from] net::BindError),
    /// The endpoint could not be made.
    #[error(transparent)]
    Endpoint(#[from] quic::BindError),
    /// The TLS settings cannot be used for QUIC.
    #[error(transparent)]
    Dialer(#[from] DialError),
}

impl Builder {
    /// Says who dials and whom, and which responders are genuine: whose chain ends at a root of `responder`, whose key
    /// it pins, or both.
    pub fn new(address: TunnelAddress, responder: Trust) -> Self {
        Self {
            address,
            more: Vec::new(),
            server_name: None,
            transport: TransportChoice::default(),
            tls: InitiatorTls { credentials: None, responder },
            token: None,
            services: Vec::new(),
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

    /// Another responder, and how many tunnels are kept to each address that its name resolves to.
    pub fn also_to(mut self, responder: &HostPort, count: u32) -> Self {
        self.more.push(destination(responder, count));
        self
    }

    /// The name that the certificates of responders must have; by default the host that is dialled.
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }

    /// What carries the tunnels; by default the best that works.
    pub fn transport(self, transport: TransportChoice) -> Self {
        Self { transport, ..self }
    }

    /// A service that is announced to responders. Requests that name it carry the [`ServiceName`] as an extension.
    pub fn exports(mut self, name: ServiceName) -> Self {
        self.services.push(Service { name, kind: ServiceKind::Http });
        self
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

    /// Opens the socket to dial from; nothing is dialled before [`Initiator::run`]. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] says which setting or credential is at fault.
    pub fn serve<S: Serve + Sync>(self, service: S) -> Result<Initiator<HttpService<S>>, BuildError> {
        let Self { address, more, server_name, transport, tls, token, services, .. } = self;
        let (probe_interval, tunnel, metrics) = (self.probe_interval, self.tunnel, self.metrics);
        let config = tls::initiator_config(&tls, &[ALPN])?;
        let endpoint = quic::bind(dialling_socket(&metrics)?, &Keys::ephemeral(), None)?;
        let first = destination(&address.responder, address.count);
        let mut destinations: Vec<_> = std::iter::once(first).chain(more).collect();
        for destination in &mut destinations {
            destination.server_name.clone_from(&server_name);
            destination.transport.clone_from(&transport);
        }
        let claim = address.claim;
        let settings = InitiatorSettings {
            claim,
            token,
            tls,
            services,
            destinations,
            probe_interval,
            tunnel,
            tcp: self.tcp.clone(),
        };
        let tcp = tcp::Dialer::new(config.clone(), tunnel, self.tcp);
        let dialer = Dialer::new(Some(quic::Dialer::new(endpoint, config, tunnel, self.quic)?), Some(tcp));
        Ok(Initiator::new(settings, dialer, HttpService(service), &metrics)?)
    }
}

fn destination(responder: &HostPort, count: u32) -> Destination {
    Destination { target: responder.to_string(), count, server_name: None, transport: TransportChoice::default() }
}
