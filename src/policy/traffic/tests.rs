//! The rules against a naive reading of them, and the ways around a rule that people try.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{Action, FieldPattern, Matcher, PeerPattern, Priority, Rule, Rules, Subject};
use crate::id::{PeerIdentity, ServiceName, TenantId};
use crate::message::failure::{Cause, Failure};

type Any = Action<std::convert::Infallible>;

fn rule(priority: u16, matches: Matcher, action: Any) -> Rule<std::convert::Infallible> {
    Rule { priority: Priority::new(priority).unwrap(), name: None, matches, action }
}

/// What one rule that denies decides on a request for this path: denied or not, or the cause of a refusal.
fn denies(matches: &Matcher, subject: &Subject<'_>) -> Result<bool, Cause> {
    let rules = Rules::new(vec![rule(1, matches.clone(), Action::Deny(StatusCode::FORBIDDEN))]).unwrap();
    rules.decide(subject).map(|decision| decision.rule.is_some()).map_err(|failure| failure.cause())
}

fn asks(path: &str) -> Subject<'_> {
    Subject { path: Some(path), host: Some("shop.example.com"), method: Some(&Method::GET), ..Subject::UNKNOWN }
}

#[test]
fn the_highest_priority_is_looked_at_first_and_the_first_match_decides() {
    let below = |prefix: &str| Matcher { prefix: vec![prefix.parse().unwrap()], ..Matcher::default() };
    let deny = Action::Deny(StatusCode::FORBIDDEN);
    let rules =
        vec![rule(10, below("/"), deny.clone()), rule(1000, below("/a"), Action::Allow), rule(20, below("/a/b"), deny)];
    let rules = Rules::new(rules).unwrap();
    let decided = |path| rules.decide(&asks(path)).unwrap().rule.map(|rule| rule.priority.get());
    assert_eq!((decided("/a/b"), decided("/a"), decided("/b")), (Some(1000), Some(1000), Some(10)));
    let last = rules.decide(&Subject::UNKNOWN).unwrap();
    assert_eq!((last.place, last.action(), last.to_string().as_str()), (3, &Action::Allow, "the last rule"));
}

#[test]
fn priorities_are_unique_and_from_1_to_1000() {
    assert!(Priority::new(0).is_none() && Priority::new(1001).is_none());
    let twice = vec![rule(5, Matcher::default(), Action::Allow), rule(5, Matcher::default(), Action::Allow)];
    assert_eq!(Rules::new(twice).unwrap_err().0.get(), 5);
}

#[test]
fn no_spelling_of_a_path_gets_around_a_rule() {
    let matches = Matcher { prefix: vec!["/admin".parse().unwrap()], ..Matcher::default() };
    for path in ["/admin", "/admin/x", "//admin", "/%61dmin", "/x/../admin", "/x/%2e%2e/admin", "/./admin", "/admin/;x"]
    {
        assert_eq!(denies(&matches, &asks(path)), Ok(true), "{path}");
    }
    for path in ["/x%2f..%2fadmin", "/x/..;/admin", "\\admin", "/x\\..\\admin", "/admin;x=1", "/admin%5cx", "/%2fadmin"]
    {
        let decided = denies(&matches, &asks(path));
        assert!(matches!(decided, Ok(true) | Err(Cause::BadRequest)) || path.starts_with('\\'), "{path}: {decided:?}");
    }
    for path in ["/", "/adminx", "/x/admin", "/admin/../x"] {
        assert_eq!(denies(&matches, &asks(path)), Ok(false), "{path}");
    }
}

#[test]
fn no_spelling_of_a_host_gets_around_a_rule() {
    let matches = Matcher { host: vec!["shop.example.com".parse().unwrap()], ..Matcher::default() };
    for host in ["shop.example.com", "SHOP.example.com:8080", "shop.example.com.", "shop.example.com.:80"] {
        assert_eq!(denies(&matches, &Subject { host: Some(host), ..asks("/") }), Ok(true), "{host}");
    }
    assert_eq!(denies(&matches, &Subject { host: Some("xshop.example.com"), ..asks("/") }), Ok(false));
}

