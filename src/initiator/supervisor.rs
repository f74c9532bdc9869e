//! One slot: does what [`Auto`] says (connect, claim, give up, drain), and tells it what became of that.
//!
//! The rules (which transport, when again) are the machine's; here are its clock, its sockets and its log lines. Each
//! attempt is a task of its own that reports to one inbox.

mod attempt;
mod credential;
mod drained;
mod ending;
mod renewal;
mod report;
mod retire;
mod seen;
mod slot;
mod told;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use self::attempt::{Candidate, Happened, Opened, Report, Stage, Way};
use self::drained::Drained;
use self::report::Cause;
pub(super) use self::slot::{Outdated, Shared, Slot, Until};
use crate::id::Place;
use crate::initiator::auto::{Action, Attempt, Auto, AutoSettings, ClaimPlace, Event};
use crate::initiator::snapshot::{Prepared, Snapshot, Standing};
use crate::initiator::spread::Why;
use crate::initiator::status::Change;
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::handshake::{Hello, PeerLimits};
use crate::protocol::health::Health;
use crate::registry::Handle;
use crate::transport::{Accept, CloseReason, DialError};

/// The highest and lowest protocol version this build speaks. spec: HS-4
const VERSIONS: (u32, u32) = (1, 1);
/// How many reports of one slot may wait.
const INBOX: usize = 8;
/// When a tunnel whose driver had no ear is told again what is exported.
const ANNOUNCE_AGAIN: Duration = Duration::from_millis(250);
/// For how long the round trip of the tunnel before is what to expect of a dial.
const RTT_HOLDS: Duration = Duration::from_secs(10);

/// Keeps one slot filled until it is stopped, then drains its tunnel.
pub(super) async fn keep<A: Accept>(shared: Shared<A>, slot: Slot, until: Until) {
    Supervisor::new(shared, slot).run(until).await;
}

struct Supervisor<A> {
    shared: Shared<A>,
    slot: Arc<Slot>,
    /// The terms by which it decides.
    snapshot: Arc<Snapshot<A>>,
    /// Its destination under these.
    prepared: Arc<Prepared>,
    changes: watch::Receiver<u64>,
    /// Which services are down.
    health: watch::Receiver<Arc<Health>>,
    /// When a tunnel is to be told once more what is exported, or what is down.
    announce_at: Option<Instant>,
    /// When to look again whether a tunnel has been shown what it should be.
    renew_at: Option<Instant>,
    /// What the slot goes by, as far as its tunnel has followed.
    standing: Standing,
    /// Its responder is not trusted any more.
    distrusted: bool,
    auto: Arc<Mutex<Auto>>,
    /// What the machine knows of, by its names.
    candidates: HashMap<Attempt, Candidate>,
    /// Tunnels that their responder drains, and in which it may still open streams. spec: CT-35
    drained: Vec<Drained>,
    /// When one of them is left whose responder is not trusted any more.
    leave_at: Option<Instant>,
    /// Rises with every claim, whatever number that is for. spec: HS-14
    generation: u64,
    /// Which of the slot's numbers the latest tunnel has.
    number: u32,
    /// The round trip of the latest tunnel, and when that was in doubt, drained or lost.
    rtt: Option<(Duration, Instant)>,
    /// Why there is no tunnel.
    cause: Cause,
    /// The same for whoever decides where the slot goes, and since when there is none.
    down: (Instant, Why),
    reports: mpsc::Sender<Report>,
    inbox: mpsc::Receiver<Report>,
}

impl<A: Accept> Supervisor<A> {
    fn new(shared: Shared<A>, slot: Slot) -> Self {
        let changes = shared.state.changes();
        let snapshot = shared.state.current();
        let settings = AutoSettings::default().probing_every(snapshot.terms.probe_interval);
        let auto = Arc::new(Mutex::new(Auto::new(Instant::now(), slot.transport(), settings)));
        shared.board.add(
            slot.number,
            Arc::clone(slot.destination()),
            slot.address,
            slot.transport().kinds()[0],
            Arc::clone(&auto),
        );
        let (reports, inbox) = mpsc::channel(INBOX);
        Self {
            shared,
            health: snapshot.terms.health.watch(),
            snapshot,
            prepared: Arc::clone(&slot.prepared),
            changes,
            announce_at: None,
            renew_at: None,
            standing: slot.prepared.standing,
            distrusted: false,
            auto,
            candidates: HashMap::new(),
            drained: Vec::new(),
            leave_at: None,
            generation: 0,
            number: slot.number,
            rtt: None,
            slot: Arc::new(slot),
            cause: Cause::default(),
            down: (Instant::now(), Why::Dialled),
            reports,
            inbox,
        }
    }

