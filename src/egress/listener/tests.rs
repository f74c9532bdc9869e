use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Response};

use crate::egress::testing::{WithContext, describe, full, serve, serve_with};
use crate::egress::{Context, RequestBody, Settings};
use crate::policy::San;
use crate::tls::pki::{Authority, Validity};
use crate::tls::{ClientCertificates, EgressTls, Trust, egress_config};

/// Runs curl in a thread of its own; it is part of what the tests need.
async fn curl(arguments: Vec<String>) -> Output {
    let run = move || Command::new("curl").args(["-sS", "--max-time", "10"]).args(arguments).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn body_of(arguments: &[&str]) -> String {
    let output = curl(arguments.iter().map(|argument| (*argument).to_owned()).collect()).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A listener's TLS, and a folder with what its clients need: `ca.pem`, and a certificate of their own.
fn tls() -> (Arc<rustls::ServerConfig>, tempfile::TempDir) {
    let validity = Validity { from: SystemTime::now(), lifetime: Duration::from_secs(3600) };
    let authority = Authority::create("test", validity).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let client = authority.node(&[San::Uri("spiffe://test/client".to_owned())], validity).unwrap();
    client.save(&folder.path().join("client.pem"), &folder.path().join("client.key")).unwrap();
    let trust = Trust { roots: vec![authority.certificate().clone()], pins: vec![], crls: vec![] };
    let credentials = authority.responder(&["edge.test".to_owned()], validity).unwrap().credentials().unwrap();
    let settings = EgressTls { credentials, clients: ClientCertificates::Optional(trust) };
    (Arc::new(egress_config(&settings).unwrap()), folder)
}

fn path(folder: &tempfile::TempDir, file: &str) -> String {
    folder.path().join(file).display().to_string()
}

#[tokio::test]
async fn plaintext_tells_http_1_from_http_2_by_its_first_bytes() {
    let server = serve(describe).await;
    let url = format!("http://{}/a", server.address);
    let version = |flag| body_of_version(flag, &url);
    assert_eq!(version("--http1.1").await, format!("GET {url} 0 1.1"));
    assert_eq!(version("--http1.0").await, format!("GET {url} 0 1.1"));
    assert_eq!(version("--http2-prior-knowledge").await, format!("GET {url} 0 2"));
}

async fn body_of_version(flag: &str, url: &str) -> String {
    body_of(&[flag, "-w", " %{http_version}", url]).await
}

#[tokio::test]
async fn an_offer_to_upgrade_to_h2c_is_ignored() {
    let server = serve(describe).await;
    let url = format!("http://{}/a", server.address);
    assert_eq!(body_of_version("--http2", &url).await, format!("GET {url} 0 1.1"));
}

#[tokio::test]
async fn tls_chooses_the_version_by_alpn_and_tells_who_is_connected() {
    let service = |request: Request<RequestBody>, context: Context| async move {
        let info = context.connection;
        let name = info.server_name.as_deref().unwrap_or("nobody");
        let peer = info.peer.as_ref().map_or("nobody", |peer| &peer.uri_sans[0]);
        Response::new(full(format!("{peer} to {name} {} {}", info.tls, request.uri().scheme_str().unwrap())))
    };
    let (tls, folder) = tls();
    let server = serve_with(WithContext(service), Settings::default(), Some(tls)).await;
    let port = server.address.port();
    let (resolve, url) = (format!("edge.test:{port}:127.0.0.1"), format!("https://edge.test:{port}/"));
    let (ca, cert, key) = (path(&folder, "ca.pem"), path(&folder, "client.pem"), path(&folder, "client.key"));
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let anonymous = [flag, "--cacert", &ca, "--resolve", &resolve, "-w", " %{http_version}", &url];
        assert_eq!(body_of(&anonymous).await, format!("nobody to edge.test true https {version}"));
        let known = [&["--cert", &cert, "--key", &key][..], &anonymous].concat();
        assert_eq!(body_of(&known).await, format!("spiffe://test/client to edge.test true https {version}"));
    }
}

#[tokio::test]
async fn a_large_upload_with_expect_passes_over_each_transport() {
    let (tls, folder) = tls();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7; 3_000_000]).unwrap();
    let upload = format!("@{}", file.path().display());
    let plain = serve(describe).await;
    let encrypted = serve_with(describe, Settings::default(), Some(tls)).await;
    let (ca, port) = (path(&folder, "ca.pem"), encrypted.address.port());
    let resolve = format!("edge.test:{port}:127.0.0.1");
    let urls = [format!("http://{}/a", plain.address), format!("https://edge.test:{port}/a")];
    for flag in ["--http1.1", "--http2"] {
        for url in &urls {
            for length in ["expect: 100-continue", "transfer-encoding: chunked"] {
                let arguments =
                    [flag, "--cacert", &ca, "--resolve", &resolve, "-H", length, "--data-binary", &upload, url];
                assert_eq!(body_of(&arguments).await, format!("POST {url} 3000000"), "{flag} {length}");
            }
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let settings = Settings { max_connections: 1, ..Settings::default() };
    let server = serve_with(describe, settings, None).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(first.response().await.1, "GET http://h/1 0");
    second.send("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.response()).await;
    assert!(early.is_err(), "the second connection is served beside the first");
    drop(first);
    assert_eq!(second.head().await.lines().next(), Some("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_ended() {
    let settings = Settings { head_timeout: Duration::from_millis(50), ..Settings::default() };
    let (tls, _folder) = tls();
    for tls in [None, Some(tls)] {
        let server = serve_with(describe, settings.clone(), tls).await;
        let mut wire = server.connect().await;
        assert!(wire.rest().await.0.is_empty());
    }
}

#[tokio::test]
async fn a_drained_listener_accepts_nothing_and_ends() {
    let server = serve(describe).await;
    let address = server.address;
    server.drained().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
