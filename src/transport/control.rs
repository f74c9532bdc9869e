//! Drives the sans-IO [`Session`] over a control channel: the only place that joins it to a clock and to bytes.
//!
//! What carries the control frames is a [`Channel`]: a QUIC stream, the first bytes of a TLS connection, or a stream of
//! HTTP/2. The rules are the session's, whatever carries it.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::control::NOT_HEARD;
use crate::protocol::handshake::Service;
use crate::protocol::health::Health;
use crate::protocol::reauth::{Reauth, Reauthed};
use crate::protocol::roster::Roster;
use crate::protocol::session::{Drain, Event, IllegalCall, Output, Session, State};
use crate::transport::credit::{Lend, balance};
use crate::transport::state::{CloseReason, Phase, TunnelState};

/// How many commands may wait for a tunnel's driver.
pub(super) const COMMANDS: usize = 16;

/// What the owner of a tunnel may ask of its driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// A responder's: the initiator is asked for a replacement, and streams go on until a drain follows. spec: CT-35
    Leave(Drain),
    /// Something waits for the end of the tunnel: a peer that is not heard does not hold it up. spec: CT-28
    Drain(Drain),
    /// Another tunnel took over; what runs may finish, as long as the peer might be there.
    Retire(Drain),
    /// A sign of life is wanted now. spec: CT-42
    Probe,
    Close(CloseReason),
    Services(Vec<Service>),
    /// An initiator's. spec: CT-58
    Health(Health),
    /// An initiator's. spec: CT-32
    Reauth(Box<Reauth>),
    /// A responder's. spec: CT-56
    Reauthed(Reauthed),
    /// A responder's. spec: CT-62
    Roster(Box<Option<Roster>>),
}

/// Asks how often the peer was heard so far.
pub(super) type Pulse = Box<dyn FnMut() -> u64 + Send>;

