//! Two drivers joined by a channel in memory, with a clock that stands still unless everybody waits for it.

mod channel;

use tokio::time::sleep;

use super::*;
use crate::id::{Claim, InstanceId, Place, TunnelId};
use crate::protocol::control::{Close, Frame};
use crate::protocol::handshake::{Hello, PeerLimits, Refusal, ServiceKind, Welcome};
use crate::protocol::limits::Limits;
use crate::protocol::session::Timing;
use crate::transport::TransportKind;
use channel::{Line, Path, line};

const SECOND: Duration = Duration::from_secs(1);

fn hello() -> Hello {
    Hello {
        versions: (1, 1),
        place: place(),
        token: None,
        services: Vec::new(),
        limits: PeerLimits::default(),
        build: "adit".to_owned(),
    }
}

fn place() -> Place {
    let claim = Claim { tenant: "t".parse().unwrap(), cluster: "c".parse().unwrap(), node: "n".parse().unwrap() };
    Place { claim, instance: InstanceId([0; 16]), slot: 0, generation: 0 }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        tunnel: TunnelId(1),
        responder: "cloud".to_owned(),
        observed: None,
        limits: PeerLimits::default(),
        keepalive: 5 * SECOND,
        idle: 30 * SECOND,
        reauth: None,
        roster: None,
    }
}

fn services() -> Vec<Service> {
    vec![Service { name: "shop".parse().unwrap(), kind: ServiceKind::Http }]
}

/// One end of an open tunnel, whose driver runs.
struct End {
    state: Arc<TunnelState>,
    commands: mpsc::Sender<Command>,
    driver: tokio::task::JoinHandle<CloseReason>,
}

impl End {
    fn start(mut control: Control<Line>, opener: bool) -> Self {
        let state = TunnelState::new(TunnelId(1), place(), TransportKind::Quic, PeerLimits::default(), Vec::new());
        let (commands, mut inbox) = mpsc::channel(COMMANDS);
        let running = Arc::clone(&state);
        let driver = tokio::spawn(async move { control.run(&running, &mut inbox, opener).await });
        Self { state, commands, driver }
    }

    async fn ask(&self, command: Command) {
        self.commands.send(command).await.unwrap();
    }

    async fn drain(&self, deadline: Duration) {
        self.ask(Command::Drain(Drain { deadline, reconnect_after: SECOND, ..Drain::default() })).await;
    }

    async fn reaches(&self, expected: impl Fn(&Phase) -> bool) {
        self.state.phase().wait_for(expected).await.unwrap();
    }

    /// How it ended; the last phase must say the same.
    async fn ended(self) -> CloseReason {
        let reason = self.driver.await.unwrap();
        assert_eq!(*self.state.phase().borrow(), Phase::Closed(reason.clone()));
        reason
    }
}

/// An open tunnel.
struct Pair {
    path: Arc<Path>,
    initiator: End,
    responder: End,
}

impl Pair {
    async fn open() -> Self {
        Self::over(Path::default()).await
    }

    async fn over(path: Path) -> Self {
        let path = Arc::new(path);
        let (mut dials, mut accepts) = controls(&path);
        let responder = async {
            assert!(matches!(accepts.event().await, Ok(Event::Hello(_))));
            accepts.session().welcome(now(), &welcome()).unwrap();
            End::start(accepts, true)
        };
        let initiator = async {
            let event = dials.event().await;
            assert!(matches!(event, Ok(Event::Welcomed(_))), "{event:?}");
            End::start(dials, false)
        };
        let (responder, initiator) = tokio::join!(responder, initiator);
        tokio::join!(responder.state.opened(), initiator.state.opened());
        Self { path, initiator, responder }
    }

    async fn both_ended(self) -> [CloseReason; 2] {
        let (initiator, responder) = tokio::join!(self.initiator.ended(), self.responder.ended());
        [initiator, responder]
    }
}

/// The initiator's and the responder's driver, at the beginning of the handshake.
fn controls(path: &Arc<Path>) -> (Control<Line>, Control<Line>) {
    let (dials, accepts) = line(path);
    let initiator = Session::initiator(now(), &hello(), Timing::default()).with_close();
    let responder = Session::responder(now(), Timing::default()).with_close();
    (Control::new(dials, initiator), Control::new(accepts, responder))
}

