//! `services`: what an initiator exports, and the local target behind each name.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::health;
use crate::config::reader::{At, Section};
use crate::config::rewrite::{self, StepConfig, prefix};
use crate::config::show;
use crate::config::tls::{TargetTlsConfig, target_tls};
use crate::id::ServiceName;
use crate::initiator::serve::{HealthCheck, ServiceLimits, ServiceSettings};
use crate::message::pattern::{Match, PathPrefix};
use crate::message::upgrade::Protocol;
use crate::protocol::limits::{DEFAULT_FLOW_IDLE_TIMEOUT, DEFAULT_FLOWS};
use crate::targets::{DEFAULT_CONNECT_TIMEOUT, Target, TargetSettings};
use crate::tls::TlsError;

const MATCH_FORMS: &str = "{ host, prefix }, {} for every request, or none for requests that name the service";

const FROM_FORM: &str = "ip:port such as 127.0.0.1:4789, with port 0 for any";

const UPGRADE_FORM: &str = "the name of a protocol, perhaps with a version behind a slash, such as tcp";

/// One exported service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceConfig {
    /// `name`: how the responder's egress asks for it. 1 to 64 bytes, unique in the file.
    #[serde(serialize_with = "show::text")]
    pub name: ServiceName,
    /// `match`: which requests come here that name no service: those for `host` (a name, or `*.` and a name; any when
    /// absent) below the path `prefix` (in whole segments; `/` when absent). The most specific service takes a
    /// request. `none`: no such request. The key must be there: a service that forgot it would silently stay idle. For a
    /// target of bytes only `none` is possible, and may be left out.
    #[serde(rename = "match", serialize_with = "match_as_written")]
    pub matches: Option<Match>,
    /// `target`: where its exchanges go; nothing else can be dialled through a tunnel. `http://host:port` (HTTP/1.1),
    /// `h2c://host:port` (HTTP/2), both with port 80 when absent, the same over TLS as `https://host:port` and
    /// `h2://host:port` (port 443), `unix:/path` or `unix+h2c:/path`. For bytes as they come, `tcp://host:port` or
    /// `unix+raw:/path`; for datagrams `udp://host:port`.
    #[serde(serialize_with = "show::text")]
    pub target: Target,
    /// `tls`: which target is genuine, and what it is shown; for `https://` and `h2://`, and needed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TargetTlsConfig>,
    /// `rewrite`: what is done to each request before the target gets it, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<StepConfig>,
    /// `limits`: what it may have under way, and at its target.
    #[serde(skip_serializing_if = "is_unlimited", serialize_with = "limits_as_written")]
    pub limits: ServiceLimits,
    /// `health`: how its target is checked; when absent its requests alone tell how it is.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "health::as_written")]
    pub health: Option<HealthCheck>,
    /// `upgrades`: the protocols beside WebSocket that its requests may go on in, by the name that stands in `Upgrade`;
    /// none when absent.
    pub upgrades: Vec<String>,
    /// `proxy_protocol: v2`: a target of bytes is told who connected to the responder, at the beginning of each connection.
    #[serde(serialize_with = "proxy_as_written", skip_serializing_if = "std::ops::Not::not")]
    pub proxy_protocol: bool,
    /// `from`: the address that datagrams come from, as the target sees it, for protocols that do not answer to where they were
    /// asked from, such as VXLAN. Default: a port of its own for each flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<SocketAddr>,
    /// `connect_timeout`: how long a target of requests or bytes may take to be connected, TLS included; 1 ms to 5 min. Default
    /// 5 s.
    #[serde(serialize_with = "show::optional_duration", skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// `max_flows`: how many flows a target of datagrams may have at once, each with a socket; 1 to 65536. Default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<usize>,
    /// `flow_idle`: how long such a flow may carry nothing, 1 s to 24 h. Default 2 min.
    #[serde(serialize_with = "show::optional_duration", skip_serializing_if = "Option::is_none")]
    pub flow_idle: Option<Duration>,
}

impl ServiceConfig {
    /// A service for requests that name it, and for no others.
    pub fn new(name: ServiceName, target: Target) -> Self {
        Self {
            name,
            matches: None,
            target,
            tls: None,
            rewrite: Vec::new(),
            limits: ServiceLimits::default(),
            health: None,
            upgrades: Vec::new(),
            proxy_protocol: false,
            from: None,
            connect_timeout: None,
            max_flows: None,
            flow_idle: None,
        }
    }

