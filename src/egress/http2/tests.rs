use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::message::violation::{ErrorCode, Violation};

use crate::egress::testing::{
    ENDLESS_PIECES, Endless, OnDrop, PATIENCE, Refusals, Server, TestBody, WithContext, all_get_on, data, describe,
    echo, full, pieces, serve, serve_with, told,
};
use crate::egress::{
    ConnectionDetails, ConnectionInfo, Context as ExchangeContext, End, ExchangeService, RequestBody, Serving, Settings,
};

async fn connect(server: &Server) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

async fn open(sender: &SendRequest<Bytes>, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
    sender.clone().ready().await.unwrap().send_request(request, end).unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://h{path}")).body(()).unwrap()
}

fn put(path: &str) -> Request<()> {
    Request::builder().method("PUT").uri(format!("http://h{path}")).body(()).unwrap()
}

async fn read(response: ResponseFuture) -> (http::response::Parts, Bytes) {
    let (parts, body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    (parts, collect(body).await.unwrap())
}

async fn collect(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = timeout(PATIENCE, body.data()).await.unwrap() {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    Ok(all.into())
}

#[tokio::test]
async fn exchanges_run_side_by_side_on_one_connection() {
    let service = |request: Request<RequestBody>, context: ExchangeContext| async move {
        assert!(!context.connection.tls);
        describe(request).await
    };
    let server = serve(WithContext(service)).await;
    let sender = connect(&server).await;
    let (slow, mut upload) = open(&sender, put("/slow"), false).await;
    let (fast, _) = open(&sender, get("/fast?x"), true).await;
    let (head, body) = read(fast).await;
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b"GET http://h/fast?x 0"[..]));
    assert!(head.headers.contains_key("date"));
    upload.send_data(Bytes::from_static(b"abc"), true).unwrap();
    assert_eq!(&read(slow).await.1[..], b"PUT http://h/slow 3");
}

/// Frames that a client writes, on a connection of which nothing is known but that.
struct Frames(TcpStream);

impl Frames {
    async fn new(server: &Server) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut frames = Self(stream);
        frames.send(4, 0, 0, &[]).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.0.write_all(&frame).await.unwrap();
    }

    /// Reads until this stream is answered, or reset with this code.
    async fn answer(&mut self, stream: u32) -> Option<u32> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.unwrap();
            let [one, two, three, kind, _, id @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, one, two, three]) as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            match kind {
                1 if id == stream.to_be_bytes() => return None,
                3 if id == stream.to_be_bytes() => return payload.try_into().ok().map(u32::from_be_bytes),
                _ => {}
            }
        }
    }

    /// A GET with these fields behind it.
    async fn head(&mut self, stream: u32, flags: u8, more: &[u8]) {
        self.send(1, flags, stream, &[b"\x82\x86\x84\x41\x01h", more].concat()).await;
    }
}

