//! PING frames of HTTP/2. When one is sent and what its absence means is for
//! [`InUse`](crate::protocol::envoy::InUse) to say. spec: EV-44

use h2::{Ping, PingPong};

/// Sends pings and hears of their answers.
pub(super) struct Pings(Option<PingPong>);

impl Pings {
    pub(super) fn new(ping_pong: Option<PingPong>) -> Self {
        Self(ping_pong)
    }

    pub(super) fn send(&mut self) {
        if let Some(ping_pong) = &mut self.0 {
            // Refused while the last one is unanswered, which the machine knows by itself.
            let _ = ping_pong.send_ping(Ping::opaque());
        }
    }

    /// Resolves when a ping is answered; once with `false` when none will be any more, since the connection is gone, which
    /// its own task tells. Cancel safe.
    pub(super) async fn answered(&mut self) -> bool {
        let Some(ping_pong) = &mut self.0 else { return std::future::pending().await };
        let answered = std::future::poll_fn(|cx| ping_pong.poll_pong(cx)).await.is_ok();
        if !answered {
            self.0 = None;
        }
        answered
    }
}