fn frame(frame: &Frame) -> Bytes {
    let mut bytes = bytes::BytesMut::new();
    frame.encode(&mut bytes);
    bytes.freeze()
}

const fn is_draining(phase: &Phase) -> bool {
    matches!(phase, Phase::Draining { .. })
}

const fn is_closed(phase: &Phase) -> bool {
    matches!(phase, Phase::Closed(_))
}

fn done() -> CloseReason {
    CloseReason { code: CloseCode::Done, text: "drained".to_owned() }
}

// spec: HS-1, HS-2
#[tokio::test(start_paused = true)]
async fn the_handshake_opens_both_ends_at_once() {
    let begun = now();
    let pair = Pair::open().await;
    assert_eq!(now(), begun);
    assert_eq!(*pair.initiator.state.phase().borrow(), Phase::Open);
    assert_eq!(*pair.responder.state.phase().borrow(), Phase::Open);
}

// spec: HS-3, CT-25
#[tokio::test(start_paused = true)]
async fn a_refusal_arrives_and_both_ends_close_over_it() {
    let path = Arc::new(Path::default());
    let (mut dials, mut accepts) = controls(&path);
    let refusal = Refusal { code: RefusalCode::Quota, reason: "full".to_owned(), retry_after: Some(SECOND) };
    let responder = async {
        assert!(matches!(accepts.event().await, Ok(Event::Hello(_))));
        accepts.session().refuse(&refusal).unwrap();
        accepts.event().await.unwrap_err()
    };
    let initiator = async {
        assert_eq!(dials.event().await, Ok(Event::Refused(refusal.clone())));
        dials.event().await.unwrap_err()
    };
    let (responder, initiator) = tokio::join!(responder, initiator);
    assert_eq!((responder.code, initiator.code), (CloseCode::Refused, CloseCode::Refused));
    assert_eq!(initiator.text, "refused: full");
}

