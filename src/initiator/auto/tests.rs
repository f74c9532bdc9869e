//! The machine with a clock moved by hand. Numbers in test names and bodies are milliseconds unless they say otherwise.

mod dial;
mod fallback;
mod probe;
mod random;
mod refusal;
mod status;
mod table;
mod world;

use std::time::{Duration, Instant};

use super::*;
use ClaimPlace::{Beside, Supersede};
use TransportKind::{Quic, Tcp};

/// Drives one machine and remembers which attempts it began.
struct Bench {
    auto: Auto,
    start: Instant,
    now: Instant,
    entropy: u64,
    attempts: Vec<Attempt>,
}

/// An action without its attempt's number, for comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Connect(TransportKind),
    Abandon(TransportKind),
    Claim(TransportKind, ClaimPlace),
    Drain(TransportKind),
    /// Milliseconds from now.
    Wait(u128),
    Switched(TransportKind),
}

impl Bench {
    fn new(choice: TransportChoice) -> Self {
        let now = Instant::now();
        let auto = Auto::new(now, &choice, AutoSettings::default());
        Self { auto, start: now, now, entropy: u64::MAX, attempts: Vec::new() }
    }

    /// What the machine wants done by now.
    fn did(&mut self) -> Vec<Did> {
        let mut did = Vec::new();
        while let Some(action) = self.auto.poll() {
            did.push(match action {
                Action::Connect(attempt) => {
                    self.attempts.push(attempt);
                    Did::Connect(attempt.transport())
                }
                Action::Abandon(attempt) => Did::Abandon(attempt.transport()),
                Action::Claim(attempt, place) => Did::Claim(attempt.transport(), place),
                Action::Drain(attempt) => Did::Drain(attempt.transport()),
                Action::Wait { until } => Did::Wait((until - self.now).as_millis()),
                Action::Switched { to, .. } => Did::Switched(to),
            });
        }
        did
    }

    /// The latest attempt over a transport.
    fn latest(&self, transport: TransportKind) -> Attempt {
        *self.attempts.iter().rfind(|attempt| attempt.transport() == transport).unwrap()
    }

    fn event(&mut self, event: Event) -> Vec<Did> {
        self.auto.handle(self.now, event, self.entropy);
        self.did()
    }

    fn connected(&mut self, transport: TransportKind) -> Vec<Did> {
        self.event(Event::Connected(self.latest(transport)))
    }

    fn admitted(&mut self, transport: TransportKind) -> Vec<Did> {
        self.event(Event::Admitted(self.latest(transport)))
    }

    fn failed(&mut self, transport: TransportKind) -> Vec<Did> {
        self.event(Event::Ended(self.latest(transport), Failure::transport("it broke")))
    }

    fn refused(&mut self, transport: TransportKind, retry_after: Option<u64>) -> Vec<Did> {
        let failure = Failure::refused(retry_after.map(Duration::from_millis), "no");
        self.event(Event::Ended(self.latest(transport), failure))
    }

    fn tunnel(&self) -> Attempt {
        self.auto.tunnel().unwrap()
    }

    fn lost(&mut self) -> Vec<Did> {
        self.event(Event::Ended(self.tunnel(), Failure::transport("lost")))
    }

    fn suspect(&mut self) -> Vec<Did> {
        self.event(Event::Suspect(self.tunnel()))
    }

    fn alive(&mut self) -> Vec<Did> {
        self.event(Event::Alive(self.tunnel()))
    }

    fn draining(&mut self, after: u64) -> Vec<Did> {
        self.event(Event::Draining(self.tunnel(), Duration::from_millis(after)))
    }

    /// Milliseconds until the machine wants to be woken.
    fn due(&self) -> Option<u128> {
        self.auto.deadline().map(|at| at.saturating_duration_since(self.now).as_millis())
    }

    /// Lets time pass; nothing may be due before the end of it.
    fn pass(&mut self, millis: u64) -> Vec<Did> {
        let end = self.now + Duration::from_millis(millis);
        assert!(self.auto.deadline().is_none_or(|at| at >= end), "due {:?} before {millis}", self.due());
        self.now = end;
        self.auto.timeout(end);
        self.did()
    }

    /// Goes to the next deadline, which must be this far away.
    fn wake(&mut self, millis: u128) -> Vec<Did> {
        assert_eq!(self.due(), Some(millis));
        self.now = self.auto.deadline().unwrap();
        self.auto.timeout(self.now);
        self.did()
    }

    /// A reload with another interval between probes.
    fn probe_every(&mut self, millis: u64) {
        self.auto.probe_every(self.now, Duration::from_millis(millis), self.entropy);
        assert_eq!(self.did(), []);
    }

    fn switches(&self) -> u64 {
        self.auto.status(self.now).switches
    }

    /// A slot with a settled tunnel on QUIC.
    fn on_quic() -> Self {
        let mut bench = Self::new(TransportChoice::Auto);
        bench.did();
        bench.connected(Quic);
        bench.admitted(Quic);
        assert_eq!(bench.pass(60_000), []);
        bench
    }

    /// A slot that fell back to TCP just now; no jitter.
    fn on_tcp() -> Self {
        let mut bench = Self::on_quic();
        bench.entropy = 0;
        bench.suspect();
        bench.connected(Tcp);
        bench.admitted(Tcp);
        bench
    }

    /// A slot that came back from TCP to QUIC just now.
    fn back_on_quic() -> Self {
        let mut bench = Self::on_tcp();
        bench.wake(10_000);
        bench.connected(Quic);
        bench.wake(2000);
        bench.admitted(Quic);
        bench
    }
}
