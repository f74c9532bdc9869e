//! A number of places that may become another one while some are taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many places, by the settings of one time; those before and after share what is taken.
#[derive(Debug)]
pub(super) struct Bound {
    room: Arc<Room>,
    most: usize,
    /// Rises with each change of the settings.
    since: u64,
}

/// One place, until this is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Room>);

#[derive(Debug)]
struct Room {
    free: Semaphore,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    most: usize,
    since: u64,
    /// How many that are taken, or were given to who waits, are to go when they are given back: there are fewer now.
    surplus: usize,
}

impl Bound {
    pub(super) fn new(most: u32) -> Self {
        let most = most as usize;
        let size = Mutex::new(Size { most, since: 0, surplus: 0 });
        Self { room: Arc::new(Room { free: Semaphore::new(most), size }), most, since: 0 }
    }

    /// The same places in another number, once one of them is asked for here. From then on the number before is none to those
    /// that still go by it.
    pub(super) fn renewed(&self, most: u32) -> Self {
        Self { room: Arc::clone(&self.room), most: most as usize, since: self.since + 1 }
    }

    /// A place that is free, and that nobody waits for.
    pub(super) fn try_take(&self) -> Option<Seat> {
        self.settle();
        self.room.free.try_acquire().ok().map(|permit| self.seat(permit))
    }

    /// A place, in turn; never `None`, as nobody closes the room.
    ///
    /// Cancel safe.
    pub(super) async fn take(&self) -> Option<Seat> {
        self.settle();
        self.room.free.acquire().await.ok().map(|permit| self.seat(permit))
    }

    /// How many could be taken at once.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.room.free.available_permits()
    }

    /// What gives the place back itself, since there may be fewer by then.
    fn seat(&self, permit: SemaphorePermit<'_>) -> Seat {
        permit.forget();
        Seat(Arc::clone(&self.room))
    }

    /// Has the room be as large as the latest settings say.
    fn settle(&self) {
        let Room { free, .. } = &*self.room;
        let mut size = self.room.size();
        if self.since > size.since {
            size.since = self.since;
            let former = std::mem::replace(&mut size.most, self.most);
            let paid = self.most.saturating_sub(former).min(size.surplus);
            size.surplus = size.surplus - paid + former.saturating_sub(self.most);
            free.add_permits(self.most.saturating_sub(former) - paid);
        }
        if size.surplus > 0 {
            size.surplus -= free.forget_permits(size.surplus);
        }
    }
}

impl Room {
    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut size = self.0.size();
        match size.surplus.checked_sub(1) {
            Some(surplus) => size.surplus = surplus,
            None => self.0.free.add_permits(1),
        }
    }
}
