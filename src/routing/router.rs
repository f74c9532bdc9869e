//! What a listener makes of a request: tenant, host id, service.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, Uri};

use crate::id::{HostId, IdError, ServiceName, TenantId};
use crate::message::authority::host_of;
use crate::message::failure::{Cause, Failure};
use crate::message::path::Readings;
use crate::message::pattern::Match;
use crate::registry::{Balance, Choice, affinity};
use crate::template::{Attributes, NoValue, Template};

/// How long a request waits for a node that is reconnecting.
pub const DEFAULT_HOLD: Duration = Duration::from_secs(2);
/// How long a response may take to begin.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// Where the path of a CONNECT-UDP begins. RFC 9298 section 3.4
const UDP_PREFIX: &str = "/.well-known/masque/udp/";

/// Told when there is nothing to read the host id from.
const NO_HOST_ID: &str = "the request has no host id; neither its route nor the listener names one";

/// What an egress listener does with requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterSettings {
    /// Whom a request asks for, unless its route says so. `None`: only routes say it. Without a value: 400.
    pub host_id: Option<Template>,
    /// In whose world the host id is looked up; default: the tenant `default`.
    pub tenant: Tenant,
    /// Which service or host id a request means; of several that cover it the most specific alone.
    pub routes: Vec<Route>,
    /// The service of requests whose route names none; `None`: the initiator decides by host and path.
    pub service: Option<ServiceName>,
    /// Of connections of bytes: a formatter for the service of those that no route covers, in the place of `service`. Without a
    /// value, or with one that is no name: 404.
    pub service_template: Option<Template>,
    /// Which services may be asked for with CONNECT; default: none.
    pub connect: Connect,
    /// Which services may be asked for with CONNECT-UDP (RFC 9298); default: none.
    pub connect_udp: Connect,
    /// How requests to a cluster are spread over its nodes; default: two choices.
    pub balance: Balance,
    /// What should stick to one node of a cluster when `balance` is hash. `None`: the sender's address without its
    /// port. Without a value: any node.
    pub affinity: Option<Template>,
    /// How long a request waits for a node that is reconnecting; default 2 s. Zero fails at once.
    pub hold: Duration,
    /// How long a response may take to begin once the request is sent, waiting included; default 60 s.
    pub deadline: Duration,
}

/// Where the tenant comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenant {
    /// The same for all requests.
    Fixed(TenantId),
    /// A formatter. Without a value: 400.
    Template(Template),
}

impl Default for Tenant {
    /// The tenant `default`.
    fn default() -> Self {
        Self::Fixed(TenantId::default())
    }
}

/// As it is written in a file.
impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(tenant) => tenant.fmt(f),
            Self::Template(template) => template.fmt(f),
        }
    }
}

/// Which services may be asked for with CONNECT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Connect {
    /// None.
    #[default]
    Off,
    /// All that an initiator exports for bytes.
    All,
    /// These.
    Services(Vec<ServiceName>),
}

/// Which requests go elsewhere than the listener says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Host and path.
    pub matches: Match,
    /// The service they mean; `None`: the listener's.
    pub service: Option<ServiceName>,
    /// Whom they ask for; `None`: what the listener says.
    pub host_id: Option<Template>,
}

impl RouterSettings {
    /// Settings with the defaults.
    pub fn new(host_id: Template) -> Self {
        Self {
            host_id: Some(host_id),
            tenant: Tenant::Fixed(TenantId::default()),
            routes: Vec::new(),
            service: None,
            service_template: None,
            connect: Connect::default(),
            connect_udp: Connect::default(),
            balance: Balance::default(),
            affinity: None,
            hold: DEFAULT_HOLD,
            deadline: DEFAULT_DEADLINE,
        }
    }
}

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// In whose world.
    pub tenant: TenantId,
    /// To which node or cluster.
    pub host_id: HostId,
    /// To which service there; `None`: the initiator decides.
    pub service: Option<ServiceName>,
    /// By which of the cluster's nodes.
    pub choice: Choice,
}

