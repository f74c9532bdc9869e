//! Files with mistakes: nothing changes, and all that is wrong is said.

use std::net::TcpListener;

use http::Method;
use serde_json::Value;

use super::trigger::{reload, rewrite};
use super::world::{Outcome, descriptors, result_of_reload, tunnels};
use crate::support::certificates::Authority;
use crate::support::eventually::eventually;
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};

/// What a responder may have grown by after 80 reloads, bytes: what the allocator keeps of the first ones varies.
const MOST_GROWN: u64 = 16 << 20;

over_each_transport!(
    a_file_with_a_mistake_changes_nothing_and_the_next_good_one_is_taken,
    a_hundred_reloads_with_every_tenth_broken_leave_the_last_good_one_and_nothing_behind,
);

async fn a_file_with_a_mistake_changes_nothing_and_the_next_good_one_is_taken(transport: Transport) {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let (before, mut load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let settings = site.responder.0.ask(Method::GET, "/config").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("\"{}\"", taken.local_addr().unwrap());
    Authority::new("another CA").responder().write(site.folder.path(), "other");
    let tls = |cert: &str, key: &str| {
        let tls = format!("{{ cert: {cert}, key: {key}, client_ca: ca.pem }}");
        // With a change beside it that would be good.
        cloud.clone().egress("hold", "1s").responder("tls", &tls).text()
    };
    let two_mistakes = cloud.clone().egress("hold", "soon").process("nonsense", "1").text();
    for (text, expected) in [
        ("responder: {".to_owned(), "cloud.yaml"),
        (String::new(), "says nothing"),
        (two_mistakes.clone(), "egress[0].hold"),
        (two_mistakes, "nonsense"),
        (tls("missing.pem", "cloud.key"), "missing.pem"),
        (tls("cloud.pem", "other.key"), "does not belong"),
        (cloud.clone().and_egress().egress("http", &taken).text(), "cannot bind tcp"),
        (cloud.clone().and_egress().process("admin", &taken).text(), "cannot listen on"),
        (cloud.clone().responder("listen", &format!("{{ tcp: {taken} }}")).text(), "responder.listen: cannot bind tcp"),
        (cloud.clone().process("workers", "3").egress("hold", "1s").text(), "workers: cannot change"),
        (cloud.clone().process("log", "{ format: json }").text(), "log.format: cannot change"),
    ] {
        let error = rewrite(&site.responder.0, &text).await.error();
        assert!(error.contains(expected), "{expected:?} is not in {error}");
        assert_eq!(site.responder.0.ask(Method::GET, "/config").await, settings);
        load.goes_on().await;
    }
    std::fs::remove_file(site.responder.0.file()).unwrap();
    assert!(reload(&site.responder.0).await.error().contains("cannot be read"));
    assert_eq!(site.responder.0.metric("adit_reloads_total{result=\"failed\"}").await, 12);
    assert_eq!(rewrite(&site.responder.0, &cloud.text()).await, Outcome::Unchanged);
    assert_eq!(rewrite(&site.responder.0, &cloud.egress("hold", "1s").text()).await.changes().len(), 1);
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
}

async fn a_hundred_reloads_with_every_tenth_broken_leave_the_last_good_one_and_nothing_behind(transport: Transport) {
    let cloud = Cloud::new().egress("access_log", "false");
    let site = Site::with(cloud.clone(), Edge::new(transport).initiator("access_log", "false")).await;
    let (before, load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    Authority::new("another CA").responder().write(site.folder.path(), "other");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = |cert: &str, key: &str| format!("{{ cert: {cert}, key: {key}, client_ca: ca.pem }}");
    let broken = [
        "egress: [".to_owned(),
        cloud.clone().responder("tls", &tls("missing.pem", "cloud.key")).text(),
        cloud.clone().and_egress().egress("http", &format!("\"{}\"", taken.local_addr().unwrap())).text(),
        cloud.clone().responder("tls", &tls("cloud.pem", "other.key")).text(),
    ];
    let shown =
        async || -> Value { serde_json::from_str(&site.responder.0.ask(Method::GET, "/config").await.1).unwrap() };
    let (mut good, mut open, mut resident) = (Value::Null, 0, 0);
    for round in 1..=100 {
        if round % 10 == 0 {
            site.folder.write("cloud.yaml", &broken[round / 10 % broken.len()]);
            assert_eq!(result_of_reload(&site.responder.0).await, "failed");
        } else {
            let mut cloud = cloud.clone().egress("hold", &format!("{round}ms"));
            if round % 3 == 0 {
                cloud = cloud.and_egress().process("metrics", "{ listen: \"127.0.0.1:0\" }");
            }
            site.folder.write("cloud.yaml", &cloud.text());
            assert_eq!(result_of_reload(&site.responder.0).await, "applied");
            good = shown().await;
            assert_eq!(good["egress"][0]["hold"], format!("{round}ms"));
        }
        assert_eq!(shown().await, good, "round {round}");
        // Without the listeners of every third.
        if round == 20 {
            (open, resident) = (descriptors(&site.responder.0), site.responder.0.memory());
        }
    }
    let grown = site.responder.0.memory().saturating_sub(resident);
    assert!(grown < MOST_GROWN, "{grown} bytes more after 80 reloads");
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
    site.folder.write("cloud.yaml", &cloud.text());
    assert_eq!(result_of_reload(&site.responder.0).await, "applied");
    // Those of the load and of the admin listener may not be closed yet.
    eventually("as few descriptors as before", async || (descriptors(&site.responder.0) <= open).then_some(())).await;
}
