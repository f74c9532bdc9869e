//! Things that come out when their time has come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use tokio::sync::mpsc;

/// Hands over in the order of the times given, and among equals in the order of arrival.
pub(super) struct Sender<T>(mpsc::UnboundedSender<(Instant, T)>);

/// The other end, to be read by one task.
pub(super) struct Receiver<T> {
    incoming: mpsc::UnboundedReceiver<(Instant, T)>,
    waiting: BinaryHeap<Reverse<Entry<T>>>,
    count: u64,
}

struct Entry<T> {
    due: Instant,
    number: u64,
    item: T,
}

pub(super) fn line<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, incoming) = mpsc::unbounded_channel();
    (Sender(sender), Receiver { incoming, waiting: BinaryHeap::new(), count: 0 })
}

impl<T> Sender<T> {
    /// Nothing happens when the receiver is gone.
    pub(super) fn send(&self, due: Instant, item: T) {
        let _ = self.0.send((due, item));
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Receiver<T> {
    /// The next item that is due. `None` when the senders are gone and nothing waits. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<T> {
        loop {
            let due = self.waiting.peek().map(|Reverse(entry)| entry.due);
            tokio::select! {
                biased;
                incoming = self.incoming.recv() => match incoming {
                    Some((due, item)) => self.keep(due, item),
                    None if due.is_none() => return None,
                    None => {
                        sleep_until(due).await;
                        return self.waiting.pop().map(|Reverse(entry)| entry.item);
                    }
                },
                () = sleep_until(due), if due.is_some() => return self.waiting.pop().map(|Reverse(entry)| entry.item),
            }
        }
    }

    fn keep(&mut self, due: Instant, item: T) {
        self.waiting.push(Reverse(Entry { due, number: self.count, item }));
        self.count += 1;
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) if due > Instant::now() => tokio::time::sleep_until(due.into()).await,
        _ => {}
    }
}

impl<T> Entry<T> {
    fn key(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
