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
//!          all failed, or refused                   lost, no claim in the air
//!    ┌──────────────────────────────┐   ┌─────────────────────────────────────────────┐
//!    ▼        pause over            │   ▼           admitted           suspect         │
//! Waiting ───────────────────────▶ Seeking ──────────────────▶ Well ◀────────────▶ Suspect
//!    ▲                                                          │▲      alive         ││
//!    │            lost soon, refused, or the responder drains   ││  admitted: another ││
//!    └──────────────────────────────────────────────────────────┘└────────────────────┘│
//!    ▲                                                                                 │
//!    └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! * *Well* on TCP: QUIC is due, connecting, on trial, and then claims a place beside; at WELCOME TCP is drained.
//! * *Suspect*: a round beside the tunnel, or a pause after one. Another tunnel over the same transport claims a place beside,
//!   so that the suspect one goes on if it revives.
//! * Lost with a claim in the air: the slot is *Seeking*, and the answer to the claim decides.

mod attempts;
mod event;
mod probing;
mod round;
mod settings;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod tunnel;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::attempts::{Attempts, Lane};
use self::probing::Probing;
use self::state::{Order, Pause, Returning, State};
use self::status::Record;
use crate::lifecycle::Backoff;
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
    state: State,
    memory: Memory,
    attempts: u64,
    actions: VecDeque<Action>,
}

/// What outlasts a state.
#[derive(Debug)]
struct Memory {
    /// What carried the latest tunnel.
    latest: Option<TransportKind>,
    /// A refusal asked for silence until then.
    silent_until: Option<Instant>,
    quic_failed_at: Option<Instant>,
    backoff: Backoff,
    /// The responder drained, and will soon be there again.
    returning: Option<Returning>,
    probing: Probing,
    record: Record,
}

