//! From settings to rustls configurations. What they promise stands at the top of [`crate::tls`].

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use crate::policy::Rules;
use crate::protocol::fleet;
use crate::tls::verify::{ClientVerifier, ServerVerifier};
use crate::tls::{Credentials, Peer, TlsError, Trust, provider};

/// Sessions that a listener keeps to take early data in them; the oldest go first.
const MAX_SESSIONS: usize = 4_096;

/// TLS of an initiator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitiatorTls {
    /// What it shows when the responder asks. `None`: nothing (a token must prove the claim then).
    pub credentials: Option<Credentials>,
    /// Which responders are genuine.
    pub responder: Trust,
}

/// TLS of an initiator to one of its targets.
#[derive(Debug, Clone)]
pub struct TargetTls {
    /// What it shows when the target asks. `None`: nothing.
    pub credentials: Option<Credentials>,
    /// Which targets are genuine. `None`: whoever answers, so that somebody on the way can read and change everything.
    pub trust: Option<Trust>,
    /// The name that the target is asked for (SNI) and must have in its certificate; its host when absent.
    pub server_name: Option<String>,
}

/// Whether the connecting side must show a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// It must, and it must be genuine. The only choice that proves an identity by TLS.
    Required(Trust),
    /// It may show none; one that it shows must be genuine. For tokens.
    Optional(Trust),
    /// It is not asked. For tokens alone, for `insecure_accept_any`, and for public egress.
    NotAsked,
}

impl ClientCertificates {
    /// What TLS has to ask of initiators so that policy can apply `rules`: a certificate if any rule can need one, and
    /// from everybody if every admitted claim needs one.
    ///
    /// Without roots in `trust`, the keys that the rules pin are genuine, and policy says which of them is whose.
    pub fn for_rules(rules: &Rules, mut trust: Trust) -> Self {
        if trust.roots.is_empty() {
            trust.pins = rules.pins().collect();
        }
        match (trust.roots.is_empty() && trust.pins.is_empty(), rules.require_certificate()) {
            (true, false) => Self::NotAsked,
            (false, false) => Self::Optional(trust),
            (_, true) => Self::Required(trust),
        }
    }
}

/// TLS of a responder's tunnel listener.
#[derive(Debug, Clone)]
pub struct ResponderTls {
    /// What it shows.
    pub credentials: Credentials,
    /// What initiators must show.
    pub initiators: ClientCertificates,
}

/// TLS of an egress listener.
#[derive(Debug, Clone)]
pub struct EgressTls {
    /// What it shows.
    pub credentials: Credentials,
    /// What HTTP clients must show.
    pub clients: ClientCertificates,
}

/// TLS between the responders of a fleet, whichever of two dials. spec: FL-31
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiblingTls {
    /// What it shows, to whoever it dials and to whoever dials it: for both uses.
    pub credentials: Credentials,
    /// Which siblings are genuine. Which of them one is, its names say.
    pub siblings: Trust,
}

/// The name to verify for a configured host: a DNS name, or an IP address with or without brackets.
///
/// # Errors
/// [`TlsError::Host`] for anything else.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::Host { host: host.to_owned() })
}

/// The configuration with which an initiator dials, over QUIC or TCP. TLS 1.3 only; nothing is resumed.
///
/// # Errors
/// [`TlsError`] if nothing says whom to trust, or a root or CRL cannot be used.
pub fn initiator_config(settings: &InitiatorTls, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(ServerVerifier::new(Peer::Responder, &settings.responder)?);
    dialling(settings.credentials.as_ref(), verifier, &[&TLS13], alpn)
}

/// The configuration with which an initiator dials a target: TLS 1.2 and 1.3, this ALPN alone. Nothing is resumed.
///
/// # Errors
/// As for [`initiator_config`].
pub fn target_config(settings: &TargetTls, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
    let verifier = match &settings.trust {
        Some(trust) => ServerVerifier::new(Peer::Target, trust)?,
        None => ServerVerifier::unverified(Peer::Target),
    };
    dialling(settings.credentials.as_ref(), Arc::new(verifier), &[&TLS13, &TLS12], &[alpn])
}

/// The configuration with which a responder dials a sibling: TLS 1.3 only, nothing is resumed. The name of the certificate is
/// not compared with what was dialled, which is an address that the directory tells: whoever dials must compare it with the
/// sibling's own, see [`peer_identity`](crate::tls::peer_identity). spec: FL-31, FL-32
///
/// # Errors
/// As for [`initiator_config`].
pub fn sibling_client_config(settings: &SiblingTls) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(ServerVerifier::of_any_name(Peer::Sibling, &settings.siblings)?);
    dialling(Some(&settings.credentials), verifier, &[&TLS13], &[fleet::ALPN])
}

/// The configuration with which a responder is dialled by its siblings: TLS 1.3 only, a certificate is required, nothing is
/// resumed. spec: FL-31
///
/// # Errors
/// As for [`responder_config`].
pub fn sibling_server_config(settings: &SiblingTls) -> Result<ServerConfig, TlsError> {
    let verifier = Arc::new(ClientVerifier::new(Peer::Sibling, &settings.siblings, true)?);
    let mut config = accepting(&settings.credentials, verifier, &[&TLS13])?;
    config.alpn_protocols = owned(&[fleet::ALPN]);
    refuse_resumption(&mut config);
    Ok(config)
}

