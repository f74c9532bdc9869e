//! What operators and their tools see of a running process.

use adit::config::AdminAddress;
use http::Method;
use serde_json::Value;

use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::site::{Cloud, Edge, Folder, NODE, Running, Site, Transport, over_each_transport};

over_each_transport!(
    tunnels_are_shown_by_both_ends_under_one_name,
    a_process_is_ready_once_its_first_tunnel_is_up,
    exchanges_and_tunnels_are_counted,
    refused_and_failed_handshakes_are_counted_by_their_number,
    settings_are_shown_without_their_secrets,
    each_exchange_leaves_one_line_in_the_log,
);

async fn tunnels_are_shown_by_both_ends_under_one_name(transport: Transport) {
    let site = Site::with(Cloud::new().responder("name", "cloud-1"), Edge::new(transport)).await;
    assert_eq!(site.get("/bytes/100000").await.status(), 200);
    let (accepted, dialled) = (site.responder.0.tunnels().await, site.initiator.tunnels().await);
    assert!(accepted.dialled.is_empty() && dialled.accepted.is_empty());
    let (accepted, dialled) = (&accepted.accepted[0], &dialled.dialled[0]);
    assert_eq!(
        (accepted.node.as_str(), accepted.cluster.as_str(), accepted.tenant.as_str()),
        ("edge-1", "stores", "acme")
    );
    assert_eq!((accepted.transport.as_str(), accepted.health.as_str()), (transport.label(), "healthy"));
    assert!(accepted.rtt_ms > 0.0 && accepted.received_bytes > 100_000, "{accepted:?}");
    assert_eq!(dialled.id.as_ref(), Some(&accepted.id));
    assert_eq!((dialled.state.as_str(), dialled.responder.as_deref()), ("connected", Some("cloud-1")));
    assert_eq!(dialled.to, site.responder.tunnel_address().to_string());
}

async fn a_process_is_ready_once_its_first_tunnel_is_up(transport: Transport) {
    let folder = Folder::new();
    let address = crate::support::ports::free_address();
    let initiator = Edge::new(transport).start(&folder, address).await;
    let (status, missing) = initiator.ask(Method::GET, "/ready").await;
    assert_eq!((status.as_u16(), missing.as_str()), (503, "first tunnel\n"));
    assert_eq!(initiator.ask(Method::GET, "/healthz").await.0, 200, "alive all the same");
    let cloud = Cloud::new().responder("listen", &format!("{{ quic: \"{address}\", tcp: \"{address}\" }}"));
    let responder = cloud.start(&folder).await;
    for process in [&initiator, &responder.0] {
        eventually("ready", async || (process.ask(Method::GET, "/ready").await.0 == 200).then_some(())).await;
    }
}

