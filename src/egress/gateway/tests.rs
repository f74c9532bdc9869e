mod connect;
mod rests;
mod shares;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{self, Poll};
use std::time::Duration;

use http::header::{FORWARDED, RETRY_AFTER, VIA};
use http::{StatusCode, request};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full};

use super::*;
use crate::egress::{ConnectionDetails, Settings, Terms};
use crate::id::{Place, ServiceName, TunnelId};
use crate::message::failure::PROXY_STATUS;
use crate::message::interim::InformationalSink;
use crate::protocol::code::StreamCode;
use crate::proxy::{AccessLog, Progress};
use crate::registry::{Handle, Health};
use crate::routing::RouterSettings;
use crate::routing::testing::admitted;
use crate::telemetry::{Metrics, Side};
use crate::template::Template;
use crate::transport::{BodyError, OpenError, TransportKind, TunnelLost};

/// What a tunnel does with a request.
enum Step {
    /// Reads the body and answers with it.
    Echo,
    /// Fails before it touches the body.
    FailsFirst(OpenError),
    /// Fails after it took the body.
    FailsLater(OpenError),
    /// Takes the request and never answers.
    Hangs,
    /// Answers, and cuts the body.
    Cuts,
    /// Answers with a body of this type, of which nothing comes.
    Rests(&'static str),
}

/// A response's body.
enum Answer {
    Whole(Option<Bytes>),
    Cut,
    Resting,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match self.get_mut() {
            Self::Whole(data) => data.take().map(|data| Ok(Frame::data(data))),
            Self::Cut => Some(Err(BodyError::Reset(StreamCode::Truncated))),
            Self::Resting => return Poll::Pending,
        })
    }
}

/// A tunnel that does what a test says, one step per request.
#[derive(Clone)]
struct Fake(Arc<State>);

struct State {
    id: TunnelId,
    place: Place,
    steps: Mutex<VecDeque<Step>>,
    seen: Mutex<Vec<(Option<ServiceName>, request::Parts)>>,
}

impl Fake {
    fn seen(&self) -> usize {
        self.0.seen.lock().unwrap().len()
    }
}

impl Handle for Fake {
    fn health(&self) -> Health {
        Health::Healthy
    }
    fn in_flight(&self) -> u32 {
        0
    }
    // The tunnel with the smaller id is tried first.
    fn rtt(&self) -> Duration {
        Duration::from_millis(self.0.id.0)
    }
}

impl Opener for Fake {
    type Body = Answer;

    fn id(&self) -> TunnelId {
        self.0.id
    }

    fn place(&self) -> &Place {
        &self.0.place
    }

    fn transport(&self) -> TransportKind {
        TransportKind::Quic
    }

    async fn exchange<B>(&self, request: &mut Outgoing<'_>, body: &mut Option<B>) -> Result<Response<Answer>, OpenError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.0.seen.lock().unwrap().push((request.service.cloned(), request.head.clone()));
        let step = self.0.steps.lock().unwrap().pop_front().expect("a request that the test did not expect");
        if let Step::FailsFirst(error) = step {
            return Err(error);
        }
        let body = body.take().expect("a body, even if it is empty");
        match step {
            Step::Echo => match body.collect().await {
                Ok(collected) => Ok(Response::new(Answer::Whole(Some(collected.to_bytes())))),
                Err(_) => Err(OpenError::Reset(StreamCode::Truncated)),
            },
            Step::FailsLater(error) => Err(error),
            Step::Cuts => Ok(Response::new(Answer::Cut)),
            Step::Rests(content_type) => {
                Ok(Response::builder().header("content-type", content_type).body(Answer::Resting).unwrap())
            }
            Step::FailsFirst(_) | Step::Hangs => std::future::pending().await,
        }
    }
}

fn not_sent() -> OpenError {
    OpenError::NotSent(TunnelLost("closing".into()))
}

fn lost() -> OpenError {
    OpenError::TunnelLost(TunnelLost("idle".into()))
}

fn settings() -> RouterSettings {
    let host_id = Template::parse("%REQ(x-node-id)%").unwrap();
    RouterSettings::new(host_id)
}

fn gateway_with(settings: RouterSettings) -> Gateway<Fake> {
    counted_gateway(settings, &Metrics::new())
}

