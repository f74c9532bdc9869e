//! What clients saw, from each event to the next.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::balancer::Asked;
use crate::table::Table;

/// Something that was done to the fleet.
pub(crate) struct Happened {
    pub(crate) what: String,
    pub(crate) at: Instant,
    /// How long a process needed to end.
    pub(crate) took: Option<Duration>,
    /// Tunnels that the sites had opened by then.
    pub(crate) opened: u64,
}

/// A row for each event.
pub(crate) struct Tally(Table);

impl Tally {
    /// `asked` stand in the order in which they began; `opened` counts the tunnels up to the end.
    pub(crate) fn new(asked: &[Asked], happened: Vec<Happened>, opened: u64) -> Self {
        let heading = [
            "event",
            "at s",
            "requests",
            "lost in flight",
            "lost, new",
            "slowest ms",
            "p99 ms",
            "tunnels opened",
            "exit ms",
        ];
        let mut table = Table::new(&heading);
        let begun = happened.first().map_or_else(Instant::now, |first| first.at);
        for (number, event) in happened.iter().enumerate() {
            let next = happened.get(number + 1);
            // Each request counts where it ended: what happened before that may have been the reason.
            let is_of = |asked: &&Asked| asked.end >= event.at && next.is_none_or(|next| asked.end < next.at);
            let (new, in_flight): (Vec<&Asked>, Vec<&Asked>) =
                asked.iter().filter(is_of).partition(|asked| asked.start >= event.at);
            let mut took: Vec<Duration> = new.iter().chain(&in_flight).map(|asked| asked.end - asked.start).collect();
            took.sort();
            let part = |share: f64| took.get((took.len() as f64 * share) as usize).or_else(|| took.last()).copied();
            table.row([
                event.what.clone(),
                format!("{:.0}", (event.at - begun).as_secs_f64()),
                (new.len() + in_flight.len()).to_string(),
                lost(&in_flight),
                lost(&new),
                part(1.0).unwrap_or_default().as_millis().to_string(),
                part(0.99).unwrap_or_default().as_millis().to_string(),
                (next.map_or(opened, |next| next.opened) - event.opened).to_string(),
                event.took.map_or_else(String::new, |took| took.as_millis().to_string()),
            ]);
        }
        Self(table)
    }
}

/// How many of them got no answer, by what they got instead.
fn lost(asked: &[&Asked]) -> String {
    let mut lost = BTreeMap::<&str, usize>::new();
    for what in asked.iter().filter_map(|asked| asked.outcome.as_ref().err()) {
        *lost.entry(what).or_default() += 1;
    }
    let lost: Vec<String> = lost.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if lost.is_empty() { "0".to_owned() } else { lost.join(", ") }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