// spec: SE-44
#[tokio::test]
async fn what_http2_refuses_by_itself_is_told_once() {
    let refusals = Refusals::default();
    let mut settings = Settings::default();
    settings.http2.max_streams = 2;
    settings.max_head_bytes = 4096;
    let server = serve_with(refusals.clone(), settings, None).await;
    let told = |violation| (Some(Version::HTTP_2), violation);
    let malformed = told(Violation::Reset(ErrorCode::Http2(1)));
    let mut client = Frames::new(&server).await;
    let mut streams = (1_u8..).step_by(2);
    for bad in [
        // What the guard sees, and what h2 sees: a name in upper case, a second path, a field of the connection, a length.
        &b"\x00\x03X-A\x011"[..],
        b"\x84",
        b"\x00\x0aconnection\x011",
        b"\x0f\x0d\x013",
        b"\x0f\x0d\x01x",
    ] {
        client.head(streams.next().unwrap().into(), 5, bad).await;
        assert_eq!(refusals.next().await, malformed, "{bad:?}");
    }
    let long = [&b"\x00\x01a\x7f\x81\x1f"[..], &[b'x'; 4096]].concat();
    client.head(streams.next().unwrap().into(), 5, &long).await;
    assert_eq!(refusals.next().await, told(Violation::HeadTooLarge));
    // What is refused by what takes requests, which has one of them then, is told by that.
    client.head(streams.next().unwrap().into(), 5, b"\x00\x06expect\x01x").await;
    assert_eq!(refusals.next().await, told(Violation::Expectation));
    // Malformed trailers in one read with a head that is sound: whoever has that request tells what became of it.
    let stream = streams.next().unwrap();
    let post = [&[0, 0, 6, 1, 4, 0, 0, 0, stream][..], b"\x83\x86\x84\x41\x01h"].concat();
    let trailers = [&[0, 0, 7, 1, 5, 0, 0, 0, stream][..], b"\x00\x03X-A\x011"].concat();
    client.0.write_all(&[post, trailers].concat()).await.unwrap();
    client.send(0, 0, 0, b"data without a stream").await;
    assert_eq!(refusals.next().await, told(Violation::Connection(ErrorCode::Http2(1))));

    let mut client = Frames::new(&server).await;
    for stream in [1, 3, 5] {
        client.send(1, 4, stream, b"\x83\x86\x84\x41\x01h").await;
    }
    assert_eq!(refusals.next().await, told(Violation::AtOnce(ErrorCode::Http2(7))));
    drop(client);
    for cut in [&b"\0\0\x20\x01\x05\0\0\0\x01\x82"[..], b"\0\0\x01\x01\x01\0\0\0\x01\x82"] {
        let mut client = Frames::new(&server).await;
        client.0.write_all(cut).await.unwrap();
        // Its end, and no reset, which would throw away what was not read yet.
        client.0.shutdown().await.unwrap();
        assert_eq!(refusals.next().await, told(Violation::HeadCut));
    }
    server.drained().await;
    assert!(refusals.is_empty());
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways() {
    let server = serve(echo).await;
    let sender = connect(&server).await;
    let (response, mut upload) = open(&sender, put("/"), false).await;
    let mut body = response.await.unwrap().into_body();
    for _ in 0..3 {
        upload.send_data(Bytes::from_static(b"hello"), false).unwrap();
        assert_eq!(&body.data().await.unwrap().unwrap()[..], b"hello");
    }
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
    upload.send_trailers(trailers.clone()).unwrap();
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap(), Some(trailers));
}

#[tokio::test]
async fn a_body_beyond_every_window_arrives_whole() {
    let size = 9_000_000;
    let service = move |_: Request<RequestBody>| async move { Response::new(full(vec![7; size])) };
    let server = serve(service).await;
    let sender = connect(&server).await;
    let (response, _) = open(&sender, get("/"), true).await;
    assert_eq!(read(response).await.1.len(), size);
}

#[tokio::test]
async fn a_body_nobody_reads_holds_its_sender_back() {
    let (service, mut receiver) = stuck();
    let server = serve(service).await;
    let sender = connect(&server).await;
    let (_response, mut upload) = open(&sender, put("/"), false).await;
    assert_eq!(told(&mut receiver).await, "called");
    upload.reserve_capacity(100_000_000);
    let mut sent = 0;
    while let Ok(Some(Ok(granted))) =
        timeout(Duration::from_millis(200), std::future::poll_fn(|cx| upload.poll_capacity(cx))).await
    {
        upload.send_data(Bytes::from(vec![0; granted]), false).unwrap();
        sent += granted;
    }
    let window = Settings::default().http2.stream_window as usize;
    assert!(sent > 0 && sent <= window, "{sent} of a window of {window}");
}

// spec: SE-19
#[tokio::test]
async fn small_frames_of_a_body_nobody_reads_cost_nobody_the_connection() {
    let (service, mut receiver) = stuck();
    let server = serve(service).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let post = frame(1, 4, 1, &[0x83, 0x84, 0x86, 0x41, 0x01, b'h']);
    let window = Settings::default().http2.stream_window as usize;
    let body = frame(0, 0, 1, &[7; 1]).repeat(window);
    let begun = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..], &post, &body].concat();
    stream.write_all(&[begun, frame(6, 0, 0, &[7; 8])].concat()).await.unwrap();
    assert_eq!(told(&mut receiver).await, "called");
    loop {
        let mut head = [0; 9];
        timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        assert_ne!(head[3], 7, "GOAWAY: {}", String::from_utf8_lossy(&payload));
        if (head[3], head[4], &payload[..]) == (6, 1, &[7; 8][..]) {
            return;
        }
    }
}