#[tokio::test]
async fn a_responder_without_tunnels_is_ready_when_its_grace_is_over() {
    let folder = Folder::new();
    let young = Cloud::new().responder("grace", "300s").start(&folder).await;
    assert_eq!(
        young.0.ask(Method::GET, "/ready").await,
        (http::StatusCode::SERVICE_UNAVAILABLE, "tunnels\n".to_owned())
    );
    let old = Cloud::new().responder("grace", "0").start(&folder).await;
    eventually("ready", async || (old.0.ask(Method::GET, "/ready").await.0 == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_labels_only_where_the_file_asks_for_them_and_reading_is_all_that_a_scraper_can_do() {
    let metrics = "{ listen: \"127.0.0.1:0\", names: true }";
    let site = Site::with(Cloud::new().process("metrics", metrics), Edge::new(Transport::Quic)).await;
    assert_eq!(site.get("/bytes/1").await.status(), 200);
    let address = site.responder.0.line_with("metrics listener").await["address"].as_str().unwrap().parse().unwrap();
    let ask =
        async |method, path| adit::admin::client::request(&AdminAddress::Tcp(address), method, path).await.unwrap();
    let expected = [
        "adit_tunnel_rtt_seconds{tenant=\"acme\",cluster=\"stores\",node=\"edge-1\",slot=\"0\",transport=\"quic\"} ",
        "adit_tenant_tunnels_open{tenant=\"acme\"} 1",
        "adit_tenant_exchanges_total{tenant=\"acme\"} 1",
        "adit_exchange_first_byte_seconds_count{side=\"egress\"} 1",
        "adit_exchange_attempts_total{side=\"egress\"} 1",
        "adit_build_info{",
        "process_resident_memory_bytes ",
    ];
    // An exchange is counted when its end has been passed on, which its client may see earlier.
    eventually("every series", async || {
        let text = String::from_utf8(ask(Method::GET, "/metrics").await.1.to_vec()).unwrap();
        expected.iter().all(|series| text.lines().any(|line| line.starts_with(series))).then_some(())
    })
    .await;
    assert_eq!(ask(Method::GET, "/healthz").await.0, 200);
    for (method, path) in [(Method::POST, "/drain"), (Method::GET, "/config"), (Method::GET, "/tunnels")] {
        assert_eq!(ask(method, path).await.0, 403, "{path}");
    }
    // A responder that has just started waits a while for the nodes it may have known before.
    let ready = async || (site.responder.0.ask(Method::GET, "/ready").await.0 == 200).then_some(());
    eventually("a responder that is ready, and so does not drain", ready).await;
}

/// It showed "no tunnels", counted nothing, and logged a line a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_has_no_address_is_a_destination_that_cannot_be_connected() {
    let folder = Folder::new();
    let edge = Edge::new(Transport::Quic);
    let text = edge.text("no-such-host.invalid:7843");
    folder.authority.node(NODE).write(folder.path(), "edge");
    let initiator = Running::start(folder.write("edge.yaml", &text)).await;
    let shown = eventually("the destination", async || initiator.tunnels().await.dialled.pop()).await;
    assert_eq!((shown.state.as_str(), shown.to.as_str()), ("cannot_connect", "no-such-host.invalid:7843"));
    assert!(
        shown.reason.is_some_and(|reason| reason.contains("cannot be resolved") && reason.contains("check the name"))
    );
    assert!(shown.retry_in_seconds.is_some());
    assert_eq!(initiator.metric("adit_initiator_destinations{state=\"cannot_connect\"}").await, 1);
    assert_eq!(initiator.line_with("cannot resolve").await["level"], "WARN");
}

async fn exchanges_and_tunnels_are_counted(transport: Transport) {
    let site = Site::start(transport).await;
    for path in ["/bytes/1000", "/status/404"] {
        site.get(path).await;
    }
    assert_eq!(get(site.egress(), "/", &["x-node-id: nobody"]).await.unwrap().status(), 503);
    let responder = &site.responder.0;
    for (series, expected) in [
        ("adit_tunnels_open{role=\"responder\"}", 1),
        ("adit_tunnels_opened_total{role=\"responder\"}", 1),
        ("adit_exchanges_total{side=\"egress\",status=\"2xx\"}", 1),
        ("adit_exchanges_total{side=\"egress\",status=\"4xx\"}", 1),
        ("adit_exchanges_total{side=\"egress\",status=\"5xx\"}", 1),
        ("adit_exchanges_failed_total{side=\"egress\",cause=\"unknown_host\"}", 1),
        ("adit_exchanges_in_flight{side=\"egress\"}", 0),
        ("adit_exchange_duration_seconds_count{side=\"egress\"}", 3),
    ] {
        eventually(&format!("{series} is {expected}"), async || {
            (responder.metric(series).await == expected).then_some(())
        })
        .await;
    }
    assert!(responder.metric("adit_exchange_body_bytes_total{side=\"egress\",direction=\"response\"}").await >= 1000);
    assert_eq!(site.initiator.metric("adit_initiator_destinations{state=\"connected\"}").await, 1);
    let metrics = responder.ask(Method::GET, "/metrics").await.1;
    assert!(!metrics.contains("edge-1"), "names of nodes are no labels");
    let described = metrics.lines().filter(|line| line.starts_with("# HELP adit_")).count();
    assert_eq!(metrics.lines().filter(|line| line.starts_with("# TYPE adit_")).count(), described);
}

async fn refused_and_failed_handshakes_are_counted_by_their_number(transport: Transport) {
    let site = Site::start(transport).await;
    let second = Edge::new(transport).named("second").start(&site.folder, site.responder.tunnel_address()).await;
    second.line_with("cannot open a tunnel").await;
    for (process, role) in [(&site.responder.0, "responder"), (&second, "initiator")] {
        let series = format!("adit_handshakes_refused_total{{role=\"{role}\",code=\"conflict\"}}");
        eventually(&series, async || (process.metric(&series).await >= 1).then_some(())).await;
    }
}

async fn settings_are_shown_without_their_secrets(transport: Transport) {
    let token = "a-token-nobody-may-see";
    let nodes = format!("[{{ node: edge-1, cluster: stores, tenant: acme, token: {token} }}]");
    let site =
        Site::with(Cloud::new().responder("nodes", &nodes), Edge::new(transport).initiator("token", token)).await;
    for process in [&site.responder.0, &site.initiator] {
        let (status, shown) = process.ask(Method::GET, "/config").await;
        assert_eq!(status, 200);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let text = shown.to_string();
        assert!(!text.contains(token) && !process.log().contains(token), "{text}");
        assert!(text.contains("token"), "that there is one is shown: {text}");
    }
}

async fn each_exchange_leaves_one_line_in_the_log(transport: Transport) {
    let site = Site::start(transport).await;
    site.get("/bytes/1000").await;
    let line = site.responder.0.line_with("\"exchange\"").await;
    assert_eq!((&line["method"], &line["status"], &line["response_bytes"]), (&"GET".into(), &200.into(), &1000.into()));
    assert_eq!(line["outcome"], "complete");
    let lines = site.responder.0.log().lines().filter(|line| line.contains("\"exchange\"")).count();
    assert_eq!(lines, 1);

    let quiet = Site::with(Cloud::new().egress("access_log", "false"), Edge::new(transport)).await;
    quiet.get("/").await;
    quiet.responder.0.terminate();
    quiet.responder.0.line_with("drained").await;
    assert!(!quiet.responder.0.log().contains("\"exchange\""));
}

#[tokio::test]
async fn a_path_that_is_not_there_and_a_method_that_does_not_fit_are_told_apart() {
    let folder = Folder::new();
    let responder = Cloud::new().responder("grace", "0").start(&folder).await;
    eventually("ready", async || (responder.0.ask(Method::GET, "/ready").await.0 == 200).then_some(())).await;
    for (method, path, expected) in
        [(Method::GET, "/nothing", 404), (Method::GET, "/reload", 405), (Method::POST, "/tunnels", 405)]
    {
        assert_eq!(responder.0.ask(method, path).await.0.as_u16(), expected, "{path}");
    }
    assert_eq!(responder.0.ask(Method::GET, "/ready").await.0, 200, "nothing was drained");
}

#[tokio::test]
async fn a_web_page_of_another_site_can_neither_read_nor_drain() {
    let folder = Folder::new();
    let responder = Cloud::new().responder("grace", "0").start(&folder).await;
    eventually("ready", async || (responder.0.ask(Method::GET, "/ready").await.0 == 200).then_some(())).await;
    for field in ["origin: http://evil.example", "host: evil.example"] {
        let mut client = crate::support::http1::RawHttp::connect(responder.0.admin()).await.unwrap();
        let host = if field.starts_with("host") { String::new() } else { format!("host: {}\r\n", responder.0.admin()) };
        let request = format!("POST /drain HTTP/1.1\r\n{host}{field}\r\ncontent-length: 0\r\n\r\n");
        client.send(request.as_bytes()).await.unwrap();
        assert_eq!(client.response().await.unwrap().status(), 403, "{field}");
    }
    assert_eq!(responder.0.ask(Method::GET, "/ready").await.0, 200);
}