// spec: HS-7
#[tokio::test(start_paused = true)]
async fn what_is_no_hello_is_refused_and_the_driver_knows_the_fault() {
    let path = Arc::new(Path::default());
    let (mut dials, mut accepts) = controls(&path);
    dials.channel().inject(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"));
    let reason = accepts.event().await.unwrap_err();
    assert_eq!((reason.code, accepts.fault()), (CloseCode::Refused, Some(RefusalCode::Malformed)));
    assert!(matches!(dials.event().await, Ok(Event::Refused(refusal)) if refusal.code == RefusalCode::Malformed));
}

// spec: CT-40
#[tokio::test(start_paused = true)]
async fn a_handshake_that_nobody_answers_ends_after_ten_seconds() {
    let path = Arc::new(Path::default());
    let (mut dials, _accepts) = controls(&path);
    let begun = now();
    assert_eq!(dials.event().await.unwrap_err().code, CloseCode::HandshakeTimeout);
    assert_eq!(now() - begun, 10 * SECOND);
}

// spec: CT-20, CT-22
#[tokio::test(start_paused = true)]
async fn a_drain_by_either_end_waits_for_what_runs_and_then_closes_both() {
    for by_responder in [true, false] {
        let pair = Pair::open().await;
        let runs = pair.responder.state.begin();
        let (drains, other) =
            if by_responder { (&pair.responder, &pair.initiator) } else { (&pair.initiator, &pair.responder) };
        drains.drain(20 * SECOND).await;
        tokio::join!(drains.reaches(is_draining), other.reaches(is_draining));
        assert_eq!(other.state.reconnect_after(), Some(SECOND));
        let begun = now();
        assert!(timeout(19 * SECOND, other.reaches(is_closed)).await.is_err(), "an exchange still runs");
        drop(runs);
        assert_eq!(pair.both_ended().await, [done(), done()]);
        assert_eq!(now() - begun, 19 * SECOND);
    }
}

// spec: CT-20, CT-24
#[tokio::test(start_paused = true)]
async fn drains_that_cross_are_one_drain() {
    let pair = Pair::over(Path::slow(SECOND)).await;
    tokio::join!(pair.initiator.drain(20 * SECOND), pair.responder.drain(20 * SECOND));
    assert_eq!(pair.both_ended().await, [done(), done()]);
}

// spec: CT-23
#[tokio::test(start_paused = true)]
async fn what_outlasts_the_deadline_of_a_drain_is_cut() {
    let pair = Pair::open().await;
    let _runs = pair.responder.state.begin();
    let begun = now();
    pair.initiator.drain(7 * SECOND).await;
    let [initiator, responder] = pair.both_ended().await;
    assert_eq!((initiator.code, responder.code), (CloseCode::Done, CloseCode::Done));
    assert_eq!(initiator.text, "the drain deadline passed");
    assert_eq!(now() - begun, 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_second_drain_changes_nothing() {
    let pair = Pair::open().await;
    let _runs = pair.responder.state.begin();
    let begun = now();
    pair.responder.drain(7 * SECOND).await;
    pair.responder.drain(SECOND).await;
    pair.both_ended().await;
    assert_eq!(now() - begun, 7 * SECOND);
}

// spec: CT-41, CT-42
#[tokio::test(start_paused = true)]
async fn a_silent_path_makes_a_tunnel_suspect_and_the_next_answer_clears_it() {
    let pair = Pair::over(Path::measured(SECOND / 50)).await;
    let begun = now();
    pair.path.lose(true);
    pair.responder.reaches(|phase| *phase == Phase::Suspect).await;
    assert_eq!(now() - begun, 8 * SECOND);
    pair.path.lose(false);
    pair.responder.reaches(|phase| *phase == Phase::Open).await;
    assert_eq!(now() - begun, 11 * SECOND, "with the answer to the next probe");
}

// spec: CT-42
#[tokio::test(start_paused = true)]
async fn a_tunnel_in_use_is_suspect_sooner() {
    let pair = Pair::over(Path::measured(SECOND / 50)).await;
    for _ in 0..7 {
        sleep(SECOND).await;
        drop(pair.responder.state.begin());
        pair.path.hear_responder();
    }
    pair.path.lose(true);
    let begun = now();
    drop(pair.responder.state.begin());
    pair.responder.reaches(|phase| *phase == Phase::Suspect).await;
    assert!(now() - begun <= 5 * SECOND, "{:?}: a look, a second of silence, and an answer owed", now() - begun);
}

// spec: CT-42, CT-51
#[tokio::test(start_paused = true)]
async fn the_first_exchange_after_idleness_is_looked_at_at_once() {
    let pair = Pair::over(Path::measured(SECOND / 50)).await;
    for (end, look) in [(&pair.responder, SECOND), (&pair.initiator, Duration::from_millis(75))] {
        // Right behind a keepalive that was answered, so that the next one is far away.
        sleep(21 * SECOND / 2).await;
        pair.path.lose(true);
        let begun = now();
        drop(end.state.begin());
        end.reaches(|phase| *phase == Phase::Suspect).await;
        assert_eq!(now() - begun, 2 * look + 3 * SECOND, "two looks and an answer owed");
        pair.path.lose(false);
        end.reaches(|phase| *phase == Phase::Open).await;
    }
}

// spec: CT-42
#[tokio::test(start_paused = true)]
async fn a_driver_that_looks_anyway_is_not_woken_by_every_exchange() {
    let pair = Pair::over(Path::measured(SECOND / 50)).await;
    let state = &pair.responder.state;
    sleep(SECOND / 2).await;
    assert!(state.awaits_use(), "it sleeps");
    for _ in 0..3 {
        drop(state.begin());
        tokio::task::yield_now().await;
        assert!(!state.awaits_use(), "its next look is a second away");
    }
    sleep(10 * SECOND).await;
    assert!(state.awaits_use(), "nothing began for long");
}

// spec: CT-10
#[tokio::test(start_paused = true)]
async fn whatever_stream_the_peer_is_heard_on_it_lives() {
    let pair = Pair::over(Path::measured(SECOND / 50)).await;
    pair.path.lose(true);
    for _ in 0..60 {
        pair.path.hear_responder();
        sleep(SECOND).await;
    }
    assert_eq!(*pair.responder.state.phase().borrow(), Phase::Open);
    assert!(is_closed(&pair.initiator.state.phase().borrow()), "the other end has heard nothing");
}

// spec: CT-43
#[tokio::test(start_paused = true)]
async fn an_end_that_hears_nothing_for_the_idle_timeout_closes() {
    let pair = Pair::open().await;
    let begun = now();
    pair.path.lose(true);
    let [initiator, responder] = pair.both_ended().await;
    assert_eq!((initiator.code, responder.code), (CloseCode::Idle, CloseCode::Idle));
    assert_eq!(now() - begun, 30 * SECOND);
}

// spec: CT-43
#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_no_bytes_for_the_idle_timeout_is_given_up() {
    let pair = Pair::over(Path::measured(SECOND / 50)).await;
    pair.path.stall(true);
    let begun = now();
    pair.initiator.ask(Command::Services(services())).await;
    let reason = pair.initiator.ended().await;
    assert_eq!(reason.code, CloseCode::Idle);
    assert_eq!(reason.text, "the peer did not read the control stream for the idle timeout");
    assert_eq!(now() - begun, 30 * SECOND);
}

/// An initiator whose services changed and cannot be told.
async fn blocked() -> Pair {
    let pair = Pair::over(Path::measured(SECOND / 50)).await;
    pair.path.stall(true);
    pair.initiator.ask(Command::Services(services())).await;
    pair
}

// spec: CT-53
#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_no_bytes_makes_a_tunnel_suspect_until_it_takes_them() {
    let (pair, begun) = (blocked().await, now());
    pair.initiator.reaches(|phase| *phase == Phase::Suspect).await;
    assert_eq!(now() - begun, 3 * SECOND);
    pair.path.stall(false);
    pair.initiator.reaches(|phase| *phase == Phase::Open).await;
    assert_eq!(now() - begun, 3 * SECOND);
}

// spec: CT-53
#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_no_bytes_from_a_peer_that_is_heard_is_no_reason_to_doubt() {
    let pair = Pair::over(Path::measured(SECOND / 50)).await;
    pair.path.stall(true);
    pair.responder.ask(Command::Probe).await;
    for _ in 0..10 {
        sleep(SECOND).await;
        pair.path.hear_responder();
        assert_eq!(*pair.responder.state.phase().borrow(), Phase::Open);
    }
    pair.responder.reaches(|phase| *phase == Phase::Suspect).await;
    pair.path.hear_responder();
    pair.responder.reaches(|phase| *phase == Phase::Open).await;
}

