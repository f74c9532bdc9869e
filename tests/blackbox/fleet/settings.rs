//! How etcd is reached, and what a reload changes.

use std::process::Command;

use http::Method;
use serde_json::json;

use crate::fleet::world::{fleet, has, member, names, of, section, sees, start, two};
use crate::support::certificates::Authority;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, Folder, Responder, Transport};

const LONG: &str = "300s";

#[tokio::test]
async fn another_member_is_asked_where_one_cannot_be_reached() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let both = format!("{{ etcd: [ \"http://{}\", {:?} ], id: a }}", free_address(), etcd.url());
    let a = start(&folder, "a", &Cloud::new().process("fleet", &both)).await;
    let report = sees(&a, "itself", |report| names(report) == ["a"]).await;
    assert_eq!(report.etcd, Some(etcd.url()));
}

#[tokio::test]
async fn etcd_over_tls_asks_for_a_certificate_and_gets_it() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name);
    folder.authority.either_role("localhost", None).write(folder.path(), "etcd");
    let started = Etcd::start_with_tls(&path("ca.pem"), &path("etcd.pem"), &path("etcd.key")).await;
    let Some(etcd) = started else { return };
    let of = |id: &str, tls: &str| format!("{{ etcd: {:?}, id: {id}, tls: {tls} }}", etcd.url());
    let shown = of("a", "{ ca: ca.pem, cert: etcd.pem, key: etcd.key }");
    let a = start(&folder, "a", &Cloud::new().process("fleet", &shown)).await;
    sees(&a, "itself", |report| names(report) == ["a"]).await;
    let b = start(&folder, "b", &Cloud::new().process("fleet", &of("b", "{ ca: ca.pem }"))).await;
    let report = sees(&b, "trouble", |report| report.trouble.is_some()).await;
    assert_eq!((report.view.as_str(), names(&report).len()), ("empty", 0));
    // What the files hold is read again, and shown at the next connection.
    Authority::new("a stranger").either_role("c", None).write(folder.path(), "c");
    let file = Cloud::new().process("fleet", &of("c", "{ ca: ca.pem, cert: c.pem, key: c.key }"));
    let c = start(&folder, "c", &file).await;
    sees(&c, "trouble", |report| report.trouble.is_some()).await;
    folder.authority.either_role("c", None).write(folder.path(), "c");
    let (status, changes) = c.0.ask(Method::POST, "/reload").await;
    assert!(status == 200 && changes.contains("fleet.tls.cert: another certificate"), "{status} {changes}");
    sees(&c, "itself", |report| names(report).contains(&"c")).await;
}

#[tokio::test]
async fn etcd_with_users_is_told_who_asks() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    etcd.ask("/v3/auth/user/add", json!({ "name": "root", "password": "correct" })).await.unwrap();
    etcd.ask("/v3/auth/role/add", json!({ "name": "root" })).await.unwrap();
    etcd.ask("/v3/auth/user/grant", json!({ "user": "root", "role": "root" })).await.unwrap();
    etcd.ask("/v3/auth/enable", json!({})).await.unwrap();
    let of = |id: &str, password: &str| {
        let user = format!("{{ etcd: {:?}, id: {id}, user: root, password: {password} }}", etcd.url());
        Cloud::new().process("fleet", &user)
    };
    let wrong = start(&folder, "a", &of("a", "wrong")).await;
    let report = sees(&wrong, "trouble", |report| report.trouble.is_some()).await;
    assert!(report.trouble.as_ref().unwrap().contains("authentication failed"), "{report:?}");
    let right = start(&folder, "b", &of("b", "correct")).await;
    sees(&right, "itself", |report| names(report) == ["b"]).await;

    // Its token is not known any more: so it is for whoever says nothing for some minutes, too.
    let token = etcd.ask("/v3/auth/authenticate", json!({ "name": "root", "password": "correct" })).await.unwrap();
    let token = token["token"].as_str().unwrap();
    etcd.ask_as(token, "/v3/auth/user/changepw", json!({ "name": "root", "password": "correct" })).await.unwrap();
    assert!(etcd.ask_as(token, "/v3/kv/range", json!({ "key": "AA==" })).await.is_none(), "the token is old");
    let _edge = Edge::new(Transport::Quic).start(&folder, right.tunnel_address()).await;
    sees(&right, "its tunnel", |report| report.responders.iter().any(|one| one.id == "b" && one.tunnels == 1)).await;
    assert_eq!(right.0.metric("adit_fleet_etcd_lost_total").await, 0);
}

