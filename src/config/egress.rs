//! `egress`: listeners for application traffic, and how each finds the tunnel. Here those for requests.

mod kind;
mod knows;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use http::Request;
use serde::{Serialize, Serializer};

use self::knows::Knows;
pub use kind::EgressConfig;
pub use tcp::{TcpEgress, TcpLimits};
pub use udp::{UdpEgressConfig, UdpGoal, Whom};

use crate::config::access::{self, access_log};
use crate::config::connect;
use crate::config::http3::{Http3Config, http3};
use crate::config::listeners::Protocol;
use crate::config::policies::circle::{self, Circle};
use crate::config::policies::{self, About, Around, Known, PolicyConfig, policies};
use crate::config::reader::{At, Section, alternatives};
use crate::config::rewrite::{self, StepConfig};
use crate::config::services::{ShownMatch, host_and_prefix};
use crate::config::show;
use crate::config::tls::{ListenerTls, listener_tls};
use crate::egress;
use crate::egress::{ConnectionDetails, Explained, Refused, Settings, Terms, TrafficRules};
use crate::id::{ClusterId, HostId, IdError, NodeId, ServiceName, TenantId};
use crate::message::forward::Forms;
use crate::message::rewrite::Step;
use crate::message::trust::Trust;
use crate::policy::traffic::{Action, Priority};
use crate::proxy::AccessLog;
use crate::registry::Balance;
use crate::routing::{Connect, DEFAULT_DEADLINE, DEFAULT_HOLD, Route, RouterSettings, Tenant};
use crate::targets::Target;
use crate::template::Template;
use crate::tls::TlsError;

const HOST_ID_FORM: &str = "a template such as \"%REQ(x-node-id?x-cluster-id)%\", or `to`";
const MAX_HOLD: Duration = Duration::from_secs(300);
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3600);
const IDLE_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const LISTENER_KINDS: [&str; 3] = ["http", "tcp", "udp"];
/// Limits that only a listener for datagrams has.
const OF_UDP: [&str; 3] = ["flows", "flows_per_prefix", "flow_idle"];
const BALANCES: [(&str, Balance); 3] =
    [("two_choices", Balance::TwoChoices), ("round_robin", Balance::RoundRobin), ("hash", Balance::Hash)];
const FORMS: [(&str, Forms); 4] =
    [("both", Forms::Both), ("rfc7239", Forms::Rfc7239), ("x", Forms::X), ("none", Forms::None)];

/// One listener for HTTP/1.1, HTTP/2 and, with TLS, HTTP/3.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpEgress {
    /// `http`: where it listens; port 0 takes a free one.
    pub http: SocketAddr,
    /// `tls`: without it, HTTP/1.1 and h2c in clear text; with it, ALPN chooses.
    pub tls: Option<ListenerTls>,
    /// `http3`: whether HTTP/3 is served on the UDP port of the same number, and how; default: with `tls`, yes.
    pub http3: Http3Config,
    /// Which tunnel a request takes: `host_id`, `tenant`, `service`, `connect`, `connect_udp`, `routes`, `affinity`, `hold` (default 2 s, at most
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
    /// `proxy_protocol`: the addresses and prefixes of the proxies in front, each of whose connections over TCP must begin with a
    /// PROXY header of version 1 or 2; the client is whom that names. Default: nobody. There is none over HTTP/3.
    #[serde(serialize_with = "trust_as_written")]
    pub proxy_protocol: Trust,
    /// `forwarded`: in which forms a target is told of the client: `both` (default), `rfc7239` (`Forwarded`), `x`
    /// (`X-Forwarded-For`, `-Proto`) or `none`. A form that is not written is passed on from nobody.
    #[serde(serialize_with = "forms_as_written")]
    pub forwarded: Forms,
    /// `rewrite`: what is done to each request before it enters a tunnel, in this order. Where it goes is decided by what
    /// came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<StepConfig>,
    /// `policies`: which requests are denied or go elsewhere; the highest priority is looked at first, the first match
    /// decides, and what no rule is about goes where the rest of the listener says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyConfig>,
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

impl HttpEgress {
    /// A listener for clear text with every default; `host_id` says which node or cluster a request is for.
    pub fn new(http: SocketAddr, host_id: Template) -> Self {
        Self {
            http,
            tls: None,
            http3: Http3Config::of(false),
            router: RouterSettings::new(host_id),
            half_close: false,
            access_log: AccessLog::On,
            trust: Trust::default(),
            proxy_protocol: Trust::default(),
            forwarded: Forms::default(),
            rewrite: Vec::new(),
            policies: Vec::new(),
            limits: EgressLimits::default(),
        }
    }

    /// What the listener does to each request.
    pub fn steps(&self) -> Vec<Step> {
        rewrite::steps(&self.rewrite)
    }

