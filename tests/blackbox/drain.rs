//! Whoever is asked to stop finishes what runs, takes nothing new, and exits 0.

use std::time::Duration;

use adit::lifecycle::Drain;
use http::{Method, Request};
use tokio::time::interval;

use crate::cli::{adit, parts};
use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::http2::{Http2, whole};
use crate::support::load::Load;
use crate::support::process::Adit;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};
use crate::support::targets::pattern;

over_each_transport!(
    a_responder_that_is_terminated_finishes_what_runs,
    an_initiator_that_is_terminated_finishes_what_runs,
    an_operator_can_ask_for_it_over_the_admin_listener,
    an_http2_stream_is_finished_and_its_connection_told_to_go_away,
    a_draining_initiator_leaves_the_registry_before_its_requests_end,
    what_outlasts_the_drain_timeout_is_cut,
    an_idle_process_stops_at_once,
    a_restart_of_the_responder_is_announced_and_dialled_again,
    a_request_for_a_node_that_was_known_before_a_restart_is_held,
    nodes_that_are_gone_are_known_after_a_restart,
    a_responder_that_is_young_holds_requests_for_whoever_is_asked_for,
    a_lame_duck_takes_requests_and_says_that_each_is_the_last,
    a_restart_of_one_of_two_responders_loses_nothing,
    the_command_drains_and_waits_until_the_process_has_gone,
    the_command_says_what_is_left_when_it_has_waited_in_vain,
    the_command_says_when_what_ran_was_cancelled,
);

/// Another node of the same cluster.
const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };

