//! Each part of the benchmark has a thread and a current-thread runtime of its own.

use std::sync::mpsc;

use tokio::runtime::Builder;

/// Runs `body` on a new thread until the process ends, and returns what it sends once it has started.
pub(crate) fn on_own_thread<T, F>(name: &str, body: F) -> T
where
    T: Send + 'static,
    F: AsyncFnOnce(mpsc::Sender<T>) + Send + 'static,
{
    let (sender, started) = mpsc::channel();
    let run = move || block_on(body(sender));
    std::thread::Builder::new().name(name.to_owned()).spawn(run).unwrap();
    started.recv().unwrap()
}

/// Runs `work` on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
