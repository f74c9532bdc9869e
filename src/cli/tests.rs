//! The command line as its users see it: help texts, tables and summaries as snapshots. `UPDATE_SNAPSHOTS=1` writes
//! them anew.

use std::path::{Path, PathBuf};

use adit::admin::{AcceptedTunnel, DialledTunnel, GoneNode, ServiceReport, TransportPath, TunnelsReport};
use adit::config::{self, Nowhere};
use clap::CommandFactory as _;

use super::status::View;
use super::*;

fn compare(name: &str, produced: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/tests").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, produced).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(produced, expected, "{name}");
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_is_as_documented() {
    let mut text = String::new();
    let mut root = Cli::command();
    root.build();
    let mut queue = vec![root];
    while let Some(mut command) = queue.pop() {
        let help = command.render_long_help();
        text += &format!("$ {} --help\n{help}\n", command.get_bin_name().unwrap_or("adit"));
        queue.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned());
    }
    compare("help.txt", &text);
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&["adit"][..], &["adit", "run"], &["adit", "status", "--admin", "nowhere"], &["adit", "fly"]] {
        assert_eq!(Cli::try_parse_from(arguments).unwrap_err().exit_code(), i32::from(MISUSED), "{arguments:?}");
    }
}

#[test]
fn a_summary_names_everything_that_would_run() {
    let file = "responder:\n  listen: { quic: '0.0.0.0:7843' }\n  tls: { cert: a, key: b }\n  insecure_accept_any: true\n\
                egress: [{ http: '0.0.0.0:8085', host_id: '%REQ(x-node-id)%' }]\n\
                initiator:\n  tunnels: ['rc://edge-17:stores-eu:acme@cloud.example.com:7843:2']\n  tls: { ca: c }\n\
                services:\n  - { name: api, match: { host: '*.example.org' }, target: 'http://127.0.0.1:8080' }\n  \
                - { name: web, match: none, target: 'unix:/run/web.sock' }\n\
                admin: '0.0.0.0:9901'\n\
                fleet:\n  etcd: 'http://127.0.0.1:2379'\n  siblings_at: 'adit.internal:7844'\n  hop:\n    listen: '0.0.0.0:7844'\n    \
                identity: 'spiffe://example.org/responder/{responder}'\n    tls: { cert: c, key: d, ca: e }\n";
    let checked = config::check(file, Path::new("adit.yaml"), &Nowhere).unwrap();
    compare("summary.txt", &check::summary(&checked));
}

#[test]
fn a_status_shows_both_roles() {
    let accepted = AcceptedTunnel {
        node: "edge-17".into(),
        cluster: "stores-eu".into(),
        tenant: "acme".into(),
        health: "healthy".into(),
        transport: "quic".into(),
        remote: "203.0.113.9:50123".into(),
        age_seconds: 93_784,
        rtt_ms: 48.26,
        in_flight: 3,
        exchanges: 40,
        sent_bytes: 1 << 30,
        received_bytes: 1000,
        ..AcceptedTunnel::default()
    };
    let dialled = DialledTunnel {
        to: "cloud.example.com:7843".into(),
        remote: Some("198.51.100.7:7843".into()),
        state: "backoff".into(),
        transport: "quic".into(),
        since_seconds: 61,
        reason: Some("refused: 403 forbidden: the certificate does not prove edge-17".into()),
        retry_in_seconds: Some(12),
        ..DialledTunnel::default()
    };
    let path = |transport: &str, state: &str| TransportPath {
        transport: transport.into(),
        state: state.into(),
        since_seconds: 12,
        ..TransportPath::default()
    };
    let silent = Some("the tunnel went silent".into());
    let quic = TransportPath {
        up_seconds: 7200,
        reason: silent.clone(),
        probe_in_seconds: Some(8),
        ..path("quic", "waiting_to_probe")
    };
    let over_tcp = DialledTunnel {
        to: "cloud.example.com:7843".into(),
        remote: Some("198.51.100.8:7843".into()),
        slot: 2,
        state: "recovered".into(),
        transport: "tcp".into(),
        since_seconds: 12,
        rtt_ms: Some(51.0),
        switches: 1,
        switch_reason: silent,
        paths: vec![quic, TransportPath { up_seconds: 12, ..path("tcp", "up") }],
        ..DialledTunnel::default()
    };
    let gone = GoneNode {
        node: "edge-18".into(),
        cluster: "stores-eu".into(),
        tenant: "acme".into(),
        since_seconds: 86_400,
        reason: "idle: no sign of life".into(),
    };
    let service = |name: &str, state: &str| ServiceReport {
        name: name.into(),
        target: format!("http://{name}.internal"),
        state: state.into(),
        since_seconds: 75,
        ..ServiceReport::default()
    };
    let down = ServiceReport { cause: Some("target_refused".into()), ..service("api", "down") };
    let services = vec![down, ServiceReport { refused: 3, ..service("web", "up") }];
    let report =
        TunnelsReport { accepted: vec![accepted], dialled: vec![dialled, over_tcp], gone: vec![gone], services };
    let narrow = View { width: 80, wide: false, all: false };
    let shown = status::show(&report, "the first tunnel\n", narrow);
    let wide = status::show(&report, "the first tunnel\n", View { width: usize::MAX, wide: true, all: true });
    let nothing = status::show(&TunnelsReport::default(), "ready\n", narrow);
    compare("status.txt", &[shown, wide, nothing].join("--\n"));
}

