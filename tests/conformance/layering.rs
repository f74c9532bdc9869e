//! Keeps the dependency rows: a module uses modules of the rows above it, never its own row or one below.
//!
//! The scan reads text, not types, so two habits keep it honest, and both are checked: one `use` per module (no
//! `use crate::{…}` groups), and no way to the crate root through `super`. Inside a module no files use each other in a
//! circle, by the rule in [`circles`].

mod circles;
mod source;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use circles::Sources;
use source::{code_only, without_tests};

/// The rows, top first. A new top-level module of `src/` needs a place here.
const ROWS: &[&[&str]] = &[
    &["id"],
    &["message", "template"],
    &["protocol"],
    &["policy"],
    &["registry", "net", "lifecycle", "telemetry"],
    &["shares", "tls"],
    &["transport"],
    &["proxy"],
    &["fleet"],
    &["routing", "targets"],
    &["initiator", "responder", "egress"],
    &["config"],
    &["admin"],
    &["app"],
    &["cli"],
    &["main"],
];

/// Modules that get time, randomness and bytes as arguments: by path, with everything below it.
const PURE: &[&str] = &[
    "id",
    "protocol",
    "template",
    "policy",
    "registry",
    "initiator/auto",
    "initiator/spread",
    "egress/udp/table",
    "targets/health/machine",
    "shares/settings",
    "shares/bucket",
    "shares/turns",
    "fleet/view",
];

/// What pure modules must not name.
const FORBIDDEN_IN_PURE: &[&str] = &[
    "tokio",
    "quinn",
    "rand",
    "std::fs",
    "std::thread",
    "std::net::Tcp*",
    "std::net::Udp*",
    "fs::*",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "*::now",
];

/// Folders of tests with one binary each, whose `main.rs` must declare every file.
const TEST_FOLDERS: &[&str] = &["tests/blackbox", "tests/conformance"];

#[test]
fn modules_use_only_rows_above_their_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut findings = Vec::new();
    for file in rust_files(&root.join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(root.join("src")).unwrap();
        findings.extend(check_file(path, &text));
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn files_of_a_module_use_each_other_in_no_circle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut code = BTreeMap::new();
    for file in rust_files(&src) {
        let path = file.strip_prefix(&src).unwrap();
        if !is_test_file(path) {
            let text = code_only(&std::fs::read_to_string(&file).unwrap());
            let module = path.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
            code.insert(module, without_tests(&text).to_owned());
        }
    }
    let found = Sources::new(code).circles();
    let findings: Vec<String> = found.iter().map(|circle| format!("{circle:?}")).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn every_test_file_is_declared_by_its_main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = TEST_FOLDERS.iter().map(|folder| root.join(folder)).filter(|folder| folder.is_dir());
    let findings: Vec<String> = folders
        .flat_map(|folder| {
            let main = std::fs::read_to_string(folder.join("main.rs")).unwrap_or_default();
            undeclared(&folder, &file_stems(&folder), &main)
        })
        .collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// All findings in one file; `path` is relative to `src`.
fn check_file(path: &Path, text: &str) -> Vec<String> {
    let module = top_level_module(path);
    if module == "lib" || is_test_file(path) {
        return Vec::new();
    }
    let Some(row) = row_of(&module) else {
        return vec![format!("src/{}:1: module \"{module}\" has no row in the table", path.display())];
    };
    let code = code_only(text);
    let mut findings = Vec::new();
    for (number, line) in without_tests(&code).lines().enumerate() {
        let mut report =
            |what: &dyn Display| findings.push(format!("src/{}:{}: {module} {what}", path.display(), number + 1));
        for used in crate_paths(line) {
            if let Some(problem) = misuse(&module, row, used) {
                report(&problem);
            }
        }
        if supers(line) >= depth(path) {
            report(&"reaches the crate root through \"super\": write crate::…");
        }
        if is_pure(path) {
            for word in FORBIDDEN_IN_PURE.iter().filter(|word| mentions(line, word)) {
                report(&format!("uses \"{word}\", forbidden here"));
            }
        }
    }
    findings
}

/// What is wrong with `crate::used` in a module of this row, if anything.
fn misuse(module: &str, row: usize, used: &str) -> Option<String> {
    if used == module {
        return None;
    }
    match row_of(used) {
        None if used.is_empty() => Some("groups paths at the crate root: one `use` per module".into()),
        None => Some(format!("uses \"{used}\", which has no row in the table")),
        Some(other) if other == row => Some(format!("uses \"{used}\" of its own row")),
        Some(other) if other > row => Some(format!("uses \"{used}\" of a row below")),
        Some(_) => None,
    }
}

fn is_pure(path: &Path) -> bool {
    let module = path.with_extension("");
    PURE.iter().any(|pure| module.starts_with(pure))
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// `registry/pick.rs` and `registry.rs` belong to `registry`.
fn top_level_module(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

fn is_test_file(path: &Path) -> bool {
    path.iter().skip(1).any(|part| part == "tests.rs" || part == "tests")
}

/// How many `super::` lead from the file's module to the crate root.
fn depth(path: &Path) -> usize {
    path.iter().count()
}

/// The longest run of `super::` in the line.
fn supers(line: &str) -> usize {
    let mut rest = line;
    let mut longest = 0;
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let run = rest.len() - rest.trim_start_matches("super::").len();
        longest = longest.max(run / "super::".len());
        rest = &rest[run..];
    }
    longest
}

/// The first name of each `crate::name`; empty for a group.
fn crate_paths(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").filter(|(at, _)| !line[..*at].ends_with(is_name)).map(|(at, found)| {
        let rest = &line[at + found.len()..];
        &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]
    })
}