#[tokio::test]
async fn a_fleet_is_joined_changed_and_left_by_a_reload() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let a = start(&folder, "a", &member(&etcd, "a", LONG)).await;
    let alone = Cloud::new();
    let b = start(&folder, "b", &alone).await;
    assert_eq!(b.0.ask(Method::GET, "/fleet").await.0, 404);
    let reload = async |fleet: Option<String>| {
        let file = match fleet {
            Some(fleet) => Cloud::new().process("fleet", &fleet),
            None => Cloud::new(),
        };
        folder.write("b.yaml", &file.text());
        b.0.ask(Method::POST, "/reload").await
    };
    let (status, changes) = reload(Some(section(&etcd.url(), "b", LONG))).await;
    assert_eq!((status.as_u16(), changes.as_str()), (200, "+ fleet\n"));
    sees(&a, "both", |report| names(report) == ["a", "b"]).await;
    let elsewhere = section(&etcd.url(), "b", LONG).replace("region: here", "region: there, weight: 7");
    let (status, changes) = reload(Some(elsewhere)).await;
    assert_eq!(status, 200, "{changes}");
    assert!(
        changes.contains("~ fleet.region: here -> there") && changes.contains("~ fleet.weight: 100 -> 7"),
        "{changes}"
    );
    sees(&a, "the other weight", |report| report.responders.iter().any(|one| one.id == "b" && one.weight == 7)).await;
    let (status, why) = reload(Some(section(&etcd.url(), "c", LONG))).await;
    assert_eq!(status, 422);
    assert!(why.contains("fleet.id"), "{why}");
    assert_eq!(reload(None).await.0, 200);
    sees(&a, "itself alone", |report| names(report) == ["a"]).await;
    assert_eq!(b.0.ask(Method::GET, "/fleet").await.0, 404);
}

// Regression: the directory, and with it every roster, went on to name the former addresses.
/// spec: FL-7, FL-60
#[tokio::test]
async fn a_responder_that_takes_tunnels_elsewhere_after_a_reload_says_so_in_the_directory() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let told = section(&etcd.url(), "a", LONG).replace("initiators_at: \"a.example:7843\", ", "");
    let file = Cloud::new().process("fleet", &told);
    let a = start(&folder, "a", &file).await;
    let at = |report: &adit::admin::FleetReport| of(report, "a").map_or_else(Vec::new, |a| a.initiators_at.clone());
    let before = sees(&a, "where it is", |report| !at(report).is_empty()).await;
    assert!(at(&before).contains(&a.tunnel_address().to_string()), "{before:?}");
    let elsewhere = free_address().to_string();
    let listen = format!("{{ quic: {elsewhere:?}, tcp: {elsewhere:?} }}");
    folder.write("a.yaml", &file.responder("listen", &listen).text());
    let (status, changes) = a.0.ask(Method::POST, "/reload").await;
    assert_eq!(status, 200, "{changes}");
    sees(&a, "where it is now", |report| at(report) == [elsewhere.clone()]).await;
}

#[tokio::test]
async fn the_command_lists_the_responders() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (a, _b) = two(&etcd, &folder, LONG).await;
    assert_eq!(fleet(&a).await.prefix, "/adit/");
    let admin = a.0.admin().to_string();
    let run = move || Command::new(env!("CARGO_BIN_EXE_adit")).args(["fleet", "--admin", &admin]).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("2 responders, 0 tunnels below /adit/"), "{text}");
    assert!(text.contains("a (this)   live"), "{text}");
}

/// One line for each of them filled the log.
#[tokio::test]
async fn what_cannot_be_used_in_the_directory_is_said_a_few_times_a_minute() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let a = start(&folder, "a", &member(&etcd, "a", LONG)).await;
    sees(&a, "itself", |report| names(report) == ["a"]).await;
    // `/adit/tunnels/x` with the value `x`, again and again.
    for _ in 0..30 {
        etcd.ask("/v3/kv/put", json!({ "key": "L2FkaXQvdHVubmVscy94", "value": "eA==" })).await.unwrap();
    }
    eventually("all of them", async || (a.0.metric("adit_fleet_records_ignored_total").await == 30).then_some(()))
        .await;
    a.0.line_with("is no key of the directory").await;
    let log = a.0.log();
    let lines = log.lines().filter(|line| line.contains("is no key of the directory")).count();
    assert!((1..=10).contains(&lines), "{lines} lines");
}

/// It deleted what a responder of its own had written there, warned of each record, and read all of them.
///
/// spec: FL-3
#[tokio::test]
async fn a_fleet_whose_prefix_is_below_that_of_another_is_none_of_its_business() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let below = section(&etcd.url(), "b", LONG).replace("id:", "prefix: /adit/eu, id:");
    let outer = start(&folder, "a", &member(&etcd, "a", LONG)).await;
    let inner = start(&folder, "b", &Cloud::new().process("fleet", &below)).await;
    let _edge = Edge::new(Transport::Quic).start(&folder, inner.tunnel_address()).await;
    let report = sees(&inner, "its tunnel", |report| has(report, "b", 1)).await;
    assert_eq!(names(&report), ["b"]);
    let knows_nothing = async |responder: &Responder, all: &[&str]| {
        let others =
            sees(responder, "all until then", |other| other.revision >= report.revision && names(other) == all);
        assert_eq!(others.await.tunnels, 0);
        assert_eq!(responder.0.metric("adit_fleet_records_ignored_total").await, 0);
    };
    knows_nothing(&outer, &["a"]).await;
    // Another one begins with a whole read.
    let late = start(&folder, "c", &member(&etcd, "c", LONG)).await;
    knows_nothing(&late, &["a", "c"]).await;
    assert!(has(&fleet(&inner).await, "b", 1));
}
