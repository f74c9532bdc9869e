//! `policies` of a listener or an initiator: rules by priority.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{Serialize, Serializer};

use crate::config::health;
use crate::config::policies::circle::Circle;
use crate::config::policies::shown::Shown;
use crate::config::reader::{At, Section};
use crate::config::rewrite::prefix;
use crate::config::services;
use crate::config::show;
use crate::config::tls::{TargetTlsConfig, target_tls};
use crate::egress::{TrafficRules, Upstream, UpstreamSettings};
use crate::id::{ClusterId, HostId, NodeId, ServiceName};
use crate::message::fields::is_connection_specific;
use crate::message::pattern::{HostPattern, PathPrefix};
use crate::policy::traffic::{Action, FieldPattern, Matcher, Priority, Reroute, Rule, Rules};
use crate::routing::RouterSettings;
use crate::targets::health::HealthCheck;
use crate::targets::{ServiceLimits, Target, TargetSettings};
use crate::tls::TlsError;

pub(super) mod circle;
mod shown;

const MATCH_FORMS: &str =
    "one or more of source, tenant, peer, host, path, prefix, method, service and header, or the word any";
const TO_FORM: &str = "{ node: edge-18 }, { cluster: stores-us } or { service: api }, for example";
const SERVICE_FORM: &str = "{ service: api }, for example";
/// What only requests have, and clients whose TLS ends here.
const OF_REQUESTS: [&str; 5] = ["path", "prefix", "method", "header", "peer"];
const STATUSES: [u16; 6] = [403, 404, 410, 429, 451, 503];
const MAX_NAME_BYTES: usize = 64;
const MAX_VALUE_BYTES: usize = 1024;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig(
    /// `priority`, `name`, `match`, `action`, and what belongs to the action.
    pub Rule<UpstreamConfig>,
);

/// Where a rule forwards to, outside of any tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamConfig {
    /// `target`: a server of HTTP, as in services.
    #[serde(serialize_with = "show::text")]
    pub target: Target,
    /// `tls`: which server is genuine, and what it is shown; for `https://` and `h2://`, and needed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TargetTlsConfig>,
    /// `limits`: what it may have under way, and at it.
    #[serde(skip_serializing_if = "services::is_unlimited", serialize_with = "services::limits_as_written")]
    pub limits: ServiceLimits,
    /// `health`: how it is checked; when absent its requests alone tell how it is.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "health::as_written")]
    pub health: Option<HealthCheck>,
}

impl Serialize for PolicyConfig {
    /// As it is written in a file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shown::from(&self.0).serialize(serializer)
    }
}

/// The rules of a listener that has no requests: none would see a status, and the usual one is not written.
pub(super) fn without_requests<S: Serializer>(list: &[PolicyConfig], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|PolicyConfig(rule)| Shown::from(rule).hiding(StatusCode::FORBIDDEN)))
}

/// What is there already of the server that a rule forwards to.
#[derive(Debug, Clone)]
pub enum Known {
    /// It stays as it is: with its connections, what is under way there, and what is known of it.
    Same(Arc<Upstream>),
    /// Another takes its place, where what is under way counts.
    Changed(Arc<Upstream>),
}

/// The rules of a listener. Loads the files of TLS to upstreams; `known`: what is there already for the rule of a priority.
///
/// # Errors
/// What is wrong with those files.
pub(super) fn rules(
    list: &[PolicyConfig],
    known: impl Fn(Priority) -> Option<Known>,
) -> Result<TrafficRules, TlsError> {
    let upstream = |priority, config: &UpstreamConfig| {
        let former = match known(priority) {
            Some(Known::Same(upstream)) => return Ok(upstream),
            Some(Known::Changed(upstream)) => Some(upstream),
            None => None,
        };
        let tls = config.tls.as_ref().map(TargetTlsConfig::target).transpose()?;
        let UpstreamConfig { target, limits, health, .. } = config.clone();
        let connections = TargetSettings { tls, ..TargetSettings::default() };
        let settings = UpstreamSettings { target, connections, limits, health };
        match former {
            Some(former) => former.renewed(settings),
            None => Upstream::new(settings),
        }
        .map(Arc::new)
    };
    in_force(list, |priority, config| upstream(priority, config).map(Action::Forward))
}

