//! The reference of the file: each key with what it takes, its default, what it is for, and an example.
//!
//! What a key takes is asked of the code that reads it: a value that nothing accepts is put in its place, and the mistake
//! says what was expected. What is meant when it is absent is looked up in the settings of a small file without it. So the
//! page cannot drift from the code; only meaning and example are written down, in `table`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use crate::config::document::{self, Entry, Node, Value};
use crate::config::reader::Context;
use crate::config::report::Mistake;
use crate::config::surroundings::Place;
use crate::config::{Nowhere, check, read};

mod table;

use table::{KEYS, Key};

/// No key accepts it, unless it accepts any text.
const PROBE: &str = "\u{2603}";
/// A file with each section and as little in it as it can do with. What stands in it is nobody's default; a test sees to it.
const SMALL: &str = "responder: { listen: { quic: '127.0.0.1:1', tcp: '127.0.0.1:1' }, tls: { cert: a, key: b }, \
                     insecure_accept_any: true, envoy: {} }\n\
                     egress: [ { http: '127.0.0.1:2', host_id: a, routes: [ { host: a, service: a } ], \
                     policies: [ { priority: 1, match: any, action: deny } ] } ]\n\
                     initiator: { node: a, cluster: a, tls: { ca: a }, \
                     policies: [ { priority: 1, match: any, action: deny } ], \
                     tunnels: [ { to: 'a:1' }, { to: 'a:1', transport: envoy, envoy: {} } ] }\n\
                     services: [ { name: a, match: {}, target: 'http://a' } ]\n";
/// How wide a line of the page is.
const WIDTH: usize = 80;

/// Every key of the file, as a page that reads well in a terminal and as Markdown.
pub fn keys() -> String {
    let mut page = "# Keys of the file\n\nMade by `adit check --keys` from the code. `[]` stands for each item of a list. Times are whole \
                    numbers with ms, s, m\nor h. `${NAME}` in a value is an environment variable; a path counts from the file's \
                    folder.\n"
        .to_owned();
    let defaults = Defaults::read();
    let required = asked(&whole_file());
    for key in KEYS {
        let is_required = required.get(key.path).is_some_and(|required| *required);
        page += &entry(key, is_required, &defaults);
    }
    page
}

fn entry(key: &Key, is_required: bool, defaults: &Defaults) -> String {
    let level = if key.path.contains('.') { "###" } else { "##" };
    let mut text = format!("\n{level} `{}`\n\n{}\n\n", key.path, wrap(key.meaning));
    let mut line = |name: &str, value: &str| text += &format!("    {name:<9}{value}\n");
    line("value", &key.form.map_or_else(|| expected(key.path), str::to_owned));
    if is_required {
        line("default", "none, it must be there");
    } else {
        line("default", &key.absent.map_or_else(|| defaults.of(key.path), str::to_owned));
    }
    if !key.example.is_empty() {
        let name = key.path.rsplit('.').next().unwrap_or(key.path);
        line("example", &format!("{}: {}", name, key.example));
    }
    text
}

/// What the code that reads the key says it expects.
fn expected(path: &str) -> String {
    for probe in [Value::Scalar(PROBE.to_owned()), Value::List(Vec::new()), Value::Map(Vec::new())] {
        let mut file = whole_file();
        put(&mut file, path, Node { line: 1, value: probe.clone() });
        let mistakes = mistakes(&file);
        let about = |mistake: &&Mistake| generic(&mistake.key) == path && is_about(mistake, &probe);
        if let Some((_, expected)) = mistakes.iter().find(about).and_then(|found| found.problem.split_once("expected "))
        {
            return expected.to_owned();
        }
    }
    "text".to_owned()
}

/// Whether the mistake is that this probe stands there, and not, say, that two keys exclude each other.
fn is_about(mistake: &Mistake, probe: &Value) -> bool {
    match probe {
        Value::Scalar(_) => mistake.problem.contains(PROBE) || mistake.problem.starts_with("is a single value"),
        _ => mistake.problem.starts_with("is a"),
    }
}

/// A file with each key in it, made of the examples. It cannot run, since some keys exclude others.
fn whole_file() -> Node {
    let mut file = Node { line: 1, value: Value::Map(Vec::new()) };
    for key in KEYS.iter().filter(|key| !key.example.is_empty()) {
        let value = document::parse(&format!("key: {}\n", key.example)).0.into_iter().next();
        if let Some(Node { value: Value::Map(entries), .. }) = value
            && let Some(entry) = entries.into_iter().next()
        {
            put(&mut file, key.path, entry.node);
        }
    }
    file
}

/// Puts a value in its place, making the sections on the way; `[]` is the first item of its list.
fn put(at: &mut Node, path: &str, value: Node) {
    let Some((segment, rest)) =
        path.split_once('.').map(|(segment, rest)| (segment, Some(rest))).or(Some((path, None)))
    else {
        return;
    };
    let below = child(at, segment.trim_end_matches("[]"));
    let below = if segment.ends_with("[]") { first(below) } else { below };
    match rest {
        Some(rest) => put(below, rest, value),
        None => *below = value,
    }
}

fn child<'a>(at: &'a mut Node, name: &str) -> &'a mut Node {
    if !matches!(at.value, Value::Map(_)) {
        at.value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = &mut at.value else { unreachable!("made a section above") };
    let index = entries.iter().position(|entry| entry.key == name).unwrap_or_else(|| {
        entries.push(Entry { key: name.to_owned(), line: 1, node: Node { line: 1, value: Value::Empty } });
        entries.len() - 1
    });
    &mut entries[index].node
}

fn first(at: &mut Node) -> &mut Node {
    if !matches!(&at.value, Value::List(items) if !items.is_empty()) {
        at.value = Value::List(vec![Node { line: 1, value: Value::Empty }]);
    }
    let Value::List(items) = &mut at.value else { unreachable!("made a list above") };
    &mut items[0]
}

