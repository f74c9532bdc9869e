//! Who asks here, and for how many connections of one sibling there is room. spec: FL-38

use std::collections::HashMap;
use std::time::Instant;

use crate::id::ResponderId;
use crate::registry::Handle;

/// Connections that one sibling may have to this responder: one, and those that it has given up without saying so.
pub(super) const MAX_CONNECTIONS: usize = 4;

/// A connection on which a sibling asks, from when it was let in.
#[derive(Debug)]
struct Asker<T> {
    id: ResponderId,
    /// `None` until it is greeted back.
    tunnel: Option<T>,
    since: Instant,
    /// It makes room for another one, and ends.
    gives_way: bool,
}

/// Those who ask, each under a number of its own.
#[derive(Debug)]
pub(super) struct Askers<T> {
    askers: HashMap<u64, Asker<T>>,
    next: u64,
}

/// A place that was taken.
#[derive(Debug)]
pub(super) struct Entered<T> {
    pub(super) number: u64,
    /// Whose place it was, if it is: to be closed.
    pub(super) former: Option<T>,
}

impl<T> Default for Askers<T> {
    fn default() -> Self {
        Self { askers: HashMap::new(), next: 0 }
    }
}

impl<T: Handle> Askers<T> {
    /// Takes a place for one more connection of this sibling, if it has few, or one on which it asks nothing, of which the oldest
    /// gives way then. Each counts from here on, so that those which come at once are not each the first.
    pub(super) fn enter(&mut self, id: &ResponderId, now: Instant) -> Option<Entered<T>> {
        let own = || self.askers.iter().filter(|(_, asker)| asker.id == *id && !asker.gives_way);
        let mut former = None;
        if own().count() >= MAX_CONNECTIONS {
            let is_idle = |asker: &Asker<T>| asker.tunnel.as_ref().is_some_and(|tunnel| tunnel.in_flight() == 0);
            let idle = own().filter(|(_, asker)| is_idle(asker)).min_by_key(|(_, asker)| asker.since);
            let oldest = idle.map(|(number, _)| *number)?;
            former = self.askers.get_mut(&oldest).and_then(|asker| {
                asker.gives_way = true;
                asker.tunnel.clone()
            });
        }
        self.next += 1;
        let asker = Asker { id: id.clone(), tunnel: None, since: now, gives_way: false };
        self.askers.insert(self.next, asker);
        Some(Entered { number: self.next, former })
    }

    /// It is greeted back, and asks over this.
    pub(super) fn greeted(&mut self, number: u64, tunnel: T) {
        if let Some(asker) = self.askers.get_mut(&number) {
            asker.tunnel = Some(tunnel);
        }
    }

    /// It is gone.
    pub(super) fn leave(&mut self, number: u64) {
        self.askers.remove(&number);
    }

    /// The connections of all.
    pub(super) fn tunnels(&self) -> impl Iterator<Item = &T> {
        self.askers.values().filter_map(|asker| asker.tunnel.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::Health;

    /// So much is asked on it.
    #[derive(Debug, Clone, PartialEq)]
    struct Asking(u32);

    impl Handle for Asking {
        fn health(&self) -> Health {
            Health::Healthy
        }
        fn in_flight(&self) -> u32 {
            self.0
        }
        fn rtt(&self) -> Duration {
            Duration::ZERO
        }
    }

    // spec: FL-38
    #[test]
    fn those_that_come_at_once_are_counted_before_they_are_greeted() {
        let (mut askers, now) = (Askers::<Asking>::default(), Instant::now());
        let (b, c) = ("b".parse().unwrap(), "c".parse().unwrap());
        let places: Vec<_> = (0..MAX_CONNECTIONS).map(|_| askers.enter(&b, now).unwrap().number).collect();
        assert!(askers.enter(&b, now).is_none(), "none of them is greeted yet, and none is idle");
        assert!(askers.enter(&c, now).is_some(), "another sibling has its own");
        askers.leave(places[0]);
        assert!(askers.enter(&b, now).is_some());
    }

    // spec: FL-38
    #[test]
    fn each_of_two_that_come_at_once_has_another_one_give_way() {
        let (mut askers, now) = (Askers::default(), Instant::now());
        let b = "b".parse().unwrap();
        for number in 0..MAX_CONNECTIONS as u32 {
            let place = askers.enter(&b, now + Duration::from_millis(number.into())).unwrap().number;
            // Something is asked on the second.
            askers.greeted(place, Asking(u32::from(number == 1)));
        }
        let former = |entered: Option<Entered<Asking>>| entered.map(|entered| entered.former);
        for _ in [0, 2, 3] {
            assert_eq!(former(askers.enter(&b, now)), Some(Some(Asking(0))));
        }
        assert_eq!(former(askers.enter(&b, now)), None, "those that give way are not there to give way again");
        assert_eq!(askers.tunnels().count(), MAX_CONNECTIONS);
    }
}