// spec: CT-28, CT-53
#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_no_bytes_holds_up_no_end() {
    let revoked = CloseReason { code: CloseCode::Superseded, text: "another one".to_owned() };
    let drain = Drain { deadline: 30 * SECOND, reconnect_after: SECOND, ..Drain::default() };
    for (command, code) in [(Command::Close(revoked), CloseCode::Superseded), (Command::Drain(drain), CloseCode::Idle)]
    {
        let is_drain = matches!(command, Command::Drain(_));
        let (pair, begun) = (blocked().await, now());
        pair.initiator.ask(command).await;
        assert_eq!(pair.initiator.ended().await.code, code);
        assert_eq!(now() - begun, if is_drain { 3 * SECOND } else { Duration::ZERO });
    }
}

// spec: CT-53
#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_blocked_tunnel_is_done_when_it_can_be() {
    let pair = blocked().await;
    sleep(4 * SECOND).await;
    pair.initiator.ask(Command::Services(Vec::new())).await;
    pair.initiator
        .ask(Command::Retire(Drain { deadline: 30 * SECOND, reconnect_after: SECOND, ..Drain::default() }))
        .await;
    pair.initiator.reaches(is_draining).await;
    let at_responder = Arc::clone(&pair.responder.state);
    pair.path.stall(false);
    let [initiator, responder] = pair.both_ended().await;
    assert_eq!((initiator.code, responder.code), (CloseCode::Done, CloseCode::Done));
    assert_eq!(at_responder.services(), []);
}

// spec: CT-43
#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_bytes_again_in_time_goes_on() {
    let pair = Pair::open().await;
    pair.path.stall(true);
    pair.initiator.ask(Command::Services(services())).await;
    sleep(20 * SECOND).await;
    pair.path.stall(false);
    sleep(20 * SECOND).await;
    assert_eq!(pair.responder.state.services(), services());
    assert_eq!(*pair.initiator.state.phase().borrow(), Phase::Open);
}