/// What the servers that rules forward to are reached by over TLS, each with what a [`Difference`](super::Difference) calls
/// its rule.
pub(super) fn upstream_tls(list: &[PolicyConfig]) -> impl Iterator<Item = (String, &TargetTlsConfig)> {
    list.iter().filter_map(|PolicyConfig(rule)| {
        let Action::Forward(upstream) = &rule.action else { return None };
        let name = rule.name.clone().unwrap_or_else(|| rule.priority.to_string());
        Some((name, upstream.tls.as_ref()?))
    })
}

/// The rules of whoever forwards nothing out of tunnels: an initiator, or a listener for datagrams.
pub(super) fn unforwarding(list: &[PolicyConfig]) -> Rules<Infallible> {
    match in_force(list, |_, _| Ok::<_, Infallible>(Action::Deny(StatusCode::FORBIDDEN))) {
        Ok(rules) => rules,
        Err(never) => match never {},
    }
}

/// Of two with one priority, which no file can say, none counts, and nothing is allowed.
fn in_force<F, E>(
    list: &[PolicyConfig],
    forward: impl Fn(Priority, &UpstreamConfig) -> Result<Action<F>, E>,
) -> Result<Rules<F>, E> {
    let mut rules = Vec::with_capacity(list.len());
    for PolicyConfig(rule) in list {
        let action = match &rule.action {
            Action::Allow => Action::Allow,
            Action::Deny(status) => Action::Deny(*status),
            Action::Reroute(to) => Action::Reroute(to.clone()),
            Action::Forward(config) => forward(rule.priority, config)?,
        };
        rules.push(Rule { priority: rule.priority, name: rule.name.clone(), matches: rule.matches.clone(), action });
    }
    Ok(Rules::new(rules).unwrap_or_else(|_| {
        let action = Action::Deny(StatusCode::FORBIDDEN);
        let all = Rule { priority: Priority::HIGHEST, name: None, matches: Matcher::default(), action };
        Rules::new(vec![all]).unwrap_or_default()
    }))
}

/// What stands around the rules of a listener, as far as it could be read.
pub(super) struct Around<'a> {
    /// Whether clients show certificates that are verified.
    pub(super) knows_peers: bool,
    pub(super) router: Option<&'a RouterSettings>,
    /// What they are about.
    pub(super) about: About,
    /// What an initiator exports, whose rules these are.
    pub(super) exports: Option<&'a [ServiceName]>,
    /// Where the listener is to which nothing must be forwarded, if it takes requests.
    pub(super) listens: Option<SocketAddr>,
}

/// What the rules of a listener are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Requests,
    /// Connections of bytes.
    Connections,
    /// Flows of datagrams.
    Flows,
}

impl Around<'_> {
    /// Whether there is this action.
    fn has(&self, word: Word) -> bool {
        word != Word::Forward || (self.exports.is_none() && self.about == About::Requests)
    }
}

/// Reads the rules of an initiator that exports these services. Each responder shows a certificate.
pub(super) fn of_initiator(at: At<'_>, exports: &[ServiceName]) -> Option<Vec<PolicyConfig>> {
    policies(
        at,
        &Around { knows_peers: true, about: About::Requests, router: None, exports: Some(exports), listens: None },
    )
}

/// Reads the whole list; no two rules may have one priority or name.
pub(super) fn policies(at: At<'_>, around: &Around<'_>) -> Option<Vec<PolicyConfig>> {
    let mut earlier = Earlier::default();
    at.list(|item| item.section(|section| policy(section, around, &mut earlier)))
}

/// Which priorities and names are taken, and in which lines.
#[derive(Default)]
struct Earlier {
    priorities: BTreeMap<Priority, u64>,
    names: BTreeMap<String, u64>,
}

