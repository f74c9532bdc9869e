//! Every requirement of `proto-spec/` is shown by a test or stands in `exceptions.toml`; every citation exists.
//!
//! A requirement is defined where a line of the prose starts with its id in bold. Code and tests cite it in a comment
//! after `spec:`, vectors in their `spec` list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::vector_file::load;

const AREAS: [&str; 9] = ["OV", "HS", "ST", "CT", "EV", "ER", "SE", "TB", "FL"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    /// Requirements that no test shows.
    exception: Vec<Exception>,
    /// Requirements that tests show, and that the code still breaks in some case.
    deviation: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    id: String,
    reason: String,
}

/// Where something stands, by requirement id.
type Places = BTreeMap<String, String>;

#[test]
fn every_cited_requirement_exists() {
    let defined = defined();
    let mut unknown = citations().all;
    unknown.retain(|id, _| !defined.contains(id));
    assert_eq!(unknown, Places::new(), "cited, but not defined in proto-spec");
}

#[test]
fn every_requirement_is_shown_by_a_test_or_excepted() {
    let (shown, excepted) = (citations().by_tests, excepted());
    let missing: Vec<String> =
        defined().into_iter().filter(|id| !shown.contains_key(id) && !excepted.contains(id)).collect();
    assert_eq!(missing, Vec::<String>::new(), "neither cited by a test nor in exceptions.toml");
}

#[test]
fn no_exception_is_out_of_date() {
    let (defined, shown) = (defined(), citations().by_tests);
    for id in ids_of(exceptions().deviation) {
        assert!(defined.contains(&id), "exceptions.toml names {id}, which is not defined");
        assert!(shown.contains_key(&id), "no test shows {id}: it is an exception and not a deviation");
    }
    for id in excepted() {
        assert!(defined.contains(&id), "exceptions.toml names {id}, which is not defined");
        let place = shown.get(&id);
        assert_eq!(place, None, "exceptions.toml names {id}, which a test cites: remove the exception");
    }
}

#[test]
fn ids_are_found_in_text() {
    let found = |text: &str| ids(text).collect::<Vec<_>>();
    assert_eq!(found("HS-1, (ST-12)."), ["HS-1", "ST-12"]);
    assert_eq!(found("XHS-1 HS- UTF-8 TLS-13 ST-x"), Vec::<String>::new());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn defined() -> BTreeSet<String> {
    let mut defined = BTreeSet::new();
    for path in files(&root().join("proto-spec"), "md") {
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let Some((id, _)) = line.strip_prefix("**").and_then(|rest| rest.split_once("**")) else { continue };
            if ids(id).next().as_deref() == Some(id) {
                assert!(defined.insert(id.to_owned()), "{id} is defined twice, again in {}", path.display());
            }
        }
    }
    defined
}

fn exceptions() -> Exceptions {
    let text = std::fs::read_to_string(root().join("proto-spec/exceptions.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

fn excepted() -> Vec<String> {
    ids_of(exceptions().exception)
}

/// The ids of these, each of which must give a reason.
fn ids_of(exceptions: Vec<Exception>) -> Vec<String> {
    let id = |exception: Exception| {
        assert!(exception.reason.len() > 20, "{} needs a reason", exception.id);
        exception.id
    };
    exceptions.into_iter().map(id).collect()
}

#[derive(Default)]
struct Citations {
    all: Places,
    by_tests: Places,
}

impl Citations {
    fn add(&mut self, ids: impl Iterator<Item = String>, place: &str, by_test: bool) {
        for id in ids {
            if by_test {
                self.by_tests.insert(id.clone(), place.to_owned());
            }
            self.all.insert(id, place.to_owned());
        }
    }
}

fn citations() -> Citations {
    let mut citations = Citations::default();
    for vector in load("valid").iter().chain(&load("invalid")) {
        citations.add(vector.spec.iter().cloned(), &format!("vector {}", vector.name), true);
    }
    for folder in ["src", "tests", "fuzz/src"] {
        for path in files(&root().join(folder), "rs") {
            cite_file(&path, folder != "src", &mut citations);
        }
    }
    citations
}

fn cite_file(path: &Path, mut in_test: bool, citations: &mut Citations) {
    in_test |= path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    for (number, line) in std::fs::read_to_string(path).unwrap().lines().enumerate() {
        // Unit tests stand at the end of their file.
        in_test |= line.starts_with("mod tests {");
        if let Some((_, cited)) = line.split_once("spec: ") {
            citations.add(ids(cited), &format!("{}:{}", path.display(), number + 1), in_test);
        }
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The requirement ids in `text`.
fn ids(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| is_id(word)).map(str::to_owned)
}

fn is_id(word: &str) -> bool {
    let digits = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    word.split_once('-').is_some_and(|(area, number)| AREAS.contains(&area) && digits(number))
}
