//! A responder in a few lines, for programs that embed one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::net;
use crate::policy::{RuleError, RuleSettings, Rules};
use crate::responder::listener::{Fixed, Responder};
use crate::responder::listeners::{Sockets, StartError};
use crate::responder::terms::{Terms, UpdateError};
use crate::shares::ShareSettings;
use crate::telemetry::Metrics;
use crate::tls::{ClientCertificates, Credentials, InitiatorJudge, ResponderTls, Trust};
use crate::transport::TunnelSettings;
use crate::transport::quic::{Keys, QuicSettings};
use crate::transport::tcp::TcpSettings;
use crate::transport::tcp::envoy::AcceptSettings;

/// What a responder without a name calls itself.
pub const DEFAULT_NAME: &str = "adit";
/// For how long after its start a responder takes a node that it does not know for one that has not come back yet: 10 s,
/// in which an initiator notices the restart and dials again, over either transport.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Builds a [`Responder`]. There is no `bind` before somebody decided who may open a tunnel:
///
/// ```compile_fail
/// # fn f(credentials: adit::tls::Credentials) {
/// adit::responder::Builder::new(credentials).bind("127.0.0.1:0".parse().unwrap());
/// # }
/// ```
///
/// Usually that is [`Builder::admit_certificates`]; [`Builder::admit`] takes all rules there are.
///
/// ```no_run
/// # fn f(credentials: adit::tls::Credentials, ca: adit::tls::Trust) -> Result<(), adit::responder::BuildError> {
/// let responder = adit::responder::Builder::new(credentials)
///     .admit_certificates(ca.roots, "spiffe://example.org/{tenant}/{cluster}/{node}")?
///     .bind(([0, 0, 0, 0], 7843).into())?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is bound yet"]
pub struct Builder<Peers = Undecided> {
    credentials: Credentials,
    name: String,
    keys: Keys,
    tunnel: TunnelSettings,
    quic: QuicSettings,
    tcp_settings: TcpSettings,
    tcp: Option<SocketAddr>,
    envoy: Option<AcceptSettings>,
    grace: Duration,
    shares: ShareSettings,
    metrics: Metrics,
    peers: Peers,
}

/// Nobody said yet who may open a tunnel.
#[derive(Debug)]
pub struct Undecided(());

/// Who may open a tunnel, and what TLS asks of them for it.
#[derive(Debug)]
pub struct Decided {
    rules: Rules,
    initiators: ClientCertificates,
}

/// Choices that give security away. Each says what it costs.
#[derive(Debug)]
#[must_use = "nothing is decided yet"]
pub struct Dangerous(Builder<Undecided>);

/// Why a responder could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The rules admit nobody, or without proof.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rules(Vec<RuleError>),
    /// Anybody could sign a certificate with any name in it.
    #[error("an identity template without roots proves nothing; expected the roots that sign such names")]
    IdentityWithoutRoots,
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] net::BindError),
    /// The sockets are bound, and still it cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Builder<Undecided> {
    /// Shows these credentials to initiators; they dial a name that is in the certificate.
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            name: DEFAULT_NAME.to_owned(),
            keys: Keys::ephemeral(),
            tunnel: TunnelSettings::default(),
            quic: QuicSettings::default(),
            tcp_settings: TcpSettings::default(),
            tcp: None,
            envoy: None,
            grace: DEFAULT_GRACE,
            shares: ShareSettings::default(),
            metrics: Metrics::new(),
            peers: Undecided(()),
        }
    }

    /// Admits whoever shows a certificate that these roots signed and that carries the name which `identity`, an
    /// [`IdentityTemplate`](crate::policy::IdentityTemplate), makes of the claim.
    ///
    /// # Errors
    /// [`BuildError::Rules`] if the template would not prove node, cluster and tenant,
    /// [`BuildError::IdentityWithoutRoots`] without roots.
    pub fn admit_certificates(
        self,
        roots: Vec<CertificateDer<'static>>,
        identity: &str,
    ) -> Result<Builder<Decided>, BuildError> {
        let rules = RuleSettings { identity: Some(identity.to_owned()), ..RuleSettings::default() };
        self.admit(rules, Trust::roots(roots))
    }

    /// Admits whom the rules admit: pins, tokens, single nodes, quotas. `trust` says which certificates are genuine; with
    /// no roots in it, the keys that the rules pin are.
    ///
    /// # Errors
    /// As for [`Builder::admit_certificates`].
    pub fn admit(self, rules: RuleSettings, trust: Trust) -> Result<Builder<Decided>, BuildError> {
        if rules.identity.is_some() && trust.roots.is_empty() {
            return Err(BuildError::IdentityWithoutRoots);
        }
        let rules = Rules::new(rules).map_err(BuildError::Rules)?;
        let initiators = ClientCertificates::for_rules(&rules, trust);
        Ok(self.decided(Decided { rules, initiators }))
    }

    /// The way to choices that give security away.
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }

    fn decided(self, peers: Decided) -> Builder<Decided> {
        let Self { credentials, name, keys, tunnel, quic, tcp_settings, tcp, envoy, grace, shares, metrics, .. } = self;
        Builder { credentials, name, keys, tunnel, quic, tcp_settings, tcp, envoy, grace, shares, metrics, peers }
    }
}

