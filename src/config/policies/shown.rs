//! A rule as it would be written.

use http::StatusCode;
use serde::{Serialize, Serializer};

use super::UpstreamConfig;
use crate::config::secret::Secret;
use crate::policy::traffic::{Action, FieldPattern, Matcher, Reroute, Rule};

/// The keys of a rule.
#[derive(Serialize)]
pub(super) struct Shown {
    priority: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "match")]
    matches: ShownMatch,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<ShownPlace>,
    #[serde(flatten)]
    upstream: Option<UpstreamConfig>,
}

impl Shown {
    /// The same without this status.
    pub(super) fn hiding(self, status: StatusCode) -> Self {
        Self { status: self.status.filter(|own| *own != status.as_u16()), ..self }
    }
}

enum ShownMatch {
    Any,
    Conditions(Box<Conditions>),
}

#[derive(Serialize)]
struct Conditions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tenant: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peer: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    path: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prefix: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    method: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<ShownField>,
}

#[derive(Serialize)]
struct ShownField {
    name: String,
    /// Often a credential, and the name of the field does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Secret>,
}

/// An id is a node's or a cluster's, and is found as either: it is shown as a node.
#[derive(Serialize)]
struct ShownPlace {
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
}

impl From<&Rule<UpstreamConfig>> for Shown {
    fn from(rule: &Rule<UpstreamConfig>) -> Self {
        let upstream = if let Action::Forward(upstream) = &rule.action { Some(upstream.clone()) } else { None };
        let status = if let Action::Deny(status) = &rule.action { Some(status.as_u16()) } else { None };
        let to = if let Action::Reroute(to) = &rule.action { Some(ShownPlace::from(to)) } else { None };
        Self {
            priority: rule.priority.get(),
            name: rule.name.clone(),
            matches: ShownMatch::from(&rule.matches),
            action: rule.action.label(),
            status,
            to,
            upstream,
        }
    }
}

impl From<&Matcher> for ShownMatch {
    fn from(matcher: &Matcher) -> Self {
        if *matcher == Matcher::default() {
            return Self::Any;
        }
        Self::Conditions(Box::new(Conditions {
            source: texts(&matcher.source),
            tenant: texts(&matcher.tenant),
            peer: texts(&matcher.peer),
            host: texts(&matcher.host),
            path: matcher.path.clone(),
            prefix: texts(&matcher.prefix),
            method: texts(&matcher.method),
            service: texts(&matcher.service),
            header: matcher.field.as_ref().map(ShownField::from),
        }))
    }
}

impl Serialize for ShownMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::Conditions(conditions) => conditions.serialize(serializer),
        }
    }
}

impl From<&FieldPattern> for ShownField {
    fn from(field: &FieldPattern) -> Self {
        let secret = |value: &http::HeaderValue| Secret::new(value.as_bytes());
        Self { name: field.name.to_string(), value: field.value.as_ref().map(secret) }
    }
}

impl From<&Reroute> for ShownPlace {
    fn from(to: &Reroute) -> Self {
        Self {
            node: to.host_id.as_ref().map(ToString::to_string),
            service: to.service.as_ref().map(ToString::to_string),
        }
    }
}

fn texts<T: std::fmt::Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
