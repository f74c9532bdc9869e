//! The licences and bans of `.deny.toml`, held without cargo-deny being installed.
//!
//! Advisories are left to cargo-deny: they need a database from outside.

mod spdx;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// A package that this platform's build, its tests or its build scripts contain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

#[test]
fn every_licence_is_allowed() {
    let policy = policy();
    let allowed: Vec<&str> = policy["licenses"]["allow"].as_array().unwrap().iter().map(text).collect();
    let refused: Vec<Package> = packages().into_iter().filter(|p| !spdx::satisfied(&p.licence, &allowed)).collect();
    assert!(refused.is_empty(), "licences that .deny.toml does not allow: {refused:#?}");
}

#[test]
fn every_allowed_licence_is_needed() {
    let policy = policy();
    let allowed: Vec<&str> = policy["licenses"]["allow"].as_array().unwrap().iter().map(text).collect();
    let packages = packages();
    for licence in &allowed {
        let others: Vec<&str> = allowed.iter().copied().filter(|other| other != licence).collect();
        let needed = packages.iter().any(|p| !spdx::satisfied(&p.licence, &others));
        assert!(needed, ".deny.toml allows {licence}, which nothing needs");
    }
}

#[test]
fn no_banned_package_is_linked() {
    let policy = policy();
    let bans: Vec<&str> = policy["bans"]["deny"].as_array().unwrap().iter().map(|ban| text(&ban["crate"])).collect();
    let packages = packages();
    let found: Vec<String> = bans
        .iter()
        .flat_map(|ban| packages.iter().filter(|p| is_banned(p, ban)).map(move |p| format!("{} {}", p.name, p.version)))
        .collect();
    assert!(found.is_empty(), "banned by .deny.toml: {found:?}");
}

/// A ban is a name, or `name:<version` for everything below that version.
fn is_banned(package: &Package, ban: &str) -> bool {
    match ban.split_once(":<") {
        None => package.name == ban,
        Some((name, floor)) => package.name == name && numbers(&package.version) < numbers(floor),
    }
}

/// `1.11.1` as numbers, so that 1.11 is newer than 1.9; what a pre-release adds does not count.
fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap();
    release.split('.').map(|part| part.parse().unwrap()).collect()
}

fn policy() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn text(value: &toml::Value) -> &str {
    value.as_str().unwrap()
}

/// `cargo tree` rather than `cargo metadata`, which also names optional packages that no build contains.
fn packages() -> BTreeSet<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}\t{l}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packages: BTreeSet<Package> = String::from_utf8(output.stdout).unwrap().lines().filter_map(package).collect();
    assert!(packages.len() > 50, "cargo tree named only {} packages", packages.len());
    packages
}

/// Reads `name v1.2.3 (proc-macro)<tab>licence`, where `(*)` may follow for a repeated entry.
fn package(line: &str) -> Option<Package> {
    let (package, licence) = line.split_once('\t')?;
    let mut words = package.split(' ');
    let name = words.next()?.to_owned();
    let version = words.next()?.strip_prefix('v')?.to_owned();
    Some(Package { name, version, licence: licence.trim_end_matches(" (*)").to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_bans_what_is_below_it_and_a_name_bans_all() {
        let h2 = |version: &str| package(&format!("h2 v{version}\tMIT (*)")).unwrap();
        assert!(is_banned(&h2("0.4.9"), "h2:<0.4.16"));
        assert!(!is_banned(&h2("0.4.16"), "h2:<0.4.16"));
        assert!(!is_banned(&h2("0.4.9"), "h2-sys:<0.4.16"));
        assert!(is_banned(&h2("0.4.16"), "h2"));
        assert_eq!(h2("1.0.0").licence, "MIT");
    }
}
