//! A round: the transports are connected one after the other or together, the first gets the claim, and when all have
//! failed nothing happens for a while. spec: TB-20 to TB-23

use std::time::{Duration, Instant};

use super::Auto;
use super::attempts::{Claim, Lane};
use super::event::{Action, Attempt, ClaimPlace, Failure, FailureKind, PerTransport};
use super::state::{Order, Pause, Refusal, Round, Search, State};
use crate::lifecycle::MAX_RETRY_AFTER;
use crate::transport::TransportKind;

impl Auto {
    /// What is known of QUIC decides who goes first. spec: TB-22
    pub(super) fn order(&self, now: Instant) -> Order {
        let recent = |at: Instant| now.saturating_duration_since(at) < self.settings.memory;
        if self.memory.quic_failed_at.is_some_and(recent) { Order::TcpFirst } else { Order::Race }
    }

    /// Begins to connect what is not under way already, unless a refusal forbids it for now. Beside a suspect tunnel what
    /// is connected until `prompt_until` need not wait for the tunnel. spec: TB-23
    pub(super) fn begin_round(&mut self, now: Instant, order: Order, prompt_until: Option<Instant>) {
        if let Some(until) = self.memory.silent_until.filter(|&until| until > now) {
            return self.wait(until, Some(order));
        }
        let (round, mut attempts) = (Round::default(), self.state.attempts());
        attempts.schedule(self.starts(now, order));
        self.state = match self.state {
            State::Suspect { tunnel, since, .. } => {
                State::Suspect { tunnel, since, search: Search::Round { round, prompt_until }, attempts }
            }
            State::Waiting(_) | State::Seeking { .. } | State::Well { .. } => State::Seeking { round, attempts },
        };
    }

    /// When a round that begins now connects each transport.
    fn starts(&self, now: Instant, order: Order) -> PerTransport<Option<Instant>> {
        let attempts = self.state.attempts();
        let later = |delay: Duration| Some(now + delay);
        match (self.transports, order) {
            // One that is connected already gets the claim at once; the other is there if it fails.
            _ if self.transports.iter().any(|&transport| attempts.is_connected(transport)) => PerTransport::default(),
            (&[only], _) => {
                let mut start = PerTransport::default();
                start[only] = Some(now);
                start
            }
            (_, Order::Race) => PerTransport::new(Some(now), later(self.settings.race_delay)),
            (_, Order::TcpFirst) => PerTransport::new(later(self.settings.tcp_first), Some(now)),
            (_, Order::Together) => PerTransport::new(Some(now), Some(now)),
        }
    }

    pub(super) fn connect(&mut self, transport: TransportKind) {
        let Some(attempts) = self.state.attempts_mut() else { return };
        let attempt = Attempt::new(transport, self.attempts);
        self.attempts += 1;
        attempts.set(transport, Lane::Connecting { attempt, again: None });
        self.actions.push_back(Action::Connect(attempt));
    }

    pub(super) fn claim(&mut self, now: Instant, transport: TransportKind) {
        let place = match self.state {
            State::Well { .. } => ClaimPlace::Beside,
            // The path carries this one and not the other, which may revive all the same. spec: CT-45
            State::Suspect { tunnel, .. } if tunnel.transport() == transport => ClaimPlace::Beside,
            State::Waiting(_) | State::Seeking { .. } | State::Suspect { .. } => ClaimPlace::Supersede,
        };
        let Some(attempts) = self.state.attempts_mut() else { return };
        let Some(Lane::Connected { attempt, .. }) = attempts.lane(transport) else { return };
        attempts.send_hello(Claim { attempt, since: now, place, again: None });
        self.actions.push_back(Action::Claim(attempt, place));
    }

    /// Connects TCP, or moves the claim there once it is connected.
    pub(super) fn lose_patience(&mut self, now: Instant) {
        if !self.state.attempts().is_busy(TransportKind::Tcp) {
            return self.connect(TransportKind::Tcp);
        }
        self.abandon(TransportKind::Quic);
        let reason = format!("no WELCOME within {:?}", self.settings.claim_patience);
        self.memory.record.fail(TransportKind::Quic, reason);
        self.memory.quic_failed_at = Some(now);
        if let Some(attempts) = self.state.attempts_mut() {
            attempts.fail(TransportKind::Quic);
        }
    }

