//! What a listener does to a request before it enters a tunnel: what is told of its client, and the steps of `rewrite`. Over
//! each version of HTTP.

use std::net::SocketAddr;

use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http1::{RawHttp, get};
use crate::support::http2::Http2;
use crate::support::http3::{Http3, request_with, wait};
use crate::support::raw_target::{RawPeer, RawTarget};
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_client_is_told_of_in_the_form_that_is_asked_for,
    what_a_trusted_proxy_says_in_the_other_form_is_not_passed_on,
    a_client_of_ipv6_is_told_of_between_quotes,
    what_is_said_of_a_client_behind_a_body_reaches_no_target,
    what_the_head_settles_is_not_said_again_behind_the_body,
    what_no_target_may_say_of_clients_is_kept_back_wherever_it_says_it,
    a_path_goes_on_whole_or_not_at_all_whatever_the_version,
    a_request_is_rewritten_as_its_listener_says,
    a_request_goes_where_it_was_sent_and_a_service_matches_what_it_became,
);

/// The request as the target has seen it.
#[derive(Debug)]
struct Seen {
    status: u16,
    /// `/request` says it in JSON.
    request: Value,
}

impl Seen {
    fn of(status: u16, text: &str) -> Self {
        Self { status, request: serde_json::from_str(text).unwrap_or_default() }
    }

    /// All values of a field.
    fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.request["fields"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        fields.iter().filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect()
    }
}

/// Listeners with these keys, without and with TLS; both have HTTP/1.1 and HTTP/2, the second one HTTP/3.
fn listeners(keys: &[(&str, &str)]) -> Cloud {
    let set = |cloud: Cloud| keys.iter().fold(cloud, |cloud, (key, value)| cloud.egress(key, value));
    set(set(Cloud::new()).and_egress()).egress("tls", "{ cert: cloud.pem, key: cloud.key }")
}

/// Asks for a path of shop.example in each version of HTTP. That of HTTP/3 is left out where there is no client for it.
async fn each(site: &Site, path: &str, fields: &[(&str, &str)]) -> Vec<(&'static str, Seen)> {
    let fields = [&[("x-node-id", NODE.node)], fields].concat();
    let [clear, secure] = [0, 1].map(|index| site.responder.egress_at(index));
    let mut seen = vec![("HTTP/1.1", http1(clear, path, &fields).await), ("HTTP/2", http2(clear, path, &fields).await)];
    let asked = json!({ "authority": "shop.example", "fields": fields });
    if let Some(client) = Http3::start(secure, &site.folder, vec![request_with("a", "GET", path, asked), wait("a")]) {
        let answer = client.answer("a").await;
        seen.push(("HTTP/3", Seen::of(answer.status().try_into().unwrap(), answer.text())));
    }
    seen
}

