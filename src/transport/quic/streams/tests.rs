use allocation_counter::measure;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;

/// A body that says one piece, and then nothing for ever.
struct Silent(Option<Bytes>);

impl Body for Silent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}

/// Both ends of a connection over loopback, with what keeps it alive.
async fn pair() -> (quinn::Connection, quinn::Connection, [quinn::Endpoint; 2]) {
    let own = rcgen::generate_simple_self_signed(["end.test".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.der().clone(), own.signing_key.serialize_der());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let versions = [&rustls::version::TLS13];
    let builder = rustls::ServerConfig::builder_with_provider(crate::tls::provider());
    let builder = builder.with_protocol_versions(&versions).unwrap().with_no_client_auth();
    let tls = builder.with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key).into()).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let server = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(crate::tls::provider());
    let builder = builder.with_protocol_versions(&versions).unwrap();
    let tls = builder.with_root_certificates(roots).with_no_client_auth();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = client.connect_with(config, server.local_addr().unwrap(), "end.test").unwrap();
    let (one, other) = tokio::join!(connecting, async { server.accept().await.unwrap().await });
    (one.unwrap(), other.unwrap(), [client, server])
}

/// It broke: each upload that a client gave up left about 100 bytes with its tunnel.
#[test]
fn a_request_that_is_given_up_leaves_nothing_with_its_tunnel() {
    const REQUESTS: i64 = 2_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (tunnel, peer, _endpoints) = runtime.block_on(pair());
    let room = SendRoom::new(1 << 20);
    let given_up = async || {
        let (send, recv) = tunnel.open_bi().await.unwrap();
        let limits = PeerLimits { head_bytes: 65_536, head_fields: 100 };
        let mut half = SendHalf::new(send, &room, limits).of_request();
        let (mut head, mut body) = (BytesMut::from(&b"head"[..]), pin!(Silent(Some(Bytes::from_static(b"x")))));
        let mut sends = Box::pin(half.go_on_message(&mut head, None, body.as_mut()));
        assert!(poll_fn(|cx| Poll::Ready(sends.as_mut().poll(cx))).await.is_pending());
        drop(sends);
        // The peer has read what came, so that the stream is known there, and sees the reset.
        let (_, mut arrived) = peer.accept_bi().await.unwrap();
        drop((half, recv));
        assert!(arrived.read_to_end(1024).await.is_err());
    };
    let run = |count: i64| {
        runtime.block_on(async {
            for _ in 0..count {
                given_up().await
            }
        })
    };
    run(REQUESTS / 4);
    let left = measure(|| run(REQUESTS)).bytes_current;
    assert!(left < REQUESTS * 16, "{left} bytes");
}