fn stuck() -> (impl ExchangeService<Body = TestBody>, mpsc::UnboundedReceiver<&'static str>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = move |request: Request<RequestBody>| {
        let sender = sender.clone();
        async move {
            sender.send("called").unwrap();
            let _guard = OnDrop(sender, "dropped");
            let _body = request.into_body();
            std::future::pending::<Response<TestBody>>().await
        }
    };
    (service, receiver)
}

#[tokio::test]
async fn a_reset_cancels_the_service_at_once_and_the_connection_lives() {
    let (service, mut receiver) = stuck();
    let server = serve(service).await;
    let sender = connect(&server).await;
    for _ in 0..3 {
        let (_response, mut upload) = open(&sender, get("/"), false).await;
        assert_eq!(told(&mut receiver).await, "called");
        upload.send_reset(Reason::CANCEL);
        assert_eq!(told(&mut receiver).await, "dropped");
    }
}

#[tokio::test]
async fn a_lost_connection_cancels_every_service_on_it() {
    let (service, mut receiver) = stuck();
    let server = serve(service).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = client::handshake::<_>(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let _open = [sender.send_request(get("/1"), true).unwrap(), sender.send_request(get("/2"), true).unwrap()];
    for _ in 0..2 {
        assert_eq!(told(&mut receiver).await, "called");
    }
    driver.abort();
    for _ in 0..2 {
        assert_eq!(told(&mut receiver).await, "dropped");
    }
}

#[tokio::test]
async fn a_reset_drops_the_response_body() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let service = move |_: Request<RequestBody>| {
        let guard = OnDrop(sender.clone(), "dropped");
        async move {
            let (feed, body) = pieces();
            feed.send(data(b"first")).await.unwrap();
            Response::new(body.map_frame(move |frame| (&guard, &feed, frame).2).boxed_unsync())
        }
    };
    let server = serve(service).await;
    let sender = connect(&server).await;
    let (response, mut upload) = open(&sender, get("/"), false).await;
    assert_eq!(&response.await.unwrap().into_body().data().await.unwrap().unwrap()[..], b"first");
    upload.send_reset(Reason::CANCEL);
    assert_eq!(told(&mut receiver).await, "dropped");
}

#[tokio::test]
async fn a_failed_or_misdeclared_response_body_resets_its_stream_only() {
    let service = |request: Request<RequestBody>| async move {
        let (feed, body) = pieces();
        feed.send(data(b"part")).await.unwrap();
        let mut response = Response::new(body);
        match request.uri().path() {
            "/broken" => feed.send(Err("broken".into())).await.unwrap(),
            length => drop(response.headers_mut().insert("content-length", length[1..].parse().unwrap())),
        }
        response
    };
    let server = serve(service).await;
    let sender = connect(&server).await;
    for path in ["/broken", "/3", "/5"] {
        let (response, _) = open(&sender, get(path), true).await;
        let failed = match timeout(PATIENCE, response).await.unwrap() {
            Ok(response) => collect(response.into_body()).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(failed.reason(), Some(Reason::INTERNAL_ERROR), "{path}");
    }
    let (response, _) = open(&sender, get("/4"), true).await;
    assert_eq!(&read(response).await.1[..], b"part");
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    let service = |request: Request<RequestBody>| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        Response::builder().status(status).header("content-length", "4").body(full("body")).unwrap()
    };
    let server = serve(service).await;
    let sender = connect(&server).await;
    let head = Request::builder().method("HEAD").uri("http://h/200").body(()).unwrap();
    for request in [head, get("/204"), get("/304")] {
        let (response, _) = open(&sender, request, true).await;
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert!(response.body().is_end_stream(), "{}", response.status());
    }
}

#[tokio::test]
async fn informational_responses_go_first() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let service = move |_: Request<RequestBody>, context: ExchangeContext| {
        let mut gate = gate.clone();
        async move {
            let early = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            context.interim.send(early);
            gate.wait_for(|open| *open).await.unwrap();
            Response::new(full("done"))
        }
    };
    let server = serve(WithContext(service)).await;
    let sender = connect(&server).await;
    let (mut response, _) = open(&sender, get("/"), true).await;
    let early = std::future::poll_fn(|cx| response.poll_informational(cx));
    let early = timeout(PATIENCE, early).await.unwrap().unwrap().unwrap();
    assert_eq!((early.status().as_u16(), &early.headers()["link"]), (103, &"</a>".parse().unwrap()));
    go.send(true).unwrap();
    assert_eq!(&read(response).await.1[..], b"done");
}