fn mistakes(file: &Node) -> Vec<Mistake> {
    let context = Context::new(Place::default(), &Nowhere, Vec::new());
    let _ = read(vec![file.clone()], &context);
    context.into_mistakes()
}

/// The keys that the code asks for when it reads the file, and whether each must be there.
fn asked(file: &Node) -> BTreeMap<String, bool> {
    let context = Context::new(Place::default(), &Nowhere, Vec::new());
    let _ = read(vec![file.clone()], &context);
    context.into_asked().into_iter().map(|(key, required)| (generic(&key), required)).collect()
}

/// `egress[0].http` as `egress[].http`.
fn generic(key: &str) -> String {
    let mut parts = key.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += "[";
        text += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    text
}

/// The settings of a small file, which have every default in them.
struct Defaults(Json);

impl Defaults {
    fn read() -> Self {
        let checked = check(SMALL, Path::new("adit.yaml"), &Nowhere);
        Self(checked.ok().and_then(|checked| serde_json::to_value(checked).ok()).unwrap_or_default())
    }

    fn of(&self, path: &str) -> String {
        let segments: Vec<&str> = path.split('.').collect();
        match find(&self.0, &segments) {
            Some(Json::String(text)) => text.clone(),
            Some(value @ (Json::Bool(_) | Json::Number(_))) => value.to_string(),
            _ => "none".to_owned(),
        }
    }
}

/// The first value at this path; some settings are grouped where the file has no section.
fn find<'a>(json: &'a Json, path: &[&str]) -> Option<&'a Json> {
    let Some((segment, rest)) = path.split_first() else { return Some(json).filter(|json| !json.is_null()) };
    let grouped = ["admission", "claim"].into_iter().filter_map(|group| find(json.get(group)?, path));
    let named = json.get(segment.trim_end_matches("[]"));
    match named {
        Some(Json::Array(items)) if segment.ends_with("[]") => items.iter().find_map(|item| find(item, rest)),
        Some(below) => find(below, rest),
        None => grouped.into_iter().next(),
    }
}

fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one from the start on");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= WIDTH {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_key_that_the_code_asks_for_has_an_entry_and_each_entry_is_asked_for() {
        let asked: BTreeSet<String> = asked(&whole_file()).into_keys().collect();
        let listed: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        let missing: Vec<_> = asked.difference(&listed).collect();
        assert!(missing.is_empty(), "say what they are for in src/config/keys/table.rs: {missing:?}");
        let unknown: Vec<_> = listed.difference(&asked).collect();
        assert!(unknown.is_empty(), "nothing reads these keys of src/config/keys/table.rs: {unknown:?}");
    }

    #[test]
    fn each_example_is_accepted_where_it_stands() {
        // What is left is that some keys exclude each other.
        let wrong = ["is not accepted", "is unknown", "is missing", "cannot be read", "is a ", "has no value"];
        for mistake in mistakes(&whole_file()) {
            assert!(!wrong.iter().any(|text| mistake.problem.contains(text)), "{}: {}", mistake.key, mistake.problem);
        }
    }

    /// What stands at this path in a file, as text; `[]` is any item.
    fn written<'a>(at: &'a Node, path: &[&str], found: &mut Vec<&'a str>) {
        match (&at.value, path.split_first()) {
            (Value::Scalar(text), None) => found.push(text),
            (Value::List(items), _) => items.iter().for_each(|item| written(item, path, found)),
            (Value::Map(entries), Some((segment, rest))) => {
                let named = entries.iter().filter(|entry| entry.key == segment.trim_end_matches("[]"));
                named.for_each(|entry| written(&entry.node, rest, found));
            }
            _ => {}
        }
    }

    // The page said that `insecure_accept_any` was true where it is absent.
    #[test]
    fn no_value_of_the_small_file_is_shown_as_a_default() {
        let small = document::parse(SMALL).0.into_iter().next().unwrap();
        let defaults = Defaults::read();
        let required = asked(&whole_file());
        for key in KEYS.iter().filter(|key| required.get(key.path) == Some(&false)) {
            let shown = key.absent.map_or_else(|| defaults.of(key.path), str::to_owned);
            let mut found = Vec::new();
            written(&small, &key.path.split('.').collect::<Vec<_>>(), &mut found);
            assert!(
                !found.contains(&&*shown),
                "{}: {shown} stands in SMALL; say what is meant with .absent()",
                key.path
            );
        }
    }

    #[test]
    fn the_page_is_the_one_that_the_readme_points_to() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/keys.md");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, keys()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), keys(), "UPDATE_SNAPSHOTS=1 writes it anew");
        let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
        assert!(readme.contains("src/config/keys.md") && readme.contains("check --keys"));
    }

    #[test]
    fn types_bounds_and_defaults_come_from_the_code() {
        let page = keys();
        for (key, value, default) in [
            ("egress[].hold", "0 to 5m, as a whole number with ms, s, m or h", "2s"),
            ("egress[].balance", "two_choices, round_robin or hash", "two_choices"),
            ("responder.quotas.tunnels_per_node", "a whole number from 1 to ", "16"),
            ("workers", "a whole number from 1 to 256", "1"),
            ("responder.insecure_accept_any", "true or false", "false"),
            ("initiator.tunnels[].transport", "auto, quic, tcp or envoy", "auto"),
            ("egress[].access_log.query", "true or false", "false"),
        ] {
            let entry = page.split("\n##").find(|entry| entry.contains(&format!("`{key}`"))).unwrap();
            assert!(entry.contains(&format!("value    {value}")), "{entry}");
            assert!(entry.contains(&format!("default  {default}\n")), "{entry}");
        }
    }
}
