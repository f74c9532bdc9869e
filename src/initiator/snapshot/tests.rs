use std::thread;
use std::time::{Duration, SystemTime};

use super::*;
use crate::id::{HostPort, TenantId};
use crate::initiator::DEFAULT_PROBE_INTERVAL;
use crate::initiator::health::HealthBoard;
use crate::protocol::handshake::{Service, ServiceKind, Token};
use crate::tls::pki::{Authority, Validity};
use crate::tls::{InitiatorTls, Trust};
use crate::transport::TunnelSettings;
use crate::transport::quic::{Keys, QuicSettings, bind};
use crate::transport::tcp::TcpSettings;
use crate::transport::tcp::envoy::{DialSettings, Security};

fn tls() -> Arc<InitiatorTls> {
    let valid = Validity { from: SystemTime::UNIX_EPOCH, lifetime: Duration::from_secs(3600) };
    let authority = Authority::create("test CA", valid).unwrap();
    Arc::new(InitiatorTls { credentials: None, responder: Trust::roots([authority.certificate().clone()]) })
}

fn destination(target: &str) -> Destination {
    Destination::new(&target.parse::<HostPort>().unwrap(), 1)
}

fn state(targets: &[&str]) -> State<()> {
    let terms = Terms {
        tls: tls(),
        token: None,
        destinations: targets.iter().map(|target| destination(target)).collect(),
        services: Vec::new(),
        health: HealthBoard::default(),
        accept: (),
        probe_interval: DEFAULT_PROBE_INTERVAL,
        tunnel: TunnelSettings::default(),
        quic: QuicSettings::default(),
        tcp: TcpSettings::default(),
    };
    let (socket, _) = crate::net::bind_udp(([127, 0, 0, 1], 0).into()).unwrap();
    let fixed = Fixed {
        claim: Claim {
            node: "edge-1".parse().unwrap(),
            cluster: "stores".parse().unwrap(),
            tenant: TenantId::default(),
        },
        instance: InstanceId([1; 16]),
        endpoint: bind(socket, &Keys::ephemeral(), None).unwrap(),
    };
    State::new(terms, fixed).unwrap()
}

/// Since when each destination is dialled as it is.
fn since(state: &State<()>) -> Vec<(String, u64)> {
    let current = state.current();
    current.destinations.iter().map(|prepared| (prepared.key.target.to_string(), prepared.since)).collect()
}

fn expect(state: &State<()>, expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected.iter().map(|(target, since)| ((*target).to_owned(), *since)).collect();
    assert_eq!(since(state), expected);
}

#[tokio::test]
async fn what_does_not_concern_tunnels_that_are_up_leaves_them_alone() {
    let state = state(&["a:1", "b:1"]);
    state.update(|terms| terms.tunnel.drain_timeout = Duration::from_secs(1)).unwrap();
    state.update(|terms| terms.tunnel.timing.keepalive_interval = Duration::from_secs(1)).unwrap();
    state.update(|terms| terms.destinations[0].count = 3).unwrap();
    state.update(|terms| terms.probe_interval = Duration::from_secs(1)).unwrap();
    let service = Service { name: "api".parse().unwrap(), kind: ServiceKind::Http };
    state.update(|terms| terms.services.push(service)).unwrap();
    expect(&state, &[("a:1", 0), ("b:1", 0)]);
    assert_eq!(state.current().destinations[0].destination.count, 3);
}

// spec: CT-57, SE-43
#[tokio::test]
async fn another_token_or_other_trust_is_followed_by_tunnels_that_stay() {
    let state = state(&["a:1", "b:1"]);
    let standing = || (state.current().standing.shows, state.current().standing.trusts);
    state.update(|terms| terms.tls = tls()).unwrap();
    assert_eq!(standing(), (0, 1), "another root");
    state.update(|terms| terms.token = Token::new("secret")).unwrap();
    assert_eq!(standing(), (2, 1));
    state.update(|terms| terms.token = Token::new("secret")).unwrap();
    state.update(|terms| terms.tls = Arc::new(InitiatorTls::clone(&terms.tls))).unwrap();
    assert_eq!(standing(), (2, 1), "the same, read again");
    expect(&state, &[("a:1", 0), ("b:1", 0)]);
    assert!(Arc::ptr_eq(&state.current().destinations[0].tls, &state.current().terms.tls));
}

