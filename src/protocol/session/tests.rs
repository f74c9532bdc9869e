//! Sessions driven by a clock moved by hand, alone and joined back to back.

mod activity;
mod grant;

use proptest::prelude::*;

use super::*;
use crate::id::{Claim, InstanceId, Place, TunnelId};
use crate::protocol::budgets::{CHANGE_BURST, CHANGES_PER_SECOND, FRAME_BURST, FRAMES_PER_SECOND};
use crate::protocol::control::{FrameError, FrameType};
use crate::protocol::handshake::Token;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn hello() -> Hello {
    let claim =
        Claim { tenant: "acme".parse().unwrap(), cluster: "stores".parse().unwrap(), node: "edge-17".parse().unwrap() };
    Hello {
        versions: (1, 1),
        place: Place { claim, instance: InstanceId([7; 16]), slot: 0, generation: 1 },
        token: None,
        services: Vec::new(),
        limits: PeerLimits::default(),
        build: "adit/0.1.0".to_owned(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        tunnel: TunnelId(1),
        responder: "cloud-1".to_owned(),
        observed: None,
        limits: PeerLimits::default(),
        keepalive: 5 * SECOND,
        idle: 30 * SECOND,
        reauth: None,
        roster: None,
    }
}

/// Shows a token.
fn reauth(number: u64) -> Reauth {
    Reauth { number, token: Token::new("fresh"), certificate: None }
}

fn refusal(code: RefusalCode) -> Refusal {
    Refusal { code, reason: "no".to_owned(), retry_after: None }
}

fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll()).collect()
}

fn events(outputs: &[Output]) -> Vec<Event> {
    let event = |output: &Output| match output {
        Output::Event(event) => Some(event.clone()),
        _ => None,
    };
    outputs.iter().filter_map(event).collect()
}

fn frames(outputs: &[Output]) -> Vec<Frame> {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    for output in outputs {
        if let Output::Send(bytes) = output {
            let mut input = &bytes[..];
            frames.extend(std::iter::from_fn(|| reader.next(&mut input).unwrap()));
        }
    }
    frames
}

fn close_code(outputs: &[Output]) -> Option<CloseCode> {
    match outputs.last() {
        Some(Output::Close { code, .. }) => Some(*code),
        _ => None,
    }
}

/// Moves the clock to each deadline up to `until`, with what the session does at each.
fn run_timers(session: &mut Session, until: Instant) -> Vec<(Instant, Output)> {
    let mut done = Vec::new();
    while let Some(at) = session.deadline().filter(|&at| at <= until) {
        session.timeout(at);
        done.extend(outputs(session).into_iter().map(|output| (at, output)));
    }
    done
}

/// Two sessions with a perfect line between them.
struct Pair {
    initiator: Session,
    responder: Session,
    start: Instant,
}

impl Pair {
    fn new() -> Self {
        let start = Instant::now();
        let initiator = Session::initiator(start, &hello(), Timing::default());
        Self { initiator, responder: Session::responder(start, Timing::default()), start }
    }

    fn open() -> Self {
        let mut pair = Self::new();
        pair.deliver(Duration::ZERO);
        pair.responder.welcome(pair.start, &welcome()).unwrap();
        let (initiator, _) = pair.deliver(Duration::ZERO);
        assert_eq!(events(&initiator), [Event::Welcomed(Box::new(welcome()))]);
        pair
    }

    fn at(&self, after: Duration) -> Instant {
        self.start + after
    }

    /// Carries bytes both ways until nobody has anything to say; the outputs of the initiator and the responder.
    fn deliver(&mut self, after: Duration) -> (Vec<Output>, Vec<Output>) {
        let now = self.at(after);
        let (mut from_initiator, mut from_responder) = (Vec::new(), Vec::new());
        loop {
            let (left, right) = (outputs(&mut self.initiator), outputs(&mut self.responder));
            if left.is_empty() && right.is_empty() {
                return (from_initiator, from_responder);
            }
            carry(now, &left, &mut self.responder);
            carry(now, &right, &mut self.initiator);
            from_initiator.extend(left);
            from_responder.extend(right);
        }
    }
}

fn carry(now: Instant, outputs: &[Output], to: &mut Session) {
    for output in outputs {
        if let Output::Send(bytes) = output {
            to.receive(now, bytes).unwrap();
        }
    }
}

fn deliver_frame(session: &mut Session, now: Instant, frame: &Frame) -> Result<(), SessionError> {
    session.receive(now, &encoded(frame))
}

// spec: HS-1, HS-2
#[test]
fn hello_and_welcome_open_both_ends() {
    let mut pair = Pair::new();
    assert_eq!(pair.initiator.state(), State::Handshaking);
    let (_, responder) = pair.deliver(Duration::ZERO);
    assert_eq!(events(&responder), [Event::Hello(Box::new(hello()))]);
    assert_eq!(pair.responder.state(), State::Handshaking);
    pair.responder.welcome(pair.start, &welcome()).unwrap();
    pair.deliver(Duration::ZERO);
    assert_eq!((pair.initiator.state(), pair.responder.state()), (State::Open, State::Open));
}

