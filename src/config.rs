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
//! | `responder`, `shares`, `fleet`, `initiator`, `envoy`, `egress`, `services`, `health`, `rewrite`, `tls`, `process` | one section of the file each: the settings, their defaults and bounds |
//! | `keys` | the reference of all keys, made by asking the readers above |
//! | `difference`, `written` | what differs between two checked settings, by the keys of the file |
//! | `source`, `sight` | a file that can be read again, and what its files were like when they were read |
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
mod difference;
mod document;
mod egress;
mod envoy;
mod fleet;
mod heads;
mod health;
mod http3;
mod initiator;
mod inspect;
mod keys;
mod listeners;
mod policies;
mod process;
mod reader;
mod report;
mod responder;
mod restart;
mod rewrite;
mod scalar;
mod secret;
mod services;
mod shares;
mod show;
mod sight;
mod source;
mod surroundings;
mod tls;
mod warnings;
mod written;

use crate::id::ServiceName;
use crate::protocol::limits::DEFAULT_DRAIN_DEADLINE;
use document::{Entry, MAX_FILE_BYTES, Node, Value};
use reader::{At, Context, Section};

pub use difference::{Change, Difference};
pub use egress::{EgressConfig, EgressLimits, HttpEgress, TcpEgress, TcpLimits, UdpEgressConfig, UdpGoal, Whom};
pub use envoy::EnvoyAcceptConfig;
pub use fleet::{FleetConfig, HopConfig, HopTls};
pub use heads::HeadLimits;
pub use http3::Http3Config;
pub use initiator::{InitiatorConfig, TunnelConfig};
pub use inspect::{Inspected, WARN_BEFORE, inspect};
pub use keys::keys;
pub use policies::{Known, PolicyConfig, UpstreamConfig};
pub use process::{AdminAddress, AdminAddressError, LogConfig, LogLevel, MetricsConfig, ReloadConfig};
pub use report::{Mistake, Report};
pub use responder::{AdmissionConfig, NodeConfig, ResponderConfig};
pub use restart::restart;
pub use rewrite::StepConfig;
pub use secret::Secret;
pub use services::ServiceConfig;
pub use sight::Sights;
pub use source::Source;
use surroundings::Place;
pub use surroundings::{Given, MAX_REFERENCED_BYTES, Nowhere, Process, Surroundings};
pub use tls::{DialerTls, KeyPairFiles, ListenerTls, TargetTlsConfig};

const DEFAULT_LAME_DUCK: Duration = Duration::from_millis(300);
const MAX_LAME_DUCK: Duration = Duration::from_secs(600);
const MAX_DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);
const DEFAULT_WORKERS: u32 = 1;
const MAX_WORKERS: u32 = 256;
const ROLES: &str = "responder, initiator or both";

/// Everything a file says, complete: absent keys have their defaults.
///
/// A program can make one without a file. Each section has a `new` that asks for what has no default, and all fields are
/// public; [`Checked::verify`] says whether a file could say the same.
///
/// ```
/// use adit::config::{Checked, EgressConfig, ListenerTls, ResponderConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut responder = ResponderConfig::new(ListenerTls::new("cloud.pem", "cloud.key"));
/// responder.quic = Some("0.0.0.0:7843".parse()?);
/// responder.admission.insecure_accept_any = true;
/// let listener = EgressConfig::new("127.0.0.1:8085".parse()?, "%REQ(x-node-id)%".parse()?);
/// let mut settings = Checked { responder: Some(responder), egress: vec![listener], ..Checked::default() };
///
/// let before = settings.clone();
/// settings.egress[0].router_mut().hold = std::time::Duration::from_secs(5);
/// let difference = before.difference(&settings);
/// assert_eq!(difference.to_string(), "~ egress[127.0.0.1:8085].hold: 2s -> 5s");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// `responder`: accepts tunnels.
    pub responder: Option<ResponderConfig>,
    /// `fleet`: the responder is one of several that act as one; it stands alone when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetConfig>,
    /// `initiator`: dials responders.
    pub initiator: Option<InitiatorConfig>,
    /// `egress`: listeners for application traffic; needs a responder.
    pub egress: Vec<EgressConfig>,
    /// `egress`, too: those of its listeners that take datagrams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub udp: Vec<UdpEgressConfig>,
    /// `services`: what an initiator exports.
    pub services: Vec<ServiceConfig>,
    /// `admin`: where the admin listener is; none when absent.
    pub admin: Option<AdminAddress>,
    /// `metrics`: what can be scraped, and from where.
    pub metrics: MetricsConfig,
    /// `log`: what is written to standard error.
    pub log: LogConfig,
    /// `reload`: when the file is read again.
    pub reload: ReloadConfig,
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

