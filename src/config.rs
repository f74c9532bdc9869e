//! One file into checked settings: what the operator wrote, read whole, or every mistake in it.
//!
//! A file is YAML; several documents in it merge, each top-level key standing in one of them. [`load`] reads it,
//! resolves `${NAME}` and `file:` references and paths (relative ones count from the file's directory), and returns
//! [`Checked`], which holds complete typed values only, or a [`Report`] with every mistake, its line and its key path.
//!
//! | file | what it does |
//! |---|---|
//! | `document` | YAML into a tree of nodes with lines |
//! | `reader`, `scalar` | walks the tree, collects mistakes, finds unknown keys |
//! | `responder`, `initiator`, `envoy`, `egress`, `services`, `rewrite`, `tls`, `process` | one section of the file each: the settings, their defaults and bounds |
//! | `keys` | the reference of all keys, made by asking the readers above |
//! | `inspect` | what an operator should know about the certificates and keys of a file |
//! | `listeners` | no two keys may listen at one address |
//! | `secret`, `surroundings`, `report`, `show` | masked credentials, the outside world, the report, how settings print |
//!
//! Row 11: fills the settings of the modules above and is imported by none of them. Opens no socket. Never panics,
//! whatever the text: the fuzz target `config` is [`check`] with [`Nowhere`].

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

mod access;
mod connect;
mod document;
mod egress;
mod envoy;
mod heads;
mod http3;
mod initiator;
mod inspect;
mod keys;
mod listeners;
mod process;
mod reader;
mod report;
mod responder;
mod rewrite;
mod scalar;
mod secret;
mod services;
mod show;
mod surroundings;
mod tls;

use crate::protocol::limits::DEFAULT_DRAIN_DEADLINE;
use document::{Entry, MAX_FILE_BYTES, Node, Value};
use reader::{At, Context, Section};

pub use egress::{EgressConfig, EgressLimits};
pub use envoy::EnvoyAcceptConfig;
pub use heads::HeadLimits;
pub use http3::Http3Config;
pub use initiator::{InitiatorConfig, TunnelConfig};
pub use inspect::{Inspected, WARN_BEFORE, inspect};
pub use keys::keys;
pub use process::{AdminAddress, AdminAddressError, LogConfig, LogLevel, MetricsConfig};
pub use report::{Mistake, Report};
pub use responder::{AdmissionConfig, NodeConfig, ResponderConfig};
pub use rewrite::StepConfig;
pub use secret::Secret;
pub use services::ServiceConfig;
use surroundings::Place;
pub use surroundings::{Given, MAX_REFERENCED_BYTES, Nowhere, Process, Surroundings};
pub use tls::{DialerTls, KeyPairFiles, ListenerTls, TargetTlsConfig};

const DEFAULT_LAME_DUCK: Duration = Duration::from_millis(300);
const MAX_LAME_DUCK: Duration = Duration::from_secs(600);
const MAX_DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);
const MAX_WORKERS: u32 = 256;
const ROLES: &str = "responder, initiator or both";

/// Everything a file says, complete: absent keys have their defaults.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// `responder`: accepts tunnels.
    pub responder: Option<ResponderConfig>,
    /// `initiator`: dials responders.
    pub initiator: Option<InitiatorConfig>,
    /// `egress`: listeners for application traffic; needs a responder.
    pub egress: Vec<EgressConfig>,
    /// `services`: what an initiator exports.
    pub services: Vec<ServiceConfig>,
    /// `admin`: where the admin listener is; none when absent.
    pub admin: Option<AdminAddress>,
    /// `metrics`: what can be scraped, and from where.
    pub metrics: MetricsConfig,
    /// `log`: what is written to standard error.
    pub log: LogConfig,
    /// `workers`: threads that move traffic; 1 is a current-thread runtime, which is the fastest per core. Default 1,
    /// at most 256.
    pub workers: u32,
    /// `drain_timeout`: how long running exchanges may take to finish when the process is asked to stop. Default 30 s,
    /// at most 1 h; 0 cuts them at once.
    #[serde(serialize_with = "show::duration")]
    pub drain_timeout: Duration,
    /// `lame_duck`: how long a process with egress listeners that is asked to stop goes on taking requests, not ready any
    /// more, and with each answer asking for the next one to go elsewhere. Longer than a load balancer needs to notice;
    /// default 300 ms, at most 10 min.
    #[serde(serialize_with = "show::duration")]
    pub lame_duck: Duration,
}

