//! Every knob of a tunnel over TCP.

use std::sync::Arc;
use std::time::Duration;

use h2::{client, server};

use crate::message::h2::guard::{Guard, Role};
use crate::message::h2::small::UNCHARGED;
use crate::net::{Guarded, Paced, Tuning};
use crate::protocol::budgets::{STREAM_WINDOW, TUNNEL_WINDOW};
use crate::protocol::http2::Unserved;
use crate::protocol::limits::Limits;
use crate::transport::heads::header_list_size;
use crate::transport::kind::Dialect;
use crate::transport::settings::{CongestionControl, MAX_STREAMS, TunnelSettings};
use crate::transport::state::TunnelState;
use crate::transport::tcp::wire::Wire;

/// How long a stream that this end has reset is remembered, so that what is still under way on it is dropped quietly: as
/// long as a full window may take on a slow path.
const RESET_MEMORY: Duration = Duration::from_secs(30);

/// HTTP/2 is told once what it may take of a head: at least this much, so that limits can be raised while a tunnel lives.
const RAISED: Limits = Limits { head_bytes: 256 << 10, head_fields: 240 }.with_room();

/// What TCP alone knows of a tunnel, for either role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpSettings {
    /// Bytes that a peer may have under way on one stream. Default 2 MiB.
    pub stream_window: u32,
    /// Bytes that a peer may have under way on the connection beside what streams hold that nobody reads: the credit grows
    /// for [`HELD_BYTES`](crate::protocol::budgets::HELD_BYTES) of that, and with readers who are steady for
    /// [`COVERED_BYTES`](crate::protocol::budgets::COVERED_BYTES). Default 16 MiB, so that this end holds 56 MiB for a peer
    /// whose streams are not read, and 272 MiB at the very most. spec: SE-9
    pub connection_window: u32,
    /// Bytes of one stream that this end keeps for sending. Default 512 KiB.
    pub send_buffer: usize,
    /// The most streams the responder may have open at once. Default 4096.
    pub max_streams: u32,
    /// Congestion control of what this end sends, where the kernel has it and lets this process use it; default BBR.
    pub congestion: CongestionControl,
    /// How long sent bytes may stay unacknowledged before the kernel gives up the connection (TCP_USER_TIMEOUT). `None`,
    /// the default: the idle timeout, so that a dead path leaves no socket behind.
    pub user_timeout: Option<Duration>,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            stream_window: STREAM_WINDOW,
            connection_window: TUNNEL_WINDOW,
            send_buffer: 512 << 10,
            max_streams: MAX_STREAMS,
            congestion: CongestionControl::default(),
            user_timeout: None,
        }
    }
}

/// What HTTP/2 reads and writes.
pub(super) type Http2Wire = Guarded<Paced<Wire>>;

/// Both halves of the settings, as this transport hands them on.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) tunnel: TunnelSettings,
    pub(super) tcp: TcpSettings,
}

impl Settings {
    /// What a tunnel asks of its socket.
    pub(super) fn tuning(&self) -> Tuning {
        Tuning {
            user_timeout: self.tcp.user_timeout.unwrap_or(self.tunnel.timing.idle_timeout),
            congestion: self.tcp.congestion.kernel_name(),
        }
    }

    /// The largest heads that a tunnel can be told to take while it lives: HTTP/2 is told once. An Envoy is told nothing of it.
    /// spec: TB-32
    pub(super) fn most_takes(&self, dialect: Dialect) -> Limits {
        match dialect {
            Dialect::Adit => self.tunnel.limits.or_more(RAISED),
            Dialect::Envoy => self.tunnel.limits,
        }
    }

    /// HTTP/2 as the responder speaks it, to our initiators and to Envoy's.
    pub(super) fn http2_client(&self, dialect: Dialect) -> client::Builder {
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(self.tcp.stream_window)
            .initial_connection_window_size(self.tcp.connection_window)
            .data_frame_budget(UNCHARGED)
            .max_header_list_size(self.header_list_size(dialect))
            .max_concurrent_reset_streams(self.remembered_resets())
            .reset_stream_duration(RESET_MEMORY)
            // Not counted over the life of the tunnel: see `FrameRate` for what bounds them.
            .max_local_error_reset_streams(None)
            .max_send_buffer_size(self.tcp.send_buffer);
        builder
    }