// spec: HS-3, HS-37
#[test]
fn a_refusal_tells_why_and_closes_both_ends() {
    let mut pair = Pair::new();
    pair.deliver(Duration::ZERO);
    let refusal = Refusal { retry_after: Some(7 * SECOND), ..refusal(RefusalCode::Quota) };
    pair.responder.refuse(&refusal).unwrap();
    let (initiator, responder) = pair.deliver(Duration::ZERO);
    assert_eq!(events(&initiator), [Event::Refused(refusal)]);
    assert_eq!(close_code(&initiator), Some(CloseCode::Refused));
    assert_eq!(close_code(&responder), Some(CloseCode::Refused));
    assert_eq!((pair.initiator.state(), pair.responder.state()), (State::Closed, State::Closed));
    assert_eq!(pair.initiator.deadline(), None);
}

/// What broke: HTTP/2 in the place of HELLO was skipped as a frame of an unknown even type, until the timeout.
// spec: CT-4, HS-7, HS-24
#[test]
fn in_the_handshake_nothing_is_skipped_and_a_header_is_enough_to_say_so() {
    let now = Instant::now();
    let early = Err(SessionError::Frame(FrameError::Early(0x1052)));
    let mut responder = Session::responder(now, Timing::default());
    assert_eq!(responder.receive(now, b"PRI * HTTP/2.0"), early);
    assert_eq!(close_code(&outputs(&mut responder)), Some(CloseCode::Refused));
    let mut initiator = Session::initiator(now, &hello(), Timing::default());
    assert_eq!(initiator.receive(now, b"PRI * HTTP/2.0"), early);
    assert_eq!(close_code(&outputs(&mut initiator)), Some(CloseCode::Protocol));
}

// spec: HS-7, HS-8, CT-5
#[test]
fn what_is_not_a_usable_hello_is_refused_with_its_number() {
    let refused_with = |bytes: &[u8]| {
        let now = Instant::now();
        let mut session = Session::responder(now, Timing::default());
        session.receive(now, bytes).unwrap_err();
        let outputs = outputs(&mut session);
        assert_eq!(close_code(&outputs), Some(CloseCode::Refused));
        match &frames(&outputs)[..] {
            [Frame::Refuse(refusal)] => refusal.code,
            other => panic!("{other:?}"),
        }
    };
    let future = Hello { versions: (2, 9), ..hello() };
    assert_eq!(refused_with(&encoded(&Frame::Hello(Box::new(future)))), RefusalCode::Unsupported);
    assert_eq!(refused_with(&encoded(&Frame::Ping([0; 8]))), RefusalCode::Malformed);
    assert_eq!(refused_with(b"GET / HTTP/1.1\r\n\r\n"), RefusalCode::Malformed);
    assert_eq!(refused_with(&[0x01, 0x00]), RefusalCode::Malformed);
    assert_eq!(refused_with(&[0x01, 0x80, 0x10, 0x00, 0x00]), RefusalCode::Malformed, "a HELLO of 1 MiB");
    assert_eq!(refused_with(&[0x0d, 0x00]), RefusalCode::Malformed, "an unknown odd frame");
}

// spec: CT-8, HS-33
#[test]
fn what_is_not_due_is_at_fault_before_it_is_whole() {
    let now = Instant::now();
    let hello = encoded(&Frame::Hello(Box::new(hello())));
    let heard = |session: Session, bytes: &[u8]| {
        let mut session = session;
        session.receive(now, &[&hello[..], bytes].concat())
    };
    let quic = || Session::responder(now, Timing::default());
    for early in [&b"\x02"[..], b"\x02\x08", b"\x03\x28", b"\x06\x28", b"\x0d", b"\x20", b"\x41"] {
        assert!(heard(quic(), early).is_err(), "{early:?}");
    }
    // Over TCP CLOSE may follow HELLO.
    assert!(heard(quic().with_close(), b"\x0d\x28").is_ok());
    assert!(heard(quic().with_close(), b"\x02").is_err());
    for header in [&b"\x02\x08"[..], b"\x02", b"\x03\x28", b"\x0d\x28", b"\x20"] {
        let mut session = quic();
        assert!(session.receive(now, header).is_err(), "before HELLO: {header:?}");
    }
    for begun in [&b"\x01"[..], b"\x50"] {
        let mut session = quic();
        assert!(session.receive(now, begun).is_ok(), "nobody can tell yet: {begun:?}");
    }
}

// spec: HS-33
#[test]
fn an_initiator_that_does_not_wait_for_welcome_is_refused() {
    let mut pair = Pair::new();
    pair.deliver(Duration::ZERO);
    let error = deliver_frame(&mut pair.responder, pair.start, &Frame::Ping([0; 8])).unwrap_err();
    assert_eq!(error, SessionError::Unexpected { frame: FrameType::Ping, state: State::Handshaking });
    assert_eq!(frames(&outputs(&mut pair.responder)).len(), 1, "REFUSE");
}

