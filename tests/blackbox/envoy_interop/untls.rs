//! Where TLS ends and begins again in a tunnel, to the byte; and that an end which expects another kind of tunnel gets
//! none.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, SupportedProtocolVersion};

use crate::envoy_interop::ends::{adit_initiator, adit_responder};
use crate::envoy_interop::envoy_alone::{attentive, status};
use crate::envoy_interop::raw::{ACCEPTED, Coalesced, PING, PREFACE, RawResponder, Wire, request};
use crate::support::certificates::RESPONDER_NAME;
use crate::support::envoy::{EnvoyInitiator, InitiatorOptions, Tls, Variant};
use crate::support::http2::Http2;
use crate::support::site::{Edge, Folder, NODE, Running, TO_NODE};
use crate::support::targets::Target;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A connection whose TLS records are written and read one by one.
struct Records {
    wire: Wire,
    tls: Connection,
}

impl Records {
    /// As the responder of the folder, to our initiator.
    async fn accept(wire: Wire, folder: &Folder, version: &'static SupportedProtocolVersion) -> Self {
        let shown = folder.authority.responder();
        let config = ServerConfig::builder_with_provider(adit::tls::provider());
        let config = config.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        let config = config.with_single_cert(shown.chain(), shown.private_key()).unwrap();
        Self { wire, tls: ServerConnection::new(Arc::new(config)).unwrap().into() }.shaken_hands().await
    }

    /// As the node of the folder, to our responder.
    async fn connect(wire: Wire, folder: &Folder, version: &'static SupportedProtocolVersion) -> Self {
        let shown = folder.authority.node(NODE);
        let config = ClientConfig::builder_with_provider(adit::tls::provider());
        let config =
            config.with_protocol_versions(&[version]).unwrap().with_root_certificates(folder.authority.roots());
        let config = config.with_client_auth_cert(shown.chain(), shown.private_key()).unwrap();
        let name = ServerName::try_from(RESPONDER_NAME).unwrap();
        Self { wire, tls: ClientConnection::new(Arc::new(config), name).unwrap().into() }.shaken_hands().await
    }

    async fn shaken_hands(mut self) -> Self {
        loop {
            let bytes = self.pending();
            if !bytes.is_empty() {
                self.wire.send(bytes).await;
            }
            if !self.tls.is_handshaking() {
                return self;
            }
            self.take().await;
        }
    }

    /// What TLS has to send.
    fn pending(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// `plain` as records.
    fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plain).unwrap();
        self.pending()
    }

    /// Reads one record, and not a byte more.
    async fn take(&mut self) {
        let mut record = self.wire.exactly(5).await;
        assert!((20..=23).contains(&record[0]), "a TLS record: {record:?}");
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.extend(self.wire.exactly(length).await);
        self.tls.read_tls(&mut &record[..]).unwrap();
        self.tls.process_new_packets().unwrap();
    }

    /// A whole head out of records.
    async fn head(&mut self) -> Vec<u8> {
        let (mut head, mut room) = (Vec::new(), [0; 4096]);
        while !head.ends_with(b"\r\n\r\n") {
            match self.tls.reader().read(&mut room) {
                Ok(length) => head.extend_from_slice(&room[..length]),
                Err(_) => self.take().await,
            }
        }
        head
    }
}

async fn initiator(folder: &Folder, variant: Variant, to: &RawResponder, target: &Target) -> Running {
    let edge: Edge = adit_initiator(variant, folder).target(&format!("http://{}", target.address()));
    Running::start(folder.write("edge.yaml", &edge.text(&to.address().to_string()))).await
}

// spec: EV-41
#[tokio::test]
async fn our_initiator_finds_clear_bytes_in_one_segment_with_the_record_of_the_200() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    for version in VERSIONS {
        for front in [PING, b""] {
            let to = RawResponder::new().await;
            let edge = initiator(&folder, Variant::Mtls, &to, &target).await;
            let mut records = Records::accept(to.connection().await, &folder, version).await;
            assert!(records.head().await.starts_with(b"GET /reverse_connections/request "));
            let front_of_preface = [records.sealed(ACCEPTED), front.to_vec()].concat();
            let stream = records.wire.into_stream();
            let stream = Coalesced { front: front_of_preface, stream }.over(front.len()).await;
            let response = Http2::over(stream).await.get(http::Request::get("http://x/").body(()).unwrap()).await;
            assert_eq!(response.body().bytes, b"hello\n", "{version:?}");
            let warning = edge.line_with("travels in clear").await;
            assert_eq!(warning["level"], "WARN", "the operator is told: {warning}");
        }
    }
}

// spec: EV-20, EV-41
#[tokio::test]
async fn our_responder_ends_tls_without_a_word_and_takes_clear_bytes_behind_the_request() {
    let folder = Folder::new();
    let responder = adit_responder(Variant::Mtls, &folder).start(&folder).await;
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let wire = Wire::connect(responder.tunnel_address()).await;
        let mut records = Records::connect(wire, &folder, version).await;
        let bytes = [records.sealed(request(NODE).as_bytes()), PING.to_vec()].concat();
        records.wire.send(bytes).await;
        assert_eq!(records.head().await, ACCEPTED);
        // No close_notify and no other record: the next bytes are the ping, in clear.
        records.wire.echo(2).await;
        let accepted = responder.registered(1).await.accepted;
        assert_eq!((accepted[0].health.as_str(), number), ("healthy", number));
        drop(records);
        responder.registered(0).await;
    }
    assert_eq!(responder.0.line_with("travels in clear").await["level"], "WARN");
}

// spec: EV-41, EV-42
#[tokio::test]
async fn our_initiator_serves_no_request_in_clear_where_it_expects_tls_and_no_tls_where_it_does_not() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    for (variant, begin, said) in [
        (Variant::InnerMtls, PREFACE, "the responder sends requests in clear; expected TLS inside the tunnel"),
        (Variant::Mtls, &b"\x16\x03\x01\x00\x05hello"[..], "the responder opens TLS inside the tunnel"),
    ] {
        let to = RawResponder::new().await;
        let edge = initiator(&folder, variant, &to, &target).await;
        let mut records = Records::accept(to.connection().await, &folder, &rustls::version::TLS13).await;
        records.head().await;
        let accepted = records.sealed(ACCEPTED);
        records.wire.send(accepted).await;
        records.wire.send(PING).await;
        records.wire.ping().await;
        records.wire.send(begin).await;
        assert_eq!(records.wire.rest().await, b"", "not a byte for it");
        edge.line_with(said).await;
    }
    assert!(target.requests().is_empty());
}

/// The real Envoy with inner TLS at one end and ours without it, and the reverse: nothing gets through.
// spec: EV-42
#[tokio::test]
async fn our_responder_and_an_envoy_must_agree_about_tls_inside() {
    let target = Target::http1().await;
    for (ours, theirs) in [(Variant::InnerMtls, Variant::Mtls), (Variant::Mtls, Variant::InnerMtls)] {
        let folder = Folder::new();
        let responder = adit_responder(ours, &folder).egress("hold", "0").start(&folder).await;
        let options = InitiatorOptions { tls: Some(Tls::initiator(&folder, NODE)), ..attentive() };
        let to = responder.tunnel_address();
        let Some(_envoy) = EnvoyInitiator::start(theirs, to, target.address(), options).await else { return };
        responder.registered(1).await;
        assert!(matches!(status(responder.egress(), TO_NODE).await, 502 | 503), "{ours:?}");
        responder.0.line_with("tunnel down").await;
    }
    assert!(target.requests().is_empty());
}
