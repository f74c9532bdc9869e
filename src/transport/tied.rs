//! What becomes of an upload beside its stream: whether it needs a task, which ends with the interest in its answer.

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// Whether anything is left of an upload that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// All of it is on its way, or nobody wants it any more.
    Done,
    /// The rest is for [`Upload::send`](crate::transport::Upload::send).
    Goes,
}

/// The task of an upload, which ends when nobody wants the answer any more.
#[derive(Debug, Default)]
pub(crate) struct TiedUpload(Option<Tie>);

#[derive(Debug)]
enum Tie {
    /// It is aborted at once.
    Abort(AbortHandle),
    /// It is told, and ends by itself.
    Tell(oneshot::Sender<()>),
}

impl TiedUpload {
    pub(super) fn tie(&mut self, task: AbortHandle) {
        self.0 = Some(Tie::Abort(task));
    }

    /// As [`TiedUpload::tie`], of a task that has to be told.
    pub(super) fn tell(&mut self, task: oneshot::Sender<()>) {
        self.0 = Some(Tie::Tell(task));
    }

    /// The answer came whole: the upload may go on to its own end.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for TiedUpload {
    fn drop(&mut self) {
        match self.0.take() {
            Some(Tie::Abort(task)) => task.abort(),
            // One that is over needs no telling.
            Some(Tie::Tell(task)) => drop(task.send(())),
            None => {}
        }
    }
}
