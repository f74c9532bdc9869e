//! Which services are down now, for all tunnels.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::id::ServiceName;
use crate::protocol::code::DownCause;
use crate::protocol::health::{Down, Health};

/// Which services of an initiator are down. Cheap to clone; clones are one board. By default none is.
#[derive(Clone)]
pub struct HealthBoard(Arc<Inner>);

struct Inner {
    /// By name, and by the number of who says so: a service that is changed is another one under its name.
    down: Mutex<BTreeMap<(ServiceName, u64), DownCause>>,
    told: watch::Sender<Arc<Health>>,
}

impl HealthBoard {
    /// Says how a service is: `Some` while it is down. `teller` is who says so, and whose word it replaces.
    pub fn tell(&self, service: &ServiceName, teller: u64, down: Option<DownCause>) {
        let mut all = self.0.down.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (service.clone(), teller);
        match down {
            Some(cause) => all.insert(key, cause),
            None => all.remove(&key),
        };
        // Under the lock: what is told last is what holds.
        let health = Arc::new(health(&all));
        self.0.told.send_if_modified(|told| {
            let is_news = *told != health;
            *told = health;
            is_news
        });
    }

    /// What is down now, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Arc<Health>> {
        self.0.told.subscribe()
    }

    /// Whether it is the same board.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

fn health(all: &BTreeMap<(ServiceName, u64), DownCause>) -> Health {
    let mut down: Vec<Down> = Vec::with_capacity(all.len());
    for ((service, _), cause) in all {
        if down.last().is_none_or(|last| last.service != *service) {
            down.push(Down { service: service.clone(), cause: *cause });
        }
    }
    Health { down }
}

impl Default for HealthBoard {
    fn default() -> Self {
        Self(Arc::new(Inner { down: Mutex::default(), told: watch::Sender::default() }))
    }
}

impl fmt::Debug for HealthBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthBoard").field("told", &*self.0.told.borrow()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_down_as_long_as_anybody_says_so_and_nobody_is_told_twice() {
        let board = HealthBoard::default();
        let (mut told, name) = (board.watch(), "api".parse().unwrap());
        let names = |told: &mut watch::Receiver<Arc<Health>>| {
            let is_news = told.has_changed().unwrap();
            (told.borrow_and_update().down.len(), is_news)
        };
        board.tell(&name, 1, Some(DownCause::TargetRefused));
        assert_eq!(names(&mut told), (1, true));
        board.tell(&name, 2, Some(DownCause::TargetRefused));
        board.tell(&name, 1, None);
        assert_eq!(names(&mut told), (1, false));
        board.tell(&name, 2, None);
        assert_eq!(names(&mut told), (0, true));
    }
}
