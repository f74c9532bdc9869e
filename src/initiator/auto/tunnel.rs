//! What the life of the tunnel means for the choice: it comes, is suspect, is alive again, drains, is lost.

use std::time::{Duration, Instant};

use super::attempt::{Lane, Live, Order, Pursuit, Round};
use super::event::{Action, Attempt, ClaimPlace, Failure, FailureKind};
use super::status::PathState;
use super::{Auto, silence};
use crate::lifecycle::MAX_RETRY_AFTER;
use crate::transport::TransportKind;

impl Auto {
    pub(super) fn admitted(&mut self, now: Instant, attempt: Attempt, entropy: u64) {
        let transport = attempt.transport();
        let Lane::Claiming { attempt: claiming, place, .. } = self.lanes[transport] else { return };
        if claiming != attempt {
            return;
        }
        self.lanes[transport] = Lane::Idle;
        if transport == TransportKind::Tcp && !self.lanes[TransportKind::Quic].is_idle() {
            self.record.fail(TransportKind::Quic, "no answer before TCP was admitted".to_owned());
            self.quic_failed_at = Some(now);
        }
        self.abandon_others(transport);
        if let Some(old) = self.live.take() {
            self.replaced(now, old, place, transport);
        }
        self.count_switch(transport, place);
        let after_tcp = self.latest == Some(TransportKind::Tcp);
        (self.latest, self.silent_until, self.pursuit) = (Some(transport), None, Pursuit::Content);
        self.live = Some(Live { attempt, since: now, suspect: None });
        self.record.work(transport);
        match transport {
            TransportKind::Quic => {
                self.quic_failed_at = None;
                self.probing.quic_up(now, after_tcp);
            }
            TransportKind::Tcp | TransportKind::Envoy => self.schedule_probe(now, None, entropy),
        }
    }

    /// Another tunnel has taken over. spec: TB-24, TB-25
    fn replaced(&mut self, now: Instant, old: Live, place: ClaimPlace, by: TransportKind) {
        self.note_settled(now, old);
        if old.transport() == TransportKind::Quic {
            self.quic_gone(now, old, true);
        }
        if place == ClaimPlace::Supersede && by != old.transport() {
            self.record.fail(old.transport(), "the tunnel went silent".to_owned());
        }
        self.actions.push_back(match place {
            ClaimPlace::Beside => Action::Drain(old.attempt),
            // The responder has ended it already, as far as it can.
            ClaimPlace::Supersede => Action::Abandon(old.attempt),
        });
    }

    fn count_switch(&mut self, to: TransportKind, place: ClaimPlace) {
        let Some(from) = self.latest.filter(|&from| from != to) else { return };
        let reason = match place {
            ClaimPlace::Beside => "a probe was answered and held",
            ClaimPlace::Supersede => self.record.reason(from).unwrap_or("the responder drained"),
        };
        let reason = reason.to_owned();
        self.record.switches += 1;
        self.record.switch_reason = Some(reason.clone());
        self.actions.push_back(Action::Switched { from, to, reason });
    }

    pub(super) fn lost(&mut self, now: Instant, live: Live, failure: Failure, entropy: u64) {
        let lived_long = now.saturating_duration_since(live.since) >= self.settings.settled;
        let by_path = failure.kind == FailureKind::Transport;
        self.record.fail(live.transport(), failure.reason);
        self.probing.cancel();
        if live.transport() == TransportKind::Quic {
            self.quic_gone(now, live, by_path);
            if by_path && !lived_long {
                self.quic_failed_at = Some(now);
            }
        }
        if let Some(claiming) = self.claiming() {
            return self.leave_it_to(claiming, failure.kind);
        }
        let order = match live.transport() {
            _ if !live.is_healthy() => Order::Together,
            TransportKind::Tcp | TransportKind::Envoy => Order::TcpFirst,
            TransportKind::Quic => self.order(now),
        };
        match failure.kind {
            FailureKind::Refused { retry_after } => {
                self.abandon_all();
                self.back_off(now, Some(retry_after), entropy);
            }
            FailureKind::Transport if lived_long => {
                self.backoff.reset();
                self.begin_round(now, order);
            }
            FailureKind::Transport => {
                let delay = self.backoff.next_delay(entropy, None);
                if delay.is_zero() {
                    return self.begin_round(now, order);
                }
                self.abandon_all();
                self.wait(now + delay, Some(order));
            }
        }
    }

    /// The tunnel is lost with a claim in the air: its answer decides. The responder may have ended the tunnel because of
    /// it.
    fn leave_it_to(&mut self, claiming: TransportKind, kind: FailureKind) {
        let mut round = match std::mem::replace(&mut self.pursuit, Pursuit::Content) {
            Pursuit::Round(round) => round,
            Pursuit::Content | Pursuit::Waiting { .. } => Round::default(),
        };
        if let FailureKind::Refused { retry_after } = kind {
            round.refuse(retry_after);
            self.abandon_others(claiming);
        }
        self.pursuit = Pursuit::Round(round);
    }

