//! Early data: requests that come before the handshake is done. RFC 8470, RFC 9001 section 4.6
//!
//! Whoever has seen such a packet can send it again. TLS takes the session that a ticket stands for out of its store, so
//! this process takes early data once only; another one that has the ticket's secret would not know. So a request that came in
//! it is marked, and served only if its method is safe.
//!
//! quinn says of a stream whether the handshake was still under way when it was accepted here, which depends on who runs
//! first. So the keys of early data are wrapped: what they decrypt says which requests came in it.

use std::any::Any;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::hkdf;
use bytes::BytesMut;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::crypto::{
    self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session, UnsupportedVersion,
};
use quinn::{ConnectionId, Side, TokenLog, TokenReuseError, ValidationTokenConfig};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;

use crate::egress::lock;
use crate::message::h3::early::last_request;

/// How long a client may come back to the same address and be known there; its tickets are good for as long.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Tokens that a client is given on each connection.
const TOKENS: u32 = 2;
/// Tokens that are remembered as used; beyond it all that are older than now are refused.
const MAX_USED: usize = 65_536;
/// Random bytes of the key of tokens.
const KEY_BYTES: usize = 64;

/// What came in early data on one connection.
#[derive(Debug, Default)]
pub(super) struct Early {
    is_taken: AtomicBool,
    /// Behind the last request of which anything came in early data.
    end: AtomicU64,
}

impl Early {
    /// Whether the client may send some.
    pub(super) fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Acquire)
    }

    /// Whether anything of this stream may have come in early data, so that somebody else may have it, too.
    pub(super) fn has(&self, stream: u64) -> bool {
        stream < self.end.load(Ordering::Acquire)
    }

    fn note(&self, payload: &[u8]) {
        if let Some(last) = last_request(payload) {
            self.end.fetch_max(last.saturating_add(1), Ordering::AcqRel);
        }
    }
}

/// What a handshake tells.
pub(super) struct Told {
    pub(super) server_name: Option<String>,
    pub(super) early: Option<Arc<Early>>,
}

impl Told {
    /// Reads what [`quinn::Connection::handshake_data`] says.
    pub(super) fn read(data: Box<dyn Any>) -> Option<Self> {
        match data.downcast::<Self>() {
            Ok(told) => Some(*told),
            Err(data) => {
                let data = data.downcast::<HandshakeData>().ok()?;
                Some(Self { server_name: data.server_name, early: None })
            }
        }
    }
}

/// TLS whose sessions note what comes in early data.
pub(super) struct Noting(pub(super) Arc<QuicServerConfig>);

impl crypto::ServerConfig for Noting {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let tls = Arc::clone(&self.0).start_session(version, params);
        Box::new(NotingSession { tls, early: Arc::default() })
    }
}

struct NotingSession {
    tls: Box<dyn Session>,
    early: Arc<Early>,
}

impl Session for NotingSession {
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let Told { server_name, .. } = Told::read(self.tls.handshake_data()?)?;
        Some(Box::new(Told { server_name, early: Some(Arc::clone(&self.early)) }))
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let (header, packet) = self.tls.early_crypto()?;
        self.early.is_taken.store(true, Ordering::Release);
        Some((header, Box::new(NotingKey { packet, early: Arc::clone(&self.early) })))
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.tls.initial_keys(dst_cid, side)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.tls.peer_identity()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.tls.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.tls.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.tls.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.tls.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.tls.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.tls.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.tls.export_keying_material(output, label, context)
    }
}

/// The key of early data.
struct NotingKey {
    packet: Box<dyn PacketKey>,
    early: Arc<Early>,
}

impl PacketKey for NotingKey {
    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.packet.decrypt(packet, header, payload)?;
        self.early.note(payload);
        Ok(())
    }

    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.packet.encrypt(packet, buf, header_len);
    }

    fn tag_len(&self) -> usize {
        self.packet.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.packet.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.packet.integrity_limit()
    }
}

/// How clients that come back prove their address in their first packet: a request in early data from an address that may be
/// forged is not served before the handshake is done. RFC 9000 section 8.1.3
#[derive(Clone)]
pub(in crate::egress) struct Tokens {
    key: Arc<hkdf::Prk>,
    used: Arc<Used>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(secret)")
    }
}

impl Tokens {
    /// With a key that dies with the process.
    pub(in crate::egress) fn new() -> Self {
        let mut secret = [0; KEY_BYTES];
        rand::fill(&mut secret);
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret);
        Self { key: Arc::new(key), used: Arc::default() }
    }

    /// Takes tokens, and gives some out if that is of any use.
    pub(super) fn serve(&self, config: &mut quinn::ServerConfig, gives: bool) {
        let mut tokens = ValidationTokenConfig::default();
        tokens.lifetime(TOKEN_LIFETIME).sent(if gives { TOKENS } else { 0 }).log(Arc::<Used>::clone(&self.used));
        let key: Arc<hkdf::Prk> = Arc::clone(&self.key);
        config.token_key(key).validation_token_config(tokens);
    }
}

/// Each token is good once.
#[derive(Debug, Default)]
struct Used(Mutex<Nonces>);

#[derive(Debug)]
struct Nonces {
    used: HashSet<u128>,
    /// What was issued before is refused: it may have been used.
    since: SystemTime,
}

impl Default for Nonces {
    fn default() -> Self {
        Self { used: HashSet::new(), since: SystemTime::UNIX_EPOCH }
    }
}

impl TokenLog for Used {
    fn check_and_insert(&self, nonce: u128, issued: SystemTime, _: Duration) -> Result<(), TokenReuseError> {
        let mut nonces = lock(&self.0);
        if issued < nonces.since || !nonces.used.insert(nonce) {
            return Err(TokenReuseError);
        }
        if nonces.used.len() >= MAX_USED {
            *nonces = Nonces { used: HashSet::new(), since: SystemTime::now() };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_early_if_it_or_a_later_one_came_in_early_data() {
        let early = Early::default();
        assert!(!early.has(0));
        early.note(&[0x0a, 8, 0]);
        early.note(&[0x0a, 4, 0]);
        assert_eq!([0, 4, 8, 12].map(|stream| early.has(stream)), [true, true, true, false]);
        early.note(&[0x06, 0, 0]);
        assert!(early.has(1 << 60));
    }

    #[test]
    fn a_token_is_good_once_and_what_is_remembered_is_bounded() {
        let (used, past) = (Used::default(), SystemTime::now() - Duration::from_secs(60));
        let take = |nonce, issued| used.check_and_insert(nonce, issued, TOKEN_LIFETIME).is_ok();
        assert!(take(0, past) && !take(0, past));
        for nonce in 1..MAX_USED as u128 {
            assert!(take(nonce, past));
        }
        assert!(lock(&used.0).used.is_empty());
        assert!(!take(0, past) && !take(1 << 80, past), "nobody knows any more");
        assert!(take(1 << 80, SystemTime::now() + Duration::from_secs(1)));
    }
}