async fn http1(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Seen {
    let mut client = RawHttp::connect(address).await.unwrap();
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n").as_bytes()).await.unwrap();
    let response = client.response().await.unwrap();
    Seen::of(response.status(), &response.text())
}

async fn http2(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Seen {
    let request = Request::get(format!("http://shop.example{path}"));
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = Http2::connect(address).await.get(request.body(()).unwrap()).await;
    Seen::of(response.status().as_u16(), &String::from_utf8_lossy(&response.body().bytes))
}

const CLAIMS: [(&str, &str); 5] = [
    ("forwarded", "for=6.6.6.6"),
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-host", "bank.example"),
    ("x-forwarded-client-cert", "URI=spiffe://admin"),
    ("x-real-ip", "6.6.6.6"),
];

/// What is said of the client itself.
fn own(version: &str) -> String {
    let proto = if version == "HTTP/3" { "https" } else { "http" };
    format!("for=127.0.0.1;host=shop.example;proto={proto}")
}

async fn a_client_is_told_of_in_the_form_that_is_asked_for(transport: Transport) {
    for (forms, forwarded, x) in
        [("both", true, true), ("rfc7239", true, false), ("x", false, true), ("none", false, false)]
    {
        let site = Site::with(listeners(&[("forwarded", forms)]), Edge::new(transport)).await;
        for (version, seen) in each(&site, "/request", &CLAIMS).await {
            let own = own(version);
            let wanted = |wanted: bool, value| if wanted { vec![value] } else { vec![] };
            assert_eq!(seen.all("forwarded"), wanted(forwarded, own.as_str()), "{forms}, {version}");
            assert_eq!(seen.all("x-forwarded-for"), wanted(x, "127.0.0.1"), "{forms}, {version}");
            assert_eq!(seen.all("x-forwarded-proto").len(), usize::from(x), "{forms}, {version}");
            for gone in ["x-forwarded-host", "x-forwarded-client-cert", "x-real-ip"] {
                assert_eq!(seen.all(gone), [""; 0], "{forms}, {version}: {gone}");
            }
        }
    }
}

async fn what_a_trusted_proxy_says_in_the_other_form_is_not_passed_on(transport: Transport) {
    for (forms, forwarded, x) in [("rfc7239", true, false), ("x", false, true)] {
        let keys = [("forwarded", forms), ("trust", "[\"127.0.0.1\"]")];
        let site = Site::with(listeners(&keys), Edge::new(transport)).await;
        for (version, seen) in each(&site, "/request", &CLAIMS).await {
            let own = own(version);
            let elements = if forwarded { vec!["for=6.6.6.6", own.as_str()] } else { vec![] };
            assert_eq!(seen.all("forwarded"), elements, "{forms}, {version}");
            assert_eq!(seen.all("x-forwarded-for"), if x { vec!["6.6.6.6, 127.0.0.1"] } else { vec![] }, "{forms}");
            assert_eq!(seen.all("x-forwarded-host").len(), usize::from(x), "{forms}, {version}");
            assert_eq!(seen.all("x-forwarded-client-cert"), ["URI=spiffe://admin"], "{forms}, {version}");
        }
    }
}

async fn a_client_of_ipv6_is_told_of_between_quotes(transport: Transport) {
    let cloud = Cloud::new().egress("http", "\"[::1]:0\"").egress("trust", "[\"::1\"]");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let before = "forwarded: for=\"[2001:db8::7]:123\"";
    let response = get(site.egress(), "/request", &[TO_NODE, before]).await.unwrap();
    let seen = Seen::of(response.status(), &response.text());
    let [first, own] = seen.all("forwarded")[..] else { panic!("{seen:?}") };
    assert_eq!(first, "for=\"[2001:db8::7]:123\"");
    assert!(own.starts_with("for=\"[::1]\";host="), "{own}");
    // What came in one form is said in both.
    assert_eq!(seen.all("x-forwarded-for"), ["2001:db8::7, ::1"]);
}

/// Some targets add trailers to the fields of the head.
async fn what_is_said_of_a_client_behind_a_body_reaches_no_target(transport: Transport) {
    let site = Site::with(listeners(&[]), Edge::new(transport)).await;
    let names = ["x-forwarded-for", "forwarded", "x-real-ip", "authorization", "content-type", "via", "adit-service"];
    for (name, passes) in [("x-sum", true)].into_iter().chain(names.map(|name| (name, false))) {
        let mut client = RawHttp::connect(site.egress()).await.unwrap();
        let head = format!("POST /sink HTTP/1.1\r\nhost: a\r\n{TO_NODE}\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(format!("{head}1\r\na\r\n0\r\n{name}: 6.6.6.6\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(client.response().await.unwrap().status(), if passes { 200 } else { 400 }, "HTTP/1.1: {name}");

        let request = Request::post("http://a/sink").header("x-node-id", NODE.node).body(()).unwrap();
        let mut client = Http2::connect(site.egress()).await;
        let (response, mut body) = client.send(request, false).await;
        body.send_data("a".into(), false).unwrap();
        body.send_trailers([(name.parse().unwrap(), "6.6.6.6".parse().unwrap())].into_iter().collect()).unwrap();
        let is_served = response.await.is_ok_and(|response| response.status() == 200);
        assert_eq!(is_served, passes, "HTTP/2: {name}");

        let asked = json!({ "body": "a", "trailers": [[name, "6.6.6.6"]] });
        let steps = vec![request_with("a", "POST", "/sink", asked), wait("a")];
        let secure = site.responder.egress_at(1);
        if let Some(client) = Http3::start(secure, &site.folder, steps) {
            let answer = client.answer("a").await;
            assert_eq!(answer.is_whole() && answer.status() == 200, passes, "HTTP/3: {name}: {answer:?}");
        }
    }
}

/// What a target reads of a chunked body, to its end.
async fn chunked(peer: &mut RawPeer) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.extend(peer.exactly(1).await.unwrap());
    }
    String::from_utf8(read).unwrap()
}

async fn what_the_head_settles_is_not_said_again_behind_the_body(transport: Transport) {
    let target = RawTarget::new().await;
    let steps = "[ { remove: x-admin }, { set: { name: x-role, value: guest } } ]";
    let service = format!(
        "{{ name: raw, match: {{ prefix: / }}, target: \"http://{}\", rewrite: [ {{ remove: x-inner }} ] }}",
        target.address()
    );
    let site = Site::with(listeners(&[("rewrite", steps)]), Edge::new(transport).service(&service)).await;
    let said = ["x-admin", "x_admin", "x-role", "x_role", "x-inner", "x_inner"];
    let trailers = [&said[..], &["x-node-id", "x-sum"]].concat();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let check = |version: &str, head: &str, body: &str| {
        let of_said = |text: &str| said.iter().filter(|name| text.contains(*name)).copied().collect::<Vec<_>>();
        assert_eq!(of_said(head), ["x-role"], "{version}: {head}");
        assert!(head.contains("x-role: guest\r\n"), "{version}: {head}");
        assert_eq!(body.to_lowercase(), "1\r\na\r\n0\r\nx-sum: evil\r\n\r\n", "{version}");
    };
    let lines = |names: &[&str]| names.iter().map(|name| format!("{name}: evil\r\n")).collect::<String>();

    let mut client = RawHttp::connect(site.egress()).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{TO_NODE}\r\n{}transfer-encoding: chunked\r\n\r\n", lines(&said));
    client.send(format!("{head}1\r\na\r\n0\r\n{}\r\n", lines(&trailers)).as_bytes()).await.unwrap();
    let (mut peer, head) = target.accept().await;
    check("HTTP/1.1", &head, &chunked(&mut peer).await);
    peer.send(answer).await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 200, "HTTP/1.1");

    let request = Request::post("http://a/").header("x-node-id", NODE.node);
    let request = said.iter().fold(request, |request, name| request.header(*name, "evil")).body(()).unwrap();
    let mut client = Http2::connect(site.egress()).await;
    let (response, mut body) = client.send(request, false).await;
    body.send_data("a".into(), false).unwrap();
    let map = trailers.iter().map(|name| (name.parse().unwrap(), "evil".parse().unwrap())).collect();
    body.send_trailers(map).unwrap();
    let (mut peer, head) = target.accept().await;
    check("HTTP/2", &head, &chunked(&mut peer).await);
    peer.send(answer).await.unwrap();
    assert_eq!(response.await.unwrap().status(), 200, "HTTP/2");

    let fields: Vec<_> = [["x-node-id", NODE.node]].into_iter().chain(said.map(|name| [name, "evil"])).collect();
    let trailers: Vec<_> = trailers.iter().map(|name| [*name, "evil"]).collect();
    let asked = json!({ "body": "a", "fields": fields, "trailers": trailers });
    let steps = vec![request_with("a", "POST", "/", asked), wait("a")];
    let Some(client) = Http3::start(site.responder.egress_at(1), &site.folder, steps) else { return };
    let (mut peer, head) = target.accept().await;
    check("HTTP/3", &head, &chunked(&mut peer).await);
    peer.send(answer).await.unwrap();
    assert_eq!(client.answer("a").await.status(), 200, "HTTP/3");
}

