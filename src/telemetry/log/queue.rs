//! The bounded queue between whoever logs and standard error, and the writer at its other end.
//!
//! Whoever logs only copies a line into memory: a pipe that nobody reads, a full disk or a slow terminal stops the writer
//! and nobody else. What finds no room is dropped and counted, and the count is said as soon as there is room again.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The most bytes that wait; as many again may be on their way.
pub(super) const MAX_QUEUED_BYTES: usize = 1 << 20;
/// How long the writer gathers lines after it wrote some: a busy log costs some hundred writes a second at most.
const GATHER: Duration = Duration::from_millis(5);
/// How often the writer looks up while nothing comes in.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How long the writer waits for a descriptor that somebody made non-blocking.
const PAUSE: Duration = Duration::from_millis(10);
/// A buffer that grew beyond this is given back once it was written.
const KEPT_BYTES: usize = 64 << 10;

/// Lines that wait for the writer. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something for the writer: lines, or somebody who waits for the end of them.
    wake: Condvar,
    /// The writer wrote something.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The writer sleeps and wants to be told of the next line.
    idle: bool,
    /// The writer has lines in its hands.
    writing: bool,
    /// Somebody waits for everything to be written: gather nothing.
    flushing: usize,
    /// Lines dropped so far.
    dropped: u64,
}

impl Queue {
    /// Takes a line whole, or drops it. Never waits for the writer.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > MAX_QUEUED_BYTES {
            state.dropped += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        if std::mem::take(&mut state.idle) {
            self.shared.wake.notify_one();
        }
    }

    /// Lines that were dropped since the start, for want of room or because writing failed.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Waits until everything is written that was pushed before, at most this long. Whether it is.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        state.flushing += 1;
        self.shared.wake.notify_one();
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.flushing -= 1;
        !state.writing && state.waiting.is_empty()
    }

    /// Starts the thread that writes to `out` for as long as the process runs. It calls `tick` about once in [`TICK`], and
    /// after each write, with the number of lines dropped so far, unless what was written last failed: then a line about
    /// it would fail, too. What `tick` logs is written.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start<W, T>(&self, out: W, tick: T) -> io::Result<()>
    where
        W: Write + Send + 'static,
        T: FnMut(u64) + Send + 'static,
    {
        let queue = self.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || queue.write_for_ever(out, tick)).map(drop)
    }

    fn write_for_ever(&self, mut out: impl Write, mut tick: impl FnMut(u64)) {
        let (mut lines, mut failed) = (Vec::new(), 0);
        loop {
            self.take(&mut lines);
            if !lines.is_empty() {
                failed = write_lines(&mut out, &lines);
                lines.clear();
                lines.shrink_to(KEPT_BYTES);
                self.wrote(failed);
            }
            if failed == 0 {
                tick(self.dropped());
            }
        }
    }

    /// Waits for lines or for [`TICK`], and takes what there is.
    fn take(&self, lines: &mut Vec<u8>) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            state.idle = true;
            state = self.shared.wake.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
            state.idle = false;
        }
        std::mem::swap(&mut state.waiting, lines);
        state.writing = !lines.is_empty();
    }

    /// The writer is done with what it took; `failed` lines of it are lost.
    fn wrote(&self, failed: u64) {
        let mut state = self.lock();
        state.writing = false;
        state.dropped += failed;
        self.shared.written.notify_all();
        if state.flushing == 0 {
            drop(self.shared.wake.wait_timeout(state, GATHER));
        }
    }

    /// Bytes and numbers: a panic elsewhere cannot leave them half-changed in a way that matters.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes whole lines, and returns how many could not be written: a full disk, or nobody at the other end.
fn write_lines(out: &mut impl Write, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return count_lines(lines),
            Ok(written) => lines = &lines[written.min(lines.len())..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => return count_lines(lines),
        }
    }
    0
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// One line on its way into the queue, as `tracing_subscriber` asks for a writer.
#[derive(Debug)]
pub(super) struct Pen<'a>(pub(super) &'a Queue);

impl Write for Pen<'_> {
    /// The formatter hands each line over whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
