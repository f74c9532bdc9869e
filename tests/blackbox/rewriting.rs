//! What a listener does to a request before it enters a tunnel: what is told of its client, and the steps of `rewrite`. Over
//! each version of HTTP.

use std::net::SocketAddr;

use http::Request;
use serde_json::{Value, json};

use crate::support::http1::{RawHttp, get};
use crate::support::http2::Http2;
use crate::support::http3::{Http3, request_with, wait};
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_client_is_told_of_in_the_form_that_is_asked_for,
    what_a_trusted_proxy_says_in_the_other_form_is_not_passed_on,
    a_client_of_ipv6_is_told_of_between_quotes,
    what_is_said_of_a_client_behind_a_body_reaches_no_target,
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
    assert_eq!(seen.all("x-forwarded-for"), ["::1"]);
}

/// Some targets add trailers to the fields of the head.
async fn what_is_said_of_a_client_behind_a_body_reaches_no_target(transport: Transport) {
    let site = Site::with(listeners(&[]), Edge::new(transport)).await;
    for (name, passes) in [("x-sum", true), ("x-forwarded-for", false), ("forwarded", false), ("x-real-ip", false)] {
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