    async fn run(mut self, until: Until) {
        let first = self.decide(|_, _| {});
        self.perform(first);
        loop {
            let deadline = self.auto().deadline();
            let woken = tokio::select! {
                () = until.stop.cancelled() => return self.stop(until, false).await,
                _ = self.changes.changed() => Woken::Changed,
                _ = self.health.changed() => Woken::Changed,
                Some(report) = self.inbox.recv() => Woken::Report(report),
                () = due(self.announce_at) => Woken::Changed,
                () = due(self.renew_at) => Woken::Changed,
                () = due(self.leave_at) => Woken::Changed,
                () = due(deadline) => Woken::Due,
            };
            // What comes to pass under the former terms must not count under the present ones.
            if !self.follow() {
                return self.retire(woken, until).await;
            }
            match woken {
                Woken::Changed => {}
                Woken::Report(report) => self.hear(report),
                Woken::Due => {
                    let actions = self.decide(Auto::timeout);
                    self.perform(actions);
                }
            }
            self.show();
            // What has come up, or was answered, may have to be shown something.
            if !self.renew() {
                return self.retire(Woken::Changed, until).await;
            }
        }
    }

    /// Goes by the terms that hold now. Returns whether this slot can: they want what it dials, and its tunnel follows.
    fn follow(&mut self) -> bool {
        let former = self.snapshot.terms.probe_interval;
        self.refresh();
        let Some(prepared) = self.snapshot.keeps(&self.slot.prepared.key, self.slot.prepared.since) else {
            return false;
        };
        self.prepared = Arc::clone(prepared);
        let interval = self.snapshot.terms.probe_interval;
        if interval != former {
            let actions = self.decide(|auto, now| auto.probe_every(now, interval, rand::random()));
            self.perform(actions);
        }
        self.renew()
    }

    /// Takes note of the terms that hold now, and of what they export.
    fn refresh(&mut self) {
        let former = std::mem::replace(&mut self.snapshot, self.shared.state.current());
        if !former.terms.health.is(&self.snapshot.terms.health) {
            self.health = self.snapshot.terms.health.watch();
        }
        self.announce();
    }

    /// Tells the responder what is exported, what of that is down, and what is taken, where it was told otherwise.
    fn announce(&mut self) {
        self.announce_at = None;
        self.announce_services();
        self.announce_health();
        self.announce_limits();
    }

    /// spec: CT-31
    fn announce_limits(&mut self) {
        let limits = self.snapshot.terms.tunnel.limits;
        for candidate in told(&mut self.candidates, &mut self.drained) {
            let Stage::Up(tunnel) = &candidate.stage else { continue };
            if candidate.limits != PeerLimits::from(limits) {
                tunnel.limit(limits);
                candidate.limits = limits.into();
            }
        }
    }

    /// Of what changes often the latest is told. spec: CT-60
    fn announce_health(&mut self) {
        let (health, now) = (Arc::clone(&self.health.borrow_and_update()), Instant::now());
        for candidate in told(&mut self.candidates, &mut self.drained) {
            let (Stage::Up(tunnel), Some(due)) = (&candidate.stage, candidate.health.due(&health, now)) else {
                continue;
            };
            let later = if due > now {
                due
            } else if tunnel.tell_health(Health::clone(&health)) {
                candidate.health.note(&health, now);
                continue;
            } else {
                now + ANNOUNCE_AGAIN
            };
            self.announce_at = Some(self.announce_at.map_or(later, |at| at.min(later)));
        }
    }

    fn announce_services(&mut self) {
        let services = &self.snapshot.terms.services;
        for candidate in told(&mut self.candidates, &mut self.drained) {
            let Stage::Up(tunnel) = &candidate.stage else { continue };
            if candidate.services == *services {
                continue;
            }
            if tunnel.announce(services.clone()) {
                candidate.services.clone_from(services);
            } else {
                self.announce_at = Some(Instant::now() + ANNOUNCE_AGAIN);
            }
        }
    }

    fn auto(&self) -> MutexGuard<'_, Auto> {
        self.auto.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the machine decide. What it says must be performed before it is asked anything else.
    fn decide(&self, ask: impl FnOnce(&mut Auto, Instant)) -> Vec<Action> {
        let mut auto = self.auto();
        ask(&mut auto, Instant::now());
        std::iter::from_fn(|| auto.poll()).collect()
    }

