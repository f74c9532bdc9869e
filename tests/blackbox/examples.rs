//! The examples run, and every configuration that a reader may copy is one that adit takes.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit::config::{self, Surroundings};

use crate::support::process::Adit;
use crate::support::tools;

/// The examples that have a test below.
const TESTED: [&str; 7] = ["embedding", "envoy-interop", "fleet", "mtls-pinning", "quickstart", "raw-tcp", "udp"];

/// What every variable in a file stands for: an address, a port pair or a pin.
struct Placeholders;

impl Surroundings for Placeholders {
    fn variable(&self, name: &str) -> Option<String> {
        let pin = || format!("sha256/{}=", "A".repeat(43));
        Some(if name.ends_with("PIN") { pin() } else { "192.0.2.1:7843".to_owned() })
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn can_read(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn has_files(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn quickstart_sends_a_request_through_a_tunnel() {
    let promised = ["admitted as node edge-17", "you asked for /orders", "no node or cluster nobody is connected"];
    run("quickstart", &promised).await;
}

#[tokio::test]
async fn bytes_pass_from_a_listener_to_a_service_and_whoever_nobody_answers_is_reset() {
    run("raw-tcp", &["admitted as node edge-17", "you said 21 bytes", "nobody:    the connection was reset"]).await;
}

#[tokio::test]
async fn a_key_that_is_not_pinned_is_refused_in_both_directions() {
    let promised = ["tunnel to 127.0.0.1:", "refused, 403 forbidden", "this end does not accept the responder"];
    run("mtls-pinning", &promised).await;
}

#[tokio::test]
async fn both_roles_fit_into_one_program_of_less_than_sixty_lines() {
    run("embedding", &["200 OK", "hello from the site"]).await;
    let lines = std::fs::read_to_string(root().join("examples/embedding/main.rs")).unwrap().lines().count();
    assert!(lines < 60, "{lines}");
}

#[tokio::test]
async fn udp_asks_and_is_answered_beyond_the_size_of_a_packet() {
    run("udp", &["admitted as node edge-17", "8000 bytes for 4000 copies", "drained and stopped"]).await;
}

#[tokio::test]
async fn adit_and_envoy_take_each_others_place_at_either_end_of_envoys_tunnels() {
    let mut promised = vec!["adit dials adit", "2 tunnels to", "3 tunnels to", "x-cluster-id: stores-eu: 200"];
    promised.push(match tools::envoy() {
        Some(_) => "adit dials Envoy",
        // adit's part runs all the same.
        None => "no Envoy here",
    });
    run("envoy-interop", &promised).await;
}

#[tokio::test]
async fn a_request_reaches_a_node_of_the_fleet_also_when_the_responder_on_its_way_is_killed() {
    let Some(etcd) = tools::etcd() else { return };
    let mut program = program("fleet");
    program.env("ADIT_ETCD", etcd);
    let answer = "request:   cloud-1 for edge-2: 200, \"edge-2 has /orders\"";
    let log =
        run_program("fleet", program, &["cloud-2 is dead", "cloud-3 has 2 tunnels", answer, "all of it is stopped"])
            .await;
    assert_eq!(log.matches(answer).count(), 3, "{log}");
}

#[tokio::test]
async fn the_fleet_says_what_is_missing_where_there_is_no_etcd() {
    let mut program = program("fleet");
    program.env_remove("ADIT_ETCD").env("PATH", "/nowhere");
    let mut example = Adit::spawn(program);
    assert_eq!(example.exit().await.code(), Some(1));
    example.line_with("there is no etcd here: install it (Debian: apt-get install etcd-server)").await;
}

#[test]
fn every_example_has_a_readme_and_a_test() {
    let folders = std::fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = Vec::new();
    for folder in folders {
        assert!(folder.join("README.md").is_file(), "{}", folder.display());
        names.push(folder.file_name().and_then(OsStr::to_str).unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, TESTED);
}

#[test]
fn every_file_of_the_examples_passes_the_check() {
    let is_ours = |file: &PathBuf| !file.file_name().and_then(OsStr::to_str).unwrap().starts_with("envoy-");
    let files: Vec<_> = files_with("yaml", &root().join("examples")).into_iter().filter(is_ours).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        check(&std::fs::read_to_string(&file).unwrap(), &file);
    }
}

#[test]
fn every_configuration_in_a_readme_passes_the_check() {
    let readmes = files_with("md", &root().join("examples")).into_iter().chain([root().join("README.md")]);
    let mut blocks = 0;
    for readme in readmes {
        let text = std::fs::read_to_string(&readme).unwrap();
        for block in yaml_blocks(&text) {
            check(block, &readme);
            blocks += 1;
        }
    }
    assert!(blocks >= 2, "the README configures both roles: {blocks}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn check(text: &str, file: &Path) {
    if let Err(report) = config::check(text, file, &Placeholders) {
        panic!("{report}");
    }
}

fn yaml_blocks(markdown: &str) -> impl Iterator<Item = &str> {
    markdown.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap())
}

fn files_with(extension: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(extension, &path));
        } else if path.extension() == Some(OsStr::new(extension)) {
            found.push(path);
        }
    }
    found
}

/// Runs an example to its end, which must be a good one, and looks for what it printed.
async fn run(name: &str, promised: &[&str]) {
    run_program(name, program(name), promised).await;
}

/// The same for an example that is called in its own way; returns all that it printed.
async fn run_program(name: &str, program: Command, promised: &[&str]) -> String {
    let mut example = Adit::spawn(program);
    assert!(example.exit().await.success(), "{name} failed:\n{}", example.log());
    for text in promised {
        example.line_with(text).await;
    }
    example.log()
}

/// `cargo test` has built the examples beside the binary; with `--test blackbox` it builds none, so it is done here.
fn program(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_adit")).with_file_name("examples").join(name);
    if !program.is_file() {
        let mut build = Command::new(env!("CARGO"));
        let status = build.current_dir(root()).args(["build", "--quiet", "--example", name]).status().unwrap();
        assert!(status.success() && program.is_file(), "cannot build {}", program.display());
    }
    Command::new(program)
}
