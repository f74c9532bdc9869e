//! `egress`: listeners for application traffic, and how each finds the tunnel.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::access::{self, access_log};
use crate::config::connect;
use crate::config::http3::{Http3Config, http3};
use crate::config::listeners::Protocol;
use crate::config::reader::{At, Section, alternatives};
use crate::config::rewrite::{self, StepConfig};
use crate::config::services::{ShownMatch, host_and_prefix};
use crate::config::show;
use crate::config::tls::{ListenerTls, listener_tls};
use crate::egress::Settings;
use crate::id::{ClusterId, HostId, IdError, NodeId, ServiceName, TenantId};
use crate::message::forward::Forms;
use crate::message::rewrite::Step;
use crate::message::trust::Trust;
use crate::proxy::AccessLog;
use crate::registry::Balance;
use crate::routing::{Connect, DEFAULT_DEADLINE, DEFAULT_HOLD, Route, RouterSettings, Tenant};
use crate::template::Template;

const HOST_ID_FORM: &str = "a template such as \"%REQ(x-node-id?x-cluster-id)%\", or `to`";
const MAX_HOLD: Duration = Duration::from_secs(300);
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3600);
const IDLE_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const LISTENER_KINDS: [&str; 3] = ["http", "tcp", "udp"];
const BALANCES: [(&str, Balance); 3] =
    [("two_choices", Balance::TwoChoices), ("round_robin", Balance::RoundRobin), ("hash", Balance::Hash)];
const FORMS: [(&str, Forms); 4] =
    [("both", Forms::Both), ("rfc7239", Forms::Rfc7239), ("x", Forms::X), ("none", Forms::None)];

/// One listener for HTTP/1.1, HTTP/2 and, with TLS, HTTP/3.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EgressConfig {
    /// `http`: where it listens; port 0 takes a free one.
    pub http: SocketAddr,
    /// `tls`: without it, HTTP/1.1 and h2c in clear text; with it, ALPN chooses.
    pub tls: Option<ListenerTls>,
    /// `http3`: whether HTTP/3 is served on the UDP port of the same number, and how; default: with `tls`, yes.
    pub http3: Http3Config,
    /// Which tunnel a request takes: `host_id`, `tenant`, `service`, `connect`, `routes`, `affinity`, `hold` (default 2 s, at most
    /// 5 min; each waiting request holds its connection), `deadline` for a response to begin (default 60 s, 1 ms to
    /// 24 h) and `balance`, how a cluster's node is chosen: `two_choices` (default), `round_robin`, or `hash`, which
    /// needs `affinity`. `to: { node or cluster, service, tenant }` fixes the first three for every request.
    #[serde(flatten, serialize_with = "router_as_written")]
    pub router: RouterSettings,
    /// `half_close`: whether an HTTP/1.1 client that ends its sending side still waits for the response. Default false:
    /// it has gone away, and the exchange is cancelled.
    pub half_close: bool,
    /// `access_log`: one log line per exchange, or `{ query: true }` for the query of the path, too. Default true.
    #[serde(serialize_with = "access::as_written")]
    pub access_log: AccessLog,
    /// `trust`: the addresses and prefixes of the proxies in front, such as `["10.0.0.0/8", "::1"]`. What they say of a
    /// client (`Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `X-Forwarded-Client-Cert`, `X-Envoy-*`) is passed on and extended;
    /// from anybody else it is removed. Default: nobody.
    #[serde(serialize_with = "trust_as_written")]
    pub trust: Trust,
    /// `forwarded`: in which forms a target is told of the client: `both` (default), `rfc7239` (`Forwarded`), `x`
    /// (`X-Forwarded-For`, `-Proto`) or `none`. A form that is not written is passed on from nobody.
    #[serde(serialize_with = "forms_as_written")]
    pub forwarded: Forms,
    /// `rewrite`: what is done to each request before it enters a tunnel, in this order. Where it goes is decided by what
    /// came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<StepConfig>,
    /// `limits`: what one client may ask for.
    pub limits: EgressLimits,
}