#[test]
fn what_a_rule_asks_for_and_cannot_be_read_goes_nowhere() {
    let (name, value) = (HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
    let matches =
        Matcher { field: Some(FieldPattern { name: name.clone(), value: Some(value.clone()) }), ..Matcher::default() };
    let mut fields = HeaderMap::new();
    let mut decided = |added: Option<&HeaderValue>| {
        fields.extend(added.map(|value| (name.clone(), value.clone())));
        denies(&matches, &Subject { fields: Some(&fields), ..asks("/") })
    };
    assert_eq!(decided(None), Ok(false));
    assert_eq!(decided(Some(&value)), Ok(true));
    assert_eq!(decided(Some(&HeaderValue::from_static("2"))), Err(Cause::BadRequest), "which of both counts?");

    let unclear = Failure::new(Cause::NoHostId, "no tenant");
    let of_acme = Matcher { tenant: vec!["acme".parse().unwrap()], ..Matcher::default() };
    let subject = Subject { tenant: Err(&unclear), ..asks("/a") };
    assert_eq!(denies(&of_acme, &subject), Err(Cause::NoHostId));
    let elsewhere = Matcher { prefix: vec!["/b".parse().unwrap()], ..of_acme };
    assert_eq!(denies(&elsewhere, &subject), Ok(false), "another condition does not hold anyway");
}

#[test]
fn a_peer_is_matched_by_what_its_certificate_proves() {
    let identity = PeerIdentity {
        uri_sans: vec!["spiffe://example.org/ops/ann".to_owned()],
        dns_sans: vec!["ann.ops.example.org".to_owned()],
        ..PeerIdentity::default()
    };
    for (pattern, holds) in [
        ("spiffe://example.org/ops/ann", true),
        ("spiffe://example.org/ops/*", true),
        ("spiffe://example.org/op*", false),
        ("spiffe://example.org/ops/ann/*", false),
        ("*.ops.example.org", true),
        ("ops.example.org", false),
    ] {
        let Ok(peer) = pattern.parse::<PeerPattern>() else {
            assert!(!holds, "{pattern}");
            continue;
        };
        assert_eq!(peer.to_string(), pattern);
        let matches = Matcher { peer: vec![peer], ..Matcher::default() };
        assert_eq!(denies(&matches, &Subject { peer: Some(&identity), ..asks("/") }), Ok(holds), "{pattern}");
        assert_eq!(denies(&matches, &asks("/")), Ok(false), "nothing is proven");
    }
}

/// The small world of the model: values that overlap.
const SOURCES: [&str; 3] = ["10.1.2.3", "10.9.9.9", "192.0.2.1"];
const PREFIXES: [&str; 3] = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1"];
const TENANTS: [&str; 2] = ["acme", "globex"];
const HOSTS: [&str; 3] = ["a.example.com", "b.a.example.com", "example.com"];
const HOST_PATTERNS: [&str; 3] = ["a.example.com", "*.example.com", "*.a.example.com"];
const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/ab", "/a/", "/A"];
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::CONNECT];
const SERVICES: [&str; 2] = ["api", "web"];

fn some<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![3 => Just(Vec::new()), 2 => subsequence(values, 1..=values.len())]
}

fn parsed<T: std::str::FromStr>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().ok().unwrap()).collect()
}

/// A rule as it is written, so that the model reads the texts and nothing of the code under test.
#[derive(Debug, Clone)]
struct Written {
    source: Vec<&'static str>,
    tenant: Vec<&'static str>,
    host: Vec<&'static str>,
    prefix: Vec<&'static str>,
    method: Vec<Method>,
    service: Vec<&'static str>,
}