#[tokio::test]
async fn tunnels_to_an_envoy_are_renewed_by_what_others_are_shown() {
    let state = state(&["a:1", "b:1"]);
    let envoy = DialSettings { security: Security::None, ..DialSettings::default() };
    state.update(|terms| terms.destinations[1].transport = TransportChoice::Envoy(Box::new(envoy))).unwrap();
    state.update(|terms| terms.token = Token::new("secret")).unwrap();
    expect(&state, &[("a:1", 0), ("b:1", 2)]);
    state.update(|terms| terms.tls = tls()).unwrap();
    expect(&state, &[("a:1", 0), ("b:1", 3)]);
}

#[tokio::test]
async fn another_transport_or_server_name_renews_the_tunnels_of_its_destination_alone() {
    let state = state(&["a:1", "b:1"]);
    state.update(|terms| terms.destinations[1].transport = TransportChoice::Tcp).unwrap();
    expect(&state, &[("a:1", 0), ("b:1", 1)]);
    state.update(|terms| terms.destinations[0].server_name = Some("other".to_owned())).unwrap();
    expect(&state, &[("a:1", 2), ("b:1", 1)]);
}

#[tokio::test]
async fn destinations_are_known_by_their_target_wherever_they_stand() {
    let state = state(&["a:1", "b:1"]);
    state.update(|terms| terms.destinations.insert(0, destination("c:1"))).unwrap();
    expect(&state, &[("c:1", 1), ("a:1", 0), ("b:1", 0)]);
    state.update(|terms| terms.destinations.retain(|destination| destination.target != "a:1")).unwrap();
    expect(&state, &[("c:1", 1), ("b:1", 0)]);
}

#[tokio::test]
async fn a_destination_that_was_gone_for_a_while_begins_anew() {
    let state = state(&["a:1"]);
    let before = state.current();
    let gone = &before.destinations[0];
    state.update(|terms| terms.destinations.clear()).unwrap();
    assert!(state.current().keeps(&gone.key, gone.since).is_none());
    state.update(|terms| terms.destinations.push(destination("a:1"))).unwrap();
    assert!(state.current().keeps(&gone.key, gone.since).is_none(), "what was dialled before the removal is to go");
}

#[tokio::test]
async fn one_target_may_be_there_twice() {
    let state = state(&["a:1", "a:1"]);
    state.update(|terms| terms.destinations[1].transport = TransportChoice::Tcp).unwrap();
    expect(&state, &[("a:1", 0), ("a:1", 1)]);
}

#[tokio::test]
async fn terms_that_cannot_be_used_change_nothing_and_tell_nobody() {
    let state = state(&["a:1"]);
    let (before, changes) = (state.current(), state.changes());
    // The TLS inside a tunnel to an Envoy needs a certificate.
    let envoy = TransportChoice::Envoy(Box::default());
    let refused = state.update(|terms| terms.destinations[0].transport = envoy);
    assert!(matches!(refused, Err(UpdateError::Tls(_))), "{refused:?}");
    assert!(Arc::ptr_eq(&before, &state.current()) && !changes.has_changed().unwrap());
}

#[tokio::test]
async fn updates_at_the_same_time_wait_for_each_other_and_none_is_lost() {
    const UPDATES: u32 = 50;
    let state = state(&["a:1"]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..UPDATES).for_each(|_| state.update(|terms| terms.destinations[0].count += 1).unwrap()));
        }
    });
    let current = state.current();
    assert_eq!(
        (current.destinations[0].destination.count, current.generation),
        (1 + 4 * UPDATES, 4 * u64::from(UPDATES))
    );
    assert_eq!(*state.changes().borrow(), current.generation, "the last one to be told of is the one that holds");
}