/// What one client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EgressLimits {
    /// `head_bytes`: the largest head, 1 KiB to 1 MiB; more is answered 431. Default 64 KiB.
    pub head_bytes: usize,
    /// `head_fields`: the most fields in a head, 8 to 256; more is answered 431. Default 100.
    pub head_fields: usize,
    /// `connections`: how many may be open at once, over TCP and UDP together; more wait in the kernel's backlog, or are
    /// refused over UDP. Default 16384.
    pub connections: u32,
    /// `body_idle`: how long the sender of a request may deliver nothing of its body before a response has begun, 1 s to
    /// 24 h; 408. Default 60 s.
    #[serde(serialize_with = "show::duration")]
    pub body_idle: Duration,
    /// `body_rate`: the fewest bytes per second, over each `body_idle`, of a request's body before a response has begun (408),
    /// and the rate at which a response must be read; 0 asks for none. Default 16.
    pub body_rate: u32,
    /// `exchange_idle`: how long nothing may move in either direction once a response has begun, 1 s to 24 h; it is cut.
    /// Default 5 min.
    #[serde(serialize_with = "show::duration")]
    pub exchange_idle: Duration,
    /// `connect_idle`: how long nothing may move in either direction of a CONNECT, 1 s to 24 h; it is cut. Default: as long as
    /// both ends like.
    #[serde(serialize_with = "show::optional_duration", skip_serializing_if = "Option::is_none")]
    pub connect_idle: Option<Duration>,
}

impl Default for EgressLimits {
    fn default() -> Self {
        let standard = Settings::default();
        Self {
            head_bytes: standard.max_head_bytes,
            head_fields: standard.max_head_fields,
            connections: u32::try_from(standard.max_connections).unwrap_or(u32::MAX),
            body_idle: standard.pace.body_idle,
            body_rate: u32::try_from(standard.pace.body_rate).unwrap_or(u32::MAX),
            exchange_idle: standard.pace.exchange_idle,
            connect_idle: None,
        }
    }
}

impl EgressConfig {
    /// What the listener does to each request.
    pub fn steps(&self) -> Vec<Step> {
        rewrite::steps(&self.rewrite)
    }
}

/// Reads the whole list.
pub(super) fn egress(at: At<'_>) -> Option<Vec<EgressConfig>> {
    at.list(|item| item.section(listener))
}

fn listener(section: &mut Section<'_>) -> Option<EgressConfig> {
    let http3 = http3(section);
    let http = address(section, http3.enabled);
    let tls = section.optional("tls", |at| listener_tls(at, false));
    let router = router(section);
    let half_close = section.or("half_close", false, |at| at.boolean());
    let access_log = section.or("access_log", AccessLog::On, access_log);
    let trust = section.or("trust", Vec::new(), |at| at.list(|item| item.parsed()));
    let forwarded = section.or("forwarded", Forms::default(), |at| at.word(&FORMS));
    let rewrite = section.or("rewrite", Vec::new(), |at| at.list(rewrite::step));
    let limits = section.or("limits", EgressLimits::default(), limits);
    Some(EgressConfig {
        http: http?,
        tls,
        http3,
        router: router?,
        half_close,
        access_log,
        trust: Trust::new(trust),
        forwarded,
        rewrite,
        limits,
    })
}

/// Exactly one of the kinds of listener, and one that exists already.
fn address(section: &mut Section<'_>, http3: bool) -> Option<SocketAddr> {
    let http = section.find("http");
    let others = [section.find("tcp"), section.find("udp")];
    for (other, kind) in others.iter().zip(["tcp", "udp"]) {
        if let Some(at) = other {
            at.wrong(format!("{kind} egress is not supported yet; expected http"));
        }
    }
    match http {
        Some(at) if http3 => at.listener(&[Protocol::Tcp, Protocol::Udp]),
        Some(at) => at.listener(&[Protocol::Tcp]),
        None if others.iter().any(Option::is_some) => None,
        None => {
            section.at().wrong(format!("has no listener; expected one of {}", alternatives(&LISTENER_KINDS)));
            None
        }
    }
}

