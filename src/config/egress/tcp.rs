//! A listener for bytes: where its connections go, and what they may ask for.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::knows::{Knows, SERVER_NAME};
use super::{
    BALANCES, IDLE_BOUNDS, MAX_HOLD, OF_UDP, balance, elsewhere, goal, id_template, proxies, tenant, trust_as_written,
    word_of,
};
use crate::config::access::{self, access_log};
use crate::config::listeners::Protocol;
use crate::config::policies::{self, About, Around, PolicyConfig, policies};
use crate::config::reader::{At, Section};
use crate::config::show;
use crate::egress;
use crate::egress::{Explained, Refused, Settings, TcpTerms, Terms, TrafficRules};
use crate::id::{HostId, ServiceName};
use crate::message::pattern::{HostPattern, Match, PathPrefix};
use crate::message::trust::Trust;
use crate::proxy::AccessLog;
use crate::routing::{Connect, DEFAULT_HOLD, Route, RouterSettings, Tenant};
use crate::template::Template;
use crate::tls::TlsError;

/// How long the target may take to be connected: what an initiator has for that, and the way there and back.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(15);
const MAX_DEADLINE: Duration = Duration::from_secs(300);
/// Below the time after which a connection that has not said enough is reset.
const NAMELESS_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(9);
const HOST_ID_FORM: &str = "a template such as \"%REQUESTED_SERVER_NAME%\", or `to`";
const SERVICE_FORM: &str = "the service that connections are for, here, in `to`, or by `routes`";

/// Limits that only a listener for requests has.
const OF_HTTP: [&str; 6] = ["head_bytes", "head_fields", "body_idle", "body_rate", "exchange_idle", "connect_idle"];

/// One listener for bytes: each of its connections goes to a service whose target is `tcp://` or `unix+raw:`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TcpEgress {
    /// `tcp`: where it listens; port 0 takes a free one.
    pub tcp: SocketAddr,
    /// Which tunnel a connection takes: `host_id`, `tenant`, `service`, `routes` by the name that is asked for in TLS,
    /// `affinity`, `hold` (default 2 s), `deadline` for the target to be connected (default 15 s, at most 5 min) and
    /// `balance`. `to: { node or cluster, service, tenant }` fixes the first three.
    #[serde(flatten, serialize_with = "router_as_written")]
    pub router: RouterSettings,
    /// `access_log`: one log line per connection. Default true.
    #[serde(serialize_with = "access::as_written")]
    pub access_log: AccessLog,
    /// `nameless_after`: where a name in TLS is asked for, a connection over which nothing has come for so long has none: its
    /// client waits for the server to speak first. 10 ms to 9 s. Default: it is reset after 10 s.
    #[serde(serialize_with = "show::optional_duration", skip_serializing_if = "Option::is_none")]
    pub nameless_after: Option<Duration>,
    /// `proxy_protocol`: the addresses and prefixes of the proxies in front, each of whose connections must begin with a PROXY
    /// header of version 1 or 2 that says who connected. What anybody else sends is for the target. Default: nobody.
    #[serde(serialize_with = "trust_as_written")]
    pub proxy_protocol: Trust,
    /// `policies`: which connections are denied or go elsewhere, by priority; by `source`, `tenant`, `service`, and by `host`,
    /// the name that is asked for in TLS.
    #[serde(serialize_with = "policies::without_requests", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyConfig>,
    /// `limits`: how many connections, and how long each may rest.
    pub limits: TcpLimits,
}

/// What the connections of a listener for bytes may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TcpLimits {
    /// `connections`: how many may be open at once; more wait in the kernel's backlog. Default 16384.
    pub connections: u32,
    /// `connections_per_prefix`: how many of them sources of one address prefix may have; more are reset. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_prefix: Option<u32>,
    /// `idle`: how long nothing may move in either direction, 1 s to 24 h; then the connection is reset. Default: as long as
    /// both ends like.
    #[serde(serialize_with = "show::optional_duration", skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}

impl Default for TcpLimits {
    fn default() -> Self {
        let standard = Settings::default();
        let connections = u32::try_from(standard.max_connections).unwrap_or(u32::MAX);
        Self { connections, connections_per_prefix: None, idle: None }
    }
}