fn policy(section: &mut Section<'_>, around: &Around<'_>, earlier: &mut Earlier) -> Option<PolicyConfig> {
    let priority = section.required("priority", "a whole number from 1 to 1000", |at| priority(&at, earlier));
    let name = section.optional("name", |at| name(&at, earlier));
    let matches = section.required("match", MATCH_FORMS, |at| matches(at, around));
    // A listener for bytes is told why it forwards nothing.
    let (actions, expected) = match around.exports {
        Some(_) => (&ACTIONS[..3], "allow, deny or reroute"),
        None => (&ACTIONS[..], "allow, deny, reroute or forward"),
    };
    let word = section.required("action", expected, |at| at.word(actions));
    let action = word.and_then(|word| action(section, word, around));
    if let (Some(matches), Some(Action::Reroute(to))) = (&matches, &action)
        && leads_back(matches, to, around)
    {
        section.at().wrong(
            "reroutes to where everything that it is about goes anyway; expected another node, cluster or service",
        );
    }
    Some(PolicyConfig(Rule { priority: priority?, name, matches: matches?, action: action? }))
}

fn priority(at: &At<'_>, earlier: &mut Earlier) -> Option<Priority> {
    let (lowest, highest) = Priority::BOUNDS;
    let number = at.number(lowest.into()..=highest.into())?;
    let priority = Priority::new(u16::try_from(number).ok()?)?;
    taken(at, &mut earlier.priorities, priority).then_some(priority)
}

fn name(at: &At<'_>, earlier: &mut Earlier) -> Option<String> {
    let expected = "1 to 64 letters, digits, -, _ and . that begin with a letter";
    let name = at.understood(expected, |text| {
        let is_name = text.len() <= MAX_NAME_BYTES
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        is_name.then(|| text.to_owned())
    })?;
    taken(at, &mut earlier.names, name.clone()).then_some(name)
}

/// Notes that this is the first rule that has it, or a mistake.
fn taken<T: Ord + std::fmt::Display>(at: &At<'_>, known: &mut BTreeMap<T, u64>, value: T) -> bool {
    match known.get(&value) {
        Some(line) => {
            let line = if *line == 0 { String::new() } else { format!(" in line {line}") };
            at.wrong(format!("{value} is that of an earlier rule{line}; expected each priority and each name once"));
            false
        }
        None => {
            known.insert(value, at.line());
            true
        }
    }
}

fn matches(at: At<'_>, around: &Around<'_>) -> Option<Matcher> {
    if !at.is_section() {
        return at.understood(MATCH_FORMS, |text| (text == "any").then(Matcher::default));
    }
    at.section(|section| {
        let known = section.at().mistakes();
        let matcher = conditions(section);
        around.about.lacks(section, &OF_REQUESTS);
        if around.about == About::Flows {
            around.about.lacks(section, &["host"]);
        }
        if around.about == About::Requests
            && let Some(at) = section.find("peer").filter(|_| !around.knows_peers)
        {
            at.wrong("is never met: nobody who connects here is asked for a certificate; expected tls.client_ca beside policies");
        }
        if matcher == Matcher::default() && section.at().mistakes() == known {
            section.at().wrong(format!("says nothing; expected {MATCH_FORMS}"));
        }
        Some(matcher)
    })
}

impl About {
    /// What says something of requests is a mistake where there are none.
    fn lacks(self, section: &mut Section<'_>, keys: &[&'static str]) {
        let wrong = match self {
            Self::Requests => return,
            Self::Connections => {
                "is about requests, and this listener takes bytes; expected source, tenant, host (of its TLS) or service"
            }
            Self::Flows => {
                "is about requests or connections, and this listener takes datagrams; expected source, tenant or service"
            }
        };
        for key in keys {
            if let Some(at) = section.find(key) {
                at.wrong(wrong);
            }
        }
    }
}

fn conditions(section: &mut Section<'_>) -> Matcher {
    Matcher {
        source: section.or("source", Vec::new(), |at| at.one_or_more(|item| item.parsed())),
        tenant: section.or("tenant", Vec::new(), |at| at.one_or_more(|item| item.parsed())),
        peer: section.or("peer", Vec::new(), |at| at.one_or_more(|item| item.parsed())),
        host: section.or("host", Vec::new(), |at| at.one_or_more(|item| host(&item))),
        path: section.or("path", Vec::new(), |at| at.one_or_more(|item| decidable(&item).map(|path| path.to_string()))),
        prefix: section.or("prefix", Vec::new(), |at| at.one_or_more(|item| decidable(&item))),
        method: section.or("method", Vec::new(), |at| at.one_or_more(|item| method(&item))),
        service: section.or("service", Vec::new(), |at| at.one_or_more(|item| item.parsed())),
        field: section.optional("header", header),
    }
}

