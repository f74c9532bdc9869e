//! One tunnel's control stream as a state machine: bytes and time in, bytes and events out. spec: `4-control.md`
//!
//! The same session serves both ends and both transports. It never blocks and reads no clock: the caller passes `now`,
//! calls [`Session::poll`] until it is `None` after every other call, and calls [`Session::timeout`] at
//! [`Session::deadline`].
//!
//! ```text
//! Handshaking ──WELCOME──▶ Open ──DRAIN, either way──▶ Draining ──DRAINED, deadline──▶ Closed
//!      └──────── REFUSE, timeout, error, close: from every state ─────────────────────────▲
//! ```
//!
//! Only the responder opens streams, so only it knows when nothing runs and nothing will: it says DRAINED, whoever
//! wanted the drain, and the initiator closes. That is why neither end can lose the last answer to a close.

mod activity;
mod error;
mod event;
mod grant;
mod pace;
mod phase;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::control::{Begun, Frame, FrameError, FrameReader, FrameType, NOT_HEARD};
use crate::protocol::handshake::{Hello, PeerLimits, Refusal, Service, Welcome};
use crate::protocol::health::Health;
use crate::protocol::limits;
use crate::protocol::reauth::{Reauth, Reauthed};
use crate::protocol::roster::Roster;
use crate::protocol::wire::{Malformed, printable};

use self::activity::{Activity, INITIATOR_LOOK_INTERVAL, RESPONDER_LOOK_INTERVAL};
use self::grant::Grant;
use self::pace::Pace;
use self::phase::{Phase, Side};
use self::timer::{RTT_INTERVAL, Timer, Timers};

pub use self::error::{IllegalCall, SessionError};
pub use self::event::{Event, Output};
pub use self::phase::State;
pub use self::timer::Timing;
pub use crate::protocol::control::Drain;

/// The control stream of one tunnel, as one end sees it.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    timing: Timing,
    timers: Timers,
    reader: FrameReader,
    outputs: VecDeque<Output>,
    /// The newest PING that waits for its answer: a peer that sends many gets one. spec: CT-12
    pong: Option<[u8; 8]>,
    probes: Probes,
    suspect: bool,
    /// A peer that is not heard is not waited for. spec: CT-28
    hurried: bool,
    heard_at: Instant,
    /// When the first probe of the tunnel is due, whatever is heard before, until one was sent. spec: CT-52
    first_probe: Option<Instant>,
    activity: Activity,
    /// Whether CLOSE exists on this transport.
    closes: bool,
    pace: Pace,
    /// The number of the latest REAUTH, of whichever end sends them.
    reauth: Option<u64>,
    /// What this end takes.
    grant: Grant,
}

/// Which probes were sent.
#[derive(Debug, Default)]
struct Probes {
    sent: u64,
    /// When the newest was sent, until it is answered.
    newest_at: Option<Instant>,
}

impl Session {
    /// The end that dials; queues HELLO. spec: HS-1
    pub fn initiator(now: Instant, hello: &Hello, timing: Timing) -> Self {
        let mut session = Self::new(now, Phase::AwaitWelcome { offered: hello.versions }, timing);
        session.grant = Grant::new(hello.limits);
        session.send(&Frame::Hello(Box::new(hello.clone())));
        session
    }

    /// The end that accepts; waits for HELLO.
    pub fn responder(now: Instant, timing: Timing) -> Self {
        Self::new(now, Phase::AwaitHello, timing)
    }

    /// The control stream of two siblings behind their greetings, open at once. `asks`: this end opens the streams, as a
    /// responder does. `limits`: what this end has greeted with. spec: FL-35
    pub fn between_siblings(now: Instant, asks: bool, limits: PeerLimits, timing: Timing) -> Self {
        let side = if asks { Side::Responder } else { Side::Initiator };
        let mut session = Self::new(now, Phase::Open(side), timing);
        session.grant = Grant::new(limits);
        session.open(now, side);
        session
    }