/// What carries the control frames of one tunnel, and what else is known of its connection.
pub(super) trait Channel: Send {
    /// Sends bytes. Not cancel safe: a dropped call may have sent a part.
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), CloseReason>> + Send;

    /// The next bytes; `None` once the peer has ended the channel. Cancel safe.
    fn receive(&mut self) -> impl Future<Output = Result<Option<Bytes>, CloseReason>> + Send;

    /// Resolves when the connection is gone. Cancel safe.
    fn gone(&self) -> impl Future<Output = CloseReason> + Send;

    /// A number that grows with every proof that an application runs at the other end and hears this one. spec: CT-10
    fn heard(&mut self) -> u64;

    /// The round trip, where the transport measures it; else the session's probes do.
    fn rtt(&self) -> Option<Duration>;

    /// The same number as [`Channel::heard`], from now on by itself: for whoever waits while the channel is busy.
    fn pulse(&self) -> Pulse {
        Box::new(|| 0)
    }

    /// Gives the connection credit for held-back streams. spec: SE-9
    fn lend(&self) -> Lend {
        Box::new(|_| {})
    }

    /// Ends the connection with this reason, or says that it has ended.
    fn close(&mut self, reason: &CloseReason, by_peer: bool) -> impl Future<Output = ()> + Send;

    /// Resolves when the last words have arrived, or had their time.
    fn linger(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// A control channel with its session.
#[derive(Debug)]
pub(super) struct Control<C> {
    channel: C,
    session: Session,
    heard: u64,
    /// When `heard` was read last.
    looked_at: Instant,
    /// The number of the peer's fault, once it made one.
    fault: Option<RefusalCode>,
}

impl<C: Channel> Control<C> {
    pub(super) fn new(channel: C, session: Session) -> Self {
        Self { channel, session, heard: 0, looked_at: now(), fault: None }
    }

    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub(super) const fn channel(&self) -> &C {
        &self.channel
    }

    /// The channel and the session, to go on elsewhere.
    pub(super) fn into_parts(self) -> (C, Session) {
        (self.channel, self.session)
    }

    /// The number that the peer was refused with for breaking the protocol during the handshake, if it did.
    pub(super) const fn fault(&self) -> Option<RefusalCode> {
        self.fault
    }

    /// The next event of the session, sending and waiting as needed. Not cancel safe: a dropped call may have sent a
    /// part of a frame.
    pub(super) async fn event(&mut self) -> Result<Event, CloseReason> {
        loop {
            if let Some(event) = self.flush().await? {
                return Ok(event);
            }
            self.wait(|| 0).await?;
        }
    }

    /// Sends what the session wants sent, up to its next event.
    pub(super) async fn flush(&mut self) -> Result<Option<Event>, CloseReason> {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(bytes) => self.send(bytes).await?,
                Output::Event(event) => return Ok(Some(event)),
                Output::Close { code, reason, by_peer } => {
                    let reason = CloseReason { code, text: reason };
                    self.channel.close(&reason, by_peer).await;
                    return Err(reason);
                }
            }
        }
        Ok(None)
    }

    /// Sends bytes that a peer takes, if it lives, long before the idle timeout: the session's clock stands meanwhile.
    /// spec: CT-43
    async fn send(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        if let Ok(sent) = timeout(self.session.idle_timeout(), self.channel.send(bytes)).await {
            return sent;
        }
        let text = "the peer did not read the control stream for the idle timeout".to_owned();
        let reason = CloseReason { code: CloseCode::Idle, text };
        self.channel.close(&reason, false).await;
        Err(reason)
    }

    /// Feeds the session what happens next: bytes, the end of the stream, or its deadline. Cancel safe.
    ///
    /// `streams` counts those that were opened on the tunnel so far.
    async fn wait(&mut self, streams: impl Fn() -> u64) -> Result<(), CloseReason> {
        let deadline = self.session.deadline();
        let timer = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            bytes = self.channel.receive() => match bytes? {
                Some(bytes) => {
                    // An error has queued the close that it calls for.
                    if let Err(error) = self.session.receive(now(), &bytes) {
                        debug!(%error, "the peer broke the protocol on the control stream");
                        self.fault = Some(error.refusal_code());
                    }
                    Ok(())
                }
                // Nothing follows, and whoever asks again after the end is not to be answered for ever.
                None if self.session.state() == State::Closed => Err(self.channel.gone().await),
                None => {
                    // An error has queued the close that it calls for.
                    if let Err(error) = self.session.closed_by_peer() {
                        debug!(%error, "the peer ended the control stream");
                    }
                    Ok(())
                }
            },
            () = timer => {
                self.wake(streams());
                Ok(())
            }
        }
    }

    /// Tells the session that its deadline has come, and before that all that it has to know by then.
    fn wake(&mut self, streams: u64) {
        self.note_traffic();
        let now = now();
        self.session.used(now, streams);
        self.session.timeout(now);
    }

    /// What only an application can cause that runs, and hears this end, proves that it lives, on whatever stream. When that was is known as
    /// far as "not before the last look", and that is what counts: a tunnel that died right behind its last bytes would
    /// otherwise seem alive for longer. spec: CT-10, CT-41
    fn note_traffic(&mut self) {
        let heard = self.channel.heard();
        if std::mem::replace(&mut self.heard, heard) != heard {
            self.session.heard(self.looked_at);
        }
        self.looked_at = now();
    }

    /// Runs an open tunnel until it is gone; the reason is also its last phase.
    ///
    /// `opener` is the end that opens streams, the responder: it alone knows when none is left. spec: CT-22
    pub(super) async fn run(
        &mut self,
        state: &Arc<TunnelState>,
        commands: &mut mpsc::Receiver<Command>,
        opener: bool,
    ) -> CloseReason {
        // Beside the driver: that waits while the peer takes no control frame, and so may the peer for credit of this end.
        let balance = balance(state.credit(), self.channel.lend());
        let reason = tokio::select! {
            reason = self.drive(state, commands, opener) => reason,
            never = balance => match never {},
        };
        state.advance(Phase::Closed(reason.clone()));
        self.channel.linger().await;
        reason
    }

    async fn drive(
        &mut self,
        state: &Arc<TunnelState>,
        commands: &mut mpsc::Receiver<Command>,
        opener: bool,
    ) -> CloseReason {
        let mut draining = false;
        if opener && self.channel.rtt().is_none() {
            self.session.measure_rtt(now());
        }
        loop {
            let exchanges = state.exchanges();
            self.session.used(now(), exchanges);
            state.note_heard(self.session.heard_at());
            if let Some(rtt) = self.channel.rtt() {
                state.note_rtt(rtt);
            }
            match self.flush_beside(state, commands, &mut draining).await {
                Ok(Some(event)) => {
                    draining |= self.apply(event, state);
                    continue;
                }
                Ok(None) => state.open(),
                Err(reason) => return reason,
            }
            let sleeps = self.session.awaits_use();
            tokio::select! {
                waited = self.wait(|| state.exchanges()) => if let Err(reason) = waited { return reason },
                command = commands.recv() => match command {
                    Some(command) => draining |= self.obey(command, state),
                    // Every handle is gone: nobody can use the tunnel any more.
                    None => self.session.close(CloseCode::Done, "released"),
                },
                // What was heard before the use is no answer to it. spec: CT-42
                () = state.used_beyond(exchanges), if sleeps => self.note_traffic(),
                limits = state.heads().wanted().take() => note_illegal(self.session.limit(now(), limits)),
                () = state.idle(), if draining && opener => {
                    draining = false;
                    note_illegal(self.session.drained(now()));
                }
            }
        }
    }

    /// Flushes. A peer that takes no control frame and is not heard for as long as it may leave a probe unanswered is suspect
    /// as well, and what has to end does not wait for it. Other commands are obeyed once it takes what there is.
    /// spec: CT-28, CT-53
    async fn flush_beside(
        &mut self,
        state: &TunnelState,
        commands: &mut mpsc::Receiver<Command>,
        draining: &mut bool,
    ) -> Result<Option<Event>, CloseReason> {
        if !self.session.has_output() {
            return Ok(None);
        }
        let mut blocked = Blocked {
            patience: self.session.suspect_timeout(),
            pulse: self.channel.pulse(),
            is_suspect: false,
            drains: false,
            later: Vec::new(),
        };
        let flushed = tokio::select! {
            biased;
            flushed = self.flush() => Ok(flushed),
            reason = blocked.end(state, commands) => Err(reason),
        };
        match flushed {
            Ok(flushed) => {
                if blocked.is_suspect && !self.session.is_suspect() {
                    state.advance(Phase::Open);
                }
                for command in blocked.later {
                    *draining |= self.obey(command, state);
                }
                flushed
            }
            Err(reason) => {
                self.channel.close(&reason, false).await;
                Err(reason)
            }
        }
    }

    /// Does what the owner asked; `true` when it begins a drain. A close is not for here.
    fn obey(&mut self, command: Command, state: &TunnelState) -> bool {
        // What was heard before is no answer to what is asked now.
        self.note_traffic();
        match command {
            Command::Drain(drain) => {
                state.advance(Phase::Draining { reconnect_after: drain.reconnect_after });
                if self.session.is_suspect() {
                    // Who does not listen is not told either. spec: CT-28
                    self.session.close(CloseCode::Idle, NOT_HEARD);
                    return false;
                }
                // It may have been told before that this would come.
                note_illegal(self.session.drain(now(), drain));
                note_illegal(self.session.hurry(now()));
                return true;
            }
            Command::Leave(drain) if !self.session.is_suspect() => note_illegal(self.session.drain(now(), drain)),
            // It is not heard, and what follows ends it.
            Command::Leave(_) => {}
            Command::Retire(drain) => {
                state.advance(Phase::Draining { reconnect_after: drain.reconnect_after });
                note_illegal(self.session.drain(now(), drain));
                return true;
            }
            Command::Probe => self.session.probe(now()),
            Command::Services(services) => note_illegal(self.session.announce(&services)),
            Command::Health(health) => note_illegal(self.session.tell_health(health)),
            Command::Reauth(reauth) => note_illegal(self.session.reauth(*reauth)),
            Command::Reauthed(reauthed) => note_illegal(self.session.reauthed(reauthed)),
            Command::Roster(roster) => note_illegal(self.session.tell_roster(*roster)),
            Command::Close(reason) => self.session.close(reason.code, &reason.text),
        }
        false
    }

    /// Applies an event to the shared state; `true` when it begins a drain.
    fn apply(&mut self, event: Event, state: &TunnelState) -> bool {
        match event {
            Event::Suspect => state.advance(Phase::Suspect),
            Event::Alive => state.advance(Phase::Open),
            Event::PeerDraining(drain) => {
                state.advance(Phase::Draining { reconnect_after: drain.reconnect_after });
                return true;
            }
            Event::Services(services) => state.replace_services(services),
            Event::Health(health) => state.replace_health(health),
            Event::Limits(limits) => state.heads().replace_peer(limits),
            Event::Takes(limits) => state.heads().replace_takes(limits),
            Event::Reauth(reauth) => state.reauths().put(*reauth),
            Event::Reauthed(reauthed) => state.reauthed().put(reauthed),
            Event::Roster(roster) => state.rosters().put(roster),
            Event::Rtt(rtt) if self.channel.rtt().is_none() => state.note_rtt(rtt),
            other => debug!(event = ?other, "nothing to do"),
        }
        false
    }
}

