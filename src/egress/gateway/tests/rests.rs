//! What may be silent for how long, and how a call of gRPC is told that it failed.

use http::{HeaderMap, Version};
use tokio::time::{Instant, timeout};

use super::*;
use crate::message::upgrade::Protocol;

const HOUR: Duration = Duration::from_secs(3600);

fn call() -> request::Builder {
    request("POST").version(Version::HTTP_2).header("content-type", "application/grpc+proto")
}

/// A body of which the first message comes, and nothing more.
#[derive(Default)]
struct Begun(bool);

impl Body for Begun {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 5])))))
    }
}

impl Reports for Begun {
    fn report_to(&mut self, _: &Arc<Progress>) {}
}

/// The status of gRPC among the fields.
fn status(fields: &HeaderMap) -> &str {
    assert!(fields["grpc-message"].to_str().unwrap().starts_with("adit: "));
    fields["grpc-status"].to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_is_silent_as_long_as_it_likes_and_others_are_not() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Rests("text/event-stream; charset=utf-8"), Step::Rests("text/event")]);
    let mut stream = ask(&gateway, get()).await.into_body();
    assert!(timeout(HOUR, stream.frame()).await.is_err());
    let mut other = ask(&gateway, get()).await.into_body();
    assert!(matches!(timeout(HOUR, other.frame()).await, Ok(Some(Err(BodyError::Idle)))));
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_in_another_protocol_is_never_cut_and_a_wish_for_it_is_answered_in_time() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Rests("any/thing"), Step::Hangs]);
    let wish = || request("CONNECT").extension(Protocol::websocket()).body(Silent).unwrap();
    let mut switched = ask(&gateway, wish()).await.into_body();
    assert!(timeout(24 * HOUR, switched.frame()).await.is_err());
    let late = timeout(HOUR, ask(&gateway, wish())).await.unwrap();
    assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_begun_may_be_silent_in_both_directions_before_its_response_begins_and_after() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Echo, Step::Rests("application/grpc+proto")]);
    assert!(timeout(HOUR, ask(&gateway, call().body(Begun::default()).unwrap())).await.is_err());
    let mut begun = ask(&gateway, call().body(Silent).unwrap()).await.into_body();
    assert!(timeout(HOUR, begun.frame()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_call_of_which_nothing_comes_is_ended() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Echo]);
    let began = Instant::now();
    let late = timeout(HOUR, ask(&gateway, call().body(Silent).unwrap())).await.unwrap();
    assert_eq!((late.status(), status(late.headers())), (StatusCode::OK, "4"));
    assert_eq!(began.elapsed().as_secs(), crate::egress::Pace::default().body_idle.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_cannot_be_read_has_that_of_the_listener() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Echo]);
    let call = call().header("grpc-timeout", "an hour").body(Begun::default()).unwrap();
    let late = timeout(HOUR, ask(&gateway, call)).await.unwrap();
    assert_eq!(status(late.headers()), "4");
}

#[tokio::test(start_paused = true)]
async fn a_call_has_the_time_that_its_client_gives_it() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Hangs, Step::Rests("application/grpc+proto")]);
    let limited = |limit: &str| call().header("grpc-timeout", limit).body(Silent).unwrap();
    let began = Instant::now();
    let late = ask(&gateway, limited("90S")).await;
    assert_eq!((late.status(), status(late.headers()), began.elapsed().as_secs()), (StatusCode::OK, "4", 90));
    assert!(late.headers()[PROXY_STATUS].to_str().unwrap().contains("http_response_timeout"));
    assert!(late.into_body().is_end_stream(), "nothing follows the head");

    let began = Instant::now();
    let mut cut = ask(&gateway, limited("500m")).await.into_body();
    let trailers = cut.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!((status(&trailers), began.elapsed().as_millis() / 100), ("4", 5));
    assert!(cut.is_end_stream() && cut.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_is_told_in_the_words_of_grpc_unless_its_client_speaks_http_1() {
    let gateway = gateway();
    let response = ask(&gateway, call().body(Silent).unwrap()).await;
    assert_eq!((response.status(), status(response.headers())), (StatusCode::OK, "14"));
    assert_eq!(error_type(&response), "destination_not_found");
    let old = call().version(Version::HTTP_11).body(Silent).unwrap();
    assert_eq!(ask(&gateway, old).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let web = request("POST").version(Version::HTTP_2).header("content-type", "application/grpc-web");
    assert_eq!(ask(&gateway, web.body(Silent).unwrap()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cut_ends_in_trailers_that_say_so() {
    let metrics = Metrics::new();
    let gateway = counted_gateway(settings(), &metrics);
    tunnel(&gateway, [Step::Cuts]);
    let cut = ask(&gateway, call().body(Silent).unwrap()).await.into_body().collect().await.unwrap();
    assert_eq!(status(cut.trailers().unwrap()), "14");
    assert!(metrics.render().contains("adit_exchanges_failed_total{side=\"egress\",cause=\"peer_reset\"} 1"));
}
