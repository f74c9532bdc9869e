//! What a share that is used up does to an exchange.

use tokio::time::Instant;

use super::*;
use crate::shares::{Rate, Share, ShareSettings};

fn sharing(per_tenant: Share, per_node: Share) -> Gateway<Fake> {
    let gateway = gateway();
    gateway.0.directory.shares().update(ShareSettings { per_tenant, per_node, ..ShareSettings::default() });
    gateway
}

fn large() -> Request<Full<Bytes>> {
    request("POST").body(Full::from(vec![7; 1_000])).unwrap()
}

// What waited for its rate would look like a sender, or a target, that rests: each limit is shorter than these waits.
#[tokio::test(start_paused = true)]
async fn bytes_that_wait_for_their_rate_are_nobodys_rest() {
    let gateway = sharing(Share { bytes: Some(Rate::new(1)), ..Share::default() }, Share::default());
    tunnel(&gateway, [Step::Echo, Step::Echo]);
    for waits in [999, 2_000] {
        let began = Instant::now();
        let response = ask(&gateway, large()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), vec![7; 1_000]);
        assert_eq!(began.elapsed().as_secs(), waits);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_is_under_way_until_its_response_was_passed_on() {
    let one = Share { in_flight: Some(1), ..Share::default() };
    for gateway in [sharing(one, Share::default()), sharing(Share::default(), one)] {
        tunnel(&gateway, [Step::Echo, Step::Echo]);
        let first = ask(&gateway, with_body("POST")).await;
        assert_eq!(first.status(), StatusCode::OK);
        let refused = ask(&gateway, with_body("POST")).await;
        assert_eq!(
            (refused.status(), refused.headers()[RETRY_AFTER].to_str().unwrap()),
            (StatusCode::TOO_MANY_REQUESTS, "1")
        );
        assert_eq!(error_type(&refused), "connection_limit_reached");
        drop(first);
        assert_eq!(ask(&gateway, with_body("POST")).await.status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_gives_its_place_back() {
    let one = Share { in_flight: Some(1), ..Share::default() };
    let gateway = sharing(one, one);
    let unknown = || Request::get("http://a/").header("x-node-id", "edge-99").body(Empty::new()).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&gateway, unknown()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    tunnel(&gateway, [Step::FailsFirst(not_sent()), Step::Hangs, Step::Echo]);
    tunnel(&gateway, [Step::FailsLater(lost())]);
    assert_eq!(ask(&gateway, with_body("POST")).await.status(), StatusCode::BAD_GATEWAY);
    let given_up = tokio::time::timeout(Duration::from_secs(1), ask(&gateway, get())).await;
    assert!(given_up.is_err());
    assert_eq!(ask(&gateway, with_body("POST")).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_client_is_told_is_when_there_is_room_in_whole_seconds() {
    let requests = Some(Rate { per_second: 1, burst: 1 });
    let gateway = sharing(Share { requests, ..Share::default() }, Share::default());
    tunnel(&gateway, [Step::Echo, Step::Echo]);
    assert_eq!(ask(&gateway, get()).await.status(), StatusCode::OK);
    tokio::time::advance(Duration::from_millis(300)).await;
    let refused = ask(&gateway, get()).await;
    assert_eq!(refused.headers()[RETRY_AFTER], "1");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&gateway, get()).await.status(), StatusCode::OK);
}