    fn new(now: Instant, phase: Phase, mut timing: Timing) -> Self {
        // A probe that is due again at once would never let `timeout` return.
        timing.suspect_timeout = timing.suspect_timeout.max(limits::MIN_KEEPALIVE);
        let mut timers = Timers::default();
        timers.set(Timer::Handshake, now, timing.handshake_timeout);
        Self {
            phase,
            timing,
            timers,
            reader: FrameReader::of_handshake(),
            outputs: VecDeque::new(),
            pong: None,
            probes: Probes::default(),
            suspect: false,
            hurried: false,
            heard_at: now,
            first_probe: None,
            activity: Activity::default(),
            closes: false,
            pace: Pace::new(now),
            reauth: None,
            grant: Grant::new(PeerLimits::default()),
        }
    }

    /// The same session on a transport that cannot say by itself why a connection ends: the peer may send CLOSE.
    /// spec: CT-34
    pub fn with_close(self) -> Self {
        Self { closes: true, ..self }
    }

    /// The silence after which the tunnel is given up. spec: CT-43
    pub const fn idle_timeout(&self) -> Duration {
        self.timing.idle_timeout
    }

    /// How long the peer may leave a probe unanswered before it is suspect. spec: CT-42
    pub const fn suspect_timeout(&self) -> Duration {
        self.timing.suspect_timeout
    }

    /// Where the session stands.
    pub const fn state(&self) -> State {
        self.phase.state()
    }