/// What a request means by its host and path, before it is asked whose node it wants.
#[derive(Debug)]
pub struct Meant<'a> {
    route: Option<&'a Route>,
    /// Which service; `None`: the initiator decides. Of a CONNECT that names none: why not.
    pub service: Result<Option<ServiceName>, Failure>,
    /// Whether it wants bytes both ways.
    is_connect: bool,
    /// Whether it wants datagrams.
    is_udp: bool,
}

/// The settings of a listener, ready for use.
#[derive(Debug)]
pub struct Router {
    /// Its routes are sorted: the first that covers a request is meant.
    settings: RouterSettings,
}

impl Router {
    /// Prepares settings for use.
    pub fn new(mut settings: RouterSettings) -> Self {
        settings.routes.sort_by_key(|route| std::cmp::Reverse(route.matches.specificity()));
        Self { settings }
    }

    /// The wait for a node that is reconnecting.
    pub fn hold(&self) -> Duration {
        self.settings.hold
    }

    /// The limit for a response to begin.
    pub fn deadline(&self) -> Duration {
        self.settings.deadline
    }

    /// The fields of a head that may decide where a request goes.
    pub fn deciding_fields(&self) -> impl Iterator<Item = HeaderName> {
        let RouterSettings { host_id, tenant, routes, service_template, affinity, .. } = &self.settings;
        let tenant = if let Tenant::Template(template) = tenant { Some(template) } else { None };
        let of_listener = [host_id.as_ref(), tenant, service_template.as_ref(), affinity.as_ref()];
        let of_routes = routes.iter().filter_map(|route| route.host_id.as_ref());
        let names = of_listener.into_iter().flatten().chain(of_routes).flat_map(Template::headers);
        // What begins with a colon is none.
        names.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
    }

    /// Whether a CONNECT may be asked for at all.
    pub fn takes_connect(&self) -> bool {
        self.settings.connect != Connect::Off
    }

