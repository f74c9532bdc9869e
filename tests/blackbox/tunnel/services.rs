//! Raw streams and flows: bytes and datagrams between the responder and a service of the initiator.

use std::future::Future;
use std::time::Duration;

use adit::id::ServiceName;
use adit::protocol::code::{OpenCause, StreamCode};
use adit::protocol::flows::FlowError;
use adit::protocol::limits::DEFAULT_FLOWS;
use adit::transport::{Accept, Arrival, Flow, HttpService, OpenError, RawError, RawStream, RecvBody};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::eventually::{PATIENCE, eventually};
use crate::support::site::{Transport, over_each_transport};
use crate::tunnel::pair::{Pair, exchange};

over_each_transport!(
    bytes_cross_both_ways_and_each_direction_ends_by_itself,
    a_megabyte_comes_back_through_both_halves_at_once,
    a_reader_that_stalls_holds_back_its_writer,
    a_cut_is_shown_as_one_and_not_as_an_end,
    what_was_written_before_a_cut_arrives_before_it,
    a_reset_is_shown_with_its_code,
    a_refusal_tells_its_cause_and_reason,
    an_arrival_that_is_dropped_is_rejected_as_not_processed,
    an_initiator_that_serves_http_only_says_so_and_the_tunnel_lives,
    a_thousand_datagrams_cross_whole,
    a_datagram_too_large_for_the_path_crosses_on_the_stream,
    an_empty_datagram_is_one,
    a_flow_that_either_end_ends_is_over_at_both,
    one_flow_too_many_is_refused_and_one_that_ends_makes_room,
    flows_that_are_not_read_do_not_hold_what_others_need,
);

/// Hands what arrives to the test.
#[derive(Clone)]
struct HandOver(mpsc::UnboundedSender<Arrival>);

impl Accept for HandOver {
    async fn accept(self, arrival: Arrival) {
        let _ = self.0.send(arrival);
    }
}

/// A tunnel, and what arrives at its initiator.
struct Ends {
    pair: Pair,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
}

impl Ends {
    async fn open(transport: Transport) -> Self {
        let (sender, arrivals) = mpsc::unbounded_channel();
        Self { pair: Pair::accept(transport, HandOver(sender)).await, arrivals }
    }

    async fn raw(&mut self) -> (RawStream, RawStream) {
        let service = service();
        let (opened, accepted) = tokio::join!(within(self.pair.responder.open_raw(&service)), async {
            let Some(Arrival::Raw(arrival)) = within(self.arrivals.recv()).await else { panic!("a raw stream") };
            assert_eq!(arrival.service, service);
            arrival.accept().await.unwrap()
        });
        (opened.unwrap(), accepted)
    }

    async fn flow(&mut self) -> (Flow, Flow) {
        let service = service();
        let (opened, accepted) = tokio::join!(within(self.pair.responder.open_flow(&service)), async {
            let Some(Arrival::Flow(arrival)) = within(self.arrivals.recv()).await else { panic!("a flow") };
            assert_eq!(arrival.service, service);
            arrival.accept().await.unwrap()
        });
        (opened.unwrap(), accepted)
    }
}

fn service() -> ServiceName {
    "db".parse().unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

// spec: ST-60, TB-14
async fn bytes_cross_both_ways_and_each_direction_ends_by_itself(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (mut client, mut target) = ends.raw().await;
    let mut said = [0; 5];
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    within(target.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"hello");
    // The client has said all; the target still speaks.
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(within(target.read_to_end(&mut rest)).await.unwrap(), 0);
    target.send.send(Bytes::from_static(b"good")).await.unwrap();
    target.write_all(b"bye").await.unwrap();
    target.shutdown().await.unwrap();
    within(client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"goodbye");
    // And the other way round.
    let (mut client, mut target) = ends.raw().await;
    target.shutdown().await.unwrap();
    assert_eq!(within(client.recv.data()).await.unwrap(), None);
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    rest.clear();
    within(target.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"still here");
}

async fn a_megabyte_comes_back_through_both_halves_at_once(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (client, mut target) = ends.raw().await;
    let echo = tokio::spawn(async move {
        while let Some(data) = target.recv.data().await.unwrap() {
            target.send.send(data).await.unwrap();
        }
        target.send.finish().await.unwrap();
    });
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let RawStream { mut send, mut recv } = client;
    let (mut received, written) = (Vec::new(), async {
        send.write_all(&sent).await.unwrap();
        send.shutdown().await.unwrap();
    });
    let (_, read) = within(async { tokio::join!(written, recv.read_to_end(&mut received)) }).await;
    read.unwrap();
    assert!(received == sent, "{} bytes came back", received.len());
    within(echo).await.unwrap();
}

// spec: ST-57
async fn a_reader_that_stalls_holds_back_its_writer(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (mut client, target) = ends.raw().await;
    let piece = Bytes::from(vec![7; 64 * 1024]);
    let mut written = 0;
    // More than any window of a stream: it must stop before.
    while written < 64 << 20 {
        match timeout(Duration::from_secs(1), client.send.send(piece.clone())).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => break,
        }
        written += piece.len();
    }
    assert!((1..64 << 20).contains(&written), "{written} bytes went into nobody's hands");
    drop(target);
}

