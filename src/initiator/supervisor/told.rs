//! What a responder was told last of services that are down, and when it may be told more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::protocol::health::Health;

/// The least time between two words on one tunnel. spec: CT-60
const INTERVAL: Duration = Duration::from_millis(500);

/// What was told on one tunnel; nothing is down where nothing was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    health: Arc<Health>,
    at: Option<Instant>,
}

impl Told {
    /// When this is to be told: now or later; `None`: it was told last.
    pub(super) fn due(&self, health: &Arc<Health>, now: Instant) -> Option<Instant> {
        let not_before = self.at.map_or(now, |at| at + INTERVAL);
        (self.health != *health).then_some(not_before.max(now))
    }

    /// It was told.
    pub(super) fn note(&mut self, health: &Arc<Health>, now: Instant) {
        *self = Self { health: Arc::clone(health), at: Some(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::code::DownCause;
    use crate::protocol::health::Down;

    fn health(names: &[&str]) -> Arc<Health> {
        let down = |name: &&str| Down { service: name.parse().unwrap(), cause: DownCause::TargetRefused };
        Arc::new(Health { down: names.iter().map(down).collect() })
    }

    // spec: CT-60
    #[test]
    fn a_change_is_told_at_once_and_of_many_changes_two_a_second_and_the_latest() {
        let (mut told, begin) = (Told::default(), Instant::now());
        assert_eq!(told.due(&health(&[]), begin), None, "nothing is down");
        let (mut count, mut last) = (0, None);
        for ms in 0..10_000_u64 {
            let (now, all) = (begin + Duration::from_millis(ms), [health(&["api"]), health(&[])]);
            // What changes back before it is told is no change.
            let current = &all[(ms as usize / 7) % 2];
            if told.due(current, now).is_some_and(|due| due <= now) {
                told.note(current, now);
                count += 1;
                last = Some(Arc::clone(current));
            }
        }
        assert!((15..=20).contains(&count), "{count} in ten seconds");
        let end = begin + Duration::from_secs(11);
        let latest = health(if last.unwrap().down.is_empty() { &["api"] } else { &[] });
        assert_eq!(told.due(&latest, end), Some(end));
    }
}
