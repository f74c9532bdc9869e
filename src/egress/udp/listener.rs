//! Reads the socket of a UDP listener, and hands each datagram to the flow of its source.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, sleep_until};

use super::carry::Carrier;
use super::queue::{Waiting, queue};
use super::shared::Shared;
use super::table::{Arrived, Entered, NoRoom, Table};
use super::{Current, is_passing};
use crate::egress::lock;
use crate::lifecycle::DrainWatch;
use crate::net::{AddressedUdp, Ends};
use crate::proxy::Recorder;
use crate::routing::Directory;
use crate::telemetry::{DatagramDrop, FlowLimit, FlowMetrics};
use crate::transport::Tunnel;

/// Datagrams that are read before something else gets its turn.
const AT_ONCE: usize = 64;
/// What came of reading.
enum Read {
    /// There is no more.
    All,
    /// There may be more.
    Some,
    /// The socket does not want to be read.
    Failed,
}

/// How long a socket that says an error it should not say is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound listener.
pub(super) struct Listener {
    shared: Arc<Shared>,
    waiting: Waiting,
}

impl Listener {
    pub(super) fn new(
        (socket, address): (Arc<AddressedUdp>, SocketAddr),
        current: Arc<Current>,
        directory: Arc<Directory<Tunnel>>,
        recorder: Recorder,
    ) -> Self {
        let table = Mutex::new(Table::new(current.in_force.load().terms.limits));
        let shared = Arc::new(Shared { socket, address, current, directory, recorder, table });
        Self { shared, waiting: Waiting::default() }
    }

    pub(super) fn current(&self) -> &Arc<Current> {
        &self.shared.current
    }

    pub(super) fn shared(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    /// Runs until a drain is announced and no flow is left, or another listener reads its socket.
    ///
    /// Cancel safety: dropping the future ends every flow.
    pub(super) async fn run(self, drain: &DrainWatch) {
        let (shared, mut flows) = (&*self.shared, JoinSet::new());
        let mut draining = false;
        while !(draining && lock(&shared.table).is_empty() && flows.is_empty()) {
            let deadline = lock(&shared.table).deadline();
            tokio::select! {
                biased;
                () = shared.current.succeeded.cancelled() => return,
                () = drain.announced(), if !draining => {
                    draining = true;
                    shared.change(draining);
                }
                () = shared.current.changed.notified() => shared.change(draining),
                () = until(deadline) => lock(&shared.table).expire(Instant::now()),
                _ = flows.join_next(), if !flows.is_empty() => {}
                ready = shared.socket.readable() => match ready.map(|()| self.read(&mut flows)) {
                    Ok(Read::All) => {}
                    // tokio does not count what is read here, and would have nothing else done as long as more comes.
                    Ok(Read::Some) => yield_now().await,
                    Ok(Read::Failed) | Err(_) => sleep(PAUSE).await,
                }
            }
        }
    }

    /// Reads what is there, up to [`AT_ONCE`].
    fn read(&self, flows: &mut JoinSet<()>) -> Read {
        let metrics = self.shared.recorder.flows();
        for _ in 0..AT_ONCE {
            match self.shared.socket.try_receive() {
                Ok((datagram, ends)) => self.take(datagram, ends, flows, metrics),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::All,
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a UDP listener cannot be read");
                    return Read::Failed;
                }
            }
        }
        Read::Some
    }

    fn take(&self, datagram: Bytes, ends: Ends, flows: &mut JoinSet<()>, metrics: &FlowMetrics) {
        let now = Instant::now();
        let mut table = lock(&self.shared.table);
        match table.arrived(ends, now) {
            Arrived::To(queue) => {
                for _ in 0..queue.offer(datagram) {
                    metrics.dropped(DatagramDrop::Queue);
                }
                return;
            }
            Arrived::Barred => return metrics.dropped(DatagramDrop::Barred),
            Arrived::Unknown => {}
        }
        let (send, recv) = queue(&self.waiting);
        send.offer(datagram);
        match table.enter(ends, now, |_| send) {
            Ok(Entered { key, gave_way }) => {
                if gave_way {
                    metrics.refused(FlowLimit::GaveWay);
                }
                flows.spawn(Carrier::new(Arc::clone(&self.shared), key).carry(recv));
            }
            Err(no_room) => {
                metrics.dropped(DatagramDrop::NoFlow);
                match no_room {
                    NoRoom::Prefix => metrics.refused(FlowLimit::Prefix),
                    NoRoom::Listener => metrics.refused(FlowLimit::Listener),
                    NoRoom::Closed => {}
                }
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
