//! Certificates have an end, and what `adit check`, the log, the metrics and the tunnels make of it.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use crate::support::certificates::{Authority, Certificate, Node};
use crate::support::eventually::eventually;
use crate::support::http1::RawHttp;
use crate::support::site::{Cloud, Edge, Folder, NODE, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(
    a_tunnel_ends_with_the_certificate_that_admitted_it,
    what_runs_when_a_certificate_ends_has_the_time_of_a_drain_also_where_its_site_is_not_heard,
);

/// It was served for ever, and nothing was said.
// spec: SE-40
async fn a_tunnel_ends_with_the_certificate_that_admitted_it(transport: Transport) {
    let folder = Folder::new();
    let responder = Cloud::new().start(&folder).await;
    // As long as a busy machine may need for a first tunnel.
    let shown = folder.authority.node_lasting(NODE, Duration::from_secs(15));
    let initiator = Edge::new(transport).start_with(&folder, responder.tunnel_address(), &shown).await;
    responder.registered(1).await;
    let left = initiator.ask(http::Method::GET, "/metrics").await.1;
    assert!(left.contains("adit_certificate_seconds_left{certificate=\"initiator\"} "), "{left}");
    initiator.line_with("it ends today").await;
    responder.registered(0).await;
    assert_eq!(responder.0.line_with("has ended: draining it").await["level"], "WARN");
    let gone = eventually("the node among those that are gone", async || responder.0.tunnels().await.gone.pop()).await;
    assert_eq!(gone.node, NODE.node);
    initiator.line_with("cannot open a tunnel").await;
}

/// It was cut, as if a process had to stop.
// spec: SE-40
async fn what_runs_when_a_certificate_ends_has_the_time_of_a_drain_also_where_its_site_is_not_heard(
    transport: Transport,
) {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let cloud = Cloud::new().responder("idle_timeout", "600s").responder("keepalive", "500ms");
    let responder = cloud.process("drain_timeout", "600s").start(&folder).await;
    let shown = folder.authority.node_lasting(NODE, Duration::from_secs(20));
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let initiator = edge.start_with(&folder, responder.tunnel_address(), &shown).await;
    responder.registered(1).await;
    let mut client = RawHttp::connect(responder.egress()).await.unwrap();
    client.send(format!("GET /held HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    initiator.freeze();
    responder.0.line_with("tunnel suspect").await;
    responder.0.line_with("has ended: draining it").await;
    responder.0.line_with("tunnel draining").await;
    initiator.thaw();
    target.release();
    let (body, _) = client.body(&head).await.unwrap();
    assert_eq!(body, b"begun\nended\n");
    responder.registered(0).await;
}

struct Checked {
    code: Option<i32>,
    text: String,
}

/// Runs `adit check` on an initiator with this certificate.
fn check(folder: &Folder, edge: &Edge, shown: &Certificate) -> Checked {
    shown.write(folder.path(), "edge");
    let file = folder.write("edge.yaml", &edge.text("127.0.0.1:7843"));
    let output = Command::new(env!("CARGO_BIN_EXE_adit")).args(["check", file.to_str().unwrap()]).output().unwrap();
    Checked { code: output.status.code(), text: String::from_utf8(output.stdout).unwrap() }
}

/// All of these were "ok".
#[test]
fn check_says_what_peers_will_not_take() {
    let folder = Folder::new();
    let edge = Edge::new(Transport::Quic);
    let good = check(&folder, &edge, &folder.authority.node(NODE));
    assert_eq!(good.code, Some(0), "{}", good.text);
    assert!(good.text.contains("initiator.tls.cert: ") && good.text.contains("valid until "), "{}", good.text);
    assert!(
        good.text.contains("name     spiffe://example.org/tenant/acme/cluster/stores/node/edge-1"),
        "{}",
        good.text
    );

    let other = Node { node: "edge-2", ..NODE };
    for (shown, said) in [
        (folder.authority.expired_node(NODE), "expired"),
        (folder.authority.node(other), "its names say node edge-2, the file says edge-1"),
    ] {
        let bad = check(&folder, &edge, &shown);
        assert_eq!(bad.code, Some(1), "{}", bad.text);
        let problem = bad.text.lines().find(|line| line.contains("problem  initiator.tls.cert")).unwrap();
        assert!(problem.contains(said), "{problem}");
    }
    let bad = check(&folder, &edge, &folder.authority.responder());
    assert_eq!(bad.code, Some(1), "a responder's certificate at a node: {}", bad.text);
    let stranger = Authority::new("another CA");
    let foreign = check(&folder, &edge, &stranger.node(NODE));
    assert!(foreign.text.contains("warning  initiator.tls.cert: it is not signed by the CA"), "{}", foreign.text);
    let soon = check(&folder, &edge, &folder.authority.node_lasting(NODE, Duration::from_secs(20 * 24 * 3600)));
    assert_eq!(soon.code, Some(0));
    assert!(soon.text.contains("warning  initiator.tls.cert: it ends in 19 days"), "{}", soon.text);
}

#[test]
fn check_says_of_every_ca_of_the_file_that_it_has_ended() {
    let folder = Folder::new();
    Authority::expired("an old CA").write(folder.path(), "old");
    folder.authority.node(NODE).write(folder.path(), "edge");
    folder.authority.responder().write(folder.path(), "responder");
    let cloud = Cloud::new()
        .responder("tls", "{ cert: responder.pem, key: responder.key, client_ca: old.pem }")
        .egress("tls", "{ cert: responder.pem, key: responder.key, client_ca: old.pem }");
    let service = "{ name: web, match: {}, target: \"https://localhost:1\", tls: { ca: old.pem } }";
    let edge =
        Edge::new(Transport::Quic).initiator("tls", "{ cert: edge.pem, key: edge.key, ca: old.pem }").service(service);
    for (text, keys) in [
        (cloud.text(), ["responder.tls.client_ca", "egress[0].tls.client_ca"]),
        (edge.text("127.0.0.1:7843"), ["initiator.tls.ca", "services[0].tls.ca"]),
    ] {
        let file = folder.write("file.yaml", &text);
        let output = Command::new(env!("CARGO_BIN_EXE_adit")).args(["check", file.to_str().unwrap()]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        for key in keys {
            let problem = format!("problem  {key}: its time is not now");
            assert!(text.lines().any(|line| line.contains(&problem)), "{key}: {text}");
        }
    }
}

#[test]
fn check_says_of_a_late_revocation_list_that_it_counts_still() {
    let folder = Folder::new();
    folder.write("fresh.crl", &folder.authority.crl(&[vec![7]]));
    folder.write("late.crl", &folder.authority.late_crl(&[vec![7]]));
    for (list, warns) in [("fresh.crl", false), ("late.crl", true)] {
        let tls = format!("{{ cert: cloud.pem, key: cloud.key, client_ca: ca.pem, crl: {list} }}");
        let file = folder.write("cloud.yaml", &Cloud::new().responder("tls", &tls).text());
        let output = Command::new(env!("CARGO_BIN_EXE_adit")).args(["check", file.to_str().unwrap()]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        let warning = text.lines().find(|line| line.contains("warning  responder.tls.client_ca: its revocation list"));
        assert_eq!(
            warning.is_some_and(|line| line.contains("late.crl") && line.contains("counts still")),
            warns,
            "{text}"
        );
    }
}

#[test]
fn check_warns_of_a_key_that_others_can_read() {
    let folder = Folder::new();
    let (edge, shown) = (Edge::new(Transport::Quic), folder.authority.node(NODE));
    let key = shown.write(folder.path(), "edge").key;
    for (mode, warns) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let file = folder.write("edge.yaml", &edge.text("127.0.0.1:7843"));
        let output = Command::new(env!("CARGO_BIN_EXE_adit")).args(["check", file.to_str().unwrap()]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.contains("edge.key can be read by others (mode 0644)"), warns, "{text}");
    }
}