    /// What a request means by its host and path.
    ///
    /// # Errors
    ///
    /// The path can be read in two ways that mean different routes: 400.
    pub fn meant(&self, uri: &Uri) -> Result<Meant<'_>, Failure> {
        let route = self.route(uri)?;
        let service = route.and_then(|route| route.service.as_ref()).or(self.settings.service.as_ref());
        Ok(Meant { route, service: Ok(service.cloned()), is_connect: false, is_udp: false })
    }

    /// What a CONNECT means. It has no path, so only a route with a host, for all paths of it, can cover it; where none does,
    /// the host of the authority is the name of the service. Its port has no meaning. spec: ST-65
    pub fn meant_by_connect(&self, uri: &Uri) -> Meant<'_> {
        let authority = uri.authority().map_or("", Authority::as_str);
        let covers = |route: &&Route| route.matches.host.is_some() && route.matches.covers(authority, "/");
        let route = self.settings.routes.iter().find(covers);
        let service = match route.and_then(|route| route.service.as_ref()) {
            Some(service) => Ok(Some(service.clone())),
            None => named_by(authority).map(Some),
        };
        Meant { route, service, is_connect: true, is_udp: false }
    }

    /// Where what is meant goes; to `instead` if a rule says so, whatever the request and its route say.
    ///
    /// # Errors
    ///
    /// Neither the route nor the listener names a host id, host id or tenant have no value, or one that is no identifier, or
    /// a field that decides is there twice or is not text: 400. Of a CONNECT also: its host is no name of a service (404),
    /// or one of a service that may not be asked for here (403).
    pub fn destination(
        &self,
        attributes: &dyn Attributes,
        meant: Meant<'_>,
        instead: Option<&HostId>,
    ) -> Result<Destination, Failure> {
        let Meant { route, service, is_connect, is_udp } = meant;
        let service = service?;
        if is_connect && !service.as_ref().is_some_and(|service| self.settings.connect.allows(service)) {
            let service = service.as_ref().map_or("", ServiceName::as_str);
            let details = format!("this listener takes no CONNECT to the service {service}");
            return Err(Failure::new(Cause::Denied, details));
        }
        if is_udp && !service.as_ref().is_some_and(|service| self.settings.connect_udp.allows(service)) {
            let service = service.as_ref().map_or("", ServiceName::as_str);
            let details = format!("this listener takes no CONNECT-UDP to the service {service}");
            return Err(Failure::new(Cause::Denied, details));
        }
        let host_id = match instead {
            Some(host_id) => host_id.clone(),
            None => self.host_id(attributes, route)?,
        };
        Ok(Destination { tenant: self.tenant(attributes)?, host_id, service, choice: self.choice(attributes)? })
    }

    /// What a connection of bytes means: the route that has the name that it asks for in its TLS, or else the service of the
    /// listener. Where neither is there, that is said by [`Router::destination`] (404).
    pub fn meant_by_bytes(&self, attributes: &dyn Attributes) -> Meant<'_> {
        let name = attributes.server_name();
        let route = name.and_then(|name| self.settings.routes.iter().find(|route| route.matches.covers(name, "/")));
        let service = route.and_then(|route| route.service.as_ref()).or(self.settings.service.as_ref());
        let rendered = self.settings.service_template.as_ref().filter(|_| service.is_none());
        if let Some(template) = rendered {
            let service = service_of(template, attributes).map(Some);
            return Meant { route, service, is_connect: false, is_udp: false };
        }
        let service = service.cloned().ok_or_else(|| {
            let asked = name.map_or_else(|| "names no server".to_owned(), |name| format!("asks for {name}"));
            let details = format!("the connection {asked}, for which the listener has no service");
            Failure::new(Cause::UnknownService, details)
        });
        Meant { route, service: service.map(Some), is_connect: false, is_udp: false }
    }

    /// Whether CONNECT-UDP may be asked for at all. Where it may not, a request for it is one like any other.
    pub fn takes_connect_udp(&self) -> bool {
        self.settings.connect_udp != Connect::Off
    }

    /// What a CONNECT-UDP means: its path has a host, which is the name of the service, and a port, which has no meaning.
    /// spec: ST-79
    ///
    /// # Errors
    ///
    /// The path has another form: 400.
    pub fn meant_by_connect_udp(&self, uri: &Uri) -> Result<Meant<'_>, Failure> {
        let service = service_named(udp_host(uri.path())?).map(Some);
        Ok(Meant { route: None, service, is_connect: false, is_udp: true })
    }

    fn host_id(&self, attributes: &dyn Attributes, route: Option<&Route>) -> Result<HostId, Failure> {
        let host_id = route.and_then(|route| route.host_id.as_ref()).or(self.settings.host_id.as_ref());
        let host_id = host_id.ok_or_else(|| Failure::new(Cause::NoHostId, NO_HOST_ID))?;
        render("host id", host_id, attributes, HostId::new)
    }

    fn route(&self, uri: &Uri) -> Result<Option<&Route>, Failure> {
        let routes = &self.settings.routes;
        if routes.is_empty() {
            return Ok(None);
        }
        let authority = uri.authority().map_or("", Authority::as_str);
        let covering = |path: &str| routes.iter().position(|route| route.matches.covers(authority, path));
        let found = Readings::of(uri.path()).agree(covering);
        let found = found.map_err(|ambiguous| Failure::new(Cause::BadRequest, ambiguous.to_string()))?;
        Ok(found.map(|index| &routes[index]))
    }

    /// In whose world a request is looked up.
    ///
    /// # Errors
    ///
    /// The tenant has no value, or one that is no identifier: 400.
    pub fn tenant(&self, attributes: &dyn Attributes) -> Result<TenantId, Failure> {
        match &self.settings.tenant {
            Tenant::Fixed(tenant) => Ok(tenant.clone()),
            Tenant::Template(template) => render("tenant", template, attributes, TenantId::new),
        }
    }

    /// What should stick counts only for hash: two choices of the same two nodes would not be any.
    fn choice(&self, attributes: &dyn Attributes) -> Result<Choice, Failure> {
        let balance = self.settings.balance;
        let sticky = if balance == Balance::Hash { self.affinity(attributes)? } else { None };
        Ok(Choice { balance, entropy: sticky.map_or_else(rand::random, |text| affinity(&text)) })
    }

    /// What should stick. An IPv4 sender is the same one whether or not the listener's socket is an IPv6 one.
    fn affinity<'a>(&'a self, attributes: &'a dyn Attributes) -> Result<Option<Cow<'a, str>>, Failure> {
        let Some(template) = &self.settings.affinity else {
            return Ok(attributes.remote_address().map(|remote| remote.ip().to_canonical().to_string().into()));
        };
        match template.render(attributes) {
            Ok(text) => Ok(Some(text)),
            Err(NoValue::Absent) => Ok(None),
            Err(unclear) => Err(Failure::new(Cause::BadRequest, format!("the affinity has no value: {unclear}"))),
        }
    }
}

