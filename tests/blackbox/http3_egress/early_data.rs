//! Requests that come before the handshake is done (0-RTT). RFC 8470

use serde_json::{Value, json};

use super::cloud;
use crate::support::http1::get;
use crate::support::http3::{Http3, request, request_with, wait};
use crate::support::site::{Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    safe_methods_are_served_and_marked_and_others_are_to_come_again,
    there_is_none_unless_it_is_asked_for,
    what_is_sent_again_by_somebody_else_reaches_no_target,
    nothing_is_served_to_an_address_that_may_be_forged,
    a_target_may_ask_for_the_request_to_come_again,
);

/// A listener that takes early data.
async fn site(transport: Transport) -> Site {
    Site::with(cloud().egress("http3", "{ early_data: true }"), Edge::new(transport)).await
}

/// A connection, and another one of a client that was here before.
fn twice(more: Value) -> Vec<Value> {
    let mut reconnect = json!({ "do": "reconnect" });
    reconnect.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    vec![request("first", "GET", "/request"), wait("first"), reconnect]
}

fn is_marked(text: &str) -> bool {
    text.contains(r#"["early-data","1"]"#)
}

async fn safe_methods_are_served_and_marked_and_others_are_to_come_again(transport: Transport) {
    let site = site(transport).await;
    let extended = json!([
        [":method", "CONNECT"],
        [":protocol", "websocket"],
        [":scheme", "https"],
        [":authority", "localhost"],
        [":path", "/chat"],
        ["sec-websocket-version", "13"],
        ["x-node-id", NODE.node]
    ]);
    let mut steps = twice(json!({}));
    steps.extend([
        request("get", "GET", "/request"),
        request("options", "OPTIONS", "/request"),
        request_with("post", "POST", "/early", json!({ "body": "x" })),
        request("delete", "DELETE", "/early"),
        request_with("connect", "CONNECT", "/", json!({ "head": extended })),
        json!({ "do": "connected" }),
    ]);
    steps.extend(["get", "options", "post", "delete", "connect"].map(wait));
    steps.extend([
        request_with("late", "POST", "/echo", json!({ "body": "x" })),
        request("unmarked", "GET", "/request"),
        wait("late"),
        wait("unmarked"),
    ]);
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    assert!(!is_marked(client.answer("first").await.text()));
    let done = client.did_once("connected").await;
    assert_eq!((&done["resumed"], &done["early"]), (&true.into(), &true.into()), "{done}");
    let answer = client.answer("get").await;
    assert!(answer.status() == 200 && is_marked(answer.text()), "{answer:?}");
    assert!(is_marked(client.answer("options").await.text()));
    for name in ["post", "delete", "connect"] {
        let answer = client.answer(name).await;
        assert_eq!((answer.status(), &answer.0["closed"]), (425, &Value::Null), "{name}: {answer:?}");
    }
    assert_eq!(client.answer("late").await.text(), "x");
    assert!(!is_marked(client.answer("unmarked").await.text()));
    assert!(!site.target.requests().iter().any(|seen| seen.contains("/early") || seen.contains("/chat")));
}

async fn there_is_none_unless_it_is_asked_for(transport: Transport) {
    let site = Site::with(cloud(), Edge::new(transport)).await;
    let mut steps = twice(json!({}));
    steps.extend([request("get", "GET", "/request"), json!({ "do": "connected" }), wait("get")]);
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let done = client.did_once("connected").await;
    assert_eq!((&done["resumed"], &done["early"]), (&true.into(), &false.into()), "{done}");
    let answer = client.answer("get").await;
    assert!(answer.status() == 200 && !is_marked(answer.text()), "{answer:?}");
}

async fn what_is_sent_again_by_somebody_else_reaches_no_target(transport: Transport) {
    let site = site(transport).await;
    // Who reads nothing cannot finish a handshake.
    let mut steps = twice(json!({ "mute": true }));
    steps.extend([request("early", "GET", "/slow/1"), json!({ "do": "mark" })]);
    steps.extend([json!({ "do": "replay" }), json!({ "do": "replay" })]);
    steps.extend([json!({ "do": "reconnect" }), request("after", "GET", "/status/204"), wait("after")]);
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    client.did_once("mark").await;
    site.arrived("/slow/1").await;
    assert_eq!(client.answer("after").await.status(), 204);
    let asked = site.target.requests();
    assert_eq!(asked.iter().filter(|seen| seen.ends_with("/slow/1")).count(), 1, "{asked:?}");
}

async fn nothing_is_served_to_an_address_that_may_be_forged(transport: Transport) {
    let site = site(transport).await;
    let mut steps = twice(json!({ "mute": true, "anonymous": true }));
    steps.push(request("forged", "GET", "/slow/1"));
    steps.extend([json!({ "do": "reconnect", "anonymous": true }), request("after", "GET", "/request"), wait("after")]);
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let answer = client.answer("after").await;
    assert!(answer.status() == 200 && is_marked(answer.text()), "once the handshake is done: {answer:?}");
    assert!(!site.target.requests().iter().any(|seen| seen.contains("/slow")), "{:?}", site.target.requests());
}

async fn a_target_may_ask_for_the_request_to_come_again(transport: Transport) {
    let site = site(transport).await;
    let mut steps = twice(json!({}));
    steps.extend([request("early", "GET", "/status/425"), wait("early")]);
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    assert_eq!(client.answer("early").await.status(), 425);
    // What a client or a proxy in front says of it is passed on. RFC 8470 section 5.1
    let clear = Site::start(transport).await;
    let answer = get(clear.egress(), "/request", &[TO_NODE, "early-data: 1", "early-data: 0"]).await.unwrap();
    assert_eq!(answer.text().matches("early-data").count(), 1, "{}", answer.text());
    assert!(is_marked(&answer.text()));
}