    fn tell(&self, event: Event) -> Vec<Action> {
        self.decide(|auto, now| auto.handle(now, event, rand::random()))
    }

    fn hear(&mut self, Report { attempt, happened }: Report) {
        if let Happened::Gone { agreed } = happened {
            self.forget_gone();
            let actions = self.tell(Event::Gone { attempt, agreed });
            return self.perform(actions);
        }
        if let Happened::Roster(roster) = happened {
            return self.learn(attempt, roster);
        }
        let Some(candidate) = self.candidates.get_mut(&attempt) else {
            // Word of one that was given up.
            return happened.too_late();
        };
        match happened {
            Happened::Connected => {
                candidate.stage = Stage::Waiting;
                let actions = self.tell(Event::Connected(attempt));
                self.perform(actions);
            }
            Happened::Opened(opened) => self.opened(attempt, *opened),
            Happened::Failed(error) => self.failed(attempt, &error),
            Happened::Reauthed(reauthed) => self.reauthed(attempt, reauthed),
            Happened::Suspect => {
                self.note_rtt(attempt);
                let actions = self.tell(Event::Suspect(attempt));
                self.perform(actions);
            }
            Happened::Alive => {
                let actions = self.tell(Event::Alive(attempt));
                self.perform(actions);
            }
            Happened::Draining(after) => self.draining(attempt, after),
            Happened::Closed(reason) => self.lost(attempt, &reason),
            Happened::Roster(_) | Happened::Gone { .. } => {}
        }
    }

    /// What the next dial may expect of the path.
    fn note_rtt(&mut self, attempt: Attempt) {
        if let Some(Stage::Up(tunnel)) = self.candidates.get(&attempt).map(|candidate| &candidate.stage) {
            self.rtt = Some((Handle::rtt(tunnel), Instant::now()));
        }
    }

    fn opened(&mut self, attempt: Attempt, opened: Opened) {
        let Opened { tunnel, responder, observed, roster, schemes } = opened;
        report::up(&self.slot, &tunnel, &responder, observed.as_deref());
        if let Some(candidate) = self.candidates.get_mut(&attempt) {
            if let Stage::Claiming { number } = candidate.stage {
                self.number = number;
            }
            candidate.stage = Stage::Up(tunnel.clone());
            candidate.credential.schemes = schemes;
        }
        let actions = self.tell(Event::Admitted(attempt));
        self.perform(actions);
        self.announce();
        self.shared.board.apply(self.slot.number, Change::Connected { tunnel, responder });
        if roster.is_some() {
            self.learn(attempt, roster);
        }
        self.slot.take_over();
    }

    /// An attempt did not become a tunnel.
    fn failed(&mut self, attempt: Attempt, error: &DialError) {
        self.candidates.remove(&attempt);
        self.slot.failed.notify_one();
        match error {
            DialError::Refused(refusal) => {
                self.shared.metrics.refused(refusal.code);
                if matches!(refusal.code, RefusalCode::Quota | RefusalCode::Conflict) {
                    // Two of them at once may be what the responder does not want.
                    self.slot.take_over();
                }
            }
            other => self.shared.metrics.handshake_failed(report::failure_label(other)),
        }
        let beside = self.auto().tunnel().is_some();
        let actions = self.tell(Event::Ended(attempt, report::dial_failure(error)));
        report::failed(&self.slot, attempt, error, wait(&actions), beside);
        if !beside {
            self.cause.note(Cause::of_dial(error));
        }
        self.perform(actions);
    }

    /// A tunnel ended that nobody here wanted to end.
    fn lost(&mut self, attempt: Attempt, reason: &CloseReason) {
        self.note_rtt(attempt);
        self.candidates.remove(&attempt);
        self.slot.failed.notify_one();
        let claiming = self.candidates.values().any(|other| matches!(other.stage, Stage::Claiming { .. }));
        let actions = self.tell(Event::Ended(attempt, report::close_failure(reason)));
        if claiming && reason.code == CloseCode::Superseded {
            report::superseded_by_own(&self.slot);
        } else {
            report::lost(&self.slot, attempt, reason, wait(&actions));
        }
        self.cause = Cause::of_close(reason);
        self.down = (Instant::now(), Why::Dialled);
        self.shared.board.apply(self.slot.number, Change::Lost { reason: self.cause.reason.clone() });
        self.perform(actions);
    }

