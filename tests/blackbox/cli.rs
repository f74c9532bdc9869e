//! The commands: what they print, where, and with which exit code.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::site::{Cloud, Edge, Folder, Site, Transport, over_each_transport};

over_each_transport!(status_shows_the_tunnels_of_both_roles);

/// Runs `adit` to its end.
pub(crate) async fn adit(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

/// Exit code, standard output, standard error.
pub(crate) fn parts(output: &Output) -> (Option<i32>, String, String) {
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
async fn check_diff_says_what_changes_and_exits_as_diff_does() {
    let folder = Folder::new();
    let old = folder.write("old.yaml", &Cloud::new().egress("hold", "5s").text()).display().to_string();
    let new = folder.write("new.yaml", &Cloud::new().process("log", "{ level: debug }").text()).display().to_string();
    let (code, out, err) = parts(&adit(&["check", "--diff", &old, &new]).await);
    let lines = "~ egress[127.0.0.1:0].hold: 5s -> 2s\n~ log.level: info -> debug\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(1), lines, ""));
    let (code, out, _) = parts(&adit(&["check", "--diff", &new, &new]).await);
    assert_eq!((code, out.as_str()), (Some(0), ""));
    let bad = folder.write("bad.yaml", "responder: {}\n").display().to_string();
    for [one, other] in [[&bad, &new], [&new, &bad]] {
        let (code, out, err) = parts(&adit(&["check", "--diff", one, other]).await);
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(err.contains("bad.yaml:1: responder.listen: is missing"), "{err}");
    }
}

/// A former version of the file is somewhere else, and what it names may be gone.
#[tokio::test]
async fn check_diff_takes_a_former_file_from_anywhere() {
    let (folder, elsewhere) = (Folder::new(), tempfile::tempdir().unwrap());
    let old = elsewhere.path().join("of-yesterday");
    let former = "{ cert: cloud.pem, key: cloud.key, client_ca: gone.pem }";
    std::fs::write(&old, Cloud::new().responder("tls", former).text()).unwrap();
    let new = folder.write("cloud.yaml", &Cloud::new().text());
    let (code, out, _) = parts(&adit(&["check", "--diff", old.to_str().unwrap(), new.to_str().unwrap()]).await);
    let at = folder.path().display();
    assert_eq!((code, out), (Some(1), format!("~ responder.tls.client_ca: {at}/gone.pem -> {at}/ca.pem\n")));
    // So may the file of a secret be.
    let step = |value: &str| format!("[ {{ set: {{ name: x-a, value: \"{value}\" }} }} ]");
    std::fs::write(&old, Cloud::new().egress("rewrite", &step("file:gone.txt")).text()).unwrap();
    let new = folder.write("cloud.yaml", &Cloud::new().egress("rewrite", &step("a value")).text());
    let (code, out, err) = parts(&adit(&["check", "--diff", old.to_str().unwrap(), new.to_str().unwrap()]).await);
    assert!(code == Some(1) && out.contains("rewrite"), "{out}{err}");
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
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
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

#[tokio::test]
async fn check_keys_says_what_each_key_takes() {
    let (code, out, _) = parts(&adit(&["check", "--keys"]).await);
    assert_eq!(code, Some(0));
    let entry = out.split("\n### ").find(|entry| entry.starts_with("`egress[].hold`")).unwrap();
    assert!(
        entry.contains("0 to 5m") && entry.contains("default  2s") && entry.contains("example  hold: 2s"),
        "{entry}"
    );
    let committed = include_str!("../../src/config/keys.md");
    assert_eq!(out, committed, "the page that the README points to");
}

#[tokio::test]
async fn pki_keeps_tenants_apart_replaces_only_when_told_to_and_revokes() {
    let folder = Folder::new();
    let pki = folder.path().join("pki");
    let dir = pki.display().to_string();
    let run = async |arguments: &[&str]| parts(&adit(&[&["pki"][..], arguments].concat()).await);
    assert_eq!(run(&["init", &dir]).await.0, Some(0));
    for tenant in ["acme", "umbrella"] {
        let (code, out, err) =
            run(&["node", &dir, "--node", "edge-1", "--cluster", "stores", "--tenant", tenant]).await;
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains(&format!("proves edge-1:stores:{tenant}")), "{out}");
    }
    assert!(pki.join("edge-1.pem").is_file() && pki.join("umbrella.edge-1.pem").is_file());
    let before = std::fs::read(pki.join("edge-1.pem")).unwrap();
    let again = ["node", &dir, "--node", "edge-1", "--cluster", "stores", "--tenant", "acme"];
    let (code, _, err) = run(&again).await;
    assert!(code == Some(1) && err.contains("exists; --force"), "{err}");
    assert_eq!(run(&[&again[..], &["--force"]].concat()).await.0, Some(0));
    assert!(std::fs::read(pki.join("edge-1.pem")).unwrap() != before);
    for wrong in [
        &["node", &dir, "--node", "edge-2", "--cluster", "stores", "--days", "0"][..],
        &["node", &dir, "--node", "edge-2", "--cluster", "stores", "--days", "1000000"],
        &["node", &dir, "--node", "edge-2", "--cluster", "stores", "--out", "../edge-2"],
        &["responder", &dir, "--name", "https://cloud.example.com"],
    ] {
        assert_ne!(run(wrong).await.0, Some(0), "{wrong:?}");
    }
    assert!(!pki.join("edge-2.pem").exists() && !pki.join("responder.pem").exists());
    for (certificate, said) in
        [("edge-1.pem", "is revoked"), ("umbrella.edge-1.pem", "is revoked"), ("edge-1.pem", "already")]
    {
        let (code, out, err) = run(&["revoke", &dir, pki.join(certificate).to_str().unwrap()]).await;
        assert!(code == Some(0) && out.contains(said), "{out}{err}");
    }
    let elsewhere = folder.path().join("elsewhere").display().to_string();
    assert_eq!(run(&["init", &elsewhere]).await.0, Some(0));
    assert_eq!(run(&["node", &elsewhere, "--node", "edge-1", "--cluster", "stores"]).await.0, Some(0));
    for foreign in [format!("{elsewhere}/edge-1.pem"), format!("{dir}/ca.pem")] {
        let (code, _, err) = run(&["revoke", &dir, &foreign]).await;
        assert!(code == Some(1) && err.contains("was not issued by the CA in"), "{err}");
    }
    let list = adit::tls::pki::Revocations::load(&pki.join("revoked.crl")).unwrap();
    assert_eq!((list.serials.len(), list.number), (2, 3));
    assert_eq!(adit::load_roots(&pki.join("ca.pem")).unwrap().len(), 1);
}

/// All nodes of the new CA were refused, and the check said nothing.
#[tokio::test]
async fn each_ca_that_is_trusted_has_a_list_of_its_own_once_there_is_one() {
    let folder = Folder::new();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let run = async |arguments: &[&str]| parts(&adit(arguments).await);
    for ca in ["old", "new"] {
        assert_eq!(run(&["pki", "init", &at(ca)]).await.0, Some(0));
    }
    assert_eq!(run(&["pki", "responder", &at("old"), "--name", "127.0.0.1"]).await.0, Some(0));
    let both = ["old/ca.pem", "new/ca.pem"].map(|ca| std::fs::read_to_string(at(ca)).unwrap()).concat();
    folder.write("both.pem", &both);
    let file = |lists: &str| {
        let tls = format!("{{ cert: old/responder.pem, key: old/responder.key, client_ca: both.pem, crl: {lists} }}");
        let identity = "spiffe://adit.internal/tenant/{tenant}/cluster/{cluster}/node/{node}";
        let text =
            format!("responder:\n  listen: {{ quic: \"127.0.0.1:0\" }}\n  tls: {tls}\n  identity: \"{identity}\"\n");
        folder.write("cloud.yaml", &text);
        at("cloud.yaml")
    };
    // Without a certificate the list is empty.
    assert_eq!(run(&["pki", "revoke", &at("old")]).await.0, Some(0));
    let (code, out, err) = run(&["check", &file("old/revoked.crl")]).await;
    assert!(
        code == Some(1) && format!("{out}{err}").contains("responder.tls.crl: has no list of the CA"),
        "{out}{err}"
    );
    assert_eq!(run(&["pki", "revoke", &at("new")]).await.0, Some(0));
    let (code, out, err) = run(&["check", &file("[old/revoked.crl, new/revoked.crl]")]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    // The list of one CA is not overwritten with that of another one.
    std::fs::copy(at("old/revoked.crl"), at("new/revoked.crl")).unwrap();
    let (code, _, err) = run(&["pki", "revoke", &at("new")]).await;
    assert!(code == Some(1) && err.contains("is no list that this CA has signed"), "{err}");
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
    // Otherwise a responder that has just started waits a while for nodes that it may have known before.
    let site = Site::with(Cloud::new().responder("grace", "0"), Edge::new(transport)).await;
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