    /// What the listener would do with a request that comes over this connection, if that breaks no rule of HTTP.
    ///
    /// # Errors
    /// As of [`Self::rules`].
    pub fn explain(
        &self,
        request: Request<()>,
        connection: ConnectionDetails,
    ) -> Result<Result<Explained, Refused>, TlsError> {
        let (policies, trust) = (self.rules()?, self.trust.clone());
        let forwarded = self.forwarded;
        let mut terms = Terms { policies, trust, forwarded, ..Terms::new(self.router.clone()) };
        terms.settings.max_head_fields = self.limits.head_fields;
        terms.settings.max_head_bytes = self.limits.head_bytes;
        Ok(egress::explain(&terms, request, connection))
    }

    /// Rules that forward to where this very listener may be, which cannot be known here, and where that is.
    pub fn possible_circles(&self) -> impl Iterator<Item = (String, &Target)> {
        self.policies.iter().filter_map(|PolicyConfig(rule)| match &rule.action {
            Action::Forward(to) if circle::between(&to.target, self.http) == Circle::Possible => {
                Some((rule.to_string(), &to.target))
            }
            _ => None,
        })
    }

    /// Which requests it denies or sends elsewhere. Loads the files of TLS to upstreams.
    ///
    /// # Errors
    /// What is wrong with those files.
    pub fn rules(&self) -> Result<TrafficRules, TlsError> {
        self.rules_after(|_| None)
    }

    /// The same, where `known` says what is there already of the server to which the rule of a priority forwards.
    ///
    /// # Errors
    /// As of [`Self::rules`].
    pub fn rules_after(&self, known: impl Fn(Priority) -> Option<Known>) -> Result<TrafficRules, TlsError> {
        policies::rules(&self.policies, known)
    }
}

/// One item of the list.
enum Item {
    Other(EgressConfig),
    Udp(UdpEgressConfig),
}

/// Reads the whole list: the listeners for requests and bytes, and those for datagrams, each in the order of the file.
pub(super) fn egress(at: At<'_>) -> Option<(Vec<EgressConfig>, Vec<UdpEgressConfig>)> {
    let (mut others, mut datagrams) = (Vec::new(), Vec::new());
    for item in at.list(|item| item.section(self::item))? {
        match item {
            Item::Other(listener) => others.push(listener),
            Item::Udp(listener) => datagrams.push(listener),
        }
    }
    Some((others, datagrams))
}

fn item(section: &mut Section<'_>) -> Option<Item> {
    if section.has("udp") && !section.has("http") && !section.has("tcp") {
        return udp::listener(section).map(Item::Udp);
    }
    listener(section).map(Item::Other)
}

/// Exactly one of the kinds of listener, and one that exists already.
fn listener(section: &mut Section<'_>) -> Option<EgressConfig> {
    let kinds: Vec<&str> = LISTENER_KINDS.into_iter().filter(|kind| section.has(kind)).collect();
    match kinds[..] {
        [] => section.at().wrong(format!("has no listener; expected one of {}", alternatives(&LISTENER_KINDS))),
        [_] => {}
        _ => section.at().wrong(format!("names several kinds of listener; expected one of {}", alternatives(&kinds))),
    }
    let is_tcp = kinds.contains(&"tcp");
    if kinds.contains(&"udp") {
        // What is wrong with its keys is told, too.
        udp::listener(section);
    }
    let http = if kinds == ["tcp"] { None } else { http_listener(section) };
    let tcp = if is_tcp { tcp::listener(section) } else { None };
    if is_tcp { tcp.map(EgressConfig::from) } else { http.map(EgressConfig::from) }
}

fn http_listener(section: &mut Section<'_>) -> Option<HttpEgress> {
    let http3 = http3(section);
    let http = address(section, http3.enabled);
    let tls = section.optional("tls", listener_tls);
    let router = router(section);
    let half_close = section.or("half_close", false, |at| at.boolean());
    let access_log = section.or("access_log", AccessLog::On, access_log);
    let trust = section.or("trust", Vec::new(), |at| at.list(|item| item.parsed()));
    let proxy_protocol = proxies(section);
    let forwarded = section.or("forwarded", Forms::default(), |at| at.word(&FORMS));
    let rewrite = section.or("rewrite", Vec::new(), |at| at.list(rewrite::step));
    let around = Around {
        knows_peers: tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
        about: About::Requests,
        router: router.as_ref(),
        exports: None,
        listens: http,
    };
    let policies = section.or("policies", Vec::new(), |at| policies(at, &around));
    let limits = section.or("limits", EgressLimits::default(), limits);
    Some(HttpEgress {
        http: http?,
        tls,
        http3,
        router: router?,
        half_close,
        access_log,
        trust: Trust::new(trust),
        proxy_protocol,
        forwarded,
        rewrite,
        policies,
        limits,
    })
}

/// Those who must say who connected to them.
fn proxies(section: &mut Section<'_>) -> Trust {
    Trust::new(section.or("proxy_protocol", Vec::new(), |at| at.list(|item| item.parsed())))
}

fn address(section: &mut Section<'_>, http3: bool) -> Option<SocketAddr> {
    let protocols: &[Protocol] = if http3 { &[Protocol::Tcp, Protocol::Udp] } else { &[Protocol::Tcp] };
    section.optional("http", |at| at.listener(protocols))
}

