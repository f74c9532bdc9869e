//! What rules of policies decide.

use std::convert::Infallible;

use adit::message::path::Readings;
use adit::policy::traffic::{Action, FieldPattern, Matcher, Priority, Rule, Rules, Subject};
use http::{HeaderMap, Method};

/// The first rule that holds by itself decides, and no other spelling of path and host gets around it. Lines that begin with a
/// number are rules (`900 prefix=/admin host=*.a method=GET source=10.0.0.0/8 tenant=a service=b peer=c header=x`), the others
/// say what is judged (`path /a`, `host a.b`, `method GET`, `source 10.0.0.1`, `tenant a`, `service b`, `field x: y`).
pub fn traffic_rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (rules, asked): (Vec<&str>, Vec<&str>) =
        text.lines().take(64).partition(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let mut list: Vec<Rule<Infallible>> = Vec::new();
    for rule in rules.into_iter().filter_map(rule) {
        if list.iter().all(|other| other.priority != rule.priority) {
            list.push(rule);
        }
    }
    let asked = Asked::read(&asked);
    let all = Rules::new(list.clone()).expect("each priority is there once");
    let Ok(decided) = all.decide(&asked.subject()) else { return };
    let decided = decided.rule.map(|rule| rule.priority);

    list.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
    let alone = |rule: &Rule<Infallible>, subject: &Subject<'_>| {
        let one = Rules::new(vec![rule.clone()]).expect("it is one");
        one.decide(subject).is_ok_and(|decision| decision.rule.is_some())
    };
    let subject = asked.subject();
    let first = list.iter().find(|rule| alone(rule, &subject)).map(|rule| rule.priority);
    assert_eq!(decided, first, "the first that holds by itself");

    for other in asked.other_spellings() {
        match all.decide(&other.subject()) {
            Ok(again) => assert_eq!(again.rule.map(|rule| rule.priority), decided, "{other:?}"),
            Err(failure) => assert_eq!(failure.status(), 400, "{other:?}"),
        }
    }
}

fn rule(line: &str) -> Option<Rule<Infallible>> {
    let mut words = line.split(' ');
    let priority = Priority::new(words.next()?.parse().ok()?)?;
    let mut matches = Matcher::default();
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "source" => add(&mut matches.source, value),
            "tenant" => add(&mut matches.tenant, value),
            "peer" => add(&mut matches.peer, value),
            "host" => add(&mut matches.host, value),
            "path" => matches.path.push(Readings::of(value).normal().to_owned()),
            "prefix" => add(&mut matches.prefix, value),
            "method" => matches.method.extend(Method::from_bytes(value.as_bytes()).ok()),
            "service" => add(&mut matches.service, value),
            "header" => matches.field = value.parse().ok().map(|name| FieldPattern { name, value: None }),
            _ => {}
        }
    }
    Some(Rule { priority, name: None, matches, action: Action::Allow })
}

fn add<T: std::str::FromStr>(values: &mut Vec<T>, text: &str) {
    values.extend(text.parse::<T>().ok());
}

#[derive(Debug, Clone, Default)]
struct Asked {
    path: Option<String>,
    host: Option<String>,
    method: Option<Method>,
    source: Option<std::net::IpAddr>,
    tenant: Option<adit::id::TenantId>,
    service: Option<adit::id::ServiceName>,
    fields: HeaderMap,
}

impl Asked {
    fn read(lines: &[&str]) -> Self {
        let mut asked = Self::default();
        for (key, value) in lines.iter().filter_map(|line| line.split_once(' ')) {
            match key {
                "path" if value.starts_with('/') => asked.path = Some(value.to_owned()),
                "host" if value.is_ascii() => asked.host = Some(value.to_owned()),
                "method" => asked.method = Method::from_bytes(value.as_bytes()).ok(),
                "source" => asked.source = value.parse().ok(),
                "tenant" => asked.tenant = value.parse().ok(),
                "service" => asked.service = value.parse().ok(),
                "field" => {
                    let field = value
                        .split_once(": ")
                        .and_then(|(name, value)| Some((name.parse::<http::HeaderName>().ok()?, value.parse().ok()?)));
                    asked.fields.extend(field);
                }
                _ => {}
            }
        }
        asked
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            source: Ok(self.source),
            tenant: Ok(self.tenant.as_ref()),
            host: self.host.as_deref(),
            path: self.path.as_deref(),
            method: self.method.as_ref(),
            service: Ok(self.service.as_ref()),
            fields: Some(&self.fields),
            ..Subject::UNKNOWN
        }
    }

    /// The same for every reader.
    fn other_spellings(&self) -> Vec<Self> {
        let path = |path: String| Self { path: Some(path), ..self.clone() };
        let mut others = Vec::new();
        if let Some(asked) = &self.path {
            others.extend([path(format!("/.{asked}")), path(format!("/x/..{asked}")), path(format!("/{asked}"))]);
            // What stands in an escape is no letter.
            others.extend((!asked.contains('%')).then(|| path(asked.chars().map(escaped).collect())));
        }
        if let Some(name) = self.host.as_deref().filter(|host| host.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            let host = |host: String| Self { host: Some(host), ..self.clone() };
            others.extend([host(name.to_uppercase()), host(format!("{name}.")), host(format!("{name}:80"))]);
        }
        others
    }
}

/// Escapes what an escape means nothing for.
fn escaped(letter: char) -> String {
    if letter.is_ascii_alphabetic() { format!("%{:02x}", u32::from(letter)) } else { letter.to_string() }
}