#[tokio::test]
async fn continue_is_the_services_to_say() {
    let server = serve(describe).await;
    let sender = connect(&server).await;
    let expecting = |path: &str| {
        let mut request = put(path);
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        request
    };
    let (mut response, mut upload) = open(&sender, expecting("/"), false).await;
    let early = std::future::poll_fn(|cx| response.poll_informational(cx));
    assert_eq!(timeout(PATIENCE, early).await.unwrap().unwrap().unwrap().status(), 100);
    upload.send_data(Bytes::from_static(b"ok"), true).unwrap();
    assert_eq!(&read(response).await.1[..], b"PUT http://h/ 2");

    let service = |request: Request<RequestBody>, _: ExchangeContext| async move {
        assert!(request.headers().contains_key("expect"), "the service must know that the sender waits");
        Response::builder().status(413).body(full("")).unwrap()
    };
    let server = serve(WithContext(service)).await;
    let sender = connect(&server).await;
    let (mut response, _upload) = open(&sender, expecting("/"), false).await;
    let early = std::future::poll_fn(|cx| response.poll_informational(cx));
    assert!(timeout(PATIENCE, early).await.unwrap().is_none(), "the final response comes first");
    assert_eq!(timeout(PATIENCE, response).await.unwrap().unwrap().status(), 413);
}

#[tokio::test]
async fn rules_are_the_same_as_for_http_1() {
    let server = serve(describe).await;
    let sender = connect(&server).await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = get("/");
        request.headers_mut().append(name, value.parse().unwrap());
        request
    };
    let two_lengths = {
        let mut request = with("content-length", "0");
        request.headers_mut().append("content-length", "0".parse().unwrap());
        request
    };
    let long = get(&format!("/{}", "a".repeat(17 * 1024)));
    let many = {
        let mut request = get("/");
        request.headers_mut().extend((0..101).map(|n| (Some(format!("x-{n}").parse().unwrap()), "b".parse().unwrap())));
        request
    };
    let connect = Request::builder().method("CONNECT").uri("h:80").body(()).unwrap();
    let user = Request::builder().uri("http://u@h/").body(()).unwrap();
    let table = [
        (with("host", "other"), 400),
        (two_lengths, 400),
        (user, 400),
        (with("expect", "magic"), 417),
        (long, 414),
        (many, 431),
        (connect, 501),
        (with("host", "h"), 200),
    ];
    for (request, status) in table {
        let text = format!("{request:?}");
        let (response, _) = open(&sender, request, true).await;
        let (head, _) = read(response).await;
        assert_eq!(head.status, status, "{text}");
        assert_eq!(head.headers.contains_key("proxy-status"), status != 200, "{text}");
    }
}

#[tokio::test]
async fn a_header_list_beyond_the_limit_is_answered_431() {
    let settings = Settings { max_head_bytes: 2000, ..Settings::default() };
    let server = serve_with(describe, settings, None).await;
    let sender = connect(&server).await;
    let mut request = get("/");
    request.headers_mut().insert("x", "a".repeat(3000).parse().unwrap());
    let (response, _) = open(&sender, request, true).await;
    assert_eq!(timeout(PATIENCE, response).await.unwrap().unwrap().status(), 431);
}

#[tokio::test]
async fn connection_specific_fields_are_a_protocol_error() {
    let mut wire = serve(describe).await.connect().await;
    wire.send(super::PREFACE).await;
    wire.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    // GET http / h, then `connection: x` as literals without indexing.
    let block = [&[0x82, 0x86, 0x84, 0x01, 1][..], b"h", &[0x00, 10], b"connection", &[1], b"x"].concat();
    let header = [0, 0, u8::try_from(block.len()).unwrap(), 1, 0x05, 0, 0, 0, 1];
    wire.send([&header[..], &block].concat()).await;
    let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let mut received = Vec::new();
    let found = async {
        while !received.windows(reset.len()).any(|window| window == reset) {
            received.push(wire.0.read_u8().await.unwrap());
        }
    };
    timeout(PATIENCE, found).await.expect("RST_STREAM with PROTOCOL_ERROR");
}

