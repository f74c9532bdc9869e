//! The commands: what they print, where, and with which exit code.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::site::{Cloud, Edge, Folder, Site, Transport, over_each_transport};

over_each_transport!(status_shows_the_tunnels_of_both_roles);

/// Runs `adit` to its end.
async fn adit(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

/// Exit code, standard output, standard error.
fn parts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn check_accepts_what_run_would_run_and_says_what_that_is() {
    let folder = Folder::new();
    let file = folder.write("cloud.yaml", &Cloud::new().text());
    let (code, out, _) = parts(&adit(&["check", file.to_str().unwrap()]).await);
    assert_eq!(code, Some(0));
    assert!(out.contains("cloud.yaml: ok") && out.contains("tunnels over QUIC on 127.0.0.1:0"), "{out}");
}

#[tokio::test]
async fn check_names_every_mistake_with_its_line_and_key() {
    let folder = Folder::new();
    let text = "responder:\n  listen: { quic: nowhere }\n  tls: { cert: missing.pem, key: cloud.key }\n  \
                identity: \"spiffe://example.org/{node}\"\n  nmae: x\nadmin: 7\n";
    let file = folder.write("bad.yaml", text).display().to_string();
    let (code, out, _) = parts(&adit(&["check", &file]).await);
    assert_eq!(code, Some(1));
    for mistake in [
        "2: responder.listen.quic: \"nowhere\"",
        "3: responder.tls.cert: cannot read",
        "5: responder.nmae: is unknown (did you mean \"name\"?)",
        "6: admin: ",
    ] {
        assert!(out.contains(&format!("{file}:{mistake}")), "{mistake} is not in:\n{out}");
    }
    assert!(out.contains("{tenant}") && out.contains("{cluster}"), "the identity proves too little:\n{out}");
    assert!(out.lines().all(|line| line.contains("expected")), "each line says what would be accepted:\n{out}");
}

#[tokio::test]
async fn run_exits_with_2_and_the_same_words_as_check() {
    let folder = Folder::new();
    let file = folder.write("bad.yaml", "responder: {}\nworkers: 0\n").display().to_string();
    let (_, checked, _) = parts(&adit(&["check", &file]).await);
    let (code, out, err) = parts(&adit(&["run", &file]).await);
    assert_eq!((code, out.as_str(), err), (Some(2), "", checked));
    let (code, _, err) = parts(&adit(&["run", "/nowhere/adit.yaml"]).await);
    assert_eq!(code, Some(2));
    assert!(err.contains("/nowhere/adit.yaml"), "{err}");
}

#[tokio::test]
async fn run_names_the_address_that_is_taken() {
    let folder = Folder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let taken = std::net::TcpListener::bind(taken.unwrap()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = folder.write("cloud.yaml", &Cloud::new().egress("http", &format!("\"{address}\"")).text());
    let (code, _, err) = parts(&adit(&["run", file.to_str().unwrap()]).await);
    assert_eq!(code, Some(1));
    assert!(err.contains(&address), "{err}");
}

#[tokio::test]
async fn a_wrong_command_line_exits_with_2_and_says_how_it_is_used() {
    for arguments in [&["fly"][..], &["run"], &["check", "--loud", "x"], &["demo", "--twice"], &[]] {
        let (code, _, err) = parts(&adit(arguments).await);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(err.contains("Usage: adit"), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn version_and_help_exit_with_0() {
    let (code, out, _) = parts(&adit(&["version"]).await);
    assert_eq!(code, Some(0));
    assert!(out.contains(env!("CARGO_PKG_VERSION")), "{out}");
    let (code, out, _) = parts(&adit(&["--help"]).await);
    assert_eq!(code, Some(0));
    for command in ["run", "check", "demo", "status", "pki"] {
        assert!(out.contains(command), "{out}");
    }
}

#[tokio::test]
async fn demo_once_shows_a_round_trip_and_exits_with_0() {
    let (code, out, err) = parts(&adit(&["demo", "--once"]).await);
    assert_eq!(code, Some(0), "{err}");
    for step in ["certificates", "responder", "initiator", "tunnel", "request in", "at the service", "response out"] {
        assert!(out.contains(step), "{step} is not in:\n{out}");
    }
    assert!(out.contains("200, "), "{out}");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn pki_makes_files_that_work_keeps_keys_private_and_overwrites_nothing() {
    let folder = Folder::new();
    let pki = folder.path().join("pki");
    let dir = pki.display().to_string();
    let node = ["pki", "node", &dir, "--node", "edge-1", "--cluster", "stores", "--tenant", "acme"];
    let (code, _, err) = parts(&adit(&node).await);
    assert_eq!(code, Some(1), "there is no CA yet");
    assert!(err.contains("adit pki init"), "{err}");

    let responder = ["pki", "responder", &dir, "--name", "127.0.0.1"];
    for command in [&["pki", "init", &dir][..], &node, &responder] {
        assert_eq!(adit(command).await.status.code(), Some(0), "{command:?}");
    }
    for name in ["ca", "edge-1", "responder"] {
        let key = pki.join(format!("{name}.key"));
        assert_eq!(mode(&key), 0o600, "{}", key.display());
        let before = std::fs::read(&key).unwrap();
        for command in [&["pki", "init", &dir][..], &node, &responder] {
            let (code, _, err) = parts(&adit(command).await);
            assert_eq!(code, Some(1));
            assert!(err.contains("exists"), "{err}");
        }
        assert!(std::fs::read(&key).unwrap() == before, "{} was overwritten", key.display());
    }
    let identity = "\"spiffe://adit.internal/tenant/{tenant}/cluster/{cluster}/node/{node}\"";
    let cloud = Cloud::new()
        .responder("tls", "{ cert: pki/responder.pem, key: pki/responder.key, client_ca: pki/ca.pem }")
        .responder("identity", identity);
    let edge =
        Edge::new(Transport::Quic).initiator("tls", "{ cert: pki/edge-1.pem, key: pki/edge-1.key, ca: pki/ca.pem }");
    let responder = cloud.start(&folder).await;
    let _initiator = edge.start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
}

async fn status_shows_the_tunnels_of_both_roles(transport: Transport) {
    let site = Site::start(transport).await;
    let admin = site.responder.0.admin().to_string();
    let (code, out, _) = parts(&adit(&["status", "--admin", &admin]).await);
    assert_eq!(code, Some(0));
    let row = out.lines().find(|line| line.starts_with("edge-1")).unwrap();
    assert!(out.starts_with("ready\n") && out.contains("1 tunnel accepted"), "{out}");
    for cell in ["stores", "acme", "healthy", transport.label()] {
        assert!(row.contains(cell), "{cell} is not in: {row}");
    }

    let (_, out, _) = parts(&adit(&["status", "--admin", &site.initiator.admin().to_string()]).await);
    assert!(out.contains("1 tunnel dialled") && out.contains("connected"), "{out}");
    assert!(out.contains(&site.responder.tunnel_address().to_string()), "{out}");

    let (code, out, _) = parts(&adit(&["status", "--admin", &admin, "--json"]).await);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["accepted"][0]["node"]), (Some(0), &"edge-1".into()));
}

#[tokio::test]
async fn status_of_nobody_exits_with_1() {
    let nobody = crate::support::ports::free_address().to_string();
    let (code, _, err) = parts(&adit(&["status", "--admin", &nobody]).await);
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("cannot connect to the admin listener at {nobody}")), "{err}");
}
