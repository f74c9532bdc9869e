//! `responder`: where tunnels are accepted and from whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::envoy::{self, EnvoyAcceptConfig};
use crate::config::heads::{HeadLimits, head_limits};
use crate::config::listeners::Protocol;
use crate::config::reader::{At, Section};
use crate::config::secret::Secret;
use crate::config::shares::{self, shares};
use crate::config::show;
use crate::config::tls::{ListenerTls, listener_tls};
use crate::id::{Claim, ClusterId, NodeId, SpkiPin, TenantId};
use crate::policy::{
    MAX_SECRET_BYTES, MIN_SECRET_BYTES, NodeRule, Quotas, RuleError, RuleSettings, Rules, Secret as TokenSecret,
};
use crate::protocol::session::Timing;
use crate::responder::{DEFAULT_GRACE, DEFAULT_NAME};
use crate::shares::ShareSettings;
use crate::transport::TunnelSettings;
use crate::transport::quic::CongestionControl;
use crate::transport::tcp::envoy::Security;

const SECOND: Duration = Duration::from_secs(1);
const MAX_NAME_BYTES: usize = 128;
const MAX_TUNNELS: u32 = 1 << 24;

/// `responder`: one listener for tunnels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResponderConfig {
    /// `name`: what initiators and operators see, 1 to 128 bytes. Default: the name of the host.
    pub name: String,
    /// `listen.quic`: the UDP address; port 0 takes a free one. At least one of the two is there.
    pub quic: Option<SocketAddr>,
    /// `listen.tcp`: the TCP address, for sites that cannot send UDP; usually the same port. Where both say port 0 on one
    /// address, both get the same free number.
    pub tcp: Option<SocketAddr>,
    /// `envoy`: takes Envoy's reverse tunnels on `listen.tcp`; not when absent.
    pub envoy: Option<EnvoyAcceptConfig>,
    /// `tls`: what it shows, and whom it trusts.
    pub tls: ListenerTls,
    /// What a claim must show; see [`AdmissionConfig::rules`].
    pub admission: AdmissionConfig,
    /// `handshake_timeout`: from the first packet to WELCOME. Default 10 s, 1 s to 60 s; shorter refuses peers on
    /// slow links, longer lets idle strangers hold more places.
    #[serde(serialize_with = "show::duration")]
    pub handshake_timeout: Duration,
    /// `max_pending_handshakes`: room for connections not yet admitted, per transport; where it is used up the oldest gives
    /// way. Default 1024.
    pub max_pending_handshakes: u32,
    /// `keepalive`: silence after which an initiator probes. Default 5 s, 500 ms to 25 s.
    #[serde(serialize_with = "show::duration")]
    pub keepalive: Duration,
    /// `idle_timeout`: silence after which a tunnel is dead. Default 30 s, 5 s to 10 min, and more than `keepalive`.
    #[serde(serialize_with = "show::duration")]
    pub idle_timeout: Duration,
    /// `congestion`: how fast is safe. Default `bbr`, which keeps its speed under loss.
    #[serde(serialize_with = "congestion_as_written")]
    pub congestion: CongestionControl,
    /// `state_dir`: the folder, made if missing, of what outlasts a restart: two keys by which a restarted responder tells
    /// its old tunnels at once that they are gone, and the names of the nodes that were connected and of those that are gone
    /// (since when, and why). Default: the first that there is of `$STATE_DIRECTORY`, `/var/lib/adit`,
    /// `$XDG_STATE_HOME/adit` and `~/.local/state/adit`, with a folder of its own for each address; none where a listener has
    /// port 0.
    pub state_dir: Option<PathBuf>,
    /// `grace`: for how long after the start requests wait (each for `hold` at most) for nodes that are not known, and
    /// `/ready` for those that were connected before. Default 10 s, at most 5 min.
    #[serde(serialize_with = "show::duration")]
    pub grace: Duration,
    /// `shares`: what each tenant and each node may have of it; default: as much as there is, and all tenants weigh the same.
    #[serde(serialize_with = "shares::as_written")]
    pub shares: ShareSettings,
    /// `limits`: how large the heads of answers from sites may be.
    pub limits: HeadLimits,
}

