//! Finds files of one top-level module that use each other in a circle.
//!
//! A file uses another one where its own code, tests left out, names something of it: `crate::a::b::X`, `self::b::X`,
//! `super::b::X`, `b::X` for a child `b`, one by one or in a group. A name that the other file only passes on
//! (`pub use b::X`) is looked up where it comes from, and passing on is no use by itself.
//!
//! A child may name its ancestors: it is a part of them, in a file of its own. So a parent and its child alone are no
//! circle. Everything else counts, from a parent to its child too.

use std::collections::{BTreeMap, BTreeSet};

/// A module path without `crate`: `["initiator", "auto", "probing"]`.
pub(crate) type Module = Vec<String>;

/// Which file uses which, in one module.
type Uses = BTreeMap<Module, BTreeSet<Module>>;

/// The code of each file by its module path, and what its public uses pass on.
pub(crate) struct Sources {
    code: BTreeMap<Module, String>,
    passed_on: BTreeMap<Module, BTreeMap<String, Module>>,
}

/// A path as it is written, and whether it stands in a use that passes it on.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    path: Vec<String>,
    public: bool,
}

impl Sources {
    /// From the files' code: comments, literals and tests blanked out.
    pub(crate) fn new(code: BTreeMap<Module, String>) -> Self {
        let mut sources = Self { code, passed_on: BTreeMap::new() };
        let mut passed_on: BTreeMap<Module, BTreeMap<String, Module>> = BTreeMap::new();
        for (file, text) in &sources.code {
            for named in paths(text).into_iter().filter(|named| named.public) {
                if let Some((target, Some(item))) = sources.find(file, &named.path) {
                    passed_on.entry(file.clone()).or_default().insert(item, target);
                }
            }
        }
        sources.passed_on = passed_on;
        sources
    }

    /// The circles, each as its files in order.
    pub(crate) fn circles(&self) -> Vec<Vec<String>> {
        let mut uses = Uses::new();
        for (file, text) in &self.code {
            let named = paths(text).into_iter().filter(|named| !named.public);
            let targets = named.filter_map(|named| self.used(file, &named.path));
            let counts = |target: &Module| target[0] == file[0] && !file.starts_with(target);
            uses.insert(file.clone(), targets.filter(counts).collect());
        }
        circles(&uses).into_iter().map(|circle| circle.iter().map(|file| file.join("/")).collect()).collect()
    }

    /// The file that a path in `file` leads to in the end.
    fn used(&self, file: &Module, path: &[String]) -> Option<Module> {
        let (mut target, item) = self.find(file, path)?;
        let item = item?;
        while let Some(next) = self.passed_on.get(&target).and_then(|passed_on| passed_on.get(&item)) {
            if *next == target {
                break;
            }
            target = next.clone();
        }
        Some(target)
    }

    /// The file that a path names, and the first name in it that is not a file's.
    fn find(&self, file: &Module, path: &[String]) -> Option<(Module, Option<String>)> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        let (mut full, rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (file.clone(), &path[1..]),
            "super" => (file.get(..file.len().checked_sub(supers)?)?.to_vec(), &path[supers..]),
            child => {
                let known = self.code.contains_key(&[&file[..], &[child.to_owned()]].concat());
                (known.then(|| file.clone())?, path)
            }
        };
        full.extend(rest.iter().cloned());
        let length = (1..=full.len()).rev().find(|&length| self.code.contains_key(&full[..length]))?;
        let item = full.get(length).cloned().or_else(|| (length == full.len()).then(String::new));
        full.truncate(length);
        Some((full, item))
    }
}

/// Every path in code that has at least two parts, and every one of a use.
fn paths(code: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let (before, statement) = (&rest[..at], &rest[at + "use ".len()..]);
        if before.ends_with(is_name) {
            found.extend(plain(before));
            rest = statement;
            continue;
        }
        let end = statement.find(';').unwrap_or(statement.len());
        let before = before.trim_end();
        let public = before.ends_with("pub") || (before.ends_with(')') && before.rfind("pub(").is_some());
        found.extend(plain(before));
        let mut names = Vec::new();
        tree(&[], &statement[..end], &mut names);
        found.extend(names.into_iter().map(|path| Named { path, public }));
        rest = &statement[end..];
    }
    found.extend(plain(rest));
    found
}

