//! That `adit check --explain` says of connections, of datagrams, and of what reaches an initiator what happens to them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use super::bytes::first_words;
use crate::cli::{adit, parts};
use crate::support::datagrams::{Client, Peer};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::site::{Cloud, Edge, Folder, NODE, Running, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    the_source_of_a_request_is_whom_a_trusted_proxy_names,
    connections_happen_as_they_are_explained,
    datagrams_happen_as_they_are_explained,
    what_reaches_an_initiator_happens_as_it_is_explained,
);

/// What is printed of one place: which, rule, way.
type Block = [String; 3];

/// Exit code, and what is printed of each place.
async fn explain(file: &Path, asked: &[&str]) -> (Option<i32>, Vec<Block>) {
    let arguments = [&["check", "--explain"], asked, &[file.to_str().unwrap()]].concat();
    let (code, out, err) = parts(&adit(&arguments).await);
    let lines: Vec<String> = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(!lines.is_empty() && lines.len().is_multiple_of(3), "{asked:?}: {out}{err}");
    (code, lines.chunks(3).map(|block| block.to_vec().try_into().unwrap()).collect())
}

/// What must be printed of something that left this line: rule and way. `word` says what is done with what goes nowhere.
fn expected(line: &Value, word: &str, to: Option<String>) -> (String, String) {
    let rule = match (line["rule"].as_str(), &to) {
        (Some(rule), _) => rule.to_owned(),
        (None, Some(_)) => "rule the last rule: allow".to_owned(),
        (None, None) => "rule none decides".to_owned(),
    };
    let why = line["details"].as_str().unwrap_or_default();
    let why = if word == "answer" { format!("{}: {why}", line["status"]) } else { why.to_owned() };
    (rule, to.unwrap_or_else(|| format!("{word} {why}")))
}

/// Where a responder says that something went, if it went into a tunnel.
fn into_tunnel(line: &Value) -> Option<String> {
    let text = |key: &str| line[key].as_str().unwrap();
    (line["tunnel"].is_string() || line["cause"] == "unknown_host")
        .then(|| format!("to host id {}, tenant {}, service {}", text("host_id"), text("tenant"), text("service")))
}

/// Which target an initiator says that something went to.
fn to_target(line: &Value) -> Option<String> {
    let to = line["to"].as_str()?;
    Some(format!("to service {}, {to}", line["service"].as_str().unwrap()))
}

async fn line(process: &Running, before: usize) -> Value {
    eventually("a line of the access log", async || process.lines_of("exchange").into_iter().nth(before)).await
}

fn from(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 7, 0, last).into()
}

/// A target that ends each connection once something has come.
async fn ending(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    address
}

async fn the_source_of_a_request_is_whom_a_trusted_proxy_names(transport: Transport) {
    let rules = "[{ priority: 2, name: banned, match: { source: 192.0.2.0/24 }, action: deny, status: 404 },\
                  { priority: 1, name: office, match: { source: 198.51.100.0/24 }, action: allow },\
                  { priority: 3, match: { prefix: /open }, action: allow }]";
    let cloud = Cloud::new().egress("trust", "[127.0.0.0/16]").egress("policies", rules);
    let site = Site::with(cloud, Edge::new(transport)).await;
    for (path, fields, status) in [
        ("/", &[][..], 200),
        ("/", &["x-forwarded-for: 192.0.2.7"], 404),
        ("/", &["x-forwarded-for: 192.0.2.7, 127.0.0.3"], 404),
        ("/", &["x-forwarded-for: 192.0.2.7, 198.51.100.1"], 200),
        ("/", &["forwarded: for=\"192.0.2.7:4711\";proto=https"], 404),
        ("/", &["x-forwarded-for: unknown"], 403),
        ("/", &["forwarded: for=198.51.100.1", "x-forwarded-for: 192.0.2.7"], 403),
        ("/open", &["x-forwarded-for: unknown"], 200),
    ] {
        let before = site.responder.0.lines_of("exchange").len();
        let answer = get(site.egress(), path, &[&[TO_NODE], fields].concat()).await.unwrap();
        assert_eq!(answer.status(), status, "{path} {fields:?}: {}", answer.text());
        let line = line(&site.responder.0, before).await;
        let asked: Vec<&str> = fields.iter().chain([&TO_NODE]).flat_map(|field| ["-H", field]).collect();
        let url = format!("http://{}{path}", site.egress());
        let (code, blocks) =
            explain(site.responder.0.file(), &[&["GET", &url, "--source", "127.0.0.1"], &asked[..]].concat()).await;
        assert_eq!(code, Some(i32::from(status != 200)), "{blocks:?}");
        let said = if status == 200 { "to host id".to_owned() } else { format!("answer {status}") };
        assert!(blocks[0][2].starts_with(&said), "{fields:?}: {blocks:?}");
        if let Some(rule) = line["rule"].as_str() {
            assert!(blocks[0][1].starts_with(rule), "{fields:?}: {rule} and {blocks:?}");
        }
    }
    // Who is not trusted names nobody.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from(1), 0).into()).unwrap();
    let mut client = RawHttp::over(socket.connect(site.egress()).await.unwrap());
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\nx-forwarded-for: 192.0.2.7\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 200);
}