    /// The responder wants its tunnel replaced; what runs there goes on beside the replacement. spec: CT-26
    fn draining(&mut self, attempt: Attempt, after: Duration) {
        self.note_rtt(attempt);
        self.drained_by_peer(attempt);
        let actions = self.tell(Event::Draining(attempt, after));
        report::draining(&self.slot, wait(&actions).unwrap_or(after));
        self.cause = Cause::of_drain();
        self.down = (Instant::now(), Why::Drained);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect(attempt) => self.connect(attempt),
                Action::Abandon(attempt) => {
                    if let Some(candidate) = self.candidates.remove(&attempt) {
                        candidate.abandon();
                    }
                }
                Action::Claim(attempt, place) => self.claim(attempt, place),
                Action::Drain(attempt) => {
                    if let Some(Stage::Up(tunnel)) = self.candidates.remove(&attempt).map(|candidate| candidate.stage) {
                        tunnel.retire(self.snapshot.terms.tunnel.drain_timeout);
                    }
                }
                Action::Wait { until } => self.wait(until),
                Action::Switched { from, to, reason } => {
                    self.shared.board.switched(from, to);
                    report::switched(&self.slot, from, to, &reason);
                }
            }
        }
    }

    fn connect(&mut self, attempt: Attempt) {
        let over = attempt.transport();
        if self.auto().tunnel().is_none() {
            self.shared.board.apply(self.slot.number, Change::Connecting { over });
        }
        let rtt = self.rtt.filter(|(_, at)| at.elapsed() < RTT_HOLDS).map(|(rtt, _)| rtt);
        let way = Way { slot: &self.slot, prepared: &self.prepared, over, rtt };
        let limits = self.snapshot.terms.tunnel.limits.into();
        let candidate = Candidate::connect(&self.shared, &way, limits, attempt, self.reports.clone());
        self.candidates.insert(attempt, candidate);
    }

    fn claim(&mut self, attempt: Attempt, place: ClaimPlace) {
        let number = match place {
            ClaimPlace::Supersede => self.number,
            ClaimPlace::Beside => self.other_number(),
        };
        let Some(limits) = self.candidates.get(&attempt).map(|candidate| candidate.limits) else { return };
        let hello = self.hello(number, limits);
        if let Some(candidate) = self.candidates.get_mut(&attempt) {
            candidate.claim(hello, number);
        }
    }

    /// The number that the latest tunnel does not have.
    fn other_number(&self) -> u32 {
        let (first, count) = (self.slot.number, Slot::numbers(self.slot.transport()));
        first + (self.number - first + 1) % count
    }

    /// `limits` are those of the connection that it goes over.
    fn hello(&mut self, number: u32, limits: PeerLimits) -> Hello {
        let generation = self.generation;
        self.generation += 1;
        let (terms, fixed) = (&self.snapshot.terms, &self.shared.state.fixed);
        let (claim, instance) = (fixed.claim.clone(), fixed.instance);
        Hello {
            versions: VERSIONS,
            place: Place { claim, instance, slot: number, generation },
            token: terms.token.clone(),
            services: terms.services.clone(),
            limits,
            build: concat!("adit/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    fn wait(&mut self, until: Instant) {
        if self.auto().tunnel().is_some() {
            return;
        }
        self.cause.shown = true;
        if self.down.1 == Why::Dialled {
            self.down.1 = Why::Failed;
        }
        let Cause { permanent, reason, advice, .. } = self.cause.clone();
        self.shared.board.apply(self.slot.number, Change::Waiting { permanent, reason, advice, until });
    }
}

/// Those that may be told something: a tunnel that its responder drains still serves.
fn told<'a>(
    candidates: &'a mut HashMap<Attempt, Candidate>,
    drained: &'a mut [Drained],
) -> impl Iterator<Item = &'a mut Candidate> {
    candidates.values_mut().chain(drained.iter_mut().map(Drained::candidate))
}

/// Why a slot looks up.
enum Woken {
    Changed,
    Report(Report),
    Due,
}

async fn due(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// How long nothing is tried, if that was decided.
fn wait(actions: &[Action]) -> Option<Duration> {
    let until = actions.iter().find_map(|action| match action {
        Action::Wait { until } => Some(*until),
        _ => None,
    });
    until.map(|until| until.saturating_duration_since(Instant::now()))
}
