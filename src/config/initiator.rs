//! `initiator`: who this site is, whom it dials and with which proof.

use std::time::Duration;

use serde::Serialize;

use crate::config::access::{self, access_log};
use crate::config::envoy;
use crate::config::fleet::region;
use crate::config::heads::{HeadLimits, head_limits};
use crate::config::policies::{self, PolicyConfig};
use crate::config::reader::{At, Section};
use crate::config::responder::{congestion, congestion_as_written};
use crate::config::secret::Secret;
use crate::config::show;
use crate::config::tls::{DialerTls, dialer_tls};
use crate::id::{Claim, ClusterId, HostPort, MAX_TUNNEL_COUNT, NodeId, ServiceName, TenantId, TunnelAddress};
use crate::initiator::serve::ServiceRules;
use crate::initiator::{DEFAULT_PROBE_INTERVAL, DEFAULT_REBALANCE};
use crate::protocol::limits::MAX_TOKEN_BYTES;
use crate::protocol::session::Timing;
use crate::proxy::AccessLog;
use crate::transport::quic::CongestionControl;
use crate::transport::{TransportChoice, TunnelSettings};

const MIN_KEEPALIVE: Duration = Duration::from_millis(500);
const MAX_KEEPALIVE: Duration = Duration::from_secs(25);
const MIN_PROBE_INTERVAL: Duration = Duration::from_millis(500);
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(600);
const MIN_REBALANCE: Duration = Duration::from_secs(1);
const MAX_REBALANCE: Duration = Duration::from_secs(86_400);
const DEFAULT_COUNT: u32 = 1;
const TUNNEL_FORM: &str = "a list of { to: host:port } or rc:// addresses";

/// `initiator`: one node and the tunnels that it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitiatorConfig {
    /// `node`, `cluster` and `tenant`: who we say we are. The tenant is `default` when absent; an `rc://` address may
    /// say all three instead.
    pub claim: Claim,
    /// `tunnels`: whom we dial.
    pub tunnels: Vec<TunnelConfig>,
    /// `tls`: our certificate, and which responder we accept.
    pub tls: DialerTls,
    /// `congestion`: how fast is safe. Default `bbr`, which keeps its speed under loss.
    #[serde(serialize_with = "congestion_as_written")]
    pub congestion: CongestionControl,
    /// `keepalive`: silence after which a probe is sent, until the responder names its own. Default 5 s, 500 ms to
    /// 25 s; shorter notices a dead path sooner and costs packets on every idle tunnel.
    #[serde(serialize_with = "show::duration")]
    pub keepalive: Duration,
    /// `probe_interval`: how long a tunnel that fell back to TCP waits before QUIC is tried again; up to three times that
    /// while it does not work. Default 10 s, 500 ms to 10 min.
    #[serde(serialize_with = "show::duration")]
    pub probe_interval: Duration,
    /// `access_log`: one log line per exchange with a target, or `{ query: true }` for the query of the path, too.
    /// Default true.
    #[serde(serialize_with = "access::as_written")]
    pub access_log: AccessLog,
    /// `token`: a credential beside the certificate, at most 8 KiB; text, `${NAME}` or `file:path`.
    pub token: Option<Secret>,
    /// `limits`: how large the heads of answers from targets, and of requests for them, may be.
    pub limits: HeadLimits,
    /// `policies`: which requests and streams that come through the tunnels reach which service; the highest priority is looked
    /// at first, the first match decides, and what no rule is about reaches the service it asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyConfig>,
}