// spec: CT-30, CT-31
#[tokio::test(start_paused = true)]
async fn what_the_initiator_exports_and_takes_reaches_the_responder() {
    let pair = Pair::open().await;
    let limits = PeerLimits { head_bytes: 4096, head_fields: 32 };
    pair.path.inject_to_responder(frame(&Frame::Limits(limits)));
    pair.initiator.ask(Command::Services(services())).await;
    // A close goes behind what was said before it.
    pair.initiator.ask(Command::Close(CloseReason { code: CloseCode::Superseded, text: "newer".to_owned() })).await;
    let state = Arc::clone(&pair.responder.state);
    let [initiator, responder] = pair.both_ended().await;
    assert_eq!((state.services(), state.peer_limits()), (services(), limits));
    assert_eq!((initiator.code, initiator.text.as_str()), (CloseCode::Superseded, "newer"));
    assert_eq!(responder, initiator);
}

// spec: CT-31, CT-33
#[tokio::test(start_paused = true)]
async fn what_an_end_takes_is_told_and_a_lower_limit_holds_for_it_after_the_idle_timeout() {
    let pair = Pair::open().await;
    for (from, to) in [(&pair.initiator, &pair.responder), (&pair.responder, &pair.initiator)] {
        // As the handshake has it.
        from.state.heads().replace_takes(PeerLimits::default());
        let (former, mixed) = (from.state.heads().takes(), Limits { head_bytes: 8_192, head_fields: 200 });
        from.state.heads().want(mixed);
        sleep(SECOND).await;
        assert_eq!(to.state.peer_limits(), mixed.into());
        assert_eq!(from.state.heads().takes(), mixed.or_more(former));
        sleep(28 * SECOND).await;
        assert_eq!(from.state.heads().takes(), mixed.or_more(former), "it may be gone by still");
        sleep(2 * SECOND).await;
        assert_eq!(from.state.heads().takes(), mixed);
    }
}

// spec: TB-32
#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_take_as_much_announces_what_it_can() {
    let pair = Pair::open().await;
    pair.initiator.state.heads().bound(Limits { head_bytes: 100_000, head_fields: 120 });
    pair.initiator.state.heads().want(Limits { head_bytes: 200_000, head_fields: 110 });
    sleep(SECOND).await;
    let told = PeerLimits { head_bytes: 100_000, head_fields: 110 };
    assert_eq!(pair.responder.state.peer_limits(), told);
}

