//! Targets behind TLS, and what they get to see; their server others wrote.

use std::path::Path;
use std::process::Command;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use serde_json::Value;
use time::OffsetDateTime;

use crate::support::certificates::Authority;
use crate::support::http1::{Response, get};
use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, Folder, Responder, Running, TO_NODE, Transport, over_each_transport};
use crate::support::tools::find;

over_each_transport!(
    a_target_that_shows_a_genuine_certificate_is_served,
    what_is_wrong_with_a_target_is_a_502_that_says_so,
    a_target_that_asks_for_a_certificate_gets_the_one_of_the_service,
    whoever_answers_is_a_target_only_where_the_file_says_insecure,
    a_request_is_rewritten_as_its_service_says,
    a_socket_in_the_file_system_is_a_target_too,
);

/// A site whose targets are Python's.
struct Place {
    responder: Responder,
    initiator: Running,
    _targets: Program,
    _folder: Folder,
}

/// The files of this folder, as arguments of `target.py`.
fn shown(folder: &Path, names: &[&str]) -> String {
    let path = |name: &&str| folder.join(name).display().to_string();
    names.iter().map(path).collect::<Vec<_>>().join(",")
}

impl Place {
    /// One target for each of `shown`, each with the service that `service` makes of its number and port.
    async fn new(
        folder: Folder,
        transport: Transport,
        shown: &[String],
        service: impl Fn(usize, &str) -> String,
    ) -> Option<Self> {
        let mut command = Command::new(find("python3")?);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/target.py")).args(shown);
        let targets = Program::spawn("target.py", command);
        let ports = targets.line_with("ports").await;
        let mut edge = Edge::new(transport);
        for (index, port) in ports.split(' ').skip(1).enumerate() {
            edge = edge.service(&service(index, port));
        }
        let responder = Cloud::new().start(&folder).await;
        let initiator = edge.start(&folder, responder.tunnel_address()).await;
        responder.registered(1).await;
        Some(Self { responder, initiator, _targets: targets, _folder: folder })
    }

    async fn get(&self, path: &str) -> Response {
        get(self.responder.egress(), path, &[TO_NODE]).await.unwrap()
    }

    async fn facts(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{}", response.text());
        serde_json::from_slice(&response.body).unwrap()
    }
}

/// A folder with `target.pem` and `target.key` for localhost, signed by `targets-ca.pem`.
fn folder() -> (Folder, Authority) {
    let (folder, authority) = (Folder::new(), Authority::new("CA of targets"));
    authority.write(folder.path(), "targets-ca");
    authority.responder().write(folder.path(), "target");
    (folder, authority)
}

