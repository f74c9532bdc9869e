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

/// What an upload knows of the interest in its answer: see [`Answer::tie_upload`](crate::transport::Answer::tie_upload).
#[derive(Debug)]
pub struct Interest(oneshot::Receiver<()>);

/// Why an answer is no reason to go on any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nobody wants it.
    Unwanted,
    /// It came whole: whether the rest of the upload is wanted, only its own stream can tell now.
    Whole,
}

impl Interest {
    /// Resolves once nobody looks at the answer any more.
    pub(super) async fn ends(self) -> Answered {
        match self.0.await {
            Ok(()) => Answered::Unwanted,
            Err(_) => Answered::Whole,
        }
    }
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

    /// As [`TiedUpload::tell`], of one that waits for this.
    pub(super) fn interest(&mut self) -> Interest {
        let (tell, told) = oneshot::channel();
        self.tell(tell);
        Interest(told)
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
