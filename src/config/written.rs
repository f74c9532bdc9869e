//! Settings as a tree that has the keys of a file.
//!
//! Some settings are grouped in the code where the file has no section, or have another name there. Here they stand where an
//! operator looks for them, and what is absent is left out.

use serde_json::{Map, Value};

use crate::config::Checked;
use crate::config::document::{Entry, Node, Value as NodeValue};
use crate::config::secret;

/// Groups of the code whose keys stand in the section around them.
const TRANSPARENT: [&str; 3] = ["admission", "claim", "credentials"];
/// Keys with another name in the file, and in which section it has it.
const RENAMED: [(&str, &str); 1] = [("crls", "crl")];
/// What `responder.listen` is made of.
const LISTEN: [&str; 2] = ["quic", "tcp"];

/// The settings by the keys of the file. Secrets are marks that tell them apart, and not fit to be shown.
///
/// # Errors
/// A path is not UTF-8, as no file can write it.
pub(super) fn written(checked: &Checked) -> serde_json::Result<Value> {
    let mut tree = secret::marked(|| serde_json::to_value(checked))?;
    if let Some(Value::Object(responder)) = tree.get_mut("responder") {
        gather_listen(responder);
    }
    gather_egress(&mut tree);
    Ok(as_in_file(tree).unwrap_or_else(|| Value::Object(Map::new())))
}

/// `quic` and `tcp` stand in a section of their own.
fn gather_listen(responder: &mut Map<String, Value>) {
    let addresses = LISTEN.into_iter().filter_map(|key| Some((key.to_owned(), responder.remove(key)?)));
    let listen: Map<String, Value> = addresses.collect();
    responder.insert("listen".to_owned(), Value::Object(listen));
}

/// Listeners of all kinds stand in one list.
fn gather_egress(tree: &mut Value) {
    let Value::Object(file) = tree else { return };
    if let Some(Value::Array(datagrams)) = file.remove("udp")
        && let Some(Value::Array(egress)) = file.get_mut("egress")
    {
        egress.extend(datagrams);
    }
}

/// `None` where there is nothing.
fn as_in_file(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(as_in_file).collect())),
        Value::Object(entries) => Some(Value::Object(section(entries))),
        plain => Some(plain),
    }
}

fn section(entries: Map<String, Value>) -> Map<String, Value> {
    let mut section = Map::new();
    for (key, value) in entries {
        let Some(value) = as_in_file(value) else { continue };
        match value {
            Value::Object(inner) if TRANSPARENT.contains(&key.as_str()) => section.extend(inner),
            Value::Object(inner) if key == "inner_credentials" => {
                section.extend(inner.into_iter().map(|(key, value)| (format!("inner_{key}"), value)));
            }
            value => {
                let renamed = RENAMED.iter().find(|(known, _)| *known == key);
                section.insert(renamed.map_or(key, |(_, name)| (*name).to_owned()), value);
            }
        }
    }
    section
}

/// The tree as it would be read from a file; nothing in it stands in a line.
pub(super) fn as_read(value: &Value) -> Node {
    let value = match value {
        Value::Null => NodeValue::Empty,
        // What was replaced when the file was read is not replaced again.
        Value::String(text) => NodeValue::Scalar(text.replace("${", "$${")),
        Value::Array(items) => NodeValue::List(items.iter().map(as_read).collect()),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| Entry { key: key.clone(), line: 0, node: as_read(value) };
            NodeValue::Map(entries.iter().map(entry).collect())
        }
        plain => NodeValue::Scalar(plain.to_string()),
    };
    Node { line: 0, value }
}

/// The name by which an item of a list is found in another list.
pub(super) fn name_of(item: &Value) -> Option<String> {
    let text = |key: &str| item.get(key).and_then(Value::as_str);
    if let Some(node) = text("node") {
        let within = ["cluster", "tenant"].into_iter().filter_map(text).map(|name| format!(":{name}"));
        return Some(format!("{node}{}", within.collect::<String>()));
    }
    // A route has a prefix that is a text, always.
    let route = || Some(format!("{}{}", text("host").unwrap_or_default(), text("prefix")?));
    // One address may be taken for both protocols.
    if let Some(udp) = text("udp") {
        return Some(format!("udp:{udp}"));
    }
    // A rule may have no name.
    let priority = || item.get("priority")?.as_u64().map(|priority| priority.to_string());
    let named = ["name", "http", "tcp", "to", "tenant"].into_iter().find_map(text).map(str::to_owned);
    named.or_else(route).or_else(priority)
}
