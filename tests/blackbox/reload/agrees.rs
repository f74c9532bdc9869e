//! A reload and `adit check` are of one mind: what the one calls a problem the other does not take, in the same words.

use std::time::Duration;

use super::trigger::{reload, rewrite};
use super::world::{Outcome, tunnels};
use crate::cli::{adit, parts};
use crate::support::certificates::Certificate;
use crate::support::eventually::eventually;
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, NODE, Running, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_certificate_that_peers_would_not_take_is_no_reload,
    a_certificate_that_ended_meanwhile_is_in_the_way_of_no_other_change,
    what_check_warns_of_is_in_the_log_once,
);

/// What `adit check` says of the file of a process, and its exit code.
async fn check(running: &Running) -> (Option<i32>, String) {
    let (code, out, _) = parts(&adit(&["check", running.file().to_str().unwrap()]).await);
    (code, out)
}

/// Each problem that `adit check` finds.
fn problems(out: &str) -> Vec<String> {
    out.lines().filter_map(|line| line.trim().strip_prefix("problem  ")).map(str::to_owned).collect()
}

/// The same without what the clock said.
fn timeless(text: &str) -> String {
    let parts = text.split("the clock here says ");
    parts
        .map(|part| part.split_once(" UTC").filter(|_| part.starts_with("20")).map_or(part, |(_, rest)| rest))
        .collect()
}

