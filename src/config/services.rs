//! `services`: what an initiator exports, and the local target behind each name.

use serde::{Serialize, Serializer};

use crate::config::reader::{At, Section};
use crate::config::show;
use crate::id::ServiceName;
use crate::initiator::serve::ServiceSettings;
use crate::initiator::targets::{Target, TargetSettings};
use crate::message::pattern::{Match, PathPrefix};

const MATCH_FORMS: &str = "{ host, prefix }, {} for every request, or none for requests that name the service";

const PREFIX_FORM: &str =
    "a path without query, . or .. segments, //, \\ and escaped letters or slashes, such as / or /api";

/// One exported service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceConfig {
    /// `name`: how the responder's egress asks for it. 1 to 64 bytes, unique in the file.
    #[serde(serialize_with = "show::text")]
    pub name: ServiceName,
    /// `match`: which requests come here that name no service: those for `host` (a name, or `*.` and a name; any when
    /// absent) below the path `prefix` (in whole segments; `/` when absent). The most specific service takes a
    /// request. `none`: no such request. The key must be there: a service that forgot it would silently stay idle.
    #[serde(rename = "match", serialize_with = "match_as_written")]
    pub matches: Option<Match>,
    /// `target`: where its exchanges go; nothing else can be dialled through a tunnel. `http://host:port` (HTTP/1.1),
    /// `h2c://host:port` (HTTP/2), both with port 80 when absent, `unix:/path` or `unix+h2c:/path`.
    #[serde(serialize_with = "show::text")]
    pub target: Target,
}

impl ServiceConfig {
    /// The settings of the initiator's service.
    pub fn settings(&self) -> ServiceSettings {
        ServiceSettings {
            name: self.name.clone(),
            matches: self.matches.clone(),
            target: self.target.clone(),
            connections: TargetSettings::default(),
        }
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
        let matches = section.required("match", MATCH_FORMS, matches);
        let target = section.required("target", "http://host:port, for example", |at| target(&at));
        Some(ServiceConfig { name: name?, matches: matches?, target: target? })
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

/// `host` and `prefix` of a service or a route.
pub(super) fn host_and_prefix(section: &mut Section<'_>) -> Match {
    let host = |at: At<'_>| {
        at.understood("a host without port, such as api.example.com or *.example.com", |text| text.parse().ok())
    };
    let prefix = |at: At<'_>| at.understood(PREFIX_FORM, |text| text.parse().ok());
    Match { host: section.optional("host", host), prefix: section.or("prefix", PathPrefix::root(), prefix) }
}

/// A relative path of a Unix socket counts from the file's directory.
fn target(at: &At<'_>) -> Option<Target> {
    let text = at.text()?;
    if let Some((scheme @ ("https" | "tcp" | "udp"), _)) = text.split_once("://") {
        at.wrong(format!("{scheme}:// targets are not supported yet; expected http://host:port, for example"));
        return None;
    }
    let absolute = match text.split_once(':') {
        Some((scheme @ ("unix" | "unix+h2c"), path)) if !path.is_empty() => {
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