/// It was 1,004 lines long, and each was wider than a terminal.
#[test]
fn the_status_of_a_thousand_tunnels_fits_a_terminal_and_begins_with_what_is_not_well() {
    let tunnel = |number: usize| AcceptedTunnel {
        node: format!("edge-with-a-rather-long-name-{number}"),
        cluster: format!("stores-{}", number % 7),
        tenant: "a-tenant-with-a-long-name".into(),
        health: if number == 777 { "suspect".into() } else { "healthy".into() },
        transport: "quic".into(),
        rtt_ms: 1234.5,
        age_seconds: 93_784,
        ..AcceptedTunnel::default()
    };
    let report = TunnelsReport { accepted: (0..1000).map(tunnel).collect(), ..TunnelsReport::default() };
    let text = status::show(&report, "ready\n", View { width: 80, wide: false, all: false });
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 80 && text.lines().count() < 40, "{text}");
    assert!(text.contains("1000 tunnels accepted from 1000 nodes: 1 suspect"), "{text}");
    assert!(text.contains("stores-6") && text.contains("… and 980 more tunnels; --all shows them"), "{text}");
    let (cluster, node) = (text.find("CLUSTER").unwrap(), text.find("suspect  quic").unwrap());
    assert!(cluster < node && node < text.find("healthy").unwrap(), "{text}");
    let all = status::show(&report, "ready\n", View { width: 80, wide: false, all: true });
    assert!(all.lines().count() > 1000);
}

#[test]
fn certificates_are_made_once_and_pass_the_check_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    let execute = |arguments: &[&str]| execute(Cli::try_parse_from(arguments).unwrap().command);
    execute(&["adit", "pki", "init", &dir]).unwrap();
    assert!(execute(&["adit", "pki", "init", &dir]).is_err(), "a CA was overwritten");
    execute(&["adit", "pki", "node", &dir, "--node", "edge-17", "--cluster", "stores-eu"]).unwrap();
    execute(&["adit", "pki", "responder", &dir, "--name", "cloud.example.com", "--name", "127.0.0.1"]).unwrap();
    let file = folder.path().join("adit.yaml");
    let text = "responder:\n  listen: { quic: '127.0.0.1:0' }\n  \
                tls: { cert: responder.pem, key: responder.key, client_ca: ca.pem }\n  \
                identity: 'spiffe://adit.internal/tenant/{tenant}/cluster/{cluster}/node/{node}'\n\
                initiator:\n  tunnels: ['rc://edge-17:stores-eu:@127.0.0.1:7843']\n  \
                tls: { cert: edge-17.pem, key: edge-17.key, ca: ca.pem }\nservices: []\n";
    std::fs::write(&file, text).unwrap();
    let checked = config::load(&file, &config::Process).unwrap();
    let responder = checked.responder.unwrap();
    responder.admission.rules().unwrap();
    responder.tls.credentials().unwrap();
    responder.tls.trust().unwrap();
    checked.initiator.unwrap().tls.initiator().unwrap();
    std::fs::write(&file, text.replace("key: edge-17.key", "key: responder.key")).unwrap();
    let report = config::load(&file, &config::Process).unwrap_err().to_string();
    assert!(report.contains("initiator.tls.cert: ") && report.contains("does not belong"), "{report}");
}