#[tokio::test(start_paused = true)]
async fn a_responder_exports_nothing_and_asking_for_it_harms_nothing() {
    let pair = Pair::open().await;
    pair.responder.ask(Command::Services(services())).await;
    pair.responder.drain(SECOND).await;
    assert_eq!(pair.both_ended().await, [done(), done()]);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_nobody_holds_any_more_is_closed() {
    let Pair { path, initiator, responder } = Pair::open().await;
    drop(initiator.commands);
    let released = CloseReason { code: CloseCode::Done, text: "released".to_owned() };
    assert_eq!(initiator.driver.await.unwrap(), released);
    assert_eq!(responder.ended().await, released);
    assert_eq!(path.closes(), [(released, false)], "the other end is told once");
}

// spec: CT-6
#[tokio::test(start_paused = true)]
async fn a_control_stream_that_ends_ends_the_tunnel() {
    let pair = Pair::open().await;
    pair.path.end_initiator();
    let reason = pair.responder.ended().await;
    assert_eq!((reason.code, reason.text.as_str()), (CloseCode::Protocol, "the control stream ended"));
}

// spec: CT-34
#[tokio::test(start_paused = true)]
async fn a_close_of_the_peer_is_taken_over_and_not_said_back() {
    let pair = Pair::open().await;
    let close = Close { code: CloseCode::Revoked.number().into(), reason: "gone".to_owned() };
    pair.path.inject_to_responder(frame(&Frame::Close(close)));
    let reason = pair.responder.ended().await;
    assert_eq!((reason.code, reason.text.as_str()), (CloseCode::Revoked, "gone"));
    assert_eq!(pair.path.closes(), [(reason, true)]);
}

// spec: CT-5
#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_protocol_loses_the_tunnel() {
    let pair = Pair::open().await;
    pair.path.inject_to_responder(frame(&Frame::Drained));
    assert_eq!(pair.responder.ended().await.code, CloseCode::Protocol);
    assert_eq!(pair.initiator.ended().await.code, CloseCode::Protocol, "and learns why");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_ends_the_tunnel_with_its_reason() {
    let pair = Pair::open().await;
    let lost = CloseReason { code: CloseCode::Internal, text: "reset by peer".to_owned() };
    pair.path.break_off(&lost);
    assert_eq!(pair.both_ended().await, [lost.clone(), lost]);
}

// spec: CT-13
#[tokio::test(start_paused = true)]
async fn the_responder_measures_the_round_trip_where_the_channel_does_not() {
    let delay = SECOND / 50;
    let pair = Pair::over(Path::slow(delay)).await;
    sleep(4 * SECOND).await;
    assert_eq!(pair.responder.state.rtt(), 2 * delay);
    assert_eq!(pair.initiator.state.rtt(), Duration::ZERO, "it does not choose between tunnels");
    let asked = pair.path.pings_of_responder();
    sleep(20 * SECOND).await;
    assert_eq!(pair.path.pings_of_responder() - asked, 4, "every five seconds, and nothing else");
}

#[tokio::test(start_paused = true)]
async fn the_round_trip_of_the_channel_is_taken_where_there_is_one() {
    let rtt = SECOND / 100;
    let pair = Pair::over(Path::measured(rtt)).await;
    sleep(12 * SECOND).await;
    assert_eq!([pair.initiator.state.rtt(), pair.responder.state.rtt()], [rtt, rtt]);
}

/// What a responder says that leaves its fleet.
fn leaving() -> Drain {
    Drain { deadline: 30 * SECOND, reconnect_after: SECOND, serves: 10 * SECOND }
}

// spec: CT-35
#[tokio::test(start_paused = true)]
async fn a_responder_that_leaves_asks_for_a_replacement_and_goes_on_until_it_drains() {
    let pair = Pair::open().await;
    pair.responder.ask(Command::Leave(leaving())).await;
    pair.initiator.reaches(is_draining).await;
    assert_eq!(pair.initiator.state.reconnect_after(), Some(SECOND));
    sleep(5 * SECOND).await;
    assert_eq!(*pair.responder.state.phase().borrow(), Phase::Open, "it opens streams as before");
    pair.responder.drain(20 * SECOND).await;
    let [initiator, responder] = pair.both_ended().await;
    assert_eq!((initiator.code, responder.code), (CloseCode::Done, CloseCode::Done));
}

// spec: CT-35
#[tokio::test(start_paused = true)]
async fn an_initiator_that_stops_drains_a_tunnel_of_a_responder_that_leaves() {
    let pair = Pair::open().await;
    pair.responder.ask(Command::Leave(leaving())).await;
    pair.initiator.reaches(is_draining).await;
    let runs = pair.responder.state.begin();
    pair.initiator.drain(20 * SECOND).await;
    pair.responder.reaches(is_draining).await;
    drop(runs);
    let [initiator, responder] = pair.both_ended().await;
    assert_eq!((initiator.code, responder.code), (CloseCode::Done, CloseCode::Done));
}

// spec: CT-23, CT-35
#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_drain_that_still_serves_holds() {
    let (pair, begun) = (Pair::open().await, now());
    pair.responder.ask(Command::Leave(leaving())).await;
    let [initiator, responder] = pair.both_ended().await;
    assert_eq!((initiator.code, responder.code), (CloseCode::Done, CloseCode::Done));
    assert_eq!((now() - begun).as_secs(), 30);
}

// spec: CT-28, CT-35
#[tokio::test(start_paused = true)]
async fn one_that_was_told_and_is_not_heard_holds_no_end_up() {
    let pair = Pair::open().await;
    pair.responder.ask(Command::Leave(leaving())).await;
    pair.initiator.reaches(is_draining).await;
    let (_runs, begun) = (pair.responder.state.begin(), now());
    pair.path.lose(true);
    pair.responder.drain(20 * SECOND).await;
    let responder = pair.responder.ended().await;
    assert_eq!((responder.code, (now() - begun).as_secs()), (CloseCode::Idle, 3));
}
