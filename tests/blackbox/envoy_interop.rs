//! Envoy's reverse tunnels, with the real Envoy at one end or at both.

mod admission;
mod carried;
mod drains;
mod ends;
mod envoy_alone;
mod envoy_weak;
mod frozen;
mod handshake;
mod proof;
mod raw;
mod refused;
mod rejections;
mod spread;
pub(crate) mod tap;
mod untls;

use ends::{End, Pair, over_each_pair};

use crate::support::http1::RawHttp;
use crate::support::http2::Http2;
use crate::support::site::{NODE, TO_NODE};
use crate::support::targets::pattern;

over_each_pair!(
    requests_find_a_node_and_a_cluster,
    an_unknown_name_is_503,
    trailers_arrive,
    a_body_of_1_mib_arrives_whole_each_way,
);

async fn requests_find_a_node_and_a_cluster(pair: Pair) {
    for field in [TO_NODE, &format!("x-cluster-id: {}", NODE.cluster)] {
        for number in 0..20 {
            let response = pair.get(&format!("/?{number}"), &[field]).await;
            assert_eq!((response.status(), response.text()), (200, "hello\n".to_owned()), "{field}, {number}");
        }
    }
    assert_eq!(pair.target.requests().len(), 40);
}

async fn an_unknown_name_is_503(pair: Pair) {
    assert_eq!(pair.get("/", &["x-node-id: edge-404"]).await.status(), 503);
    assert_eq!(pair.get("/", &[TO_NODE]).await.status(), 200, "the tunnel is well");
    assert_eq!(pair.target.requests(), ["GET /"]);
}

async fn trailers_arrive(pair: Pair) {
    let response = pair.get("/trailers", &[TO_NODE, "te: trailers"]).await;
    assert_eq!((response.status(), response.text()), (200, "body\n".to_owned()));
    assert_eq!(response.trailers, [("x-sum".to_owned(), "42".to_owned())]);

    let uri = format!("http://{}/trailers", pair.responder.egress());
    let request = http::Request::get(uri).header("x-node-id", NODE.node).header("te", "trailers").body(()).unwrap();
    let response = Http2::connect(pair.responder.egress()).await.get(request).await;
    assert_eq!(response.body().trailers.as_ref().unwrap()["x-sum"], "42", "over HTTP/2");
}

async fn a_body_of_1_mib_arrives_whole_each_way(pair: Pair) {
    let body = pattern(0, 1 << 20);
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut client = RawHttp::connect(pair.responder.egress()).await.unwrap();
    client.send(&[head.as_bytes(), &body].concat()).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.body == body, "{} bytes came back, or others", response.body.len());
}
