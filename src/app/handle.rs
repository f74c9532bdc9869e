//! What stays of an app while it runs, to change it: by settings that a program made, or by those of its source.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::admin::ReloadFault;
use crate::app::apply::{InForce, Plan};
use crate::app::error::AppError;
use crate::app::load::Loaded;
use crate::app::roles::{Built, Roles, Stage};
use crate::app::state::View;
use crate::app::watch::watch;
use crate::config::{Checked, Difference, Report, Source, restart};
use crate::telemetry::{Metrics, ReloadResult};

/// Why other settings are not in force; those before are, all of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// [`App::run`](super::App::run) has not been called.
    #[error("the app does not run yet")]
    NotRunning,
    /// What ends takes no other settings.
    #[error("the app drains, or has ended")]
    Over,
    /// No file could say this: every mistake, by the keys of the file.
    #[error(transparent)]
    Wrong(Report),
    /// These keys are read at the start only.
    #[error("{}", restart(.0))]
    Restart(Vec<&'static str>),
    /// Peers will not take these certificates, which are not those in force, or were taken under the former settings.
    #[error("{}", .0.join("\n"))]
    Certificates(Vec<String>),
    /// A file or an address cannot be used, or a role does not take what is wanted of it.
    #[error("{}{}", chain(.0), advice(.0))]
    Settings(#[from] AppError),
}

/// Why the settings of the source are not in force; those before are, all of them. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The app was given no [`Source`].
    #[error("there is no file to read again: the settings came from a program")]
    NoSource,
    /// What is wrong with the file.
    #[error(transparent)]
    File(Report),
    /// The file is right, and cannot be applied.
    #[error(transparent)]
    Apply(Arc<ApplyError>),
}

impl From<ApplyError> for ReloadError {
    fn from(error: ApplyError) -> Self {
        Self::Apply(Arc::new(error))
    }
}

/// The error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What else may be wrong with an address that is taken: everything new is bound before anything is let go.
fn advice(error: &dyn std::error::Error) -> &'static str {
    let causes = std::iter::successors(error.source(), |error| error.source());
    let is_taken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    if causes.filter_map(|error| error.downcast_ref()).any(is_taken) {
        "; if it is this process, free the address with one reload and take it with the next"
    } else {
        ""
    }
}

/// Changes an app while it runs. Cheap to clone; of no effect once the app is gone.
#[derive(Clone)]
pub struct Handle(Arc<Core>);

/// What an app and its handles share.
pub(super) struct Core {
    pub(super) metrics: Metrics,
    pub(super) stage: Stage,
    source: OnceLock<Source>,
    /// Whether the settings want the source to be watched.
    watched: watch::Sender<bool>,
    settings: ArcSwap<Checked>,
    /// How many times the source has begun to be read.
    begun: AtomicU64,
    turn: Mutex<Turn>,
}

/// What only one may change at a time.
#[derive(Default)]
struct Turn {
    phase: Phase,
    /// The number and the outcome of the last time that the source was read.
    last: Option<(u64, Result<Difference, ReloadError>)>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Built,
    Running(Box<InForce>),
    Over,
}

impl Core {
    pub(super) fn new(settings: Arc<Checked>, metrics: Metrics, stage: Stage) -> Self {
        let (source, begun, turn) = (OnceLock::new(), AtomicU64::new(0), Mutex::default());
        let watched = watch::Sender::new(false);
        Self { metrics, stage, source, watched, settings: ArcSwap::new(settings), begun, turn }
    }

    pub(super) fn read_from(&self, source: Source) {
        let _ = self.source.set(source);
    }

    /// Does as an operator asks through the admin listener.
    pub(super) fn take_orders(self: &Arc<Self>) {
        let core = Arc::downgrade(self);
        self.stage.state.reload_by(move || {
            let core = core.upgrade();
            Box::pin(async move { Ok(Handle(core.ok_or(ReloadFault::NotNow)?).reload().await?) })
        });
    }