/// What goes on while the peer takes no control frame.
struct Blocked {
    /// After how long without a sign of life it is suspect.
    patience: Duration,
    pulse: Pulse,
    is_suspect: bool,
    /// Whether something waits for the end of the tunnel.
    drains: bool,
    /// What is to be done once it takes frames again.
    later: Vec<Command>,
}

impl Blocked {
    /// Resolves when the tunnel has to end before that. Cancel safe.
    async fn end(&mut self, state: &TunnelState, commands: &mut mpsc::Receiver<Command>) -> CloseReason {
        let mut heard = (self.pulse)();
        let mut look = tokio::time::Instant::now() + self.patience;
        loop {
            // Who does not listen is not told either. spec: CT-28
            if self.is_suspect && self.drains {
                return CloseReason { code: CloseCode::Idle, text: NOT_HEARD.to_owned() };
            }
            tokio::select! {
                () = sleep_until(look) => {
                    let now = (self.pulse)();
                    self.doubt(now == std::mem::replace(&mut heard, now), state);
                    look += self.patience;
                }
                command = commands.recv() => match command {
                    Some(Command::Close(reason)) => return reason,
                    Some(command) => self.keep(command, state),
                    None => return CloseReason { code: CloseCode::Done, text: "released".to_owned() },
                }
            }
        }
    }