/// Which claims are admitted; all that is set must hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdmissionConfig {
    /// `identity`: the certificate name that proves a claim, such as `spiffe://example.org/{tenant}/{cluster}/{node}`
    /// or `dns:{node}.{cluster}.example.org`; what it does not name must be fixed below.
    pub identity: Option<String>,
    /// `tenant`: the only one that is admitted.
    pub tenant: Option<TenantId>,
    /// `cluster`: the only one that is admitted.
    pub cluster: Option<ClusterId>,
    /// `pins`: the only keys that are admitted.
    #[serde(serialize_with = "show::list")]
    pub pins: Vec<SpkiPin>,
    /// `nodes`: what single nodes must show in addition, or, without `identity`, instead.
    pub nodes: Vec<NodeConfig>,
    /// `quotas`: how many tunnels there may be.
    #[serde(serialize_with = "quotas_as_written")]
    pub quotas: Quotas,
    /// `insecure_accept_any`: admits whoever connects under any name. For trials only; default false.
    pub insecure_accept_any: bool,
}

/// What one node must show: pins, a token, or both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeConfig {
    /// `node`, with `cluster` and `tenant`, which default to the responder's own fixed ones.
    pub claim: Claim,
    /// `pins`: its keys; two while a key is replaced.
    #[serde(serialize_with = "show::list")]
    pub pins: Vec<SpkiPin>,
    /// `token`: 16 bytes to 8 KiB; text, `${NAME}` or `file:path`.
    pub token: Option<Secret>,
}

impl Default for AdmissionConfig {
    /// Asks for nothing, and so is no rule yet.
    fn default() -> Self {
        Self {
            identity: None,
            tenant: None,
            cluster: None,
            pins: Vec::new(),
            nodes: Vec::new(),
            quotas: Quotas::default(),
            insecure_accept_any: false,
        }
    }
}

impl AdmissionConfig {
    /// The rules that policy applies.
    ///
    /// # Errors
    /// Everything that is wrong with them; never for settings out of a [`Checked`](crate::config::Checked).
    pub fn rules(&self) -> Result<Rules, Vec<RuleError>> {
        Rules::new(self.settings())
    }

    /// The settings of the rules that policy applies.
    pub fn settings(&self) -> RuleSettings {
        let node = |node: &NodeConfig| NodeRule {
            claim: node.claim.clone(),
            pins: node.pins.clone(),
            token: node.token.as_ref().and_then(|token| TokenSecret::new(token.expose())),
        };
        RuleSettings {
            identity: self.identity.clone(),
            tenant: self.tenant.clone(),
            cluster: self.cluster.clone(),
            pins: self.pins.clone(),
            nodes: self.nodes.iter().map(node).collect(),
            quotas: self.quotas,
            insecure_accept_any: self.insecure_accept_any,
        }
    }
}

impl ResponderConfig {
    /// With every default. It listens nowhere and admits nobody yet: one of `quic` and `tcp`, and something in `admission`, must
    /// follow.
    pub fn new(tls: ListenerTls) -> Self {
        let standard = TunnelSettings::default();
        Self {
            name: DEFAULT_NAME.to_owned(),
            quic: None,
            tcp: None,
            envoy: None,
            tls,
            admission: AdmissionConfig::default(),
            handshake_timeout: standard.timing.handshake_timeout,
            max_pending_handshakes: u32::try_from(standard.max_handshakes).unwrap_or(u32::MAX),
            keepalive: standard.timing.keepalive_interval,
            idle_timeout: standard.timing.idle_timeout,
            congestion: CongestionControl::default(),
            state_dir: None,
            grace: DEFAULT_GRACE,
            shares: ShareSettings::default(),
            limits: HeadLimits::default(),
        }
    }

    /// The settings of its tunnels; how long they may drain is said elsewhere.
    pub fn tunnel(&self) -> TunnelSettings {
        let standard = TunnelSettings::default();
        TunnelSettings {
            timing: Timing {
                handshake_timeout: self.handshake_timeout,
                keepalive_interval: self.keepalive,
                idle_timeout: self.idle_timeout,
                ..standard.timing
            },
            limits: self.limits.announced(),
            max_handshakes: self.max_pending_handshakes as usize,
            ..standard
        }
    }
}

