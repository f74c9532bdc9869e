//! A node that hangs, and others behind the same sibling.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use adit::egress::Client as Requests;
use adit::id::{ServiceName, TenantId};
use adit::protocol::handshake::{Service, ServiceKind};
use adit::registry::{Balance, Choice};
use adit::routing::{Destination, Hold};
use adit::transport::{Accept, Arrival, Tunnel};
use http_body_util::{BodyExt as _, Empty};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::NOWHERE;
use super::world::{Edge, Member, Table};
use crate::support::certificates::{Authority, Node};
use crate::support::datagrams::Peer;
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::site::{Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(a_node_that_hangs_leaves_room_for_others_behind_the_same_sibling);

/// As many streams, and flows, as a tunnel takes, and some more.
const STREAMS: usize = 4_096 + 100;
const FLOWS: usize = 1_024 + 100;
/// Of those that hang, and are given up or find no room for a moment, each comes again.
const AGAIN: Duration = Duration::from_millis(20);
/// The one that hangs, and one of another tenant.
const HANGS: Node<'static> = Node { tenant: "default", cluster: "stores", node: "edge-1" };
const OTHER: Node<'static> = Node { tenant: "other", cluster: "stores", node: "edge-2" };

/// Takes whatever arrives and never answers.
#[derive(Clone)]
struct Hangs;

impl Accept for Hangs {
    async fn accept(self, arrival: Arrival) {
        let _held = arrival;
        pending().await
    }
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// The way from this member to the node.
async fn way(member: &Member, of: Node<'_>) -> Tunnel {
    let to = Destination {
        tenant: of.tenant.parse().unwrap(),
        host_id: of.node.parse().unwrap(),
        service: None,
        choice: Choice { balance: Balance::default(), entropy: 0 },
    };
    member.directory().find(&to, &[], &mut Hold::new(PATIENCE)).await.unwrap()
}

/// Regression: what hung filled the connection to the sibling, and every other node behind it was out of reach.
// spec: FL-53
async fn a_node_that_hangs_leaves_room_for_others_behind_the_same_sibling(transport: Transport) {
    let (target, echo) = (Target::http1().await, Peer::echo().await);
    let (authority, table) = (Authority::new("test CA"), Arc::new(Table::default()));
    let (a, b) = (Member::start(&authority, &table, "a"), Member::start(&authority, &table, "b"));
    let exported = [("web", ServiceKind::Http), ("echo", ServiceKind::Udp)];
    let exported = exported.map(|(text, kind)| Service { name: name(text), kind }).to_vec();
    let _hangs = Edge::accepting((&authority, transport), (HANGS, &b), exported, Hangs).await;
    let targets =
        [format!("http://{}", target.address()), format!("tcp://{NOWHERE}"), format!("udp://{}", echo.address())];
    let _other = Edge::of((&authority, transport), (OTHER, &b), targets).await;
    [HANGS, OTHER].into_iter().for_each(|of| table.says("b", of.node));
    let (to_hanging, to_other) = (way(&a, HANGS).await, way(&a, OTHER).await);
    let relayed = || b.metric("adit_exchanges_in_flight{side=\"relay\"}");
    let wait_for = async |streams: usize| {
        eventually("what hangs", async || (relayed() as usize >= streams).then_some(())).await;
    };

    let mut hanging = JoinSet::<()>::new();
    for _ in 0..FLOWS {
        let tunnel = to_hanging.clone();
        hanging.spawn(async move {
            loop {
                drop(tunnel.open_flow(&name("echo")).await);
                sleep(AGAIN).await;
            }
        });
    }
    // Somewhat less than a tunnel may have, which is never seen all at once: what is refused comes again.
    wait_for(1_000).await;
    let mut flow = eventually("a flow of another node", async || to_other.open_flow(&name("echo")).await.ok()).await;
    flow.send.send("hello".into()).await.unwrap();
    assert_eq!(flow.recv.recv().await.unwrap().unwrap(), "hello");

    let requests = Requests::new(a.directory(), HANGS.node.parse().unwrap()).deadline(Duration::from_secs(600));
    let get = || http::Request::get("http://x/").body(Empty::new()).unwrap();
    for _ in 0..STREAMS {
        let requests = requests.clone();
        hanging.spawn(async move {
            loop {
                drop(requests.send(get()).await);
                sleep(AGAIN).await;
            }
        });
    }
    wait_for(4_000).await;
    let tenant: TenantId = OTHER.tenant.parse().unwrap();
    let other = requests.to(OTHER.node.parse().unwrap()).tenant(tenant).service(name("web"));
    let response = eventually("an answer of another node", async || other.send(get()).await.ok()).await;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello\n");
}
