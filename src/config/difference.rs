//! What differs between two checked settings, key by key, as an operator reads it.
//!
//! One mechanism for the whole file: both settings are taken as they would be written ([`written`]), and the two trees are
//! walked together. So a key that is added to the file is compared from the day on which it is shown, and nothing has to be
//! added here. Items of a list that have a name are found by it, wherever in the list they stand.

mod reach;

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::config::Checked;
use crate::config::report::shown_key;
use crate::config::secret;
use crate::config::written::{name_of, written};

/// How much of a value is shown in a line, in characters.
const MAX_SHOWN: usize = 200;
const ANOTHER_SECRET: &str = "another secret";
const ANOTHER_ORDER: &str = "another order";
const OTHER_SETTINGS: &str = "settings that no key of the file says";

/// What has to be changed to get from one [`Checked`] to another; empty exactly where they are equal. Secrets are masked,
/// and yet noticed where they differ.
///
/// It prints one line for each change, without a line break at the end:
///
/// ```text
/// + services.shop
/// - egress[0.0.0.0:8080]
/// ~ log.level: info -> debug
/// ```
///
/// In JSON it is a list of objects with `change` (`added`, `removed` or `changed`), `key`, and those of `old`, `new`, `note` and
/// `reaches` that there are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    changes: Vec<Change>,
}

/// One key that is there or not, or has another value.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which setting, as its path in the file: `log.level`, `services.shop.target`, `egress[0.0.0.0:8080].hold`.
    pub key: String,
    /// What it was; `None` where it was not there, or where only a note says what happened.
    pub old: Option<Value>,
    /// What it is now; `None` where it is not there any more, or where only a note says what happened.
    pub new: Option<Value>,
    /// What the values do not show, such as `another secret`.
    pub note: Option<String>,
}

impl Checked {
    /// What changes when `new` takes the place of these settings.
    #[must_use]
    pub fn difference(&self, new: &Self) -> Difference {
        // What cannot be written is compared as a whole below.
        let (old_tree, new_tree) = (written(self).unwrap_or_default(), written(new).unwrap_or_default());
        let mut changes = Vec::new();
        compare("", Some(&old_tree), Some(&new_tree), &mut changes);
        if changes.is_empty() && self != new {
            changes.push(Change::noted("", OTHER_SETTINGS));
        }
        Difference { changes }
    }
}

impl Difference {
    /// The changes, in the order of their keys.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether this key, something below it, or a section around it changes.
    pub fn touches(&self, key: &str) -> bool {
        self.changes.iter().any(|change| is_at_or_below(&change.key, key) || is_at_or_below(key, &change.key))
    }

    /// Adds what the settings do not say: that a file has another content, for example.
    pub fn note(&mut self, key: &str, note: &str) {
        self.changes.push(Change::noted(key, note));
    }
}

fn is_at_or_below(key: &str, parent: &str) -> bool {
    key.strip_prefix(parent).is_some_and(|rest| parent.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

impl Change {
    fn noted(key: &str, note: &str) -> Self {
        Self { key: key.to_owned(), old: None, new: None, note: Some(note.to_owned()) }
    }

    /// Masks the values; where nothing else differs, it was a secret.
    fn of(key: &str, old: Option<&Value>, new: Option<&Value>) -> Self {
        let (old, new) = (old.map(secret::masked), new.map(secret::masked));
        if old.is_some() && old == new {
            return Self::noted(key, ANOTHER_SECRET);
        }
        Self { key: key.to_owned(), old, new, note: None }
    }

    /// What becomes of the tunnels and connections that are up, where that is not plain: `live tunnels are told`.
    pub fn reaches(&self) -> Option<&'static str> {
        reach::reach(&self.key)
    }

    /// `added`, `removed` or `changed`.
    pub fn kind(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, Some(_)) => "added",
            (Some(_), None) => "removed",
            _ => "changed",
        }
    }
}

/// `+ key: value`, `- key: value` or `~ key: old -> new`; a section that comes or goes is named only.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_one = |sign: &str, value: &Value| match value {
            Value::Object(_) => format!("{sign} {}", self.key),
            value => format!("{sign} {}: {}", self.key, shown(value)),
        };
        let line = match (&self.old, &self.new) {
            (None, Some(new)) => of_one("+", new),
            (Some(old), None) => of_one("-", old),
            (Some(old), Some(new)) => format!("~ {}: {} -> {}", self.key, shown(old), shown(new)),
            (None, None) if self.key.is_empty() => "~".to_owned(),
            (None, None) => format!("~ {}:", self.key),
        };
        f.write_str(&line)?;
        match &self.note {
            Some(note) if self.old.is_some() && self.new.is_some() => write!(f, " ({note})"),
            Some(note) => write!(f, " {note}"),
            None => Ok(()),
        }?;
        match self.reaches() {
            Some(reaches) => write!(f, " ({reaches})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.changes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{change}")?;
        }
        Ok(())
    }
}

