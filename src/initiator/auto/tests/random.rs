//! Random events in random order, with what must hold whatever happens.

use proptest::prelude::*;

use super::*;

/// What a driver would know of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Connected,
    Claiming,
    Tunnel {
        suspect: bool,
    },
    /// Ended, abandoned or draining.
    Gone,
}

/// One step: which attempt, what happens to it, after how long.
#[derive(Debug, Clone)]
struct Step {
    /// Counted from the latest.
    attempt: usize,
    what: What,
    millis: u64,
    entropy: u64,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// Connect, admit, suspect and revive: whatever comes next.
    Proceed,
    Fail,
    Refuse(Option<u64>),
    Drain(u64),
    /// Nothing but time.
    Pass,
    /// To the next deadline.
    Wake,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let what = prop_oneof![
        6 => Just(What::Proceed),
        3 => Just(What::Fail),
        1 => proptest::option::of(0_u64..40_000).prop_map(What::Refuse),
        1 => (0_u64..5000).prop_map(What::Drain),
        2 => Just(What::Pass),
        4 => Just(What::Wake),
    ];
    let step = (0_usize..4, what, prop_oneof![0_u64..50, 0_u64..8000], any::<u64>())
        .prop_map(|(attempt, what, millis, entropy)| Step { attempt, what, millis, entropy });
    proptest::collection::vec(step, 1..120)
}

struct Model {
    auto: Auto,
    transports: TransportChoice,
    now: Instant,
    attempts: Vec<(Attempt, Stage)>,
    /// A refusal forbids connects before this.
    silent_until: Option<Instant>,
}

impl Model {
    fn new(transports: TransportChoice) -> Self {
        let now = Instant::now();
        let auto = Auto::new(now, &transports, AutoSettings::default());
        Self { auto, transports, now, attempts: Vec::new(), silent_until: None }
    }

    fn step(&mut self, step: &Step) {
        match step.what {
            What::Pass => self.pass(self.now + Duration::from_millis(step.millis)),
            What::Wake => self.pass(self.auto.deadline().unwrap_or(self.now)),
            _ => {
                self.pass(self.now + Duration::from_millis(step.millis % 50));
                self.happen(step);
            }
        }
        self.check();
    }

    /// As a driver would: through every deadline on the way.
    fn pass(&mut self, end: Instant) {
        while let Some(at) = self.auto.deadline().filter(|&at| at <= end) {
            assert!(at >= self.now, "a deadline in the past");
            self.now = at;
            self.auto.timeout(at);
            self.obey();
        }
        self.now = end;
        self.auto.timeout(end);
        self.obey();
    }

    fn happen(&mut self, step: &Step) {
        let Some(index) = self.attempts.len().checked_sub(1 + step.attempt) else { return };
        let (attempt, stage) = self.attempts[index];
        let before = (self.auto.deadline(), self.auto.tunnel());
        let (event, next) = match (step.what, stage) {
            (What::Proceed, Stage::Connecting) => (Event::Connected(attempt), Stage::Connected),
            (What::Proceed, Stage::Claiming) => (Event::Admitted(attempt), Stage::Tunnel { suspect: false }),
            (What::Proceed, Stage::Tunnel { suspect: false }) => {
                (Event::Suspect(attempt), Stage::Tunnel { suspect: true })
            }
            (What::Proceed, Stage::Tunnel { suspect: true }) => {
                (Event::Alive(attempt), Stage::Tunnel { suspect: false })
            }
            (What::Drain(after), Stage::Tunnel { .. } | Stage::Gone) => {
                (Event::Draining(attempt, Duration::from_millis(after)), Stage::Gone)
            }
            (What::Fail, _) => (Event::Ended(attempt, Failure::transport("x")), Stage::Gone),
            (What::Refuse(after), _) => {
                let after = after.map(Duration::from_millis);
                self.refused(stage, after);
                (Event::Ended(attempt, Failure::refused(after, "x")), Stage::Gone)
            }
            (_, Stage::Gone) => (Event::Admitted(attempt), Stage::Gone),
            _ => return,
        };
        if matches!(event, Event::Admitted(_)) && stage == Stage::Claiming {
            self.silent_until = None;
        }
        self.attempts[index].1 = next;
        self.auto.handle(self.now, event, step.entropy);
        if stage == Stage::Gone {
            assert_eq!(self.auto.poll(), None, "an answer to a late word");
            assert_eq!((self.auto.deadline(), self.auto.tunnel()), before);
        }
        self.obey();
    }

