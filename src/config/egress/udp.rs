//! `udp` listeners of `egress`: flows of datagrams to one service of a fixed node or cluster.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{BALANCES, MAX_HOLD, balance_as_written};
use crate::config::access::{self, access_log};
use crate::config::listeners::Protocol;
use crate::config::policies::{self, About, Around, PolicyConfig, policies};
use crate::config::reader::{At, Section};
use crate::config::services::flow_idle;
use crate::config::show;
use crate::egress;
use crate::egress::Explained;
use crate::egress::udp::{UdpLimits, UdpTerms};
use crate::id::{ClusterId, HostId, NodeId, ServiceName, TenantId};
use crate::proxy::AccessLog;
use crate::registry::Balance;
use crate::routing::{DEFAULT_HOLD, RouterSettings};
use crate::template::Template;

const GOAL_FORM: &str = "{ node or cluster, service }";
/// Keys of other kinds of listeners, which a datagram has nothing to do with.
const OF_REQUESTS: [&str; 16] = [
    "connect_udp",
    "host_id",
    "tenant",
    "service",
    "connect",
    "routes",
    "affinity",
    "deadline",
    "half_close",
    "trust",
    "forwarded",
    "rewrite",
    "tls",
    "http3",
    "proxy_protocol",
    "nameless_after",
];

/// Limits that other kinds of listeners have.
const OTHER_LIMITS: [&str; 9] = [
    "connections",
    "connections_per_prefix",
    "idle",
    "head_bytes",
    "head_fields",
    "body_idle",
    "body_rate",
    "exchange_idle",
    "connect_idle",
];

/// One listener for datagrams.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UdpEgressConfig {
    /// `udp`: where it listens; port 0 takes a free one.
    pub udp: SocketAddr,
    /// `to`: where its flows go.
    pub to: UdpGoal,
    /// `balance`: how a cluster's node is chosen: `two_choices` (default), `round_robin`, or `hash`, by the address of the
    /// source without its port.
    #[serde(serialize_with = "balance_as_written")]
    pub balance: Balance,
    /// `hold`: how long a flow waits for a node that is reconnecting, at most 5 min. Default 2 s.
    #[serde(serialize_with = "show::duration")]
    pub hold: Duration,
    /// `access_log`: one log line per flow, when it is over. Default true.
    #[serde(serialize_with = "access::as_written")]
    pub access_log: AccessLog,
    /// `policies`: which flows are denied or go elsewhere, by priority; by `source`, `tenant` and `service`.
    #[serde(serialize_with = "policies::without_requests", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyConfig>,
    /// `limits`: how many flows there may be.
    #[serde(serialize_with = "limits_as_written")]
    pub limits: UdpLimits,
}

/// Where the flows of a listener go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UdpGoal {
    /// `node` or `cluster`: whom to ask.
    #[serde(flatten)]
    pub whom: Whom,
    /// `service`: which service there; its target takes datagrams.
    #[serde(serialize_with = "show::text")]
    pub service: ServiceName,
    /// `tenant`: in whose world; default `default`.
    #[serde(serialize_with = "show::text")]
    pub tenant: TenantId,
}

/// Whom the flows of a listener are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Whom {
    /// One node.
    Node(NodeId),
    /// Any node of a cluster.
    Cluster(ClusterId),
}

impl Whom {
    fn host_id(&self) -> HostId {
        match self {
            Self::Node(node) => HostId::from(node),
            Self::Cluster(cluster) => HostId::from(cluster),
        }
    }
}

impl UdpGoal {
    /// The same, as what rules compare with.
    fn router(&self) -> Option<RouterSettings> {
        let host_id = Template::parse(self.whom.host_id().as_str()).ok()?;
        Some(RouterSettings { service: Some(self.service.clone()), ..RouterSettings::new(host_id) })
    }
}

