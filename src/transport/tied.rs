//! An upload that ends with the interest in its answer.

use tokio::task::AbortHandle;

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
