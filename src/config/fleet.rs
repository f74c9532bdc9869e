//! `fleet`: several responders that act as one.

mod hop;

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::reader::{At, Section};
use crate::config::responder::ResponderConfig;
use crate::config::secret::Secret;
use crate::config::show;
use crate::config::tls::{TargetTlsConfig, target_tls};
use crate::fleet::FleetSettings;
use crate::fleet::etcd::{Endpoint, EtcdSettings, MAX_ENDPOINTS, User};
use crate::fleet::hop::HopSettings;
use crate::fleet::register::{DEFAULT_LEASE, DEFAULT_WEIGHT};
use crate::fleet::view::{MAX_ADDRESSES, MAX_TEXT_BYTES, Prefix};
use crate::id::{HostPort, ResponderId};
use crate::tls::TlsError;

pub use hop::{HopConfig, HopTls};

const SECOND: Duration = Duration::from_secs(1);
/// How long a responder is not ready because it has not read the directory, when nothing else is said. spec: FL-26
const DEFAULT_READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Etcd grants no lease that is shorter than its own elections.
const LEASES: std::ops::RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(300);
const MAX_PASSWORD_BYTES: usize = 1024;

/// `fleet`: what this responder is among its siblings, and where their directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetConfig {
    /// `etcd`: the members of one etcd, of which any will do.
    #[serde(serialize_with = "show::list")]
    pub etcd: Vec<Endpoint>,
    /// `prefix`: what the keys of this fleet begin with. Default `/adit/`.
    #[serde(serialize_with = "prefix_as_written")]
    pub prefix: Prefix,
    /// `id`: the name of this responder, which no other of the fleet has. Default: `responder.name`.
    pub id: ResponderId,
    /// `siblings_at`: where siblings reach it. Default: where `hop` listens.
    #[serde(serialize_with = "show::list")]
    pub siblings_at: Vec<HostPort>,
    /// `initiators_at`: where initiators reach it. Default: where the responder listens, if that is one address and not all of the host.
    #[serde(serialize_with = "show::list")]
    pub initiators_at: Vec<HostPort>,
    /// `region`: where it stands.
    pub region: Option<String>,
    /// `weight`: its share of the work beside its siblings. Default 100.
    pub weight: u16,
    /// `lease`: how long the others know it after its death. Default 10 s.
    #[serde(serialize_with = "show::duration")]
    pub lease: Duration,
    /// `ready_timeout`: after a start, for how long it is not ready at most because the directory was not read yet. Default 60 s.
    #[serde(serialize_with = "show::duration")]
    pub ready_timeout: Duration,
    /// `hop`: how it asks its siblings, and is asked; neither when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop: Option<HopConfig>,
    /// `tls`: which etcd is genuine, and what it is shown.
    pub tls: Option<TargetTlsConfig>,
    /// `user`: who asks, where etcd has users.
    pub user: Option<String>,
    /// `password`: of that user.
    pub password: Option<Secret>,
}

impl FleetConfig {
    /// A responder of this name whose fleet has its directory there.
    pub fn new(etcd: Vec<Endpoint>, id: ResponderId) -> Self {
        Self {
            etcd,
            prefix: Prefix::default(),
            id,
            siblings_at: Vec::new(),
            initiators_at: Vec::new(),
            region: None,
            weight: DEFAULT_WEIGHT,
            lease: DEFAULT_LEASE,
            ready_timeout: DEFAULT_READY_TIMEOUT,
            hop: None,
            tls: None,
            user: None,
            password: None,
        }
    }

    /// How siblings are asked, if they are; loads the files. `epoch` rises with each start of the responder.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn hop_settings(&self, epoch: u64) -> Result<Option<HopSettings>, TlsError> {
        self.hop.as_ref().map(|hop| hop.settings(self.id.clone(), epoch)).transpose()
    }

    /// What the membership goes by; loads the files.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn settings(&self) -> Result<FleetSettings, TlsError> {
        let password = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
        let user = self.user.clone().zip(self.password.as_ref().map(password));
        Ok(FleetSettings {
            prefix: self.prefix.clone(),
            id: self.id.clone(),
            lease: self.lease,
            siblings: self.siblings_at.clone(),
            initiators: self.initiators_at.clone(),
            region: self.region.clone(),
            weight: self.weight,
            etcd: EtcdSettings {
                tls: self.tls.as_ref().map(TargetTlsConfig::target).transpose()?,
                user: user.map(|(name, password)| User { name, password }),
                ..EtcdSettings::new(self.etcd.clone())
            },
        })
    }
}

