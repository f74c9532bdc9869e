//! HTTP/2's own pings, on the schedule and with the threshold of the idle phase. spec: EV-44

use std::sync::Arc;
use std::time::Instant;

use h2::{Ping, PingPong};
use tokio::time::sleep_until;

use crate::protocol::code::CloseCode;
use crate::protocol::envoy::{PING, PingOutput, PingSettings, Pinger};
use crate::transport::state::{CloseReason, Phase, TunnelState};
use crate::transport::tcp::envoy::entropy;
use crate::transport::tcp::wire::Meter;

/// Watches the other end once HTTP/2 has begun.
///
/// The same machine as for idle tunnels decides; what is sent and heard are PING frames. Any byte that arrives counts as
/// an answer, or a slow link full of data would look dead.
pub(super) struct Pings {
    pinger: Pinger,
    ping_pong: Option<PingPong>,
    meter: Arc<Meter>,
    heard: u64,
    sent_at: Option<Instant>,
}

impl Pings {
    pub(super) fn new(settings: PingSettings, ping_pong: Option<PingPong>, meter: Arc<Meter>) -> Self {
        let pinger = Pinger::new(Instant::now(), settings, entropy());
        Self { pinger, ping_pong, heard: meter.received(), meter, sent_at: None }
    }

    /// Waits for the next thing to happen and acts on it. An error is the end of the tunnel. Cancel safe.
    pub(super) async fn next(&mut self, state: &TunnelState) -> Result<(), CloseReason> {
        let Some(ping_pong) = &mut self.ping_pong else { return std::future::pending().await };
        let Some(deadline) = self.pinger.deadline() else { return std::future::pending().await };
        tokio::select! {
            pong = std::future::poll_fn(|cx| ping_pong.poll_pong(cx)) => {
                if pong.is_err() {
                    // The connection is gone, which its own task tells.
                    self.ping_pong = None;
                    return Ok(());
                }
                if let Some(sent_at) = self.sent_at.take() {
                    state.measure_rtt(sent_at.elapsed());
                }
                self.pinger.receive(Instant::now(), PING);
            }
            () = sleep_until(deadline.into()) => {
                let heard = self.meter.received();
                if std::mem::replace(&mut self.heard, heard) != heard {
                    self.pinger.receive(Instant::now(), PING);
                }
                self.pinger.timeout(Instant::now(), entropy());
            }
        }
        self.act(state)
    }

    fn act(&mut self, state: &TunnelState) -> Result<(), CloseReason> {
        while let Some(output) = self.pinger.poll() {
            match output {
                PingOutput::SendPing => {
                    self.sent_at = Some(Instant::now());
                    if let Some(ping_pong) = &mut self.ping_pong {
                        // Refused while the last one is unanswered, which the pinger knows by itself.
                        let _ = ping_pong.send_ping(Ping::opaque());
                    }
                }
                PingOutput::Suspect => state.advance(Phase::Suspect),
                PingOutput::Alive => state.advance(Phase::Open),
                PingOutput::Dead(_) => {
                    let text = "the other end no longer answers HTTP/2 pings".to_owned();
                    return Err(CloseReason { code: CloseCode::Idle, text });
                }
                PingOutput::Proven | PingOutput::Stopped { .. } => {}
            }
        }
        Ok(())
    }
}
