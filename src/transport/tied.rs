//! What becomes of an upload beside its stream: whether it needs a task, which ends with the interest in its answer.

use tokio::task::AbortHandle;

/// Whether anything is left of an upload that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// All of it is on its way, or nobody wants it any more.
    Done,
    /// The rest is for [`Upload::send`](crate::transport::Upload::send).
    Goes,
}

/// The task of an upload, aborted when nobody wants the answer any more.
#[derive(Debug, Default)]
pub(crate) struct TiedUpload(Option<AbortHandle>);

impl TiedUpload {
    pub(super) fn tie(&mut self, task: AbortHandle) {
        self.0 = Some(task);
    }

    /// The answer came whole: the upload may go on to its own end.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for TiedUpload {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