impl TcpEgress {
    /// A listener with every default; `host_id` says which node or cluster a connection is for, and `service` what there.
    pub fn new(tcp: SocketAddr, host_id: Template, service: ServiceName) -> Self {
        let router =
            RouterSettings { service: Some(service), deadline: DEFAULT_DEADLINE, ..RouterSettings::new(host_id) };
        let (proxy_protocol, limits) = (Trust::default(), TcpLimits::default());
        let (access_log, policies) = (AccessLog::On, Vec::new());
        Self { tcp, router, access_log, nameless_after: None, proxy_protocol, policies, limits }
    }

    /// How it learns where a connection goes: the name in TLS is waited for where something depends on it.
    pub fn terms(&self) -> TcpTerms {
        let RouterSettings { host_id, tenant, affinity, routes, service_template, .. } = &self.router;
        let tenant = if let Tenant::Template(template) = tenant { Some(template) } else { None };
        let mut templates = host_id.iter().chain(affinity).chain(tenant).chain(service_template);
        let asks = |policy: &PolicyConfig| !policy.0.matches.host.is_empty();
        let server_name = !routes.is_empty()
            || self.policies.iter().any(asks)
            || templates.any(|template| template.to_string().contains(SERVER_NAME));
        let max_per_prefix = self.limits.connections_per_prefix.map(|most| most as usize);
        TcpTerms { server_name, nameless_after: self.nameless_after, max_per_prefix }
    }
}

impl TcpEgress {
    /// Which connections it denies or sends elsewhere.
    ///
    /// # Errors
    /// As of [`HttpEgress::rules`](super::HttpEgress::rules).
    pub fn rules(&self) -> Result<TrafficRules, TlsError> {
        policies::rules(&self.policies, |_| None)
    }

    /// What the listener would do with a connection from `remote`, which asks for this name in its TLS if it is TLS; unless it
    /// is one that no host can have.
    ///
    /// # Errors
    /// As of [`Self::rules`].
    pub fn explain(
        &self,
        remote: SocketAddr,
        server_name: Option<&str>,
    ) -> Result<Result<Explained, Refused>, TlsError> {
        let tcp = Some(self.terms());
        let terms = Terms { policies: self.rules()?, tcp, ..Terms::new(self.router.clone()) };
        Ok(egress::explain_connection(&terms, (remote, self.tcp), server_name))
    }
}

pub(super) fn listener(section: &mut Section<'_>) -> Option<TcpEgress> {
    let tcp = section.optional("tcp", |at| at.listener(&[Protocol::Tcp]));
    let router = router(section);
    let access_log = section.or("access_log", AccessLog::On, access_log);
    let nameless_after = section.optional("nameless_after", |at| at.duration(NAMELESS_BOUNDS));
    let proxy_protocol = proxies(section);
    let around =
        Around { knows_peers: false, about: About::Connections, router: router.as_ref(), exports: None, listens: None };
    let policies = section.or("policies", Vec::new(), |at| policies(at, &around));
    let limits = section.or("limits", TcpLimits::default(), limits);
    let egress = TcpEgress { tcp: tcp?, router: router?, access_log, nameless_after, proxy_protocol, policies, limits };
    if !egress.terms().server_name
        && let Some(at) = section.find("nameless_after")
    {
        at.wrong("is about names in TLS, and nothing asks for one here; expected routes, a template with %REQUESTED_SERVER_NAME% or \
                  a policy with host beside it");
    }
    Some(egress)
}

fn router(section: &mut Section<'_>) -> Option<RouterSettings> {
    let goal = goal(section, Knows::Connections);
    let host_id = section.optional("host_id", |at| id_template::<HostId>(&at, Knows::Connections));
    if !section.has("host_id") && !section.has("to") {
        section.missing("host_id", HOST_ID_FORM);
    }
    let tenant = section.optional("tenant", |at| tenant(&at, Knows::Connections));
    let (service, service_template) = section.optional("service", |at| service(&at)).unwrap_or_default();
    let mut names = Vec::new();
    let mut written = 0;
    let routes = section.or("routes", Vec::new(), |at| {
        at.list(|item| {
            written += 1;
            route(item, &mut names)
        })
    });
    let affinity = section.optional("affinity", |at| Knows::Connections.checked(&at, at.checked(Template::parse)));
    let hold = section.or("hold", DEFAULT_HOLD, |at| at.duration(Duration::ZERO..=MAX_HOLD));
    let deadline = section.or("deadline", DEFAULT_DEADLINE, |at| at.duration(Duration::from_millis(1)..=MAX_DEADLINE));
    let balance = balance(section);
    let goal = goal.unwrap_or_default();
    let is_named = section.has("service") || section.find("to").is_some_and(|to| to.has("service"));
    if !is_named && written == 0 {
        section.missing("service", SERVICE_FORM);
    }
    Some(RouterSettings {
        host_id: Some(host_id.or(goal.host_id)?),
        tenant: tenant.or(goal.tenant).unwrap_or_default(),
        routes,
        service: service.or(goal.service),
        service_template,
        connect: Connect::Off,
        connect_udp: Connect::Off,
        balance,
        affinity,
        hold,
        deadline,
    })
}

