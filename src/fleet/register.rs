//! This responder's own place in the directory: its lease, its records, and the watch that feeds the view.
//!
//! Row 9. One task per responder does all of it. While etcd cannot be reached the view stays as it is, marked as stale, and
//! nothing else stops: no tunnel and no request waits for etcd. spec: FL-9 to FL-13, FL-20, FL-21

mod mine;
mod session;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::fleet::etcd::{EtcdError, EtcdSettings};
use crate::fleet::view::{Prefix, TunnelRecord, View};
use crate::id::{HostPort, ResponderId, TunnelId};
use crate::lifecycle::{Backoff, DrainWatch, LAST_WORDS, Schedule};
use crate::telemetry::{FleetMetrics, Limiter};
use mine::Mine;
use session::{Ended, Session};

/// The lease's time when nothing else is said. spec: FL-9
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);
/// Its share of the work when nothing else is said.
pub const DEFAULT_WEIGHT: u16 = 100;

/// When etcd is asked again after it could not be reached: soon, since nothing is lost by asking.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Lines a minute about one thing that is wrong with the directory.
const MAX_LINES: u32 = 10;

/// What a responder tells its siblings, and how it reaches etcd.
#[derive(Debug, Clone)]
pub struct FleetSettings {
    /// Where the keys of the fleet are. Read at the start only.
    pub prefix: Prefix,
    /// Its name. Read at the start only.
    pub id: ResponderId,
    /// How long its records outlive it, 3 s or more, in whole seconds.
    pub lease: Duration,
    /// Where siblings reach it.
    pub siblings: Vec<HostPort>,
    /// Where initiators reach it.
    pub initiators: Vec<HostPort>,
    /// Where it stands.
    pub region: Option<String>,
    /// Its share of the work.
    pub weight: u16,
    /// How etcd is reached.
    pub etcd: EtcdSettings,
}

/// The tunnels of the responder itself.
pub trait Tunnels: Send + Sync {
    /// Another number whenever a tunnel came, went or changed its proof. Asked often, so it should cost nothing.
    fn changes(&self) -> u64;
    /// Those that take requests.
    fn all(&self) -> Vec<(TunnelId, TunnelRecord)>;
    /// Another responder had the name first: this one must end. spec: FL-17
    fn overruled(&self, tunnel: TunnelId);
}

/// A responder's membership: to be run, and asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Member {
    view: Arc<View>,
    settings: Arc<watch::Sender<Arc<FleetSettings>>>,
    state: Arc<watch::Sender<MemberState>>,
}

/// How a membership stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberState {
    /// Its records are in the directory: everything that it had at one moment was written.
    pub is_written: bool,
    /// The directory has been read since the start, if only once.
    pub is_read: bool,
    /// The member of etcd that it speaks with.
    pub etcd: Option<String>,
    /// Why it does not speak with any, or why it writes nothing.
    pub trouble: Option<String>,
}

impl Member {
    /// A member that does nothing yet: [`Member::run`] does.
    pub fn new(settings: FleetSettings) -> Self {
        let view = Arc::new(View::new(settings.prefix.clone(), settings.id.clone()));
        let settings = Arc::new(watch::Sender::new(Arc::new(settings)));
        Self { view, settings, state: Arc::default() }
    }

    /// What it knows of the fleet.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The settings that hold.
    pub fn settings(&self) -> Arc<FleetSettings> {
        Arc::clone(&self.settings.borrow())
    }

    /// How it stands now.
    pub fn state(&self) -> MemberState {
        self.state.borrow().clone()
    }

    /// Tells of each change of how it stands.
    pub fn states(&self) -> watch::Receiver<MemberState> {
        self.state.subscribe()
    }

    /// Resolves once the directory has been read, however old that is by then. Until then no sibling is known. Cancel safe.
    /// spec: FL-26
    pub async fn has_read(&self) {
        // The sender lives in `self`, so it cannot be gone.
        let _ = self.states().wait_for(|state| state.is_read).await;
    }

    /// Goes by other settings from now on, those of prefix and name excepted. What is written stays.
    pub fn update(&self, settings: FleetSettings) {
        let before = self.settings();
        let (prefix, id) = (before.prefix.clone(), before.id.clone());
        self.settings.send_replace(Arc::new(FleetSettings { prefix, id, ..settings }));
    }