fn dialling(
    credentials: Option<&Credentials>,
    verifier: Arc<ServerVerifier>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Settings)?
        // Stricter than the default verifier, not laxer: it wraps it and adds the pins. But for targets of which the
        // settings say that whoever answers is taken.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(credentials.resolver()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The configuration with which a responder accepts tunnels, over QUIC or TCP. TLS 1.3 only; nothing is resumed.
///
/// # Errors
/// [`TlsError`] if certificates are asked for and nothing says which are genuine, or a root or CRL cannot be used.
pub fn responder_config(settings: &ResponderTls, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let verifier = client_verifier(Peer::Initiator, &settings.initiators)?;
    let mut config = accepting(&settings.credentials, verifier, &[&TLS13])?;
    config.alpn_protocols = owned(alpn);
    refuse_resumption(&mut config);
    Ok(config)
}

/// The configuration with which a responder takes Envoy's handshakes: TLS 1.2 and 1.3, since an Envoy dials with 1.2 unless
/// told otherwise; no ALPN. Nothing is resumed, and nothing is sent after the handshake that is not asked for, because
/// TLS may end with it.
///
/// # Errors
/// As for [`responder_config`].
pub fn envoy_responder_config(settings: &ResponderTls) -> Result<ServerConfig, TlsError> {
    let verifier = client_verifier(Peer::Initiator, &settings.initiators)?;
    let mut config = accepting(&settings.credentials, verifier, &[&TLS13, &TLS12])?;
    refuse_resumption(&mut config);
    Ok(config)
}

/// The configuration with which an initiator dials an Envoy, and with which a responder opens the TLS inside a tunnel to
/// one: TLS 1.2 and 1.3, no ALPN, nothing resumed.
///
/// # Errors
/// As for [`initiator_config`].
pub fn envoy_client_config(settings: &InitiatorTls) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(ServerVerifier::new(Peer::Responder, &settings.responder)?);
    dialling(settings.credentials.as_ref(), verifier, &[&TLS13, &TLS12], &[])
}

/// The configuration with which an initiator takes the TLS inside a tunnel, whose client is the responder: it must show
/// a certificate that is genuine by the same rules as when it is dialled, but for its name, since it is not.
///
/// # Errors
/// As for [`responder_config`]; [`TlsError::NoCredentials`] without a certificate to show.
pub fn envoy_inner_config(settings: &InitiatorTls) -> Result<ServerConfig, TlsError> {
    let credentials = settings.credentials.as_ref().ok_or(TlsError::NoCredentials)?;
    let verifier = Arc::new(ClientVerifier::new(Peer::Responder, &settings.responder, true)?);
    let mut config = accepting(credentials, verifier, &[&TLS13, &TLS12])?;
    refuse_resumption(&mut config);
    Ok(config)
}

/// The configuration of an egress listener over TCP: TLS 1.2 and 1.3, ALPN `h2` then `http/1.1`.
///
/// Sessions are resumed only where no client certificate is asked for.
///
/// # Errors
/// As for [`responder_config`].
pub fn egress_config(settings: &EgressTls) -> Result<ServerConfig, TlsError> {
    let verifier = client_verifier(Peer::Client, &settings.clients)?;
    let mut config = accepting(&settings.credentials, verifier, &[&TLS13, &TLS12])?;
    config.alpn_protocols = owned(&[b"h2", b"http/1.1"]);
    if !matches!(settings.clients, ClientCertificates::NotAsked) {
        refuse_resumption(&mut config);
    }
    Ok(config)
}

/// The configuration of an egress listener over QUIC: TLS 1.3, ALPN `h3`, no early data. Otherwise as [`egress_config`].
///
/// # Errors
/// As for [`responder_config`].
pub fn http3_config(settings: &EgressTls) -> Result<ServerConfig, TlsError> {
    let verifier = client_verifier(Peer::Client, &settings.clients)?;
    let mut config = accepting(&settings.credentials, verifier, &[&TLS13])?;
    config.alpn_protocols = owned(&[b"h3"]);
    if !matches!(settings.clients, ClientCertificates::NotAsked) {
        refuse_resumption(&mut config);
    }
    Ok(config)
}

/// The same for early data, where sessions are resumed at all. Each ticket is taken once, as its session is kept here and no
/// longer then (RFC 8446 section 8.1); tickets of before are not. RFC 9001 section 4.6.1
pub fn with_early_data(config: &ServerConfig) -> ServerConfig {
    let mut config = config.clone();
    if config.send_tls13_tickets > 0 {
        config.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
        config.max_early_data_size = u32::MAX;
    }
    config
}

fn accepting(
    credentials: &Credentials,
    verifier: Arc<dyn ClientCertVerifier>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    Ok(ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Settings)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(credentials.resolver()))
}

fn client_verifier(peer: Peer, certificates: &ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    Ok(match certificates {
        ClientCertificates::Required(trust) => Arc::new(ClientVerifier::new(peer, trust, true)?),
        ClientCertificates::Optional(trust) => Arc::new(ClientVerifier::new(peer, trust, false)?),
        ClientCertificates::NotAsked => WebPkiClientVerifier::no_client_auth(),
    })
}

fn refuse_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
