//! What siblings have said to be not there, where the directory had not said that it is: for a moment they are not asked again.
//! spec: FL-44

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::id::{HostId, ResponderId, TenantId};

/// For how long one word is enough.
const QUIET: Duration = Duration::from_secs(1);
/// How many of them are kept. Beyond, whoever was asked may be asked again.
const MAX_WORDS: usize = 4096;

type Word = (ResponderId, TenantId, HostId);

/// The latest of these words.
#[derive(Debug, Default)]
pub(super) struct Absent(Mutex<HashMap<Word, Instant>>);

impl Absent {
    /// This sibling has said that it has no such name.
    pub(super) fn say(&self, sibling: &ResponderId, tenant: &TenantId, host: &HostId, now: Instant) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() >= MAX_WORDS {
            words.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        }
        if words.len() < MAX_WORDS {
            words.insert((sibling.clone(), tenant.clone(), host.clone()), now);
        }
    }

    /// Whether it has said so a moment ago.
    pub(super) fn has(&self, sibling: &ResponderId, tenant: &TenantId, host: &HostId, now: Instant) -> bool {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = words.get(&(sibling.clone(), tenant.clone(), host.clone()));
        said.is_some_and(|at| now.saturating_duration_since(*at) < QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: FL-44
    #[test]
    fn a_word_is_enough_for_a_moment_and_there_are_never_too_many() {
        let (absent, start) = (Absent::default(), Instant::now());
        let (sibling, tenant) = ("b".parse().unwrap(), TenantId::default());
        let host = |number: usize| HostId::new(&format!("n{number}")).unwrap();
        for number in 0..2 * MAX_WORDS {
            absent.say(&sibling, &tenant, &host(number), start);
        }
        assert_eq!(absent.0.lock().unwrap().len(), MAX_WORDS);
        assert!(absent.has(&sibling, &tenant, &host(0), start));
        assert!(!absent.has(&"c".parse().unwrap(), &tenant, &host(0), start));
        assert!(!absent.has(&sibling, &tenant, &host(0), start + QUIET));
        absent.say(&sibling, &tenant, &host(MAX_WORDS), start + QUIET);
        assert_eq!(absent.0.lock().unwrap().len(), 1);
    }
}
