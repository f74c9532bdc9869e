//! What operators see of the choice: each transport's state, reason and share of time.

use std::time::{Duration, Instant};

use super::event::PerTransport;
use crate::transport::TransportKind;

/// What a transport is doing for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathState {
    /// It was never needed.
    #[default]
    Untried,
    /// It is being connected, on trial, or waits for WELCOME.
    Trying,
    /// It carries the tunnel.
    Up,
    /// It failed when last tried.
    Failed,
    /// The tunnel is on the other one; this one is tried again at a known time.
    WaitingToProbe,
    /// It worked when last used, and is not needed now.
    Standby,
}

impl PathState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Untried, Self::Trying, Self::Up, Self::Failed, Self::WaitingToProbe, Self::Standby];

    /// The word in `/tunnels` and in `adit status`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Trying => "trying",
            Self::Up => "up",
            Self::Failed => "failed",
            Self::WaitingToProbe => "waiting_to_probe",
            Self::Standby => "standby",
        }
    }
}

/// One transport of a slot.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PathReport {
    /// Which.
    pub transport: TransportKind,
    /// What it is doing.
    pub state: PathState,
    /// Whether it carries the tunnel and owes a sign of life.
    pub suspect: bool,
    /// Why it last failed or was left; none if it never was.
    pub reason: Option<String>,
    /// Seconds in this state.
    pub since_seconds: u64,
    /// Seconds for which it carried the tunnel so far.
    pub up_seconds: u64,
    /// Seconds until it is probed, while it waits for that.
    pub probe_in_seconds: Option<f64>,
}

/// How a slot's tunnel is carried, and why.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PathStatus {
    /// What carries the tunnel, while there is one.
    pub active: Option<TransportKind>,
    /// How often a tunnel was on another transport than the one before.
    pub switches: u64,
    /// Why the latest switch happened.
    pub switch_reason: Option<String>,
    /// The transports that may be used, the preferred first.
    pub paths: Vec<PathReport>,
}

/// What is remembered for [`PathStatus`].
#[derive(Debug)]
pub(super) struct Record {
    paths: PerTransport<Path>,
    pub(super) switches: u64,
    pub(super) switch_reason: Option<String>,
}

#[derive(Debug)]
struct Path {
    state: PathState,
    since: Instant,
    up: Duration,
    reason: Option<String>,
    /// How it went when it was last used.
    outcome: PathState,
}

impl Record {
    pub(super) fn new(now: Instant) -> Self {
        let untried = PathState::Untried;
        let path = || Path { state: untried, since: now, up: Duration::ZERO, reason: None, outcome: untried };
        Self { paths: PerTransport::new(path(), path()), switches: 0, switch_reason: None }
    }

    /// It failed, or was left, for this reason.
    pub(super) fn fail(&mut self, transport: TransportKind, reason: String) {
        self.paths[transport].reason = Some(reason);
        self.paths[transport].outcome = PathState::Failed;
    }

    pub(super) fn work(&mut self, transport: TransportKind) {
        self.paths[transport].outcome = PathState::Standby;
    }

    pub(super) fn reason(&self, transport: TransportKind) -> Option<&str> {
        self.paths[transport].reason.as_deref()
    }

    /// Takes note of what a transport is doing now; `None`: nothing, so its last outcome counts.
    pub(super) fn update(&mut self, transport: TransportKind, doing: Option<PathState>, now: Instant) {
        let path = &mut self.paths[transport];
        let state = doing.unwrap_or(path.outcome);
        if state != path.state {
            path.up = path.up_time(now);
            (path.state, path.since) = (state, now);
        }
    }

    pub(super) fn report(
        &self,
        transport: TransportKind,
        suspect: bool,
        probe: Option<Instant>,
        now: Instant,
    ) -> PathReport {
        let path = &self.paths[transport];
        PathReport {
            transport,
            state: path.state,
            suspect,
            reason: path.reason.clone(),
            since_seconds: now.saturating_duration_since(path.since).as_secs(),
            up_seconds: path.up_time(now).as_secs(),
            probe_in_seconds: probe.map(|at| at.saturating_duration_since(now).as_secs_f64()),
        }
    }
}

impl Path {
    fn up_time(&self, now: Instant) -> Duration {
        let current = (self.state == PathState::Up).then(|| now.saturating_duration_since(self.since));
        self.up + current.unwrap_or_default()
    }
}