impl Dangerous {
    /// Admits whoever reaches the port under any name they like: they receive the requests that are meant for that
    /// node, and answer them. For trials on a machine that nobody else reaches.
    pub fn accept_anyone(self) -> Builder<Decided> {
        let settings = RuleSettings { insecure_accept_any: true, ..RuleSettings::default() };
        let rules = Rules::new(settings).expect("accepting anyone contradicts no other rule, for there is none");
        self.0.decided(Decided { rules, initiators: ClientCertificates::NotAsked })
    }
}

impl<Peers> Builder<Peers> {
    /// Its name in WELCOME, 1 to 128 bytes; default [`DEFAULT_NAME`].
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Keys that were persisted, so that initiators notice a restart at once; by default they die with the process.
    pub fn keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// Settings other than the defaults that hold over every transport: times, limits, drain.
    pub fn tunnel(self, tunnel: TunnelSettings) -> Self {
        Self { tunnel, ..self }
    }

    /// What only TCP knows, other than the defaults.
    pub fn tcp_settings(self, tcp_settings: TcpSettings) -> Self {
        Self { tcp_settings, ..self }
    }

    /// What only QUIC knows, other than the defaults.
    pub fn quic(self, quic: QuicSettings) -> Self {
        Self { quic, ..self }
    }

    /// Takes Envoy's reverse tunnels as well, on the TCP port.
    pub fn envoy(self, envoy: AcceptSettings) -> Self {
        Self { envoy: Some(envoy), ..self }
    }

    /// For how long after it is bound every node that is not known counts as one that is reconnecting: a request for it
    /// waits, as long as its listener's `hold` at most. Default [`DEFAULT_GRACE`]; zero: no request waits for such a node.
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// What each tenant and node may have of it; by default as much as there is, and all tenants weigh the same.
    pub fn shares(self, shares: ShareSettings) -> Self {
        Self { shares, ..self }
    }

    /// Listens for tunnels over TCP as well; usually on the same port number. Port 0 on the address of QUIC takes the
    /// number that QUIC gets.
    pub fn tcp(self, address: SocketAddr) -> Self {
        Self { tcp: Some(address), ..self }
    }

    /// Counts into these metrics; by default into some that nobody reads.
    pub fn metrics(self, metrics: &Metrics) -> Self {
        Self { metrics: metrics.clone(), ..self }
    }
}

impl Builder<Decided> {
    /// Binds a UDP address; port 0 takes a free one, see [`Responder::local_addr`]. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] says which setting, credential or address is at fault.
    pub fn bind(self, address: SocketAddr) -> Result<Responder, BuildError> {
        let sockets = Sockets::bind(Some(address), self.tcp, &self.metrics)?;
        self.finish(sockets)
    }

    /// Binds a TCP address and no UDP one: for places that UDP does not reach. [`Builder::tcp`] is not needed beside it.
    ///
    /// # Errors
    /// As for [`Builder::bind`].
    pub fn bind_tcp(self, address: SocketAddr) -> Result<Responder, BuildError> {
        let sockets = Sockets::bind(None, Some(address), &self.metrics)?;
        self.finish(sockets)
    }

    fn finish(self, sockets: Sockets) -> Result<Responder, BuildError> {
        let Self { credentials, name, tunnel, envoy, metrics, peers: Decided { rules, initiators }, .. } = self;
        let tls = Arc::new(ResponderTls { credentials, initiators });
        let fixed = Fixed { keys: self.keys, grace: self.grace };
        let judge = InitiatorJudge::new(&tls.initiators).map_err(|error| StartError::from(UpdateError::Tls(error)))?;
        let (quic, tcp, shares) = (self.quic, self.tcp_settings, self.shares);
        let terms = Terms {
            name,
            rules,
            tls,
            envoy,
            tunnel,
            quic,
            tcp,
            shares,
            tls_since: 0,
            envoy_since: 0,
            judge,
            trust_since: 0,
        };
        Ok(Responder::bind(sockets, fixed, terms, &metrics)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::tls::pki::{Authority, Validity};

    const VALID: Validity = Validity { from: SystemTime::UNIX_EPOCH, lifetime: Duration::from_secs(3600) };

    fn builder() -> Builder {
        let authority = Authority::create("test CA", VALID).unwrap();
        Builder::new(authority.responder(&["localhost".to_owned()], VALID).unwrap().credentials().unwrap())
    }

    fn error(built: Result<Builder<Decided>, BuildError>) -> String {
        built.unwrap_err().to_string()
    }

    #[test]
    fn an_identity_that_anybody_could_sign_is_no_decision() {
        let refused = error(builder().admit_certificates(Vec::new(), "spiffe://x/{tenant}/{cluster}/{node}"));
        assert!(refused.contains("without roots"), "{refused}");
    }

    #[test]
    fn rules_that_ask_for_no_proof_are_no_decision() {
        let refused = error(builder().admit(RuleSettings::default(), Trust::default()));
        assert!(refused.contains("no proof of identity"), "{refused}");
    }

    #[test]
    fn whoever_is_accepted_without_proof_is_not_asked_for_a_certificate() {
        let Decided { rules, initiators } = builder().dangerous().accept_anyone().peers;
        assert!(rules.insecure_accept_any() && matches!(initiators, ClientCertificates::NotAsked));
    }
}
