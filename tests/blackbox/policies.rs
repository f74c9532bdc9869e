//! Policies of a listener: which rule decides on a request, what becomes of it, and that `adit check --explain` says the same.

mod bytes;
mod explained;
mod forwarded;
mod site;

use http::Request;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::cli::{adit, parts};
use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, Response};
use crate::support::http2::Http2;
use crate::support::http3::{Http3, request_with, wait};
use crate::support::site::{Cloud, Edge, Folder, NODE, Running, Site, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(
    each_row_happens_as_it_is_explained,
    what_breaks_a_rule_of_http_happens_as_it_is_explained,
    a_denial_holds_in_each_version_of_http_and_for_upgrades,
);

const RULES: &str = "[\
    { priority: 1000, name: ops, match: { prefix: /admin/health, source: 127.0.0.0/8 }, action: allow },\
    { priority: 900, name: no-admin, match: { prefix: [/admin, /metrics] }, action: deny, status: 404 },\
    { priority: 850, match: { method: [DELETE, PUT] }, action: deny },\
    { priority: 800, name: moved, match: { tenant: acme, prefix: /move }, action: reroute, to: { node: edge-2 } },\
    { priority: 700, name: trial, match: { host: \"*.trial.example\" }, action: reroute, to: { service: trial } },\
    { priority: 650, match: { header: { name: x-block, value: \"yes\" } }, action: deny, status: 451 },\
    { priority: 600, name: no-db, match: { method: CONNECT, service: db }, action: deny },\
    { priority: 550, name: shell, match: { method: CONNECT, host: shell }, action: reroute, to: { service: ssh } },\
    { priority: 520, name: static, match: { prefix: /static }, action: forward, target: \"http://TRIAL\" },\
    { priority: 510, name: nowhere, match: { path: /nowhere }, action: forward, target: \"http://127.0.0.1:9\" },\
    { priority: 500, name: elsewhere, match: { source: 10.0.0.0/8 }, action: deny },\
    { priority: 400, match: { service: trial, tenant: other }, action: deny }]";

/// What is asked: method, host, path, fields.
type Asked = (&'static str, &'static str, &'static str, &'static [&'static str]);

const ACME: &str = "x-tenant: acme";
const OTHER: &str = "x-tenant: other";
const TO_ONE: &str = "x-node-id: edge-1";

/// What is asked, which rule decides, the status, and at whose target it arrives: 1 and 2 are edge-1 and edge-2 of acme, 3 is
/// edge-1 of the other tenant, 4 the service `trial` of edge-1 of acme.
const TABLE: &[(Asked, Option<&str>, u16, Option<usize>)] = &[
    (("GET", "shop.example", "/a", &[ACME, TO_ONE]), None, 200, Some(1)),
    (("GET", "shop.example", "/a", &[OTHER, TO_ONE]), None, 200, Some(3)),
    (("GET", "shop.example", "/admin/health", &[ACME, TO_ONE]), Some("1000 (ops)"), 200, Some(1)),
    (("GET", "shop.example", "/admin/healthy", &[ACME, TO_ONE]), Some("900 (no-admin)"), 404, None),
    (("GET", "shop.example", "/admin", &[OTHER, TO_ONE]), Some("900 (no-admin)"), 404, None),
    (("GET", "shop.example", "/a/%2e%2e/%61dmin/x", &[ACME, TO_ONE]), Some("900 (no-admin)"), 404, None),
    (("GET", "shop.example", "//metrics", &[ACME]), Some("900 (no-admin)"), 404, None),
    (("GET", "shop.example", "/a/..%2fadmin", &[ACME, TO_ONE]), None, 400, None),
    (("GET", "shop.example", "/admin;x/y", &[ACME, TO_ONE]), None, 400, None),
    (("DELETE", "shop.example", "/a", &[ACME, TO_ONE]), Some("850"), 403, None),
    (("GET", "shop.example", "/move/x", &[ACME, TO_ONE]), Some("800 (moved)"), 200, Some(2)),
    (("GET", "shop.example", "/move/x", &[ACME]), Some("800 (moved)"), 200, Some(2)),
    (("GET", "shop.example", "/move/x", &[OTHER, TO_ONE]), None, 200, Some(3)),
    (("GET", "shop.example", "/move/x", &["x-tenant: a b", TO_ONE]), None, 400, None),
    (("GET", "A.trial.example.", "/a", &[ACME, TO_ONE]), Some("700 (trial)"), 200, Some(4)),
    (("GET", "trial.example", "/a", &[ACME, TO_ONE]), None, 200, Some(1)),
    (("GET", "shop.example", "/a", &[ACME, TO_ONE, "x-block: yes"]), Some("650"), 451, None),
    (("GET", "shop.example", "/a", &[ACME, TO_ONE, "x-block: no", "x-block: yes"]), None, 400, None),
    (("GET", "shop.example", "/a", &[ACME]), None, 400, None),
    (("GET", "shop.example", "/static/a", &[]), Some("520 (static)"), 200, Some(4)),
    (("GET", "shop.example", "/nowhere", &[ACME]), Some("510 (nowhere)"), 502, None),
    (("CONNECT", "db:1", "", &[ACME, TO_ONE]), Some("600 (no-db)"), 403, None),
    (("CONNECT", "shell:1", "", &[ACME, TO_ONE]), Some("550 (shell)"), 200, None),
    (("CONNECT", "ssh:1", "", &[ACME, TO_ONE]), None, 200, None),
    (("CONNECT", "web:1", "", &[ACME, TO_ONE]), None, 403, None),
];

/// Nodes of two tenants that overlap, behind a listener with these rules.
struct World {
    site: Site,
    _others: [Running; 2],
    targets: [Target; 3],
    _bytes: JoinSet<()>,
}

impl World {
    async fn start(transport: Transport) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bytes = listener.local_addr().unwrap();
        let trial = Target::http1().await;
        let edge = Edge::new(transport)
            .service("{ name: web, match: {}, target: \"{target}\" }")
            .service(&format!("{{ name: trial, match: none, target: \"http://{}\" }}", trial.address()))
            .service(&format!("{{ name: ssh, target: \"tcp://{bytes}\" }}"));
        let cloud = Cloud::new()
            .egress("tenant", "\"%REQ(x-tenant)%\"")
            .egress("connect", "[ssh, db]")
            .egress("access_log", "{ query: true }")
            .egress("policies", &RULES.replace("TRIAL", &trial.address().to_string()));
        let site = Site::with(cloud, edge).await;
        let second = Edge::new(transport).claim(Node { node: "edge-2", ..NODE }).named("second");
        let (second, at_second) = site.join(second).await;
        let other = Edge::new(transport).claim(Node { tenant: "other", ..NODE }).named("other");
        let (other, at_other) = site.join(other).await;
        let mut closing = JoinSet::new();
        closing.spawn(async move {
            // It ends each connection that it gets, so that each CONNECT leaves its line.
            while let Ok(connection) = listener.accept().await {
                drop(connection);
            }
        });
        Self { site, _others: [second, other], targets: [at_second, at_other, trial], _bytes: closing }
    }

    /// How many requests each target has seen.
    fn seen(&self) -> [usize; 4] {
        let [second, other, trial] = &self.targets;
        [&self.site.target, second, other, trial].map(|target| target.requests().len())
    }

    /// The line of the access log behind the first `before` ones.
    async fn line(&self, before: usize) -> Value {
        let lines = || self.site.responder.0.lines_of("exchange");
        eventually("a line of the access log", async || lines().into_iter().nth(before)).await
    }
}

async fn send(site: &Site, (method, host, path, fields): Asked) -> Response {
    let mut client = RawHttp::connect(site.egress()).await.unwrap();
    let target = if method == "CONNECT" { host } else { path };
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    client.send(format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n").as_bytes()).await.unwrap();
    if method == "CONNECT" {
        let head = client.head().await.unwrap();
        return Response { interim: Vec::new(), head, body: Vec::new(), trailers: Vec::new() };
    }
    client.response().await.unwrap()
}

/// Exit code, and what is printed of rule and way.
async fn explain(site: &Site, (method, host, path, fields): Asked, more: &[&str]) -> (Option<i32>, String, String) {
    let url = if method == "CONNECT" { host.to_owned() } else { format!("http://{host}{path}") };
    let file = site.responder.0.file().to_str().unwrap();
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    let arguments = [&["check", "--explain", method, &url], &fields[..], more, &[file]].concat();
    let (code, out, err) = parts(&adit(&arguments).await);
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("egress 127.0.0.1:0"), "{out}{err}");
    let mut word = |name: &str| {
        lines.next().and_then(|line| line.trim().split_once("  ")).map(|(key, rest)| {
            assert!(key == name || name.is_empty(), "{out}");
            format!("{key} {}", rest.trim())
        })
    };
    (code, word("rule").unwrap(), word("").unwrap())
}

/// What must be explained of something that left this line.
fn as_explained(line: &Value) -> (i32, String, String) {
    let decided = line["rule"].as_str().map(|rule| rule.strip_prefix("rule ").unwrap().to_owned());
    // Whether somebody is there is not for a rule to know.
    let to = line["to"]
        .as_str()
        .map(|target| (0, format!("rule {}", decided.clone().unwrap()), format!("to {target}, outside of any tunnel")));
    if let Some(forwarded) = to {
        return forwarded;
    }
    let went = line["status"] == 200;
    let rule = match (&decided, went) {
        (Some(rule), _) => format!("rule {rule}"),
        (None, true) => "rule the last rule".to_owned(),
        (None, false) => "rule none decides".to_owned(),
    };
    let text = |key: &str| line[key].as_str().unwrap_or("as the initiator finds it").to_owned();
    let way = if went {
        format!("to host id {}, tenant {}, service {}", text("host_id"), text("tenant"), text("service"))
    } else {
        format!("answer {}: {}", line["status"], text("details"))
    };
    (i32::from(!went), rule, way)
}

async fn each_row_happens_as_it_is_explained(transport: Transport) {
    let world = World::start(transport).await;
    for (row, (asked, rule, status, arrives)) in TABLE.iter().enumerate() {
        let before = world.seen();
        let response = send(&world.site, *asked).await;
        assert_eq!(response.status(), *status, "{asked:?}: {}", response.text());
        let mut after = before;
        if let Some(target) = arrives {
            after[target - 1] += 1;
        }
        assert_eq!(world.seen(), after, "{asked:?}");
        let line = world.line(row).await;
        let decided = line["rule"].as_str().map(|rule| rule.strip_prefix("rule ").unwrap());
        assert_eq!(decided, *rule, "{asked:?}: {line}");
        let (code, rule, way) = as_explained(&line);
        let (explained_code, explained_rule, explained_way) = explain(&world.site, *asked, &[]).await;
        assert_eq!((explained_code, explained_way), (Some(code), way), "{asked:?}: {line}");
        // A last rule that lets a request go where it cannot is told as what decided.
        let last = ["rule the last rule: allow", "rule none decides"];
        let is_last = line["rule"].is_null() && last.contains(&explained_rule.as_str());
        assert!(explained_rule.starts_with(&rule) || is_last, "{asked:?}: {explained_rule}, {rule}");
    }
    let series = "adit_policy_decisions_total{side=\"egress\",rule=\"no-admin\",action=\"deny\"}";
    assert_eq!(world.site.responder.0.metric(series).await, 4);
    let elsewhere = explain(&world.site, TABLE[0].0, &["--source", "10.1.2.3"]).await;
    assert_eq!((elsewhere.0, elsewhere.1.as_str()), (Some(1), "rule 500 (elsewhere): deny"));
}

/// What is refused before anything is decided, at a listener that takes no CONNECT and heads of 2 KiB.
const BROKEN: &[(Asked, u16)] = &[
    (("CONNECT", "ssh:1", "", &[TO_ONE]), 501),
    (("CONNECT", "ssh:0", "", &[TO_ONE]), 400),
    (("GET", "shop.example", "/", &[TO_ONE, LARGE]), 431),
    (("GET", "shop.example", "/", &[TO_ONE, "expect: magic"]), 417),
    (("POST", "shop.example", "/", &[TO_ONE, "content-length: 3", "transfer-encoding: chunked"]), 400),
    (("POST", "shop.example", "/", &[TO_ONE, "transfer-encoding: gzip"]), 400),
    (("GET", "shop.example", "/", &[TO_ONE, "connection: upgrade", "upgrade: websocket"]), 426),
];
/// A field that is larger than a head may be.
const LARGE: &str = {
    const BYTES: [u8; 2100] = {
        let mut bytes = [b'x'; 2100];
        (bytes[1], bytes[2]) = (b':', b' ');
        bytes
    };
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!("it is ASCII"),
    }
};

async fn what_breaks_a_rule_of_http_happens_as_it_is_explained(transport: Transport) {
    let site = Site::with(Cloud::new().egress("limits", "{ head_bytes: 2KiB }"), Edge::new(transport)).await;
    for (asked, status) in BROKEN {
        let response = send(&site, *asked).await;
        assert_eq!(response.status(), *status, "{asked:?}: {}", response.text());
        let (code, _, way) = explain(&site, *asked, &[]).await;
        assert!(way.starts_with(&format!("answer {status}: ")), "{asked:?}: {way}");
        assert_eq!(code, Some(1), "{asked:?}");
    }
    assert_eq!(site.target.requests().len(), 0);
}

async fn a_denial_holds_in_each_version_of_http_and_for_upgrades(transport: Transport) {
    let rules = "[{ priority: 9, name: closed, match: { prefix: /closed, method: GET }, action: deny }]";
    let set = |cloud: Cloud| cloud.egress("policies", rules);
    let cloud = set(set(Cloud::new()).and_egress()).egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let [clear, secure] = [0, 1].map(|index| site.responder.egress_at(index));

    let upgrade: &[&str] = &[
        TO_ONE,
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    ];
    for fields in [&[TO_ONE], upgrade] {
        let response = send(&site, ("GET", "shop.example", "/closed/x", fields)).await;
        assert_eq!(
            (response.status(), response.field("proxy-status").map(|status| status.contains("rule 9 (closed)"))),
            (403, Some(true))
        );
    }
    let request = Request::get("http://shop.example/%63losed").header("x-node-id", NODE.node).body(()).unwrap();
    assert_eq!(Http2::connect(clear).await.get(request).await.status(), 403);
    let asked = json!({ "authority": "shop.example", "fields": [["x-node-id", NODE.node]] });
    if let Some(client) =
        Http3::start(secure, &site.folder, vec![request_with("a", "GET", "/./closed", asked), wait("a")])
    {
        assert_eq!(client.answer("a").await.status(), 403);
    }
    assert_eq!(site.target.requests().len(), 0);
}

/// Each mistake on the command line has an exit code of its own kind.
#[tokio::test]
async fn what_cannot_be_explained_is_said() {
    let folder = Folder::new();
    let file = folder.write("cloud.yaml", &Cloud::new().text()).display().to_string();
    for (arguments, problem) in [
        (vec!["GET", "shop.example", &file], "names no host"),
        (vec!["GET", "http://h/", "-H", "x", &file], "is no field"),
        (vec!["GET", "https://h/", &file], "no egress listener with TLS"),
        (
            vec!["GET", "http://h/", "--listener", "127.0.0.1:9", &file],
            "no egress listener for requests at 127.0.0.1:9",
        ),
    ] {
        let (code, out, err) = parts(&adit(&[&["check", "--explain"], &arguments[..]].concat()).await);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.contains(problem), "{err}");
    }
}