/// One responder and how many tunnels are kept to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelConfig {
    /// `to`: the responder; its name is resolved anew at each connection.
    #[serde(serialize_with = "show::text")]
    pub to: HostPort,
    /// `count`: tunnels per resolved address, at distinct responders as far as their fleet has so many. Default 1, at most 1024.
    pub count: u32,
    /// `transport`: what carries the tunnel: `auto`, `quic`, `tcp`, or `envoy` for an Envoy responder. Default `auto`.
    /// `envoy`: how that is dialled; with `transport: envoy` only.
    #[serde(flatten, serialize_with = "envoy::choice_as_written")]
    pub transport: TransportChoice,
    /// `siblings`: whether other responders of its fleet are dialled, at addresses that it names. Default true.
    pub siblings: bool,
    /// `region`: the region whose responders come first. Default: all are alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `rebalance`: within which a tunnel that is well moves to the responder where it should be, at a random time. Default 10 min,
    /// 1 s to 24 h.
    #[serde(serialize_with = "show::duration")]
    pub rebalance: Duration,
}

impl TunnelConfig {
    /// One tunnel to each address of this name, over what works.
    pub fn new(to: HostPort) -> Self {
        Self {
            to,
            count: DEFAULT_COUNT,
            transport: TransportChoice::default(),
            siblings: true,
            region: None,
            rebalance: DEFAULT_REBALANCE,
        }
    }
}

impl InitiatorConfig {
    /// With every default. It dials nobody yet: `tunnels` must follow, and in `tls` what makes a responder genuine.
    pub fn new(claim: Claim, tls: DialerTls) -> Self {
        Self {
            claim,
            tunnels: Vec::new(),
            tls,
            congestion: CongestionControl::default(),
            keepalive: Timing::default().keepalive_interval,
            probe_interval: DEFAULT_PROBE_INTERVAL,
            access_log: AccessLog::On,
            token: None,
            limits: HeadLimits::default(),
            policies: Vec::new(),
        }
    }

    /// Which requests and streams reach which service.
    pub fn rules(&self) -> ServiceRules {
        policies::unforwarding(&self.policies)
    }

    /// The settings of its tunnels; how long they may drain is said elsewhere.
    pub fn tunnel(&self) -> TunnelSettings {
        let standard = TunnelSettings::default();
        let timing = Timing { keepalive_interval: self.keepalive, ..standard.timing };
        TunnelSettings { timing, limits: self.limits.announced(), ..standard }
    }
}

/// Reads the section.
pub(super) fn initiator(at: At<'_>, exports: &[ServiceName]) -> Option<InitiatorConfig> {
    at.section(|section| {
        let named = named_claim(section);
        let addresses = section.required("tunnels", TUNNEL_FORM, |at| at.one_or_more(tunnel));
        let tls = section.required("tls", "ca, and the cert and key of this node", dialer_tls);
        let congestion = section.or("congestion", CongestionControl::default(), |at| congestion(&at));
        let keepalive = section
            .or("keepalive", Timing::default().keepalive_interval, |at| at.duration(MIN_KEEPALIVE..=MAX_KEEPALIVE));
        let intervals = MIN_PROBE_INTERVAL..=MAX_PROBE_INTERVAL;
        let probe_interval = section.or("probe_interval", DEFAULT_PROBE_INTERVAL, |at| at.duration(intervals));
        let access_log = section.or("access_log", AccessLog::On, access_log);
        let token = section.optional("token", |at| at.secret(1..=MAX_TOKEN_BYTES));
        let limits = section.or("limits", HeadLimits::default(), head_limits);
        let policies = section.or("policies", Vec::new(), |at| policies::of_initiator(at, exports));
        let addresses = addresses?;
        let claim = one_claim(section, named, &addresses);
        let tunnels = addresses.into_iter().map(|address| address.tunnel).collect();
        let (claim, tls) = (claim?, tls?);
        Some(InitiatorConfig {
            claim,
            tunnels,
            tls,
            congestion,
            keepalive,
            probe_interval,
            access_log,
            token,
            limits,
            policies,
        })
    })
}

/// A tunnel with the place of its key and, for an `rc://` address, the claim in it.
struct Address<'a> {
    at: At<'a>,
    claim: Option<Claim>,
    tunnel: TunnelConfig,
}