async fn what_no_target_may_say_of_clients_is_kept_back_wherever_it_says_it(transport: Transport) {
    let target = RawTarget::new().await;
    let service = format!("{{ name: raw, match: {{ prefix: / }}, target: \"http://{}\" }}", target.address());
    let site = Site::with(listeners(&[]), Edge::new(transport).service(&service)).await;
    let claims = "x-envoy-internal: true\r\nforwarded: for=a\r\nx-forwarded-client-cert: a\r\n";
    let answer = format!(
        "HTTP/1.1 103 Early Hints\r\nlink: l\r\n{claims}\r\nHTTP/1.1 200 OK\r\n{claims}trailer: x-sum\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{claims}x-sum: 4\r\n\r\n"
    );
    let mut client = RawHttp::connect(site.egress()).await.unwrap();
    let asked = format!("GET / HTTP/1.1\r\nhost: a\r\n{TO_NODE}\r\nte: trailers\r\nconnection: te\r\n\r\n");
    client.send(asked.as_bytes()).await.unwrap();
    let (mut peer, _) = target.accept().await;
    peer.send(&answer).await.unwrap();
    let seen = client.response().await.unwrap();
    let [early] = &seen.interim[..] else { panic!("{seen:?}") };
    assert_eq!((early.status, early.field("link"), seen.status(), &*seen.body), (103, Some("l"), 200, &b"a"[..]));
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "4".to_owned())]);
    for (name, _) in early.fields.iter().chain(&seen.head.fields) {
        assert!(!claims.contains(&format!("{name}:")), "{name}: {seen:?}");
    }

    let asked = json!({ "fields": [["x-node-id", NODE.node]] });
    let steps = vec![request_with("a", "GET", "/", asked), wait("a")];
    let Some(client) = Http3::start(site.responder.egress_at(1), &site.folder, steps) else { return };
    let (mut peer, _) = target.accept().await;
    peer.send(&answer).await.unwrap();
    let seen = client.answer("a").await;
    assert!(seen.is_whole() && seen.text() == "a", "{seen:?}");
    assert_eq!(seen.0["trailers"], json!([["x-sum", "4"]]), "{seen:?}");
}