    /// Gives up what is under way over a transport, if anything.
    pub(super) fn abandon(&mut self, transport: TransportKind) {
        let Some(attempts) = self.state.attempts_mut() else { return };
        if let Some(attempt) = attempts.attempt(transport) {
            attempts.set(transport, Lane::Idle);
            self.actions.push_back(Action::Abandon(attempt));
        }
    }

    /// Gives up what is under way over any transport but this one.
    pub(super) fn abandon_others(&mut self, kept: TransportKind) {
        for &transport in self.transports.iter().filter(|&&transport| transport != kept) {
            self.abandon(transport);
        }
    }

    fn abandon_all(&mut self) {
        for &transport in self.transports {
            self.abandon(transport);
        }
    }

    /// Nothing more is tried before `until`. Beside a suspect tunnel a claim in the air still gets its answer.
    pub(super) fn wait(&mut self, until: Instant, order: Option<Order>) {
        let pause = Pause { until, order };
        if let State::Suspect { search, attempts, .. } = &mut self.state {
            *search = Search::Waiting(pause);
            attempts.unschedule();
        } else {
            self.abandon_all();
            self.state = State::Waiting(pause);
        }
        self.actions.push_back(Action::Wait { until });
    }

    /// All failed, or the responder refused: nothing for a while.
    pub(super) fn back_off(&mut self, now: Instant, refusal: Option<Refusal>, entropy: u64) {
        if let Some(returning) = &mut self.memory.returning {
            match refusal {
                _ if now >= returning.until => self.memory.returning = None,
                // It is there, and says no: what it says is not said of its end.
                Some(Refusal { retry_after: None }) => self.memory.returning = None,
                // It drains still, or is not there yet: that lengthens no backoff.
                Some(Refusal { retry_after: Some(after) }) => {
                    returning.until = now + after.min(MAX_RETRY_AFTER) + self.settings.return_window;
                    self.memory.backoff.reset();
                }
                None => {
                    self.memory.backoff.reset();
                    let delay = returning.pace / 4 + (returning.pace / 4 * 3).mul_f64(entropy as f64 / u64::MAX as f64);
                    let until = self.allowed(now + delay);
                    return self.wait(until, Some(Order::Race));
                }
            }
        }
        if self.memory.backoff.failures() == 0 {
            // The schedule begins with "at once", and the round that just failed was that.
            self.memory.backoff.next_delay(0, None);
        }
        let delay = self.memory.backoff.next_delay(entropy, refusal.and_then(|refusal| refusal.retry_after));
        // An earlier refusal may have asked for more.
        let until = self.allowed(now + delay);
        if refusal.is_some() {
            self.memory.silent_until = Some(until);
        }
        // When all have failed, what was remembered of QUIC is worth no more than what was found out about TCP.
        self.wait(until, if refusal.is_some() { None } else { Some(Order::Race) });
    }

    pub(super) fn connected(&mut self, now: Instant, attempt: Attempt) {
        let prompt = match self.state {
            State::Seeking { .. } => false,
            State::Suspect { search: Search::Round { prompt_until, .. }, .. } => {
                prompt_until.is_some_and(|until| now <= until)
            }
            State::Waiting(_) | State::Well { .. } | State::Suspect { .. } => true,
        };
        let in_round = self.state.round().is_some();
        let Some(attempts) = self.state.attempts_mut() else { return };
        let transport = attempt.transport();
        if !matches!(attempts.lane(transport), Some(Lane::Connecting { attempt: known, .. }) if known == attempt) {
            return;
        }
        if in_round {
            // An answer. The other one is for when this one fails.
            attempts.stop();
        }
        attempts.set(transport, Lane::Connected { attempt, at: now, prompt });
    }

    /// An attempt ended that was not a tunnel yet.
    pub(super) fn ended(&mut self, now: Instant, attempt: Attempt, failure: Failure, entropy: u64) {
        let transport = attempt.transport();
        let in_round = self.state.round().is_some();
        let Some(attempts) = self.state.attempts_mut().filter(|it| it.attempt(transport) == Some(attempt)) else {
            return;
        };
        if in_round {
            attempts.fail(transport);
        } else {
            attempts.set(transport, Lane::Idle);
        }
        self.memory.record.fail(transport, failure.reason);
        if transport == TransportKind::Quic && failure.kind == FailureKind::Transport {
            self.memory.quic_failed_at = Some(now);
        }
        if in_round {
            self.failed_in_round(now, transport, failure.kind, entropy);
        } else {
            // A probe, or what was left of a suspicion: the tunnel is there.
            self.probe_failed(now, transport, failure.kind, entropy);
        }
    }