fn tunnel(at: At<'_>) -> Option<Address<'_>> {
    if at.is_empty() {
        at.wrong(format!("has no value; expected {TUNNEL_FORM}"));
        return None;
    }
    if at.is_section() {
        let tunnel = at.clone().section(tunnel_section)?;
        return Some(Address { at, claim: None, tunnel });
    }
    let TunnelAddress { claim, responder: to, count } = at.parsed()?;
    if count == 0 {
        at.wrong("asks for no tunnel; expected a count of at least 1");
    }
    let tunnel = TunnelConfig { count, ..TunnelConfig::new(to) };
    Some(Address { at, claim: Some(claim), tunnel })
}

fn tunnel_section(section: &mut Section<'_>) -> Option<TunnelConfig> {
    let to = section.required("to", "host:port", |at| at.parsed());
    let count = section.or("count", DEFAULT_COUNT, |at| at.count(1..=MAX_TUNNEL_COUNT));
    let transport = section.or("transport", TransportChoice::default(), |at| transport(&at));
    let siblings = section.or("siblings", true, |at| at.boolean());
    let region = section.optional("region", region);
    let rebalance = section.or("rebalance", DEFAULT_REBALANCE, |at| at.duration(MIN_REBALANCE..=MAX_REBALANCE));
    if let Some(at) = section.find("region") {
        if matches!(transport, TransportChoice::Envoy(_)) {
            at.wrong("is about a fleet, of which no Envoy tells; expected another transport");
        } else if !siblings {
            at.wrong("says which responders of a fleet are dialled, and no other is; expected siblings: true");
        }
    }
    let settings = section.optional("envoy", envoy::dial);
    if let Some(at) = section.find("envoy").filter(|_| !matches!(transport, TransportChoice::Envoy(_))) {
        at.wrong("says how to dial an Envoy, which this tunnel does not; expected transport: envoy");
    }
    let transport = match (transport, settings) {
        (TransportChoice::Envoy(_), Some(settings)) => TransportChoice::Envoy(Box::new(settings)),
        (transport, _) => transport,
    };
    Some(TunnelConfig { count, transport, siblings, region, rebalance, ..TunnelConfig::new(to?) })
}

fn transport(at: &At<'_>) -> Option<TransportChoice> {
    use TransportChoice::{Auto, Envoy, Quic, Tcp};
    at.word(&[Auto, Quic, Tcp, Envoy(Box::default())].map(|choice| (choice.label(), choice)))
}

/// What `node`, `cluster` and `tenant` say; `None` when they say nothing (or something wrong).
fn named_claim(section: &mut Section<'_>) -> Option<Claim> {
    let node: Option<NodeId> = section.optional("node", |at| at.parsed());
    let cluster: Option<ClusterId> = section.optional("cluster", |at| at.parsed());
    let tenant: Option<TenantId> = section.optional("tenant", |at| at.parsed());
    Some(Claim { node: node?, cluster: cluster?, tenant: tenant.unwrap_or_default() })
}

/// The one claim of this initiator: from its keys, or from its addresses, which must agree.
fn one_claim(section: &Section<'_>, named: Option<Claim>, addresses: &[Address<'_>]) -> Option<Claim> {
    let in_keys = ["node", "cluster", "tenant"].iter().any(|key| section.has(key));
    let from_addresses = addresses.iter().find_map(|address| address.claim.clone());
    if in_keys || from_addresses.is_none() {
        for (key, what) in [("node", "the name of this site"), ("cluster", "the name of its group")] {
            if !section.has(key) {
                section.missing(key, &format!("{what}, 1 to 128 bytes"));
            }
        }
    }
    let claim = if in_keys { named? } else { from_addresses? };
    for address in addresses {
        if let Some(other) = address.claim.as_ref().filter(|other| **other != claim) {
            address.at.wrong(format!("says that this is {other}, elsewhere it is {claim}; expected one name"));
        }
    }
    Some(claim)
}