/// A path, or its beginning, on which a rule can decide.
fn decidable(at: &At<'_>) -> Option<PathPrefix> {
    let path = prefix(at)?;
    let text = path.to_string();
    if text.contains(';') {
        at.wrong(
            "can never decide: what follows a ; is part of a path for one reader and not for another, so that a request for \
             it is answered 400; expected a path without ;",
        );
        return None;
    }
    if let Err(error) = text.parse::<PathAndQuery>() {
        at.wrong(format!("can never decide: no request has such a path ({error}); expected one that a URI can have"));
        return None;
    }
    Some(path)
}

fn host(at: &At<'_>) -> Option<HostPattern> {
    at.understood("a host without port, such as api.example.com or *.example.com", |text| text.parse().ok())
}

fn method(at: &At<'_>) -> Option<Method> {
    at.understood("a method in capitals, such as GET, or CONNECT", |text| {
        let is_written_so = text.bytes().all(|byte| byte.is_ascii_uppercase() || b"-_".contains(&byte));
        Method::from_bytes(text.as_bytes()).ok().filter(|_| is_written_so)
    })
}

fn header(at: At<'_>) -> Option<FieldPattern> {
    at.section(|section| {
        let name = section.required("name", "the name of a field", |at| {
            let name = at.understood::<HeaderName>("the name of a field, such as x-site", |text| text.parse().ok())?;
            if name == HOST || is_connection_specific(&name) {
                at.wrong(format!(
                    "{name} is not the same in each version of HTTP, so that a rule about it could be got around; expected a \
                     field that goes from end to end; for the host there is `host`"
                ));
                return None;
            }
            Some(name)
        });
        let value = section.optional("value", |at| {
            let text = at.short_text(MAX_VALUE_BYTES)?;
            HeaderValue::from_str(&text).map_err(|_| at.wrong("is no value of a field; expected text in ASCII")).ok()
        });
        Some(FieldPattern { name: name?, value })
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Allow,
    Deny,
    Reroute,
    Forward,
}

const ACTIONS: [(&str, Word); 4] =
    [("allow", Word::Allow), ("deny", Word::Deny), ("reroute", Word::Reroute), ("forward", Word::Forward)];

/// The action with what belongs to it; what belongs to another one is a mistake.
fn action(section: &mut Section<'_>, word: Word, around: &Around<'_>) -> Option<Action<UpstreamConfig>> {
    let belongs = [
        ("status", Word::Deny, "deny"),
        ("to", Word::Reroute, "reroute"),
        ("target", Word::Forward, "forward"),
        ("tls", Word::Forward, "forward"),
        ("limits", Word::Forward, "forward"),
        ("health", Word::Forward, "forward"),
    ];
    for (key, of, name) in belongs {
        if around.has(of)
            && let Some(at) = section.find(key).filter(|_| word != of)
        {
            at.wrong(format!("belongs to another action; expected action: {name}"));
        }
    }
    around.about.lacks(section, &["status", "target", "tls", "limits", "health"]);
    // All are read whatever the action is, so that nothing in them hides behind a wrong word.
    let status = section.or("status", StatusCode::FORBIDDEN, |at| status(&at));
    let place = section.optional("to", |at| to(at, around));
    let upstream = if around.has(Word::Forward) { upstream(section, word, around) } else { None };
    match word {
        Word::Allow => Some(Action::Allow),
        Word::Deny => Some(Action::Deny(status)),
        Word::Reroute => {
            if !section.has("to") {
                section.missing("to", if around.exports.is_some() { SERVICE_FORM } else { TO_FORM });
            }
            place.map(Action::Reroute)
        }
        Word::Forward if !around.has(word) => {
            section.at().wrong("forwards requests out of tunnels, which only a listener for requests does; expected allow, deny or reroute");
            None
        }
        Word::Forward => upstream.map(Action::Forward),
    }
}

/// Where `forward` leads.
fn upstream(section: &mut Section<'_>, word: Word, around: &Around<'_>) -> Option<UpstreamConfig> {
    let target = section.optional("target", |at| {
        let target = services::target(&at)?;
        if around.listens.is_some_and(|listener| circle::between(&target, listener) == Circle::Sure) {
            at.wrong("is this very listener, to which everything would come back; expected another server");
        }
        Some(target)
    });
    let tls = section.optional("tls", target_tls);
    let has_one = target.as_ref().is_some_and(Target::shares_one_connection);
    let limits = section.or("limits", ServiceLimits::default(), |at| services::limits(at, has_one));
    let health = section.optional("health", |at| health::check(at, false));
    if word != Word::Forward {
        return None;
    }
    if !section.has("target") {
        section.missing("target", "http://host:port, for example");
    }
    let target = target?;
    if target.is_raw() || target.is_udp() {
        section.at().wrong("forwards requests to a target that takes none; expected http://host:port, for example");
    }
    if target.is_secure() && !section.has("tls") {
        section.missing("tls", "{ ca: a PEM file with the roots that the certificate of the target must chain to }");
    }
    if let Some(at) = section.find("tls").filter(|_| !target.is_secure()) {
        at.wrong("says which certificate is genuine, and the target shows none; expected https:// or h2:// in target");
    }
    Some(UpstreamConfig { target, tls, limits, health })
}

fn status(at: &At<'_>) -> Option<StatusCode> {
    at.understood("403, 404, 410, 429, 451 or 503", |text| {
        let status = text.parse().ok().filter(|status| STATUSES.contains(status))?;
        StatusCode::from_u16(status).ok()
    })
}

fn to(at: At<'_>, around: &Around<'_>) -> Option<Reroute> {
    if let Some(exports) = around.exports {
        return at.section(|section| {
            let service = section.required("service", "a service of this file", |at| exported(&at, exports));
            Some(Reroute { host_id: None, service: Some(service?) })
        });
    }
    at.section(|section| {
        let node: Option<NodeId> = section.optional("node", |at| at.parsed());
        let cluster: Option<ClusterId> = section.optional("cluster", |at| at.parsed());
        let service: Option<ServiceName> = section.optional("service", |at| at.parsed());
        match (section.has("node"), section.has("cluster"), section.has("service")) {
            (true, true, _) => section.at().wrong("names two places; expected either node or cluster"),
            (false, false, false) => section.at().wrong(format!("names no place; expected {TO_FORM}")),
            _ => {}
        }
        let name = node.as_ref().map(NodeId::as_str).or_else(|| cluster.as_ref().map(ClusterId::as_str));
        Some(Reroute { host_id: name.and_then(|name| HostId::new(name).ok()), service })
    })
}

fn exported(at: &At<'_>, exports: &[ServiceName]) -> Option<ServiceName> {
    let service: ServiceName = at.parsed()?;
    if !exports.contains(&service) {
        at.wrong(format!("\"{service}\" is none of the services; expected the name of one"));
        return None;
    }
    Some(service)
}

/// Whether all that the rule is about goes there without it.
fn leads_back(matches: &Matcher, to: &Reroute, around: &Around<'_>) -> bool {
    if *to == Reroute::default() {
        return false;
    }
    let Some(router) = around.router else {
        return to.service.as_ref().is_some_and(|service| matches.service.as_slice() == std::slice::from_ref(service));
    };
    let is_listeners = |host_id: &HostId| {
        let whole = router.host_id.as_ref().map(ToString::to_string);
        router.routes.is_empty() && whole.as_deref() == Some(host_id.as_str())
    };
    let is_asked_for = |service: &ServiceName| {
        matches.service.as_slice() == std::slice::from_ref(service)
            || (router.routes.is_empty() && router.service.as_ref() == Some(service))
    };
    to.host_id.as_ref().is_none_or(is_listeners) && to.service.as_ref().is_none_or(is_asked_for)
}