    /// The settings of the initiator's service. Loads the files of `tls`.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn settings(&self) -> Result<ServiceSettings, TlsError> {
        let tls = self.tls.as_ref().map(TargetTlsConfig::target).transpose()?;
        Ok(ServiceSettings {
            name: self.name.clone(),
            matches: self.matches.clone(),
            target: self.target.clone(),
            connections: TargetSettings {
                tls,
                connect_timeout: self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
                flow_from: self.from,
                max_flows: self.max_flows.unwrap_or(DEFAULT_FLOWS),
                flow_idle_timeout: self.flow_idle.unwrap_or(DEFAULT_FLOW_IDLE_TIMEOUT),
                ..TargetSettings::default()
            },
            limits: self.limits,
            health: self.health.clone(),
            rewrite: rewrite::steps(&self.rewrite),
            upgrades: self.upgrades.clone(),
            proxy_header: self.proxy_protocol,
        })
    }
}

/// Reads the whole list; no two services may have one name.
pub(super) fn services(at: At<'_>) -> Option<Vec<ServiceConfig>> {
    let mut names: Vec<ServiceName> = Vec::new();
    at.list(|item| service(item, &mut names))
}

/// How long a flow may rest.
pub(super) fn flow_idle(at: At<'_>) -> Option<Duration> {
    at.duration(Duration::from_secs(1)..=Duration::from_secs(24 * 3600))
}

fn service(at: At<'_>, names: &mut Vec<ServiceName>) -> Option<ServiceConfig> {
    at.section(|section| {
        let name = section.required("name", "a name of 1 to 64 bytes", |at| unique_name(&at, names));
        let target = section.required("target", "http://host:port, for example", |at| target(&at));
        let takes_bytes = target.as_ref().is_some_and(Target::is_raw);
        let takes_datagrams = target.as_ref().is_some_and(Target::is_udp);
        let is_raw = takes_bytes || takes_datagrams;
        let matches = match &target {
            Some(_) if is_raw => Some(section.or("match", None, no_match)),
            // One that cannot be read may be one of bytes.
            None if section.has("target") => Some(section.or("match", None, matches)),
            _ => section.required("match", MATCH_FORMS, matches),
        };
        let upgrades = section.or("upgrades", Vec::new(), |at| at.list(|item| upgrade(&item)));
        let tls = section.optional("tls", target_tls);
        match &target {
            Some(target) if target.is_secure() && !section.has("tls") => {
                section.missing("tls", "{ ca: a PEM file with the roots that the target's certificate must chain to }");
            }
            Some(target) if !target.is_secure() => {
                if let Some(at) = section.find("tls") {
                    at.wrong("says which certificate is genuine, and the target shows none; expected https:// or h2:// in target");
                }
            }
            _ => {}
        }
        let rewrite = section.or("rewrite", Vec::new(), |at| at.list(rewrite::step));
        for key in ["upgrades", "rewrite"] {
            if let Some(at) = section.find(key).filter(|_| is_raw) {
                at.wrong("is about requests, and the target takes none; expected http://host:port, for example, in target");
            }
        }
        let has_one = target.as_ref().is_some_and(Target::shares_one_connection);
        let limits = section.or("limits", ServiceLimits::default(), |at| limits(at, has_one));
        let health = section.optional("health", |at| health::check(at, is_raw));
        let proxy_protocol = section.or("proxy_protocol", false, |at| {
            let asked = at.word(&[("v2", true)]);
            if !takes_bytes && target.is_some() {
                at.wrong("is about connections of bytes, and the target takes none; expected tcp://host:port in target");
            }
            asked
        });
        // A socket of datagrams is never refused before something is sent, and a flow counts in `max_flows`.
        for key in ["limits", "health"] {
            if let Some(at) = section.find(key).filter(|_| takes_datagrams) {
                at.wrong("is about requests and connections, and the target takes datagrams; expected max_flows or flow_idle");
            }
        }
        let from: Option<SocketAddr> = section.optional("from", |at| at.understood(FROM_FORM, |text| text.parse().ok()));
        let connect_timeout = section.optional("connect_timeout", |at| {
            if takes_datagrams {
                at.wrong("is about connections, and the target takes datagrams; expected http://host:port, for example, in target");
            }
            at.duration(Duration::from_millis(1)..=Duration::from_secs(300))
        });
        let max_flows = section
            .optional("max_flows", |at| at.number(1..=65_536).and_then(|flows| usize::try_from(flows).ok()));
        if let (Some(from), Some(target)) = (from, &target)
            && let Some(at) = section.find("from")
            && let Some(literal) = target.literal().filter(|literal: &IpAddr| literal.is_ipv4() != from.is_ipv4())
        {
            at.wrong(format!(
                "{from} is of another family than the target {literal}, to which nothing could be sent from there; expected an \
                 address of the same"
            ));
        }
        let flow_idle = section.optional("flow_idle", flow_idle);
        let is_udp = target.as_ref().is_none_or(Target::is_udp);
        for key in ["from", "max_flows", "flow_idle"] {
            if let Some(at) = section.find(key).filter(|_| !is_udp) {
                at.wrong("is about flows of datagrams, and the target takes none; expected udp://host:port in target");
            }
        }
        Some(ServiceConfig {
            name: name?,
            matches: matches?,
            target: target?,
            tls,
            rewrite,
            limits,
            health,
            upgrades,
            proxy_protocol,
            from,
            connect_timeout,
            max_flows,
            flow_idle,
        })
    })
}