impl UdpEgressConfig {
    /// A listener with every default.
    pub fn new(udp: SocketAddr, whom: Whom, service: ServiceName) -> Self {
        Self {
            udp,
            to: UdpGoal { whom, service, tenant: TenantId::default() },
            balance: Balance::default(),
            hold: DEFAULT_HOLD,
            access_log: AccessLog::On,
            policies: Vec::new(),
            limits: UdpLimits::default(),
        }
    }

    /// What the listener goes by.
    pub fn terms(&self) -> UdpTerms {
        UdpTerms {
            tenant: self.to.tenant.clone(),
            balance: self.balance,
            hold: self.hold,
            access_log: self.access_log,
            policies: policies::unforwarding(&self.policies),
            limits: self.limits,
            ..UdpTerms::new(self.to.whom.host_id(), self.to.service.clone())
        }
    }

    /// What the listener would do with the first datagram of a source.
    pub fn explain(&self, source: SocketAddr) -> Explained {
        egress::explain_flow(&self.terms(), source)
    }
}

/// Reads an item of `egress` in which `udp` stands.
pub(super) fn listener(section: &mut Section<'_>) -> Option<UdpEgressConfig> {
    let udp = section.optional("udp", |at| at.listener(&[Protocol::Udp]));
    let to = section.optional("to", goal);
    if !section.has("to") {
        section.missing("to", GOAL_FORM);
    }
    let balance = section.or("balance", Balance::default(), |at| at.word(&BALANCES));
    let hold = section.or("hold", DEFAULT_HOLD, |at| at.duration(Duration::ZERO..=MAX_HOLD));
    let access_log = section.or("access_log", AccessLog::On, access_log);
    let router = to.as_ref().and_then(UdpGoal::router);
    let around =
        Around { knows_peers: false, about: About::Flows, router: router.as_ref(), exports: None, listens: None };
    let policies = section.or("policies", Vec::new(), |at| policies(at, &around));
    let limits = section.or("limits", UdpLimits::default(), |at| at.section(|section| Some(limits(section))));
    for key in OF_REQUESTS {
        if let Some(at) = section.find(key) {
            at.wrong(
                "is for requests or connections, and the listener takes datagrams; expected to, balance, hold, access_log, policies or limits",
            );
        }
    }
    Some(UdpEgressConfig { udp: udp?, to: to?, balance, hold, access_log, policies, limits })
}

/// The keys of `limits` that are about flows.
fn limits(section: &mut Section<'_>) -> UdpLimits {
    for key in OTHER_LIMITS {
        if let Some(at) = section.find(key) {
            at.wrong("belongs to a listener of another kind; expected flows, flows_per_prefix or flow_idle");
        }
    }
    let standard = UdpLimits::default();
    let count = |at: At<'_>| at.number(1..=1_000_000).and_then(|count| usize::try_from(count).ok());
    UdpLimits {
        flows: section.or("flows", standard.flows, count),
        flows_per_prefix: section.or("flows_per_prefix", standard.flows_per_prefix, count),
        flow_idle: section.or("flow_idle", standard.flow_idle, flow_idle),
    }
}

fn goal(at: At<'_>) -> Option<UdpGoal> {
    at.section(|section| {
        let node = section.optional("node", |at| at.parsed()).map(Whom::Node);
        let cluster = section.optional("cluster", |at| at.parsed()).map(Whom::Cluster);
        let service = section.optional("service", |at| at.parsed());
        if !section.has("service") {
            section.missing("service", "the service that is meant");
        }
        let tenant = section.or("tenant", TenantId::default(), |at| at.parsed());
        if section.has("node") == section.has("cluster") {
            section.at().wrong("does not say whom to ask; expected either node or cluster");
        }
        Some(UdpGoal { whom: node.or(cluster)?, service: service?, tenant })
    })
}

fn limits_as_written<S: Serializer>(limits: &UdpLimits, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown {
        flows: usize,
        flows_per_prefix: usize,
        #[serde(serialize_with = "show::duration")]
        flow_idle: Duration,
    }
    let UdpLimits { flows, flows_per_prefix, flow_idle } = *limits;
    Shown { flows, flows_per_prefix, flow_idle }.serialize(serializer)
}