async fn a_path_goes_on_whole_or_not_at_all_whatever_the_version(transport: Transport) {
    let site = Site::with(listeners(&[]), Edge::new(transport)).await;
    let paths = [
        ("/request?a%23b", true),
        ("/request?{a}|b", true),
        ("/request?a#b", false),
        ("/request#b", false),
        ("/request#", false),
        ("/request?a b", false),
        ("/request?\u{e9}", false),
    ];
    let mut served = 0;
    for (path, passes) in paths {
        let mut client = RawHttp::connect(site.egress()).await.unwrap();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
        let first = client.response().await.unwrap().status();
        // What follows a space is the version.
        assert!(
            first == if passes { 200 } else { 400 } || (first == 505 && path.contains(' ')),
            "HTTP/1.1: {path}: {first}"
        );

        let seen = raw_http2(site.egress(), path).await;
        assert_eq!(seen.is_some(), passes, "HTTP/2: {path}: {seen:?}");
        assert!(seen.is_none_or(|seen| seen.contains(path)), "HTTP/2: {path}");
        served += 2 * usize::from(passes);

        let pseudo = [[":method", "GET"], [":scheme", "https"], [":authority", "a"], [":path", path]];
        let head: Vec<_> = pseudo.into_iter().chain([["x-node-id", NODE.node]]).collect();
        let steps = vec![request_with("a", "GET", path, json!({ "head": head })), wait("a")];
        let Some(client) = Http3::start(site.responder.egress_at(1), &site.folder, steps) else { continue };
        let answer = client.answer("a").await;
        assert_eq!(answer.status() == 200, passes, "HTTP/3: {path}: {answer:?}");
        assert!(passes || answer.status() == 400 || !answer.0["reset"].is_null(), "HTTP/3: {path}: {answer:?}");
        assert!(!passes || answer.text().contains(path), "HTTP/3: {path}: {answer:?}");
        served += usize::from(passes);
    }
    let seen = site.target.requests();
    assert_eq!(seen.len(), served, "nothing else reaches the target: {seen:?}");
}