#[tokio::test]
async fn rapid_reset_ends_the_connection() {
    let (service, _receiver) = stuck();
    let server = serve(service).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = client::Builder::new().initial_max_send_streams(10_000).handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut sender: SendRequest<Bytes> = sender.ready().await.unwrap();
    for _ in 0..2000 {
        let Ok((_, mut stream)) = sender.send_request(get("/"), true) else { break };
        stream.send_reset(Reason::CANCEL);
    }
    let end = timeout(PATIENCE, driver).await.expect("the connection ends").unwrap().unwrap_err();
    // The reason may be lost to the reset that closing with unread bytes is.
    assert!(end.is_io() || end.reason() == Some(Reason::ENHANCE_YOUR_CALM), "{end}");
}

#[tokio::test]
async fn requests_that_are_given_up_without_end_cost_the_connection() {
    let (service, _receiver) = stuck();
    let server = serve(service).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, mut connection) = client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for _ in 0..60 {
        let asked: Vec<_> = (0..20).map_while(|_| sender.send_request(get("/"), true).ok()).collect();
        // By then the server has taken them: what it has not taken yet has a bound of its own.
        for _ in 0..2 {
            let Ok(_) = timeout(PATIENCE, pings.ping(h2::Ping::opaque())).await.unwrap() else { return };
        }
        for (_, mut stream) in asked {
            stream.send_reset(Reason::CANCEL);
        }
    }
    panic!("it goes on");
}

#[tokio::test]
async fn drain_finishes_what_runs_and_takes_nothing_new() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let (called, mut receiver) = mpsc::unbounded_channel();
    let service = move |_: Request<RequestBody>| {
        let (mut gate, called) = (gate.clone(), called.clone());
        async move {
            called.send("called").unwrap();
            gate.wait_for(|open| *open).await.unwrap();
            Response::new(full("finished"))
        }
    };
    let server = serve(service).await;
    let sender = connect(&server).await;
    let (response, _) = open(&sender, get("/"), true).await;
    assert_eq!(told(&mut receiver).await, "called");
    server.drain.cancel();
    let refused = async {
        while sender.clone().ready().await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    timeout(PATIENCE, refused).await.expect("GOAWAY arrives");
    go.send(true).unwrap();
    assert_eq!(&read(response).await.1[..], b"finished");
    server.drained().await;
}

#[tokio::test]
async fn a_client_that_does_not_say_that_it_has_read_goaway_is_served_nothing_new_before_long() {
    let settings = Settings { linger_timeout: Duration::from_millis(200), ..Settings::default() };
    let server = serve_with(Refusals::default(), settings, None).await;
    let mut client = Frames::new(&server).await;
    // It is never answered, and keeps the connection.
    client.send(1, 4, 1, b"\x83\x86\x84\x41\x01h").await;
    client.head(3, 5, b"").await;
    assert_eq!(client.answer(3).await, None);
    server.drain.cancel();
    let refused = async {
        for stream in (5..).step_by(2) {
            client.head(stream, 5, b"").await;
            if let Some(code) = client.answer(stream).await {
                return code;
            }
        }
        unreachable!("there are always more")
    };
    assert_eq!(timeout(PATIENCE, refused).await.expect("it is over"), u32::from(Reason::REFUSED_STREAM));
}

#[tokio::test]
async fn an_idle_connection_ends_even_if_the_other_end_says_nothing() {
    // Long enough for what is sent in time here, on a machine with other things to do.
    let short = Duration::from_secs(1);
    let settings = Settings { idle_timeout: short, linger_timeout: short, ..Settings::default() };
    let server = serve_with(describe, settings, None).await;
    let mut wire = server.connect().await;
    wire.send(super::PREFACE).await;
    wire.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    assert!(wire.rest().await.1.is_ok());
}

#[tokio::test]
async fn trailers_that_frame_or_route_fail_the_body() {
    let server = serve(describe).await;
    let sender = connect(&server).await;
    let (response, mut upload) = open(&sender, put("/"), false).await;
    upload.send_data(Bytes::from_static(b"abc"), false).unwrap();
    upload.send_trailers(HeaderMap::from_iter([("host".parse().unwrap(), "x".parse().unwrap())])).unwrap();
    assert_eq!(read(response).await.0.status, 400);
}