/// Reads the section. `responder` is that of the file.
pub(super) fn fleet(at: At<'_>, responder: Option<&ResponderConfig>) -> Option<FleetConfig> {
    at.section(|section| {
        let expected = "the address of a member of etcd such as https://10.0.0.5:2379, or a list of them";
        let etcd = section.required("etcd", expected, endpoints);
        let prefix = section.or("prefix", Prefix::default(), |at| at.checked(Prefix::new));
        let id = id(section, responder);
        let siblings_at = section.or("siblings_at", Vec::new(), addresses);
        let initiators_at = section.or("initiators_at", Vec::new(), addresses);
        let region = section.optional("region", region);
        let weight = section.or("weight", u32::from(DEFAULT_WEIGHT), |at| at.count(1..=u32::from(u16::MAX)));
        let lease = section.or("lease", DEFAULT_LEASE, lease);
        let ready_timeout = section.or("ready_timeout", DEFAULT_READY_TIMEOUT, |at| at.duration(READY_TIMEOUTS));
        let hop = section.optional("hop", |at| hop::hop(at, id.as_ref()));
        let tls = section.optional("tls", target_tls);
        let (user, password) = user(section);
        let etcd = etcd?;
        check_tls(section, &etcd);
        check_reached(section, hop.as_ref());
        let weight = u16::try_from(weight).ok()?;
        let config = FleetConfig {
            prefix,
            siblings_at,
            initiators_at,
            region,
            weight,
            lease,
            ready_timeout,
            hop,
            tls,
            ..FleetConfig::new(etcd, id?)
        };
        Some(FleetConfig { user, password, ..config })
    })
}

fn endpoints(at: At<'_>) -> Option<Vec<Endpoint>> {
    let list = at.clone().one_or_more(|at| at.parsed::<Endpoint>())?;
    if list.len() > MAX_ENDPOINTS {
        at.wrong(format!("has {} members; expected at most {MAX_ENDPOINTS}", list.len()));
        return None;
    }
    Some(list)
}

/// The responder's name, unless there is one for the fleet.
fn id(section: &mut Section<'_>, responder: Option<&ResponderConfig>) -> Option<ResponderId> {
    if let Some(at) = section.find("id") {
        return at.parsed();
    }
    let name = responder?.name.as_str();
    match ResponderId::new(name) {
        Ok(id) => Some(id),
        Err(error) => {
            section.missing("id", &format!("a name for this responder, since responder.name ({name}) {error}"));
            None
        }
    }
}

fn addresses(at: At<'_>) -> Option<Vec<HostPort>> {
    let list = at.clone().one_or_more(|at| at.parsed::<HostPort>())?;
    if list.len() > MAX_ADDRESSES {
        at.wrong(format!("has {} addresses; expected at most {MAX_ADDRESSES}", list.len()));
        return None;
    }
    Some(list)
}

/// Where a responder stands, as its operator names the place.
pub(super) fn region(at: At<'_>) -> Option<String> {
    let text = at.short_text(MAX_TEXT_BYTES)?;
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Some(text);
    }
    at.wrong("has a byte that is no printable ASCII; expected a name such as eu-central");
    None
}

fn lease(at: At<'_>) -> Option<Duration> {
    let lease = at.duration(LEASES)?;
    if lease.subsec_nanos() != 0 {
        at.wrong("is no whole number of seconds; expected such as 10s");
        return None;
    }
    Some(lease.max(SECOND))
}

fn user(section: &mut Section<'_>) -> (Option<String>, Option<Secret>) {
    let user = section.optional("user", |at| at.short_text(MAX_TEXT_BYTES));
    let password = section.optional("password", |at| at.secret(1..=MAX_PASSWORD_BYTES));
    for (key, other) in [("user", "password"), ("password", "user")] {
        if let Some(at) = section.find(key).filter(|_| !section.has(other)) {
            at.wrong(format!("stands alone; expected {other} beside it"));
        }
    }
    (user, password)
}

fn check_tls(section: &mut Section<'_>, etcd: &[Endpoint]) {
    let is_secure = etcd.iter().any(|endpoint| endpoint.is_secure);
    if is_secure && !section.has("tls") {
        section.missing("tls", "a section that says which etcd is genuine, since etcd is asked over https://");
    }
    if let Some(at) = section.find("tls").filter(|_| !is_secure) {
        at.wrong("says which etcd is genuine, and none is asked over TLS; expected https:// in etcd");
    }
}

/// Siblings are told one address that they can dial.
fn check_reached(section: &mut Section<'_>, hop: Option<&HopConfig>) {
    if let Some(hop) = hop.filter(|hop| hop.listen.ip().is_unspecified())
        && !section.has("siblings_at")
    {
        let listen = hop.listen;
        section.missing(
            "siblings_at",
            &format!("where siblings reach this responder, since {listen} is no place to go to"),
        );
    }
}

fn prefix_as_written<S: Serializer>(prefix: &Prefix, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(prefix.as_str())
}
