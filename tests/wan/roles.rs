//! What runs inside a namespace beside adit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicServerConfig;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::certificates::Authority;
use crate::support::http1::get;
use crate::support::site::TO_NODE;
use crate::support::targets::Target;

/// What stands before an answer.
pub(crate) const ANSWER: &str = "answer: ";
/// 20 a second.
const PAUSE: Duration = Duration::from_millis(50);
/// Who waits longer has lost the request.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the target was asked for each path.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seen(pub(crate) BTreeMap<String, usize>);

/// What became of one request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) number: usize,
    pub(crate) status: Option<u16>,
    pub(crate) millis: u64,
}

pub(crate) async fn target() {
    let target = Target::http1().await;
    println!("listening on {}", target.address());
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let mut seen = Seen(BTreeMap::new());
        target.requests().into_iter().for_each(|request| *seen.0.entry(request).or_default() += 1);
        println!("{ANSWER}{}", serde_json::to_string(&seen).unwrap());
    }
}

/// Speaks QUIC, and no protocol that an initiator knows.
pub(crate) async fn foreign(address: SocketAddr) {
    let certificate = Authority::new("somebody's CA").responder();
    let tls = rustls::ServerConfig::builder_with_provider(adit::tls::provider());
    let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut tls = tls.with_single_cert(certificate.chain(), certificate.private_key()).unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::server(config, address).unwrap();
    println!("listening on {address}");
    while let Some(incoming) = endpoint.accept().await {
        // Nobody speaks its protocol.
        let _ = incoming.await;
    }
}

/// Sends on time, whatever became of the requests before: each has a connection of its own.
pub(crate) async fn client(egress: SocketAddr, seconds: u64) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut requests = JoinSet::new();
    let count = usize::try_from(u128::from(seconds) * 1000 / PAUSE.as_millis()).unwrap();
    for number in 0..count {
        ticks.tick().await;
        requests.spawn(async move {
            let asked = Instant::now();
            let path = format!("/request/{number}");
            let answered = timeout(PATIENCE, get(egress, &path, &[TO_NODE])).await;
            let status = answered.ok().and_then(Result::ok).map(|response| response.status());
            Outcome { number, status, millis: asked.elapsed().as_millis().try_into().unwrap() }
        });
    }
    println!("{ANSWER}{}", serde_json::to_string(&requests.join_all().await).unwrap());
}
