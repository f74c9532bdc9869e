//! Responders of one fleet, and what one of them knows.

use adit::admin::{FleetReport, FleetResponder};
use http::Method;

use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::site::{Cloud, Folder, Responder, Running};

/// The file of a responder of this name.
pub(super) fn member(etcd: &Etcd, id: &str, lease: &str) -> Cloud {
    Cloud::new().process("fleet", &section(&etcd.url(), id, lease))
}

/// The section of the file.
pub(super) fn section(url: &str, id: &str, lease: &str) -> String {
    format!("{{ etcd: {url:?}, id: {id}, lease: {lease}, initiators_at: \"{id}.example:7843\", region: here }}")
}

/// Starts a responder under a file name of its own.
pub(super) async fn start(folder: &Folder, id: &str, cloud: &Cloud) -> Responder {
    Responder(Running::start(folder.write(&format!("{id}.yaml"), &cloud.text())).await)
}

/// Two of them, named `a` and `b`, that have seen each other.
pub(super) async fn two(etcd: &Etcd, folder: &Folder, lease: &str) -> (Responder, Responder) {
    let a = start(folder, "a", &member(etcd, "a", lease)).await;
    let b = start(folder, "b", &member(etcd, "b", lease)).await;
    for responder in [&a, &b] {
        sees(responder, "both", |report| names(report) == ["a", "b"]).await;
    }
    (a, b)
}

/// What the responder knows of its fleet.
pub(super) async fn fleet(responder: &Responder) -> FleetReport {
    let (status, text) = responder.0.ask(Method::GET, "/fleet").await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Waits until what it knows is so.
pub(super) async fn sees(responder: &Responder, what: &str, is_so: impl Fn(&FleetReport) -> bool) -> FleetReport {
    eventually(&format!("the view has {what}"), async || Some(fleet(responder).await).filter(|report| is_so(report)))
        .await
}

/// Waits until a request for this node is answered: the first one that goes to a sibling may have to wait for the connection longer
/// than requests wait for anything.
pub(super) async fn answers(at: &Responder, node: &str) {
    eventually("an answer", async || (get(at.egress(), "/", &[node]).await.unwrap().status() == 200).then_some(()))
        .await;
}

pub(super) fn names(report: &FleetReport) -> Vec<&str> {
    report.responders.iter().map(|responder| responder.id.as_str()).collect()
}

/// The responder of this name.
pub(super) fn of<'a>(report: &'a FleetReport, id: &str) -> Option<&'a FleetResponder> {
    report.responders.iter().find(|responder| responder.id == id)
}

/// Whether the responder of this name has so many tunnels.
pub(super) fn has(report: &FleetReport, id: &str, tunnels: u32) -> bool {
    of(report, id).is_some_and(|responder| responder.tunnels == tunnels)
}