// spec: ST-61, TB-14
async fn a_cut_is_shown_as_one_and_not_as_an_end(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (mut client, mut target) = ends.raw().await;
    target.send.send(Bytes::from_static(b"half a w")).await.unwrap();
    assert_eq!(within(client.recv.data()).await.unwrap().unwrap(), "half a w");
    target.send.cut().await.unwrap();
    let error = within(client.recv.data()).await.unwrap_err();
    assert!(matches!(error, RawError::Cut), "{error}");
}

// spec: ST-61, TB-14
async fn what_was_written_before_a_cut_arrives_before_it(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (mut client, mut target) = ends.raw().await;
    let written = tokio::spawn(async move {
        target.send.send(Bytes::from(vec![7; 3_000_000])).await.unwrap();
        target.send.cut().await.unwrap();
    });
    let mut length = 0;
    let error = loop {
        match within(client.recv.data()).await {
            Ok(data) => length += data.expect("the stream looks whole").len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, RawError::Cut), "{error}");
    assert_eq!(length, 3_000_000);
    within(written).await.unwrap();
}

// spec: ST-62
async fn a_reset_is_shown_with_its_code(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (mut client, target) = ends.raw().await;
    target.send.reset(StreamCode::Cancelled);
    let error = within(client.recv.data()).await.unwrap_err();
    assert!(matches!(error, RawError::Reset(StreamCode::Cancelled)), "{error}");
    // Whoever drops his end without a word says the same.
    let (mut client, target) = ends.raw().await;
    drop(target);
    let error = within(client.recv.data()).await.unwrap_err();
    assert!(matches!(error, RawError::Reset(StreamCode::Cancelled)), "{error}");
}

// spec: ST-54, TB-13
async fn a_refusal_tells_its_cause_and_reason(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let service = service();
    for cause in [OpenCause::TargetRefused, OpenCause::UnknownService, OpenCause::Limit] {
        let (raw, ()) = tokio::join!(within(ends.pair.responder.open_raw(&service)), async {
            let Some(Arrival::Raw(arrival)) = within(ends.arrivals.recv()).await else { panic!("a raw stream") };
            arrival.refuse(cause, "not today").await.unwrap();
        });
        let Err(OpenError::Refused(refused)) = raw else { panic!("{raw:?}") };
        assert_eq!((refused.cause, refused.reason.as_str()), (cause, "not today"));
    }
    let (flow, ()) = tokio::join!(within(ends.pair.responder.open_flow(&service)), async {
        let Some(Arrival::Flow(arrival)) = within(ends.arrivals.recv()).await else { panic!("a flow") };
        arrival.refuse(OpenCause::WrongKind, "").await.unwrap();
    });
    let Err(OpenError::Refused(refused)) = flow else { panic!("{flow:?}") };
    assert_eq!((refused.cause, refused.reason.as_str()), (OpenCause::WrongKind, ""));
}

// spec: ST-59
async fn an_arrival_that_is_dropped_is_rejected_as_not_processed(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let service = service();
    let (raw, arrival) = tokio::join!(within(ends.pair.responder.open_raw(&service)), async {
        drop(within(ends.arrivals.recv()).await);
    });
    assert!(matches!(raw, Err(OpenError::Rejected)), "{raw:?} {arrival:?}");
    let head = Request::get("http://api.example/").body(Empty::<Bytes>::new()).unwrap();
    let (head, body) = head.into_parts();
    let (response, ()) =
        tokio::join!(async { within(exchange(&ends.pair.responder, &head, &mut Some(body))).await }, async {
            drop(within(ends.arrivals.recv()).await)
        },);
    assert!(matches!(response, Err(OpenError::Rejected)));
}

/// Answers every request.
#[derive(Clone)]
struct Hello;

impl tower_service::Service<Request<RecvBody>> for Hello {
    type Response = Response<Empty<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<RecvBody>) -> Self::Future {
        std::future::ready(Ok(Response::new(Empty::new())))
    }
}

// spec: ST-56
async fn an_initiator_that_serves_http_only_says_so_and_the_tunnel_lives(transport: Transport) {
    let pair = Pair::accept(transport, HttpService(Hello)).await;
    let raw = within(pair.responder.open_raw(&service())).await;
    let Err(OpenError::Refused(refused)) = raw else { panic!("{raw:?}") };
    assert_eq!(refused.cause, OpenCause::UnknownService);
    let flow = within(pair.responder.open_flow(&service())).await;
    assert!(matches!(flow, Err(OpenError::Refused(refused)) if refused.cause == OpenCause::UnknownService));
    let (head, body) = Request::get("http://api.example/").body(Empty::<Bytes>::new()).unwrap().into_parts();
    assert_eq!(exchange(&pair.responder, &head, &mut Some(body)).await.unwrap().status(), 200);
}