    fn doubt(&mut self, is_silent: bool, state: &TunnelState) {
        if is_silent != std::mem::replace(&mut self.is_suspect, is_silent) {
            state.advance(if is_silent { Phase::Suspect } else { Phase::Open });
        }
    }

    fn keep(&mut self, command: Command, state: &TunnelState) {
        match &command {
            Command::Drain(drain) | Command::Retire(drain) => {
                self.drains |= matches!(command, Command::Drain(_));
                state.advance(Phase::Draining { reconnect_after: drain.reconnect_after });
            }
            Command::Services(_) => self.later.retain(|other| !matches!(other, Command::Services(_))),
            Command::Health(_) => self.later.retain(|other| !matches!(other, Command::Health(_))),
            // It is asked already.
            Command::Probe => return,
            // An answer to a later one stands for those before.
            Command::Reauthed(_) => self.later.retain(|other| !matches!(other, Command::Reauthed(_))),
            Command::Roster(_) => self.later.retain(|other| !matches!(other, Command::Roster(_))),
            Command::Leave(_) | Command::Reauth(_) | Command::Close(_) => {}
        }
        self.later.push(command);
    }
}

/// A second drain, or a call after the end, changes nothing: the first one stands.
pub(super) fn note_illegal(called: Result<(), IllegalCall>) {
    if let Err(error) = called {
        debug!(%error, "nothing to do");
    }
}

/// The time by the clock that the timers go by; in tests that may be one moved by hand.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
