//! Programs from outside that some tests call.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Where `tool` is, or `None` after the calling test was recorded as skipped: the test then returns.
///
/// `tests/run` installs the tools, counts what was recorded in `$ADIT_TEST_SKIPS`, and lets nothing pass as skipped
/// in CI.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|candidate| candidate.is_file());
    if found.is_none() {
        skip(&format!("{tool} is not installed"));
    }
    found
}

/// The Python that has the packages of `tests/foreign/requirements.txt`; otherwise like [`find`].
pub(crate) fn python() -> Option<PathBuf> {
    // tests/run writes the file when all of them are installed.
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv");
    if environment.join("requirements.txt").is_file() {
        return Some(environment.join("bin/python"));
    }
    skip("there is no target/venv with the packages of tests/foreign/requirements.txt");
    None
}

/// Records that the calling test cannot show anything here; the test then returns.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("skipped: {test}: {reason}");
    let Some(list) = std::env::var_os("ADIT_TEST_SKIPS") else { return };
    let mut list = std::fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
    list.write_all(format!("{test}\t{reason}\n").as_bytes()).unwrap();
}