/// Reads the section.
pub(super) fn responder(at: At<'_>) -> Option<ResponderConfig> {
    at.section(|section| {
        let listen = section.required("listen", "{ quic: ip:port, tcp: ip:port }", listen);
        let tls = section.required("tls", "cert, key and client_ca", listener_tls);
        let admission = admission(section);
        let envoy = section.optional("envoy", envoy::accept);
        if let Some(tls) = &tls {
            require_roots(section, tls, &admission);
        }
        let standard = TunnelSettings::default();
        let pending = u32::try_from(standard.max_handshakes).unwrap_or(u32::MAX);
        let own_name = own_name(section.at());
        let name = section.or("name", own_name, |at| at.short_text(MAX_NAME_BYTES));
        let handshake_timeout =
            section.or("handshake_timeout", standard.timing.handshake_timeout, |at| at.duration(SECOND..=60 * SECOND));
        let max_pending_handshakes = section.or("max_pending_handshakes", pending, |at| at.count(1..=65_536));
        let (keepalive, idle_timeout) = timing(section, standard.timing);
        let congestion = section.or("congestion", CongestionControl::default(), |at| congestion(&at));
        let state_dir = section.optional("state_dir", |at| at.path());
        let grace = section.or("grace", DEFAULT_GRACE, |at| at.duration(Duration::ZERO..=300 * SECOND));
        let limits = section.or("limits", HeadLimits::default(), head_limits);
        let shares = section.or("shares", ShareSettings::default(), shares);
        let (quic, tcp) = listen?;
        if let Some(envoy) = &envoy {
            check_envoy(section, envoy, tcp, &admission);
        }
        Some(ResponderConfig {
            name,
            quic,
            tcp,
            envoy,
            tls: tls?,
            admission,
            handshake_timeout,
            max_pending_handshakes,
            keepalive,
            idle_timeout,
            congestion,
            state_dir,
            grace,
            shares,
            limits,
        })
    })
}

/// The host's name tells responders apart where nobody named them.
fn own_name(at: &At<'_>) -> String {
    let fits = |name: &String| name.len() <= MAX_NAME_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic());
    at.host_name().filter(fits).unwrap_or_else(|| DEFAULT_NAME.to_owned())
}

/// An Envoy needs the TCP port, and a way to prove itself that its security leaves it.
fn check_envoy(
    section: &mut Section<'_>,
    envoy: &EnvoyAcceptConfig,
    tcp: Option<SocketAddr>,
    admission: &AdmissionConfig,
) {
    let Some(at) = section.find("envoy") else { return };
    if tcp.is_none() {
        at.wrong("has no port to be reached at; expected listen.tcp");
    }
    let needs_certificate = admission.rules().is_ok_and(|rules| rules.require_certificate());
    if envoy.security == Security::None && needs_certificate {
        at.wrong(
            "security: none leaves nobody a certificate to show, and every claim needs one; expected nodes with tokens, \
             insecure_accept_any, or another security",
        );
    }
}

/// Both, or one of them.
fn listen(at: At<'_>) -> Option<(Option<SocketAddr>, Option<SocketAddr>)> {
    at.section(|section| {
        let quic = section.optional("quic", |at| at.listener(&[Protocol::Udp]));
        let tcp = section.optional("tcp", |at| at.listener(&[Protocol::Tcp]));
        if !section.has("quic") && !section.has("tcp") {
            section.missing("quic", "ip:port such as 0.0.0.0:7843, or tcp");
        }
        (quic.is_some() || tcp.is_some()).then_some((quic, tcp))
    })
}

fn timing(section: &mut Section<'_>, standard: Timing) -> (Duration, Duration) {
    let shortest = Duration::from_millis(500);
    let keepalive = section.or("keepalive", standard.keepalive_interval, |at| at.duration(shortest..=25 * SECOND));
    let idle = section.or("idle_timeout", standard.idle_timeout, |at| {
        let idle = at.duration(5 * SECOND..=600 * SECOND)?;
        if idle <= keepalive {
            at.wrong("is not longer than keepalive, so every idle tunnel would end; expected a longer time");
        }
        Some(idle)
    });
    (keepalive, idle)
}

