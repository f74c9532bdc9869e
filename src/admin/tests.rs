//! The listener over real sockets.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::config::{AdminAddress, Difference};

#[derive(Default)]
struct State {
    missing: Vec<String>,
    drains: AtomicUsize,
    reloads: AtomicUsize,
    reloaded: Option<Result<Difference, ReloadFault>>,
}

impl AdminState for State {
    fn metrics(&self) -> String {
        "adit_tunnels 1\n".to_owned()
    }

    fn readiness(&self) -> Readiness {
        Readiness { missing: self.missing.clone() }
    }

    fn tunnels(&self) -> TunnelsReport {
        let tunnel = AcceptedTunnel { node: "edge-17".to_owned(), rtt_ms: 1.5, ..AcceptedTunnel::default() };
        TunnelsReport { accepted: vec![tunnel], ..TunnelsReport::default() }
    }

    fn tunnels_up(&self) -> usize {
        1
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!({ "token": "***" })
    }

    fn drain(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
    }

    fn reload(&self) -> Reloading {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        let outcome = self.reloaded.clone().unwrap_or(Err(ReloadFault::NoSource));
        Box::pin(async {
            tokio::task::yield_now().await;
            outcome
        })
    }
}

struct Running {
    address: AdminAddress,
    state: Arc<State>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start(address: &str, state: State) -> Running {
    run(Listener::bind(&address.parse().unwrap()).await.unwrap(), state)
}

fn run(listener: Listener, state: State) -> Running {
    let (address, state, stop) = (listener.address().clone(), Arc::new(state), CancellationToken::new());
    let task = tokio::spawn(serve(listener, Arc::<State>::clone(&state), stop.clone()));
    Running { address, state, stop, task }
}

impl Running {
    async fn ask(&self, method: Method, path: &str) -> (StatusCode, String) {
        let (status, body) = client::request(&self.address, method, path).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Sends these bytes and reads to the end.
    async fn raw(&self, request: &str) -> String {
        let AdminAddress::Tcp(address) = &self.address else { panic!("not TCP") };
        let mut io = TcpStream::connect(address).await.unwrap();
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn every_path_answers() {
    let admin = start("127.0.0.1:0", State::default()).await;
    assert_eq!(admin.ask(Method::GET, "/metrics").await, (StatusCode::OK, "adit_tunnels 1\n".to_owned()));
    assert_eq!(admin.ask(Method::GET, "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(admin.ask(Method::GET, "/ready").await, (StatusCode::OK, "ready\n".to_owned()));
    assert_eq!(admin.ask(Method::GET, "/config").await.1, "{\n  \"token\": \"***\"\n}\n");
    let (status, tunnels) = admin.ask(Method::GET, "/tunnels").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_str::<TunnelsReport>(&tunnels).unwrap(), admin.state.tunnels());
}

#[tokio::test]
async fn not_ready_says_what_is_missing() {
    let missing = vec!["the first tunnel".to_owned(), "certificates".to_owned()];
    let admin = start("127.0.0.1:0", State { missing, ..State::default() }).await;
    let answer = admin.ask(Method::GET, "/ready").await;
    assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, "the first tunnel\ncertificates\n".to_owned()));
    assert_eq!(admin.ask(Method::GET, "/healthz").await.0, StatusCode::OK);
}

/// Whoever could scrape could drain.
#[tokio::test]
async fn a_listener_for_reading_has_metrics_and_health_and_nothing_else() {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let admin = run(listener.read_only(), State::default());
    for path in ["/metrics", "/healthz", "/ready", "/ready?tunnels=1"] {
        assert_eq!(admin.ask(Method::GET, path).await.0, StatusCode::OK, "{path}");
    }
    for (method, path) in [
        (Method::POST, "/drain"),
        (Method::POST, "/reload"),
        (Method::GET, "/config"),
        (Method::GET, "/tunnels"),
        (Method::GET, "/x"),
    ] {
        assert_eq!(admin.ask(method, path).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(admin.state.drains.load(Ordering::Relaxed), 0);
    assert_eq!(admin.state.reloads.load(Ordering::Relaxed), 0);
}

/// Its parameters were ignored, and everything was answered.
#[tokio::test]
async fn tunnels_are_those_that_are_asked_for() {
    let admin = start("127.0.0.1:0", State::default()).await;
    let count = async |query: &str| {
        let (_, text) = admin.ask(Method::GET, &format!("/tunnels{query}")).await;
        serde_json::from_str::<TunnelsReport>(&text).unwrap().accepted.len()
    };
    assert_eq!((count("?node=edge-17").await, count("?node=edge-18").await), (1, 0));
    let (status, text) = admin.ask(Method::GET, "/tunnels?nodes=edge-17").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("node, cluster, tenant and state"), "{text}");
}

#[tokio::test]
async fn a_balancer_can_ask_for_tunnels_too() {
    let admin = start("127.0.0.1:0", State::default()).await;
    assert_eq!(admin.ask(Method::GET, "/ready?tunnels=1").await.0, StatusCode::OK);
    let answer = admin.ask(Method::GET, "/ready?tunnels=2").await;
    assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, "tunnels: 1 of 2 are up\n".to_owned()));
    assert_eq!(admin.ask(Method::GET, "/ready?tunnels=some").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_post_drains_and_a_get_says_what_is_left() {
    let admin = start("127.0.0.1:0", State::default()).await;
    let (status, left) = admin.ask(Method::GET, "/drain").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_str::<DrainReport>(&left).unwrap(), admin.state.drain_report());
    assert_eq!(admin.ask(Method::PUT, "/drain").await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(admin.state.drains.load(Ordering::Relaxed), 0);
    assert_eq!(admin.ask(Method::POST, "/drain").await, (StatusCode::ACCEPTED, "draining\n".to_owned()));
    assert_eq!(admin.state.drains.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_reload_is_answered_with_what_came_of_it() {
    let mut difference = Difference::default();
    difference.note("log.level", "another one");
    let report = "adit.yaml:1: x: is unknown\nadit.yaml:2: y: is unknown".to_owned();
    for (outcome, status, text) in [
        (Ok(difference), StatusCode::OK, "~ log.level: another one\n".to_owned()),
        (Ok(Difference::default()), StatusCode::OK, "nothing changes\n".to_owned()),
        (Err(ReloadFault::Refused(report.clone())), StatusCode::UNPROCESSABLE_ENTITY, format!("{report}\n")),
        (Err(ReloadFault::NoSource), StatusCode::CONFLICT, format!("{}\n", ReloadFault::NoSource)),
        (Err(ReloadFault::NotNow), StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", ReloadFault::NotNow)),
    ] {
        let admin = start("127.0.0.1:0", State { reloaded: Some(outcome), ..State::default() }).await;
        assert_eq!(admin.ask(Method::GET, "/reload").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(admin.state.reloads.load(Ordering::Relaxed), 0);
        assert_eq!(admin.ask(Method::POST, "/reload").await, (status, text));
        assert_eq!(admin.state.reloads.load(Ordering::Relaxed), 1);
    }
}

/// Answers are made in turn; this one is made by somebody else.
#[tokio::test]
async fn a_reload_that_takes_its_time_holds_nobody_up() {
    #[derive(Default)]
    struct Slow(tokio::sync::Notify);
    impl AdminState for Slow {
        fn metrics(&self) -> String {
            "adit_tunnels 1\n".to_owned()
        }

        fn readiness(&self) -> Readiness {
            Readiness::default()
        }

        fn tunnels(&self) -> TunnelsReport {
            TunnelsReport::default()
        }

        fn tunnels_up(&self) -> usize {
            0
        }

        fn config(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn drain(&self) {}

        fn reload(&self) -> Reloading {
            self.0.notify_one();
            Box::pin(std::future::pending())
        }
    }
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, state) = (listener.address().clone(), Arc::<Slow>::default());
    tokio::spawn(serve(listener, Arc::<Slow>::clone(&state), CancellationToken::new()));
    let asked = client::request_within(&address, Method::POST, "/reload", Duration::MAX);
    tokio::pin!(asked);
    let others = async {
        state.0.notified().await;
        for _ in 0..3 {
            let (status, _) = client::request(&address, Method::GET, "/metrics").await.unwrap();
            assert_eq!(status, StatusCode::OK);
        }
    };
    tokio::select! {
        answered = &mut asked => panic!("{answered:?}"),
        () = others => {}
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_say_what_there_is() {
    let admin = start("127.0.0.1:0", State::default()).await;
    let (status, text) = admin.ask(Method::GET, "/tunnel").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("/tunnels"), "{text}");
    let (status, text) = admin.ask(Method::POST, "/metrics").await;
    assert_eq!((status, text.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "/metrics takes GET, HEAD\n"));
    let answer = admin.raw("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_web_page_is_kept_out() {
    let admin = start("127.0.0.1:0", State::default()).await;
    let rebound = "GET /tunnels HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(admin.raw(rebound).await.starts_with("HTTP/1.1 403"));
    let foreign = "POST /drain HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
                   Content-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(admin.raw(foreign).await.starts_with("HTTP/1.1 403"));
    assert_eq!(admin.state.drains.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_unix_socket_is_private_replaces_a_stale_one_and_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adit.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let admin = start(&format!("unix:{}", path.display()), State::default()).await;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(admin.ask(Method::GET, "/healthz").await.0, StatusCode::OK);
    let second = Listener::bind(&admin.address).await.unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    admin.stop.cancel();
    admin.task.await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "text").unwrap();
    let error = Listener::bind(&AdminAddress::Unix(path.clone())).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
}

#[tokio::test]
async fn a_silent_connection_does_not_hold_up_the_stop() {
    let admin = start("127.0.0.1:0", State::default()).await;
    let AdminAddress::Tcp(address) = &admin.address else { panic!("not TCP") };
    let _silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(admin.ask(Method::GET, "/healthz").await.0, StatusCode::OK);
    admin.stop.cancel();
    tokio::time::timeout(Duration::from_secs(60), admin.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn health_is_answered_however_many_others_are_connected() {
    let admin = start("127.0.0.1:0", State::default()).await;
    let AdminAddress::Tcp(address) = &admin.address else { panic!("not TCP") };
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..10 {
        assert_eq!(admin.ask(Method::GET, "/healthz").await.0, StatusCode::OK);
        assert_eq!(admin.ask(Method::GET, "/ready").await.0, StatusCode::OK);
    }
}
