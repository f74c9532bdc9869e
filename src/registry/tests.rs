use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};

use super::*;
// The model names the crate as a stranger would, so that the fuzz package can run it too.
use crate as adit;
use crate::id::{Claim, HostId, InstanceId, Issued, PeerIdentity, Place, ServiceName, SpkiPin, TenantId, TunnelId};
use crate::policy::{Admitted, Quotas, RuleSettings, Rules, authorize};

mod conflict;
mod many;
mod memory;
mod model;
mod picking;
mod readers;
mod supersede;

/// A tunnel that is what the test says it is. Equal only to itself.
#[derive(Debug, Clone)]
struct Fake(Arc<State>);

#[derive(Debug, Default)]
struct State {
    health: AtomicU32,
    in_flight: AtomicU32,
    rtt_micros: AtomicU64,
    is_down: AtomicBool,
}

impl Fake {
    fn new() -> Self {
        let fake = Self(Arc::default());
        fake.rtt(50_000);
        fake
    }

    fn rtt(&self, micros: u64) {
        self.0.rtt_micros.store(micros, Ordering::Relaxed);
    }

    fn busy(&self, in_flight: u32) {
        self.0.in_flight.store(in_flight, Ordering::Relaxed);
    }

    fn turn(&self, health: Health) {
        self.0.health.store(health as u32, Ordering::Relaxed);
    }

    /// Its only service is down, or not.
    fn down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }

    fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl PartialEq for Fake {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Handle for Fake {
    fn health(&self) -> Health {
        match self.0.health.load(Ordering::Relaxed) {
            0 => Health::Healthy,
            1 => Health::Unproven,
            2 => Health::Suspect,
            3 => Health::Opening,
            _ => Health::Draining,
        }
    }
    fn in_flight(&self) -> u32 {
        self.0.in_flight.load(Ordering::Relaxed)
    }
    fn rtt(&self) -> Duration {
        Duration::from_micros(self.0.rtt_micros.load(Ordering::Relaxed))
    }
    fn is_down(&self, _: Option<&ServiceName>) -> bool {
        self.0.is_down.load(Ordering::Relaxed)
    }
}

/// Who asks to be registered; the tests change what they are about.
#[derive(Clone)]
struct Asks {
    node: String,
    cluster: String,
    tenant: &'static str,
    key: Option<u8>,
    instance: u8,
    slot: u32,
    generation: u64,
    quotas: Quotas,
    /// Who signed its certificate, and from when on that is valid.
    issued: Option<(u8, i64)>,
}

fn asks(node: &str, cluster: &str) -> Asks {
    Asks {
        node: node.to_owned(),
        cluster: cluster.to_owned(),
        tenant: "default",
        key: Some(1),
        instance: 1,
        slot: 0,
        generation: 1,
        quotas: Quotas::default(),
        issued: None,
    }
}

impl Asks {
    fn claim(&self) -> Claim {
        let Self { node, cluster, tenant, .. } = self;
        Claim { node: node.parse().unwrap(), cluster: cluster.parse().unwrap(), tenant: tenant.parse().unwrap() }
    }

    fn slot(self, slot: u32) -> Self {
        Self { slot, ..self }
    }

    fn admitted(&self) -> Admitted {
        let settings = match self.issued {
            Some(_) => RuleSettings {
                identity: Some("spiffe://x/{tenant}/{cluster}/{node}".into()),
                ..RuleSettings::default()
            },
            None => RuleSettings { insecure_accept_any: true, ..RuleSettings::default() },
        };
        let settings = RuleSettings { quotas: self.quotas, ..settings };
        let instance = InstanceId([self.instance; 16]);
        let place = Place { claim: self.claim(), instance, slot: self.slot, generation: self.generation };
        let identity = PeerIdentity {
            uri_sans: vec![format!("spiffe://x/{}/{}/{}", self.tenant, self.cluster, self.node)],
            key: self.key.map(|key| SpkiPin([key; 32])),
            issued: self.issued.map(|(by, from)| Issued { authority: [by; 32], validity: (from, 9) }),
            ..PeerIdentity::default()
        };
        authorize(place, &identity, None, &Rules::new(settings).unwrap()).unwrap()
    }
}

type Fakes = Registry<Fake>;

fn insert(registry: &Fakes, id: u64, asks: &Asks) -> Result<(Fake, Vec<Fake>), InsertError> {
    let fake = Fake::new();
    let inserted = registry.insert(asks.admitted(), TunnelId(id), fake.clone())?;
    Ok((fake, inserted.superseded))
}

/// Registers a tunnel that must supersede none.
fn join(registry: &Fakes, id: u64, asks: &Asks) -> Fake {
    let (fake, superseded) = insert(registry, id, asks).unwrap();
    assert_eq!(superseded, []);
    fake
}

fn conflict(registry: &Fakes, id: u64, asks: &Asks) -> Option<Conflict> {
    match insert(registry, id, asks) {
        Err(InsertError::Conflict(conflict)) => Some(conflict),
        _ => None,
    }
}

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

/// The default balance with this entropy.
fn two_choices(entropy: u64) -> Choice {
    Choice { balance: Balance::TwoChoices, entropy }
}

fn pick_in(registry: &Fakes, tenant: &str, name: &str) -> Result<Fake, NoTunnel> {
    registry.pick(&tenant.parse().unwrap(), &host(name), two_choices(0), &[], Instant::now())
}

fn pick(registry: &Fakes, name: &str) -> Result<Fake, NoTunnel> {
    pick_in(registry, "default", name)
}

/// SplitMix64, so that a failure repeats.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

proptest! {
    // Findings become seeds of the fuzz target, which runs the same model.
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_registry_does_what_the_model_does(input in vec(any::<u8>(), 0..600)) {
        model::run(&input);
    }
}
