//! What the life of the tunnel means for the choice: it comes, is suspect, is alive again, drains, is lost.

use std::time::{Duration, Instant};

use super::Auto;
use super::attempts::{Attempts, Claim, Lane};
use super::event::{Action, Attempt, ClaimPlace, Failure, FailureKind};
use super::round::silence;
use super::state::{Order, Refusal, Returning, Round, Search, State, Tunnel};
use crate::lifecycle::MAX_RETRY_AFTER;
use crate::transport::TransportKind;

impl Auto {
    pub(super) fn admitted(&mut self, now: Instant, attempt: Attempt, entropy: u64) {
        let Some(attempts) = self.state.attempts_mut() else { return };
        let Some(claim) = attempts.claim_of(attempt) else { return };
        let transport = claim.transport();
        attempts.set(transport, Lane::Idle);
        if transport == TransportKind::Tcp && attempts.is_busy(TransportKind::Quic) {
            self.memory.record.fail(TransportKind::Quic, "no answer before TCP was admitted".to_owned());
            self.memory.quic_failed_at = Some(now);
        }
        self.abandon_others(transport);
        if let Some(old) = self.state.tunnel() {
            self.replaced(now, old, claim);
        }
        self.count_switch(transport, claim.place);
        let after_tcp = self.memory.latest == Some(TransportKind::Tcp);
        (self.memory.latest, self.memory.silent_until, self.memory.returning) = (Some(transport), None, None);
        self.state = State::Well { tunnel: Tunnel { attempt, since: now }, attempts: Attempts::default() };
        self.memory.record.work(transport);
        match transport {
            TransportKind::Quic => {
                self.memory.quic_failed_at = None;
                self.memory.probing.quic_up(now, after_tcp);
            }
            TransportKind::Tcp | TransportKind::Envoy => self.schedule_probe(now, None, entropy),
        }
    }

    /// Another tunnel has taken over. spec: TB-24, TB-25
    fn replaced(&mut self, now: Instant, old: Tunnel, by: Claim) {
        self.note_settled(now, old);
        if old.transport() == TransportKind::Quic {
            self.quic_gone(now, true);
        }
        if by.place == ClaimPlace::Supersede && by.transport() != old.transport() {
            self.memory.record.fail(old.transport(), "the tunnel went silent".to_owned());
        }
        self.actions.push_back(match by.place {
            // What runs in it goes on, also where it is suspect and revives.
            ClaimPlace::Beside => Action::Drain(old.attempt),
            // The responder has ended it already, as far as it can.
            ClaimPlace::Supersede => Action::Abandon(old.attempt),
        });
    }

    fn count_switch(&mut self, to: TransportKind, place: ClaimPlace) {
        let Some(from) = self.memory.latest.filter(|&from| from != to) else { return };
        let record = &mut self.memory.record;
        let reason = match place {
            ClaimPlace::Beside => "a probe was answered and held",
            ClaimPlace::Supersede => record.reason(from).unwrap_or("the responder drained"),
        };
        let reason = reason.to_owned();
        record.switches += 1;
        record.switch_reason = Some(reason.clone());
        self.actions.push_back(Action::Switched { from, to, reason });
    }

    /// The tunnel is gone, and neither end wanted that.
    pub(super) fn lost(&mut self, now: Instant, tunnel: Tunnel, failure: Failure, entropy: u64) {
        let lived_long = self.has_settled(now, tunnel);
        let by_path = failure.kind == FailureKind::Transport;
        self.memory.record.fail(tunnel.transport(), failure.reason);
        if tunnel.transport() == TransportKind::Quic {
            self.quic_gone(now, by_path);
            if by_path && !lived_long {
                self.memory.quic_failed_at = Some(now);
            }
        }
        let order = match (self.state.suspect_since(), tunnel.transport()) {
            (Some(_), _) => Order::Together,
            (None, TransportKind::Tcp | TransportKind::Envoy) => Order::TcpFirst,
            (None, TransportKind::Quic) => self.order(now),
        };
        self.forget_tunnel();
        if let Some(claim) = self.state.attempts().claim() {
            return self.leave_it_to(claim, failure.kind);
        }
        match failure.kind {
            FailureKind::Refused { retry_after } => self.back_off(now, Some(Refusal { retry_after }), entropy),
            FailureKind::Transport if lived_long => {
                self.memory.backoff.reset();
                self.begin_round(now, order, None);
            }
            FailureKind::Transport => self.try_again(now, order, entropy),
        }
    }

