//! Which transport carries a slot's tunnel: QUIC, and TCP where QUIC does not work. spec: TB-20 to TB-26
//!
//! A state machine without clock, randomness and sockets. The caller hands every event to [`Auto::handle`], calls
//! [`Auto::timeout`] at [`Auto::deadline`], and after either (and once at the beginning) does what [`Auto::poll`]
//! says until that is `None`.
//!
//! A tunnel comes about in two steps: *connect* (transport and TLS; both transports may race) and *claim* (HELLO to
//! WELCOME, on the connection that won). So no more than one HELLO of a slot is ever in the air, and the loser of a race
//! never got so far as to take the winner's place.
//!
//! ```text
//!                ┌────────── lost, or suspect while there is another transport ──────────┐
//!                ▼                                                                       │
//!             Round ── one connected ──▶ claim ── WELCOME ──▶ Content (a tunnel) ────────┘
//!             ▲   └─ all failed, or refused ─▶ Waiting           └─ on TCP: probe QUIC, trial, claim beside, drain TCP
//!             └──────── backoff is over ──────────┘
//! ```

mod attempt;
mod event;
mod probing;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod tunnel;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::attempt::{Lane, Live, Order, Pursuit, Round};
use self::event::PerTransport;
use self::probing::Probing;
use self::status::Record;
use crate::lifecycle::{Backoff, MAX_RETRY_AFTER};
use crate::transport::{TransportChoice, TransportKind};

pub use self::event::{Action, Attempt, ClaimPlace, Event, Failure, FailureKind};
pub use self::settings::AutoSettings;
pub use self::status::{PathReport, PathState, PathStatus};

/// The choice of transport for one slot.
#[derive(Debug)]
pub struct Auto {
    settings: AutoSettings,
    /// What may be used, the preferred first.
    transports: &'static [TransportKind],
    lanes: PerTransport<Lane>,
    live: Option<Live>,
    /// What carried the latest tunnel.
    latest: Option<TransportKind>,
    pursuit: Pursuit,
    /// A refusal asked for silence until then.
    silent_until: Option<Instant>,
    quic_failed_at: Option<Instant>,
    backoff: Backoff,
    probing: Probing,
    record: Record,
    attempts: u64,
    actions: VecDeque<Action>,
}

impl Auto {
    /// A slot without a tunnel, for what `choice` allows; the first actions are there at once.
    pub fn new(now: Instant, choice: &TransportChoice, settings: AutoSettings) -> Self {
        let mut auto = Self {
            transports: choice.kinds(),
            lanes: PerTransport::default(),
            live: None,
            latest: None,
            pursuit: Pursuit::Waiting { until: now, order: Some(Order::Race) },
            silent_until: None,
            quic_failed_at: None,
            backoff: Backoff::new(settings.backoff),
            probing: Probing::default(),
            record: Record::new(now),
            attempts: 0,
            actions: VecDeque::new(),
            settings,
        };
        auto.advance(now);
        auto
    }