    /// HTTP/2 as the initiator speaks it, to our responders and to Envoy's.
    pub(super) fn http2_server(&self, dialect: Dialect) -> server::Builder {
        let mut builder = server::Builder::new();
        builder
            .initial_window_size(self.tcp.stream_window)
            .initial_connection_window_size(self.tcp.connection_window)
            .data_frame_budget(UNCHARGED)
            .max_header_list_size(self.header_list_size(dialect))
            .max_concurrent_streams(self.tcp.max_streams)
            // A responder passes on what its clients cancel, many at once: that is no attack on this end. What it may
            // have open at all bounds it.
            .max_pending_accept_reset_streams(self.tcp.max_streams as usize)
            .max_concurrent_reset_streams(self.remembered_resets())
            .reset_stream_duration(RESET_MEMORY)
            .max_local_error_reset_streams(None)
            .max_send_buffer_size(self.tcp.send_buffer);
        builder
    }

    /// All streams may be reset at once, and as many again that took their places.
    const fn remembered_resets(&self) -> usize {
        2 * self.tcp.max_streams as usize
    }

    /// The stream below HTTP/2, on which a malformed head costs its stream and no other, small frames that nobody reads cost
    /// nobody anything, and a flood of control frames the connection. spec: ST-34, SE-13, SE-19
    pub(super) fn guarded(&self, wire: Wire, state: &TunnelState) -> Http2Wire {
        self.guard(Paced::at_client(wire), Role::Client, state)
    }

    /// The same at the initiator, telling what becomes of requests that nobody is given. spec: SE-44
    pub(super) fn guarded_server(&self, wire: Wire, state: &TunnelState, unserved: &Arc<Unserved>) -> Http2Wire {
        let paced = Paced::at_server(wire).telling(Arc::clone(unserved));
        self.guard(paced, Role::Server, state).telling(Arc::clone(unserved))
    }

    fn guard(&self, paced: Paced<Wire>, role: Role, state: &TunnelState) -> Http2Wire {
        let guard = Guard::following(role, state.heads().list()).joining(state.small_frames());
        Guarded::new(paced, guard, self.tunnel.timing.idle_timeout)
    }

    fn header_list_size(&self, dialect: Dialect) -> u32 {
        u32::try_from(header_list_size(self.most_takes(dialect))).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const OK: &[u8] = &[0x88];
    const POST: &[u8] = &[0x83, 0x84, 0x86, 0x41, 0x01, b'h'];
    /// Streams that are reset at once, and how often: more in all than are remembered.
    const MANY: u32 = 3_000;
    const WAVES: u32 = 4;

    fn settings() -> Settings {
        let settings = Settings { tunnel: TunnelSettings::default(), tcp: TcpSettings::default() };
        assert!((MANY * WAVES) as usize > settings.remembered_resets() && MANY < settings.tcp.max_streams);
        settings
    }

    /// A peer that writes frames by hand.
    struct Peer(DuplexStream);

    impl Peer {
        async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
            let length = (payload.len() as u32).to_be_bytes();
            let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
            self.0.write_all(&frame).await.unwrap();
        }

        /// Reads until so many frames of this type came.
        async fn expect(&mut self, kind: u8, count: u32) {
            let mut seen = 0;
            while seen < count {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.unwrap();
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                self.0.read_exact(&mut payload).await.unwrap();
                assert_ne!(head[3], GOAWAY, "{payload:?}");
                seen += u32::from(head[3] == kind);
            }
        }

        /// What was under way on streams when they were reset.
        async fn goes_on(&mut self, streams: std::ops::Range<u32>) {
            for stream in streams {
                self.send(DATA, 0, 2 * stream + 1, b"x").await;
            }
            self.send(PING, 0, 0, &[7; 8]).await;
            self.expect(PING, 1).await;
        }
    }

