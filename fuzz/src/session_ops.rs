//! Two joined sessions under random operations and times.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use adit::id::{Claim, InstanceId, Place, TunnelId};
use adit::protocol::budgets::CHANGE_BURST;
use adit::protocol::code::{CloseCode, RefusalCode};
use adit::protocol::handshake::{Hello, PeerLimits, Refusal, Token, Welcome};
use adit::protocol::health::Health;
use adit::protocol::reauth::{ProvenChain, Reauth, Reauthed};
use adit::protocol::session::{Drain, Event, Output, Session, State, Timing};

/// The first byte says whether the line may carry garbage; then each operation is two bytes: what, and how much.
///
/// Without garbage, neither session may find fault with the other. In any case states only advance, a session that is
/// not closed always waits for something, each closes exactly once, and silence ends both.
pub fn session_ops(data: &[u8]) {
    let Some((&garbage, operations)) = data.split_first() else { return };
    let mut pair = Pair::new(garbage & 1 == 1);
    for operation in operations.chunks_exact(2) {
        pair.operate(operation[0], operation[1]);
    }
    pair.run_out();
}

const INITIATOR: usize = 0;
const RESPONDER: usize = 1;

struct Pair {
    /// The initiator and the responder.
    ends: [End; 2],
    now: Instant,
    with_garbage: bool,
}

struct End {
    session: Session,
    /// Bytes on their way to this end.
    line: VecDeque<u8>,
    state: State,
    suspect: bool,
    closes: usize,
    /// Frames that it has sent of those that may be few. spec: SE-14
    changes: u32,
}

impl Pair {
    fn new(with_garbage: bool) -> Self {
        let now = Instant::now();
        let ends = [Session::initiator(now, &hello(), Timing::default()), Session::responder(now, Timing::default())];
        let ends = ends.map(|session| End {
            session,
            line: VecDeque::new(),
            state: State::Handshaking,
            suspect: false,
            closes: 0,
            changes: 0,
        });
        let mut pair = Self { ends, now, with_garbage };
        pair.look();
        pair
    }

    fn operate(&mut self, what: u8, much: u8) {
        let who = usize::from(what >> 7);
        let end = &mut self.ends[who];
        match what & 0x0f {
            0 | 1 => self.pass(Duration::from_millis(u64::from(much) * 40)),
            2 | 3 => self.deliver(who, usize::from(much).max(1)),
            4 => end.session.heard(self.now),
            5 => end.session.probe(self.now),
            6 => end.session.close(CloseCode::Done, "done"),
            7 if self.with_garbage => end.line.extend([much, what]),
            8 if self.with_garbage => drop(end.session.closed_by_peer()),
            call => end.ask(self.now, call, much),
        }
        self.look();
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.next_deadline().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            for end in &mut self.ends {
                end.session.timeout(self.now);
                assert!(end.session.deadline().is_none_or(|at| at > self.now), "a timer that is due stays due");
            }
            self.look();
        }
        self.now = until;
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.ends.iter().filter_map(|end| end.session.deadline()).min()
    }

    fn deliver(&mut self, who: usize, count: usize) {
        let end = &mut self.ends[who];
        let bytes: Vec<u8> = end.line.drain(..count.min(end.line.len())).collect();
        let received = end.session.receive(self.now, &bytes);
        assert!(self.with_garbage || received.is_ok(), "an honest peer is found at fault: {received:?}");
        self.look();
    }

    /// Takes what the sessions have to say, and checks what must hold at any time.
    fn look(&mut self) {
        for who in [INITIATOR, RESPONDER] {
            while let Some(output) = self.ends[who].session.poll() {
                assert_eq!(self.ends[who].closes, 0, "something follows a close: {output:?}");
                match output {
                    Output::Send(bytes) => self.ends[1 - who].line.extend(bytes),
                    Output::Event(event) => self.ends[who].note(&event),
                    Output::Close { .. } => self.ends[who].closes += 1,
                }
            }
            self.ends[who].check();
        }
    }

    /// Without any more bytes or calls, both ends close within the longest of their timers.
    fn run_out(&mut self) {
        const LONGEST_IDLE: Duration = Duration::from_secs(60);
        self.pass(LONGEST_IDLE);
        for end in &self.ends {
            assert_eq!(end.session.state(), State::Closed, "a session outlives its silence");
            assert_eq!(end.closes, 1);
        }
    }
}