/// `congestion` of either role.
pub(super) fn congestion(at: &At<'_>) -> Option<CongestionControl> {
    use CongestionControl::{Bbr, Cubic, NewReno};
    at.word(&[Bbr, Cubic, NewReno].map(|control| (control.label(), control)))
}

/// The word for `/config`.
pub(super) fn congestion_as_written<S: Serializer>(
    control: &CongestionControl,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(control.label())
}

fn admission(section: &mut Section<'_>) -> AdmissionConfig {
    let start = section.at().mistakes();
    let tenant: Option<TenantId> = section.optional("tenant", |at| at.parsed());
    let cluster: Option<ClusterId> = section.optional("cluster", |at| at.parsed());
    let identity = section.optional("identity", |at| at.text());
    let names_are_sound = section.at().mistakes() == start;
    let pins = section.or("pins", Vec::new(), |at| at.one_or_more(|at| at.parsed()));
    let nodes = section.or("nodes", Vec::new(), |at| at.list(|item| node(item, tenant.as_ref(), cluster.as_ref())));
    let insecure_accept_any = section.or("insecure_accept_any", false, |at| at.boolean());
    let all_is_sound = section.at().mistakes() == start;
    let quotas = section.or("quotas", Quotas::default(), quotas);
    let admission = AdmissionConfig { identity, tenant, cluster, pins, nodes, quotas, insecure_accept_any };
    for error in admission.rules().err().unwrap_or_default() {
        // What follows from a value that is wrong already is not worth saying.
        let is_about_names = matches!(error, RuleError::Identity(_) | RuleError::NotProven { .. });
        let is_news = if is_about_names { names_are_sound } else { all_is_sound };
        let place = section.find(error.field());
        match place {
            _ if !is_news => {}
            Some(at) => at.wrong(error.to_string()),
            None => section.at().wrong(error.to_string()),
        }
    }
    admission
}

/// Without roots anybody could sign a certificate with any name in it, and pins alone would let every holder of a pinned
/// key take the names of the others.
fn require_roots(section: &Section<'_>, tls: &ListenerTls, admission: &AdmissionConfig) {
    if admission.identity.is_some() && tls.client_ca.is_none() {
        section.missing("tls.client_ca", "the roots that sign the names which identity asks for");
    }
}

fn node(at: At<'_>, tenant: Option<&TenantId>, cluster: Option<&ClusterId>) -> Option<NodeConfig> {
    at.section(|section| {
        let node: Option<NodeId> = section.required("node", "the name of a node", |at| at.parsed());
        let cluster = match cluster {
            Some(fixed) => section.optional("cluster", |at| at.parsed()).or_else(|| Some(fixed.clone())),
            None => section.required("cluster", "the cluster of the node", |at| at.parsed()),
        };
        let standard = tenant.cloned().unwrap_or_default();
        let tenant = section.or("tenant", standard, |at| at.parsed());
        let pins = section.or("pins", Vec::new(), |at| at.one_or_more(|at| at.parsed()));
        let token = section.optional("token", |at| at.secret(MIN_SECRET_BYTES..=MAX_SECRET_BYTES));
        if !section.has("pins") && !section.has("token") {
            section.at().wrong("asks for no proof; expected pins, token or both");
        }
        Some(NodeConfig { claim: Claim { tenant, cluster: cluster?, node: node? }, pins, token })
    })
}

fn quotas(at: At<'_>) -> Option<Quotas> {
    at.section(|section| {
        let standard = Quotas::default();
        let mut read = |key, default| section.or(key, default, |at| at.count(1..=MAX_TUNNELS));
        Some(Quotas {
            per_node: read("tunnels_per_node", standard.per_node),
            per_tenant: read("tunnels_per_tenant", standard.per_tenant),
            total: read("tunnels", standard.total),
            retry_after: standard.retry_after,
        })
    })
}

fn quotas_as_written<S: Serializer>(quotas: &Quotas, serializer: S) -> Result<S::Ok, S::Error> {
    let numbers =
        [("tunnels_per_node", quotas.per_node), ("tunnels_per_tenant", quotas.per_tenant), ("tunnels", quotas.total)];
    serializer.collect_map(numbers)
}
