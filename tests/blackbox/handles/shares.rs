//! Shares that are changed while a responder runs, and requests of the program itself.

use adit::egress::Client;
use adit::shares::{Share, ShareSettings};
use http::Request;
use http_body_util::{BodyExt, Empty};

use crate::handles::world::{Cloud, Site, node};
use crate::support::certificates::Authority;
use crate::support::eventually::eventually;
use crate::support::site::{Transport, over_each_transport};

over_each_transport!(shares_hold_as_soon_as_they_are_changed_for_listeners_and_clients_alike);

async fn shares_hold_as_soon_as_they_are_changed_for_listeners_and_clients_alike(transport: Transport) {
    let authority = Authority::new("test CA");
    let cloud = Cloud::start(transport, &authority);
    let site = Site::start(&authority, node("edge-1"), vec![cloud.destination(transport, 1)]);
    cloud.has(1).await;
    let client = Client::new(cloud.directory(), "edge-1".parse().unwrap()).service("api".parse().unwrap());
    let to = |path: &str| Request::get(format!("http://x{path}")).body(Empty::<bytes::Bytes>::new()).unwrap();
    let held = tokio::spawn({
        let (client, request) = (client.clone(), to("/gate"));
        async move { client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes() }
    });
    let tunnel = || cloud.directory().registry().snapshot().next().unwrap().handle;
    eventually("the request under way", async || (tunnel().snapshot().in_flight == 1).then_some(())).await;
    assert_eq!(cloud.get("edge-1", "/").await.status(), 200, "without shares");

    let per_tenant = Share { in_flight: Some(1), ..Share::default() };
    let changed = cloud.handle.update(|terms| terms.shares = ShareSettings { per_tenant, ..ShareSettings::default() });
    assert_eq!(changed.unwrap(), 0, "no tunnel was closed for it");
    let refused = cloud.get("edge-1", "/").await;
    assert_eq!((refused.status(), refused.field("retry-after")), (429, Some("1")), "what was under way before counts");
    let failure = client.send(to("/")).await.unwrap_err();
    assert_eq!((failure.cause().status().as_u16(), failure.cause().label()), (429, "quota"));
    assert_eq!(failure.response().headers()["retry-after"], "1");

    let per_tenant = Share { flows: Some(0), ..Share::default() };
    cloud.handle.update(|terms| terms.shares = ShareSettings { per_tenant, ..ShareSettings::default() }).unwrap();
    let flow = tunnel().open_flow(&"api".parse().unwrap()).await.unwrap_err();
    assert_eq!(flow.to_string(), "tenant default has its 0 flows open already");
    cloud.handle.update(|terms| terms.shares = ShareSettings::default()).unwrap();
    let flow = tunnel().open_flow(&"api".parse().unwrap()).await.unwrap_err();
    assert!(!flow.to_string().contains("flows open"), "the initiator decides: {flow}");

    site.open_gate();
    assert_eq!(held.await.unwrap(), "first after the gate");
    assert_eq!(cloud.get("edge-1", "/").await.status(), 200);
}