// spec: ST-40, ST-72, TB-15
async fn a_thousand_datagrams_cross_whole(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (mut client, mut target) = ends.flow().await;
    let mut seen = 0;
    for number in 0..1000_u32 {
        let datagram = Bytes::from(number.to_string().repeat(1 + number as usize % 100));
        client.send.send(datagram.clone()).await.unwrap();
        // One at a time: nothing is lost on a path that is not full.
        assert_eq!(within(target.recv.recv()).await.unwrap().unwrap(), datagram);
        target.send.send(datagram.clone()).await.unwrap();
        assert_eq!(within(client.recv.recv()).await.unwrap().unwrap(), datagram);
        seen += 1;
    }
    assert_eq!(seen, 1000);
}

// spec: ST-72
async fn a_datagram_too_large_for_the_path_crosses_on_the_stream(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (mut client, mut target) = ends.flow().await;
    let large = Bytes::from(vec![9; 65_527]);
    client.send.send(large.clone()).await.unwrap();
    assert_eq!(within(target.recv.recv()).await.unwrap().unwrap(), large);
    assert!(client.send.send(Bytes::from(vec![9; 65_528])).await.is_err(), "larger than UDP itself");
    client.send.send(Bytes::from_static(b"after")).await.unwrap();
    assert_eq!(within(target.recv.recv()).await.unwrap().unwrap(), "after");
}

async fn an_empty_datagram_is_one(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (mut client, mut target) = ends.flow().await;
    client.send.send(Bytes::new()).await.unwrap();
    assert_eq!(within(target.recv.recv()).await.unwrap(), Some(Bytes::new()));
}

// spec: ST-75
async fn a_flow_that_either_end_ends_is_over_at_both(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let (client, mut target) = ends.flow().await;
    client.send.finish().await.unwrap();
    assert_eq!(within(target.recv.recv()).await.unwrap(), None);
    assert!(target.send.send(Bytes::from_static(b"late")).await.is_err());
    let (mut client, target) = ends.flow().await;
    drop(target);
    assert_eq!(within(client.recv.recv()).await.unwrap_or(None), None);
    assert!(client.send.send(Bytes::from_static(b"late")).await.is_err());
}

// spec: ST-71
async fn one_flow_too_many_is_refused_and_one_that_ends_makes_room(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let mut flows = Vec::new();
    for _ in 0..DEFAULT_FLOWS {
        flows.push(ends.flow().await);
    }
    match within(ends.pair.responder.open_flow(&service())).await {
        Err(OpenError::Refused(refused)) => assert_eq!(refused.cause, OpenCause::Limit, "{refused:?}"),
        // Over QUIC the responder's own table has as many.
        Err(OpenError::Flows(FlowError::Full(_))) => {}
        other => panic!("{other:?}"),
    }
    drop(flows.pop());
    let service = service();
    // The other end may not have seen yet that one has ended: then this one is refused too.
    within(async {
        loop {
            tokio::select! {
                _refused = ends.pair.responder.open_flow(&service) => {}
                arrived = ends.arrivals.recv() => break assert!(matches!(arrived, Some(Arrival::Flow(_)))),
            }
        }
    })
    .await;
}

/// Over TCP nobody saw that they were held back.
// spec: SE-11
async fn flows_that_are_not_read_do_not_hold_what_others_need(transport: Transport) {
    let mut ends = Ends::open(transport).await;
    let mut unread = Vec::new();
    // Together more than may be held back; each on its stream, as no path takes such datagrams.
    for _ in 0..30 {
        let (mut client, mut target) = ends.flow().await;
        let sending =
            tokio::spawn(async move { while target.send.send(Bytes::from(vec![9; 60_000])).await.is_ok() {} });
        assert!(within(client.recv.recv()).await.unwrap().is_some());
        unread.push((client, sending));
    }
    let mut looks = 0;
    eventually("a flow that was ended", async || {
        // One at a time: whoever is asked moves on.
        let (client, _) = &mut unread[looks % 30];
        looks += 1;
        matches!(within(client.recv.recv()).await, Err(RawError::HeldBack)).then_some(())
    })
    .await;
    let (mut client, mut target) = ends.flow().await;
    target.send.send(Bytes::from_static(b"others")).await.unwrap();
    assert_eq!(within(client.recv.recv()).await.unwrap().unwrap(), "others");
    for (_, sending) in unread {
        sending.abort();
    }
}
