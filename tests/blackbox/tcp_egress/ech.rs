//! Connections whose ClientHello is encrypted (ECH): the outer name decides, and nothing is decrypted or changed.

use std::sync::Arc;

use adit::tls;
use rustls::client::{EchConfig, EchGreaseConfig, EchMode, EchStatus};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128 as SUITE;
use rustls::crypto::hpke::Hpke as _;
use rustls::pki_types::{EchConfigListBytes, ServerName};
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::passthrough::{acceptor, records, sent_whole, site, targets};
use super::{connect, nothing_is_left};
use crate::support::certificates::Authority;
use crate::support::site::{Transport, over_each_transport};

over_each_transport!(
    an_encrypted_hello_goes_by_its_outer_name_and_arrives_as_it_was_sent,
    a_client_that_only_looks_as_if_it_encrypted_is_served,
);

/// The number of the extension encrypted_client_hello.
const EXTENSION: [u8; 2] = [0xfe, 0x0d];

/// A list of one configuration for this public name, as a server publishes it in DNS.
fn published(public_name: &str) -> EchConfigListBytes<'static> {
    let (key, _) = SUITE.generate_key_pair().unwrap();
    let vector16 = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    // DHKEM(X25519, HKDF-SHA256) with HKDF-SHA256 and AES-128-GCM.
    let suites = vector16(&[0, 1, 0, 1]);
    let name = [&[u8::try_from(public_name.len()).unwrap()], public_name.as_bytes()].concat();
    let contents = [&[7, 0, 0x20][..], &vector16(&key.0), &suites, &[64], &name, &vector16(&[])].concat();
    let list = vector16(&[&EXTENSION[..], &vector16(&contents)].concat());
    EchConfigListBytes::from(list)
}

fn config(authority: &Authority, mode: EchMode) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(tls::provider()).with_ech(mode).unwrap();
    Arc::new(config.with_root_certificates(authority.roots()).with_no_client_auth())
}

/// The first bytes of a client that wants `inner` from whoever has published for `outer`.
fn encrypted(inner: &str, outer: &str) -> Vec<u8> {
    let mode = EchMode::Enable(EchConfig::new(published(outer), &[SUITE]).unwrap());
    let config = config(&Authority::new("nobody"), mode);
    let mut client = ClientConnection::new(config, ServerName::try_from(inner.to_owned()).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    assert_eq!(client.ech_status(), EchStatus::Offered);
    bytes
}

async fn an_encrypted_hello_goes_by_its_outer_name_and_arrives_as_it_was_sent(transport: Transport) {
    let targets = targets().await;
    let site = site(transport, &targets, &[("service", "none")]).await;
    // Each inner name has a service of its own, which must not get it.
    for (inner, outer, to) in [
        ("a.example.org", "b.example.org", 1),
        ("b.example.org", "a.example.org", 0),
        ("a.example.org", "x.example.org", 2),
        ("a.example.org", "front.example.net", 3),
    ] {
        let hello = encrypted(inner, outer);
        let has = |bytes: &[u8]| hello.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(&EXTENSION) && has(outer.as_bytes()) && !has(inner.as_bytes()), "the inner name is hidden");
        for (segment, record) in [(usize::MAX, 16_000), (1, 16_000), (50, 77)] {
            sent_whole(&site, &targets[to], &records(&hello, record), segment).await;
        }
        site.responder.0.line_with(&format!("\"authority\":\"{outer}:")).await;
    }
    nothing_is_left(&site).await;
}

async fn a_client_that_only_looks_as_if_it_encrypted_is_served(transport: Transport) {
    let (authority, targets) = (Authority::new("targets"), targets().await);
    let site = site(transport, &targets, &[]).await;
    let (placeholder, _) = SUITE.generate_key_pair().unwrap();
    let config = config(&authority, EchMode::Grease(EchGreaseConfig::new(SUITE, placeholder)));
    let acceptor = acceptor(&authority, "a.example.org");
    let serving = async {
        let mut stream = acceptor.accept(targets[0].accept().await).await.unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let asking = async {
        let name = ServerName::try_from("a.example.org").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, connect(&site).await).await.unwrap();
        assert_eq!(stream.get_ref().1.ech_status(), EchStatus::Grease);
        stream.write_all(b"hello").await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"hello");
    };
    tokio::join!(serving, asking);
}