    /// A tunnel was lost before it settled: the first time at once, then later and later.
    fn try_again(&mut self, now: Instant, order: Order, entropy: u64) {
        let delay = self.memory.backoff.next_delay(entropy, None);
        if delay.is_zero() {
            self.begin_round(now, order, None);
        } else {
            self.wait(now + delay, Some(order));
        }
    }

    /// The slot has no tunnel any more; a round beside it goes on, and so does what is under way.
    fn forget_tunnel(&mut self) {
        self.state = match self.state {
            State::Suspect { search: Search::Round { round, .. }, attempts, .. } => State::Seeking { round, attempts },
            State::Well { mut attempts, .. } | State::Suspect { mut attempts, .. } => {
                attempts.unschedule();
                State::Seeking { round: Round::default(), attempts }
            }
            State::Waiting(_) | State::Seeking { .. } => return,
        };
    }

    /// The tunnel is lost with a claim in the air: its answer decides. The responder may have ended the tunnel because of
    /// it.
    fn leave_it_to(&mut self, claim: Claim, kind: FailureKind) {
        if let FailureKind::Refused { retry_after } = kind {
            self.refuse_round(retry_after);
            self.abandon_others(claim.transport());
        }
    }

    /// A suspect tunnel gets a replacement beside it. spec: CT-45, TB-24
    pub(super) fn suspect(&mut self, now: Instant, tunnel: Tunnel, mut attempts: Attempts) {
        attempts.unschedule();
        self.state = State::Suspect { tunnel, since: now, search: Search::Nothing, attempts };
        self.note_settled(now, tunnel);
        if tunnel.transport() == TransportKind::Quic {
            self.memory.probing.count_health(now, &self.settings);
        }
        if matches!(self.transports, [TransportKind::Envoy]) {
            return;
        }
        let order = match tunnel.transport() {
            TransportKind::Quic => Order::TcpFirst,
            TransportKind::Tcp | TransportKind::Envoy => Order::Together,
        };
        self.begin_round(now, order, Some(now + self.settings.tcp_first));
    }

    pub(super) fn alive(&mut self, now: Instant, tunnel: Tunnel, mut attempts: Attempts, entropy: u64) {
        attempts.unschedule();
        self.state = State::Well { tunnel, attempts };
        let on = tunnel.transport();
        if on == TransportKind::Quic {
            self.memory.probing.quic_alive(now);
        }
        for &transport in self.transports {
            // A claim may have been admitted already, and what it supersedes is then gone; so its answer counts. A
            // connect of QUIC beside TCP is as good as a probe.
            let is_probe = on == TransportKind::Tcp && transport == TransportKind::Quic;
            if !attempts.is_claiming(transport) && !is_probe {
                self.abandon(transport);
            }
        }
        self.schedule_probe(now, None, entropy);
    }

    /// The responder wants the tunnel replaced, and lets what runs on it end. spec: CT-26
    pub(super) fn draining(&mut self, now: Instant, tunnel: Tunnel, after: Duration, entropy: u64) {
        self.note_settled(now, tunnel);
        if tunnel.transport() == TransportKind::Quic {
            self.quic_gone(now, false);
        }
        self.forget_tunnel();
        let mut wait = after.min(MAX_RETRY_AFTER);
        // One that admits and drains again and again is not dialled in a tight loop.
        let settled = self.has_settled(now, tunnel);
        let delay = if settled { Duration::ZERO } else { self.memory.backoff.next_delay(entropy, None) };
        if delay.is_zero() {
            self.memory.returning = Some(Returning {
                attempt: tunnel.attempt,
                not_before: now + wait,
                pace: wait.max(self.settings.return_pace),
                until: now + wait + self.settings.return_window,
            });
        }
        wait = wait.max(delay);
        let order = (tunnel.transport() == TransportKind::Tcp).then_some(Order::TcpFirst);
        self.wait(self.allowed(now + wait), order);
    }