/// The name of a service, or a template for one.
fn service(at: &At<'_>) -> Option<(Option<ServiceName>, Option<Template>)> {
    let named = at.checked(|text| match text.contains('%') {
        true => Template::parse(text).map(|template| (None, Some(template))).map_err(|error| error.to_string()),
        false => ServiceName::new(text).map(|name| (Some(name), None)).map_err(|error| error.to_string()),
    })?;
    match named {
        (name, None) => Some((name, None)),
        (_, template) => Knows::Connections.checked(at, template).map(|template| (None, Some(template))),
    }
}

/// A route; `names` are those of the routes before it, and their lines.
fn route(at: At<'_>, names: &mut Vec<(HostPattern, u64)>) -> Option<Route> {
    at.section(|section| {
        elsewhere(section, &["host", "prefix"], "http", "server_name");
        let name = |at: At<'_>| {
            let form = "a name such as db.example.com or *.example.com";
            let name = at.understood(form, |text| text.parse::<HostPattern>().ok())?;
            match names.iter().find(|(known, _)| *known == name) {
                Some((known, line)) => {
                    let line = if *line == 0 { String::new() } else { format!(" in line {line}") };
                    at.wrong(format!("{known} is that of an earlier route{line}; expected each name once"));
                }
                None => names.push((name.clone(), at.line())),
            }
            Some(name)
        };
        let host = section.required("server_name", "the name that is asked for in TLS", name);
        let service: Option<ServiceName> = section.required("service", "the service that is meant", |at| at.parsed());
        let host_id = section.optional("host_id", |at| id_template::<HostId>(&at, Knows::Connections));
        let matches = Match { host: Some(host?), prefix: PathPrefix::root() };
        Some(Route { matches, service: Some(service?), host_id })
    })
}

fn limits(at: At<'_>) -> Option<TcpLimits> {
    at.section(|section| {
        elsewhere(section, &OF_HTTP, "http", "connections, connections_per_prefix or idle");
        elsewhere(section, &OF_UDP, "udp", "connections, connections_per_prefix or idle");
        Some(TcpLimits {
            connections: section.or("connections", TcpLimits::default().connections, |at| at.count(1..=1_000_000)),
            connections_per_prefix: section.optional("connections_per_prefix", |at| at.count(1..=1_000_000)),
            idle: section.optional("idle", |at| at.duration(IDLE_BOUNDS)),
        })
    })
}

/// The settings as they would be written.
fn router_as_written<S: Serializer>(router: &RouterSettings, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        host_id: Option<String>,
        tenant: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        routes: Vec<ShownRoute<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        affinity: Option<String>,
        #[serde(serialize_with = "show::duration")]
        hold: Duration,
        #[serde(serialize_with = "show::duration")]
        deadline: Duration,
        balance: Option<&'static str>,
    }
    let service = router.service.as_ref().map(ToString::to_string);
    let shown = Shown {
        host_id: router.host_id.as_ref().map(ToString::to_string),
        tenant: router.tenant.to_string(),
        service: service.or_else(|| router.service_template.as_ref().map(ToString::to_string)),
        routes: router.routes.iter().map(ShownRoute::from).collect(),
        affinity: router.affinity.as_ref().map(ToString::to_string),
        hold: router.hold,
        deadline: router.deadline,
        balance: word_of(&BALANCES, &router.balance),
    };
    shown.serialize(serializer)
}

#[derive(Serialize)]
struct ShownRoute<'a> {
    server_name: Option<String>,
    service: Option<&'a ServiceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<String>,
}

impl<'a> From<&'a Route> for ShownRoute<'a> {
    fn from(route: &'a Route) -> Self {
        Self {
            server_name: route.matches.host.as_ref().map(ToString::to_string),
            service: route.service.as_ref(),
            host_id: route.host_id.as_ref().map(ToString::to_string),
        }
    }
}