fn router(section: &mut Section<'_>) -> Option<RouterSettings> {
    let knows = Knows::of_requests(section);
    let goal = goal(section, knows);
    let host_id = section.optional("host_id", |at| id_template::<HostId>(&at, knows));
    if !section.has("host_id") && !section.has("to") {
        section.missing("host_id", HOST_ID_FORM);
    }
    let tenant = section.optional("tenant", |at| tenant(&at, knows));
    let service = section.optional("service", |at| at.parsed());
    let connect = section.or("connect", Connect::Off, connect::connect);
    let connect_udp = section.or("connect_udp", Connect::Off, connect::connect);
    let routes = section.or("routes", Vec::new(), |at| at.list(|at| route(at, knows)));
    let affinity = section.optional("affinity", |at| knows.checked(&at, at.checked(Template::parse)));
    let hold = section.or("hold", DEFAULT_HOLD, |at| at.duration(Duration::ZERO..=MAX_HOLD));
    let deadline = section.or("deadline", DEFAULT_DEADLINE, |at| at.duration(Duration::from_millis(1)..=MAX_DEADLINE));
    let balance = balance(section);
    let Goal { host_id: goal_host_id, service: goal_service, tenant: goal_tenant } = goal.unwrap_or_default();
    Some(RouterSettings {
        host_id: Some(host_id.or(goal_host_id)?),
        tenant: tenant.or(goal_tenant).unwrap_or_default(),
        routes,
        service: service.or(goal_service),
        service_template: None,
        connect,
        connect_udp,
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

fn goal(section: &mut Section<'_>, knows: Knows) -> Option<Goal> {
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
        let tenant = section.optional("tenant", |at| tenant(&at, knows));
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

/// Keys that a listener of another kind has.
fn elsewhere(section: &mut Section<'_>, keys: &[&'static str], kind: &str, expected: &str) {
    for key in keys {
        if let Some(at) = section.find(key) {
            at.wrong(format!("belongs to a listener of the kind {kind}; expected {expected}"));
        }
    }
}

fn route(at: At<'_>, knows: Knows) -> Option<Route> {
    at.section(|section| {
        elsewhere(section, &["server_name"], "tcp", "host or prefix");
        let matches = host_and_prefix(section);
        if !section.has("host") && !section.has("prefix") {
            section.at().wrong("covers every request; expected host, prefix or both");
        }
        let service: Option<ServiceName> = section.required("service", "the service that is meant", |at| at.parsed());
        let host_id = section.optional("host_id", |at| id_template::<HostId>(&at, knows));
        Some(Route { matches, service: Some(service?), host_id })
    })
}

fn tenant(at: &At<'_>, knows: Knows) -> Option<Tenant> {
    let template = id_template::<TenantId>(at, knows)?;
    // Text without operators was checked to be an id.
    Some(match TenantId::new(&template.to_string()) {
        Ok(tenant) => Tenant::Fixed(tenant),
        Err(_) => Tenant::Template(template),
    })
}

/// A template; one without operators is the id itself and is checked as such.
fn id_template<Id: FromStr<Err = IdError>>(at: &At<'_>, knows: Knows) -> Option<Template> {
    let template = at.checked(|text| {
        if !text.contains('%') {
            Id::from_str(text).map_err(|error| error.to_string())?;
        }
        Template::parse(text).map_err(|error| error.to_string())
    });
    knows.checked(at, template)
}

fn balance(section: &mut Section<'_>) -> Balance {
    let has_affinity = section.has("affinity");
    let balance = section.or("balance", Balance::default(), |at| {
        let balance = at.word(&BALANCES)?;
        if balance == Balance::Hash && !has_affinity {
            at.wrong("has nothing to hash; expected affinity beside it, such as \"%REQ(x-session)%\"");
        }
        Some(balance)
    });
    if balance != Balance::Hash
        && let Some(at) = section.find("affinity")
    {
        at.wrong("has no meaning where nodes are not chosen by it; expected `balance: hash` beside it");
    }
    balance
}

fn limits(at: At<'_>) -> Option<EgressLimits> {
    at.section(|section| {
        elsewhere(section, &["idle"], "tcp", "exchange_idle or connect_idle");
        elsewhere(section, &["connections_per_prefix"], "tcp", "connections");
        elsewhere(section, &OF_UDP, "udp", "exchange_idle or connect_idle");
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
        #[serde(serialize_with = "connect::as_written")]
        connect_udp: &'a Connect,
        routes: Vec<ShownRoute<'a>>,
        affinity: Option<String>,
        #[serde(serialize_with = "show::duration")]
        hold: Duration,
        #[serde(serialize_with = "show::duration")]
        deadline: Duration,
        #[serde(serialize_with = "balance_as_written")]
        balance: Balance,
    }
    let shown = Shown {
        host_id: router.host_id.as_ref().map(ToString::to_string),
        tenant: router.tenant.to_string(),
        service: router.service.as_ref(),
        connect: &router.connect,
        connect_udp: &router.connect_udp,
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
