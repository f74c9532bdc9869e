//! Many workers and many tunnels: no request is lost, and the load is shared.

use tokio::task::JoinSet;

use crate::envoy_interop::ends::adit_initiator;
use crate::envoy_interop::envoy_alone::{attentive, status};
use crate::envoy_interop::rejections::open_to_all;
use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Variant};
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::site::{Folder, Responder, Running, TO_NODE};
use crate::support::targets::Target;

/// How often each tunnel was used.
async fn used(responder: &Responder) -> Vec<u64> {
    responder.0.tunnels().await.accepted.iter().map(|tunnel| tunnel.exchanges).collect()
}

/// Each worker of the Envoy has tunnels of its own, and any of them serves any request.
// spec: EV-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_of_an_envoy_initiator_lose_no_request_and_share_them() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = open_to_all(&folder, "").await;
    let options = InitiatorOptions { concurrency: 2, tunnels: 2, ..attentive() };
    let to = responder.tunnel_address();
    let envoy = EnvoyInitiator::start(Variant::Plaintext, to, target.address(), options).await;
    let Some(_envoy) = envoy else { return };
    responder.registered(4).await;
    let egress = responder.egress();
    let mut asked = 0;
    let mut ask = async || {
        let asking: JoinSet<_> = (0..8).map(|_| status_of(egress)).collect();
        assert_eq!(asking.join_all().await, [200; 8]);
        asked += 8;
    };
    for _ in 0..24 {
        ask().await;
    }
    // A tunnel whose worker gets no processor for long is in doubt, and left alone until it is heard.
    let used = eventually("all four have worked", async || {
        ask().await;
        let used = used(&responder).await;
        used.iter().all(|count| *count > 0).then_some(used)
    })
    .await;
    // One that waited in a tunnel in doubt was sent again.
    let (arrived, used) = (target.requests().len() as u64, used.iter().sum::<u64>());
    assert!(asked <= arrived && arrived <= used, "{asked} asked, {arrived} at the target, {used} in tunnels");
}

async fn status_of(egress: std::net::SocketAddr) -> u16 {
    get(egress, "/slow/5", &[TO_NODE]).await.unwrap().status()
}

/// Envoy takes the tunnel that it has used already, and the other one never.
// spec: EV-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_tunnel_is_not_preferred_to_a_fresh_one() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = open_to_all(&folder, ", ping_interval: 300s").await;
    let to = responder.tunnel_address();
    let start = async || EnvoyInitiator::start(Variant::Plaintext, to, target.address(), attentive()).await;
    let Some(_old) = start().await else { return };
    responder.registered(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    let _fresh = start().await.unwrap();
    eventually("two proven tunnels", async || {
        let accepted = responder.0.tunnels().await.accepted;
        (accepted.iter().filter(|tunnel| tunnel.health == "healthy").count() == 2).then_some(())
    })
    .await;
    let egress = responder.egress();
    let asking: JoinSet<_> =
        (0..40).map(|_| async move { get(egress, "/slow/200", &[TO_NODE]).await.unwrap().status() }).collect();
    assert!(asking.join_all().await.iter().all(|status| *status == 200));
    let used = used(&responder).await;
    // One that waited in a tunnel in doubt was sent again.
    assert!(used.iter().sum::<u64>() >= 41, "{used:?}");
    assert!(used.iter().all(|count| *count > 1), "shared: {used:?}");
}

/// The other way around, Envoy shares only if each of its workers has a tunnel; ours keeps as many as it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_of_an_envoy_responder_find_a_tunnel_of_ours_each() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let options = ResponderOptions { concurrency: 2, reuse_port: true, ..ResponderOptions::default() };
    let Some(responder) = EnvoyResponder::start(Variant::Plaintext, options).await else { return };
    let edge = adit_initiator(Variant::Plaintext, &folder).target(&format!("http://{}", target.address())).count(2);
    let _edge = Running::start(folder.write("edge.yaml", &edge.text(&responder.tunnel_address().to_string()))).await;
    responder.registered(2).await;
    let mut counts = [0, 0];
    for _ in 0..200 {
        counts[usize::from(status(responder.egress(), TO_NODE).await == 200)] += 1;
    }
    assert_eq!(counts, [0, 200]);
    assert_eq!(target.requests().len(), 200);
}
