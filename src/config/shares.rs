//! `responder.shares`: what each tenant and each node may have of the responder.

use serde::{Serialize, Serializer};

use crate::config::reader::{At, Section};
use crate::id::TenantId;
use crate::shares::{DEFAULT_WEIGHT, MAX_WEIGHT, NodePattern, NodeShare, Rate, Share, ShareSettings, TenantShare};

const MOST: u32 = 1_000_000;
const LEAST_BYTES: u64 = 16 << 10;
const MOST_BYTES: u64 = 1 << 40;
const KEYS: [&str; 6] = ["in_flight", "requests", "burst", "bytes", "streams", "flows"];

/// Reads the section.
pub(super) fn shares(at: At<'_>) -> Option<ShareSettings> {
    at.section(|section| {
        let per_tenant = section.or("per_tenant", Share::default(), |at| at.section(|section| Some(share(section))));
        let per_node = section.or("per_node", Share::default(), |at| at.section(|section| Some(share(section))));
        let mut names = Vec::new();
        let tenants = section.or("tenants", Vec::new(), |at| at.list(|item| tenant(item, &mut names)));
        let mut names = Vec::new();
        let nodes = section.or("nodes", Vec::new(), |at| at.list(|item| node(item, &mut names)));
        Some(ShareSettings { per_tenant, per_node, tenants, nodes })
    })
}

fn share(section: &mut Section<'_>) -> Share {
    let in_flight = section.optional("in_flight", |at| at.count(1..=MOST));
    let requests = section.optional("requests", |at| at.count(1..=MOST)).map(u64::from);
    let burst = section.optional("burst", |at| at.count(1..=MOST)).map(u64::from);
    if let Some(at) = section.find("burst").filter(|_| !section.has("requests")) {
        at.wrong(
            "says how many requests may come at once, and nothing says how many a second; expected requests beside it",
        );
    }
    let bytes = section.optional("bytes", |at| at.size(LEAST_BYTES..=MOST_BYTES)).map(|bytes| Rate::new(bytes as u64));
    Share {
        in_flight,
        requests: requests.map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second) }),
        bytes,
        streams: section.optional("streams", |at| at.count(0..=MOST)),
        flows: section.optional("flows", |at| at.count(0..=MOST)),
    }
}

fn tenant(at: At<'_>, names: &mut Vec<TenantId>) -> Option<TenantShare> {
    at.section(|section| {
        let tenant: Option<TenantId> = section.required("tenant", "the name of a tenant", |at| {
            let name = at.parsed()?;
            once(&at, names, name)
        });
        let weight = section.or("weight", DEFAULT_WEIGHT, |at| at.count(1..=MAX_WEIGHT));
        let share = share(section);
        says_something(section, &["weight"]);
        Some(TenantShare { tenant: tenant?, weight, share })
    })
}

fn node(at: At<'_>, names: &mut Vec<(NodePattern, Option<TenantId>)>) -> Option<NodeShare> {
    at.section(|section| {
        let tenant: Option<TenantId> = section.optional("tenant", |at| at.parsed());
        let node: Option<NodePattern> = section.required("node", "the name of a node, or its begin and a star", |at| {
            let name = at.checked(str::parse)?;
            once(&at, names, (name, tenant.clone())).map(|(name, _)| name)
        });
        let share = share(section);
        says_something(section, &[]);
        Some(NodeShare { tenant, node: node?, share })
    })
}

/// Two entries for one name would contradict each other.
fn once<T: Clone + PartialEq>(at: &At<'_>, names: &mut Vec<T>, name: T) -> Option<T> {
    if names.contains(&name) {
        at.wrong("has an entry already; expected one for each name");
        return None;
    }
    names.push(name.clone());
    Some(name)
}

fn says_something(section: &Section<'_>, more: &[&str]) {
    let keys = || more.iter().chain(&KEYS);
    if !keys().any(|key| section.has(key)) {
        let keys: Vec<&str> = keys().copied().collect();
        section.at().wrong(format!("says nothing about it; expected some of {}", keys.join(", ")));
    }
}

/// The settings as they would be written.
pub(super) fn as_written<S: Serializer>(settings: &ShareSettings, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        per_tenant: ShownShare,
        per_node: ShownShare,
        tenants: Vec<ShownTenant<'a>>,
        nodes: Vec<ShownNode<'a>>,
    }
    #[derive(Serialize)]
    struct ShownTenant<'a> {
        tenant: &'a TenantId,
        weight: u32,
        #[serde(flatten)]
        share: ShownShare,
    }
    #[derive(Serialize)]
    struct ShownNode<'a> {
        node: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant: &'a Option<TenantId>,
        #[serde(flatten)]
        share: ShownShare,
    }
    let tenants = settings.tenants.iter().map(|named| ShownTenant {
        tenant: &named.tenant,
        weight: named.weight,
        share: named.share.into(),
    });
    let nodes = settings.nodes.iter().map(|named| ShownNode {
        node: named.node.to_string(),
        tenant: &named.tenant,
        share: named.share.into(),
    });
    Shown {
        per_tenant: settings.per_tenant.into(),
        per_node: settings.per_node.into(),
        tenants: tenants.collect(),
        nodes: nodes.collect(),
    }
    .serialize(serializer)
}

#[derive(Serialize)]
struct ShownShare {
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<u32>,
}

impl From<Share> for ShownShare {
    fn from(share: Share) -> Self {
        let Share { in_flight, requests, bytes, streams, flows } = share;
        Self {
            in_flight,
            requests: requests.map(|rate| rate.per_second),
            burst: requests.map(|rate| rate.burst),
            bytes: bytes.map(|rate| rate.per_second),
            streams,
            flows,
        }
    }
}