    // spec: SE-13
    #[tokio::test]
    async fn thousands_of_downloads_that_are_cancelled_leave_the_tunnel_to_others() {
        let (near, far) = duplex(1 << 20);
        let mut peer = Peer(far);
        peer.send(SETTINGS, 0, 0, &[]).await;
        let (mut sender, connection) =
            settings().http2_client(Dialect::Adit).handshake::<_, Bytes>(near).await.unwrap();
        tokio::spawn(connection);
        peer.0.read_exact(&mut [0; 24]).await.unwrap();
        let ask = || Request::get("http://h/").body(()).unwrap();
        let neighbour = sender.send_request(ask(), true).unwrap().0;
        peer.expect(HEADERS, 1).await;
        for wave in 0..WAVES {
            let streams = 1 + wave * MANY..1 + (wave + 1) * MANY;
            let mut downloads = Vec::new();
            for stream in streams.clone() {
                sender = sender.ready().await.unwrap();
                let response = sender.send_request(ask(), true).unwrap().0;
                peer.expect(HEADERS, 1).await;
                peer.send(HEADERS, 4, 2 * stream + 1, OK).await;
                downloads.push(response.await.unwrap());
            }
            drop(downloads);
            peer.expect(RST_STREAM, MANY).await;
            peer.goes_on(streams).await;
        }
        peer.send(HEADERS, 5, 1, OK).await;
        assert_eq!(neighbour.await.unwrap().status(), 200);
    }

    /// `h2` takes back no charge for a small frame on a stream that was given up.
    // spec: SE-19
    #[tokio::test]
    async fn small_frames_of_downloads_that_were_cancelled_leave_the_tunnel_to_others() {
        let (near, far) = duplex(1 << 20);
        let mut peer = Peer(far);
        peer.send(SETTINGS, 0, 0, &[]).await;
        let (mut sender, connection) =
            settings().http2_client(Dialect::Adit).handshake::<_, Bytes>(near).await.unwrap();
        tokio::spawn(connection);
        peer.0.read_exact(&mut [0; 24]).await.unwrap();
        let response = sender.send_request(Request::get("http://h/").body(()).unwrap(), true).unwrap().0;
        peer.expect(HEADERS, 1).await;
        peer.send(HEADERS, 4, 1, OK).await;
        drop(response.await.unwrap());
        peer.expect(RST_STREAM, 1).await;
        for _ in 0..70 {
            let many = [0, 0, 1, DATA, 0, 0, 0, 0, 1, b'x'].repeat(1000);
            peer.0.write_all(&many).await.unwrap();
        }
        peer.send(PING, 0, 0, &[7; 8]).await;
        peer.expect(PING, 1).await;
    }

    // spec: SE-13
    #[tokio::test]
    async fn thousands_of_uploads_that_are_not_wanted_leave_the_tunnel_to_others() {
        let (near, far) = duplex(1 << 20);
        let mut peer = Peer(far);
        peer.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        peer.send(SETTINGS, 0, 0, &[]).await;
        let mut connection = settings().http2_server(Dialect::Adit).handshake::<_, Bytes>(near).await.unwrap();
        let served = tokio::spawn(async move {
            while let Some(arrived) = connection.accept().await {
                let (request, mut respond) = arrived.unwrap();
                match request.method().as_str() {
                    "GET" => drop(respond.send_response(http::Response::new(()), true).unwrap()),
                    _ => respond.send_reset(h2::Reason::CANCEL),
                }
            }
        });
        for wave in 0..WAVES {
            let streams = wave * MANY..(wave + 1) * MANY;
            for stream in streams.clone() {
                peer.send(HEADERS, 4, 2 * stream + 1, POST).await;
            }
            peer.expect(RST_STREAM, MANY).await;
            peer.goes_on(streams).await;
        }
        peer.send(HEADERS, 5, 2 * WAVES * MANY + 1, &[&[0x82], &POST[1..]].concat()).await;
        peer.expect(HEADERS, 1).await;
        served.abort();
    }
}