/// The paths in code without uses.
fn plain(code: &str) -> Vec<Named> {
    let in_path = |c: char| is_name(c) || c == ':';
    let words = code.split(|c| !in_path(c)).filter(|word| word.contains("::"));
    let names = |word: &str| word.split("::").map(|name| name.trim_matches(':').to_owned()).collect::<Vec<_>>();
    let paths = words.map(|word| names(word).into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>());
    paths.filter(|path| path.len() > 1).map(|path| Named { path, public: false }).collect()
}

/// Takes the tree of a use apart.
fn tree(prefix: &[String], text: &str, found: &mut Vec<Vec<String>>) {
    let names = |text: &str| {
        let names = text.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "*");
        [prefix, &names.map(str::to_owned).collect::<Vec<_>>()].concat()
    };
    let Some((head, group)) = text.split_once('{') else {
        let path = text.split(" as ").next().unwrap_or_default();
        let mut path = names(path);
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        return found.push(path);
    };
    let prefix = names(head);
    let (mut depth, mut begin) = (0, 0);
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[begin..at].trim().is_empty() {
                    tree(&prefix, &group[begin..at], found);
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// The sets of files each of which reaches every other one of its set.
fn circles(uses: &Uses) -> Vec<Vec<Module>> {
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = uses.keys().map(|file| (file, reached(uses, file))).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (file, reached) in &reach {
        if reached.contains(file) && !seen.contains(file) {
            let circle: Vec<_> = reached.iter().copied().filter(|other| reach[*other].contains(file)).collect();
            seen.extend(circle.iter().copied());
            found.push(circle.into_iter().cloned().collect());
        }
    }
    found
}

fn reached<'a>(uses: &'a Uses, from: &Module) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&Module> = uses.get(from).into_iter().flatten().collect();
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(uses.get(file).into_iter().flatten());
        }
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let module = |path: &str| path.split('/').map(str::to_owned).collect();
        Sources::new(files.iter().map(|(path, code)| (module(path), (*code).to_owned())).collect()).circles()
    }

    #[test]
    fn two_files_that_name_each_other_are_a_circle_however_they_write_it() {
        for (one, two) in [
            ("use crate::a::two::X;", "use crate::a::one::Y;"),
            ("use super::two::X;", "fn f() -> super::one::Y {}"),
            ("use crate::a::{two::{self, X}, three::Z};", "use super::{one::Y};"),
            ("fn f() { crate::a::two::go() }", "use super::one;"),
        ] {
            let files = [("a", "mod one; mod two;"), ("a/one", one), ("a/two", two), ("a/three", "")];
            assert_eq!(found(&files), [["a/one", "a/two"]], "{one} {two}");
        }
    }

    #[test]
    fn a_longer_way_round_is_found_and_one_way_is_none() {
        let there = [("a/one", "use super::two::X;"), ("a/two", "use super::three::X;"), ("a/three", "")];
        assert_eq!(found(&there), Vec::<Vec<String>>::new());
        let back = [there[0], there[1], ("a/three", "use super::one::X;")];
        assert_eq!(found(&back), [["a/one", "a/three", "a/two"]]);
    }

    #[test]
    fn a_child_may_name_its_parent_but_a_way_through_the_child_counts() {
        let family = [("a", "use self::one::X; struct Y;"), ("a/one", "use super::Y;")];
        assert_eq!(found(&family), Vec::<Vec<String>>::new());
        let through = [
            ("a/run", "use super::keep::K; struct R;"),
            ("a/keep", "use self::try_it::T;"),
            ("a/keep/try_it", "use crate::a::run::R;"),
        ];
        assert_eq!(found(&through), [["a/keep", "a/keep/try_it", "a/run"]]);
    }

    #[test]
    fn a_name_that_is_passed_on_is_looked_up_where_it_comes_from() {
        let parent = ("a", "pub use self::one::X; pub(crate) use self::two::Y;");
        let files = [parent, ("a/one", "use crate::a::Y;"), ("a/two", "")];
        assert_eq!(found(&files), Vec::<Vec<String>>::new());
        let back = [parent, ("a/one", "use crate::a::Y;"), ("a/two", "use super::X;")];
        assert_eq!(found(&back), [["a/one", "a/two"]]);
    }

    #[test]
    fn other_modules_and_other_crates_are_none_of_it() {
        let files = [("a/one", "use crate::b::X; use std::fmt; fn f() { one::go() }"), ("b", "use crate::a::one::Y;")];
        assert_eq!(found(&files), Vec::<Vec<String>>::new());
    }
}
