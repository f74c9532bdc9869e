//! Calls over HTTP/3: clients of gRPC do not speak it, so its messages are framed here, and sent by a client of HTTP/3 that we did
//! not write; the server is one that we did not write either.

use serde_json::{Value, json};

use super::{REFUSING, server, site};
use crate::support::http3::{Answer, Http3, request_with, wait};
use crate::support::site::{Cloud, NODE, Site, Transport, over_each_transport};

over_each_transport!(
    a_call_over_http_3_comes_through_with_its_messages_and_its_status,
    a_conversation_over_http_3_goes_to_and_fro,
    a_failure_of_our_own_is_a_status_of_grpc_over_http_3_too,
);

/// So long that it takes many frames, and no byte of its length needs more than one as text.
const LARGE: usize = 0x7f7f;

/// A message as gRPC frames it: not compressed, its length in front.
fn framed(message: &str) -> String {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    format!("\0{}{message}", std::str::from_utf8(&length).unwrap())
}

/// Begins a call of this method, with more keys of the step.
fn call(name: &str, node: &str, method: &str, more: Value) -> Value {
    let fields = json!([["x-node-id", node], ["te", "trailers"], ["content-type", "application/grpc"]]);
    let mut step = request_with(name, "POST", &format!("/test.Calls/{method}"), json!({ "fields": fields }));
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

/// What is said of a call when it is over: behind its messages, or in its head where there are none.
fn told<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.trailer(name).or_else(|| answer.field(name).filter(|_| answer.bytes() == 0))
}

fn cloud() -> Cloud {
    Cloud::new().egress("tls", "{ cert: cloud.pem, key: cloud.key }")
}

async fn calls(transport: Transport, port: &str) -> Site {
    site(transport, cloud(), &format!("h2c://127.0.0.1:{port}"), "").await
}

async fn a_call_over_http_3_comes_through_with_its_messages_and_its_status(transport: Transport) {
    let Some((_server, port)) = server(&[]).await else { return };
    let site = calls(transport, &port).await;
    let large = "x".repeat(LARGE);
    let steps = vec![
        call("small", NODE.node, "Echo", json!({ "body": framed("hello") })),
        call("large", NODE.node, "Echo", json!({ "body": framed(&large) })),
        call("none", NODE.node, "Echo", json!({ "body": framed("") })),
        call("fails", NODE.node, "Fail", json!({ "body": framed("") })),
        wait("small"),
        wait("large"),
        wait("none"),
        wait("fails"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for (name, length) in [("small", 5), ("large", LARGE), ("none", 0)] {
        let answer = client.answer(name).await;
        assert!(answer.status() == 200 && answer.is_whole(), "{name}: {answer:?}");
        assert_eq!((answer.bytes(), answer.field("content-type")), (5 + length as u64, Some("application/grpc")));
        assert_eq!((answer.trailer("grpc-status"), answer.trailer("x-sum")), (Some("0"), Some(&*length.to_string())));
    }
    assert_eq!(client.answer("small").await.text(), framed("hello"));
    let fails = client.answer("fails").await;
    assert!(fails.status() == 200 && fails.is_whole(), "{fails:?}");
    assert_eq!((told(&fails, "grpc-status"), told(&fails, "x-why")), (Some("9"), Some("told")), "{fails:?}");
    assert_eq!(told(&fails, "grpc-message"), Some("not now: 100 %25"), "{fails:?}");
}

/// Each message is sent when the one before has come back.
async fn a_conversation_over_http_3_goes_to_and_fro(transport: Transport) {
    let Some((_server, port)) = server(&[]).await else { return };
    let site = calls(transport, &port).await;
    let messages = ["one", "two and more", "three"].map(framed);
    let mut steps = vec![call("chat", NODE.node, "Chat", json!({ "body": messages[0], "open": true }))];
    let mut so_far = 0;
    for (at, message) in messages.iter().enumerate() {
        if at > 0 {
            steps.push(json!({ "do": "body", "name": "chat", "text": message }));
        }
        so_far += message.len();
        steps.push(json!({ "do": "read", "name": "chat", "bytes": so_far }));
    }
    steps.extend([json!({ "do": "body", "name": "chat", "end": true }), wait("chat")]);
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let first = client.did("read", "chat").await;
    assert_eq!((&first["status"], &first["text"]), (&200.into(), &messages[0].as_str().into()), "{first}");
    let answer = client.answer("chat").await;
    assert!(answer.text() == messages.concat() && answer.is_whole(), "{answer:?}");
    assert_eq!(answer.trailer("grpc-status"), Some("0"), "{answer:?}");
}

async fn a_failure_of_our_own_is_a_status_of_grpc_over_http_3_too(transport: Transport) {
    let site = site(transport, cloud(), REFUSING, "").await;
    let body = json!({ "body": framed("hello") });
    let steps = vec![
        call("refused", NODE.node, "Echo", body.clone()),
        call("nobody", "nobody", "Echo", body),
        wait("refused"),
        wait("nobody"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for (name, cause) in [("refused", "connection_refused"), ("nobody", "no node or cluster nobody is connected")] {
        let answer = client.answer(name).await;
        assert!(answer.status() == 200 && answer.bytes() == 0 && answer.is_whole(), "{name}: {answer:?}");
        assert_eq!(told(&answer, "grpc-status"), Some("14"), "{name}: {answer:?}");
        assert!(told(&answer, "grpc-message").unwrap().contains(cause), "{name}: {answer:?}");
    }
}