async fn a_target_that_shows_a_genuine_certificate_is_served(transport: Transport) {
    let (folder, _) = folder();
    let files = [shown(folder.path(), &["target.pem", "target.key"])];
    let service = |_: usize, port: &str| {
        format!("{{ name: web, match: {{}}, target: \"https://localhost:{port}\", tls: {{ ca: targets-ca.pem }} }}")
    };
    let Some(place) = Place::new(folder, transport, &files, service).await else { return };
    for asked in 1..=3 {
        let facts = place.facts("/a?b=c").await;
        assert_eq!((&facts["path"], &facts["sni"]), (&"/a?b=c".into(), &"localhost".into()), "{facts}");
        assert_eq!((&facts["alpn"], &facts["version"]), (&"http/1.1".into(), &"TLSv1.3".into()), "{facts}");
        assert_eq!(facts["asked"], asked, "all on one connection, whatever TLS says in between: {facts}");
    }
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let mut client = crate::support::http1::RawHttp::connect(place.responder.egress()).await.unwrap();
    let head = format!("POST /echo HTTP/1.1\r\nhost: h\r\n{TO_NODE}\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), &body].concat()).await.unwrap();
    let response = client.response().await.unwrap();
    assert!(response.status() == 200 && response.body == body, "{} bytes came back", response.body.len());
}

async fn what_is_wrong_with_a_target_is_a_502_that_says_so(transport: Transport) {
    let (folder, authority) = folder();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let other = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    Authority::new("another CA").issue(params.clone()).write(folder.path(), "unknown");
    params.not_after = OffsetDateTime::now_utc() - time::Duration::hours(1);
    authority.issue(params).write(folder.path(), "expired");
    authority.issue(other).write(folder.path(), "other");
    let pair = |name: &str| shown(folder.path(), &[&format!("{name}.pem"), &format!("{name}.key")]);
    let files = [pair("unknown"), pair("expired"), pair("other"), "clear".to_owned(), pair("target")];
    let service = |index: usize, port: &str| {
        let scheme = if index == 4 { "h2" } else { "https" };
        format!(
            "{{ name: s{index}, match: {{ prefix: /{index} }}, target: \"{scheme}://localhost:{port}\", \
             tls: {{ ca: targets-ca.pem }} }}"
        )
    };
    let Some(place) = Place::new(folder, transport, &files, service).await else { return };
    for (path, error, words) in [
        ("/0", "tls_certificate_error", "is not signed by a trusted CA: its issuer is \"CN=another CA\""),
        ("/1", "tls_certificate_error", "has expired"),
        ("/2", "tls_certificate_error", "is not for the name dialled, \"localhost\"; it is for \"other.example\""),
        ("/3", "tls_protocol_error", "does not speak TLS"),
        (
            "/4",
            "tls_protocol_error",
            "does not choose HTTP/2 in the handshake of TLS (ALPN h2); https:// takes HTTP/1.1",
        ),
    ] {
        let response = place.get(path).await;
        assert_eq!(response.status(), 502, "{path}: {}", response.text());
        let told = response.field("proxy-status").unwrap_or_default();
        assert!(told.starts_with(&format!("adit; error={error}; ")), "{path}: {told}");
        assert!(response.text().contains(words), "{path}: {}", response.text());
        let warned = place.initiator.line_with(&format!("\"service\":\"s{}\"", &path[1..])).await;
        assert_eq!(warned["level"], "WARN", "{warned}");
    }
    let series = "adit_exchanges_failed_total{side=\"egress\",cause=\"target_tls_certificate\"}";
    place.responder.0.counted(series, 3).await;
}

async fn a_target_that_asks_for_a_certificate_gets_the_one_of_the_service(transport: Transport) {
    let (folder, authority) = folder();
    authority.either_role("site.example", None).write(folder.path(), "site");
    let files = vec![shown(folder.path(), &["target.pem", "target.key", "targets-ca.pem"]); 2];
    let service = |index: usize, port: &str| {
        let shows = if index == 0 { ", cert: site.pem, key: site.key" } else { "" };
        format!(
            "{{ name: s{index}, match: {{ prefix: /{index} }}, target: \"https://localhost:{port}\", \
             tls: {{ ca: targets-ca.pem{shows} }} }}"
        )
    };
    let Some(place) = Place::new(folder, transport, &files, service).await else { return };
    let facts = place.facts("/0").await;
    assert!(facts["client"].as_array().unwrap().contains(&"site.example".into()), "{facts}");
    let response = place.get("/1").await;
    assert_eq!(response.status(), 502);
    assert!(response.field("proxy-status").is_some(), "{}", response.text());
}

async fn whoever_answers_is_a_target_only_where_the_file_says_insecure(transport: Transport) {
    let (folder, _) = folder();
    Authority::new("another CA").responder().write(folder.path(), "unknown");
    let files = [shown(folder.path(), &["unknown.pem", "unknown.key"])];
    let service = |_: usize, port: &str| {
        format!(
            "{{ name: web, match: {{}}, target: \"https://127.0.0.1:{port}\", tls: {{ insecure_accept_any: true }} }}"
        )
    };
    let Some(place) = Place::new(folder, transport, &files, service).await else { return };
    assert_eq!(place.facts("/").await["asked"], 1);
    let line = place.initiator.line_with("tls.insecure_accept_any").await;
    let said = line["message"].as_str().unwrap();
    assert!(line["level"] == "WARN" && said.starts_with("service web: "), "{line}");
}

async fn a_socket_in_the_file_system_is_a_target_too(transport: Transport) {
    let folder = Folder::new();
    let socket = format!("unix:{}", folder.path().join("api.sock").display());
    // Relative to the file.
    let service = |_: usize, _: &str| "{ name: web, match: {}, target: \"unix:api.sock\" }".to_owned();
    let Some(place) = Place::new(folder, transport, &[socket], service).await else { return };
    for asked in 1..=2 {
        let facts = place.facts("/a").await;
        assert_eq!((&facts["path"], &facts["asked"]), (&"/a".into(), &asked.into()), "on one connection: {facts}");
    }
}

async fn a_request_is_rewritten_as_its_service_says(transport: Transport) {
    let service = |_: usize, port: &str| {
        format!(
            "{{ name: web, match: {{ prefix: /shop }}, target: \"http://127.0.0.1:{port}\", rewrite: [ \
             {{ host: shop.internal }}, {{ prefix: {{ from: /shop, to: /v2 }} }}, {{ set: {{ name: x-site, value: edge-17 }} }}, \
             {{ remove: x-node-id }} ] }}"
        )
    };
    let Some(place) = Place::new(Folder::new(), transport, &["clear".to_owned()], service).await else { return };
    let facts = place.facts("/shop/%61?b=/shop").await;
    assert_eq!(facts["path"], "/v2/a?b=/shop", "{facts}");
    let fields: Vec<(String, String)> = serde_json::from_value(facts["fields"].clone()).unwrap();
    let all =
        |name: &str| fields.iter().filter(|(of, _)| of == name).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    assert_eq!(
        (all("host"), all("x-site"), all("x-node-id").len()),
        (vec!["shop.internal".into()], vec!["edge-17".into()], 0)
    );
    assert_eq!(place.get("/shop/..%2fadmin").await.status(), 400);
}