/// Connects, says this, and waits for the end.
async fn say(from: IpAddr, to: SocketAddr, words: &[u8]) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let said = async {
        let mut stream = socket.connect(to).await?;
        stream.write_all(words).await?;
        stream.read_to_end(&mut Vec::new()).await
    };
    // A reset may come at any moment of that.
    if let Err(error) = said.await {
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    }
}

const OF_BYTES: &str = "[{ priority: 9, name: near, match: { source: 127.7.0.1 }, action: deny },\
    { priority: 8, match: { host: closed.example }, action: deny },\
    { priority: 7, name: moved, match: { host: \"*.moved.example\", source: 127.7.0.2 }, action: reroute, to: { service: second } },\
    { priority: 6, match: { host: away.example }, action: reroute, to: { node: edge-1 } },\
    { priority: 5, match: { service: second, source: 127.7.0.3 }, action: deny }]";

/// Of what a connection says first, and from where it comes: the name in its TLS.
const CONNECTIONS: [(u8, Option<&str>); 12] = [
    (1, None),
    (1, Some("a.example")),
    (2, None),
    (2, Some("A.example")),
    (2, Some("closed.example")),
    (2, Some("x.Moved.example")),
    (3, Some("x.moved.example")),
    (2, Some("away.example")),
    (2, Some("b.example")),
    (3, Some("b.example")),
    (2, Some("no-node")),
    (2, Some("no-service.example")),
];

async fn connections_happen_as_they_are_explained(transport: Transport) {
    let mut tasks = JoinSet::new();
    let mut edge = Edge::new(transport);
    for name in ["first", "second"] {
        edge = edge.service(&format!("{{ name: {name}, target: \"tcp://{}\" }}", ending(&mut tasks).await));
    }
    // Where everything is known beforehand, where the name decides on everything, and where most names have no service.
    let routes = "[{ server_name: b.example, service: second, host_id: edge-1 }]";
    let named = Cloud::new()
        .and_tcp("first")
        .egress("policies", "[{ priority: 1, match: { source: 127.7.0.1 }, action: deny }]");
    let named = named.and_tcp("first").without("to").egress("host_id", "\"%REQUESTED_SERVER_NAME%\"");
    let named = named.egress("tenant", NODE.tenant).egress("service", "first").egress("hold", "0s");
    let cloud = named.egress("policies", OF_BYTES).egress("routes", routes);
    let to = format!("{{ node: {}, tenant: {} }}", NODE.node, NODE.tenant);
    let cloud = cloud.and_tcp("first").egress("to", &to).egress("routes", routes).egress("policies", OF_BYTES);
    let site = Site::with(cloud, edge).await;
    let mut seen = 0;
    for (last, name) in CONNECTIONS {
        let source = from(last).to_string();
        let mut asked = vec!["tcp", "127.0.0.1:0", "--source", &source];
        asked.extend(name.into_iter().flat_map(|name| ["--server-name", name]));
        let (code, blocks) = explain(site.responder.0.file(), &asked).await;
        assert_eq!(blocks.len(), 3);
        let mut all_go = true;
        for (listener, [place, rule, way]) in blocks.into_iter().enumerate() {
            let words = name.map_or_else(|| b"SSH-2.0-somebody\r\n".to_vec(), first_words);
            say(from(last), site.responder.tcp_at(listener), &words).await;
            let line = line(&site.responder.0, seen).await;
            seen += 1;
            // Whether somebody is there, and whether he has that service, is not for a listener to know.
            let to = into_tunnel(&line);
            all_go &= to.is_some();
            let (expected_rule, expected_way) = expected(&line, "reset", to);
            assert_eq!(
                (place.as_str(), &way),
                ("egress 127.0.0.1:0", &expected_way),
                "{asked:?} at {listener}: {line}"
            );
            assert!(rule.starts_with(&expected_rule), "{asked:?} at {listener}: {rule}, {line}");
        }
        assert_eq!(code, Some(i32::from(!all_go)), "{asked:?}");
    }
}