// spec: SE-40
async fn a_certificate_that_peers_would_not_take_is_no_reload(transport: Transport) {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let (before, mut load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let (folder, authority) = (site.folder.path().to_owned(), &site.folder.authority);
    let good: (String, String) = {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        (read("cloud.pem"), read("cloud.key"))
    };
    let changed = cloud.clone().egress("hold", "1s").text();
    let expired: Certificate = authority.expired_responder();
    for bad in [expired, authority.node(NODE)] {
        bad.write(&folder, "cloud");
        let error = rewrite(&site.responder.0, &changed).await.error();
        let (code, out) = check(&site.responder.0).await;
        assert_eq!(code, Some(1), "{out}");
        let problems = problems(&out);
        assert!(!problems.is_empty() && problems.iter().all(|problem| problem.starts_with("responder.tls.cert: ")));
        assert_eq!(timeless(&error), timeless(&problems.join("; ")), "in the same words");
        load.goes_on().await;
    }
    // The clock is no matter of who is not in force.
    std::fs::write(folder.join("cloud.pem"), good.0).unwrap();
    std::fs::write(folder.join("cloud.key"), good.1).unwrap();
    assert_eq!(reload(&site.responder.0).await.changes(), ["~ egress[127.0.0.1:0].hold: 2s -> 1s"]);
    assert_eq!(check(&site.responder.0).await.0, Some(0));

    // The other role: a certificate of another node proves nothing of this one.
    let other = crate::support::certificates::Node { node: "edge-2", ..NODE };
    let files = site.initiator.file().to_owned();
    let text = std::fs::read_to_string(&files).unwrap();
    authority.node(other).write(&folder, "another");
    let wrong = text.replace("edge.pem", "another.pem").replace("edge.key", "another.key");
    assert_ne!(wrong, text, "{text}");
    let error = rewrite(&site.initiator, &wrong).await.error();
    assert_eq!(error, problems(&check(&site.initiator).await.1).join("; "));
    assert!(error.contains("its names say node edge-2, the file says edge-1"), "{error}");
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
}

async fn a_certificate_that_ended_meanwhile_is_in_the_way_of_no_other_change(transport: Transport) {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let mut lifetime = Duration::from_secs(3);
    // One that ends before it was read is not taken, and not meant.
    eventually("a certificate that is in force and ends soon", async || {
        site.folder.authority.responder_lasting(lifetime).write(site.folder.path(), "cloud");
        lifetime *= 2;
        matches!(reload(&site.responder.0).await, Outcome::Applied(_)).then_some(())
    })
    .await;
    let has_ended = async || (check(&site.responder.0).await.0 == Some(1)).then_some(());
    eventually("the end of the certificate that is in force", has_ended).await;
    rewrite(&site.responder.0, &cloud.clone().egress("hold", "1s").text()).await.changes();
    let line = site.responder.0.line_with("expired").await;
    assert_eq!((&line["level"], &line["key"]), (&"WARN".into(), &"responder.tls.cert".into()), "{line}");

    // Another one that is no better is not taken.
    site.folder.authority.expired_responder().write(site.folder.path(), "cloud");
    assert!(reload(&site.responder.0).await.error().contains("responder.tls.cert: "));
    site.folder.authority.responder().write(site.folder.path(), "cloud");
    assert_eq!(reload(&site.responder.0).await.changes(), ["~ responder.tls.cert: another certificate"]);
}

async fn what_check_warns_of_is_in_the_log_once(transport: Transport) {
    let edge = Edge::new(transport);
    let site = Site::with(Cloud::new(), edge.clone()).await;
    let target = format!("http://{}", site.target.address());
    let twice = "{ name: more, match: {}, target: \"http://127.0.0.1:1\" }";
    let edge = edge.target(&target).service("{ name: web, match: {}, target: \"{target}\" }").service(twice);
    let text = edge.text(&site.responder.tunnel_address().to_string());
    rewrite(&site.initiator, &text).await.changes();
    let warning = "service more: web has the same match and stands before it, so that it takes every request that names no service";
    let (code, out) = check(&site.initiator).await;
    assert!(code == Some(0) && out.contains(&format!("warning    {warning}")), "{out}");
    assert_eq!(site.initiator.line_with(warning).await["level"], "WARN");
    rewrite(&site.initiator, &text.replace("127.0.0.1:1\"", "127.0.0.1:2\"")).await.changes();
    assert_eq!(site.initiator.lines_of(warning).len(), 1);
}

#[tokio::test]
async fn check_finds_what_can_never_work() {
    let folder = crate::support::site::Folder::new();
    let checked = async |name: &str, text: &str| {
        let file = folder.write(name, text);
        let (code, out, _) = parts(&adit(&["check", file.to_str().unwrap()]).await);
        (code, out)
    };
    let edge = Edge::new(Transport::Quic).service("{ name: web, match: {}, target: \"http://127.0.0.1:0\" }");
    let (code, out) = checked("edge.yaml", &edge.text("127.0.0.1:7843")).await;
    assert!(code == Some(1) && out.contains("services[0].target") && out.contains("port 0, on which nobody"), "{out}");
    let routes = "[{ host: a.example, service: one }, { host: a.example, service: two }]";
    let cloud = Cloud::new().egress("routes", routes).responder("listen", "{ tcp: \"0.0.0.0:0\" }");
    let (code, out) = checked("cloud.yaml", &cloud.text()).await;
    let all =
        ["routes[1] is never taken: routes[0] has the same match", "responder.listen.tcp 0.0.0.0:0: port 0 is any"];
    assert!(code == Some(0) && all.iter().all(|warning| out.contains(warning)), "{out}");
}

#[tokio::test]
async fn the_difference_says_what_needs_a_restart_as_the_reload_does() {
    let site = Site::start(Transport::Quic).await;
    let old = site.folder.write("old.yaml", &Cloud::new().text());
    let text = Cloud::new().process("workers", "2").responder("grace", "1s").egress("hold", "1s").text();
    let error = rewrite(&site.responder.0, &text).await.error();
    assert_eq!(
        error,
        "workers, responder.grace: cannot change while the process runs; expected what it was, or a restart"
    );
    let new = site.responder.0.file();
    let diff = ["check", "--diff", old.to_str().unwrap(), new.to_str().unwrap()];
    let (code, out, _) = parts(&adit(&diff).await);
    assert_eq!(code, Some(1));
    assert!(out.contains("~ egress[127.0.0.1:0].hold: 2s -> 1s\n") && out.ends_with(&format!("{error}\n")), "{out}");
}