// spec: HS-9
#[test]
fn a_welcome_must_choose_an_offered_version() {
    let mut pair = Pair::new();
    pair.deliver(Duration::ZERO);
    pair.responder.welcome(pair.start, &Welcome { version: 2, ..welcome() }).unwrap();
    let bytes = outputs(&mut pair.responder);
    let Output::Send(bytes) = &bytes[0] else { panic!() };
    assert_eq!(pair.initiator.receive(pair.start, bytes), Err(SessionError::Version(2)));
    assert_eq!(close_code(&outputs(&mut pair.initiator)), Some(CloseCode::Protocol));
}

// spec: HS-24
#[test]
fn an_initiator_closes_at_anything_but_a_good_answer() {
    let bad_welcome = Frame::Welcome(Box::new(Welcome { keepalive: Duration::ZERO, ..welcome() }));
    for frame in [Frame::Ping([0; 8]), Frame::Drained, bad_welcome] {
        let mut pair = Pair::new();
        pair.deliver(Duration::ZERO);
        deliver_frame(&mut pair.initiator, pair.start, &frame).unwrap_err();
        assert_eq!(close_code(&outputs(&mut pair.initiator)), Some(CloseCode::Protocol), "{frame:?}");
    }
}

// spec: CT-40
#[test]
fn a_handshake_that_takes_too_long_closes_either_end() {
    for mut session in [
        Session::initiator(Instant::now(), &hello(), Timing::default()),
        Session::responder(Instant::now(), Timing::default()),
    ] {
        outputs(&mut session);
        let at = session.deadline().unwrap();
        session.timeout(at - Duration::from_nanos(1));
        assert_eq!(session.state(), State::Handshaking);
        session.timeout(at);
        assert_eq!(close_code(&outputs(&mut session)), Some(CloseCode::HandshakeTimeout));
    }
}

// spec: CT-40
#[test]
fn half_a_hello_does_not_prolong_the_handshake() {
    let start = Instant::now();
    let mut session = Session::responder(start, Timing::default());
    let hello = encoded(&Frame::Hello(Box::new(hello())));
    session.receive(start + 9 * SECOND, &hello[..hello.len() / 2]).unwrap();
    assert_eq!(session.deadline(), Some(start + 10 * SECOND));
}

// spec: CT-10, CT-11, CT-41
#[test]
fn silence_is_broken_by_a_probe_and_its_answer_tells_the_round_trip() {
    let mut pair = Pair::open();
    let deadline = pair.initiator.deadline().unwrap();
    assert_eq!(deadline, pair.at(5 * SECOND));
    pair.initiator.timeout(deadline);
    let ping = outputs(&mut pair.initiator);
    assert_eq!(frames(&ping), [Frame::Ping([0; 8])]);
    carry(deadline, &ping, &mut pair.responder);
    let pong = outputs(&mut pair.responder);
    assert_eq!(frames(&pong), [Frame::Pong([0; 8])]);
    carry(pair.at(Duration::from_millis(5040)), &pong, &mut pair.initiator);
    assert_eq!(events(&outputs(&mut pair.initiator)), [Event::Rtt(Duration::from_millis(40))]);
    assert!(!pair.initiator.is_suspect());
}

// spec: CT-41
#[test]
fn a_tunnel_that_is_heard_is_not_probed() {
    let mut pair = Pair::open();
    for second in 1..60 {
        let now = pair.at(second * SECOND);
        pair.initiator.heard(now);
        pair.initiator.timeout(now);
    }
    assert_eq!(outputs(&mut pair.initiator), []);
    assert_eq!(pair.initiator.deadline(), Some(pair.at(64 * SECOND)));
}

// spec: CT-52
#[test]
fn the_first_probe_of_a_tunnel_comes_when_it_is_told_to_even_if_the_peer_is_heard_meanwhile() {
    let mut pair = Pair::open();
    pair.initiator.spread_keepalive(pair.at(Duration::ZERO), 0.3);
    pair.initiator.heard(pair.at(SECOND));
    assert_eq!(pair.initiator.deadline(), Some(pair.at(Duration::from_millis(1500))));
    pair.initiator.timeout(pair.at(Duration::from_millis(1500)));
    assert_eq!(frames(&outputs(&mut pair.initiator)), [Frame::Ping([0; 8])]);
    pair.initiator.heard(pair.at(2 * SECOND));
    assert_eq!(pair.initiator.deadline(), Some(pair.at(7 * SECOND)), "only the first");
}