    fn failed_in_round(&mut self, now: Instant, failed: TransportKind, kind: FailureKind, entropy: u64) {
        let other = self.transports.iter().copied().find(|&other| other != failed);
        match kind {
            FailureKind::Refused { retry_after } => self.refused_in_round(now, other, retry_after),
            FailureKind::Transport => self.hurry(now, other),
        }
        self.retry_meanwhile(now, (failed, other), kind, entropy);
        let attempts = self.state.attempts();
        // Who only waits for another turn has had its own.
        let waits = |transport| attempts.start(transport).is_some() && !attempts.is_retrying(transport);
        let over = |&transport| !attempts.is_busy(transport) && !waits(transport);
        if self.transports.iter().all(over) {
            self.back_off(now, self.state.round().and_then(|round| round.refusal), entropy);
        }
    }

    /// Of one that is silent nobody knows for long whether it will answer: the other one, which has failed, is not left alone for
    /// that. spec: TB-21
    fn retry_meanwhile(
        &mut self,
        now: Instant,
        (failed, other): (TransportKind, Option<TransportKind>),
        kind: FailureKind,
        entropy: u64,
    ) {
        let attempts = self.state.attempts();
        let is_unanswered = |other: TransportKind| match attempts.lane(other) {
            Some(Lane::Connecting { .. }) => true,
            Some(Lane::Due(at)) => self.allowed(at) <= now,
            _ => false,
        };
        let (Some(round), FailureKind::Transport) = (self.state.round(), kind) else { return };
        if round.refusal.is_some() || attempts.start(failed).is_some() || !other.is_some_and(is_unanswered) {
            return;
        }
        let returning = self.memory.returning.filter(|returning| now < returning.until);
        let most = returning.map_or_else(|| self.settings.backoff.bound(round.retries + 1), |returning| returning.pace);
        // Not at once, whatever chance says: the port that refused it is the same.
        let at = now + most.mul_f64(0.5 + 0.5 * (entropy as f64 / u64::MAX as f64));
        if let Some(round) = self.state.round_mut() {
            round.retries = round.retries.saturating_add(1);
        }
        if let Some(attempts) = self.state.attempts_mut() {
            attempts.set(failed, Lane::Retrying(at));
        }
    }

    /// Nothing more starts, and what has sent no HELLO yet is given up. spec: TB-23
    fn refused_in_round(&mut self, now: Instant, other: Option<TransportKind>, retry_after: Option<Duration>) {
        self.refuse_round(retry_after);
        self.memory.silent_until = silence(now, retry_after).max(self.memory.silent_until);
        // A claim that is in the air gets its own answer.
        let attempts = self.state.attempts();
        if let Some(other) = other.filter(|&other| !attempts.is_claiming(other)) {
            self.abandon(other);
        }
    }

    /// The round connects nothing more.
    pub(super) fn refuse_round(&mut self, retry_after: Option<Duration>) {
        if let Some(round) = self.state.round_mut() {
            round.refuse(retry_after);
        }
        if let Some(attempts) = self.state.attempts_mut() {
            attempts.stop();
        }
    }

    /// The other transport has its turn at once if it had none in this round. spec: TB-21
    fn hurry(&mut self, now: Instant, other: Option<TransportKind>) {
        let refused = self.state.round().is_some_and(|round| round.refusal.is_some());
        let (Some(other), Some(attempts)) = (other, self.state.attempts_mut()) else { return };
        if !refused && matches!(attempts.lane(other), Some(Lane::Idle | Lane::Due(_))) {
            attempts.set(other, Lane::Due(now));
        }
    }
}

/// Until when a refusal asks for silence.
pub(super) fn silence(now: Instant, retry_after: Option<Duration>) -> Option<Instant> {
    retry_after.map(|after| now + after.min(MAX_RETRY_AFTER))
}
