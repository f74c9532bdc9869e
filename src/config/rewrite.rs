//! `rewrite` of a listener or a service: what is done to each request before it enters a tunnel, or the target gets it.

use http::uri::Authority;
use http::{HeaderName, HeaderValue};
use serde::Serialize;

use crate::config::reader::At;
use crate::config::secret::Secret;
use crate::config::show;
use crate::message::pattern::PathPrefix;
use crate::message::rewrite::Step;

const PREFIX_FORM: &str =
    "a path without query, . or .. segments, //, \\ and escaped letters or slashes, such as / or /api";
const MAX_HOST_BYTES: usize = 255;
const MAX_VALUE_BYTES: usize = 8 << 10;
const STEPS: [&str; 4] = ["host", "prefix", "set", "remove"];
const STEP_FORM: &str = "one of host, prefix, set and remove";

/// One step; a list of them is done in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepConfig {
    /// `host`: the host that is asked for, perhaps with a port.
    #[serde(serialize_with = "show::text")]
    Host(Authority),
    /// `prefix`: puts `to` in the place of `from` at the beginning of the path.
    Prefix {
        /// What is replaced, in whole segments.
        #[serde(serialize_with = "show::text")]
        from: PathPrefix,
        /// By what.
        #[serde(serialize_with = "show::text")]
        to: PathPrefix,
    },
    /// `set`: one field in the place of all of this name.
    Set {
        /// Its name, in lower case.
        #[serde(serialize_with = "show::text")]
        name: HeaderName,
        /// Its value, up to 8 KiB; text, `${NAME}` or `file:path`.
        value: Secret,
    },
    /// `remove`: no field of this name.
    #[serde(serialize_with = "show::text")]
    Remove(HeaderName),
}

impl StepConfig {
    /// The step; always, for what comes out of a [`Checked`](crate::config::Checked).
    fn step(&self) -> Option<Step> {
        Some(match self {
            Self::Host(authority) => Step::Host(authority.clone()),
            Self::Prefix { from, to } => Step::Prefix { from: from.clone(), to: to.clone() },
            Self::Set { name, value } => Step::Set { name: name.clone(), value: field_value(value)? },
            Self::Remove(name) => Step::Remove(name.clone()),
        })
    }
}

/// The steps of a listener or a service.
pub(super) fn steps(list: &[StepConfig]) -> Vec<Step> {
    list.iter().filter_map(StepConfig::step).collect()
}

fn field_value(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(secret.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads one step.
pub(super) fn step(at: At<'_>) -> Option<StepConfig> {
    at.section(|section| {
        let host = section.optional("host", |at| host(&at)).map(StepConfig::Host);
        let replaced = section.optional("prefix", replaced);
        let set = section.optional("set", set);
        let remove = section.optional("remove", |at| field(&at)).map(StepConfig::Remove);
        match STEPS.iter().filter(|step| section.has(step)).count() {
            0 => section.at().wrong(format!("does nothing; expected {STEP_FORM}")),
            1 => {}
            _ => section
                .at()
                .wrong(format!("does several things at once; expected {STEP_FORM}, each in an item of its own")),
        }
        host.or(replaced).or(set).or(remove)
    })
}

fn host(at: &At<'_>) -> Option<Authority> {
    at.understood("a host, perhaps with a port, such as api.example.com:8443", |text| {
        let authority: Authority = text.parse().ok()?;
        (!text.contains('@') && text.len() <= MAX_HOST_BYTES).then_some(authority)
    })
}

/// The beginning of a path.
pub(super) fn prefix(at: &At<'_>) -> Option<PathPrefix> {
    at.understood(PREFIX_FORM, |text| text.parse().ok())
}

fn replaced(at: At<'_>) -> Option<StepConfig> {
    at.section(|section| {
        let from = section.required("from", "the path that is replaced, such as /api", |at| prefix(&at));
        let to = section.required("to", "the path in its place, such as /", |at| prefix(&at));
        Some(StepConfig::Prefix { from: from?, to: to? })
    })
}

fn set(at: At<'_>) -> Option<StepConfig> {
    at.section(|section| {
        let name = section.required("name", "the name of a field", |at| field(&at));
        let value = section.required("value", "its value", |at| value(&at));
        Some(StepConfig::Set { name: name?, value: value? })
    })
}

fn value(at: &At<'_>) -> Option<Secret> {
    let value = at.secret(0..=MAX_VALUE_BYTES)?;
    let is_trimmed = value.expose() == value.expose().trim_ascii();
    if !is_trimmed || field_value(&value).is_none() {
        at.wrong("is no value of a field; expected text without line breaks, control characters and spaces around it");
        return None;
    }
    Some(value)
}

fn field(at: &At<'_>) -> Option<HeaderName> {
    let name: HeaderName = at.understood("the name of a field, such as x-site", |text| text.parse().ok())?;
    match Step::check_field(&name) {
        Ok(()) => Some(name),
        Err(reserved) => {
            at.wrong(format!("\"{name}\" {reserved}"));
            None
        }
    }
}