impl Connect {
    fn allows(&self, service: &ServiceName) -> bool {
        match self {
            Self::Off => false,
            Self::All => true,
            Self::Services(names) => names.contains(service),
        }
    }
}

/// The host in a path of the default template of RFC 9298.
fn udp_host(path: &str) -> Result<&str, Failure> {
    let rest = path.strip_prefix(UDP_PREFIX).map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let found = rest.and_then(|rest| rest.split_once('/'));
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    match found {
        // It has no port of its own: what a rule for a path would not see must not name a service.
        Some((host, port)) if !host.is_empty() && !host.contains([':', '@']) && is_port(port) => Ok(host),
        _ => Err(Failure::new(Cause::BadRequest, format!("the path of CONNECT-UDP is {UDP_PREFIX} and host/port/"))),
    }
}

/// The service that a formatter names.
fn service_of(template: &Template, attributes: &dyn Attributes) -> Result<ServiceName, Failure> {
    let unknown = |why: String| Failure::new(Cause::UnknownService, format!("the connection names no service: {why}"));
    let text = template.render(attributes).map_err(|why| match why {
        NoValue::Absent => unknown(format!("{template} has no value")),
        unclear => unknown(unclear.to_string()),
    })?;
    ServiceName::new(&text).map_err(|error| unknown(format!("{text} {error}")))
}

fn named_by(authority: &str) -> Result<ServiceName, Failure> {
    service_named(host_of(authority))
}

fn service_named(host: &str) -> Result<ServiceName, Failure> {
    ServiceName::new(host)
        .map_err(|error| Failure::new(Cause::UnknownService, format!("no service has the name {host}: it {error}")))
}