async fn datagrams_happen_as_they_are_explained(transport: Transport) {
    let (peer, other) = (Peer::echo().await, Peer::echo().await);
    let edge = Edge::new(transport)
        .service(&format!("{{ name: echo, target: \"udp://{}\", flow_idle: 1s }}", peer.address()))
        .service(&format!("{{ name: other, target: \"udp://{}\", flow_idle: 1s }}", other.address()));
    let rules = "[{ priority: 900, name: closed, match: { source: 127.7.0.1 }, action: deny },\
        { priority: 800, match: { source: 127.7.0.2, tenant: acme }, action: reroute, to: { service: other } },\
        { priority: 700, match: { tenant: other }, action: deny }]";
    let cloud = Cloud::new().and_udp("echo").egress("policies", rules).egress("limits", "{ flow_idle: 1s }");
    let site = Site::with(cloud, edge).await;
    for (seen, last) in [1, 2, 3].into_iter().enumerate() {
        let source = from(last);
        let address = source.to_string();
        let (code, blocks) = explain(site.responder.0.file(), &["udp", "127.0.0.1:0", "--source", &address]).await;
        Client::at(source, site.responder.udp_at(0)).await.send(b"one").await;
        let line = line(&site.responder.0, seen).await;
        let to = into_tunnel(&line);
        let goes = to.is_some();
        let (rule, way) = expected(&line, "dropped", to);
        assert_eq!((code, blocks.len(), &blocks[0][2]), (Some(i32::from(!goes)), 1, &way), "{line}");
        assert!(blocks[0][1].starts_with(&rule), "{blocks:?}, {line}");
    }
}

const AT_SITE: &str = "[\
    { priority: 900, name: closed, match: { prefix: /closed }, action: deny, status: 451 },\
    { priority: 800, name: no-shell, match: { method: CONNECT, service: shell }, action: deny },\
    { priority: 700, name: moved, match: { service: old, peer: localhost }, action: reroute, to: { service: web } },\
    { priority: 600, name: moved-bytes, match: { service: bytes }, action: reroute, to: { service: echo } },\
    { priority: 550, match: { service: wrong }, action: reroute, to: { service: web } },\
    { priority: 500, name: far, match: { source: 192.0.2.0/24 }, action: deny },\
    { priority: 450, match: { peer: other.example }, action: deny },\
    { priority: 400, name: near, match: { source: 127.0.0.0/8, path: /near }, action: deny },\
    { priority: 300, match: { source: 127.7.0.9, service: echo }, action: deny }]";