/// A response under way, which ends when its target is released.
async fn under_way(site: &Site) -> (RawHttp<tokio::net::TcpStream>, crate::support::http1::Head) {
    let mut client = site.connect().await;
    client.send(format!("GET /held HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);
    (client, head)
}

/// Lets it end, and waits for that.
async fn finishes(site: &Site, (mut client, head): (RawHttp<tokio::net::TcpStream>, crate::support::http1::Head)) {
    site.target.release();
    let (body, _) = client.body(&head).await.unwrap();
    assert_eq!(String::from_utf8(body).unwrap(), "begun\nended\n");
}

async fn a_responder_that_is_terminated_finishes_what_runs(transport: Transport) {
    let mut site = Site::start(transport).await;
    let running = under_way(&site).await;
    site.responder.0.terminate();
    site.responder.0.line_with("draining").await;
    let egress = site.egress();
    eventually("no new connections", async || RawHttp::connect(egress).await.is_err().then_some(())).await;
    finishes(&site, running).await;
    assert_eq!(site.responder.0.exit().await.code(), Some(0));
    site.responder.0.line_with("drained: everything finished").await;
}

async fn an_initiator_that_is_terminated_finishes_what_runs(transport: Transport) {
    let mut site = Site::start(transport).await;
    let running = under_way(&site).await;
    site.initiator.terminate();
    site.initiator.line_with("draining").await;
    finishes(&site, running).await;
    assert_eq!(site.initiator.exit().await.code(), Some(0));
    site.initiator.line_with("drained: everything finished").await;
    site.responder.registered(0).await;
    assert_eq!(site.responder.0.line_with("tunnel down").await["code"], "done");
}

async fn an_operator_can_ask_for_it_over_the_admin_listener(transport: Transport) {
    let mut site = Site::start(transport).await;
    let running = under_way(&site).await;
    assert_eq!(site.responder.0.ask(Method::POST, "/drain").await.0, 202);
    eventually("not ready", async || {
        let (status, missing) = site.responder.0.ask(Method::GET, "/ready").await;
        (status == 503 && missing.contains("draining")).then_some(())
    })
    .await;
    finishes(&site, running).await;
    assert_eq!(site.responder.0.exit().await.code(), Some(0));
}

async fn an_http2_stream_is_finished_and_its_connection_told_to_go_away(transport: Transport) {
    let mut site = Site::start(transport).await;
    let mut client = Http2::connect(site.egress()).await;
    let request = Request::get(format!("http://{}/held", site.egress())).header("x-node-id", NODE.node);
    let (response, _) = client.send(request.body(()).unwrap(), true).await;
    let response = response.await.unwrap();
    site.responder.0.terminate();
    eventually("GOAWAY", async || client.sender().ready().await.err()).await;
    site.target.release();
    let body = whole(response).await.unwrap().into_body().bytes;
    assert_eq!(body, b"begun\nended\n");
    assert_eq!(site.responder.0.exit().await.code(), Some(0));
}

async fn a_draining_initiator_leaves_the_registry_before_its_requests_end(transport: Transport) {
    let site = Site::with(Cloud::new().egress("hold", "0"), Edge::new(transport)).await;
    let mut client = site.connect().await;
    client.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    site.arrived("/hang").await;
    site.initiator.terminate();
    eventually("a new request finds no tunnel", async || (site.get("/").await.status() == 503).then_some(())).await;
    assert_eq!(site.target.cancelled(), 0, "what was under way still is");
}

async fn what_outlasts_the_drain_timeout_is_cut(transport: Transport) {
    let mut site = Site::with(Cloud::new().process("drain_timeout", "500ms"), Edge::new(transport)).await;
    let mut client = site.connect().await;
    client.send(format!("GET /chunks/100000/5 HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    site.responder.0.terminate();
    // The whole of it takes 500 s.
    client.body(&head).await.unwrap_err();
    assert_eq!(site.responder.0.exit().await.code(), Some(0));
    assert_eq!(site.responder.0.line_with("draining").await["timeout"], "500ms");
    site.cancelled(1).await;
}

async fn an_idle_process_stops_at_once(transport: Transport) {
    let long = ("drain_timeout", "300s");
    let (cloud, edge) = (Cloud::new().process(long.0, long.1), Edge::new(transport).process(long.0, long.1));
    let mut site = Site::with(cloud, edge).await;
    let mut idle = site.connect().await;
    idle.send(format!("GET / HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    idle.response().await.unwrap();
    for process in [&mut site.initiator, &mut site.responder.0] {
        process.terminate();
        assert_eq!(process.exit().await.code(), Some(0));
    }
}

async fn a_restart_of_the_responder_is_announced_and_dialled_again(transport: Transport) {
    let mut site = Site::start(transport).await;
    assert_eq!(site.get("/bytes/1000").await.body, pattern(0, 1000));
    site.responder.0.terminate();
    site.initiator.line_with("the responder drains").await;
    assert_eq!(site.responder.0.exit().await.code(), Some(0));
    let Site { responder, initiator, .. } = site;
    let responder = responder.restart().await;
    responder.registered(1).await;
    assert_eq!(get(responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    drop(initiator);
}

async fn a_request_for_a_node_that_was_known_before_a_restart_is_held(transport: Transport) {
    let cloud = Cloud::new().responder("state_dir", "state").responder("grace", "0").egress("hold", "100s");
    let Site { responder, initiator, folder, target } = Site::with(cloud, Edge::new(transport)).await;
    let nodes = folder.path().join("state/nodes");
    eventually("it is written down", async || {
        std::fs::read_to_string(&nodes).ok().filter(|text| text == "acme stores edge-1\n").map(drop)
    })
    .await;
    let responder = responder.restart_gracefully().await;
    for to in [TO_NODE, "x-node-id: stores"] {
        assert_eq!(get(responder.egress(), "/", &[to]).await.unwrap().status(), 200);
    }
    let responder = responder.restart().await;
    assert_eq!(get(responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    let unknown = get(responder.egress(), "/", &["x-node-id: nobody"]).await.unwrap();
    assert_eq!(unknown.status(), 503, "at once, although the hold is long");
    drop((initiator, folder, target));
}

async fn nodes_that_are_gone_are_known_after_a_restart(transport: Transport) {
    let cloud = Cloud::new().responder("state_dir", "state").responder("grace", "0");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let (mut left, _target) = site.join(Edge::new(transport).named("other").claim(OTHER)).await;
    left.terminate();
    left.exit().await;
    let (nodes, gone) = (site.folder.path().join("state/nodes"), site.folder.path().join("state/gone"));
    eventually("both are written down", async || {
        let has = |file, name| std::fs::read_to_string(file).is_ok_and(|text| text.contains(name));
        (has(&nodes, "acme stores edge-1\n") && has(&gone, " acme stores edge-2 ")).then_some(())
    })
    .await;
    // It cannot come back in time.
    site.initiator.freeze();
    let Site { responder, initiator, folder, target } = site;
    let responder = responder.restart().await;
    let names = eventually("both are gone", async || {
        let gone = responder.0.tunnels().await.gone;
        (gone.len() == 2).then(|| gone.into_iter().map(|gone| (gone.node, gone.reason)).collect::<Vec<_>>())
    })
    .await;
    assert_eq!(names[0], ("edge-1".to_owned(), "not back since the responder was restarted".to_owned()));
    assert!(names[1].0 == "edge-2" && !names[1].1.is_empty(), "{names:?}");
    initiator.thaw();
    eventually("one is back", async || {
        let gone = responder.0.tunnels().await.gone;
        (gone.len() == 1 && gone[0].node == "edge-2").then_some(())
    })
    .await;
    drop((folder, target));
}

async fn a_responder_that_is_young_holds_requests_for_whoever_is_asked_for(transport: Transport) {
    let cloud = Cloud::new().responder("grace", "300s").egress("hold", "100s");
    let Site { responder, initiator, folder, target } = Site::with(cloud, Edge::new(transport)).await;
    let responder = responder.restart_gracefully().await;
    assert_eq!(get(responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    eventually("ready", async || (responder.0.ask(Method::GET, "/ready").await.0 == 200).then_some(())).await;
    drop((initiator, folder, target));
}

async fn a_lame_duck_takes_requests_and_says_that_each_is_the_last(transport: Transport) {
    let mut site = Site::with(Cloud::new().process("lame_duck", "300s"), Edge::new(transport)).await;
    let mut kept = site.connect().await;
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n");
    kept.send(request.as_bytes()).await.unwrap();
    assert_eq!(kept.response().await.unwrap().field("connection"), None);
    site.responder.0.terminate();
    eventually("not ready", async || {
        let (status, missing) = site.responder.0.ask(Method::GET, "/ready").await;
        (status == 503 && missing.contains("draining")).then_some(())
    })
    .await;
    kept.send(request.as_bytes()).await.unwrap();
    let last = kept.response().await.unwrap();
    assert_eq!((last.status(), last.field("connection")), (200, Some("close")));
    let fresh = site.get("/").await;
    assert_eq!((fresh.status(), fresh.field("connection")), (200, Some("close")));
    site.responder.0.terminate();
    assert_ne!(site.responder.0.exit().await.code(), None, "a second order ends it at once");
}

async fn a_restart_of_one_of_two_responders_loses_nothing(transport: Transport) {
    let site = Site::with(Cloud::new().process("lame_duck", "5s"), Edge::new(transport)).await;
    let second = Cloud::new().start(&site.folder).await;
    let target = format!("http://{}", site.target.address());
    let both = Edge::new(transport).target(&target).also(second.tunnel_address());
    let Site { responder, folder, mut initiator, target } = site;
    initiator.terminate();
    initiator.exit().await;
    responder.registered(0).await;
    let initiator = both.start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
    second.registered(1).await;
    let (first, admin, second) = (responder.egress(), responder.0.admin(), second.egress());
    let (over, mut asked) = (Drain::new(), [0, 0]);
    let watch = over.watch();
    // A balancer: whoever is not there or says that it is not ready is not asked. It looks before each request, and the lame duck
    // is much longer than that takes: who only tried to connect would meet the end of the listener, and a responder that knows
    // no node yet.
    let balanced = tokio::spawn(async move {
        let (mut lost, mut pace) = (Vec::new(), interval(Duration::from_millis(10)));
        while !watch.is_draining() {
            let is_ready = get(admin, "/ready", &[]).await.is_ok_and(|response| response.status() == 200);
            asked[usize::from(!is_ready)] += 1;
            let answer = get(if is_ready { first } else { second }, "/", &[TO_NODE]).await;
            let answer = answer.map_or_else(|error| error.to_string(), |response| response.text());
            if answer != "hello\n" {
                lost.push((is_ready, answer));
            }
            pace.tick().await;
        }
        (lost, asked)
    });
    let responder = responder.restart_gracefully().await;
    let is_ready = async || (get(admin, "/ready", &[]).await.ok()?.status() == 200).then_some(());
    eventually("the first one to be ready again", is_ready).await;
    Load::paced(first, TO_NODE).await.finish().await;
    over.begin(Duration::ZERO);
    let (lost, [of_first, of_second]) = balanced.await.unwrap();
    assert_eq!(lost, Vec::new());
    assert!(of_first > 0 && of_second > 0, "{of_first} and {of_second} requests");
    drop((responder, initiator, folder, target));
}

async fn the_command_drains_and_waits_until_the_process_has_gone(transport: Transport) {
    let mut site = Site::start(transport).await;
    let running = under_way(&site).await;
    let mut drains = Adit::start(&["drain", "--wait", "--admin", &site.responder.0.admin().to_string()]);
    drains.line_with("left: 1 tunnel, 1 request runs").await;
    finishes(&site, running).await;
    assert!(drains.line_with("gone after ").await.ends_with("s: everything finished"), "{}", drains.log());
    assert_eq!(drains.exit().await.code(), Some(0), "{}", drains.log());
    let said = drains.log();
    assert!(said.lines().all(|line| line.starts_with("left: ") || line.starts_with("gone after ")), "{said}");
    assert_eq!(site.responder.0.exit().await.code(), Some(0));
    let (code, out, err) = parts(&adit(&["drain", "--admin", &site.initiator.admin().to_string()]).await);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "draining\n", ""));
    assert_eq!(site.initiator.exit().await.code(), Some(0));
    let (code, _, err) = parts(&adit(&["drain", "--wait", "--admin", &site.initiator.admin().to_string()]).await);
    assert!(code == Some(1) && err.contains("cannot connect to the admin listener"), "{code:?} {err}");
}

async fn the_command_says_what_is_left_when_it_has_waited_in_vain(transport: Transport) {
    let site = Site::with(Cloud::new().process("drain_timeout", "300s"), Edge::new(transport)).await;
    let mut client = site.connect().await;
    client.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    site.arrived("/hang").await;
    let admin = site.responder.0.admin().to_string();
    let (code, out, err) = parts(&adit(&["drain", "--wait", "--within", "2", "--admin", &admin]).await);
    assert_eq!(code, Some(3), "{out}");
    assert!(err.contains("is still there after 2s: 1 tunnel, 1 request runs"), "{err}");
}

async fn the_command_says_when_what_ran_was_cancelled(transport: Transport) {
    let site = Site::with(Cloud::new().process("drain_timeout", "1s"), Edge::new(transport)).await;
    let mut client = site.connect().await;
    client.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    site.arrived("/hang").await;
    let admin = site.responder.0.admin().to_string();
    let (code, out, err) = parts(&adit(&["drain", "--wait", "--admin", &admin]).await);
    assert_eq!((code, err.as_str()), (Some(4), ""), "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("gone after ") && last.ends_with(": what still ran was cancelled"), "{out}");
}