impl Serialize for Difference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.changes.serialize(serializer)
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = [("old", &self.old), ("new", &self.new)];
        let there = values.iter().filter(|(_, value)| value.is_some()).count();
        let there = there + usize::from(self.note.is_some()) + usize::from(self.reaches().is_some());
        let mut fields = serializer.serialize_struct("Change", 2 + there)?;
        fields.serialize_field("change", self.kind())?;
        fields.serialize_field("key", &self.key)?;
        for (name, value) in values {
            match value {
                Some(value) => fields.serialize_field(name, value)?,
                None => fields.skip_field(name)?,
            }
        }
        match &self.note {
            Some(note) => fields.serialize_field("note", note)?,
            None => fields.skip_field("note")?,
        }
        match self.reaches() {
            Some(reaches) => fields.serialize_field("reaches", reaches)?,
            None => fields.skip_field("reaches")?,
        }
        fields.end()
    }
}

/// Notes what differs at this key and below it.
fn compare(key: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => compare_sections(key, old, new, changes),
        (Some(Value::Array(old)), Some(Value::Array(new))) => compare_lists(key, old, new, changes),
        // A list that is not there is an empty one.
        (Some(Value::Array(old)), None) => compare_lists(key, old, &[], changes),
        (None, Some(Value::Array(new))) => compare_lists(key, &[], new, changes),
        (old, new) => changes.push(Change::of(key, old, new)),
    }
}

fn compare_sections(key: &str, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<Change>) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        compare(&below(key, name), old.get(name), new.get(name), changes);
    }
}

/// By name where the items have one, as a set where they are plain values, else by their places.
fn compare_lists(key: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let all = || old.iter().chain(new);
    let known = changes.len();
    if all().all(|item| name_of(item).is_some()) {
        compare_named(key, old, new, changes);
    } else if all().all(|item| !item.is_object() && !item.is_array()) {
        compare_sets(key, old, new, changes);
    } else {
        compare_places(key, old, new, changes);
    }
    if changes.len() == known {
        changes.push(Change::noted(key, ANOTHER_ORDER));
    }
}

/// Items by name; the second of one name is another one.
fn named(items: &[Value]) -> BTreeMap<(String, usize), &Value> {
    let mut named = BTreeMap::new();
    for item in items {
        let name = name_of(item).unwrap_or_default();
        let nth = named.range((name.clone(), 0)..=(name.clone(), usize::MAX)).count();
        named.insert((name, nth), item);
    }
    named
}

fn compare_named(key: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let (old, new) = (named(old), named(new));
    let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let shown = if name.1 == 0 { name.0.clone() } else { format!("{}#{}", name.0, name.1 + 1) };
        compare(&below(key, &shown), old.get(name).copied(), new.get(name).copied(), changes);
    }
}

fn compare_sets(key: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    changes.extend(without(old, new).map(|item| Change::of(key, Some(item), None)));
    changes.extend(without(new, old).map(|item| Change::of(key, None, Some(item))));
}

/// Those of the items that the others do not have, or not as often.
fn without<'a>(items: &'a [Value], others: &[Value]) -> impl Iterator<Item = &'a Value> {
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    others.iter().for_each(|other| *left.entry(other.to_string()).or_default() += 1);
    items.iter().filter(move |item| match left.get_mut(&item.to_string()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    })
}

/// What both begin and end with stays; the rest is compared in its order.
fn compare_places(key: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let begin = old.iter().zip(new).take_while(|(one, other)| one == other).count();
    let (old, new) = (&old[begin..], &new[begin..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(one, other)| one == other).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    for index in 0..old.len().max(new.len()) {
        compare(&format!("{key}[{}]", begin + index), old.get(index), new.get(index), changes);
    }
}

/// The key of something in this section: behind a dot, or, where it has signs of its own, in brackets.
fn below(key: &str, name: &str) -> String {
    let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    match (key.is_empty(), is_word) {
        (true, _) => shown_key(name),
        (false, true) => format!("{key}.{name}"),
        (false, false) => format!("{key}[{}]", plain(name)),
    }
}

/// A value as it stands in a line.
fn shown(value: &Value) -> String {
    let text = inline(value);
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{key}: {}", inline(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// The text, in quotes where it would not be seen as one piece, and without control characters.
fn plain(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '"';
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests;
