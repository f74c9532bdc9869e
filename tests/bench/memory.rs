//! Resident memory of the processes, looked at ten times a second.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::usage::{self, Process};

const INTERVAL: Duration = Duration::from_millis(100);

/// Resident bytes of the responder and of the initiator.
pub(crate) type Resident = [u64; 2];

/// Looks until it is dropped.
pub(crate) struct Watch {
    processes: [Process; 2],
    peak: Arc<Mutex<Resident>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(processes: [Process; 2]) -> Self {
        let (stop, stopped) = mpsc::channel();
        let peak = Arc::new(Mutex::new(resident(&processes)));
        let thread = std::thread::spawn({
            let (processes, peak) = (processes.clone(), Arc::clone(&peak));
            move || {
                while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    raise(&mut peak.lock().unwrap(), resident(&processes));
                }
            }
        });
        Self { processes, peak, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn now(&self) -> Resident {
        resident(&self.processes)
    }

    /// The peak since this was last asked.
    pub(crate) fn peak(&self) -> Resident {
        let now = self.now();
        let mut peak = std::mem::replace(&mut *self.peak.lock().unwrap(), now);
        raise(&mut peak, now);
        peak
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn resident(processes: &[Process; 2]) -> Resident {
    processes.each_ref().map(|process| usage::resident(process.pid))
}

fn raise(peak: &mut Resident, seen: Resident) {
    for (peak, seen) in peak.iter_mut().zip(seen) {
        *peak = seen.max(*peak);
    }
}
