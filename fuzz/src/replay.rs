//! Runs every body over the vectors, the seeds and what once broke, in plain `cargo test`.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/conformance/vector_file.rs"]
mod vector_file;

use std::fs;
use std::path::{Path, PathBuf};

use vector_file::{Vector, load};

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 30] = [
    ("varint", crate::varint),
    ("handshake", crate::handshake),
    ("stream_header", crate::stream_header),
    ("datagram", crate::datagram),
    ("control", crate::control),
    ("headers", crate::headers),
    ("envoy_handshake", crate::envoy_handshake),
    ("session_ops", crate::session_ops),
    ("template_parse", crate::template_parse),
    ("template_eval", crate::template_eval),
    ("spki_pin", crate::spki_pin),
    ("registry_ops", crate::registry_ops),
    ("config", crate::config),
    ("host_header", crate::host_header),
    ("request_head", crate::request_head),
    ("service_stream", crate::service_stream),
    ("flow_ops", crate::flow_ops),
    ("capsules", crate::capsules),
    ("http2_guard", crate::http2_guard),
    ("http3_request", crate::http3_request),
    ("http3_control", crate::http3_control),
    ("http3_early", crate::http3_early),
    ("client_hello", crate::client_hello),
    ("proxy_header", crate::proxy_header),
    ("traffic_rules", crate::traffic_rules),
    ("sibling", crate::sibling),
    ("fleet_records", crate::fleet_records),
    ("response_head", crate::response_head),
    ("client_source", crate::client_source),
    ("http_datagram", crate::http_datagram),
];

/// Inputs for the bodies that a vector is good for. Bodies that take a choice from the first byte get several.
fn inputs(vector: &Vector) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = vector.bytes();
    let after = |first: u8| [&[first], &bytes[..]].concat();
    match vector.kind.as_str() {
        "varint" => vec![("varint", bytes)],
        "datagram" => vec![("datagram", bytes)],
        "greeting" => vec![("sibling", after(0))],
        "route" => vec![("sibling", after(1))],
        // Without the two or more bytes of the frame's header, a message of the handshake is left.
        "control" => vec![
            ("control", after(1)),
            ("control", after(7)),
            ("handshake", bytes.get(2..).unwrap_or_default().to_vec()),
            ("handshake", bytes.get(3..).unwrap_or_default().to_vec()),
        ],
        "request" => vec![("stream_header", after(0x04)), ("stream_header", after(0x1c | 2))],
        // Between siblings it has a frame more, which is skipped where a response of a tunnel is read.
        "response" | "relayed_response" => vec![("stream_header", after(0x05)), ("stream_header", after(0x1d | 2))],
        "service_request" => service(0, &bytes),
        "raw_answer" => service(1, &bytes),
        "flow_answer" => service(2, &bytes),
        "flow_body" => service(3, &bytes),
        "envoy_request" => envoy(0x00, &bytes),
        "envoy_request_upgrade" => envoy(0x10, &bytes),
        "envoy_response" => envoy(0x01, &bytes),
        "envoy_response_upgrade" => envoy(0x11, &bytes),
        // Judged by the vectors' own test; no fuzz target reads frames of HTTP/2.
        "http2_requests" | "http2_responses" => Vec::new(),
        "envoy_idle" => envoy(0x02, &bytes),
        other => panic!("{}: unknown kind {other}", vector.name),
    }
}

/// Who reads and how the bytes are split, the bytes.
fn service(who: u8, bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    [1, 7].map(|step| ("service_stream", [&[step << 2 | who], bytes].concat())).into()
}

/// Which end reads, how the bytes are split, the bytes.
fn envoy(what: u8, bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    [1, 7].map(|step| ("envoy_handshake", [&[what, step], bytes].concat())).into()
}

fn run(target: &str, input: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    body(input);
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Files of `kind/target/`, with the target.
fn files(kind: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for target in fs::read_dir(folder(kind)).into_iter().flatten() {
        let target = target.unwrap();
        let name = target.file_name().into_string().unwrap();
        found.extend(fs::read_dir(target.path()).unwrap().map(|file| (name.clone(), file.unwrap().path())));
    }
    found
}

#[test]
fn vectors() {
    for vector in load("valid").iter().chain(&load("invalid")) {
        inputs(vector).iter().for_each(|(target, input)| run(target, input));
    }
}

/// The files that the tests of the crate's module `config` read.
fn configurations() -> Vec<PathBuf> {
    let folders = ["good", "bad"].map(|name| folder("../src/config/tests").join(name));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

#[test]
fn configuration_files() {
    let files = configurations();
    assert!(!files.is_empty());
    files.iter().for_each(|file| run("config", &fs::read(file).unwrap()));
}

#[test]
fn seeds_and_regressions() {
    for (target, file) in [files("seeds"), files("regressions")].concat() {
        run(&target, &fs::read(file).unwrap());
    }
}

#[test]
fn every_target_is_declared_and_has_its_file() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is missing in Cargo.toml");
        let source = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(source.contains(&format!("adit_fuzz::{name}(data)")), "{name}.rs runs something else");
    }
    assert_eq!(fs::read_dir(folder("fuzz_targets")).unwrap().count(), TARGETS.len());
}

#[test]
fn vectors_and_configurations_become_the_corpus_that_fuzzing_starts_from() {
    for vector in load("valid").iter().chain(&load("invalid")) {
        for (at, (target, input)) in inputs(vector).into_iter().enumerate() {
            let corpus = folder("corpus").join(target);
            fs::create_dir_all(&corpus).unwrap();
            fs::write(corpus.join(format!("{}-{}-{at}", vector.kind, vector.name)), input).unwrap();
        }
    }
    fs::create_dir_all(folder("corpus/config")).unwrap();
    for file in configurations() {
        fs::copy(&file, folder("corpus/config").join(file.file_name().unwrap())).unwrap();
    }
    assert!(fs::read_dir(folder("corpus/stream_header")).unwrap().count() > 10);
}
