//! Walks a located tree and collects every mistake on the way.
//!
//! [`At`] is a place in the tree: a node with its line and its key path. Each of its readers returns `Some` of a complete
//! value, or notes one mistake and returns `None`; so the caller reads all keys first and gives up with `?` afterwards,
//! and nothing hides behind the first mistake. [`Section`] is a mapping whose keys are being read: at its end every key
//! that nobody asked for is a mistake, with the nearest known key as a hint.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::config::document::{Entry, Node, Value};
use crate::config::listeners::{self, Listener, Protocol};
use crate::config::report::{Mistake, quoted, shown_key};
use crate::config::scalar::{self, ReferenceError};
use crate::config::secret::Secret;
use crate::config::surroundings::{Place, Surroundings};

mod section;

pub(super) use section::{Section, alternatives};

/// What all places of one file share.
pub(super) struct Context<'a> {
    place: Place,
    surroundings: &'a dyn Surroundings,
    mistakes: RefCell<Vec<Mistake>>,
    listeners: RefCell<Vec<Listener>>,
    /// Every key that was asked for, and whether it must be there.
    asked: RefCell<BTreeMap<String, bool>>,
}

impl<'a> Context<'a> {
    /// Relative paths of the file count from `place`.
    pub(super) fn new(place: Place, surroundings: &'a dyn Surroundings, mistakes: Vec<Mistake>) -> Self {
        Self {
            place,
            surroundings,
            mistakes: RefCell::new(mistakes),
            listeners: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// Notes a mistake that belongs to no node.
    pub(super) fn note(&self, line: u64, key: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { line, key: key.into(), problem: problem.into() });
    }

    /// Everything noted so far.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }

    /// The keys that were asked for so far, there or not, and whether each must be there.
    pub(super) fn into_asked(self) -> BTreeMap<String, bool> {
        self.asked.into_inner()
    }

    fn ask(&self, key: String, required: bool) {
        *self.asked.borrow_mut().entry(key).or_default() |= required;
    }
}

/// A place in the tree.
#[derive(Clone)]
pub(super) struct At<'a> {
    context: &'a Context<'a>,
    node: &'a Node,
    line: u64,
    key: String,
}

impl<'a> At<'a> {
    /// The whole file.
    pub(super) fn root(context: &'a Context<'a>, node: &'a Node) -> Self {
        Self { context, node, line: node.line, key: String::new() }
    }

    /// Notes a mistake here. `problem` says what is wrong and what would be accepted.
    pub(super) fn wrong(&self, problem: impl Into<String>) {
        self.context.note(self.line, self.key.clone(), problem);
    }

    /// In which line it stands; 0 where there are no lines.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// How many mistakes there are in the file so far, to see whether reading something added any.
    pub(super) fn mistakes(&self) -> usize {
        self.context.mistakes.borrow().len()
    }

    /// Whether a mapping stands here (and not a scalar or a list), for settings that have a short and a long form.
    pub(super) fn is_section(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// Whether a list stands here, for settings that may be one or a word.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// What this machine calls itself, if that is known.
    pub(super) fn host_name(&self) -> Option<String> {
        self.context.surroundings.host_name()
    }

    /// Whether nothing stands here, not even an empty text.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.node.value, Value::Empty)
    }

    /// Whether a mapping with this key stands here.
    pub(super) fn has(&self, key: &str) -> bool {
        matches!(&self.node.value, Value::Map(entries) if entries.iter().any(|entry| entry.key == key))
    }

    /// A mapping: `read` asks for its keys, whatever it did not ask for is unknown.
    pub(super) fn section<T>(self, read: impl FnOnce(&mut Section<'a>) -> Option<T>) -> Option<T> {
        let Value::Map(entries) = &self.node.value else {
            return self.mismatch("a section of keys");
        };
        let mut section = Section::new(self, entries);
        let value = read(&mut section);
        section.refuse_unknown_keys();
        value
    }

    /// A list; every item is read even when one before it is wrong.
    pub(super) fn list<T>(self, read: impl FnMut(Self) -> Option<T>) -> Option<Vec<T>> {
        let Value::List(items) = &self.node.value else {
            return self.mismatch("a list");
        };
        let read: Vec<Option<T>> = self.items(items).map(read).collect();
        read.into_iter().collect()
    }

    /// A list, or one value that stands for a list of one.
    pub(super) fn one_or_more<T>(self, mut read: impl FnMut(Self) -> Option<T>) -> Option<Vec<T>> {
        match &self.node.value {
            Value::List(items) if items.is_empty() => {
                self.wrong("is an empty list; expected at least one value");
                None
            }
            Value::List(_) => self.list(read),
            _ => Some(vec![read(self)?]),
        }
    }

    /// Text, with each `${NAME}` replaced by the environment variable.
    pub(super) fn text(&self) -> Option<String> {
        let Value::Scalar(text) = &self.node.value else {
            return self.mismatch("text");
        };
        match scalar::interpolate(text, |name| self.context.surroundings.variable(name)) {
            Ok(text) => Some(text),
            Err(ReferenceError::Unset(name)) => {
                self.wrong(format!(
                    "the environment variable {} is not set; expected it to be set to Unicode text",
                    shown_key(&name)
                ));
                None
            }
            Err(ReferenceError::Malformed) => {
                self.wrong("has a broken reference; expected ${NAME}, or $${ for the two characters themselves");
                None
            }
        }
    }

    /// Text with 1 to `max` bytes.
    pub(super) fn short_text(&self, max: usize) -> Option<String> {
        let text = self.text()?;
        if text.is_empty() || text.len() > max {
            self.wrong(format!("has {} bytes; expected 1 to {max}", text.len()));
            return None;
        }
        Some(text)
    }

    /// Text that `read` understands; `expected` says what that is.
    pub(super) fn understood<T>(&self, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text()?;
        let value = read(&text);
        if value.is_none() {
            self.wrong(format!("{} is not accepted; expected {expected}", quoted(&text)));
        }
        value
    }

    /// Text that parses; the error says what is wrong and what would be accepted.
    pub(super) fn parsed<T>(&self) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.checked(str::parse)
    }

