use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Tls;
use crate::egress::testing::{describe, full, serve, serve_with};
use crate::egress::{ConnectionInfo, RequestBody, Settings};
use crate::id::PeerIdentity;

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

fn tls() -> (Tls, tempfile::NamedTempFile) {
    let certified = rcgen::generate_simple_self_signed(["edge.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certified.cert.pem()).unwrap();
    (Tls { config: Arc::new(config), identify: nobody }, file)
}

fn nobody(_: &[CertificateDer<'_>]) -> Option<PeerIdentity> {
    unreachable!("no certificate is asked for")
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
async fn tls_chooses_the_version_by_alpn_and_tells_the_server_name() {
    let service = |request: Request<RequestBody>| async move {
        let info = request.extensions().get::<ConnectionInfo>().unwrap();
        let name = info.server_name.as_deref().unwrap_or("none");
        Response::new(full(format!("{name} {} {}", info.tls, request.uri().scheme_str().unwrap())))
    };
    let (tls, ca) = tls();
    let server = serve_with(service, Settings::default(), Some(tls)).await;
    let port = server.address.port();
    let (resolve, url) = (format!("edge.test:{port}:127.0.0.1"), format!("https://edge.test:{port}/"));
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let ca = ca.path().to_str().unwrap();
        let answer = body_of(&[flag, "--cacert", ca, "--resolve", &resolve, "-w", " %{http_version}", &url]).await;
        assert_eq!(answer, format!("edge.test true https {version}"));
    }
}

#[tokio::test]
async fn a_large_upload_with_expect_passes_over_each_transport() {
    let (tls, ca) = tls();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7; 3_000_000]).unwrap();
    let upload = format!("@{}", file.path().display());
    let plain = serve(describe).await;
    let encrypted = serve_with(describe, Settings::default(), Some(tls)).await;
    let (ca, port) = (ca.path().to_str().unwrap(), encrypted.address.port());
    let resolve = format!("edge.test:{port}:127.0.0.1");
    let urls = [format!("http://{}/a", plain.address), format!("https://edge.test:{port}/a")];
    for flag in ["--http1.1", "--http2"] {
        for url in &urls {
            for length in ["expect: 100-continue", "transfer-encoding: chunked"] {
                let arguments =
                    [flag, "--cacert", ca, "--resolve", &resolve, "-H", length, "--data-binary", &upload, url];
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
    let (tls, _ca) = tls();
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
