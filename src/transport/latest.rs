//! The latest of what was said, until somebody takes it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Holds one value; a later one takes its place.
#[derive(Debug)]
pub(super) struct Latest<T> {
    value: Mutex<Option<T>>,
    changed: Notify,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), changed: Notify::new() }
    }
}

impl<T> Latest<T> {
    pub(super) fn put(&self, value: T) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.changed.notify_one();
    }

    /// Waits for a value and takes it; for one taker. Cancel safe.
    pub(super) async fn take(&self) -> T {
        loop {
            let taken = self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
            match taken {
                Some(value) => return value,
                // One that is put between the look and this leaves a permit.
                None => self.changed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_is_taken_once() {
        let latest = Latest::default();
        latest.put(1);
        latest.put(2);
        assert_eq!(latest.take().await, 2);
        let (next, ()) = tokio::join!(latest.take(), async { latest.put(3) });
        assert_eq!(next, 3);
    }
}
