//! `services`: what an initiator exports, and the local target behind each name.

use serde::{Serialize, Serializer};

use crate::config::reader::{At, Section};
use crate::config::rewrite::{self, StepConfig, prefix};
use crate::config::show;
use crate::config::tls::{TargetTlsConfig, target_tls};
use crate::id::ServiceName;
use crate::initiator::serve::ServiceSettings;
use crate::initiator::targets::{Target, TargetSettings};
use crate::message::pattern::{Match, PathPrefix};
use crate::message::upgrade::Protocol;
use crate::tls::TlsError;

const MATCH_FORMS: &str = "{ host, prefix }, {} for every request, or none for requests that name the service";

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
    /// `unix+raw:/path`.
    #[serde(serialize_with = "show::text")]
    pub target: Target,
    /// `tls`: which target is genuine, and what it is shown; for `https://` and `h2://`, and needed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TargetTlsConfig>,
    /// `rewrite`: what is done to each request before the target gets it, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<StepConfig>,
    /// `upgrades`: the protocols beside WebSocket that its requests may go on in, by the name that stands in `Upgrade`;
    /// none when absent.
    pub upgrades: Vec<String>,
}

impl ServiceConfig {
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
            connections: TargetSettings { tls, ..TargetSettings::default() },
            rewrite: rewrite::steps(&self.rewrite),
            upgrades: self.upgrades.clone(),
        })
    }
}

/// Reads the whole list; no two services may have one name.
pub(super) fn services(at: At<'_>) -> Option<Vec<ServiceConfig>> {
    let mut names: Vec<ServiceName> = Vec::new();
    at.list(|item| service(item, &mut names))
}

fn service(at: At<'_>, names: &mut Vec<ServiceName>) -> Option<ServiceConfig> {
    at.section(|section| {
        let name = section.required("name", "a name of 1 to 64 bytes", |at| unique_name(&at, names));
        let target = section.required("target", "http://host:port, for example", |at| target(&at));
        let is_raw = target.as_ref().is_some_and(Target::is_raw);
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
                at.wrong("is about requests, and the target takes bytes; expected http://host:port, for example, in target");
            }
        }
        Some(ServiceConfig { name: name?, matches: matches?, target: target?, tls, rewrite, upgrades })
    })
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
        at.wrong("is about requests, and the target takes bytes; expected none, or no match");
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
fn target(at: &At<'_>) -> Option<Target> {
    let text = at.text()?;
    if text.starts_with("udp://") {
        at.wrong("udp:// targets are not supported yet; expected http://host:port, for example");
        return None;
    }
    let absolute = match text.split_once(':') {
        Some((scheme @ ("unix" | "unix+h2c" | "unix+raw"), path)) if !path.is_empty() => {
            format!("{scheme}:{}", at.resolve(path).display())
        }
        _ => text,
    };
    Target::parse(&absolute).map_err(|error| at.wrong(error.to_string())).ok()
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