// spec: CT-41
#[test]
fn the_initiator_probes_as_often_as_welcome_says() {
    let mut pair = Pair::new();
    pair.deliver(Duration::ZERO);
    pair.responder.welcome(pair.start, &Welcome { keepalive: SECOND, idle: 9 * SECOND, ..welcome() }).unwrap();
    pair.deliver(Duration::ZERO);
    assert_eq!(pair.initiator.deadline(), Some(pair.at(SECOND)));
    assert_eq!(pair.responder.deadline(), Some(pair.at(5 * SECOND)));
    let until = pair.at(60 * SECOND);
    let idle_at = |session: &mut Session| run_timers(session, until).last().unwrap().0;
    assert_eq!(idle_at(&mut pair.initiator), pair.start + 9 * SECOND);
    assert_eq!(idle_at(&mut pair.responder), pair.start + 9 * SECOND);
}

// spec: CT-42, CT-43
#[test]
fn silence_makes_a_tunnel_suspect_and_then_dead() {
    let mut pair = Pair::open();
    let until = pair.at(60 * SECOND);
    let start = pair.start;
    let timeline: Vec<_> = run_timers(&mut pair.responder, until)
        .into_iter()
        .map(|(at, output)| match output {
            Output::Send(_) => ((at - start).as_secs(), "probe"),
            Output::Event(Event::Suspect) => ((at - start).as_secs(), "suspect"),
            Output::Close { code: CloseCode::Idle, .. } => ((at - start).as_secs(), "dead"),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [(5, "probe"), (8, "suspect"), (8, "probe"), (11, "probe"), (14, "probe"), (17, "probe")];
    assert_eq!(timeline[..6], expected);
    assert_eq!(timeline[6..], [(20, "probe"), (23, "probe"), (26, "probe"), (29, "probe"), (30, "dead")]);
    assert_eq!(pair.responder.deadline(), None);
}

// spec: CT-42
#[test]
fn any_sign_of_life_ends_suspicion_once() {
    let mut pair = Pair::open();
    let until = pair.at(9 * SECOND);
    run_timers(&mut pair.initiator, until);
    assert!(pair.initiator.is_suspect());
    pair.initiator.heard(pair.at(10 * SECOND));
    pair.initiator.heard(pair.at(10 * SECOND));
    assert_eq!(outputs(&mut pair.initiator), [Output::Event(Event::Alive)]);
    assert!(!pair.initiator.is_suspect());
    assert_eq!(pair.initiator.deadline(), Some(pair.at(15 * SECOND)));
}

// spec: CT-10, CT-42, CT-43
#[test]
fn what_a_peer_says_that_hears_nothing_is_no_sign_of_life() {
    let mut pair = Pair::open();
    let mut seen = Vec::new();
    for second in 1..=30 {
        let now = pair.at(second * SECOND);
        deliver_frame(&mut pair.initiator, now, &Frame::Ping([second as u8; 8])).unwrap();
        pair.initiator.timeout(now);
        seen.extend(outputs(&mut pair.initiator).into_iter().filter_map(|output| match output {
            Output::Event(Event::Suspect) => Some((second, "suspect")),
            Output::Close { code: CloseCode::Idle, .. } => Some((second, "dead")),
            _ => None,
        }));
    }
    assert_eq!(seen, [(8, "suspect"), (30, "dead")]);
}

#[test]
fn a_timing_of_zero_still_lets_time_pass() {
    let start = Instant::now();
    let timing = Timing { suspect_timeout: Duration::ZERO, keepalive_interval: Duration::ZERO, ..Timing::default() };
    let mut session = Session::responder(start, timing);
    deliver_frame(&mut session, start, &Frame::Hello(Box::new(hello()))).unwrap();
    session.welcome(start, &welcome()).unwrap();
    session.timeout(start);
    assert!(session.deadline().unwrap() > start);
}

// spec: CT-42
#[test]
fn a_probe_on_demand_is_sent_once() {
    let mut pair = Pair::open();
    let now = pair.at(SECOND);
    pair.responder.probe(now);
    pair.responder.probe(now);
    assert_eq!(frames(&outputs(&mut pair.responder)).len(), 1);
    assert_eq!(pair.responder.deadline(), Some(pair.at(4 * SECOND)));
}

#[test]
fn a_clock_that_steps_back_shortens_nothing() {
    let mut pair = Pair::open();
    pair.initiator.heard(pair.at(20 * SECOND));
    pair.initiator.heard(pair.at(3 * SECOND));
    assert_eq!(pair.initiator.deadline(), Some(pair.at(25 * SECOND)));
}

// spec: CT-12
#[test]
fn many_pings_at_once_get_one_answer() {
    let mut pair = Pair::open();
    let mut flood = BytesMut::new();
    (0..1000u64).for_each(|number| Frame::Ping(number.to_be_bytes()).encode(&mut flood));
    pair.responder.receive(pair.start, &flood).unwrap();
    assert_eq!(frames(&outputs(&mut pair.responder)), [Frame::Pong(999u64.to_be_bytes())]);
}

// spec: CT-13
#[test]
fn a_pong_for_no_ping_is_an_error_and_one_for_an_old_ping_is_not() {
    let mut pair = Pair::open();
    let until = pair.at(8 * SECOND);
    run_timers(&mut pair.initiator, until);
    let now = pair.at(9 * SECOND);
    deliver_frame(&mut pair.initiator, now, &Frame::Pong(0u64.to_be_bytes())).unwrap();
    assert_eq!(events(&outputs(&mut pair.initiator)), [Event::Alive]);
    let error = deliver_frame(&mut pair.initiator, now, &Frame::Pong(2u64.to_be_bytes()));
    assert_eq!(error, Err(SessionError::UnknownProbe));
}

// spec: CT-20, CT-22, CT-24
#[test]
fn whoever_drains_the_responder_says_drained_and_the_initiator_closes() {
    for initiator_drains in [true, false] {
        let mut pair = Pair::open();
        let drain = Drain { deadline: 20 * SECOND, reconnect_after: SECOND, ..Drain::default() };
        let (start, announced) = (pair.start, [Event::PeerDraining(drain)]);
        let (initiator, responder) = if initiator_drains {
            pair.initiator.drain(start, drain).unwrap();
            pair.deliver(Duration::ZERO)
        } else {
            pair.responder.drain(start, drain).unwrap();
            pair.deliver(Duration::ZERO)
        };
        assert_eq!(events(if initiator_drains { &responder } else { &initiator }), announced);
        assert_eq!((pair.initiator.state(), pair.responder.state()), (State::Draining, State::Draining));
        pair.responder.drained(start).unwrap();
        let (initiator, responder) = pair.deliver(SECOND);
        assert_eq!(events(&initiator), [Event::PeerDrained]);
        assert_eq!(close_code(&initiator), Some(CloseCode::Done));
        assert_eq!(close_code(&responder), None, "the responder waits for the initiator's close");
        assert_eq!(pair.responder.closed_by_peer(), Ok(()));
        assert_eq!(close_code(&outputs(&mut pair.responder)), Some(CloseCode::Done));
    }
}

// spec: CT-23
#[test]
fn the_earlier_of_two_drain_deadlines_closes_either_end() {
    let mut pair = Pair::open();
    let now = pair.start;
    pair.initiator.drain(now, Drain { deadline: 9 * SECOND, ..Drain::default() }).unwrap();
    pair.responder.drain(now, Drain { deadline: 2 * SECOND, ..Drain::default() }).unwrap();
    pair.deliver(Duration::ZERO);
    for session in [&mut pair.initiator, &mut pair.responder] {
        assert_eq!(session.deadline(), Some(now + 2 * SECOND));
        session.timeout(now + 2 * SECOND);
        assert_eq!(close_code(&outputs(session)), Some(CloseCode::Done));
    }
}

// spec: CT-24
#[test]
fn a_responder_that_said_drained_does_not_wait_for_long_for_the_close() {
    let mut pair = Pair::open();
    pair.responder.drain(pair.start, Drain { deadline: 20 * SECOND, ..Drain::default() }).unwrap();
    pair.responder.drained(pair.at(3 * SECOND)).unwrap();
    let over = pair.at(3 * SECOND + limits::FAREWELL_TIMEOUT);
    assert_eq!(pair.responder.deadline(), Some(over));
    outputs(&mut pair.responder);
    pair.responder.timeout(over);
    assert_eq!(close_code(&outputs(&mut pair.responder)), Some(CloseCode::Done));
}

// spec: CT-28
#[test]
fn a_peer_that_is_not_heard_holds_no_hurried_drain_up() {
    let mut pair = Pair::open();
    let drain = Drain { deadline: 20 * SECOND, ..Drain::default() };
    for session in [&mut pair.initiator, &mut pair.responder] {
        session.drain(pair.start, drain).unwrap();
        session.hurry(pair.start).unwrap();
        outputs(session);
        assert_eq!(session.deadline(), Some(pair.start + 3 * SECOND), "it was asked at once");
        session.timeout(pair.start + 3 * SECOND);
        assert_eq!(close_code(&outputs(session)), Some(CloseCode::Idle));
    }
    let mut pair = Pair::open();
    for session in [&mut pair.initiator, &mut pair.responder] {
        for seconds in [5, 8] {
            session.timeout(pair.start + seconds * SECOND);
        }
        assert!(session.is_suspect());
        session.drain(pair.start + 8 * SECOND, drain).unwrap();
        session.hurry(pair.start + 8 * SECOND).unwrap();
        assert_eq!(close_code(&outputs(session)), Some(CloseCode::Idle), "suspect already: at once");
    }
}

// spec: CT-28
#[test]
fn a_peer_that_answers_has_the_whole_time_of_a_hurried_drain_and_without_hurry_a_silent_one_too() {
    let mut pair = Pair::open();
    let drain = Drain { deadline: 20 * SECOND, ..Drain::default() };
    pair.responder.drain(pair.start, drain).unwrap();
    pair.responder.hurry(pair.start).unwrap();
    pair.deliver(Duration::ZERO);
    assert_eq!(pair.responder.deadline(), Some(pair.at(5 * SECOND)), "the next keepalive");

    let mut patient = Pair::open();
    patient.responder.drain(patient.start, drain).unwrap();
    outputs(&mut patient.responder);
    for seconds in [5, 8, 11, 14, 17] {
        patient.responder.timeout(patient.at(seconds * SECOND));
    }
    assert_eq!(patient.responder.state(), State::Draining);
}

// spec: CT-41
#[test]
fn a_draining_tunnel_is_still_probed() {
    let mut pair = Pair::open();
    pair.responder.drain(pair.start, Drain::default()).unwrap();
    pair.deliver(Duration::ZERO);
    assert_eq!(pair.initiator.deadline(), Some(pair.at(5 * SECOND)));
}

// spec: CT-30, CT-31, CT-32, CT-58
#[test]
fn an_open_tunnel_takes_new_services_limits_and_credentials() {
    let mut pair = Pair::open();
    let limits = PeerLimits { head_bytes: 4096, head_fields: 32 };
    pair.initiator.announce(&[]).unwrap();
    pair.initiator.reauth(reauth(1)).unwrap();
    pair.initiator.tell_health(Health::default()).unwrap();
    pair.initiator.limit(pair.start, limits).unwrap();
    pair.responder.limit(pair.start, limits).unwrap();
    let (initiator, responder) = pair.deliver(Duration::ZERO);
    assert_eq!(events(&initiator), [Event::Limits(limits)]);
    assert_eq!(
        events(&responder),
        [
            Event::Services(Vec::new()),
            Event::Reauth(Box::new(reauth(1))),
            Event::Health(Health::default()),
            Event::Limits(limits)
        ]
    );
}

// spec: CT-32, CT-56
#[test]
fn a_credential_is_shown_once_and_an_answer_needs_one() {
    let mut pair = Pair::open();
    let refused = Reauthed { number: 3, refusal: Some(refusal(RefusalCode::Forbidden)) };
    assert!(pair.responder.reauthed(refused.clone()).is_err(), "nothing was shown");
    for number in [1, 3] {
        pair.initiator.reauth(reauth(number)).unwrap();
    }
    for number in [0, 1, 3] {
        assert!(pair.initiator.reauth(reauth(number)).is_err(), "{number} does not rise");
    }
    let (_, shown) = pair.deliver(Duration::ZERO);
    assert_eq!(events(&shown), [1, 3].map(|number| Event::Reauth(Box::new(reauth(number)))));
    pair.responder.reauthed(refused.clone()).unwrap();
    assert!(pair.responder.reauthed(Reauthed { number: 4, refusal: None }).is_err());
    let (answered, _) = pair.deliver(Duration::ZERO);
    assert_eq!(events(&answered), [Event::Reauthed(refused)]);

    let again = deliver_frame(&mut pair.responder, pair.start, &Frame::Reauth(Box::new(reauth(3))));
    assert!(matches!(again, Err(SessionError::Frame(FrameError::Payload("REAUTH", _)))), "{again:?}");
    assert_eq!(close_code(&outputs(&mut pair.responder)), Some(CloseCode::Protocol));
    let unasked = Frame::Reauthed(Reauthed { number: 4, refusal: None });
    assert_eq!(deliver_frame(&mut pair.initiator, pair.start, &unasked), Err(SessionError::UnknownReauth));
    assert_eq!(close_code(&outputs(&mut pair.initiator)), Some(CloseCode::Protocol));
}

// spec: ER-6
#[test]
fn the_reason_of_a_close_is_cut_and_cleaned() {
    let mut pair = Pair::open();
    pair.initiator.close(CloseCode::Internal, &"a\nb".repeat(200));
    let last = outputs(&mut pair.initiator).pop();
    let reason = "a b".repeat(200)[..limits::MAX_REASON_BYTES].to_owned();
    assert_eq!(last, Some(Output::Close { code: CloseCode::Internal, reason, by_peer: false }));
}

// spec: CT-6
#[test]
fn a_control_stream_that_ends_early_ends_the_tunnel() {
    let mut pair = Pair::open();
    assert_eq!(pair.initiator.closed_by_peer(), Err(SessionError::ControlEnded));
    assert_eq!(close_code(&outputs(&mut pair.initiator)), Some(CloseCode::Protocol));
    assert_eq!(pair.initiator.closed_by_peer(), Ok(()), "once is enough");
}

// spec: CT-6
#[test]
fn a_control_stream_that_ends_in_the_handshake_ends_the_tunnel_without_a_refusal() {
    let mut pair = Pair::new();
    for end in [&mut pair.initiator, &mut pair.responder] {
        outputs(end);
        assert_eq!(end.closed_by_peer(), Err(SessionError::ControlEnded));
        let last = outputs(end);
        assert_eq!(close_code(&last), Some(CloseCode::Protocol));
        assert_eq!(last.len(), 1, "{last:?}");
    }
}

// spec: ER-2
// spec: SE-14
#[test]
fn a_flood_of_frames_closes_with_limit_and_what_is_needed_does_not() {
    let limits = Frame::Limits(PeerLimits::default());
    for (frame, burst, per_second) in [
        (limits, CHANGE_BURST, CHANGES_PER_SECOND),
        (Frame::Health(Health::default()), CHANGE_BURST, CHANGES_PER_SECOND),
        (Frame::Ping([1; 8]), FRAME_BURST, FRAMES_PER_SECOND),
    ] {
        let mut pair = Pair::open();
        for _ in 0..burst - 2 {
            deliver_frame(&mut pair.responder, pair.start, &frame).unwrap();
        }
        let later = pair.at(2 * SECOND);
        for _ in 0..per_second {
            deliver_frame(&mut pair.responder, later, &frame).unwrap();
        }
        let mut flood = (0..=burst).map(|_| deliver_frame(&mut pair.responder, later, &frame));
        assert!(flood.any(|taken| taken == Err(SessionError::Flood)));
        assert_eq!(close_code(&outputs(&mut pair.responder)), Some(CloseCode::Limit));
    }
}

// spec: SE-14
#[test]
fn frames_that_are_skipped_are_counted_too() {
    let mut pair = Pair::open();
    // Type 0x40, no payload.
    let empty = [0x40, 0x40, 0].repeat(FRAME_BURST as usize / 2 - 1);
    assert_eq!(pair.responder.receive(pair.start, &empty), Ok(()));
    assert_eq!(pair.responder.receive(pair.start, &empty), Ok(()));
    assert_eq!(pair.responder.receive(pair.start, &empty), Err(SessionError::Flood));
    assert_eq!(close_code(&outputs(&mut pair.responder)), Some(CloseCode::Limit));
}

#[test]
fn a_frame_beyond_the_limit_closes_with_limit_and_any_other_fault_with_protocol() {
    let close = |bytes: &[u8]| {
        let mut pair = Pair::open();
        pair.initiator.receive(pair.start, bytes).unwrap_err();
        close_code(&outputs(&mut pair.initiator))
    };
    assert_eq!(close(&[0x02, 0x80, 0x01, 0x00, 0x01]), Some(CloseCode::Limit));
    assert_eq!(close(&[0x02, 0x00]), Some(CloseCode::Protocol));
    assert_eq!(close(&[0x0d, 0x00]), Some(CloseCode::Protocol));
}

#[test]
fn a_closed_session_is_deaf_and_has_nothing_to_wait_for() {
    let mut pair = Pair::open();
    pair.initiator.close(CloseCode::Superseded, "a newer tunnel");
    pair.initiator.close(CloseCode::Done, "again");
    let closes = outputs(&mut pair.initiator);
    assert_eq!(close_code(&closes), Some(CloseCode::Superseded));
    assert_eq!(closes.len(), 1);
    assert_eq!(pair.initiator.receive(pair.start, &[0xff; 64]), Ok(()));
    pair.initiator.heard(pair.start);
    pair.initiator.probe(pair.start);
    pair.initiator.timeout(pair.at(100 * SECOND));
    assert_eq!(outputs(&mut pair.initiator), []);
    assert_eq!(pair.initiator.deadline(), None);
}

/// A session of either side in each of its states.
fn sessions() -> Vec<(&'static str, Session)> {
    let drain = |pair: &mut Pair| {
        let start = pair.start;
        pair.responder.drain(start, Drain::default()).unwrap();
        pair.deliver(Duration::ZERO);
    };
    let mut decision = Pair::new();
    decision.deliver(Duration::ZERO);
    let open = Pair::open();
    let (mut draining, mut drained) = (Pair::open(), Pair::open());
    drain(&mut draining);
    drain(&mut drained);
    drained.responder.drained(drained.start).unwrap();
    drained.deliver(Duration::ZERO);
    vec![
        ("responder, before HELLO", Session::responder(Instant::now(), Timing::default())),
        ("responder, before its decision", decision.responder),
        ("responder, open", open.responder),
        ("responder, draining", draining.responder),
        ("responder, drained", drained.responder),
        ("initiator, before WELCOME", decision.initiator),
        ("initiator, open", open.initiator),
        ("initiator, draining", draining.initiator),
        ("initiator, closed", drained.initiator),
    ]
}

/// One frame of each type, in wire order.
fn every_frame() -> Vec<Frame> {
    vec![
        Frame::Hello(Box::new(hello())),
        Frame::Ping([0; 8]),
        Frame::Welcome(Box::new(welcome())),
        Frame::Refuse(refusal(RefusalCode::Forbidden)),
        Frame::Services(Vec::new()),
        Frame::Drain(Drain::default()),
        Frame::Limits(PeerLimits::default()),
        Frame::Drained,
        Frame::Reauth(Box::new(reauth(1))),
        Frame::Health(Health::default()),
    ]
}

// spec: CT-5, CT-7
#[test]
fn every_frame_in_every_state_is_accepted_or_an_error() {
    let mut table = String::new();
    for at in 0..sessions().len() {
        let mut accepted = Vec::new();
        for frame in every_frame() {
            let (_, mut session) = sessions().swap_remove(at);
            let before = session.state();
            let name = frame.frame_type().name();
            match deliver_frame(&mut session, Instant::now(), &frame) {
                Ok(()) => accepted.push(format!("{name}→{}", session.state())),
                Err(SessionError::Unexpected { frame: blamed, state }) => {
                    assert_eq!((blamed, state, session.state()), (frame.frame_type(), before, State::Closed));
                }
                Err(other) => panic!("{other}"),
            }
        }
        table += &format!("{}: {}\n", sessions()[at].0, accepted.join(" "));
    }
    let expected = "\
responder, before HELLO: HELLO→handshaking
responder, before its decision: 
responder, open: PING→open SERVICES→open DRAIN→draining LIMITS→open REAUTH→open HEALTH→open
responder, draining: PING→draining SERVICES→draining DRAIN→draining LIMITS→draining REAUTH→draining HEALTH→draining
responder, drained: PING→draining SERVICES→draining DRAIN→draining LIMITS→draining REAUTH→draining HEALTH→draining
initiator, before WELCOME: WELCOME→open REFUSE→closed
initiator, open: PING→open DRAIN→draining LIMITS→open
initiator, draining: PING→draining LIMITS→draining DRAINED→closed
initiator, closed: HELLO→closed PING→closed WELCOME→closed REFUSE→closed SERVICES→closed DRAIN→closed LIMITS→closed \
                    DRAINED→closed REAUTH→closed HEALTH→closed
";
    assert_eq!(table, expected);
}

// spec: CT-5, CT-7
#[test]
fn every_call_in_every_state_is_possible_or_an_error_that_changes_nothing() {
    type Call = fn(&mut Session) -> Result<(), IllegalCall>;
    let calls: [(&str, Call); 9] = [
        ("welcome", |session| session.welcome(Instant::now(), &welcome())),
        ("refuse", |session| session.refuse(&refusal(RefusalCode::Conflict))),
        ("drain", |session| session.drain(Instant::now(), Drain::default())),
        ("drained", |session| session.drained(Instant::now())),
        ("hurry", |session| session.hurry(Instant::now())),
        ("announce", |session| session.announce(&[])),
        ("tell_health", |session| session.tell_health(Health::default())),
        ("limit", |session| session.limit(Instant::now(), PeerLimits::default())),
        ("reauth", |session| session.reauth(reauth(1))),
    ];
    let mut table = String::new();
    for at in 0..sessions().len() {
        let mut possible = Vec::new();
        for (name, call) in calls {
            let (_, mut session) = sessions().swap_remove(at);
            let state = session.state();
            match call(&mut session) {
                Ok(()) => possible.push(format!("{name}→{}", session.state())),
                Err(error) => {
                    assert_eq!(error, IllegalCall { call: name, state });
                    assert_eq!((session.state(), outputs(&mut session)), (state, Vec::new()), "{name}");
                }
            }
        }
        table += &format!("{}: {}\n", sessions()[at].0, possible.join(" "));
    }
    let expected = "\
responder, before HELLO: refuse→closed
responder, before its decision: welcome→open refuse→closed
responder, open: drain→draining limit→open
responder, draining: drained→draining hurry→draining limit→draining
responder, drained: hurry→draining limit→draining
initiator, before WELCOME: 
initiator, open: drain→draining announce→open tell_health→open limit→open reauth→open
initiator, draining: drain→draining hurry→draining announce→draining tell_health→draining limit→draining reauth→draining
initiator, closed: 
";
    assert_eq!(table, expected);
}

proptest! {
    // spec: CT-3
    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(cuts in proptest::collection::vec(0usize..2000, 0..8)) {
        let mut bytes = BytesMut::new();
        for frame in [
            Frame::Services(vec![Service { name: "api".parse().unwrap(), kind: crate::protocol::handshake::ServiceKind::Http }]),
            Frame::Ping([9; 8]),
            Frame::Limits(PeerLimits::default()),
            Frame::Reauth(Box::new(Reauth { token: Token::new(vec![1; 900]), ..reauth(1) })),
            Frame::Drain(Drain::default()),
        ] {
            frame.encode(&mut bytes);
        }
        let mut whole = Pair::open();
        whole.responder.receive(whole.start, &bytes).unwrap();
        let expected = outputs(&mut whole.responder);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % bytes.len()).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let mut split = Pair::open();
        for pair in cuts.windows(2) {
            split.responder.receive(split.start, &bytes[pair[0]..pair[1]]).unwrap();
        }
        prop_assert_eq!(outputs(&mut split.responder), expected);
    }

    // spec: SE-6
    #[test]
    fn arbitrary_bytes_end_in_an_error_or_in_silence(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let now = Instant::now();
        let mut session = Session::responder(now, Timing::default());
        let result = session.receive(now, &bytes);
        prop_assert_eq!(result.is_err(), session.state() == State::Closed);
        if let Err(SessionError::Frame(FrameError::TooLong { length, .. })) = result {
            prop_assert!(length > 65_536);
        }
    }
}
