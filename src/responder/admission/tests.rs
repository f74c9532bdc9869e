use std::sync::Barrier;
use std::thread;
use std::time::SystemTime;

use super::*;
use crate::id::{Claim, InstanceId, TenantId};
use crate::policy::RuleSettings;
use crate::registry::Health;
use crate::shares::ShareSettings;
use crate::tls::pki::{Authority, Validity};
use crate::tls::{ClientCertificates, ResponderTls};
use crate::transport::TunnelSettings;
use crate::transport::quic::QuicSettings;
use crate::transport::tcp::TcpSettings;
use crate::transport::tcp::envoy::AcceptSettings;

#[derive(Debug, Clone, PartialEq)]
struct Numbered(u64);

impl Handle for Numbered {
    fn health(&self) -> Health {
        Health::Healthy
    }
    fn in_flight(&self) -> u32 {
        0
    }
    fn rtt(&self) -> Duration {
        Duration::from_millis(1)
    }
}

fn tls() -> Arc<ResponderTls> {
    let valid = Validity { from: SystemTime::UNIX_EPOCH, lifetime: Duration::from_secs(3600) };
    let authority = Authority::create("test CA", valid).unwrap();
    let credentials = authority.responder(&["localhost".to_owned()], valid).unwrap().credentials().unwrap();
    Arc::new(ResponderTls { credentials, initiators: ClientCertificates::NotAsked })
}

/// Rules that admit anybody in this cluster, or in any.
fn rules(cluster: Option<&str>) -> Rules {
    let cluster = cluster.map(|cluster| cluster.parse().unwrap());
    Rules::new(RuleSettings { cluster, insecure_accept_any: true, ..RuleSettings::default() }).unwrap()
}

fn admission() -> Arc<Admission<Numbered>> {
    let tls = tls();
    let terms = Terms {
        name: "test".to_owned(),
        rules: rules(None),
        judge: InitiatorJudge::new(&tls.initiators).unwrap(),
        trust_since: 0,
        tls,
        envoy: None,
        tunnel: TunnelSettings::default(),
        quic: QuicSettings::default(),
        tcp: TcpSettings::default(),
        shares: ShareSettings::default(),
        tls_since: 0,
        envoy_since: 0,
    };
    Arc::new(Admission::new(Arc::default(), terms))
}

/// The place of a node in the cluster `stores`.
fn place(node: u64) -> Place {
    let claim = Claim {
        node: format!("edge-{node}").parse().unwrap(),
        cluster: "stores".parse().unwrap(),
        tenant: TenantId::default(),
    };
    Place { claim, instance: InstanceId([1; 16]), slot: 0, generation: 1 }
}

/// A connection of this generation, of one of ours.
fn came(generation: u64) -> Came {
    Came { generation, is_envoy: false }
}

fn authorize(admission: &Admission<Numbered>, node: u64) -> Result<Admitted, Refusal> {
    admission.authorize(place(node), &PeerIdentity::default(), None, came(admission.terms().tls_since))
}

/// The whole way in.
fn enter(admission: &Admission<Numbered>, node: u64) -> Result<(), Refusal> {
    let connection = came(admission.terms().tls_since);
    let admitted = authorize(admission, node)?;
    admission.enter(admitted, connection, TunnelId(node), Numbered(node)).map(drop).map_err(|error| error.refusal)
}

/// Puts other rules in force; who no longer fits.
fn put(admission: &Admission<Numbered>, cluster: Option<&str>) -> Vec<u64> {
    let swap = admission.swap();
    let terms = swap.changed(|terms| terms.rules = rules(cluster)).unwrap();
    swap.put(terms).into_iter().map(|live| live.handle.0).collect()
}

fn registered(admission: &Admission<Numbered>) -> usize {
    admission.directory().registry().len()
}

#[test]
fn who_no_longer_fits_is_named_by_the_swap_and_who_fits_is_not() {
    let admission = admission();
    enter(&admission, 1).unwrap();
    assert!(put(&admission, Some("stores")).is_empty());
    assert_eq!(put(&admission, Some("ships")), [1]);
}

#[test]
fn a_handshake_admitted_under_old_rules_does_not_survive_the_swap() {
    let admission = admission();
    let admitted = authorize(&admission, 1).unwrap();
    assert!(put(&admission, Some("ships")).is_empty(), "it is not registered yet");
    let refusal = admission.enter(admitted, came(0), TunnelId(1), Numbered(1)).unwrap_err().refusal;
    assert_eq!(refusal.code, RefusalCode::Forbidden);
    assert_eq!(registered(&admission), 0);
}

#[test]
fn a_handshake_that_the_new_rules_admit_too_goes_on() {
    let admission = admission();
    let admitted = authorize(&admission, 1).unwrap();
    put(&admission, Some("stores"));
    put(&admission, None);
    assert!(admission.enter(admitted, came(0), TunnelId(1), Numbered(1)).unwrap().superseded.is_empty());
    assert_eq!(registered(&admission), 1);
}

#[test]
fn a_handshake_over_former_tls_settings_is_told_to_come_back() {
    let admission = admission();
    let before = authorize(&admission, 1).unwrap();
    let swap = admission.swap();
    let terms = swap.changed(|terms| terms.tls = tls()).unwrap();
    assert!(swap.put(terms).is_empty());
    let refusals = [
        admission.enter(before, came(0), TunnelId(1), Numbered(1)).unwrap_err().refusal,
        admission.authorize(place(2), &PeerIdentity::default(), None, came(0)).unwrap_err(),
    ];
    assert!(refusals.iter().all(|refusal| refusal.code == RefusalCode::Unavailable), "{refusals:?}");
    enter(&admission, 3).unwrap();
}

