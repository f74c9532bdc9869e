//! Datagrams that wait for their flow: bounded in number and bytes, for each flow and for the listener.
//!
//! Where a flow takes less than comes, the oldest are dropped: what is new is worth more to whoever uses datagrams, and a full
//! queue must not become a delay. spec: ST-73, TB-15

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::egress::lock;

/// Datagrams of one flow that wait.
const DATAGRAMS: usize = 128;
/// Bytes of one flow that wait: four of the longest datagrams.
const BYTES: usize = 256 * 1024;
/// Bytes of all flows of a listener that wait.
const BYTES_OF_LISTENER: usize = 16 * 1024 * 1024;

/// What waits for all flows of one listener, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// Where datagrams of one source go. Dropped, it is the end of what comes from there.
#[derive(Debug)]
pub(super) struct QueueSend(Arc<Shared>);

/// Where they come out.
#[derive(Debug)]
pub(super) struct QueueRecv(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// One of them has come.
    came: Notify,
    /// No other will come.
    gone: CancellationToken,
    all: Waiting,
}

#[derive(Debug, Default)]
struct Queue {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
}

/// A queue of one flow.
pub(super) fn queue(all: &Waiting) -> (QueueSend, QueueRecv) {
    let shared =
        Shared { queue: Mutex::default(), came: Notify::new(), gone: CancellationToken::new(), all: all.clone() };
    let shared = Arc::new(shared);
    (QueueSend(Arc::clone(&shared)), QueueRecv(shared))
}

impl QueueSend {
    /// Puts a datagram at the end. Says how many were dropped for want of room: the oldest, or, where others have what the
    /// listener has, this one.
    pub(super) fn offer(&self, datagram: Bytes) -> usize {
        let Shared { queue, came, all, .. } = &*self.0;
        let (mut queue, mut dropped) = (lock(queue), 0);
        while queue.datagrams.len() >= DATAGRAMS || queue.bytes + datagram.len() > BYTES {
            if queue.take(all).is_none() {
                break;
            }
            dropped += 1;
        }
        if all.0.load(Ordering::Relaxed) + datagram.len() > BYTES_OF_LISTENER {
            return dropped + 1;
        }
        all.0.fetch_add(datagram.len(), Ordering::Relaxed);
        queue.bytes += datagram.len();
        queue.datagrams.push_back(datagram);
        came.notify_one();
        dropped
    }
}

impl QueueRecv {
    /// The next one; `None` at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let Shared { queue, came, gone, all } = &*self.0;
        loop {
            // Looked at before the queue: what came before the end is taken.
            let is_over = gone.is_cancelled();
            if let Some(datagram) = lock(queue).take(all) {
                return Some(datagram);
            }
            if is_over {
                return None;
            }
            tokio::select! {
                () = came.notified() => {}
                () = gone.cancelled() => {}
            }
        }
    }

    /// Cancelled when nothing will be put into it any more, whatever is still in it.
    pub(super) fn gone(&self) -> CancellationToken {
        self.0.gone.clone()
    }
}

impl Queue {
    /// The oldest one.
    fn take(&mut self, all: &Waiting) -> Option<Bytes> {
        let datagram = self.datagrams.pop_front()?;
        self.bytes -= datagram.len();
        all.0.fetch_sub(datagram.len(), Ordering::Relaxed);
        Some(datagram)
    }
}

impl Drop for QueueSend {
    fn drop(&mut self) {
        self.0.gone.cancel();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let queue = self.queue.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        while queue.take(&self.all).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_there_is_no_room_the_oldest_are_dropped() {
        let all = Waiting::default();
        let (small, mut receiving) = queue(&all);
        let dropped: usize = (0..DATAGRAMS + 3).map(|number| small.offer(vec![number as u8; 10].into())).sum();
        assert_eq!(dropped, 3);
        assert_eq!(receiving.next().await.unwrap()[0], 3);
        let dropped: usize = (0..6).map(|_| small.offer(vec![0; 65_507].into())).sum();
        assert_eq!(dropped, DATAGRAMS - 1 + 2, "four of the longest are left");
        assert_eq!(all.0.load(Ordering::Relaxed), 4 * 65_507);
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_taken() {
        let (send, mut receiving) = queue(&Waiting::default());
        send.offer(Bytes::from_static(b"last"));
        drop(send);
        assert_eq!(receiving.next().await.as_deref(), Some(&b"last"[..]));
        assert_eq!(receiving.next().await, None);
    }

    #[test]
    fn all_flows_of_a_listener_have_room_for_so_many_bytes() {
        let all = Waiting::default();
        let flows: Vec<_> = (0..100).map(|_| queue(&all)).collect();
        let dropped: usize =
            flows.iter().map(|(send, _)| (0..4).map(|_| send.offer(vec![0; 65_507].into())).sum::<usize>()).sum();
        let waiting = all.0.load(Ordering::Relaxed);
        assert_eq!(waiting, (400 - dropped) * 65_507);
        assert!((BYTES_OF_LISTENER - 65_507..=BYTES_OF_LISTENER).contains(&waiting), "{waiting}");
        drop(flows);
        assert_eq!(all.0.load(Ordering::Relaxed), 0, "nothing waits where nobody is left");
    }
}
