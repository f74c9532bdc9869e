//! Requests that a rule forwards to an upstream outside of any tunnel: they stream, end and fail as those in a tunnel do. No
//! tunnel is there, so there is no transport to choose.

use http::Request;
use serde_json::Value;

use crate::cli::{adit, parts};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, Response, get};
use crate::support::http2::Http2;
use crate::support::ports;
use crate::support::site::{Cloud, Folder, Responder};
use crate::support::targets::Target;

struct World {
    responder: Responder,
    upstream: Target,
    _folder: Folder,
}

impl World {
    async fn start() -> Self {
        let (folder, upstream) = (Folder::new(), Target::http1().await);
        let rules = format!(
            "[{{ priority: 2, name: gone, match: {{ prefix: /gone }}, action: forward, target: \"http://{}\" }},\
              {{ priority: 1, name: all, match: any, action: forward, target: \"http://{}\" }}]",
            ports::free_address(),
            upstream.address()
        );
        let cloud = Cloud::new().egress("policies", &rules).egress("deadline", "3s").egress("connect", "true");
        Self { responder: cloud.start(&folder).await, upstream, _folder: folder }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forwarded_streams_and_is_told_of_its_client() {
    let world = World::start().await;
    let egress = world.responder.egress();
    let mut client = RawHttp::connect(egress).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    client.send(head.as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200, "the response begins before the request has ended");
    client.send(b"2\r\nde\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(client.body(&head).await.unwrap().0, b"abcde");

    let request = Request::get("http://shop.example/request").header("x-forwarded-for", "6.6.6.6").body(()).unwrap();
    let response = Http2::connect(egress).await.get(request).await;
    let seen = String::from_utf8_lossy(&response.body().bytes).into_owned();
    assert!(response.status() == 200 && seen.contains("127.0.0.1") && !seen.contains("6.6.6.6"), "{seen}");

    let line = eventually("a line that names rule and upstream", async || {
        world.responder.0.lines_of("exchange").into_iter().find(|line| line["path"] == "/echo")
    })
    .await;
    let upstream = format!("http://{}", world.upstream.address());
    assert_eq!((line["rule"].as_str(), line["to"].as_str()), (Some("rule 1 (all)"), Some(&*upstream)), "{line}");
    let bytes = (&line["request_bytes"], &line["response_bytes"], &line["outcome"]);
    assert_eq!(bytes, (&5.into(), &5.into(), &"complete".into()), "{line}");
}

#[tokio::test]
async fn what_may_come_back_to_its_own_listener_is_warned_of_and_what_surely_does_is_refused() {
    let folder = Folder::new();
    let check = async |target: &str| {
        let rules = format!("[{{ priority: 7, name: back, match: any, action: forward, target: \"{target}\" }}]");
        let cloud = Cloud::new().egress("http", "\"0.0.0.0:8085\"").egress("policies", &rules);
        let file = folder.write("cloud.yaml", &cloud.text());
        let (code, out, _) = parts(&adit(&["check", file.to_str().unwrap()]).await);
        (code, out)
    };
    let (code, out) = check("http://static.internal:8085").await;
    assert!(
        code == Some(0) && out.contains("rule 7 (back) forwards to http://static.internal:8085, which may be"),
        "{out}"
    );
    let (code, out) = check("http://127.0.0.1:8085").await;
    assert!(code == Some(1) && out.contains("is this very listener"), "{out}");
    let (code, out) = check("http://static.internal:8086").await;
    assert!(code == Some(0) && !out.contains("this very listener"), "{out}");
}

/// A responder with one rule, which forwards everything to this server.
async fn forwards_to(folder: &Folder, target: std::net::SocketAddr, keys: &str) -> Responder {
    let rule =
        format!("[{{ priority: 1, name: all, match: any, action: forward, target: \"http://{target}\"{keys} }}]");
    Cloud::new().egress("policies", &rule).start(folder).await
}

/// The status, and the error type in `Proxy-Status`.
fn told(response: &Response) -> (u16, String) {
    let said = response.field("proxy-status").unwrap_or_default();
    let error = said.split(';').nth(1).unwrap_or_default().trim().trim_start_matches("error=");
    (response.status(), error.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_is_left_alone_for_a_moment_and_found_again() {
    let (folder, target) = (Folder::new(), ports::free_address());
    let responder = forwards_to(&folder, target, "").await;
    let egress = responder.egress();
    assert_eq!(told(&get(egress, "/first", &[]).await.unwrap()), (502, "connection_refused".to_owned()));
    let response = get(egress, "/second", &[]).await.unwrap();
    assert_eq!(told(&response), (503, "destination_unavailable".to_owned()), "{}", response.text());
    let wait: u64 = response.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    let line: Value = responder.0.line_with("\"/second\"").await;
    assert_eq!((&line["cause"], &line["status"]), (&"upstream_down".into(), &503.into()), "{line}");
    let line: Value = responder.0.line_with("the upstream is down").await;
    assert_eq!(line["upstream"], format!("http://{target}"), "{line}");
    let metric = "adit_exchanges_failed_total{side=\"egress\",cause=\"upstream_down\"}";
    responder.0.counted(metric, 1).await;
    let down = format!("adit_targets_down{{side=\"egress\",target=\"http://{target}\"}}");
    responder.0.counted(&down, 1).await;

    let _there = Target::http1_at(target).await;
    let again = async || (get(egress, "/request", &[]).await.unwrap().status() == 200).then_some(());
    eventually("requests at a server that is there again", again).await;
    responder.0.counted(&down, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_sent_no_more_than_it_may_have_under_way() {
    for limits in ["{ in_flight: 1 }", "{ connections: 1 }"] {
        let (folder, upstream) = (Folder::new(), Target::http1().await);
        let responder = forwards_to(&folder, upstream.address(), &format!(", limits: {limits}")).await;
        let egress = responder.egress();
        let mut first = RawHttp::connect(egress).await.unwrap();
        first.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let is_there = async || upstream.requests().iter().any(|seen| seen.ends_with("/hang")).then_some(());
        eventually("the first request at the server", is_there).await;
        let response = get(egress, "/", &[]).await.unwrap();
        let said = (response.status(), response.field("retry-after"), response.text());
        assert!(said.0 == 503 && said.1 == Some("1") && said.2.contains("the upstream has no room"), "{said:?}");
        drop(first);
        let again = async || (get(egress, "/request", &[]).await.unwrap().status() == 200).then_some(());
        eventually("room once the first has gone", again).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_its_checks_is_sent_nothing_else() {
    let (folder, upstream) = (Folder::new(), Target::http1().await);
    let health = ", health: { path: /status/500, interval: 100ms, unhealthy_after: 1 }";
    let responder = forwards_to(&folder, upstream.address(), health).await;
    let _: Value = responder.0.line_with("the upstream is down").await;
    let response = get(responder.egress(), "/request", &[]).await.unwrap();
    assert_eq!(told(&response), (503, "destination_unavailable".to_owned()), "{}", response.text());
    assert!(response.text().contains("check_failed"), "{}", response.text());
    assert!(upstream.requests().iter().all(|seen| seen.ends_with("/status/500")), "{:?}", upstream.requests());
}

#[tokio::test]
async fn what_belongs_to_another_action_is_a_mistake() {
    let folder = Folder::new();
    let rules = "[{ priority: 7, match: any, action: deny, limits: { in_flight: 1 }, health: { interval: 1s } }]";
    let file = folder.write("cloud.yaml", &Cloud::new().egress("policies", rules).text());
    let (code, out, _) = parts(&adit(&["check", file.to_str().unwrap()]).await);
    let both = ["policies[0].limits", "policies[0].health"].iter().all(|key| out.contains(key));
    assert!(code == Some(1) && both && out.contains("expected action: forward"), "{out}");
}

/// Two listeners that forward to each other, which no look at a file tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_in_circles_is_refused_after_a_few_rounds() {
    let (folder, [one, other]) = (Folder::new(), [ports::free_address(), ports::free_address()]);
    let to = |address| format!("[{{ priority: 1, match: any, action: forward, target: \"http://{address}\" }}]");
    let cloud = Cloud::new().egress("http", &format!("\"{one}\"")).egress("policies", &to(other));
    let cloud = cloud.and_egress().egress("http", &format!("\"{other}\"")).egress("policies", &to(one));
    let responder = cloud.start(&folder).await;
    let response = get(one, "/", &[]).await.unwrap();
    let said = response.field("proxy-status").unwrap().to_owned();
    assert!(response.status() == 502 && said.contains("proxy_loop_detected"), "{} {said}", response.status());
    let lines = eventually("a line of each round", async || {
        Some(responder.0.lines_of("exchange")).filter(|lines| lines.len() == 17)
    });
    assert_eq!(lines.await.iter().filter(|line| line["cause"] == "loop").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_forwarded_fails_with_its_cause() {
    let world = World::start().await;
    let egress = world.responder.egress();
    for (path, status, error) in [("/gone", 502, "connection_refused"), ("/hang", 504, "http_response_timeout")] {
        let response = get(egress, path, &[]).await.unwrap();
        let said = response.field("proxy-status").unwrap().to_owned();
        assert!(response.status() == status && said.contains(error), "{path}: {} {said}", response.status());
    }
    let cancelled = async || (world.upstream.cancelled() == 1).then_some(());
    eventually("the upstream to see that nobody waits", cancelled).await;
    assert!(get(egress, "/cut/1000", &[]).await.is_err(), "a cut response is no whole one");

    let mut client = RawHttp::connect(egress).await.unwrap();
    client.send(b"CONNECT any:1 HTTP/1.1\r\nhost: any:1\r\n\r\n").await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 403, "CONNECT is none that can be forwarded");
}