/// Whether a name or path stands in the line as whole words; `*` at either end leaves that end open.
fn mentions(line: &str, pattern: &str) -> bool {
    let word = pattern.trim_matches('*');
    line.match_indices(word).any(|(at, _)| {
        let starts = pattern.starts_with('*') || !line[..at].ends_with(is_name);
        let ends = pattern.ends_with('*') || !line[at + word.len()..].starts_with(is_name);
        starts && ends
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn file_stems(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Files that would silently not be compiled.
fn undeclared(folder: &Path, stems: &[String], main: &str) -> Vec<String> {
    let code = code_only(main);
    let missing = stems.iter().filter(|stem| *stem != "main" && !mentions(&code, &format!("mod {stem};*")));
    missing.map(|stem| format!("{}: {stem}.rs is not declared in main.rs", folder.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check_file(Path::new(path), text)
    }

    #[test]
    fn using_a_row_above_is_fine() {
        assert_eq!(findings("policy/rule.rs", "use crate::id::NodeId;\nuse crate::policy::claim::Claim;"), [""; 0]);
    }

    #[test]
    fn using_a_row_below_is_found_with_file_and_line() {
        let found = findings("protocol/stream.rs", "//! x\n\nuse crate::transport::Tunnel;");
        assert_eq!(found, ["src/protocol/stream.rs:3: protocol uses \"transport\" of a row below"]);
    }

    #[test]
    fn using_the_own_row_is_found_anywhere_in_a_line() {
        let found = findings("net.rs", "fn f() { g(crate::lifecycle::drain()) }");
        assert_eq!(found, ["src/net.rs:1: net uses \"lifecycle\" of its own row"]);
    }

    #[test]
    fn a_group_at_the_crate_root_is_found() {
        let found = findings("egress.rs", "use crate::{id::NodeId, admin::Api};");
        assert_eq!(found, ["src/egress.rs:1: egress groups paths at the crate root: one `use` per module"]);
    }

    #[test]
    fn modules_without_a_row_are_found() {
        assert_eq!(findings("util/x.rs", ""), ["src/util/x.rs:1: module \"util\" has no row in the table"]);
        let found = findings("app.rs", "use crate::util::x;");
        assert_eq!(found, ["src/app.rs:1: app uses \"util\", which has no row in the table"]);
    }

    #[test]
    fn the_crate_root_is_not_reached_through_super() {
        assert_eq!(findings("policy/rule.rs", "use super::claim::Claim;"), [""; 0]);
        for (path, line) in [("net.rs", "use super::tls::X;"), ("policy/rule.rs", "use super::super::tls::X;")] {
            assert!(findings(path, line)[0].contains("through \"super\""), "{path}");
        }
    }

    #[test]
    fn pure_modules_name_no_runtime_clock_file_socket_or_randomness() {
        for line in [
            "use tokio::time::sleep;",
            "let now = Instant::now();",
            "let clock = Instant::now;",
            "use std::{fs, io};\nfn f() { fs::read(p) }",
            "use std::net::TcpStream;",
            "use std::net::{IpAddr, UdpSocket};",
            "let x = rand::random();",
        ] {
            assert!(!findings("registry/pick.rs", line).is_empty(), "{line}");
            assert_eq!(findings("net.rs", line), [""; 0], "{line}");
        }
        assert_eq!(findings("id.rs", "let operand = random; // tokio\nlet s = \"Instant::now()\";"), [""; 0]);
    }

    #[test]
    fn a_pure_module_may_be_a_part_of_one_that_is_not() {
        for path in ["initiator/auto.rs", "initiator/auto/probing.rs"] {
            assert!(!findings(path, "let now = Instant::now();").is_empty(), "{path}");
        }
        assert_eq!(findings("initiator/automatic.rs", "let now = Instant::now();"), [""; 0]);
        assert_eq!(findings("initiator/dialer.rs", "let now = Instant::now();"), [""; 0]);
    }

    #[test]
    fn comments_and_tests_are_not_scanned() {
        let text = "// crate::app\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::app::App;\n}\n";
        assert_eq!(findings("id.rs", text), [""; 0]);
        assert_eq!(findings("policy/tests.rs", "use crate::app::App;"), [""; 0]);
    }

    #[test]
    fn another_crate_with_a_similar_name_is_not_meant() {
        assert_eq!(findings("id.rs", "use my_crate::app::App;"), [""; 0]);
    }

    #[test]
    fn a_test_file_nobody_declares_is_found() {
        let stems = ["main", "drain", "reload"].map(String::from);
        let found = undeclared(Path::new("tests/blackbox"), &stems, "mod drain;\n// mod reload;\n");
        assert_eq!(found, ["tests/blackbox: reload.rs is not declared in main.rs"]);
    }
}