    /// When the peer was heard last, as far as that is known. spec: CT-10
    pub const fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Whether a probe is unanswered and nothing was heard since: prefer other tunnels. spec: CT-42
    pub const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// When to call [`Session::timeout`] if nothing happens before; `None` once closed.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether there is something to do.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty() || self.pong.is_some()
    }

    /// The next thing to do; call until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| {
            let pong = Frame::Pong(self.pong.take()?);
            Some(Output::Send(encoded(&pong)))
        })
    }

    /// Takes bytes of the control stream, in any split. Call [`Session::poll`] until `None` before the next call: that
    /// bounds what a peer can make this end hold.
    ///
    /// On an error the session is closed; the outputs tell the peer. After a close all input is ignored.
    pub fn receive(&mut self, now: Instant, input: &[u8]) -> Result<(), SessionError> {
        self.read_frames(now, input).inspect_err(|error| self.fail(error))
    }

    fn read_frames(&mut self, now: Instant, mut input: &[u8]) -> Result<(), SessionError> {
        while self.state() != State::Closed
            && let Some(frame) = self.reader.next(&mut input)?
        {
            let (frame_type, state) = (frame.frame_type(), self.state());
            if !self.phase.may_receive(frame_type, self.closes) {
                return Err(SessionError::Unexpected { frame: frame_type, state });
            }
            self.pace.take(frame_type, now)?;
            self.on_frame(now, frame)?;
        }
        self.pace.take_skipped(self.reader.take_skipped(), now)?;
        self.check_begun()
    }

    /// A frame that is not due is at fault as soon as its header shows it, and in the handshake, where nothing may follow
    /// HELLO but CLOSE, at its first byte. spec: CT-8, HS-33
    fn check_begun(&self) -> Result<(), SessionError> {
        let state = self.state();
        match self.reader.begun() {
            Begun::Frame(frame) if state != State::Closed && !self.phase.may_receive(frame, self.closes) => {
                Err(SessionError::Unexpected { frame, state })
            }
            // A type below 64 is one byte; of a longer one it takes all bytes to know it, but behind HELLO none may begin.
            Begun::Byte(first)
                if state == State::Handshaking && (first < 0x40 || self.phase == Phase::AwaitDecision) =>
            {
                match FrameType::from_number(first.into()) {
                    Some(frame) if !self.phase.may_receive(frame, self.closes) => {
                        Err(SessionError::Unexpected { frame, state })
                    }
                    Some(_) => Ok(()),
                    None => Err(FrameError::Early(first.into()).into()),
                }
            }
            _ => Ok(()),
        }
    }

    fn on_frame(&mut self, now: Instant, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::Hello(hello) => {
                self.phase = Phase::AwaitDecision;
                self.event(Event::Hello(hello));
            }
            Frame::Welcome(welcome) => self.on_welcome(now, welcome)?,
            Frame::Refuse(refusal) => {
                let reason = format!("refused: {}", refusal.reason);
                self.event(Event::Refused(refusal));
                self.end(CloseCode::Refused, &reason);
            }
            Frame::Ping(echo) => self.pong = Some(echo),
            Frame::Pong(echo) => self.on_pong(now, u64::from_be_bytes(echo))?,
            Frame::Drain(drain) => {
                self.phase.enter_drain().got_drain = true;
                self.timers.set_earlier(Timer::Drain, now, drain.deadline);
                self.event(Event::PeerDraining(drain));
            }
            Frame::Drained => {
                self.event(Event::PeerDrained);
                self.end(CloseCode::Done, "drained");
            }
            Frame::Services(services) => self.event(Event::Services(services)),
            Frame::Limits(limits) => self.event(Event::Limits(limits)),
            Frame::Health(health) => self.event(Event::Health(health)),
            Frame::Roster(roster) => self.event(Event::Roster(roster)),
            Frame::Reauth(reauth) => self.on_reauth(reauth)?,
            Frame::Reauthed(reauthed) => {
                if self.reauth < Some(reauthed.number) {
                    return Err(SessionError::UnknownReauth);
                }
                self.event(Event::Reauthed(reauthed));
            }
            Frame::Close(close) => {
                let code = CloseCode::from_number(close.code).unwrap_or(CloseCode::Internal);
                self.finish(code, &close.reason, true);
            }
        }
        Ok(())
    }

    /// The control stream ended, cleanly or by a reset. An error unless the session was over or waited for that.
    /// spec: CT-6
    pub fn closed_by_peer(&mut self) -> Result<(), SessionError> {
        match self.phase {
            Phase::Closed => Ok(()),
            Phase::Draining(drain) if drain.sent_drained => {
                self.end(CloseCode::Done, "drained");
                Ok(())
            }
            _ => {
                self.fail(&SessionError::ControlEnded);
                Err(SessionError::ControlEnded)
            }
        }
    }

    /// The transport has a proof that the peer lives and hears this end, on whatever stream. Cheap. What merely arrives on
    /// the control stream is none, but PONG is. spec: CT-10
    pub fn heard(&mut self, now: Instant) {
        // Reads of different streams may be reported out of order; the latest counts.
        self.heard_at = self.heard_at.max(now);
        if self.phase.is_live() {
            self.activity.heard();
            self.timers.stop(Timer::Suspect);
            self.timers.set(Timer::Keepalive, self.heard_at, self.timing.keepalive_interval);
            if let Some(at) = self.first_probe {
                self.timers.set_earlier(Timer::Keepalive, at, Duration::ZERO);
            }
            self.timers.set(Timer::Idle, self.heard_at, self.timing.idle_timeout);
            if std::mem::take(&mut self.suspect) {
                self.event(Event::Alive);
            }
        }
    }

    /// The caller has opened or taken this many streams in all: while that grows, and while the peer is heard after that,
    /// the tunnel is in use, and silence is then a reason to doubt. Cheap; meant for every turn of the caller and before
    /// [`Session::timeout`]. spec: CT-42
    pub fn used(&mut self, now: Instant, streams: u64) {
        if self.phase.is_live() && self.activity.used(streams) && self.timers.get(Timer::Look).is_none() {
            self.timers.set(Timer::Look, now, self.look_interval());
        }
    }

    /// Whether the next stream that begins should be told of at once with [`Session::used`]: the tunnel is not in use, and
    /// no timer would look whether it is. spec: CT-42
    pub const fn awaits_use(&self) -> bool {
        self.phase.is_live() && self.timers.get(Timer::Look).is_none()
    }

    /// Probes every 5 s from now on, for a transport that does not measure the round trip: routing weighs by it, so that
    /// the responder needs it. Each answer is an [`Event::Rtt`]. Nothing unless the tunnel is open.
    pub fn measure_rtt(&mut self, now: Instant) {
        if self.phase.is_live() {
            self.timers.set(Timer::Sample, now, Duration::ZERO);
        }
    }

    /// Asks for the first sign of life after this part of the keepalive interval, 0 to 1, whatever is heard before: tunnels
    /// that came up together then do not all speak at the same moments. Nothing unless the tunnel is open. spec: CT-52
    pub fn spread_keepalive(&mut self, now: Instant, part: f64) {
        if self.phase.is_live() && self.timers.get(Timer::Suspect).is_none() {
            let at = now + self.timing.keepalive_interval.mul_f64(part.clamp(0.0, 1.0));
            self.first_probe = Some(at);
            self.timers.set_earlier(Timer::Keepalive, at, Duration::ZERO);
        }
    }

    /// Asks the peer for a sign of life now instead of at the next keepalive; nothing if one is already asked for.
    pub fn probe(&mut self, now: Instant) {
        if self.phase.is_live() && self.timers.get(Timer::Suspect).is_none() {
            self.send_probe(now);
        }
    }

    /// Responder, after [`Event::Hello`]: opens the tunnel. spec: HS-2
    pub fn welcome(&mut self, now: Instant, welcome: &Welcome) -> Result<(), IllegalCall> {
        self.allow("welcome", matches!(self.phase, Phase::AwaitDecision))?;
        self.send(&Frame::Welcome(Box::new(welcome.clone())));
        self.timing.idle_timeout = welcome.idle;
        self.grant = Grant::new(welcome.limits);
        self.open(now, Side::Responder);
        Ok(())
    }

    /// Responder, before it opened the tunnel: says no, and closes. spec: HS-3
    pub fn refuse(&mut self, refusal: &Refusal) -> Result<(), IllegalCall> {
        self.allow("refuse", self.phase.may_refuse())?;
        self.send(&Frame::Refuse(refusal.clone()));
        self.end(CloseCode::Refused, &format!("refused: {}", refusal.reason));
        Ok(())
    }

    /// Either end: no new streams from now on; what runs may take until the deadline. Once. spec: CT-20
    pub fn drain(&mut self, now: Instant, drain: Drain) -> Result<(), IllegalCall> {
        self.allow("drain", self.phase.may_drain())?;
        self.phase.enter_drain().sent_drain = true;
        self.timers.set_earlier(Timer::Drain, now, drain.deadline);
        self.send(&Frame::Drain(drain));
        Ok(())
    }

    /// Either end, after [`Session::drain`]: something waits for the end of this tunnel, so that a peer that is not heard
    /// must not hold it up. A suspect tunnel ends now, another one as soon as it is. spec: CT-28
    pub fn hurry(&mut self, now: Instant) -> Result<(), IllegalCall> {
        self.allow("hurry", self.state() == State::Draining)?;
        if self.suspect {
            self.end(CloseCode::Idle, NOT_HEARD);
        } else {
            self.hurried = true;
            self.probe(now);
        }
        Ok(())
    }

    /// Responder, while draining: nothing runs and nothing will. The initiator closes then, and this end 250 ms later if it
    /// has heard nothing of that. Once. spec: CT-22, CT-24
    ///
    /// An initiator has no such call: it waits for the responder's DRAINED, since only the responder knows whether
    /// another stream is on its way.
    pub fn drained(&mut self, now: Instant) -> Result<(), IllegalCall> {
        self.allow("drained", self.phase.may_say_drained())?;
        self.phase.enter_drain().sent_drained = true;
        self.timers.set_earlier(Timer::Drain, now, limits::FAREWELL_TIMEOUT);
        self.send(&Frame::Drained);
        Ok(())
    }

    /// Initiator: replaces what it exports. spec: CT-30
    pub fn announce(&mut self, services: &[Service]) -> Result<(), IllegalCall> {
        self.allow("announce", self.phase.is_live_as(Side::Initiator))?;
        self.send(&Frame::Services(services.to_vec()));
        Ok(())
    }

    /// Initiator: says which of its services are down now. spec: CT-58
    pub fn tell_health(&mut self, health: Health) -> Result<(), IllegalCall> {
        self.allow("tell_health", self.phase.is_live_as(Side::Initiator))?;
        self.send(&Frame::Health(health));
        Ok(())
    }

    /// Responder: says which responders of its fleet there are now. spec: CT-62
    pub fn tell_roster(&mut self, roster: Option<Roster>) -> Result<(), IllegalCall> {
        self.allow("tell_roster", self.phase.is_live_as(Side::Responder))?;
        self.send(&Frame::Roster(roster));
        Ok(())
    }

    /// Either end: replaces what it takes. The peer is told at once, or half a second after it was told of another change:
    /// then the latest. [`Event::Takes`] says what has to be taken meanwhile. spec: CT-31, CT-33, CT-64
    pub fn limit(&mut self, now: Instant, limits: PeerLimits) -> Result<(), IllegalCall> {
        self.allow("limit", self.phase.is_live())?;
        self.grant.want(limits);
        self.follow_grant(now);
        Ok(())
    }

    /// Tells the peer what it is to be told by now, and the caller what has to be taken.
    fn follow_grant(&mut self, now: Instant) {
        let before = self.grant.takes();
        let told = self.grant.act(now, self.timing.idle_timeout);
        let takes = self.grant.takes();
        if takes != before {
            // First: what LIMITS allows may come at once.
            self.event(Event::Takes(takes));
        }
        if let Some(limits) = told {
            self.send(&Frame::Limits(limits));
        }
        match self.grant.due() {
            Some(at) => self.timers.set(Timer::Limits, at, Duration::ZERO),
            None => self.timers.stop(Timer::Limits),
        }
    }

    /// Initiator: shows another credential, under a higher number than before. spec: CT-32
    pub fn reauth(&mut self, reauth: Reauth) -> Result<(), IllegalCall> {
        self.allow("reauth", self.phase.is_live_as(Side::Initiator) && self.reauth < Some(reauth.number))?;
        self.reauth = Some(reauth.number);
        self.send(&Frame::Reauth(Box::new(reauth)));
        Ok(())
    }

    /// Responder, after [`Event::Reauth`]: says whether it counts. An answer to a later one stands for those before.
    /// spec: CT-56
    pub fn reauthed(&mut self, reauthed: Reauthed) -> Result<(), IllegalCall> {
        self.allow("reauthed", self.phase.is_live_as(Side::Responder) && self.reauth >= Some(reauthed.number))?;
        self.send(&Frame::Reauthed(reauthed));
        Ok(())
    }

    /// Ends the tunnel from any state; nothing once it is closed.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if self.state() != State::Closed {
            self.end(code, reason);
        }
    }

    /// Acts on every timer that is due at `now`.
    pub fn timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Handshake => self.end(CloseCode::HandshakeTimeout, "the handshake took too long"),
                Timer::Drain => self.end(CloseCode::Done, self.phase.last_word()),
                Timer::Idle => self.end(CloseCode::Idle, "nothing was heard for the idle timeout"),
                Timer::Suspect if self.hurried => self.end(CloseCode::Idle, NOT_HEARD),
                Timer::Suspect => {
                    if !std::mem::replace(&mut self.suspect, true) {
                        self.event(Event::Suspect);
                    }
                    self.send_probe(now);
                }
                Timer::Look => self.look(now),
                Timer::Sample => {
                    self.timers.set(Timer::Sample, now, RTT_INTERVAL);
                    self.probe(now);
                }
                Timer::Keepalive => self.send_probe(now),
                Timer::Limits => self.follow_grant(now),
            }
        }
    }

    /// Looks at a tunnel in use, and asks if it has fallen silent. spec: CT-42
    fn look(&mut self, now: Instant) {
        if self.activity.look() {
            self.probe(now);
        }
        if self.activity.is_in_use() {
            self.timers.set(Timer::Look, now, self.look_interval());
        }
    }

    fn look_interval(&self) -> Duration {
        if self.phase.is_live_as(Side::Initiator) { INITIATOR_LOOK_INTERVAL } else { RESPONDER_LOOK_INTERVAL }
    }

    fn on_welcome(&mut self, now: Instant, welcome: Box<Welcome>) -> Result<(), SessionError> {
        if let Phase::AwaitWelcome { offered: (lowest, highest) } = self.phase
            && !(lowest..=highest).contains(&welcome.version)
        {
            return Err(SessionError::Version(welcome.version));
        }
        self.timing.keepalive_interval = welcome.keepalive;
        self.timing.idle_timeout = welcome.idle;
        self.open(now, Side::Initiator);
        self.event(Event::Welcomed(welcome));
        Ok(())
    }

    fn open(&mut self, now: Instant, side: Side) {
        self.phase = Phase::Open(side);
        self.timers.stop(Timer::Handshake);
        self.reader.opened();
        self.heard(now);
    }

    /// Numbers rise, so that none can be shown twice. spec: CT-32
    fn on_reauth(&mut self, reauth: Box<Reauth>) -> Result<(), SessionError> {
        if self.reauth >= Some(reauth.number) {
            return Err(FrameError::Payload("REAUTH", Malformed::Invalid("number")).into());
        }
        self.reauth = Some(reauth.number);
        self.event(Event::Reauth(reauth));
        Ok(())
    }

    /// A PONG for the newest probe tells the round trip; one for an older probe is only a sign of life. spec: CT-13
    fn on_pong(&mut self, now: Instant, number: u64) -> Result<(), SessionError> {
        if number >= self.probes.sent {
            return Err(SessionError::UnknownProbe);
        }
        self.heard(now);
        if number + 1 == self.probes.sent
            && let Some(sent_at) = self.probes.newest_at.take()
        {
            self.event(Event::Rtt(now.saturating_duration_since(sent_at)));
        }
        Ok(())
    }

    fn send_probe(&mut self, now: Instant) {
        self.send(&Frame::Ping(self.probes.sent.to_be_bytes()));
        self.probes.sent += 1;
        self.probes.newest_at = Some(now);
        self.first_probe = None;
        self.timers.stop(Timer::Keepalive);
        self.timers.set(Timer::Suspect, now, self.timing.suspect_timeout);
    }

    const fn allow(&self, call: &'static str, allowed: bool) -> Result<(), IllegalCall> {
        if allowed { Ok(()) } else { Err(IllegalCall { call, state: self.state() }) }
    }

    /// Tells the peer what it did wrong: with REFUSE while the handshake lasts, with a close code after. spec: HS-7
    fn fail(&mut self, error: &SessionError) {
        let reason = error.to_string();
        if self.phase.may_refuse() && *error != SessionError::ControlEnded {
            let code: RefusalCode = error.refusal_code();
            self.send(&Frame::Refuse(Refusal { code, reason: reason.clone(), retry_after: None }));
            self.end(CloseCode::Refused, &reason);
        } else {
            self.end(error.close_code(), &reason);
        }
    }

    fn end(&mut self, code: CloseCode, reason: &str) {
        self.finish(code, reason, false);
    }

    /// The last output; the reason as it may go on the wire. spec: ER-6
    fn finish(&mut self, code: CloseCode, reason: &str, by_peer: bool) {
        let reason = printable(reason, limits::MAX_REASON_BYTES);
        self.phase = Phase::Closed;
        self.timers.stop_all();
        self.pong = None;
        self.outputs.push_back(Output::Close { code, reason, by_peer });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn send(&mut self, frame: &Frame) {
        self.outputs.push_back(Output::Send(encoded(frame)));
    }
}

fn encoded(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}
