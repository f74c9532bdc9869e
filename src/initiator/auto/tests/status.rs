//! What operators are told.

use super::*;

fn state(bench: &Bench, transport: TransportKind) -> (PathState, Option<String>) {
    let status = bench.auto.status(bench.now);
    let path = status.paths.into_iter().find(|path| path.transport == transport).unwrap();
    (path.state, path.reason)
}

#[test]
fn a_state_has_one_word_everywhere() {
    for state in PathState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.label());
    }
}

#[test]
fn each_transport_tells_its_state_and_reason() {
    use PathState::{Failed, Standby, Trying, Untried, Up, WaitingToProbe};
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.entropy = 0;
    bench.did();
    assert_eq!((state(&bench, Quic), state(&bench, Tcp)), ((Trying, None), (Untried, None)));
    bench.failed(Quic);
    let broke = || Some("it broke".to_owned());
    assert_eq!((state(&bench, Quic), state(&bench, Tcp).0), ((Failed, broke()), Trying));
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!((state(&bench, Quic), state(&bench, Tcp)), ((WaitingToProbe, broke()), (Up, None)));
    let probe = |bench: &Bench| bench.auto.status(bench.now).paths[0].probe_in_seconds;
    assert_eq!(probe(&bench), Some(10.0));
    bench.pass(4000);
    assert_eq!(probe(&bench), Some(6.0));
    bench.wake(6000);
    assert_eq!((state(&bench, Quic).0, probe(&bench)), (Trying, None));
    bench.connected(Quic);
    bench.wake(2000);
    bench.admitted(Quic);
    assert_eq!((state(&bench, Quic).0, state(&bench, Tcp).0), (Up, Standby));
    bench.pass(10_000);
    bench.suspect();
    assert!(bench.auto.status(bench.now).paths[0].suspect);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(state(&bench, Quic), (WaitingToProbe, Some("the tunnel went silent".to_owned())));
}

#[test]
fn silence_in_a_race_is_a_reason() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(state(&bench, Quic), (PathState::WaitingToProbe, Some("no answer before TCP was admitted".to_owned())));
}

#[test]
fn seconds_on_each_transport_add_up() {
    let mut bench = Bench::on_quic();
    bench.entropy = 0;
    let up = |bench: &Bench| {
        let status = bench.auto.status(bench.now);
        (status.paths[0].up_seconds, status.paths[1].up_seconds)
    };
    assert_eq!(up(&bench), (60, 0));
    bench.suspect();
    bench.pass(1000);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(up(&bench), (61, 0));
    bench.wake(10_000);
    bench.connected(Quic);
    bench.wake(2000);
    bench.admitted(Quic);
    bench.pass(5000);
    assert_eq!(up(&bench), (66, 12));
    let status = bench.auto.status(bench.now);
    assert_eq!((status.active, status.paths[0].since_seconds, status.paths[1].since_seconds), (Some(Quic), 5, 5));
}

#[test]
fn switches_are_counted_with_the_latest_reason() {
    let mut bench = Bench::on_quic();
    let seen = |bench: &Bench| {
        let status = bench.auto.status(bench.now);
        (status.switches, status.switch_reason.unwrap_or_default())
    };
    assert_eq!(seen(&bench), (0, String::new()));
    bench.lost();
    bench.failed(Quic);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(seen(&bench), (1, "it broke".to_owned()));
    bench.wake(bench.due().unwrap());
    bench.connected(Quic);
    bench.wake(2000);
    bench.admitted(Quic);
    assert_eq!(seen(&bench), (2, "a probe was answered and held".to_owned()));
}

#[test]
fn the_status_is_json_with_plain_words() {
    let bench = Bench::on_tcp();
    let json = serde_json::to_value(bench.auto.status(bench.now)).unwrap();
    assert_eq!(json["active"], "tcp");
    assert_eq!(json["paths"][0]["transport"], "quic");
    assert_eq!(json["paths"][0]["state"], "waiting_to_probe");
}
