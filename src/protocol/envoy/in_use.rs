//! A tunnel in use, HTTP/2, as either end sees it: its pings, its drain, and what ends it. spec: EV-40, EV-43, EV-44
//!
//! The same [`Pinger`] as for idle tunnels decides when to ping; what is sent and heard are PING frames of HTTP/2. Reads no
//! clock: call [`InUse::poll`] until it is `None` after every other call, and [`InUse::timeout`] at [`InUse::deadline`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::protocol::code::CloseCode;
use crate::protocol::control::{Drain, NOT_HEARD};
use crate::protocol::envoy::PING;
use crate::protocol::envoy::pinger::{PingOutput, PingSettings, Pinger};
use crate::protocol::limits::DEFAULT_DRAIN_DEADLINE;

#[cfg(test)]
mod tests;

/// The other end wants to stop and does not say by when: what runs may finish, and a replacement is due at once.
const PEER_DRAINS: Drain =
    Drain { deadline: DEFAULT_DRAIN_DEADLINE, reconnect_after: Duration::ZERO, serves: Duration::ZERO };

/// The next thing for the caller to do, or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InUseOutput {
    /// Send a PING frame.
    SendPing,
    /// A ping came back after this long.
    Rtt(Duration),
    /// An answer is missing: prefer other tunnels.
    Suspect,
    /// Something was heard after [`InUseOutput::Suspect`].
    Alive,
    /// No new streams; what runs may finish.
    Drain {
        /// Not before this much time should a replacement be dialled.
        reconnect_after: Duration,
        /// Whether the other end does not know yet.
        announce: bool,
    },
    /// The tunnel is over. Always the last output.
    End {
        /// The close code.
        code: CloseCode,
        /// Why, for people.
        reason: String,
        /// Whether the other end is there to be told, with GOAWAY.
        farewell: bool,
    },
}

/// One tunnel in use.
#[derive(Debug)]
pub struct InUse {
    pinger: Option<Pinger>,
    /// When the ping that is out was sent.
    sent_at: Option<Instant>,
    /// How much had arrived when that was last asked.
    heard: u64,
    /// When the drain that began must be over.
    drain_ends: Option<Instant>,
    /// Somebody waits for the end of the drain.
    hurried: bool,
    over: bool,
    outputs: VecDeque<InUseOutput>,
}

impl InUse {
    /// Starts when HTTP/2 has begun. `heard` grows with whatever arrives, here and below; `entropy` is any random number.
    pub fn new(now: Instant, settings: PingSettings, heard: u64, entropy: u32) -> Self {
        Self {
            pinger: Some(Pinger::new(now, settings, entropy)),
            sent_at: None,
            heard,
            drain_ends: None,
            hurried: false,
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// When to call [`InUse::timeout`]; `None` once it is over, or if there is nothing to wait for.
    pub fn deadline(&self) -> Option<Instant> {
        let ping = self.pinger.as_ref().and_then(Pinger::deadline);
        [ping, self.drain_ends].into_iter().flatten().min().filter(|_| !self.over)
    }

    /// The next thing to do; call until `None`.
    pub fn poll(&mut self) -> Option<InUseOutput> {
        self.outputs.pop_front()
    }

    /// Whether no new streams may be opened.
    pub const fn is_draining(&self) -> bool {
        self.drain_ends.is_some()
    }

    /// Acts on what is due at `now`. Any byte that arrived counts as an answer to a ping: else a slow link full of data would
    /// look dead.
    pub fn timeout(&mut self, now: Instant, heard: u64, entropy: u32) {
        if self.drain_ends.is_some_and(|at| at <= now) {
            return self.end(CloseCode::Done, "the drain deadline passed", true);
        }
        let more = std::mem::replace(&mut self.heard, heard) != heard;
        let Some(pinger) = &mut self.pinger else { return };
        if more {
            pinger.receive(now, PING);
        }
        pinger.timeout(now, entropy);
        self.take_pings(now);
    }

    /// The PING that was sent is answered.
    pub fn pong(&mut self, now: Instant) {
        if let Some(sent_at) = self.sent_at.take() {
            self.say(InUseOutput::Rtt(now.saturating_duration_since(sent_at)));
        }
        if let Some(pinger) = &mut self.pinger {
            pinger.receive(now, PING);
        }
        self.take_pings(now);
    }

    /// The connection takes no more pings: it is ending, which is told by [`InUse::ended_by_peer`].
    pub fn stop_pings(&mut self) {
        self.pinger = None;
    }

    /// This end wants the tunnel drained. Again: the earlier end of the two counts.
    pub fn drain(&mut self, now: Instant, drain: Drain) {
        self.begin_drain(now, drain, true);
    }

    /// The other end has said GOAWAY. spec: EV-46
    pub fn peer_drains(&mut self, now: Instant) {
        if !self.is_draining() {
            self.begin_drain(now, PEER_DRAINS, false);
        }
    }

    /// Somebody waits for the end of the drain: it ends when the other end owes an answer. spec: CT-28
    pub const fn hurry(&mut self) {
        self.hurried = true;
    }

    /// No stream is open. Nothing unless the tunnel drains.
    pub fn idle(&mut self) {
        if self.is_draining() {
            self.end(CloseCode::Done, "drained", true);
        }
    }

    /// The other end has ended the connection, after GOAWAY or not: an idle one ends right behind its GOAWAY, and both may
    /// be seen at once. spec: EV-46
    pub fn ended_by_peer(&mut self, now: Instant, said_goaway: bool) {
        if said_goaway {
            self.peer_drains(now);
        }
        let reason = if self.is_draining() { "drained" } else { "the responder ended the connection" };
        self.end(CloseCode::Done, reason, false);
    }

    /// This end closes the tunnel without waiting for what runs.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.end(code, reason, true);
    }

    fn begin_drain(&mut self, now: Instant, drain: Drain, announce: bool) {
        if self.over {
            return;
        }
        let ends = now + drain.deadline;
        self.drain_ends = Some(self.drain_ends.map_or(ends, |earlier| earlier.min(ends)));
        self.say(InUseOutput::Drain { reconnect_after: drain.reconnect_after, announce });
    }

    fn take_pings(&mut self, now: Instant) {
        while let Some(output) = self.pinger.as_mut().and_then(Pinger::poll) {
            match output {
                PingOutput::SendPing => {
                    self.sent_at = Some(now);
                    self.say(InUseOutput::SendPing);
                }
                PingOutput::Suspect if self.hurried => self.end(CloseCode::Idle, NOT_HEARD, false),
                PingOutput::Suspect => self.say(InUseOutput::Suspect),
                PingOutput::Alive => self.say(InUseOutput::Alive),
                PingOutput::Dead(_) => {
                    self.end(CloseCode::Idle, "the other end no longer answers HTTP/2 pings", false);
                }
                PingOutput::Proven | PingOutput::Stopped { .. } => {}
            }
        }
    }

    fn end(&mut self, code: CloseCode, reason: &str, farewell: bool) {
        if !std::mem::replace(&mut self.over, true) {
            self.outputs.push_back(InUseOutput::End { code, reason: reason.to_owned(), farewell });
        }
    }

    fn say(&mut self, output: InUseOutput) {
        if !self.over {
            self.outputs.push_back(output);
        }
    }
}
