//! A mapping whose keys are being read one by one, and what to say about the keys that nobody asked for.

use std::collections::BTreeSet;

use super::At;
use crate::config::document::Entry;

/// A mapping whose keys are being read.
pub(in crate::config) struct Section<'a> {
    at: At<'a>,
    entries: &'a [Entry],
    known: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    /// The mapping at this place.
    pub(super) fn new(at: At<'a>, entries: &'a [Entry]) -> Self {
        Self { at, entries, known: BTreeSet::new() }
    }

    /// Where the section stands, for mistakes about several of its keys.
    pub(in crate::config) fn at(&self) -> &At<'a> {
        &self.at
    }

    /// The value of a key that may be absent. A wrong value is noted and reads as absent.
    pub(in crate::config) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(At<'a>) -> Option<T>,
    ) -> Option<T> {
        read(self.find(key)?)
    }

    /// The value of a key that may be absent, else `default`.
    pub(in crate::config) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(At<'a>) -> Option<T>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// The value of a key that must be there; `expected` says what, for whoever left it out.
    pub(in crate::config) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(At<'a>) -> Option<T>,
    ) -> Option<T> {
        self.at.context.ask(self.at.key_below(key), true);
        match self.find(key) {
            Some(at) => read(at),
            None => {
                self.missing(key, expected);
                None
            }
        }
    }

    /// Notes that a key is not there.
    pub(in crate::config) fn missing(&self, key: &str, expected: &str) {
        self.at.context.note(self.at.line, self.at.key_below(key), format!("is missing; expected {expected}"));
    }

    /// Whether the key is there, right or wrong.
    pub(in crate::config) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Where a key that is there stands; asking makes it known.
    pub(in crate::config) fn find(&mut self, key: &'static str) -> Option<At<'a>> {
        self.known.insert(key);
        self.at.context.ask(self.at.key_below(key), false);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(self.at.child(entry))
    }

    /// Notes every key that was not asked for.
    pub(super) fn refuse_unknown_keys(&self) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(entry.key.as_str())) {
            let known: Vec<&str> = self.known.iter().copied().collect();
            self.at.child(entry).wrong(unknown_key(&entry.key, &known));
        }
    }
}

/// What to say about a key that means nothing.
fn unknown_key(key: &str, known: &[&str]) -> String {
    match known.iter().map(|known| (distance(key, known), *known)).min() {
        Some((distance, nearest)) if distance <= 1 + nearest.len() / 4 => {
            format!("is unknown (did you mean \"{nearest}\"?); expected {}", alternatives(known))
        }
        _ => format!("is unknown; expected {}", alternatives(known)),
    }
}

/// `a, b or c`.
pub(in crate::config) fn alternatives(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// How many single-character edits lie between two short words; long ones count as far apart.
fn distance(from: &str, to: &str) -> usize {
    const LONGEST: usize = 40;
    if from.len() > LONGEST {
        return LONGEST;
    }
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_named() {
        let known = ["host_id", "hold", "tenant"];
        assert!(unknown_key("hostid", &known).contains("(did you mean \"host_id\"?)"));
        assert!(unknown_key("tennant", &known).contains("(did you mean \"tenant\"?)"));
        assert_eq!(unknown_key("xyzzy", &known), "is unknown; expected host_id, hold or tenant");
    }

    #[test]
    fn distances_are_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance(&"x".repeat(1000), "abc"), 40);
    }
}