/// Asks over HTTP/2, byte for byte, for a path; the body of the answer, or `None` where the request is refused.
async fn raw_http2(address: SocketAddr, path: &str) -> Option<String> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let field = |name: &str, value: &str| {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [vec![0], text(name), text(value)].concat()
    };
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let head = [vec![0x82, 0x86, 0x41, 1, b'a'], field(":path", path), field("x-node-id", NODE.node)].concat();
    client.write_all(&frame(1, 5, 1, &head)).await.unwrap();
    let (mut body, mut status) = (Vec::new(), None);
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        client.read_exact(&mut payload).await.unwrap();
        let ends = head[4] & 1 != 0;
        match (head[3], head[8]) {
            (0, 1) => body.extend(payload),
            (1, 1) => status = payload.first().copied(),
            (3, 1) => return None,
            _ => continue,
        }
        if ends {
            // `:status 200` of the static table.
            return (status == Some(0x88)).then(|| String::from_utf8(body).unwrap());
        }
    }
}

async fn a_request_is_rewritten_as_its_listener_says(transport: Transport) {
    let steps = "[ { host: shop.internal }, { prefix: { from: /shop, to: / } }, { set: { name: x-region, value: eu } }, \
                 { remove: x-node-id }, { remove: via } ]";
    for target in ["http", "h2c"] {
        let cloud = listeners(&[("rewrite", steps)]);
        let site = match target {
            "http" => Site::with(cloud, Edge::new(transport)).await,
            _ => Site::h2c(cloud, Edge::new(transport)).await,
        };
        let sent = [("x-region", "us"), ("x-region", "cn"), ("via", "1.1 before"), ("x-kept", "a")];
        for (version, seen) in each(&site, "/shop/%72equest?from=/shop", &sent).await {
            let uri = seen.request["uri"].as_str().unwrap_or_else(|| panic!("{version}: {seen:?}"));
            assert!(uri.ends_with("/request?from=/shop") && !uri.contains("/shop/"), "{version}: {uri}");
            let host = if target == "http" { seen.all("host")[0] } else { uri };
            assert!(host.contains("shop.internal"), "{version}: {seen:?}");
            assert_eq!((seen.all("x-region"), seen.all("x-kept")), (vec!["eu"], vec!["a"]), "{version}");
            assert_eq!((seen.all("x-node-id").len(), seen.all("via").len()), (0, 0), "{version}");
            assert!(seen.all("forwarded")[0].contains("host=shop.example"), "{version}: what the client asked for");
        }
        for (version, seen) in each(&site, "/shop/..%2fadmin", &[]).await {
            assert_eq!(seen.status, 400, "{version}: a path that can be read in two ways");
        }
        assert!(!site.target.requests().iter().any(|request| request.contains("admin")), "it reaches no target");
    }
}

async fn a_request_goes_where_it_was_sent_and_a_service_matches_what_it_became(transport: Transport) {
    let steps = "[ { prefix: { from: /public, to: /inner } }, { set: { name: x-node-id, value: nobody } } ]";
    let edge = Edge::new(transport)
        .service("{ name: inner, match: { prefix: /inner }, target: \"{target}\", rewrite: [ { prefix: { from: /inner, to: / } }, { set: { name: x-by, value: site } } ] }");
    let site = Site::with(listeners(&[("rewrite", steps)]), edge).await;
    for (version, seen) in each(&site, "/public/request", &[]).await {
        assert_eq!(
            (seen.status, seen.all("x-node-id"), seen.all("x-by")),
            (200, vec!["nobody"], vec!["site"]),
            "{version}"
        );
    }
    let record = site.responder.0.line_with("/public/request").await;
    assert_eq!(record["path"], "/public/request", "what the client asked for: {record}");
    for (version, seen) in each(&site, "/other", &[]).await {
        assert_eq!(seen.status, 404, "{version}: no service matches it");
    }
}