    /// The next thing to do; call until `None`.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Auto::timeout`] if nothing happens before. `None` only while there is a tunnel or a connect or
    /// claim under way.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = match &self.pursuit {
            Pursuit::Waiting { until, .. } => Some(*until),
            Pursuit::Content | Pursuit::Round(_) => None,
        };
        let starts = self.transports.iter().map(|&transport| self.start_at(transport));
        let claims = self.transports.iter().map(|&transport| self.claim_at(transport));
        let others = [waiting, self.patience_ends_at(), self.probing.at()];
        starts.chain(claims).chain(others).flatten().min()
    }

    /// Acts on what is due at `now`.
    pub fn timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// Takes an event. `entropy` is 64 fresh random bits, for backoff and the schedule of probes.
    pub fn handle(&mut self, now: Instant, event: Event, entropy: u64) {
        match event {
            Event::Connected(attempt) => self.connected(now, attempt),
            Event::Admitted(attempt) => self.admitted(now, attempt, entropy),
            Event::Ended(attempt, failure) => self.ended(now, attempt, failure, entropy),
            Event::Suspect(attempt) => self.suspect(now, attempt),
            Event::Alive(attempt) => self.alive(now, attempt, entropy),
            Event::Draining(attempt, after) => self.draining(now, attempt, after, entropy),
        }
        self.advance(now);
    }

    /// The tunnel that requests should come through, if there is one.
    pub fn tunnel(&self) -> Option<Attempt> {
        self.live.map(|live| live.attempt)
    }

    /// What operators see.
    pub fn status(&self, now: Instant) -> PathStatus {
        let report = |transport| {
            let suspect = self.live.is_some_and(|live| live.transport() == transport && !live.is_healthy());
            let probe = self.probing.at().filter(|_| transport == TransportKind::Quic);
            self.record.report(transport, suspect, probe, now)
        };
        PathStatus {
            active: self.live.map(|live| live.transport()),
            switches: self.record.switches,
            switch_reason: self.record.switch_reason.clone(),
            paths: self.transports.iter().copied().map(report).collect(),
        }
    }

    /// Does everything that is due: begins a round, connects, claims, probes.
    fn advance(&mut self, now: Instant) {
        if let Pursuit::Waiting { until, order } = self.pursuit
            && until <= now
        {
            self.begin_round(now, order.unwrap_or_else(|| self.order(now)));
        }
        for &transport in self.transports {
            if is_due(self.start_at(transport), now) {
                self.connect(transport);
            }
        }
        if is_due(self.patience_ends_at(), now) {
            self.lose_patience(now);
        }
        for &transport in self.transports {
            if is_due(self.claim_at(transport), now) {
                self.claim(now, transport);
            }
        }
        if is_due(self.probing.at(), now) {
            self.probing.cancel();
            self.connect(TransportKind::Quic);
        }
        self.take_note(now);
    }

    /// Whether the slot may use a transport.
    fn allows(&self, transport: TransportKind) -> bool {
        self.transports.contains(&transport)
    }

    /// What HELLO is in the air over, if it is.
    fn claiming(&self) -> Option<TransportKind> {
        self.transports.iter().copied().find(|&transport| self.lanes[transport].is_claiming())
    }

    /// When a transport of this round is to be connected.
    fn start_at(&self, transport: TransportKind) -> Option<Instant> {
        match &self.pursuit {
            Pursuit::Round(round) if self.lanes[transport].is_idle() => {
                round.start[transport].map(|at| self.allowed(at))
            }
            _ => None,
        }
    }

    /// `at`, or when the silence after a refusal is over.
    fn allowed(&self, at: Instant) -> Instant {
        self.silent_until.map_or(at, |silent| silent.max(at))
    }

    /// When HELLO is to be sent on a connection that waits for it.
    fn claim_at(&self, transport: TransportKind) -> Option<Instant> {
        let Lane::Connected { at, prompt, .. } = self.lanes[transport] else { return None };
        if self.claiming().is_some() {
            return None;
        }
        match self.live {
            None => Some(at),
            Some(live) if live.is_healthy() => Some(at + self.settings.trial),
            Some(_) if prompt => Some(at),
            Some(_) => Some(at + self.settings.revival),
        }
    }

    /// When a claim over QUIC has been in the air for so long that TCP is wanted for it.
    fn patience_ends_at(&self) -> Option<Instant> {
        let (Pursuit::Round(round), Lane::Claiming { since, .. }) = (&self.pursuit, self.lanes[TransportKind::Quic])
        else {
            return None;
        };
        let ends = since + self.settings.claim_patience;
        match self.lanes[TransportKind::Tcp] {
            Lane::Idle => {
                let may_help =
                    self.allows(TransportKind::Tcp) && !round.failed[TransportKind::Tcp] && round.refused.is_none();
                may_help.then(|| self.allowed(ends))
            }
            Lane::Connected { .. } => Some(ends),
            Lane::Connecting(_) | Lane::Claiming { .. } => None,
        }
    }

    /// Connects TCP, or moves the claim there once it is connected.
    fn lose_patience(&mut self, now: Instant) {
        if self.lanes[TransportKind::Tcp].is_idle() {
            return self.connect(TransportKind::Tcp);
        }
        self.abandon(TransportKind::Quic);
        self.record.fail(TransportKind::Quic, format!("no WELCOME within {:?}", self.settings.claim_patience));
        self.quic_failed_at = Some(now);
        if let Pursuit::Round(round) = &mut self.pursuit {
            round.failed[TransportKind::Quic] = true;
        }
    }

    /// What is known of QUIC decides who goes first. spec: TB-22
    fn order(&self, now: Instant) -> Order {
        let recent = |at: Instant| now.saturating_duration_since(at) < self.settings.memory;
        if self.quic_failed_at.is_some_and(recent) { Order::TcpFirst } else { Order::Race }
    }

    /// Begins to connect what is not under way already, unless a refusal forbids it for now. spec: TB-23
    fn begin_round(&mut self, now: Instant, order: Order) {
        if let Some(until) = self.silent_until.filter(|&until| until > now) {
            return self.wait(until, Some(order));
        }
        let later = |delay: Duration| Some(now + delay);
        let start = match (self.transports, order) {
            // One that is connected already gets the claim at once; the other is there if it fails.
            _ if self.transports.iter().any(|&transport| self.lanes[transport].is_connected()) => {
                PerTransport::default()
            }
            (&[only], _) => {
                let mut start = PerTransport::default();
                start[only] = Some(now);
                start
            }
            (_, Order::Race) => PerTransport::new(Some(now), later(self.settings.race_delay)),
            (_, Order::TcpFirst) => PerTransport::new(later(self.settings.tcp_first), Some(now)),
            (_, Order::Together) => PerTransport::new(Some(now), Some(now)),
        };
        self.pursuit = Pursuit::Round(Round { start, ..Round::default() });
    }

    fn connect(&mut self, transport: TransportKind) {
        let attempt = Attempt::new(transport, self.attempts);
        self.attempts += 1;
        self.lanes[transport] = Lane::Connecting(attempt);
        if let Pursuit::Round(round) = &mut self.pursuit {
            round.start[transport] = None;
        }
        self.actions.push_back(Action::Connect(attempt));
    }

    fn claim(&mut self, now: Instant, transport: TransportKind) {
        let Lane::Connected { attempt, .. } = self.lanes[transport] else { return };
        let place = match self.live {
            Some(live) if live.is_healthy() => ClaimPlace::Beside,
            _ => ClaimPlace::Supersede,
        };
        self.lanes[transport] = Lane::Claiming { attempt, since: now, place };
        self.actions.push_back(Action::Claim(attempt, place));
    }

    /// Gives up what is under way over a transport, if anything.
    fn abandon(&mut self, transport: TransportKind) {
        if let Some(attempt) = std::mem::take(&mut self.lanes[transport]).attempt() {
            self.actions.push_back(Action::Abandon(attempt));
        }
    }

    fn wait(&mut self, until: Instant, order: Option<Order>) {
        self.pursuit = Pursuit::Waiting { until, order };
        self.actions.push_back(Action::Wait { until });
    }

    /// Both failed, or the responder refused: nothing for a while.
    fn back_off(&mut self, now: Instant, refused: Option<Option<Duration>>, entropy: u64) {
        if self.backoff.failures() == 0 {
            // The schedule begins with "at once", and the round that just failed was that.
            self.backoff.next_delay(0, None);
        }
        let delay = self.backoff.next_delay(entropy, refused.flatten());
        // An earlier refusal may have asked for more.
        let until = self.allowed(now + delay);
        if refused.is_some() {
            self.silent_until = Some(until);
        }
        // When all have failed, what was remembered of QUIC is worth no more than what was found out about TCP.
        self.wait(until, if refused.is_some() { None } else { Some(Order::Race) });
    }

    fn connected(&mut self, now: Instant, attempt: Attempt) {
        let transport = attempt.transport();
        if self.lanes[transport] != Lane::Connecting(attempt) {
            return;
        }
        let prompt = match &mut self.pursuit {
            Pursuit::Round(round) => {
                // An answer. The other one is for when this one fails.
                round.start = PerTransport::default();
                round.prompt_until.is_some_and(|until| now <= until)
            }
            Pursuit::Content | Pursuit::Waiting { .. } => true,
        };
        self.lanes[transport] = Lane::Connected { attempt, at: now, prompt };
    }

    fn ended(&mut self, now: Instant, attempt: Attempt, failure: Failure, entropy: u64) {
        if let Some(live) = self.live.take_if(|live| live.attempt == attempt) {
            return self.lost(now, live, failure, entropy);
        }
        let transport = attempt.transport();
        if self.lanes[transport].attempt() != Some(attempt) {
            return;
        }
        self.lanes[transport] = Lane::Idle;
        self.record.fail(transport, failure.reason);
        if transport == TransportKind::Quic && failure.kind == FailureKind::Transport {
            self.quic_failed_at = Some(now);
        }
        match self.pursuit {
            Pursuit::Round(_) => self.failed_in_round(now, transport, failure.kind, entropy),
            // A probe, or what was left of a suspicion: the tunnel is there.
            Pursuit::Content | Pursuit::Waiting { .. } => self.probe_failed(now, transport, failure.kind, entropy),
        }
    }

    fn failed_in_round(&mut self, now: Instant, transport: TransportKind, kind: FailureKind, entropy: u64) {
        let Pursuit::Round(round) = &mut self.pursuit else { return };
        let other = self.transports.iter().copied().find(|&other| other != transport);
        round.failed[transport] = true;
        match kind {
            FailureKind::Refused { retry_after } => {
                round.refuse(retry_after);
                self.silent_until = silence(now, retry_after).max(self.silent_until);
                // A claim that is in the air gets its own answer.
                if let Some(other) = other.filter(|&other| !self.lanes[other].is_claiming()) {
                    self.abandon(other);
                }
            }
            FailureKind::Transport => {
                let free = |other: &TransportKind| !round.failed[*other] && self.lanes[*other].is_idle();
                if let Some(other) = other.filter(free).filter(|_| round.refused.is_none()) {
                    round.start[other] = Some(now);
                }
            }
        }
        let Pursuit::Round(round) = &self.pursuit else { return };
        let nothing_starts = self.transports.iter().all(|&transport| round.start[transport].is_none());
        if nothing_starts && other.is_none_or(|other| self.lanes[other].is_idle()) {
            self.back_off(now, round.refused, entropy);
        }
    }
}

/// Until when a refusal asks for silence.
fn silence(now: Instant, retry_after: Option<Duration>) -> Option<Instant> {
    retry_after.map(|after| now + after.min(MAX_RETRY_AFTER))
}

fn is_due(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}