async fn what_reaches_an_initiator_happens_as_it_is_explained(transport: Transport) {
    let (mut tasks, peer) = (JoinSet::new(), Peer::echo().await);
    let mut edge = Edge::new(transport).service("{ name: web, match: { prefix: / }, target: \"{target}\" }");
    edge = edge.service("{ name: old, match: none, target: \"{target}\" }");
    for name in ["shell", "bytes", "echo", "wrong"] {
        edge = edge.service(&format!("{{ name: {name}, target: \"tcp://{}\" }}", ending(&mut tasks).await));
    }
    edge = edge.service(&format!("{{ name: datagrams, target: \"udp://{}\", flow_idle: 1s }}", peer.address()));
    edge = edge.service(&format!("{{ name: shell-of-udp, target: \"udp://{}\" }}", peer.address()));
    let mut cloud = Cloud::new();
    for name in ["shell", "bytes", "echo", "wrong", "none"] {
        cloud = cloud.and_tcp(name);
    }
    let cloud = cloud.and_udp("datagrams").egress("limits", "{ flow_idle: 1s }").and_udp("bytes");
    let cloud = cloud.and_egress().egress("service", "old").and_egress().egress("service", "echo");
    let site = Site::with(cloud, edge.initiator("policies", AT_SITE)).await;
    let file = site.initiator.file();
    let place = format!("initiator tenant {} cluster {} node {}", NODE.tenant, NODE.cluster, NODE.node);
    let check = async |seen: usize, asked: &[&str], word: &str| {
        let asked = [asked, &["--initiator", "--client-san", "localhost"]].concat();
        let (code, blocks) = explain(file, &asked).await;
        let line = line(&site.initiator, seen).await;
        let to = to_target(&line);
        let goes = to.is_some();
        let (rule, way) = expected(&line, word, to);
        let [said, decides, went] = &blocks[0];
        assert_eq!((code, went), (Some(i32::from(!goes)), &way), "{asked:?}: {line}");
        assert!(decides.starts_with(&rule), "{asked:?}: {decides}, {line}");
        assert!(said.starts_with("initiator ") && said.contains(NODE.node), "{said}, {place}");
    };

    let mut seen = 0;
    for (listener, service, path) in [
        (0, None, "/a"),
        (0, None, "/x/../closed"),
        (0, None, "/near"),
        (1, Some("old"), "/a"),
        (2, Some("echo"), "/a"),
    ] {
        get(site.responder.egress_at(listener), path, &[TO_NODE]).await.unwrap();
        let url = format!("http://{}{path}", site.responder.egress_at(listener));
        let named = service.into_iter().flat_map(|service| ["--service", service]);
        let asked: Vec<&str> = ["GET", &url].into_iter().chain(named).collect();
        check(seen, &asked, "answer").await;
        seen += 1;
    }
    for (listener, service, last) in
        [(0, "shell", 1), (1, "bytes", 1), (2, "echo", 1), (2, "echo", 9), (3, "wrong", 1), (4, "none", 1)]
    {
        say(from(last), site.responder.tcp_at(listener), b"hello").await;
        check(seen, &["tcp", service, "--source", &from(last).to_string()], "refused").await;
        seen += 1;
    }
    for (listener, service) in [(0, "datagrams"), (1, "bytes")] {
        Client::at(from(1), site.responder.udp_at(listener)).await.send(b"hello").await;
        check(seen, &["udp", service, "--source", &from(1).to_string()], "refused").await;
        seen += 1;
    }
}

/// Each mistake on the command line has an exit code of its own kind, and says what to write.
#[tokio::test]
async fn what_is_out_of_place_is_said() {
    let folder = Folder::new();
    let file = folder.write("cloud.yaml", &Cloud::new().and_tcp("ssh").text()).display().to_string();
    for (arguments, problem) in [
        (&["get", "http://h/"][..], "\"get\" is no method: methods are case sensitive; expected GET"),
        (&["Connect", "h:1"], "expected CONNECT"),
        (&["TCP", "127.0.0.1:0"], "expected tcp"),
        (&["tcp", "ssh"], "\"ssh\" is no address"),
        (&["tcp", "127.0.0.1:9"], "no tcp listener at 127.0.0.1:9; it has 127.0.0.1:0"),
        (&["udp", "127.0.0.1:0"], "no udp listener at 127.0.0.1:0; it has none"),
        (&["tcp", "127.0.0.1:0", "-H", "a: b"], "-H is out of place"),
        (&["tcp", "127.0.0.1:0", "--client-san", "a"], "--client-san is out of place"),
        (&["udp", "127.0.0.1:0", "--server-name", "a"], "--server-name is out of place"),
        (&["GET", "http://h/", "--server-name", "a"], "the host of its URL"),
        (&["GET", "http://h/", "--initiator"], "the file has no initiator"),
    ] {
        let (code, out, err) = parts(&adit(&[&["check", "--explain"], arguments, &[&file]].concat()).await);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.contains(problem), "{err}");
    }
}
