//! Text that must not reach a log, a report or `/config`.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use serde_json::Value;

/// A credential. It prints and serializes as `***`; only [`Secret::expose`] gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

const MASK: &str = "***";
/// Follows the mask in a mark, and nothing that people write: a sign without a meaning.
const MARK: char = '\u{e000}';

/// Under which marks of equal secrets are equal, in this process only.
static MARKS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

thread_local! {
    /// Whether secrets serialize as marks now. A serializer can be told nothing, so it is said beside it.
    static MARKED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `serialize`, in which secrets become marks: equal ones of equal secrets. Whoever cannot read this process learns
/// nothing from a mark, but it is to be [`masked`] before it is shown.
pub(super) fn marked<T>(serialize: impl FnOnce() -> T) -> T {
    struct Unmark(bool);
    impl Drop for Unmark {
        fn drop(&mut self) {
            MARKED.set(self.0);
        }
    }
    let _unmark = Unmark(MARKED.replace(true));
    serialize()
}

/// The value with a mask in the place of each mark.
pub(super) fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with(MASK) && text[MASK.len()..].starts_with(MARK) => MASK.into(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), masked(value))).collect(),
        plain => plain.clone(),
    }
}

impl Secret {
    /// Takes the bytes in custody.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves, for the one place that sends or compares them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if MARKED.get() {
            return serializer.collect_str(&format_args!("{MASK}{MARK}{:016x}", MARKS.hash_one(&self.0)));
        }
        serializer.serialize_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_nowhere() {
        let secret = Secret::new("hunter2");
        let shown = format!("{secret} {secret:?} {:?} {}", Some(&secret), serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.expose(), b"hunter2");
    }

    #[test]
    fn marks_tell_secrets_apart_and_are_masked() {
        let mark = |text: &str| marked(|| serde_json::to_value([Secret::new(text)])).unwrap();
        assert_eq!(mark("hunter2"), mark("hunter2"));
        assert_ne!(mark("hunter2"), mark("hunter3"));
        assert!(!mark("hunter2").to_string().contains("hunter2"));
        assert_eq!(masked(&mark("hunter2")), serde_json::json!([MASK]));
        assert_eq!(serde_json::to_value(Secret::new("hunter2")).unwrap(), MASK, "marks last no longer than asked for");
    }
}