fn render<I>(
    what: &str,
    template: &Template,
    attributes: &dyn Attributes,
    parse: impl FnOnce(&str) -> Result<I, IdError>,
) -> Result<I, Failure> {
    let text = template.render(attributes).map_err(|why| match why {
        NoValue::Absent => Failure::new(Cause::NoHostId, format!("the request has no {what}; {template} has no value")),
        unclear => Failure::new(Cause::NoHostId, format!("the request has no {what}: {unclear}")),
    })?;
    parse(&text).map_err(|error| Failure::new(Cause::NoHostId, format!("the {what} {error}")))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::template::Unclear;

    /// A request with these headers from this address.
    struct Sent<'a> {
        headers: &'a [(&'a str, &'a str)],
        from: Option<SocketAddr>,
    }

    impl Attributes for Sent<'_> {
        fn request_header(&self, name: &str) -> Result<Option<&str>, Unclear> {
            let mut values = self.headers.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value);
            let first = values.next();
            if values.next().is_some() { Err(Unclear::Repeated) } else { Ok(first) }
        }
        fn remote_address(&self) -> Option<SocketAddr> {
            self.from
        }
        fn server_name(&self) -> Option<&str> {
            None
        }
        fn peer_uri_san(&self) -> Option<&str> {
            None
        }
        fn peer_dns_san(&self) -> Option<&str> {
            None
        }
    }

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    fn settings() -> RouterSettings {
        RouterSettings::new(template("%REQ(x-node-id?x-cluster-id)%"))
    }

    fn route(host: Option<&str>, prefix: &str, service: &str) -> Route {
        Route {
            matches: Match { host: host.map(|host| host.parse().unwrap()), prefix: prefix.parse().unwrap() },
            service: Some(service.parse().unwrap()),
            host_id: None,
        }
    }

    fn resolve(settings: RouterSettings, headers: &[(&str, &str)], uri: &str) -> Result<Destination, Failure> {
        let (router, uri) = (Router::new(settings), uri.parse().unwrap());
        router.destination(&Sent { headers, from: None }, router.meant(&uri)?, None)
    }

    const NODE: &[(&str, &str)] = &[("x-node-id", "edge-17"), ("x-session", "s1")];

    #[test]
    fn the_host_id_comes_from_the_request_and_the_tenant_from_the_listener() {
        let destination = resolve(settings(), NODE, "http://h/").unwrap();
        assert_eq!(destination.host_id.as_str(), "edge-17");
        assert_eq!(destination.tenant, TenantId::default());
        assert_eq!(destination.service, None);
    }

    #[test]
    fn a_request_without_a_host_id_is_refused_with_the_reason() {
        let failure = resolve(settings(), &[], "http://h/").unwrap_err();
        assert_eq!(failure.cause(), Cause::NoHostId);
        assert!(failure.details().contains("%REQ(x-node-id?x-cluster-id)%"), "{failure}");
        let failure = resolve(settings(), &[("x-node-id", "a/b")], "http://h/").unwrap_err();
        assert_eq!(failure.cause(), Cause::NoHostId);
        assert!(failure.details().contains("0x2f"), "{failure}");
    }

    /// A port behind the host was taken away, so that a service was reached by a path that no rule for its own path saw.
    // spec: ST-79
    #[test]
    fn the_path_of_a_connect_udp_has_one_spelling_for_a_service() {
        let router = Router::new(settings());
        let meant = |path: &str| {
            let uri = format!("https://h{UDP_PREFIX}{path}").parse().unwrap();
            router.meant_by_connect_udp(&uri).map(|meant| meant.service.map_err(|failure| failure.cause()))
        };
        for path in ["dns/53/", "dns/53"] {
            assert_eq!(meant(path).unwrap(), Ok(Some("dns".parse().unwrap())), "{path}");
        }
        for path in ["dns:80/53/", "dns:/53/", "u@dns/53/", "[::1]/53/", "/53/", "dns/0/", "dns/65536/", "dns/53/x"] {
            assert_eq!(meant(path).unwrap_err().cause(), Cause::BadRequest, "{path}");
        }
        assert_eq!(meant("dns%3A80/53/").unwrap(), Err(Cause::UnknownService));
    }

    #[test]
    fn a_field_that_decides_the_route_is_there_once() {
        let twice = |name| [("x-node-id", "edge-17"), ("x-tenant", "acme"), ("x-session", "s1"), (name, "x")];
        let tenant = Tenant::Template(template("%REQ(x-tenant)%"));
        let settings = RouterSettings { tenant, ..sticky(Some("%REQ(x-session)%")) };
        for name in ["x-node-id", "x-tenant", "x-session"] {
            let failure = resolve(settings.clone(), &twice(name), "http://h/").unwrap_err();
            assert_eq!(failure.cause().status().as_u16(), 400, "{name}");
            assert!(failure.details().contains(&format!("header {name} is there more than once")), "{failure}");
        }
        assert!(resolve(settings, &twice("x-other"), "http://h/").is_ok());
    }

    #[test]
    fn a_tenant_without_a_value_never_becomes_the_default_one() {
        let tenant = Tenant::Template(template("%REQ(x-tenant)%"));
        let settings = RouterSettings { tenant, ..settings() };
        let failure = resolve(settings.clone(), NODE, "http://h/").unwrap_err();
        assert_eq!(failure.cause(), Cause::NoHostId);
        let headers = [("x-node-id", "edge-17"), ("x-tenant", "acme")];
        assert_eq!(resolve(settings, &headers, "http://h/").unwrap().tenant.as_str(), "acme");
    }

    #[test]
    fn the_most_specific_route_names_the_service() {
        let routes = vec![
            route(None, "/", "web"),
            route(None, "/api", "api"),
            route(Some("*.example.com"), "/", "below"),
            route(Some("a.example.com"), "/", "exact"),
        ];
        let settings = RouterSettings { routes, ..settings() };
        for (uri, expected) in [
            ("http://h/x", "web"),
            ("http://h/api/x", "api"),
            ("http://b.example.com/api", "below"),
            ("http://a.example.com/api", "exact"),
        ] {
            let destination = resolve(settings.clone(), NODE, uri).unwrap();
            assert_eq!(destination.service.unwrap().as_str(), expected, "{uri}");
        }
    }

    #[test]
    fn a_route_is_chosen_by_the_normal_form_of_a_path() {
        let settings =
            RouterSettings { routes: vec![route(None, "/", "web"), route(None, "/api", "api")], ..settings() };
        let chosen = |path: &str| {
            let destination = resolve(settings.clone(), NODE, &format!("http://h{path}"));
            destination.map(|to| to.service.unwrap().to_string()).map_err(|failure| failure.cause())
        };
        for path in ["/api/../x", "/api/%2e%2e/x", "/api/.%2E", "/x/..", "//apix", "/%61pix", "/a%2fb"] {
            assert_eq!(chosen(path).as_deref(), Ok("web"), "{path}");
        }
        for path in ["//api", "/x/../api/", "/%61pi", "/./api", "/api//../x/../../api", "/api/a%2fb"] {
            assert_eq!(chosen(path).as_deref(), Ok("api"), "{path}");
        }
        for path in ["/api%2fx", "/api/..%2fx", "/api/..\\x", "/x/..%2fapi", "/api/..;a/x"] {
            assert_eq!(chosen(path), Err(Cause::BadRequest), "{path}");
        }
    }

    #[test]
    fn without_a_route_the_default_service_is_meant() {
        let settings = RouterSettings {
            routes: vec![route(None, "/api", "api")],
            service: Some("web".parse().unwrap()),
            ..settings()
        };
        assert_eq!(resolve(settings, NODE, "http://h/").unwrap().service.unwrap().as_str(), "web");
    }

    #[test]
    fn a_route_may_name_its_own_host_id() {
        let own = Route { host_id: Some(template("central")), ..route(None, "/central", "api") };
        let settings = RouterSettings { routes: vec![own], ..settings() };
        assert_eq!(resolve(settings.clone(), &[], "http://h/central/x").unwrap().host_id.as_str(), "central");
        assert_eq!(resolve(settings, NODE, "http://h/").unwrap().host_id.as_str(), "edge-17");
    }

    #[test]
    fn a_route_may_change_the_host_id_and_leave_the_service_to_the_listener() {
        let only_host_id =
            Route { service: None, host_id: Some(template("central")), ..route(None, "/central", "api") };
        let routes = vec![route(None, "/", "web"), only_host_id];
        let central = |service: Option<&str>| {
            let service = service.map(|service| service.parse().unwrap());
            resolve(RouterSettings { routes: routes.clone(), service, ..settings() }, NODE, "http://h/central").unwrap()
        };
        assert_eq!(central(None).host_id.as_str(), "central");
        assert_eq!(central(None).service, None);
        assert_eq!(central(Some("api")).service.unwrap().as_str(), "api");
    }

    #[test]
    fn without_a_host_id_of_the_listener_only_routes_that_name_one_are_served() {
        let own = Route { host_id: Some(template("central")), ..route(None, "/central", "api") };
        let routes = vec![own, route(None, "/other", "api")];
        let settings = RouterSettings { host_id: None, routes, ..settings() };
        assert_eq!(resolve(settings.clone(), NODE, "http://h/central/x").unwrap().host_id.as_str(), "central");
        for uri in ["http://h/", "http://h/other"] {
            let failure = resolve(settings.clone(), NODE, uri).unwrap_err();
            assert_eq!((failure.cause(), failure.cause().status().as_u16()), (Cause::NoHostId, 400), "{uri}");
            assert!(failure.details().contains("neither its route nor the listener"), "{failure}");
        }
    }

    fn connect(settings: &RouterSettings, to: &str) -> Result<Destination, Failure> {
        let sent = Sent { headers: NODE, from: None };
        let (router, uri) = (Router::new(settings.clone()), Uri::try_from(to).unwrap());
        router.destination(&sent, router.meant_by_connect(&uri), None)
    }

    // spec: ST-65
    #[test]
    fn the_host_of_a_connect_is_the_service_unless_a_route_has_that_host() {
        let sites = Route { host_id: Some(template("edge-18")), ..route(Some("ssh.sites.example"), "/", "ssh") };
        let routes = vec![sites, route(None, "/", "web"), route(Some("*.sites.example"), "/api", "api")];
        let settings =
            RouterSettings { routes, service: Some("web".parse().unwrap()), connect: Connect::All, ..settings() };
        for (to, service, host_id) in [
            ("db:5432", "db", "edge-17"),
            ("ssh.sites.example:22", "ssh", "edge-18"),
            ("db.sites.example:22", "db.sites.example", "edge-17"),
        ] {
            let destination = connect(&settings, to).unwrap();
            let named = destination.service.as_ref().map(ServiceName::as_str);
            assert_eq!((named, destination.host_id.as_str()), (Some(service), host_id), "{to}");
        }
        assert_eq!(connect(&settings, "[::1]:22").unwrap_err().cause(), Cause::UnknownService);
    }

    #[test]
    fn a_connect_reaches_only_what_the_listener_allows() {
        assert!(!Router::new(settings()).takes_connect());
        assert_eq!(connect(&settings(), "db:5432").unwrap_err().cause(), Cause::Denied);
        let settings = RouterSettings { connect: Connect::Services(vec!["db".parse().unwrap()]), ..settings() };
        assert!(Router::new(settings.clone()).takes_connect());
        assert!(connect(&settings, "db:1").is_ok());
        assert_eq!(connect(&settings, "ssh:22").unwrap_err().cause(), Cause::Denied);
    }

    fn sticky(affinity: Option<&str>) -> RouterSettings {
        RouterSettings { balance: Balance::Hash, affinity: affinity.map(template), ..settings() }
    }

    fn entropy(settings: &RouterSettings, headers: &[(&str, &str)], from: Option<&str>) -> u64 {
        let sent = Sent { headers, from: from.map(|from| from.parse().unwrap()) };
        let (router, uri) = (Router::new(settings.clone()), Uri::from_static("http://h/"));
        let destination = router.destination(&sent, router.meant(&uri).unwrap(), None).unwrap();
        assert_eq!(destination.choice.balance, settings.balance);
        destination.choice.entropy
    }

    const UNBOUND: &[(&str, &str)] = &[("x-node-id", "edge-17")];

    #[test]
    fn what_should_stick_decides_the_entropy() {
        let settings = sticky(Some("%REQ(x-session)%"));
        assert_eq!(entropy(&settings, NODE, Some("192.0.2.1:1")), entropy(&settings, NODE, Some("192.0.2.2:2")));
        // Without a value any node will do, even for the same sender.
        let unbound = || entropy(&settings, UNBOUND, Some("192.0.2.1:1"));
        assert_ne!(unbound(), unbound());
    }

    #[test]
    fn without_an_affinity_a_sender_sticks_whatever_its_port() {
        let settings = sticky(None);
        let from = |address| entropy(&settings, UNBOUND, Some(address));
        assert_eq!(from("192.0.2.1:1"), from("192.0.2.1:2"));
        assert_eq!(from("192.0.2.1:1"), from("[::ffff:192.0.2.1]:3"));
        assert_ne!(from("192.0.2.1:1"), from("192.0.2.2:1"));
        assert_ne!(entropy(&settings, UNBOUND, None), entropy(&settings, UNBOUND, None));
    }

    #[test]
    fn nothing_sticks_unless_the_balance_is_hash() {
        for balance in [Balance::TwoChoices, Balance::RoundRobin] {
            for affinity in [None, Some("%REQ(x-session)%")] {
                let settings = RouterSettings { balance, ..sticky(affinity) };
                let drawn = || entropy(&settings, NODE, Some("192.0.2.1:1"));
                assert_ne!(drawn(), drawn(), "{balance:?} {affinity:?}");
            }
        }
    }
}
