//! Somebody on the way between the two ends.

use super::peer::PREFACE;
use crate::envoy_interop::tap::Tap;
use crate::support::http1::get;
use crate::support::site::{Cloud, Edge, Folder, NODE, TO_NODE, Transport};
use crate::support::targets::Target;

// spec: TB-2
#[tokio::test]
async fn nothing_of_a_tunnel_is_ever_seen_in_clear() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = Cloud::new().start(&folder).await;
    let tap = Tap::new(responder.tunnel_address()).await;
    let edge = Edge::new(Transport::Tcp).target(&format!("http://{}", target.address()));
    let mut initiator = edge.start(&folder, tap.address()).await;
    responder.registered(1).await;
    let response = get(responder.egress(), "/request?secret-path", &[TO_NODE, "x-a: secret-field"]).await.unwrap();
    assert!(response.text().contains("secret-path") && response.text().contains("secret-field"));
    initiator.terminate();
    assert!(initiator.exit().await.success());
    assert!(tap.saw(&[0x17, 0x03, 0x03]), "records of TLS");
    for secret in [&b"secret-path"[..], b"secret-field", NODE.node.as_bytes(), b"control.invalid", &PREFACE[..14]] {
        assert!(!tap.saw(secret), "{:?}", String::from_utf8_lossy(secret));
    }
}
