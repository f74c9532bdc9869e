//! What clients saw, from each event to the next.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::balancer::{Asked, Lost};
use crate::table::Table;

/// Something that was done to the fleet.
pub(crate) struct Happened {
    pub(crate) what: String,
    pub(crate) at: Instant,
    /// When a process that was killed was gone: whatever was asked before was in flight. As `at` where none was.
    pub(crate) gone: Instant,
    /// How long a process needed to end.
    pub(crate) took: Option<Duration>,
    /// Tunnels that the sites had opened by then.
    pub(crate) opened: u64,
}

/// A row for each event, and one for each request that was lost.
pub(crate) struct Tally {
    events: Table,
    lost: Table,
    left_out: usize,
}

/// The most lost requests that are shown one by one.
const MAX_SHOWN: usize = 300;

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
        let mut all_lost = Table::new(&["after", "asked s later", "waited ms", "responder", "answer", "cause"]);
        let mut count = 0;
        let begun = happened.first().map_or_else(Instant::now, |first| first.at);
        for (number, event) in happened.iter().enumerate() {
            let next = happened.get(number + 1);
            // Each request counts where it ended: what happened before that may have been the reason.
            let is_of = |asked: &&Asked| asked.end >= event.at && next.is_none_or(|next| asked.end < next.at);
            let (new, in_flight): (Vec<&Asked>, Vec<&Asked>) =
                asked.iter().filter(is_of).partition(|asked| asked.start >= event.gone);
            let mut took: Vec<Duration> = new.iter().chain(&in_flight).map(|asked| asked.end - asked.start).collect();
            took.sort();
            let part = |share: f64| took.get((took.len() as f64 * share) as usize).or_else(|| took.last()).copied();
            for (asked, lost) in
                asked.iter().filter(is_of).filter_map(|asked| Some((asked, asked.outcome.as_ref().err()?)))
            {
                count += 1;
                if count <= MAX_SHOWN {
                    all_lost.row(row_of(event, asked, lost));
                }
            }
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
        Self { events: table, lost: all_lost, left_out: count.saturating_sub(MAX_SHOWN) }
    }
}

/// One that was lost. It may have been asked before the event.
fn row_of(event: &Happened, asked: &Asked, lost: &Lost) -> [String; 6] {
    let later = match asked.start.checked_duration_since(event.at) {
        Some(later) => format!("{:.3}", later.as_secs_f64()),
        None => format!("-{:.3}", (event.at - asked.start).as_secs_f64()),
    };
    [
        event.what.clone(),
        later,
        (asked.end - asked.start).as_millis().to_string(),
        lost.responder.map_or_else(|| "none".to_owned(), |number| number.to_string()),
        lost.what.clone(),
        lost.cause.clone().unwrap_or_default(),
    ]
}

/// How many of them got no answer, by what they got instead.
fn lost(asked: &[&Asked]) -> String {
    let mut lost = BTreeMap::<&str, usize>::new();
    for what in asked.iter().filter_map(|asked| asked.outcome.as_ref().err()) {
        *lost.entry(&what.what).or_default() += 1;
    }
    let lost: Vec<String> = lost.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if lost.is_empty() { "0".to_owned() } else { lost.join(", ") }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.events)?;
        writeln!(f, "Every request that was lost:\n\n{}", self.lost)?;
        if self.left_out > 0 {
            writeln!(f, "and {} more", self.left_out)?;
        }
        Ok(())
    }
}