fn router(section: &mut Section<'_>) -> Option<RouterSettings> {
    let goal = goal(section);
    let host_id = section.optional("host_id", |at| id_template::<HostId>(&at));
    if !section.has("host_id") && !section.has("to") {
        section.missing("host_id", HOST_ID_FORM);
    }
    let tenant = section.optional("tenant", |at| tenant(&at));
    let service = section.optional("service", |at| at.parsed());
    let connect = section.or("connect", Connect::Off, connect::connect);
    let routes = section.or("routes", Vec::new(), |at| at.list(route));
    let affinity = section.optional("affinity", |at| at.checked(Template::parse));
    let hold = section.or("hold", DEFAULT_HOLD, |at| at.duration(Duration::ZERO..=MAX_HOLD));
    let deadline = section.or("deadline", DEFAULT_DEADLINE, |at| at.duration(Duration::from_millis(1)..=MAX_DEADLINE));
    let balance = balance(section);
    let Goal { host_id: goal_host_id, service: goal_service, tenant: goal_tenant } = goal.unwrap_or_default();
    Some(RouterSettings {
        host_id: Some(host_id.or(goal_host_id)?),
        tenant: tenant.or(goal_tenant).unwrap_or_else(|| Tenant::Fixed(TenantId::default())),
        routes,
        service: service.or(goal_service),
        connect,
        balance,
        affinity,
        hold,
        deadline,
    })
}

/// `to`: one node or cluster for every request, and perhaps its service and tenant.
#[derive(Default)]
struct Goal {
    host_id: Option<Template>,
    service: Option<ServiceName>,
    tenant: Option<Tenant>,
}

fn goal(section: &mut Section<'_>) -> Option<Goal> {
    let at = section.find("to")?;
    for key in ["host_id", "service", "tenant"] {
        if section.has(key) && (key == "host_id" || at.has(key)) {
            at.wrong(format!("conflicts with {key} of the listener; expected one of them"));
        }
    }
    at.section(|section| {
        let node: Option<NodeId> = section.optional("node", |at| at.parsed());
        let cluster: Option<ClusterId> = section.optional("cluster", |at| at.parsed());
        let service = section.optional("service", |at| at.parsed());
        let tenant = section.optional("tenant", |at| tenant(&at));
        if section.has("node") == section.has("cluster") {
            section.at().wrong("does not say whom to ask; expected either node or cluster");
        }
        // Ids hold no `%`, so a name is a template that renders itself.
        let name = match (&node, &cluster) {
            (Some(node), _) => Some(node.as_str()),
            (None, cluster) => cluster.as_ref().map(ClusterId::as_str),
        };
        Some(Goal { host_id: name.and_then(|name| Template::parse(name).ok()), service, tenant })
    })
}

fn route(at: At<'_>) -> Option<Route> {
    at.section(|section| {
        let matches = host_and_prefix(section);
        if !section.has("host") && !section.has("prefix") {
            section.at().wrong("covers every request; expected host, prefix or both");
        }
        let service: Option<ServiceName> = section.required("service", "the service that is meant", |at| at.parsed());
        let host_id = section.optional("host_id", |at| id_template::<HostId>(&at));
        Some(Route { matches, service: Some(service?), host_id })
    })
}

fn tenant(at: &At<'_>) -> Option<Tenant> {
    let template = id_template::<TenantId>(at)?;
    // Text without operators was checked to be an id.
    Some(match TenantId::new(&template.to_string()) {
        Ok(tenant) => Tenant::Fixed(tenant),
        Err(_) => Tenant::Template(template),
    })
}