fn counted_gateway(settings: RouterSettings, metrics: &Metrics) -> Gateway<Fake> {
    let recorder = Recorder::new(metrics, Side::Egress, None, AccessLog::Off);
    Gateway::new(Arc::default(), current(settings), recorder)
}

fn current(router: RouterSettings) -> Arc<Current> {
    Arc::new(Current::new(Terms::new(router), Metrics::new().targets(Side::Egress)).unwrap())
}

fn context() -> Context {
    let details = ConnectionDetails {
        remote: SocketAddr::from(([192, 0, 2, 1], 4711)),
        local: SocketAddr::from(([192, 0, 2, 2], 80)),
        tls: false,
        server_name: None,
        peer: None,
    };
    Context { connection: ConnectionInfo::new(details), interim: InformationalSink::new(|_| {}) }
}

impl Reports for Empty<Bytes> {
    fn report_to(&mut self, _: &Arc<Progress>) {}
}

impl Reports for Full<Bytes> {
    fn report_to(&mut self, _: &Arc<Progress>) {}
}

/// What the gateway answers a request from somewhere.
async fn ask<B>(gateway: &Gateway<Fake>, request: Request<B>) -> Response<Passage<Inbound<Answer>>>
where
    B: Reports + Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    gateway.answer(request, context()).await
}

fn gateway() -> Gateway<Fake> {
    gateway_with(settings())
}

/// Registers a tunnel of edge-17; those that were added earlier are tried earlier.
fn tunnel(gateway: &Gateway<Fake>, steps: impl Into<VecDeque<Step>>) -> Fake {
    let id = gateway.0.directory.registry().len() as u64 + 1;
    let admitted = admitted("edge-17", id as u32);
    let (id, place) = (TunnelId(id), admitted.place().clone());
    let fake = Fake(Arc::new(State { id, place, steps: Mutex::new(steps.into()), seen: Mutex::default() }));
    let inserted = gateway.0.directory.insert(admitted, id, fake.clone()).unwrap();
    assert!(inserted.superseded.is_empty());
    fake
}

fn request(method: &str) -> request::Builder {
    Request::builder().method(method).uri("http://example.com/a?b").header("x-node-id", "edge-17")
}

fn get() -> Request<Empty<Bytes>> {
    request("GET").body(Empty::new()).unwrap()
}

fn with_body(method: &str) -> Request<Full<Bytes>> {
    request(method).body(Full::from("payload")).unwrap()
}