const MOST: u32 = 1_000_000;

/// `has_one`: the target has one connection for all.
pub(super) fn limits(at: At<'_>, has_one: bool) -> Option<ServiceLimits> {
    at.section(|section| {
        let in_flight = section.optional("in_flight", |at| at.count(1..=MOST));
        let connections = section.optional("connections", |at| {
            if has_one {
                at.wrong("is for targets of one exchange a connection, and one of HTTP/2 has 8 at most for all; expected in_flight");
                return None;
            }
            at.count(1..=MOST)
        });
        if !section.has("in_flight") && !section.has("connections") {
            section.at().wrong("says nothing about it; expected some of in_flight, connections");
        }
        Some(ServiceLimits { in_flight, connections })
    })
}

pub(super) fn is_unlimited(limits: &ServiceLimits) -> bool {
    *limits == ServiceLimits::default()
}

pub(super) fn limits_as_written<S: Serializer>(limits: &ServiceLimits, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown {
        #[serde(skip_serializing_if = "Option::is_none")]
        in_flight: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        connections: Option<u32>,
    }
    Shown { in_flight: limits.in_flight, connections: limits.connections }.serialize(serializer)
}

/// The name of a protocol. Those of this program, and those of HTTP itself, are nobody's to allow.
fn upgrade(at: &At<'_>) -> Option<String> {
    let is_http = |name: &Protocol| ["h2c", "http", "tls"].iter().any(|of_http| name.is(of_http));
    at.understood(UPGRADE_FORM, |text| {
        let name = Protocol::new(text).filter(|name| !is_http(name))?;
        Some(name.as_str().to_owned())
    })
}

fn unique_name(at: &At<'_>, names: &mut Vec<ServiceName>) -> Option<ServiceName> {
    let name: ServiceName = at.parsed()?;
    if names.contains(&name) {
        at.wrong(format!("\"{name}\" is the name of an earlier service; expected a name of its own"));
        return None;
    }
    names.push(name.clone());
    Some(name)
}

fn matches(at: At<'_>) -> Option<Option<Match>> {
    if at.is_section() {
        return at.section(|section| Some(Some(host_and_prefix(section))));
    }
    at.understood(MATCH_FORMS, |text| (text == "none").then_some(None))
}

/// Bytes have neither host nor path.
fn no_match(at: At<'_>) -> Option<Option<Match>> {
    if at.is_section() {
        at.wrong("is about requests, and the target takes none; expected no match");
        return None;
    }
    matches(at)
}

/// `host` and `prefix` of a service or a route.
pub(super) fn host_and_prefix(section: &mut Section<'_>) -> Match {
    let host = |at: At<'_>| {
        at.understood("a host without port, such as api.example.com or *.example.com", |text| text.parse().ok())
    };
    Match { host: section.optional("host", host), prefix: section.or("prefix", PathPrefix::root(), |at| prefix(&at)) }
}

/// A relative path of a Unix socket counts from the file's directory.
pub(super) fn target(at: &At<'_>) -> Option<Target> {
    let text = at.text()?;
    let absolute = match text.split_once(':') {
        Some((scheme @ ("unix" | "unix+h2c" | "unix+raw"), path)) if !path.is_empty() => {
            // Wherever the file is: the program may be started with a relative path to it.
            let resolved = at.resolve(path);
            format!("{scheme}:{}", std::path::absolute(&resolved).unwrap_or(resolved).display())
        }
        _ => text,
    };
    Target::parse(&absolute).map_err(|error| at.wrong(error.to_string())).ok()
}

fn proxy_as_written<S: Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("v2")
}

fn match_as_written<S: Serializer>(matches: &Option<Match>, serializer: S) -> Result<S::Ok, S::Error> {
    match matches {
        Some(matches) => ShownMatch::from(matches).serialize(serializer),
        None => serializer.serialize_str("none"),
    }
}

/// A match as it would be written.
#[derive(Serialize)]
pub(super) struct ShownMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    prefix: String,
}

impl From<&Match> for ShownMatch {
    fn from(matches: &Match) -> Self {
        Self { host: matches.host.as_ref().map(ToString::to_string), prefix: matches.prefix.to_string() }
    }
}