impl End {
    /// A call that the state may not allow: then it must change nothing.
    fn ask(&mut self, now: Instant, call: u8, much: u8) {
        if (13..=15).contains(&call) {
            // An honest end keeps within what it may send at once.
            if self.changes == CHANGE_BURST {
                return;
            }
            self.changes += 1;
        }
        let session = &mut self.session;
        let before = (session.state(), session.deadline());
        let asked = match call {
            9 => session.welcome(now, &welcome(much)),
            10 => session.refuse(&refusal(much)),
            11 => session.drain(now, Drain { deadline: Duration::from_secs(much.into()), ..Drain::default() }),
            12 => session.drained(now),
            13 if much.is_multiple_of(2) => session.announce(&[]),
            13 => session.tell_health(Health::default()),
            14 if much.is_multiple_of(2) => {
                let more = u32::from(much) << 6;
                session.limit(now, PeerLimits { head_bytes: 4_096 + more, head_fields: 32 + more })
            }
            14 => session.tell_roster(None),
            15 if much.is_multiple_of(2) => session.reauth(reauth(much)),
            15 => session.reauthed(Reauthed { number: much.into(), refusal: Some(refusal(much)) }),
            16 => session.hurry(now),
            _ => Ok(()),
        };
        if asked.is_err() {
            assert_eq!((session.state(), session.deadline()), before);
            assert_eq!(session.poll(), None, "a refused call says something");
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Suspect => assert!(!std::mem::replace(&mut self.suspect, true), "suspect twice"),
            Event::Alive => assert!(std::mem::replace(&mut self.suspect, false), "alive, but never suspect"),
            _ => {}
        }
    }

    fn check(&mut self) {
        let state = self.session.state();
        assert!(rank(state) >= rank(self.state), "{} after {}", state, self.state);
        self.state = state;
        assert_eq!(
            state == State::Closed,
            self.session.deadline().is_none(),
            "only a closed session waits for nothing"
        );
        assert_eq!(state == State::Closed, self.closes == 1);
        assert!(state == State::Closed || self.session.is_suspect() == self.suspect);
    }
}

const fn rank(state: State) -> u8 {
    match state {
        State::Handshaking => 0,
        State::Open => 1,
        State::Draining => 2,
        State::Closed => 3,
    }
}

fn hello() -> Hello {
    let id = "invariant: a valid identifier";
    let claim = Claim { tenant: "t".parse().expect(id), cluster: "c".parse().expect(id), node: "n".parse().expect(id) };
    Hello {
        versions: (1, 1),
        place: Place { claim, instance: InstanceId([0; 16]), slot: 0, generation: 0 },
        token: None,
        services: Vec::new(),
        limits: PeerLimits::default(),
        build: String::new(),
    }
}

fn refusal(much: u8) -> Refusal {
    let code = RefusalCode::ALL[usize::from(much) % RefusalCode::ALL.len()];
    Refusal { code, reason: "no".repeat(usize::from(much)), retry_after: None }
}

fn reauth(much: u8) -> Reauth {
    let bytes = vec![much; usize::from(much) + 1];
    let certificate =
        ProvenChain { chain: vec![bytes.clone().into()], scheme: much.into(), signature: bytes.clone().into() };
    Reauth { number: much.into(), token: Token::new(bytes), certificate: Some(certificate) }
}

fn welcome(much: u8) -> Welcome {
    let keepalive = Duration::from_millis(10 + u64::from(much) * 20);
    Welcome {
        version: 1,
        tunnel: TunnelId(1),
        responder: "r".to_owned(),
        observed: None,
        limits: PeerLimits::default(),
        keepalive,
        idle: keepalive * 10,
        reauth: None,
        roster: None,
    }
}