/// Reads and checks a file. A pipe will do (`/dev/stdin`, a named one, or what a shell makes of `<(command)`); relative paths
/// in it count from the working directory then.
///
/// # Errors
/// Every mistake in the file, or that it cannot be read.
pub fn load(path: &Path, surroundings: &dyn Surroundings) -> Result<Checked, Report> {
    let name = path.display().to_string();
    let unreadable = |problem: String| Report::whole_file(&name, problem);
    let given = surroundings::read_given(path, MAX_FILE_BYTES)
        .map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(given.content).map_err(|_| unreadable("is not UTF-8 text".to_owned()))?;
    check_in(&text, path, given.place, surroundings)
}

/// Checks the text of a file. `path` names it in reports, and its directory is where relative paths count from.
///
/// # Errors
/// Every mistake in the text.
pub fn check(text: &str, path: &Path, surroundings: &dyn Surroundings) -> Result<Checked, Report> {
    check_in(text, path, Place::of(path), surroundings)
}

fn check_in(text: &str, path: &Path, place: Place, surroundings: &dyn Surroundings) -> Result<Checked, Report> {
    let (documents, mistakes) = document::parse(text);
    let unread = !mistakes.is_empty() && documents.is_empty();
    let context = Context::new(place, surroundings, mistakes);
    let checked = if unread { None } else { read(documents, &context) };
    match (checked, context.into_mistakes()) {
        (Some(checked), mistakes) if mistakes.is_empty() => Ok(checked),
        (_, mistakes) => Err(Report::new(&path.display().to_string(), mistakes)),
    }
}

fn read(documents: Vec<Node>, context: &Context<'_>) -> Option<Checked> {
    let root = merge(documents, context)?;
    At::root(context, &root).section(|section| {
        let responder = section.optional("responder", responder::responder);
        let initiator = section.optional("initiator", initiator::initiator);
        let checked = Checked {
            responder,
            initiator,
            egress: section.or("egress", Vec::new(), egress::egress),
            services: section.or("services", Vec::new(), services::services),
            admin: section.optional("admin", process::admin),
            metrics: section.or("metrics", MetricsConfig::default(), process::metrics),
            log: section.or("log", LogConfig::default(), process::log),
            workers: section.or("workers", 1, |at| at.count(1..=MAX_WORKERS)),
            drain_timeout: section
                .or("drain_timeout", DEFAULT_DRAIN_DEADLINE, |at| at.duration(Duration::ZERO..=MAX_DRAIN_TIMEOUT)),
            lame_duck: section.or("lame_duck", DEFAULT_LAME_DUCK, |at| at.duration(Duration::ZERO..=MAX_LAME_DUCK)),
        };
        check_roles(section);
        Some(checked)
    })
}

/// The documents as one mapping; a top-level key may stand in one of them only.
fn merge(documents: Vec<Node>, context: &Context<'_>) -> Option<Node> {
    let mut merged: Vec<Entry> = Vec::new();
    for document in documents {
        let Value::Map(entries) = document.value else {
            context.note(document.line, "", format!("is not a section of keys; expected {ROLES}"));
            return None;
        };
        for entry in entries {
            match merged.iter().find(|other| other.key == entry.key) {
                Some(other) => {
                    let problem = format!("stands in line {} already; expected once in all documents", other.line);
                    context.note(entry.line, report::shown_key(&entry.key), problem);
                }
                None => merged.push(entry),
            }
        }
    }
    if merged.is_empty() {
        context.note(0, "", format!("says nothing; expected {ROLES}"));
        return None;
    }
    Some(Node { line: 1, value: Value::Map(merged) })
}

/// What belongs to a role needs that role.
fn check_roles(section: &mut Section<'_>) {
    let (responder, initiator) = (section.has("responder"), section.has("initiator"));
    if !responder && !initiator {
        section.at().wrong(format!("has no role; expected {ROLES}"));
    }
    for (key, has_role, role) in [("egress", responder, "responder"), ("services", initiator, "initiator")] {
        if let Some(at) = section.find(key).filter(|_| !has_role) {
            at.wrong(format!("belongs to a role that is not here; expected {role} beside it"));
        }
    }
    if initiator && !section.has("services") {
        section.missing("services", "a list of what this initiator exports");
    }
}

#[cfg(test)]
mod tests;
