//! YAML text into a tree in which every node knows its line.
//!
//! Deserializing straight into structs would stop at the first mistake; a tree can be walked to the end. Scalars stay
//! text, exactly as written, because the reader of a key decides what it is: `node: 1.10` is the name "1.10".
//! Depth, size and alias expansion are bounded, so no text can exhaust stack or memory.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, NonFiniteFloatPolicy, Options, Spanned};

use crate::config::report::{Mistake, shown_key};

mod hint;

/// The largest file that is read, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 24;
const MAX_NODES: usize = 150_000;
const MAX_REPLAYED_EVENTS: usize = 50_000;

/// One value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Counted from 1.
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Empty,
    /// Text, numbers and booleans alike, as written.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands.
    pub(super) line: u64,
    pub(super) node: Node,
}

/// The documents of a text that hold anything, and what kept the text from being read whole.
pub(super) fn parse(text: &str) -> (Vec<Node>, Vec<Mistake>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut mistakes = Vec::new();
    let mut parsed = read(text, DuplicateKeyPolicy::Error);
    if let Err(error) = &parsed
        && let Error::DuplicateMappingKey { key, .. } = error.without_snippet()
    {
        // Read on as if the second one were not there, so that the rest of the file is checked as well.
        let problem = "is given twice; expected once".to_owned();
        mistakes.push(Mistake {
            line: line_of(error),
            key: key.as_deref().map(shown_key).unwrap_or_default(),
            problem,
        });
        parsed = read(text, DuplicateKeyPolicy::FirstWins);
    }
    match parsed {
        Ok(documents) => (documents.into_iter().map(|raw| node(raw, text)).collect(), mistakes),
        Err(error) => {
            let line = line_of(&error);
            let mistake = hint::of(text, line).map(|hint| Mistake { key: String::new(), ..hint });
            let plain = || Mistake { line, key: String::new(), problem: not_yaml(&error) };
            mistakes.push(mistake.unwrap_or_else(plain));
            (Vec::new(), mistakes)
        }
    }
}

fn read(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Vec<Spanned<Raw>>, Error> {
    serde_saphyr::from_multiple_with_options(text, options(duplicate_keys))
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED_EVENTS },
        duplicate_keys: duplicate_keys,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

fn line_of(error: &Error) -> u64 {
    error.location().map_or(0, |location| location.line())
}

/// The parser's words without the place, which the report prints in its own form.
fn not_yaml(error: &Error) -> String {
    let words = error.without_snippet().to_string();
    let cause = words.split(" at line ").next().unwrap_or(&words);
    format!("cannot be read as YAML: {cause}")
}

/// A value as the deserializer hands it over, before its text is cut out of the source.
enum Raw {
    Empty,
    /// Quoted, block or otherwise certainly text: already unescaped.
    Text(String),
    /// A plain scalar that YAML calls a number or a boolean, with its canonical form.
    Plain(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Self>, Spanned<Self>)>),
}

fn node(raw: Spanned<Raw>, source: &str) -> Node {
    let line = raw.referenced.line();
    let value = match raw.value {
        Raw::Empty => Value::Empty,
        Raw::Text(text) => Value::Scalar(text),
        Raw::Plain(canonical) => Value::Scalar(as_written(&raw.defined, source).unwrap_or(canonical)),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, source)).collect()),
        Raw::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| entry(key, value, source)).collect()),
    };
    Node { line, value }
}

fn entry(key: Spanned<Raw>, value: Spanned<Raw>, source: &str) -> Entry {
    let key = node(key, source);
    let text = match key.value {
        Value::Scalar(text) => text,
        Value::Empty => "null".to_owned(),
        // Shown as an unknown key, which it always is.
        Value::List(_) => "[…]".to_owned(),
        Value::Map(_) => "{…}".to_owned(),
    };
    Entry { key: text, line: key.line, node: node(value, source) }
}

fn as_written(location: &serde_saphyr::Location, source: &str) -> Option<String> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    let text = source.get(start..start.checked_add(length)?)?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Empty)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Empty)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars(text: &str) -> Vec<String> {
        let (documents, mistakes) = parse(text);
        assert_eq!(mistakes, []);
        let Value::List(items) = &documents[0].value else { panic!("not a list: {documents:?}") };
        items
            .iter()
            .map(|item| match &item.value {
                Value::Scalar(text) => text.clone(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn scalars_keep_the_text_that_was_written() {
        assert_eq!(
            scalars("[1.10, 007, 0x10, yes, true, .nan, 99999999999999999999999, 'a b', \"c\\n\", ~]"),
            ["1.10", "007", "0x10", "yes", "true", ".nan", "99999999999999999999999", "a b", "c\n", "Empty"]
        );
    }

    #[test]
    fn a_byte_order_mark_shifts_nothing() {
        assert_eq!(scalars("\u{feff}[1.10, 2]"), ["1.10", "2"]);
    }

    #[test]
    fn an_alias_has_the_text_of_its_anchor() {
        assert_eq!(scalars("[&x 1.10, *x]"), ["1.10", "1.10"]);
    }

    #[test]
    fn lines_count_through_all_documents() {
        let (documents, _) = parse("a: 1\n---\n# none\n---\nb:\n  c: 2\n");
        let Value::Map(entries) = &documents[1].value else { panic!("{documents:?}") };
        assert_eq!((documents.len(), entries[0].line, entries[0].node.line), (2, 5, 6));
    }

    #[test]
    fn a_key_given_twice_does_not_hide_the_rest() {
        let (documents, mistakes) = parse("a: 1\na: 2\nb: 3\n");
        assert_eq!(mistakes[0].to_owned().line, 2);
        assert_eq!(mistakes[0].key, "a");
        let Value::Map(entries) = &documents[0].value else { panic!("{documents:?}") };
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn bombs_are_refused() {
        for text in [
            "[".repeat(5_000),
            "a: ".repeat(5_000),
            format!("a: &a [{}]\nb: &b [{}]\nc: [{}]\n", "x,".repeat(100), "*a,".repeat(100), "*b,".repeat(100)),
            format!("[{}]", "x,".repeat(MAX_NODES + 1)),
        ] {
            let (documents, mistakes) = parse(&text);
            assert!(documents.is_empty() && !mistakes.is_empty(), "{}", &text[..20]);
        }
    }
}