async fn text<B: Body<Data = Bytes, Error: std::fmt::Debug>>(response: Response<B>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The error type in Proxy-Status.
fn error_type<B>(response: &Response<B>) -> &str {
    let status = response.headers()[PROXY_STATUS].to_str().unwrap();
    status.strip_prefix("adit; error=").unwrap().split(';').next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_arrives_with_its_service_and_the_marks_of_its_way() {
    let gateway = gateway_with(RouterSettings { service: Some("api".parse().unwrap()), ..settings() });
    let tunnel = tunnel(&gateway, [Step::Echo]);
    let response = ask(&gateway, with_body("POST")).await;
    assert_eq!(response.headers()[VIA], "1.1 adit");
    assert_eq!(text(response).await, "payload");

    let seen = tunnel.0.seen.lock().unwrap();
    let (service, head) = &seen[0];
    assert_eq!(service.as_ref().unwrap().as_str(), "api");
    assert_eq!(head.uri, "http://example.com/a?b");
    assert_eq!(head.headers[VIA], "1.1 adit");
    assert_eq!(head.headers[FORWARDED], "for=192.0.2.1;host=example.com;proto=http");
}

#[tokio::test(start_paused = true)]
async fn a_request_for_nobody_is_a_bad_request() {
    let gateway = gateway();
    let mut request = get();
    request.headers_mut().remove("x-node-id");
    let response = ask(&gateway, request).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(error_type(&response), "http_request_error");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_node_is_unavailable_and_worth_another_try_later() {
    let metrics = Metrics::new();
    let response = ask(&counted_gateway(settings(), &metrics), get()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error_type(&response), "destination_not_found");
    assert_eq!(response.headers()[RETRY_AFTER], "5");
    assert_eq!(text(response).await, "adit: no node or cluster edge-17 is connected (destination_not_found)\n");
    let counted = "adit_exchanges_failed_total{side=\"egress\",cause=\"unknown_host\"} 1";
    assert!(metrics.render().contains(counted), "whoever counts learns why");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_sent_moves_to_another_tunnel_with_its_body() {
    let gateway = gateway();
    let first = tunnel(&gateway, [Step::FailsFirst(not_sent())]);
    let second = tunnel(&gateway, [Step::FailsFirst(OpenError::Rejected)]);
    let third = tunnel(&gateway, [Step::Echo]);
    assert_eq!(text(ask(&gateway, with_body("POST")).await).await, "payload");
    assert_eq!((first.seen(), second.seen(), third.seen()), (1, 1, 1));
}

// spec: ST-32
#[tokio::test(start_paused = true)]
async fn a_rejected_request_without_a_body_moves_even_after_it_was_sent() {
    for rejection in [OpenError::Rejected, OpenError::Reset(StreamCode::Rejected)] {
        let gateway = gateway();
        tunnel(&gateway, [Step::FailsLater(rejection)]);
        tunnel(&gateway, [Step::Echo]);
        let request = request("POST").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(ask(&gateway, request).await.status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_begun_is_not_begun_again() {
    let gateway = gateway();
    tunnel(&gateway, [Step::FailsLater(OpenError::Rejected)]);
    let other = tunnel(&gateway, []);
    let response = ask(&gateway, with_body("PUT")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(other.seen(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_request_survives_one_lost_tunnel() {
    let gateway = gateway();
    tunnel(&gateway, [Step::FailsLater(lost())]);
    tunnel(&gateway, [Step::Echo]);
    assert_eq!(ask(&gateway, get()).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_second_lost_tunnel_is_the_end() {
    let gateway = gateway();
    tunnel(&gateway, [Step::FailsLater(lost())]);
    tunnel(&gateway, [Step::FailsLater(lost())]);
    let third = tunnel(&gateway, []);
    let response = ask(&gateway, get()).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(error_type(&response), "connection_terminated");
    assert_eq!(third.seen(), 0);
}

// spec: ST-32
#[tokio::test(start_paused = true)]
async fn what_must_not_run_twice_does_not() {
    for request in [request("POST").body(Full::from("")).unwrap(), with_body("PUT")] {
        let gateway = gateway();
        tunnel(&gateway, [Step::FailsLater(lost())]);
        let other = tunnel(&gateway, []);
        assert_eq!(ask(&gateway, request).await.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(other.seen(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_before_the_head_name_their_cause() {
    for (error, status, expected) in [
        (OpenError::Reset(StreamCode::Internal), 502, "connection_terminated"),
        (OpenError::Request("no authority"), 400, "http_request_error"),
        (OpenError::HeadTooLarge, 431, "http_request_error"),
        (lost(), 502, "connection_terminated"),
    ] {
        let gateway = gateway();
        tunnel(&gateway, [Step::FailsLater(error)]);
        let response = ask(&gateway, with_body("POST")).await;
        assert_eq!(response.status(), status);
        assert_eq!(error_type(&response), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_reconnects_in_time_gets_the_request() {
    let gateway = gateway();
    let gone = tunnel(&gateway, []);
    gateway.0.directory.registry().remove(gone.0.id, std::time::Instant::now()).unwrap();
    let held = tokio::spawn({
        let gateway = gateway.clone();
        async move { ask(&gateway, with_body("POST")).await }
    });
    tokio::task::yield_now().await;
    assert!(!held.is_finished());
    tunnel(&gateway, [Step::Echo]);
    assert_eq!(text(held.await.unwrap()).await, "payload");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_away_is_unavailable() {
    let gateway = gateway();
    let gone = tunnel(&gateway, []);
    gateway.0.directory.registry().remove(gone.0.id, std::time::Instant::now()).unwrap();
    let response = ask(&gateway, get()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error_type(&response), "destination_unavailable");
    assert_eq!(response.headers()[RETRY_AFTER], "1");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_tried_once_and_its_failure_is_what_is_told() {
    let gateway = gateway();
    let only = tunnel(&gateway, [Step::FailsLater(lost())]);
    let response = ask(&gateway, get()).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(only.seen(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_attempts_is_bounded() {
    let gateway = gateway();
    let tunnels: Vec<_> = (0..8).map(|_| tunnel(&gateway, [Step::FailsFirst(not_sent())])).collect();
    assert_eq!(ask(&gateway, get()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(tunnels.iter().map(Fake::seen).sum::<usize>(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_does_not_begin_is_a_timeout() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Hangs]);
    let response = ask(&gateway, get()).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(error_type(&response), "http_response_timeout");
}

#[tokio::test(start_paused = true)]
async fn a_cut_response_stays_cut() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Cuts]);
    let response = ask(&gateway, get()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.into_body().collect().await.is_err());
}

/// What an exchange costs while it waits for its response.
#[tokio::test]
async fn the_future_of_an_exchange_is_small() {
    let recorder = Recorder::silent(Side::Egress);
    let gateway = Gateway::<crate::transport::Tunnel>::new(Arc::default(), current(settings()), recorder);
    let request = request("GET").body(RequestBody::empty()).unwrap();
    let size = size_of_val(&gateway.call(request, context()));
    assert!(size <= 1536, "{size}");
}

#[tokio::test]
async fn a_request_keeps_the_terms_that_held_when_it_was_read() {
    let gateway = gateway();
    let read = gateway.answer(get(), context());
    gateway
        .0
        .current
        .update(|terms| terms.router = RouterSettings::new(Template::parse("elsewhere").unwrap()))
        .unwrap();
    let next = gateway.answer(get(), context());
    assert!(text(read.await).await.contains("no node or cluster edge-17 is connected"));
    assert!(text(next.await).await.contains("no node or cluster elsewhere is connected"));
}

#[tokio::test(start_paused = true)]
async fn a_full_tunnel_gives_way_to_the_next_and_where_all_are_full_nobody_waits() {
    let gateway = gateway();
    tunnel(&gateway, [Step::FailsFirst(OpenError::NoRoom), Step::FailsFirst(OpenError::NoRoom)]);
    let other = tunnel(&gateway, [Step::Echo, Step::FailsFirst(OpenError::NoRoom)]);
    assert_eq!(text(ask(&gateway, with_body("POST")).await).await, "payload");
    assert_eq!(other.seen(), 1);
    let began = tokio::time::Instant::now();
    let response = ask(&gateway, get()).await;
    assert_eq!(
        (response.status(), error_type(&response)),
        (StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached")
    );
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    assert_eq!(began.elapsed(), Duration::ZERO, "the hold is for tunnels that reconnect");
}

/// A body whose sender says nothing more.
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Pending
    }
}

impl Reports for Silent {
    fn report_to(&mut self, _: &Arc<Progress>) {}
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_does_not_come_is_answered_408_and_counted() {
    let metrics = Metrics::new();
    let gateway = counted_gateway(settings(), &metrics);
    tunnel(&gateway, [Step::Echo]);
    let began = tokio::time::Instant::now();
    let response = ask(&gateway, request("POST").body(Silent).unwrap()).await;
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(began.elapsed().as_secs(), Settings::default().pace.body_idle.as_secs());
    drop(response);
    let counted = "adit_exchanges_failed_total{side=\"egress\",cause=\"body_timeout\"} 1";
    assert!(metrics.render().contains(counted));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_its_share_of_a_tunnel_is_told_so_and_others_are_served() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Echo]);
    let greedy = context();
    let others: Vec<_> = (0..1000).map(|_| greedy.connection.begin()).collect();
    for other in &others {
        other.on(TunnelId(1));
    }
    let response = gateway.answer(get(), greedy.clone()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask(&gateway, get()).await.status(), StatusCode::OK);
    drop((response, others));
    assert_eq!(greedy.connection.begin().on(TunnelId(1)), 1, "what is over is not counted");
}

/// It got 429 from the 514th request on, to whatever nodes.
#[tokio::test(start_paused = true)]
async fn a_balancer_with_requests_under_way_to_many_nodes_has_its_share_of_each() {
    let gateway = gateway();
    tunnel(&gateway, [Step::Echo]);
    let balancer = context();
    let others: Vec<_> = (0..1000).map(|_| balancer.connection.begin()).collect();
    for (number, other) in others.iter().enumerate() {
        other.on(TunnelId(2 + number as u64 % 30));
    }
    assert_eq!(gateway.answer(get(), balancer).await.status(), StatusCode::OK);
}