    /// A tunnel that the responder drained is over. If it did not end as agreed, the responder is gone, and whatever it asked
    /// for with it; a refusal because it drained is then no longer true either. spec: CT-26, HS-31
    pub(super) fn gone(&mut self, now: Instant, attempt: Attempt, agreed: bool) {
        let Some(returning) = self.memory.returning.as_mut().filter(|it| it.attempt == attempt) else { return };
        let at = if agreed { returning.not_before.max(now) } else { now };
        returning.until = at + self.settings.return_window;
        let State::Waiting(pause) = &mut self.state else { return };
        if at < pause.until {
            pause.until = at;
            self.memory.silent_until = None;
            self.actions.push_back(Action::Wait { until: at });
        }
    }

    /// A probe failed or was refused: the next one is later. What else ends while there is a tunnel changes nothing.
    pub(super) fn probe_failed(&mut self, now: Instant, failed: TransportKind, kind: FailureKind, entropy: u64) {
        let on_tcp = self.state.tunnel().is_some_and(|tunnel| tunnel.transport() == TransportKind::Tcp);
        if failed != TransportKind::Quic || !on_tcp {
            return;
        }
        let retry_after = match kind {
            FailureKind::Refused { retry_after } => silence(now, retry_after),
            FailureKind::Transport => None,
        };
        self.memory.probing.failed();
        self.schedule_probe(now, retry_after, entropy);
    }

    /// If a probe is what the slot needs: its tunnel is on TCP and well, and QUIC may be used.
    fn schedule_probe(&mut self, now: Instant, earliest: Option<Instant>, entropy: u64) {
        let allowed = self.allows(TransportKind::Quic);
        let State::Well { tunnel, attempts } = &mut self.state else { return };
        if tunnel.transport() == TransportKind::Tcp && allowed && !attempts.is_busy(TransportKind::Quic) {
            let earliest = earliest.max(self.memory.silent_until);
            self.memory.probing.wait_until(earliest);
            let at = self.memory.probing.next(now, entropy, earliest, &self.settings);
            attempts.set(TransportKind::Quic, Lane::Due(at));
        }
    }

    /// The interval between probes may have become shorter.
    pub(super) fn bring_probe_forward(&mut self, now: Instant, entropy: u64) {
        let State::Well { attempts, .. } = &mut self.state else { return };
        let earliest = self.memory.probing.earliest().max(self.memory.silent_until);
        let at = self.memory.probing.next(now, entropy, earliest, &self.settings);
        if attempts.start(TransportKind::Quic).is_some_and(|due| at < due) {
            attempts.set(TransportKind::Quic, Lane::Due(at));
        }
    }

    /// QUIC does not carry the tunnel any more, because of its path or not.
    fn quic_gone(&mut self, now: Instant, by_path: bool) {
        if !by_path {
            return self.memory.probing.count_health(now, &self.settings);
        }
        let suspect = self.state.suspect_since();
        self.memory.probing.quic_lost(suspect.unwrap_or(now), &self.settings);
        if suspect.is_some() {
            self.memory.quic_failed_at = Some(now);
        }
    }

    /// A tunnel that lived for a while makes up for the failures before it.
    fn note_settled(&mut self, now: Instant, tunnel: Tunnel) {
        if self.has_settled(now, tunnel) {
            self.memory.backoff.reset();
        }
    }

    fn has_settled(&self, now: Instant, tunnel: Tunnel) -> bool {
        now.saturating_duration_since(tunnel.since) >= self.settings.settled
    }
}