impl Auto {
    /// A slot without a tunnel, for what `choice` allows; the first actions are there at once.
    pub fn new(now: Instant, choice: &TransportChoice, settings: AutoSettings) -> Self {
        let memory = Memory {
            latest: None,
            silent_until: None,
            quic_failed_at: None,
            backoff: Backoff::new(settings.backoff),
            returning: None,
            probing: Probing::default(),
            record: Record::new(now),
        };
        let mut auto = Self {
            transports: choice.kinds(),
            state: State::Waiting(Pause { until: now, order: Some(Order::Race) }),
            memory,
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
        let pause = self.state.pause().map(|pause| pause.until);
        let starts = self.transports.iter().map(|&transport| self.start_at(transport));
        let claims = self.transports.iter().map(|&transport| self.claim_at(transport));
        starts.chain(claims).chain([pause, self.patience_ends_at()]).flatten().min()
    }

    /// Acts on what is due at `now`.
    pub fn timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// Takes an event. `entropy` is 64 fresh random bits, for backoff and the schedule of probes.
    pub fn handle(&mut self, now: Instant, event: Event, entropy: u64) {
        self.apply(now, event, entropy);
        self.advance(now);
    }

    /// Goes by another interval between probes from now on, which doubles as often as before at most. A probe that is due
    /// later than that is brought forward, though not before a responder wants to hear of the slot again. `entropy` as for
    /// [`Auto::handle`]. spec: TB-25
    pub fn probe_every(&mut self, now: Instant, interval: Duration, entropy: u64) {
        self.settings = self.settings.probing_every(interval);
        self.bring_probe_forward(now, entropy);
        self.advance(now);
    }

    /// The tunnel that requests should come through, if there is one.
    pub fn tunnel(&self) -> Option<Attempt> {
        self.state.tunnel().map(|tunnel| tunnel.attempt)
    }

    /// The same, and since when it is there.
    pub(super) fn tunnel_since(&self) -> Option<(Attempt, Instant)> {
        self.state.tunnel().map(|tunnel| (tunnel.attempt, tunnel.since))
    }

    /// Since when the tunnel owes a sign of life, if it does.
    pub(super) const fn suspect_since(&self) -> Option<Instant> {
        self.state.suspect_since()
    }

    /// What operators see.
    pub fn status(&self, now: Instant) -> PathStatus {
        let active = self.state.tunnel().map(|tunnel| tunnel.transport());
        let suspect = self.state.suspect_since().and(active);
        let report =
            |transport| self.memory.record.report(transport, suspect == Some(transport), self.probe_at(transport), now);
        PathStatus {
            active,
            switches: self.memory.record.switches,
            switch_reason: self.memory.record.switch_reason.clone(),
            paths: self.transports.iter().copied().map(report).collect(),
        }
    }

    /// What an event means in the state that the slot is in. What is about another attempt than one of that state's is
    /// late, and means nothing.
    fn apply(&mut self, now: Instant, event: Event, entropy: u64) {
        match (self.state, event) {
            (State::Well { tunnel, attempts }, Event::Suspect(attempt)) if tunnel.attempt == attempt => {
                self.suspect(now, tunnel, attempts);
            }
            (State::Suspect { tunnel, attempts, .. }, Event::Alive(attempt)) if tunnel.attempt == attempt => {
                self.alive(now, tunnel, attempts, entropy);
            }
            (State::Well { tunnel, .. } | State::Suspect { tunnel, .. }, Event::Draining(attempt, after))
                if tunnel.attempt == attempt =>
            {
                self.draining(now, tunnel, after, entropy);
            }
            (State::Well { tunnel, .. } | State::Suspect { tunnel, .. }, Event::Ended(attempt, failure))
                if tunnel.attempt == attempt =>
            {
                self.lost(now, tunnel, failure, entropy);
            }
            (_, Event::Ended(attempt, failure)) => self.ended(now, attempt, failure, entropy),
            (_, Event::Gone { attempt, agreed }) => self.gone(now, attempt, agreed),
            (_, Event::Connected(attempt)) => self.connected(now, attempt),
            (_, Event::Admitted(attempt)) => self.admitted(now, attempt, entropy),
            (_, Event::Suspect(_) | Event::Alive(_) | Event::Draining(..)) => {}
        }
    }

    /// Does everything that is due: begins a round, connects, claims, probes.
    fn advance(&mut self, now: Instant) {
        if let Some(Pause { until, order }) = self.state.pause()
            && until <= now
        {
            self.begin_round(now, order.unwrap_or_else(|| self.order(now)), None);
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
        self.take_note(now);
    }

    /// Whether the slot may use a transport.
    fn allows(&self, transport: TransportKind) -> bool {
        self.transports.contains(&transport)
    }

    /// When a transport is to be connected: in a round, or QUIC as a probe.
    fn start_at(&self, transport: TransportKind) -> Option<Instant> {
        self.state.attempts().start(transport).map(|at| self.allowed(at))
    }

    /// When a transport is probed: what is due beside a tunnel that is well is nothing else.
    fn probe_at(&self, transport: TransportKind) -> Option<Instant> {
        match self.state {
            State::Well { attempts, .. } => attempts.start(transport),
            State::Waiting(_) | State::Seeking { .. } | State::Suspect { .. } => None,
        }
    }

    /// `at`, or when the silence after a refusal is over.
    fn allowed(&self, at: Instant) -> Instant {
        self.memory.silent_until.map_or(at, |silent| silent.max(at))
    }

    /// When HELLO is to be sent on a connection that waits for it.
    fn claim_at(&self, transport: TransportKind) -> Option<Instant> {
        let Attempts::Unclaimed(lanes) = self.state.attempts() else { return None };
        let Lane::Connected { at, prompt, .. } = lanes[transport] else { return None };
        Some(match self.state {
            State::Waiting(_) | State::Seeking { .. } => at,
            State::Well { .. } => at + self.settings.trial,
            State::Suspect { .. } if prompt => at,
            State::Suspect { .. } => at + self.settings.revival,
        })
    }

    /// When a claim over QUIC has been in the air for so long that TCP is wanted for it.
    fn patience_ends_at(&self) -> Option<Instant> {
        let (Some(round), Attempts::Claimed { claim, other }) = (self.state.round(), self.state.attempts()) else {
            return None;
        };
        if claim.transport() != TransportKind::Quic {
            return None;
        }
        let ends = claim.since + self.settings.claim_patience;
        match other {
            Lane::Idle | Lane::Due(_) => {
                let may_help = self.allows(TransportKind::Tcp) && round.refusal.is_none();
                may_help.then(|| self.allowed(ends))
            }
            Lane::Connected { .. } => Some(ends),
            Lane::Connecting { .. } | Lane::Failed { .. } | Lane::Retrying(_) => None,
        }
    }

    /// Brings the record up to date with what each transport is doing.
    fn take_note(&mut self, now: Instant) {
        for &transport in self.transports {
            let doing = if self.state.tunnel().is_some_and(|tunnel| tunnel.transport() == transport) {
                Some(PathState::Up)
            } else if self.state.attempts().is_busy(transport) {
                Some(PathState::Trying)
            } else {
                self.probe_at(transport).map(|_| PathState::WaitingToProbe)
            };
            self.memory.record.update(transport, doing, now);
        }
    }
}

fn is_due(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}