    /// Reads the source again when it has changed, while the settings want that. What comes of it is in the log.
    pub(super) async fn watch(self: &Arc<Self>) {
        let Some(source) = self.source.get() else { return };
        let handle = Handle(Arc::clone(self));
        let reload = || async {
            let _ = handle.reload().await;
        };
        watch(source.clone(), self.watched.subscribe(), reload).await;
    }

    /// The settings that are in force.
    pub(super) fn settings(&self) -> Arc<Checked> {
        self.settings.load_full()
    }

    /// Begins everything that was built.
    pub(super) async fn begin(&self, loaded: Loaded, built: Built) {
        let mut turn = self.turn.lock().await;
        let roles = self.stage.begin(built);
        self.show(&loaded, &roles);
        self.metrics.reloaded(None);
        turn.phase = Phase::Running(Box::new(InForce { loaded, roles }));
    }

    /// From now on nothing is applied. The caller has said that the app drains, so that nobody is waited for.
    pub(super) async fn end(&self) -> Roles {
        let mut turn = self.turn.lock().await;
        match std::mem::replace(&mut turn.phase, Phase::Over) {
            Phase::Running(in_force) => in_force.roles,
            Phase::Built | Phase::Over => Roles::default(),
        }
    }

    /// Shows what is in force.
    fn show(&self, loaded: &Loaded, roles: &Roles) {
        self.settings.store(Arc::clone(&loaded.checked));
        self.watched.send_replace(loaded.checked.reload.watch);
        self.stage.state.show(View {
            directory: roles.directory(),
            gone: roles.responder.as_ref().map(|responder| responder.gone.clone()).unwrap_or_default(),
            fleet: roles.fleet.as_ref().map(|belonging| belonging.member.clone()),
            certificates: loaded.certificates.clone(),
            names: loaded.checked.metrics.names,
            board: roles.board(),
            services: roles.services(),
            config: serde_json::to_value(&*loaded.checked).unwrap_or_default(),
        });
    }

    /// Applies settings in a turn of their own. Cancel safe: either all of it is done or nothing.
    async fn put(&self, turn: &mut Turn, new: Checked) -> Result<Difference, ApplyError> {
        let in_force = match &turn.phase {
            Phase::Running(in_force) => in_force,
            Phase::Built => return Err(ApplyError::NotRunning),
            Phase::Over => return Err(ApplyError::Over),
        };
        let keys = in_force.loaded.checked.needs_restart(&new);
        if !keys.is_empty() {
            return Err(ApplyError::Restart(keys));
        }
        let draining = self.stage.state.draining();
        let prepared = draining.run_until_cancelled(self.prepare(in_force, new)).await;
        let Some((difference, plan)) = prepared.ok_or(ApplyError::Over)?? else { return Ok(Difference::default()) };
        let Phase::Running(before) = std::mem::replace(&mut turn.phase, Phase::Over) else {
            return Err(ApplyError::Over);
        };
        let (former, said) = (before.loaded.certificates.clone(), before.loaded.checked.warnings());
        let now = before.commit(plan, &self.stage);
        now.loaded.warn(Some(&said));
        now.loaded.certificates.replace(&former, &self.metrics);
        self.show(&now.loaded, &now.roles);
        turn.phase = Phase::Running(Box::new(now));
        Ok(difference)
    }

    /// `None`: nothing differs.
    async fn prepare(&self, in_force: &InForce, new: Checked) -> Result<Option<(Difference, Plan)>, ApplyError> {
        let read = tokio::task::spawn_blocking(move || Loaded::read(new));
        // A panic there is reported by the runtime, which may also be about to end.
        let Ok(loaded) = read.await else { return Err(ApplyError::Over) };
        let loaded = loaded?.sharing(&in_force.loaded);
        let problems = loaded.certificates.problems_beside(&in_force.loaded.certificates);
        if !problems.is_empty() {
            return Err(ApplyError::Certificates(problems));
        }
        let difference = in_force.loaded.difference(&loaded);
        if difference.is_empty() {
            return Ok(None);
        }
        let plan = in_force.prepare(loaded, &difference, &self.metrics).await?;
        Ok(Some((difference, plan)))
    }