impl Default for Checked {
    /// What a file says in which nothing stands: no role, which no file may say.
    fn default() -> Self {
        Self {
            responder: None,
            fleet: None,
            initiator: None,
            egress: Vec::new(),
            udp: Vec::new(),
            services: Vec::new(),
            admin: None,
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
            reload: ReloadConfig::default(),
            workers: DEFAULT_WORKERS,
            drain_timeout: DEFAULT_DRAIN_DEADLINE,
            lame_duck: DEFAULT_LAME_DUCK,
        }
    }
}

impl Checked {
    /// Whether a file could say the same: each value within its bounds, names unique, no address taken twice, each role with
    /// what it needs. Settings out of a file can; those of a program should be asked. Files and addresses are not looked at.
    ///
    /// # Errors
    /// Every mistake, by the keys of the file.
    pub fn verify(&self) -> Result<(), Report> {
        let name = "settings";
        let written = written::written(self)
            .map_err(|error| Report::whole_file(name, format!("cannot be written: {error}; expected UTF-8")))?;
        let context = Context::new(Place::default(), &Nowhere, Vec::new());
        let _ = read_whole(&written::as_read(&written), &context);
        let mistakes = context.into_mistakes();
        if mistakes.is_empty() { Ok(()) } else { Err(Report::new(name, mistakes)) }
    }
}

/// Reads and checks a file. A pipe will do (`/dev/stdin`, a named one, or what a shell makes of `<(command)`); relative paths
/// in it count from the working directory then.
///
/// # Errors
/// Every mistake in the file, or that it cannot be read.
pub fn load(path: &Path, surroundings: &dyn Surroundings) -> Result<Checked, Report> {
    load_as(path, path, surroundings)
}

/// Reads and checks a file as if it stood where the file `place` does: relative paths in it count from there. For a file that
/// is to take the place of another, or did.
///
/// # Errors
/// Every mistake in the file, or that it cannot be read.
pub fn load_as(path: &Path, place: &Path, surroundings: &dyn Surroundings) -> Result<Checked, Report> {
    let name = path.display().to_string();
    let unreadable = |problem: String| Report::whole_file(&name, problem);
    let content = surroundings::read_given(path, MAX_FILE_BYTES)
        .map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(content).map_err(|_| unreadable("is not UTF-8 text".to_owned()))?;
    check_in(&text, path, Place::given(place), surroundings)
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
    read_whole(&merge(documents, context)?, context)
}

fn read_whole(file: &Node, context: &Context<'_>) -> Option<Checked> {
    At::root(context, file).section(|section| {
        let responder = section.optional("responder", responder::responder);
        let fleet = section.optional("fleet", |at| fleet::fleet(at, responder.as_ref()));
        let services = section.or("services", Vec::new(), services::services);
        let exports: Vec<ServiceName> = services.iter().map(|service| service.name.clone()).collect();
        let initiator = section.optional("initiator", |at| initiator::initiator(at, &exports));
        let (egress, udp) = section.or("egress", Default::default(), egress::egress);
        let checked = Checked {
            responder,
            fleet,
            initiator,
            egress,
            udp,
            services,
            admin: section.optional("admin", process::admin),
            metrics: section.or("metrics", MetricsConfig::default(), process::metrics),
            log: section.or("log", LogConfig::default(), process::log),
            reload: section.or("reload", ReloadConfig::default(), process::reload),
            workers: section.or("workers", DEFAULT_WORKERS, |at| at.count(1..=MAX_WORKERS)),
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
    let belongs =
        [("egress", responder, "responder"), ("fleet", responder, "responder"), ("services", initiator, "initiator")];
    for (key, has_role, role) in belongs {
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