    /// With another transport at hand a suspect tunnel gets a replacement beside it. spec: TB-24
    pub(super) fn suspect(&mut self, now: Instant, attempt: Attempt) {
        let Some(live) = self.live.as_mut().filter(|live| live.attempt == attempt && live.is_healthy()) else { return };
        live.suspect = Some(now);
        let live = *live;
        self.note_settled(now, live);
        self.probing.cancel();
        if live.transport() == TransportKind::Quic {
            self.probing.count_health(now, &self.settings);
        }
        if self.transports.len() == 1 {
            return;
        }
        self.begin_round(
            now,
            match live.transport() {
                TransportKind::Quic => Order::TcpFirst,
                TransportKind::Tcp | TransportKind::Envoy => Order::Together,
            },
        );
        if let Pursuit::Round(round) = &mut self.pursuit {
            round.prompt_until = Some(now + self.settings.tcp_first);
        }
    }

    pub(super) fn alive(&mut self, now: Instant, attempt: Attempt, entropy: u64) {
        let Some(live) = self.live.as_mut().filter(|live| live.attempt == attempt && !live.is_healthy()) else {
            return;
        };
        live.suspect = None;
        let on = live.transport();
        self.pursuit = Pursuit::Content;
        if on == TransportKind::Quic {
            self.probing.quic_alive(now);
        }
        for &transport in self.transports {
            // A claim may have been admitted already, and what it supersedes is then gone; so its answer counts. A
            // connect of QUIC beside TCP is as good as a probe.
            let is_probe = on == TransportKind::Tcp && transport == TransportKind::Quic;
            if !self.lanes[transport].is_claiming() && !is_probe {
                self.abandon(transport);
            }
        }
        if on == TransportKind::Tcp && self.lanes[TransportKind::Quic].is_idle() {
            self.schedule_probe(now, None, entropy);
        }
    }

    pub(super) fn draining(&mut self, now: Instant, attempt: Attempt, after: Duration, entropy: u64) {
        let Some(live) = self.live.take_if(|live| live.attempt == attempt) else { return };
        self.abandon_all();
        self.probing.cancel();
        self.note_settled(now, live);
        if live.transport() == TransportKind::Quic {
            self.quic_gone(now, live, false);
        }
        let mut wait = after.min(MAX_RETRY_AFTER);
        if now.saturating_duration_since(live.since) < self.settings.settled {
            // One that admits and drains again and again is not dialled in a tight loop.
            wait = wait.max(self.backoff.next_delay(entropy, None));
        }
        self.wait(self.allowed(now + wait), (live.transport() == TransportKind::Tcp).then_some(Order::TcpFirst));
    }

    /// A probe failed or was refused: the next one is later. What else ends while there is a tunnel changes nothing.
    pub(super) fn probe_failed(&mut self, now: Instant, failed: TransportKind, kind: FailureKind, entropy: u64) {
        if failed != TransportKind::Quic || self.live.is_none_or(|live| live.transport() != TransportKind::Tcp) {
            return;
        }
        let retry_after = match kind {
            FailureKind::Refused { retry_after } => silence(now, retry_after),
            FailureKind::Transport => None,
        };
        self.probing.failed();
        self.schedule_probe(now, retry_after, entropy);
    }

    /// If a probe is what the slot needs: its tunnel is on TCP and well, and QUIC may be used.
    fn schedule_probe(&mut self, now: Instant, earliest: Option<Instant>, entropy: u64) {
        let on_tcp = self.live.is_some_and(|live| live.transport() == TransportKind::Tcp && live.is_healthy());
        if on_tcp && self.allows(TransportKind::Quic) && self.lanes[TransportKind::Quic].is_idle() {
            let earliest = earliest.max(self.silent_until);
            self.probing.schedule(now, entropy, earliest, &self.settings);
        }
    }

    /// QUIC does not carry the tunnel any more, because of its path or not.
    fn quic_gone(&mut self, now: Instant, live: Live, by_path: bool) {
        if !by_path {
            return self.probing.count_health(now, &self.settings);
        }
        self.probing.quic_lost(live.suspect.unwrap_or(now), &self.settings);
        if !live.is_healthy() {
            self.quic_failed_at = Some(now);
        }
    }

    /// A tunnel that lived for a while makes up for the failures before it.
    fn note_settled(&mut self, now: Instant, live: Live) {
        if now.saturating_duration_since(live.since) >= self.settings.settled {
            self.backoff.reset();
        }
    }

    /// Gives up what is under way over any transport but this one.
    fn abandon_others(&mut self, kept: TransportKind) {
        for &transport in self.transports.iter().filter(|&&transport| transport != kept) {
            self.abandon(transport);
        }
    }

    fn abandon_all(&mut self) {
        for &transport in self.transports {
            self.abandon(transport);
        }
    }

    /// Brings the record up to date with what each transport is doing.
    pub(super) fn take_note(&mut self, now: Instant) {
        for &transport in self.transports {
            let doing = if self.live.is_some_and(|live| live.transport() == transport) {
                Some(PathState::Up)
            } else if !self.lanes[transport].is_idle() {
                Some(PathState::Trying)
            } else {
                let waits = transport == TransportKind::Quic && self.probing.at().is_some();
                waits.then_some(PathState::WaitingToProbe)
            };
            self.record.update(transport, doing, now);
        }
    }
}
