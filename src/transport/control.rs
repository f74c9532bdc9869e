//! Drives the sans-IO [`Session`] over a control channel: the only place that joins it to a clock and to bytes.
//!
//! What carries the control frames is a [`Channel`]: a QUIC stream, the first bytes of a TLS connection, or a stream of
//! HTTP/2. The rules are the session's, whatever carries it.

mod attention;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use self::attention::{Attention, LOOK_INTERVAL};
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::handshake::Service;
use crate::protocol::session::{Drain, Event, IllegalCall, Output, Session};
use crate::transport::state::{CloseReason, Phase, TunnelState};

/// How many commands may wait for a tunnel's driver.
pub(super) const COMMANDS: usize = 16;

/// How often a responder asks for the round trip where the transport does not measure it: routing weighs by it.
const RTT_INTERVAL: Duration = Duration::from_secs(5);

/// How often traffic is looked at while there is some.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// What the owner of a tunnel may ask of its driver.
#[derive(Debug)]
pub(crate) enum Command {
    Drain(Drain),
    Close(CloseReason),
    Services(Vec<Service>),
}

/// What carries the control frames of one tunnel, and what else is known of its connection.
pub(super) trait Channel: Send {
    /// Sends bytes. Not cancel safe: a dropped call may have sent a part.
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), CloseReason>> + Send;

    /// The next bytes; `None` once the peer has ended the channel. Cancel safe.
    fn receive(&mut self) -> impl Future<Output = Result<Option<Bytes>, CloseReason>> + Send;

    /// Resolves when the connection is gone. Cancel safe.
    fn gone(&self) -> impl Future<Output = CloseReason> + Send;

    /// A number that grows with everything that only a running application at the other end can have caused. spec: CT-10
    fn heard(&self) -> u64;

    /// The round trip, where the transport measures it; else the session's probes do.
    fn rtt(&self) -> Option<Duration>;

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
    receiving: bool,
    heard: u64,
    /// When `heard` was read last.
    sampled_at: Instant,
    /// Whether it had grown then: as long as it does it is read often, so that the last growth has a time.
    busy: bool,
    /// Whether it has grown since the tunnel's use was looked at.
    heard_since: bool,
    /// The number of the peer's fault, once it made one.
    fault: Option<RefusalCode>,
}

impl<C: Channel> Control<C> {
    pub(super) fn new(channel: C, session: Session) -> Self {
        let sampled_at = Instant::now();
        Self { channel, session, receiving: true, heard: 0, sampled_at, busy: false, heard_since: false, fault: None }
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
            self.wait().await?;
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
    async fn wait(&mut self) -> Result<(), CloseReason> {
        let deadline = self.deadline();
        let timer = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        // Two places of the select look at the channel; only one of them is on at a time.
        if !self.receiving {
            return tokio::select! {
                reason = self.channel.gone() => Err(reason),
                () = timer => {
                    self.note_traffic();
                    self.session.timeout(Instant::now());
                    Ok(())
                }
            };
        }
        tokio::select! {
            bytes = self.channel.receive() => match bytes? {
                Some(bytes) => {
                    // An error has queued the close that it calls for.
                    if let Err(error) = self.session.receive(Instant::now(), &bytes) {
                        debug!(%error, "the peer broke the protocol on the control stream");
                        self.fault = Some(error.refusal_code());
                    }
                    Ok(())
                }
                None => {
                    self.receiving = false;
                    // An error has queued the close that it calls for.
                    if let Err(error) = self.session.closed_by_peer() {
                        debug!(%error, "the peer ended the control stream");
                    }
                    Ok(())
                }
            },
            () = timer => {
                self.note_traffic();
                self.session.timeout(Instant::now());
                Ok(())
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let sample = self.busy.then(|| self.sampled_at + SAMPLE_INTERVAL);
        self.session.deadline().map(|deadline| sample.map_or(deadline, |sample| sample.min(deadline)))
    }

    /// What only an application that runs can cause proves that it lives, on whatever stream. When that was is known as
    /// far as "not before the last look", and that is what counts: a tunnel that died right behind its last answer would
    /// otherwise seem alive for longer. spec: CT-10, CT-41
    fn note_traffic(&mut self) {
        let heard = self.channel.heard();
        self.busy = heard != self.heard;
        if self.busy {
            self.heard = heard;
            self.heard_since = true;
            self.session.heard(self.sampled_at);
        }
        self.sampled_at = Instant::now();
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
        let reason = self.drive(state, commands, opener).await;
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
        let measures = opener && self.channel.rtt().is_none();
        let mut sample = Instant::now();
        let (mut attention, mut look) = (Attention::default(), None);
        loop {
            if look.is_none() && attention.is_due(state.exchanges()) {
                look = Some(Instant::now() + LOOK_INTERVAL);
            }
            if let Some(rtt) = self.channel.rtt() {
                state.note_rtt(rtt);
            }
            match self.flush().await {
                Ok(Some(event)) => {
                    draining |= self.apply(event, state);
                    continue;
                }
                Ok(None) => state.open(),
                Err(reason) => return reason,
            }
            tokio::select! {
                waited = self.wait() => if let Err(reason) = waited { return reason },
                command = commands.recv() => match command {
                    Some(command) => draining |= self.obey(command, state),
                    // Every handle is gone: nobody can use the tunnel any more.
                    None => self.session.close(CloseCode::Done, "released"),
                },
                () = sleep_until(sample.into()), if measures => {
                    // What came before the question is no answer to it.
                    self.note_traffic();
                    self.session.probe(Instant::now());
                    sample = Instant::now() + RTT_INTERVAL;
                }
                () = sleep_until(look.unwrap_or(sample).into()), if look.is_some() => {
                    look = None;
                    self.note_traffic();
                    if attention.look(std::mem::take(&mut self.heard_since), state.exchanges()) {
                        self.session.probe(Instant::now());
                    }
                }
                () = state.idle(), if draining && opener => {
                    draining = false;
                    note_illegal(self.session.drained());
                }
            }
        }
    }

    /// Does what the owner asked; `true` when it begins a drain. A close is not for here.
    fn obey(&mut self, command: Command, state: &TunnelState) -> bool {
        match command {
            Command::Drain(drain) => {
                state.advance(Phase::Draining { reconnect_after: drain.reconnect_after });
                note_illegal(self.session.drain(Instant::now(), drain));
                return true;
            }
            Command::Services(services) => note_illegal(self.session.announce(&services)),
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
            Event::Limits(limits) => state.replace_peer_limits(limits),
            Event::Rtt(rtt) if self.channel.rtt().is_none() => state.note_rtt(rtt),
            other => debug!(event = ?other, "nothing to do"),
        }
        false
    }
}

/// A second drain, or a call after the end, changes nothing: the first one stands.
pub(super) fn note_illegal(called: Result<(), IllegalCall>) {
    if let Err(error) = called {
        debug!(%error, "nothing to do");
    }
}