    /// A refusal counts unless it is a probe's beside a healthy tunnel.
    fn refused(&mut self, stage: Stage, after: Option<Duration>) {
        let of_tunnel = matches!(stage, Stage::Tunnel { .. });
        let healthy = self.attempts.iter().any(|(_, stage)| *stage == Stage::Tunnel { suspect: false });
        if stage != Stage::Gone && (of_tunnel || !healthy) {
            // Even without a word about when, it is not at once.
            let until = self.now + after.unwrap_or_default().max(Duration::from_nanos(1));
            self.silent_until = self.silent_until.max(Some(until));
        }
    }

    fn obey(&mut self) {
        while let Some(action) = self.auto.poll() {
            match action {
                Action::Connect(attempt) => self.connect(attempt),
                Action::Claim(attempt, place) => self.claim(attempt, place),
                Action::Abandon(attempt) => {
                    assert_ne!(self.stage(attempt), Stage::Gone, "abandons what is gone");
                    self.set(attempt, Stage::Gone);
                }
                Action::Drain(attempt) => {
                    assert!(matches!(self.stage(attempt), Stage::Tunnel { .. }), "drains what is no tunnel");
                    self.set(attempt, Stage::Gone);
                }
                Action::Wait { until } => assert!(until >= self.now),
                Action::Switched { from, to, .. } => assert_ne!(from, to),
            }
        }
    }

    fn connect(&mut self, attempt: Attempt) {
        let transport = attempt.transport();
        assert!(self.transports.kinds().contains(&transport));
        let busy = |(other, stage): &(Attempt, Stage)| {
            other.transport() == transport && matches!(stage, Stage::Connecting | Stage::Connected | Stage::Claiming)
        };
        assert!(!self.attempts.iter().any(busy), "two attempts over {transport}");
        let silent = self.silent_until.is_some_and(|until| self.now < until);
        assert!(!silent, "a connect although the responder refused");
        self.attempts.push((attempt, Stage::Connecting));
    }

    // spec: TB-21
    fn claim(&mut self, attempt: Attempt, place: ClaimPlace) {
        assert_eq!(self.stage(attempt), Stage::Connected, "a claim on {attempt}");
        assert!(self.count(|stage| stage == Stage::Claiming) == 0, "two claims in the air");
        let beside = self.attempts.iter().any(|(tunnel, stage)| match stage {
            Stage::Tunnel { suspect: false } => true,
            Stage::Tunnel { suspect: true } => tunnel.transport() == attempt.transport(),
            _ => false,
        });
        assert_eq!(place == Beside, beside, "a place beside a tunnel that is well or may revive, and only then");
        self.set(attempt, Stage::Claiming);
    }

    fn check(&self) {
        let tunnels: Vec<Attempt> =
            self.attempts.iter().filter(|(_, stage)| matches!(stage, Stage::Tunnel { .. })).map(|(a, _)| *a).collect();
        assert_eq!(tunnels, Vec::from_iter(self.auto.tunnel()), "one tunnel, and the machine knows which");
        let deadline = self.auto.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "a deadline that is not in the future");
        let moving = self.count(|stage| matches!(stage, Stage::Connecting | Stage::Claiming)) > 0;
        assert!(!tunnels.is_empty() || moving || deadline.is_some(), "stuck");
        let on_tcp = tunnels.iter().any(|tunnel| tunnel.transport() == Tcp);
        if on_tcp && self.transports == TransportChoice::Auto {
            assert!(moving || deadline.is_some(), "QUIC is forgotten");
        }
        let status = self.auto.status(self.now);
        assert_eq!(status.active, tunnels.first().map(|tunnel| tunnel.transport()));
    }

    fn stage(&self, attempt: Attempt) -> Stage {
        self.attempts.iter().find(|(known, _)| *known == attempt).unwrap().1
    }

    fn set(&mut self, attempt: Attempt, stage: Stage) {
        self.attempts.iter_mut().find(|(known, _)| *known == attempt).unwrap().1 = stage;
    }

    fn count(&self, which: impl Fn(Stage) -> bool) -> usize {
        self.attempts.iter().filter(|(_, stage)| which(*stage)).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_one_claim_at_most_is_in_the_air_and_the_slot_is_never_stuck(
        transports in prop_oneof![
            4 => Just(TransportChoice::Auto),
            1 => Just(TransportChoice::Quic),
            1 => Just(TransportChoice::Tcp),
        ],
        steps in steps(),
    ) {
        let mut model = Model::new(transports);
        model.obey();
        for step in &steps {
            model.step(step);
        }
    }
}