    /// Text that `check` accepts; its error says what is wrong and what would be accepted.
    pub(super) fn checked<T, E: Display>(&self, check: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text()?;
        check(&text).map_err(|error| self.wrong(format!("{} {error}", quoted(&text)))).ok()
    }

    /// One of a few words.
    pub(super) fn word<T: Clone>(&self, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let expected = alternatives(&names);
        self.understood(&expected, |text| words.iter().find(|(name, _)| *name == text).map(|(_, value)| value.clone()))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        self.word(&[("true", true), ("false", false)])
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.understood(&expected, |text| text.parse().ok().filter(|number| bounds.contains(number)))
    }

    /// A [`number`](Self::number) for what is counted in 32 bits.
    pub(super) fn count(&self, bounds: RangeInclusive<u32>) -> Option<u32> {
        let number = self.number(u64::from(*bounds.start())..=u64::from(*bounds.end()))?;
        u32::try_from(number).ok()
    }

    /// A count of bytes within bounds.
    pub(super) fn size(&self, bounds: RangeInclusive<u64>) -> Option<usize> {
        let expected = format!("{} to {} bytes, as a number or with KiB, MiB or GiB", bounds.start(), bounds.end());
        let bytes = self.understood(&expected, |text| scalar::size(text).filter(|size| bounds.contains(size)))?;
        usize::try_from(bytes).ok()
    }

    /// A duration within bounds.
    pub(super) fn duration(&self, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let show = scalar::show_duration;
        let expected =
            format!("{} to {}, as a whole number with ms, s, m or h", show(*bounds.start()), show(*bounds.end()));
        self.understood(&expected, |text| scalar::duration(text).filter(|duration| bounds.contains(duration)))
    }

    /// A path, counted from the directory of the configuration file. Nothing needs to be there.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() {
            self.wrong("is empty; expected a path");
            return None;
        }
        Some(self.resolve(text))
    }

    /// A path as the file means it: relative ones count from the file's directory.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.context.place.base.join(path)
    }

    /// An address to listen on, not taken by an earlier key.
    pub(super) fn listener(&self, protocols: &[Protocol]) -> Option<SocketAddr> {
        let address = self.understood("ip:port such as 127.0.0.1:8085 or [::1]:8085", |text| text.parse().ok())?;
        protocols.iter().for_each(|protocol| self.listens(*protocol, address));
        Some(address)
    }

    /// Notes that this key wants to listen, and a mistake if an earlier one does so there.
    pub(super) fn listens(&self, protocol: Protocol, address: SocketAddr) {
        let mut listeners = self.context.listeners.borrow_mut();
        if let Some(other) = listeners::clash(&listeners, protocol, address) {
            let line = if other.line == 0 { String::new() } else { format!(" in line {}", other.line) };
            let key = &other.key;
            self.wrong(format!("{address} ({protocol}) is taken by {key}{line}; expected another port"));
        }
        listeners.push(Listener { protocol, address, line: self.line, key: self.key.clone() });
    }

    /// A path at which a readable file stands.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let path = self.path()?;
        if let Err(error) = self.context.surroundings.can_read(&path) {
            let place = &self.context.place;
            self.wrong(format!("cannot read {}: {error}; expected a file{}", path.display(), place.note()));
            return None;
        }
        Some(path)
    }

    /// Runs a check that opens files, where there are any to open; what it says is a mistake here.
    pub(super) fn verify<T, E: Display>(&self, check: impl FnOnce() -> Result<T, E>) {
        if self.context.surroundings.has_files()
            && let Err(error) = check()
        {
            self.wrong(error.to_string());
        }
    }

    /// A credential: the text itself, `${NAME}`, or `file:path` without the line break at its end. Never shown.
    pub(super) fn secret(&self, bounds: RangeInclusive<usize>) -> Option<Secret> {
        let text = self.text()?;
        let bytes = match text.strip_prefix("file:") {
            None => text.into_bytes(),
            Some(path) => self.read_secret(&self.resolve(path))?,
        };
        if !bounds.contains(&bytes.len()) {
            let (min, max) = (bounds.start(), bounds.end());
            self.wrong(format!("the secret has {} bytes; expected {min} to {max}", bytes.len()));
            return None;
        }
        Some(Secret::new(bytes))
    }

    fn read_secret(&self, path: &Path) -> Option<Vec<u8>> {
        match self.context.surroundings.read(path) {
            Ok(content) => Some(content.trim_ascii_end().to_vec()),
            Err(error) => {
                self.wrong(format!("cannot read {}: {error}; expected a small file", path.display()));
                None
            }
        }
    }

    fn mismatch<T>(&self, expected: &str) -> Option<T> {
        let found = match self.node.value {
            Value::Empty => "has no value",
            Value::Scalar(_) => "is a single value",
            Value::List(_) => "is a list",
            Value::Map(_) => "is a section of keys",
        };
        self.wrong(format!("{found}; expected {expected}"));
        None
    }

    fn child(&self, entry: &'a Entry) -> Self {
        let key = self.key_below(&shown_key(&entry.key));
        Self { context: self.context, node: &entry.node, line: entry.line, key }
    }

    fn key_below(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    fn items(&self, items: &'a [Node]) -> impl Iterator<Item = Self> {
        items.iter().enumerate().map(|(index, node)| {
            let key = format!("{}[{index}]", self.key);
            Self { context: self.context, node, line: node.line, key }
        })
    }
}