#[tokio::test]
async fn response_trailers_are_always_sent() {
    let service = |_: Request<RequestBody>| async move {
        let (feed, body) = pieces();
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        feed.send(Ok(Frame::trailers(trailers))).await.unwrap();
        Response::builder().header("connection", "x").header("te", "y").body(body).unwrap()
    };
    let server = serve(service).await;
    let sender = connect(&server).await;
    let (response, _) = open(&sender, get("/"), true).await;
    let mut body = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

/// It broke: one exchange that went on kept a connection, and what waited on it, for ever.
#[tokio::test(start_paused = true)]
async fn a_connection_whose_client_reads_nothing_ends_though_one_exchange_trickles() {
    let service = WithContext(|request: Request<RequestBody>, _: ExchangeContext| async move {
        if request.uri().path() == "/big" {
            return Response::new(full(vec![7; 256 << 10]));
        }
        let (feed, body) = pieces();
        tokio::spawn(async move {
            while feed.send(data(b"x")).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        });
        Response::new(body)
    });
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let details = ConnectionDetails { remote: nowhere, local: nowhere, tls: false, server_name: None, peer: None };
    let settings = Settings::default();
    let allowed = settings.send_timeout..=settings.send_timeout * 2;
    let serving = Serving::new(ConnectionInfo::new(details), Arc::new(settings), service, End::default());
    let (mut client, io) = duplex(4096);
    let (began, served) = (tokio::time::Instant::now(), tokio::spawn(super::serve(io, serving)));
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream][..], payload].concat()
    };
    let get = |path: &[u8]| [&[0x82, 0x86, 0x41, 0x01, b'h', 0x04, path.len() as u8][..], path].concat();
    let windows = [frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), frame(8, 0, 0, &[0x3f, 0, 0, 0])].concat();
    let requests = [frame(1, 5, 1, &get(b"/big")), frame(1, 5, 3, &get(b"/trickle"))].concat();
    client.write_all(&[super::PREFACE, &windows, &requests].concat()).await.unwrap();
    timeout(Duration::from_secs(3600), served).await.expect("it ends").unwrap();
    assert!(allowed.contains(&began.elapsed()), "{:?}", began.elapsed());
}

/// It broke: with the last response complete, a client had twice the time of a stalled one for what still waited.
#[tokio::test(start_paused = true)]
async fn a_complete_response_is_read_to_its_end_over_however_slow_a_link() {
    const BODY: usize = 64 << 10;
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let details = ConnectionDetails { remote: nowhere, local: nowhere, tls: false, server_name: None, peer: None };
    let settings = Settings::default();
    let pause = settings.send_timeout / 4;
    let service = |_: Request<RequestBody>| async { Response::new(full(vec![7; BODY])) };
    let serving = Serving::new(ConnectionInfo::new(details), Arc::new(settings), service, End::default());
    let (client, io) = duplex(1024);
    let served = tokio::spawn(super::serve(io, serving));
    let (mut read, mut write) = tokio::io::split(client);
    let windows =
        [&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff][..], &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x3f, 0, 0, 0]];
    let request = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 0x01, b'h'];
    write.write_all(&[super::PREFACE, &windows.concat(), &request].concat()).await.unwrap();
    let (mut got, mut buffer) = (0, [0; 1024]);
    while got < BODY {
        tokio::time::sleep(pause).await;
        got += match read.read(&mut buffer).await {
            Ok(read @ 1..) => read,
            end => panic!("{end:?} after {got} bytes"),
        };
    }
    served.abort();
}

// spec: SE-20
#[tokio::test]
async fn answers_that_never_end_all_get_on() {
    for piece in ENDLESS_PIECES {
        answers_that_never_end_in_pieces_of(piece).await;
    }
}

async fn answers_that_never_end_in_pieces_of(bytes: usize) {
    const ANSWERS: usize = 16;
    let answer = move |_: Request<RequestBody>| async move { Response::new(Endless(bytes).boxed_unsync()) };
    let server = serve(answer).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    // Wider than what may wait to be written.
    let mut settings = client::Builder::new();
    settings.initial_window_size(4 << 20).initial_connection_window_size(64 << 20);
    let (sender, connection) = settings.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let (told, got) = mpsc::unbounded_channel();
    let mut reading = JoinSet::new();
    for answer in 0..ANSWERS {
        let (response, _) = open(&sender, get("/"), true).await;
        let told = told.clone();
        reading.spawn(async move {
            let mut body = response.await.unwrap().into_body();
            while let Some(data) = body.data().await {
                let length = data.unwrap().len();
                body.flow_control().release_capacity(length).unwrap();
                told.send((answer, length)).unwrap();
            }
        });
    }
    all_get_on::<ANSWERS>(got).await;
}