/// A template; one without operators is the id itself and is checked as such.
fn id_template<Id: FromStr<Err = IdError>>(at: &At<'_>) -> Option<Template> {
    at.checked(|text| {
        if !text.contains('%') {
            Id::from_str(text).map_err(|error| error.to_string())?;
        }
        Template::parse(text).map_err(|error| error.to_string())
    })
}

fn balance(section: &mut Section<'_>) -> Balance {
    let has_affinity = section.has("affinity");
    section.or("balance", Balance::default(), |at| {
        let balance = at.word(&BALANCES)?;
        if balance == Balance::Hash && !has_affinity {
            at.wrong("has nothing to hash; expected affinity beside it, such as \"%REQ(x-session)%\"");
        }
        Some(balance)
    })
}

fn limits(at: At<'_>) -> Option<EgressLimits> {
    at.section(|section| {
        let standard = EgressLimits::default();
        Some(EgressLimits {
            head_bytes: section.or("head_bytes", standard.head_bytes, |at| at.size(1 << 10..=1 << 20)),
            head_fields: section.or("head_fields", standard.head_fields, |at| {
                at.number(8..=256).and_then(|fields| usize::try_from(fields).ok())
            }),
            connections: section.or("connections", standard.connections, |at| at.count(1..=1_000_000)),
            body_idle: section.or("body_idle", standard.body_idle, |at| at.duration(IDLE_BOUNDS)),
            body_rate: section.or("body_rate", standard.body_rate, |at| at.count(0..=1_000_000_000)),
            exchange_idle: section.or("exchange_idle", standard.exchange_idle, |at| at.duration(IDLE_BOUNDS)),
            connect_idle: section.optional("connect_idle", |at| at.duration(IDLE_BOUNDS)),
        })
    })
}

fn trust_as_written<S: Serializer>(trust: &Trust, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(trust.prefixes().iter().map(ToString::to_string))
}

fn balance_as_written<S: Serializer>(balance: &Balance, serializer: S) -> Result<S::Ok, S::Error> {
    word_of(&BALANCES, balance).serialize(serializer)
}

fn forms_as_written<S: Serializer>(forms: &Forms, serializer: S) -> Result<S::Ok, S::Error> {
    word_of(&FORMS, forms).serialize(serializer)
}

fn word_of<T: PartialEq>(words: &[(&'static str, T)], meant: &T) -> Option<&'static str> {
    words.iter().find(|(_, known)| known == meant).map(|(word, _)| *word)
}

/// The settings as they would be written.
fn router_as_written<S: Serializer>(router: &RouterSettings, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        host_id: Option<String>,
        tenant: String,
        service: Option<&'a ServiceName>,
        #[serde(serialize_with = "connect::as_written")]
        connect: &'a Connect,
        routes: Vec<ShownRoute<'a>>,
        affinity: Option<String>,
        #[serde(serialize_with = "show::duration")]
        hold: Duration,
        #[serde(serialize_with = "show::duration")]
        deadline: Duration,
        #[serde(serialize_with = "balance_as_written")]
        balance: Balance,
    }
    let tenant = match &router.tenant {
        Tenant::Fixed(tenant) => tenant.to_string(),
        Tenant::Template(template) => template.to_string(),
    };
    let shown = Shown {
        host_id: router.host_id.as_ref().map(ToString::to_string),
        tenant,
        service: router.service.as_ref(),
        connect: &router.connect,
        routes: router.routes.iter().map(ShownRoute::from).collect(),
        affinity: router.affinity.as_ref().map(ToString::to_string),
        hold: router.hold,
        deadline: router.deadline,
        balance: router.balance,
    };
    shown.serialize(serializer)
}

#[derive(Serialize)]
struct ShownRoute<'a> {
    #[serde(flatten)]
    matches: ShownMatch,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a ServiceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<String>,
}

impl<'a> From<&'a Route> for ShownRoute<'a> {
    fn from(route: &'a Route) -> Self {
        let host_id = route.host_id.as_ref().map(ToString::to_string);
        Self { matches: ShownMatch::from(&route.matches), service: route.service.as_ref(), host_id }
    }
}
