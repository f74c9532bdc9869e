//! What cannot change while a process runs.

use crate::config::{Checked, HopConfig};

impl Checked {
    /// The keys that are read at the start only, and differ: a process that runs by these settings does not take the new ones.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        fixed(self, new)
    }
}

/// What is said of keys that are read at the start only.
pub fn restart(keys: &[&str]) -> String {
    format!("{}: cannot change while the process runs; expected what it was, or a restart", keys.join(", "))
}

/// Keys that are read at the start only, and differ.
fn fixed(before: &Checked, new: &Checked) -> Vec<&'static str> {
    let responders = before.responder.as_ref().zip(new.responder.as_ref());
    let state_dirs = responders.is_some_and(|(before, new)| before.state_dir != new.state_dir);
    let graces = responders.is_some_and(|(before, new)| before.grace != new.grace);
    let fleets = before.fleet.as_ref().zip(new.fleet.as_ref());
    let differ = [
        ("workers", before.workers != new.workers),
        ("log.format", before.log.format != new.log.format),
        ("responder.state_dir", state_dirs),
        ("responder.grace", graces),
        ("fleet.id", fleets.is_some_and(|(before, new)| before.id != new.id)),
        ("fleet.prefix", fleets.is_some_and(|(before, new)| before.prefix != new.prefix)),
        ("fleet.ready_timeout", fleets.is_some_and(|(before, new)| before.ready_timeout != new.ready_timeout)),
        ("fleet.hop", fleets.is_some_and(|(before, new)| is_other_hop(before.hop.as_ref(), new.hop.as_ref()))),
    ];
    differ.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

/// All but its files, which are read again.
fn is_other_hop(before: Option<&HopConfig>, new: Option<&HopConfig>) -> bool {
    let fixed = |hop: &HopConfig| (hop.listen, hop.identity.clone());
    before.map(fixed) != new.map(fixed)
}