#[test]
fn rules_that_change_leave_the_tls_settings_as_they_were() {
    let admission = admission();
    put(&admission, Some("stores"));
    assert_eq!(admission.terms().tls_since, 0);
}

#[test]
fn whoever_comes_in_after_the_drain_began_is_refused() {
    let admission = admission();
    enter(&admission, 1).unwrap();
    let admitted = authorize(&admission, 2).unwrap();
    assert_eq!(admission.drain().len(), 1);
    let NotEntered { refusal, superseded } = admission.enter(admitted, came(0), TunnelId(2), Numbered(2)).unwrap_err();
    assert!(superseded.is_empty(), "another node");
    assert_eq!((refusal.code, refusal.retry_after), (RefusalCode::Unavailable, Some(DRAINING_RETRY_AFTER)));
    assert_eq!(authorize(&admission, 3).unwrap_err().code, RefusalCode::Unavailable);
    assert_eq!(registered(&admission), 1);
}

#[test]
fn whoever_is_superseded_by_one_that_comes_too_late_is_named() {
    let admission = admission();
    enter(&admission, 1).unwrap();
    let admitted = {
        let newer = Place { generation: 2, ..place(1) };
        admission.authorize(newer, &PeerIdentity::default(), None, came(0)).unwrap()
    };
    admission.drain();
    let error = admission.enter(admitted, came(0), TunnelId(2), Numbered(2)).unwrap_err();
    assert_eq!((error.refusal.code, error.superseded), (RefusalCode::Unavailable, vec![Numbered(1)]));
    assert_eq!(registered(&admission), 0);
}

#[test]
fn a_swap_during_a_drain_still_names_who_no_longer_fits() {
    let admission = admission();
    enter(&admission, 1).unwrap();
    admission.drain();
    admission.directory().registry().leave(TunnelId(1));
    assert_eq!(put(&admission, Some("ships")), [1]);
}

#[test]
fn of_two_swaps_at_once_none_is_lost() {
    let admission = admission();
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..100 {
                    let swap = admission.swap();
                    let terms = swap.changed(|terms| terms.name.push('x')).unwrap();
                    swap.put(terms);
                }
            });
        }
    });
    let terms = admission.terms();
    assert_eq!((terms.name.len(), terms.rules.generation()), ("test".len() + 800, 800));
}

/// The promise itself, with handshakes and swaps truly at once: nobody is inside whom the last rules do not admit.
#[test]
fn whatever_the_order_nobody_stays_whom_the_rules_do_not_admit() {
    for round in 0..50 {
        let admission = admission();
        let start = Barrier::new(3);
        let revoked = thread::scope(|scope| {
            for half in 0..2 {
                let (admission, start) = (&admission, &start);
                scope.spawn(move || {
                    start.wait();
                    for node in 0..100 {
                        let _ = enter(admission, half * 100 + node);
                    }
                });
            }
            let swap = scope.spawn(|| {
                start.wait();
                put(&admission, Some("ships"))
            });
            swap.join().unwrap()
        });
        for node in &revoked {
            admission.directory().registry().remove(TunnelId(*node), Instant::now()).unwrap();
        }
        assert_eq!(registered(&admission), 0, "round {round}, {} revoked", revoked.len());
    }
}

// spec: CT-29
#[test]
fn the_more_tunnels_drain_the_further_their_return_is_spread() {
    let spread = |tunnels| reconnect_spread(tunnels).as_millis();
    assert_eq!([0, 1, 2, 1001, 8001, 1_000_000].map(spread), [0, 0, 0, 500, 4000, 4000]);
    assert_eq!(reconnect_spread(2), Duration::from_micros(500));
}

// spec: EV-16
#[test]
fn an_envoy_whose_handshake_began_under_other_settings_asks_again_and_nobody_else_has_to() {
    let admission = admission();
    let envoy = |generation| Came { generation, is_envoy: true };
    let authorize = |came| admission.authorize(place(1), &PeerIdentity::default(), None, came);
    let change = |envoy: Option<AcceptSettings>| {
        let swap = admission.swap();
        let terms = swap.changed(|terms| terms.envoy = envoy).unwrap();
        let since = terms.envoy_since;
        swap.put(terms);
        since
    };
    let since = change(Some(AcceptSettings::default()));
    assert_eq!(authorize(envoy(since - 1)).unwrap_err().code, RefusalCode::Unavailable);
    assert!(authorize(came(since - 1)).is_ok() && authorize(envoy(since)).is_ok());
    let handshake_timeout = Duration::from_secs(1);
    assert_eq!(change(Some(AcceptSettings { handshake_timeout, ..AcceptSettings::default() })), since);
    assert!(authorize(envoy(since)).is_ok(), "no tunnel is taken that was not, and none is not that was");
    assert!(change(None) > since);
    assert_eq!(authorize(envoy(since)).unwrap_err().code, RefusalCode::Unavailable);
}

#[test]
fn who_closes_admits_nobody_and_keeps_those_who_are_in() {
    let admission = admission();
    enter(&admission, 1).unwrap();
    assert_eq!(admission.close("it is no part of the file any more", Duration::from_secs(1)).len(), 1);
    let refusal = enter(&admission, 2).unwrap_err();
    assert_eq!((refusal.code, refusal.retry_after), (RefusalCode::Unavailable, Some(Duration::from_secs(1))));
    assert_eq!(refusal.reason, "it is no part of the file any more");
}