fn written() -> impl Strategy<Value = Written> {
    (some(&PREFIXES), some(&TENANTS), some(&HOST_PATTERNS), some(&PATHS), some(&METHODS), some(&SERVICES)).prop_map(
        |(source, tenant, host, prefix, method, service)| Written { source, tenant, host, prefix, method, service },
    )
}

#[derive(Debug, Clone)]
struct Asked {
    source: &'static str,
    tenant: Option<&'static str>,
    host: &'static str,
    path: Option<&'static str>,
    method: Method,
    service: Option<&'static str>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let (tenant, service) = (option::of(select(&TENANTS[..])), option::of(select(&SERVICES[..])));
    let (source, host, path) = (select(&SOURCES[..]), select(&HOSTS[..]), option::of(select(&PATHS[..])));
    (source, tenant, host, path, select(&METHODS[..]), service)
        .prop_map(|(source, tenant, host, path, method, service)| Asked { source, tenant, host, path, method, service })
}

fn model_holds(rule: &Written, asked: &Asked) -> bool {
    let network = |prefix: &str| match prefix {
        "10.0.0.0/8" => asked.source.starts_with("10."),
        "10.1.0.0/16" => asked.source.starts_with("10.1."),
        address => asked.source == address,
    };
    let host = |pattern: &str| match pattern.strip_prefix('*') {
        Some(suffix) => asked.host.ends_with(suffix),
        None => asked.host == pattern,
    };
    let path = |prefix: &str| {
        let whole = |path: &str| path == prefix || path.starts_with(&format!("{}/", prefix.trim_end_matches('/')));
        asked.path.is_some_and(|path| prefix == "/" || (whole(path) && !(prefix == "/a/" && path == "/a")))
    };
    (rule.source.is_empty() || rule.source.iter().any(|prefix| network(prefix)))
        && (rule.tenant.is_empty() || asked.tenant.is_some_and(|tenant| rule.tenant.contains(&tenant)))
        && (rule.host.is_empty() || rule.host.iter().any(|pattern| host(pattern)))
        && (rule.prefix.is_empty() || rule.prefix.iter().any(|prefix| path(prefix)))
        && (rule.method.is_empty() || rule.method.contains(&asked.method))
        && (rule.service.is_empty() || asked.service.is_some_and(|service| rule.service.contains(&service)))
}

fn matcher(rule: &Written) -> Matcher {
    Matcher {
        source: parsed(&rule.source),
        tenant: parsed(&rule.tenant),
        host: parsed(&rule.host),
        prefix: parsed(&rule.prefix),
        method: rule.method.clone(),
        service: parsed(&rule.service),
        ..Matcher::default()
    }
}

proptest! {
    #[test]
    fn the_rules_decide_as_a_naive_reading_of_them(
        list in vec((1_u16..=30, written()), 0..12),
        asked in asked(),
    ) {
        let mut by_priority = std::collections::BTreeMap::new();
        by_priority.extend(list);
        let expected = by_priority.iter().rev().find(|(_, rule)| model_holds(rule, &asked)).map(|(priority, _)| *priority);
        let rules = by_priority.iter().map(|(priority, written)| rule(*priority, matcher(written), Action::Allow));
        let rules = Rules::new(rules.collect()).unwrap();
        let tenant: Option<TenantId> = asked.tenant.map(|tenant| tenant.parse().unwrap());
        let service: Option<ServiceName> = asked.service.map(|service| service.parse().unwrap());
        let subject = Subject {
            source: Ok(Some(asked.source.parse::<IpAddr>().unwrap())),
            tenant: Ok(tenant.as_ref()),
            host: Some(asked.host),
            path: asked.path,
            method: Some(&asked.method),
            service: Ok(service.as_ref()),
            ..Subject::UNKNOWN
        };
        let decided = rules.decide(&subject).unwrap();
        prop_assert_eq!(decided.rule.map(|rule| rule.priority.get()), expected);
    }
}
