//! Targets over TLS.

use std::time::SystemTime;

use http_body_util::{BodyExt, Empty};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::message::failure::Cause;
use crate::tls::pki::{Authority, Validity};
use crate::tls::{ClientCertificates, EgressTls, TargetTls, Trust, egress_config};

const VALID: Validity = Validity { from: SystemTime::UNIX_EPOCH, lifetime: Duration::from_secs(100 * 365 * 24 * 3600) };

/// A target whose certificate its clients trust.
struct Origin {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    tls: TargetTls,
}

impl Origin {
    async fn new(alpn: &[&[u8]]) -> Self {
        Self::asking(alpn, |_| ClientCertificates::NotAsked).await
    }

    async fn asking(alpn: &[&[u8]], clients: impl Fn(Trust) -> ClientCertificates) -> Self {
        let authority = Authority::create("test CA", VALID).unwrap();
        let trust = Trust::roots([authority.certificate().clone()]);
        let clients = clients(trust.clone());
        let credentials = authority.responder(&["127.0.0.1".to_owned()], VALID).unwrap().credentials().unwrap();
        let settings = EgressTls { credentials, clients };
        let mut config: ServerConfig = egress_config(&settings).unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let tls = TargetTls { credentials: None, trust: Some(trust), server_name: None };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), tls }
    }

    fn client(&self, scheme: &str) -> TargetClient {
        let target = format!("{scheme}://{}", self.listener.local_addr().unwrap());
        let settings = TargetSettings { tls: Some(self.tls.clone()), ..TargetSettings::default() };
        TargetClient::new(&Target::parse(&target).unwrap(), settings).unwrap()
    }

    async fn accept(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(self.listener.accept().await.unwrap().0).await
    }
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("http://shop.example/a").body(Empty::new()).unwrap()
}

async fn text(response: Response<TargetBody>) -> Result<String, BoxError> {
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn http2_over_tls_is_asked_for_in_the_scheme_of_tls() {
    let origin = Origin::new(&[b"h2"]).await;
    let client = origin.client("h2");
    let serve = async {
        let mut connection = h2::server::handshake(origin.accept().await.unwrap()).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri(), "https://shop.example/a");
        respond.send_response(Response::new(()), true).unwrap();
        let _ = connection.accept().await;
    };
    let ask = async {
        let response = client.exchange(get()).await.unwrap();
        assert_eq!(response.status(), 200);
        drop(response);
        drop(client);
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn a_target_that_speaks_another_version_of_http_says_so() {
    let origin = Origin::new(&[b"http/1.1"]).await;
    let client = origin.client("h2");
    let (outcome, accepted) = tokio::join!(client.exchange(get()), origin.accept());
    let failure = outcome.err().unwrap();
    assert!(accepted.is_err());
    assert_eq!(failure.cause(), Cause::TargetTlsAlert);
    assert!(failure.details().contains("does not speak this version of HTTP"), "{failure}");
    let silent = Origin::new(&[]).await;
    let client = silent.client("h2");
    let (outcome, _) = tokio::join!(client.exchange(get()), silent.accept());
    assert_eq!(outcome.err().unwrap().cause(), Cause::TargetTlsProtocol, "it chose none");
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_whole_only_where_tls_says_that_it_ends() {
    for ends in [true, false] {
        let origin = Origin::new(&[b"http/1.1"]).await;
        let client = origin.client("https");
        let serve = async {
            let mut stream = origin.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            assert!(head.starts_with(b"GET /a HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall there is").await.unwrap();
            stream.flush().await.unwrap();
            if ends {
                stream.shutdown().await.unwrap();
            }
        };
        let (response, ()) = tokio::join!(client.exchange(get()), serve);
        let body = text(response.unwrap()).await;
        assert_eq!(body.is_ok(), ends, "{body:?}");
    }
}

#[tokio::test]
async fn a_large_upload_arrives_whole_and_the_connection_is_used_again() {
    const LENGTH: usize = 3_000_000;
    let origin = Origin::new(&[b"http/1.1"]).await;
    let client = origin.client("https");
    let serve = async {
        let mut stream = origin.accept().await.unwrap();
        for _ in 0..2 {
            let mut read = Vec::new();
            while read.windows(4).position(|end| end == b"\r\n\r\n").is_none_or(|at| read.len() < at + 4 + LENGTH) {
                assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.flush().await.unwrap();
        }
    };
    let ask = async {
        for _ in 0..2 {
            let body = http_body_util::Full::new(Bytes::from(vec![7; LENGTH]));
            let response = client.exchange(Request::post("http://h/").body(body).unwrap()).await.unwrap();
            assert_eq!(text(response).await.unwrap(), "ok");
        }
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn a_certificate_that_is_missing_is_told_over_either_version() {
    for (scheme, alpn) in [("https", &b"http/1.1"[..]), ("h2", b"h2")] {
        let origin = Origin::asking(&[alpn], ClientCertificates::Required).await;
        let client = origin.client(scheme);
        let refuse = async {
            loop {
                let mut socket = origin.listener.accept().await.unwrap().0;
                assert!(origin.acceptor.accept(&mut socket).await.is_err());
                // Reads on, or the kernel would throw the alert away.
                let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
            }
        };
        let ask = async {
            let failure = client.exchange(get()).await.err().unwrap();
            assert_eq!(failure.cause(), Cause::TargetTlsAlert, "{scheme}: {failure}");
            assert!(failure.details().contains("expected tls.cert"), "{failure}");
        };
        tokio::select! {
            () = ask => {}
            () = refuse => {}
        }
    }
}
