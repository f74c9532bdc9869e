//! Names that somebody had a moment ago: a node that is reconnecting is waited for, wherever in the fleet it was. spec: FL-52

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::names::Name;
use crate::registry::{MAX_DEPARTED, RECONNECT_WINDOW};

/// The names that nobody has any more. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(Arc<Mutex<Gone>>);

#[derive(Debug, Default)]
struct Gone {
    at: HashMap<Name, Instant>,
    order: VecDeque<(Instant, Name)>,
}

impl Recent {
    /// Nobody has it any more; `now` is when etcd was last heard.
    pub(super) fn push(&self, name: &Name, now: Instant) {
        let mut gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gone.at.insert(name.clone(), now);
        gone.order.push_back((now, name.clone()));
        while let Some((at, name)) =
            gone.order.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= RECONNECT_WINDOW)
        {
            gone.forget(at, &name);
        }
        if gone.order.len() > MAX_DEPARTED
            && let Some((at, name)) = gone.order.pop_front()
        {
            gone.forget(at, &name);
        }
    }

    /// Whether somebody had it lately.
    pub(super) fn has(&self, name: &Name, now: Instant) -> bool {
        let gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gone.at.get(name).is_some_and(|at| now.saturating_duration_since(*at) < RECONNECT_WINDOW)
    }
}

impl Gone {
    /// Unless it has gone again since.
    fn forget(&mut self, at: Instant, name: &Name) {
        if self.at.get(name) == Some(&at) {
            self.at.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TenantId;

    fn name(number: usize) -> Name {
        Name::new(&TenantId::default(), crate::id::HostId::new(&format!("n{number}")).unwrap())
    }

    #[test]
    fn a_name_is_known_for_a_while_after_its_end_and_of_very_many_the_latest() {
        let (recent, start) = (Recent::default(), Instant::now());
        recent.push(&name(0), start);
        assert!(recent.has(&name(0), start) && !recent.has(&name(1), start));
        assert!(!recent.has(&name(0), start + RECONNECT_WINDOW));
        recent.push(&name(0), start + RECONNECT_WINDOW / 2);
        recent.push(&name(1), start + RECONNECT_WINDOW);
        assert!(recent.has(&name(0), start + RECONNECT_WINDOW), "it has gone again since");
        for number in 2..=MAX_DEPARTED + 1 {
            recent.push(&name(number), start + RECONNECT_WINDOW);
        }
        assert!(!recent.has(&name(0), start + RECONNECT_WINDOW), "there are too many");
        assert!(recent.has(&name(MAX_DEPARTED + 1), start + RECONNECT_WINDOW));
        let gone = recent.0.lock().unwrap();
        assert_eq!((gone.at.len(), gone.order.len()), (MAX_DEPARTED, MAX_DEPARTED));
    }
}