    /// Keeps the responder in the directory and the view current, until the responder has drained or is to `leave`: then its
    /// records are taken out. They stay until the lease ends if etcd cannot be reached, or if this future is dropped.
    pub async fn run(
        self,
        tunnels: Arc<dyn Tunnels>,
        metrics: FleetMetrics,
        drain: DrainWatch,
        leave: CancellationToken,
    ) {
        let mut keeper = Keeper {
            settings: self.settings.subscribe(),
            mine: Mine::new(self.settings()),
            member: self,
            tunnels,
            metrics,
            drain: drain.clone(),
            leave: leave.clone(),
            first: 0,
            notices: Notices::default(),
        };
        let given_up = given_up(Arc::clone(&keeper.tunnels), drain.clone(), leave);
        tokio::pin!(given_up);
        let schedule = Schedule::new(AGAIN.0, AGAIN.1).unwrap_or_default();
        let mut backoff = Backoff::new(schedule);
        loop {
            let began = Instant::now();
            let outcome = tokio::select! {
                outcome = keeper.session() => outcome,
                () = &mut given_up => return warn!("etcd does not answer: the records of this responder stay until its lease ends"),
            };
            match outcome {
                Ok(Ended::Left) => return info!("left the fleet"),
                Ok(Ended::OtherSettings) => continue,
                Err(error) => keeper.lost(&error),
            }
            if began.elapsed() > AGAIN.1 {
                backoff.reset();
            }
            let delay = backoff.next_delay(rand::random(), None);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = &mut given_up => return warn!("etcd is not reached: the records of this responder stay until its lease ends"),
            }
        }
    }
}

/// What the task has.
struct Keeper {
    member: Member,
    settings: watch::Receiver<Arc<FleetSettings>>,
    mine: Mine,
    tunnels: Arc<dyn Tunnels>,
    metrics: FleetMetrics,
    drain: DrainWatch,
    leave: CancellationToken,
    /// Which of the endpoints is tried first.
    first: usize,
    notices: Notices,
}

/// How often is said what whoever writes to the directory could cause again and again.
struct Notices {
    ignored: Limiter,
    overruled: Limiter,
}

impl Default for Notices {
    fn default() -> Self {
        let limiter = || Limiter::new(MAX_LINES, Duration::from_secs(60));
        Self { ignored: limiter(), overruled: limiter() }
    }
}

impl Keeper {
    async fn session(&mut self) -> Result<Ended, EtcdError> {
        let settings = Arc::clone(&self.settings.borrow_and_update());
        self.mine.settings(Arc::clone(&settings));
        Session::begin(self, &settings).await?.run().await
    }

    fn lost(&mut self, error: &EtcdError) {
        self.first = self.first.wrapping_add(1);
        self.metrics.lost();
        self.member.view.is_stale();
        let trouble = error.to_string();
        let is_new = self.member.state.borrow().trouble.as_ref() != Some(&trouble);
        let is_read = self.member.state.borrow().is_read;
        match (is_new, is_read) {
            (true, true) => warn!(%error, "etcd is lost: the last view of the fleet serves"),
            (true, false) => warn!(%error, "etcd is not reached since the start: no sibling is known yet"),
            (false, _) => {}
        }
        self.state(|state| (state.etcd, state.trouble) = (None, Some(trouble)));
    }

    fn state(&self, change: impl FnOnce(&mut MemberState)) {
        self.member.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    fn replaced(&self) {
        let trouble = "another responder has the same name in the fleet and started later; give each its own fleet.id";
        error!(id = %self.member.view.own(), "{trouble}");
        self.state(|state| (state.is_written, state.trouble) = (false, Some(trouble.to_owned())));
    }
}

/// Resolves when there was time enough to leave, or there is no time left: nobody waits for etcd.
async fn given_up(tunnels: Arc<dyn Tunnels>, drain: DrainWatch, leave: CancellationToken) {
    let done = async {
        tokio::select! {
            () = leave.cancelled() => return,
            () = drain.announced() => {}
        }
        while !tunnels.all().is_empty() {
            tokio::time::sleep(session::LOOK).await;
        }
    };
    tokio::select! {
        () = done => tokio::time::sleep(session::FAREWELL).await,
        () = async { drain.expired().await; tokio::time::sleep(LAST_WORDS / 2).await } => {}
    }
}

/// Milliseconds since 1970: the epoch of a start, unless its record has a higher one. spec: FL-10
pub(crate) fn now_epoch() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
