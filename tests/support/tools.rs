//! Programs from outside that some tests call.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Where `tool` is, or `None` after the calling test was recorded as skipped: the test then returns.
///
/// `tests/run` installs the tools, counts what was recorded in `$ADIT_TEST_SKIPS`, and lets nothing pass as skipped
/// in CI.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    let found = on_path(tool);
    if found.is_none() {
        skip(&format!("{tool} is not installed"));
    }
    found
}

/// Where `tool` is among the folders of `$PATH`.
pub(crate) fn on_path(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|candidate| candidate.is_file())
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

/// The real Envoy of `tests/envoy/requirements.txt`, or the one that `$ADIT_ENVOY` names; otherwise like [`find`].
pub(crate) fn envoy() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ADIT_ENVOY").map(PathBuf::from) {
        assert!(path.is_file(), "$ADIT_ENVOY names {}, which is no file", path.display());
        return Some(path);
    }
    let targets = [Some(concat!(env!("CARGO_MANIFEST_DIR"), "/target").into()), std::env::var_os("CARGO_TARGET_DIR")];
    let environments = targets.into_iter().flatten().map(|target| PathBuf::from(target).join("envoy-venv"));
    // tests/run writes the file when the installation is whole.
    let found = environments.into_iter().find(|environment| environment.join("requirements.txt").is_file());
    if found.is_none() {
        skip("there is no target/envoy-venv with the Envoy of tests/envoy/requirements.txt");
    }
    found.map(|environment| environment.join("bin/envoy"))
}

/// The real etcd that `tests/run` unpacked, or that is installed; otherwise like [`find`].
pub(crate) fn etcd() -> Option<PathBuf> {
    let targets = [Some(concat!(env!("CARGO_MANIFEST_DIR"), "/target").into()), std::env::var_os("CARGO_TARGET_DIR")];
    let unpacked = targets.into_iter().flatten().map(|target| PathBuf::from(target).join("etcd/usr/bin/etcd"));
    unpacked.into_iter().find(|binary| binary.is_file()).or_else(|| find("etcd"))
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