    async fn reload(&self, turn: &mut Turn) -> Result<Difference, ReloadError> {
        let source = self.source.get().cloned().ok_or(ReloadError::NoSource)?;
        let read = tokio::task::spawn_blocking(move || source.load());
        let read = self.stage.state.draining().run_until_cancelled(read).await;
        let Some(Ok(checked)) = read else { return Err(ApplyError::Over.into()) };
        Ok(self.put(turn, checked.map_err(ReloadError::File)?).await?)
    }

    /// Says and counts what came of it.
    fn note<E: std::fmt::Display>(&self, outcome: &Result<Difference, E>) {
        let result = match outcome {
            Ok(difference) if difference.is_empty() => {
                info!("the settings are what they were");
                ReloadResult::Unchanged
            }
            Ok(difference) => {
                let changes = difference.to_string().replace('\n', "; ");
                info!(changes, "other settings are in force");
                ReloadResult::Applied
            }
            Err(error) => {
                let error = error.to_string().replace('\n', "; ");
                warn!(error, "the settings stay as they are: nothing has changed");
                ReloadResult::Failed
            }
        };
        self.metrics.reloaded(Some(result));
    }
}

/// What an operator is told who asked for a reload.
impl From<ReloadError> for ReloadFault {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::NoSource => Self::NoSource,
            ReloadError::Apply(error) if matches!(*error, ApplyError::NotRunning | ApplyError::Over) => Self::NotNow,
            error => Self::Refused(error.to_string()),
        }
    }
}

impl Handle {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self(Arc::clone(core))
    }

    /// The settings that are in force.
    pub fn settings(&self) -> Arc<Checked> {
        self.0.settings()
    }

    /// Puts other settings in force, whatever they come from, and returns what has changed. Everything that can fail is done
    /// first: files are loaded, certificates compared with their keys, addresses bound. Then all of it is put in force at
    /// once. Only what changed is touched:
    ///
    /// * a file with another content counts as a change, and is said, too;
    /// * listeners that are gone take nobody any more and finish what they carry, within `drain_timeout`; so do the tunnels
    ///   of a role or a destination that is gone;
    /// * everything else is as the roles say: [`responder::Handle`](crate::responder::Handle),
    ///   [`egress::Handle`](crate::egress::Handle), [`initiator::Handle`](crate::initiator::Handle). An initiator that
    ///   claims to be another node is another one.
    ///
    /// Whoever applies waits for those who began before.
    ///
    /// # Errors
    /// [`ApplyError`]: nothing has changed.
    ///
    /// # Cancel safety
    /// Cancel safe: either everything has changed or nothing.
    pub async fn apply(&self, new: Checked) -> Result<Difference, ApplyError> {
        let mut turn = self.0.turn.lock().await;
        let outcome = match new.verify() {
            Ok(()) => self.0.put(&mut turn, new).await,
            Err(report) => Err(ApplyError::Wrong(report)),
        };
        self.0.note(&outcome);
        outcome
    }

    /// Reads the source of the app again and applies what it says, as [`Handle::apply`] does. Who asks for it while it is
    /// done is answered by the next time, which begins after he asked; all who wait then share that one.
    ///
    /// # Errors
    /// [`ReloadError`]: nothing has changed.
    ///
    /// # Cancel safety
    /// Cancel safe: either everything has changed or nothing.
    pub async fn reload(&self) -> Result<Difference, ReloadError> {
        let asked = self.0.begun.load(Ordering::SeqCst);
        let mut turn = self.0.turn.lock().await;
        if let Some((number, outcome)) = &turn.last
            && *number > asked
        {
            return outcome.clone();
        }
        let number = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = self.0.reload(&mut turn).await;
        self.0.note(&outcome);
        turn.last = Some((number, outcome.clone()));
        outcome
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
