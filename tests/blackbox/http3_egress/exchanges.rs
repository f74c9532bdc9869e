//! What passes, and that it passes unchanged.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{cloud, site};
use crate::support::http3::{Http3, request, request_with, wait};
use crate::support::site::{Edge, NODE, Site, Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(
    an_options_that_may_go_no_further_is_answered_here,
    a_request_reaches_the_target_and_says_how_it_came,
    bodies_come_back_whole_and_many_at_once,
    trailers_pass_both_ways,
    interim_responses_and_expectations_pass,
    an_answer_without_a_body_ends_with_its_head,
    a_failure_names_its_cause,
    other_versions_say_where_http_3_is,
    curl_speaks_it_too,
    requests_are_counted_and_logged_like_those_of_other_versions,
);

async fn a_request_reaches_the_target_and_says_how_it_came(transport: Transport) {
    let site = site(transport).await;
    let steps = vec![request("a", "GET", "/request?q=1"), wait("a")];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let answer = client.answer("a").await;
    assert_eq!((answer.status(), answer.is_whole()), (200, true), "{answer:?}");
    let seen = answer.text();
    for expected in ["/request?q=1", "for=127.0.0.1;host=localhost;proto=https", "3.0 adit", "x-forwarded-proto"] {
        assert!(seen.contains(expected), "{expected} in {seen}");
    }
    assert!(answer.field("via").is_some() && answer.field("date").is_some());
    assert_eq!(answer.field("alt-svc"), None, "it is there already");
}

async fn bodies_come_back_whole_and_many_at_once(transport: Transport) {
    for site in [site(transport).await, Site::h2c(cloud(), Edge::new(transport)).await] {
        let large = 2_000_000;
        let mut steps = vec![request_with("large", "POST", "/echo", json!({ "size": large }))];
        let names: Vec<String> = (0..40).map(|n| format!("small-{n}")).collect();
        steps.extend(names.iter().map(|name| request(name, "GET", "/bytes/20000")));
        steps.extend(names.iter().map(|name| wait(name)));
        steps.push(wait("large"));
        let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
        for (name, bytes) in names.iter().map(|name| (name.as_str(), 20_000)).chain([("large", large)]) {
            let answer = client.answer(name).await;
            assert_eq!((answer.status(), answer.bytes()), (200, bytes), "{name}: {answer:?}");
            assert!(answer.is_whole() && answer.0["is_pattern"] == true, "{name}");
        }
    }
}

async fn trailers_pass_both_ways(transport: Transport) {
    for site in [site(transport).await, Site::h2c(cloud(), Edge::new(transport)).await] {
        let fields = json!([["x-node-id", NODE.node], ["te", "trailers"], ["trailer", "grpc-status"]]);
        let echo = json!({ "body": "hi", "fields": fields, "trailers": [["grpc-status", "0"]] });
        let steps = vec![
            request_with("echo", "POST", "/echo", echo),
            request_with("sum", "GET", "/trailers", json!({ "fields": fields })),
            wait("echo"),
            wait("sum"),
        ];
        let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
        let echo = client.answer("echo").await;
        assert_eq!((echo.text(), echo.is_whole()), ("hi", true), "{echo:?}");
        assert_eq!(client.answer("sum").await.trailer("x-sum"), Some("42"));
    }
}

async fn interim_responses_and_expectations_pass(transport: Transport) {
    let site = site(transport).await;
    let fields = json!([["x-node-id", NODE.node], ["expect", "100-continue"], ["content-length", "5"]]);
    let steps = vec![
        request_with("a", "POST", "/sink", json!({ "fields": fields, "open": true })),
        json!({ "do": "interim", "name": "a" }),
        json!({ "do": "body", "name": "a", "size": 5, "end": true }),
        wait("a"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let answer = client.answer("a").await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.0["interim"][0][0], 100, "{answer:?}");
}

async fn an_answer_without_a_body_ends_with_its_head(transport: Transport) {
    let site = site(transport).await;
    let steps = vec![
        request("none", "GET", "/status/204"),
        request("missing", "GET", "/status/404"),
        wait("none"),
        wait("missing"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for (name, status) in [("none", 204), ("missing", 404)] {
        let answer = client.answer(name).await;
        assert_eq!((answer.status(), answer.bytes(), answer.is_whole()), (status, 0, true));
    }
}

async fn a_failure_names_its_cause(transport: Transport) {
    let site = site(transport).await;
    let steps = vec![
        request_with("nobody", "GET", "/", json!({ "fields": [["x-node-id", "nobody"]] })),
        request_with("unnamed", "GET", "/", json!({ "fields": [] })),
        wait("nobody"),
        wait("unnamed"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let answer = client.answer("nobody").await;
    let cause = answer.field("proxy-status").unwrap();
    assert!(answer.status() == 503 && cause.starts_with("adit; error=destination_not_found"), "{answer:?}");
    assert_eq!(client.answer("unnamed").await.status(), 400);
}

async fn other_versions_say_where_http_3_is(transport: Transport) {
    let Some(curl) = tools::find("curl") else { return };
    let site = site(transport).await;
    let (port, ca) = (site.egress().port(), site.folder.path().join("ca.pem"));
    let url = format!("https://localhost:{port}/");
    for version in ["--http1.1", "--http2"] {
        let mut command = Command::new(&curl);
        command.args(["-sS", "-i", version, "-H", "x-node-id: edge-1", "--cacert"]).arg(&ca);
        command.args(["--connect-to", &format!("::127.0.0.1:{port}"), &url]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).to_lowercase();
        assert!(answer.contains(&format!("alt-svc: h3=\":{port}\"; ma=86400")), "{version}: {answer} {output:?}");
    }
}

async fn requests_are_counted_and_logged_like_those_of_other_versions(transport: Transport) {
    let site = site(transport).await;
    let steps = vec![
        request("a", "GET", "/bytes/10"),
        request_with("bad", "GET", "/", json!({ "head": [[":method", "GET"], [":method", "GET"]] })),
        wait("a"),
        wait("bad"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    assert_eq!((client.answer("a").await.status(), client.answer("bad").await.status()), (200, 400));
    let line = site.responder.0.line_with("/bytes/10").await;
    assert_eq!((&line["node"], &line["status"]), (&NODE.node.into(), &200.into()), "{line}");
    let refused = "adit_exchanges_failed_total{side=\"egress\",cause=\"bad_request\"}";
    site.responder.0.counted(refused, 1).await;
}

async fn curl_speaks_it_too(transport: Transport) {
    let Some(python) = tools::python() else { return };
    let site = site(transport).await;
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/http3_curl.py"));
    command.arg(format!("https://localhost:{}", site.egress().port())).arg(site.folder.path().join("ca.pem"));
    command.arg(NODE.node);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let nobody = said["nobody"][1].as_str().unwrap();
    assert!(said["nobody"][0] == 503 && nobody.starts_with("adit; error=destination_not_found"), "{said}");
    assert_eq!((&said["version"], &said["echo"]), (&json!(30), &json!([200, true])));
    assert_eq!((&said["head"], &said["many"]), (&json!([200, "300", 0]), &json!([[200, 0], [200, 1], [200, 70_000]])));
}

// spec: ST-81
async fn an_options_that_may_go_no_further_is_answered_here(transport: Transport) {
    let site = site(transport).await;
    let asked = |name: &str, left: &str| {
        request_with(
            name,
            "OPTIONS",
            "/request",
            json!({ "fields": [["x-node-id", NODE.node], ["max-forwards", left]] }),
        )
    };
    let steps = vec![asked("last", "0"), wait("last"), asked("more", "1"), wait("more")];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let last = client.answer("last").await;
    assert_eq!((last.status(), last.bytes(), last.is_whole()), (200, 0, true), "{last:?}");
    let more = client.answer("more").await;
    assert!(more.status() == 200 && more.bytes() > 0, "{more:?}");
    assert_eq!(site.target.requests().len(), 1);
}
