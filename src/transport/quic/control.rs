//! Drives the sans-IO [`Session`] over the control stream: the only place that joins it to a clock and a socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::VarInt;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::handshake::Service;
use crate::protocol::limits::Limits;
use crate::protocol::session::{Drain, Event, IllegalCall, Output, Session};
use crate::transport::error::peer_text;
use crate::transport::quic::streams::lost;
use crate::transport::state::{CloseReason, Phase, TunnelState};

/// How long a REFUSE may take to be acknowledged before the connection closes over it. spec: CT-25
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);
const READ_BYTES: usize = 64 * 1024;

/// What the owner of a tunnel may ask of its driver.
#[derive(Debug)]
pub(crate) enum Command {
    Drain(Drain),
    Close(CloseReason),
    Services(Vec<Service>),
}

/// The live connection behind a tunnel handle.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) quic: quinn::Connection,
    pub(crate) state: Arc<TunnelState>,
    /// What this end is ready to take.
    pub(crate) limits: Limits,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// The control stream with its session.
#[derive(Debug)]
pub(super) struct Control {
    quic: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    session: Session,
    receiving: bool,
    heard: u64,
    /// The number of the peer's fault, once it made one.
    fault: Option<RefusalCode>,
}

impl Control {
    pub(super) fn new(
        quic: quinn::Connection,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        session: Session,
    ) -> Self {
        Self { quic, send, recv, session, receiving: true, heard: 0, fault: None }
    }

    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
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
    async fn flush(&mut self) -> Result<Option<Event>, CloseReason> {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(bytes) => {
                    if let Err(error) = self.send.write_chunk(bytes).await {
                        return Err(self.ended(&error.to_string()));
                    }
                }
                Output::Event(event) => return Ok(Some(event)),
                Output::Close { code, reason } => return Err(self.close(CloseReason { code, text: reason }).await),
            }
        }
        Ok(None)
    }

    /// Feeds the session what happens next: bytes, the end of the stream, or its deadline. Cancel safe.
    async fn wait(&mut self) -> Result<(), CloseReason> {
        let deadline = self.session.deadline();
        let timer = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            chunk = self.recv.read_chunk(READ_BYTES, true), if self.receiving => match chunk {
                Ok(Some(chunk)) => {
                    // An error has queued the close that it calls for.
                    if let Err(error) = self.session.receive(Instant::now(), &chunk.bytes) {
                        debug!(%error, "the peer broke the protocol on the control stream");
                        self.fault = Some(error.refusal_code());
                    }
                    Ok(())
                }
                Ok(None) | Err(quinn::ReadError::Reset(_)) => {
                    self.receiving = false;
                    // An error has queued the close that it calls for.
                    if let Err(error) = self.session.closed_by_peer() {
                        debug!(%error, "the peer ended the control stream");
                    }
                    Ok(())
                }
                Err(error) => Err(self.ended(&error.to_string())),
            },
            error = self.quic.closed(), if !self.receiving => Err(self.ended(&error.to_string())),
            () = timer => {
                self.note_traffic();
                self.session.timeout(Instant::now());
                Ok(())
            }
        }
    }

    /// What only an application that runs can cause proves that it lives, on whatever stream: data, credit, the end of a
    /// stream. Acknowledgements do not, they come from the QUIC stack of a peer that hangs. spec: CT-40
    fn note_traffic(&mut self) {
        let frames = self.quic.stats().frame_rx;
        let heard = [
            frames.stream,
            frames.datagram,
            frames.max_data,
            frames.max_stream_data,
            frames.max_streams_bidi,
            frames.reset_stream,
            frames.stop_sending,
        ];
        let heard = heard.iter().sum();
        if heard != self.heard {
            self.heard = heard;
            self.session.heard(Instant::now());
        }
    }

    fn ended(&self, fallback: &str) -> CloseReason {
        match self.quic.close_reason() {
            Some(error) => close_reason(&error),
            None => CloseReason { code: CloseCode::Internal, text: fallback.to_owned() },
        }
    }

    /// Closes the connection. After a REFUSE it first waits until that arrived, since quinn drops what is not yet
    /// acknowledged when it closes; in every other state the end of the control stream would itself be an error, and the
    /// close says all there is to say.
    async fn close(&mut self, reason: CloseReason) -> CloseReason {
        if reason.code == CloseCode::Refused {
            let _ = self.send.finish();
            let _ = timeout(FAREWELL_TIMEOUT, self.send.stopped()).await;
        }
        self.quic.close(VarInt::from_u32(reason.code.number()), reason.text.as_bytes());
        reason
    }

    /// Runs an open tunnel until it is gone; the reason is also its last phase.
    ///
    /// `opener` is the end that opens streams, the responder: it alone knows when none is left. spec: CT-22
    pub(super) async fn run(
        mut self,
        state: Arc<TunnelState>,
        mut commands: mpsc::Receiver<Command>,
        opener: bool,
    ) -> CloseReason {
        let reason = self.drive(&state, &mut commands, opener).await;
        state.advance(Phase::Closed(reason.clone()));
        reason
    }

    async fn drive(
        &mut self,
        state: &Arc<TunnelState>,
        commands: &mut mpsc::Receiver<Command>,
        opener: bool,
    ) -> CloseReason {
        let mut draining = false;
        loop {
            state.note_rtt(self.quic.rtt());
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
                    None => return self.close(CloseReason { code: CloseCode::Done, text: "released".into() }).await,
                },
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

/// What the end of a connection says about the tunnel that it was.
fn close_reason(error: &quinn::ConnectionError) -> CloseReason {
    let code = match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            return CloseReason {
                code: CloseCode::from_number(close.error_code.into_inner()).unwrap_or(CloseCode::Internal),
                text: peer_text(&close.reason),
            };
        }
        quinn::ConnectionError::TimedOut => CloseCode::Idle,
        // Found by this end: the peer broke QUIC itself, for example by more streams than it was allowed.
        quinn::ConnectionError::TransportError(_) => CloseCode::Protocol,
        _ => CloseCode::Internal,
    };
    CloseReason { code, text: lost(error).to_string() }
}

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, ConnectionError, TransportErrorCode};

    use super::*;

    #[test]
    fn a_peer_that_breaks_quic_itself_is_at_fault_and_not_this_end() {
        let broken = quinn_proto::TransportError::from(TransportErrorCode::STREAM_LIMIT_ERROR);
        assert_eq!(close_reason(&ConnectionError::TransportError(broken)).code, CloseCode::Protocol);
    }

    #[test]
    fn a_code_of_the_peer_is_kept_and_one_that_nobody_knows_is_internal() {
        for (number, code) in [(CloseCode::Superseded.number(), CloseCode::Superseded), (0x3fff, CloseCode::Internal)] {
            let close = ApplicationClose { error_code: VarInt::from_u32(number), reason: "why".into() };
            let reason = close_reason(&ConnectionError::ApplicationClosed(close));
            assert_eq!((reason.code, reason.text.as_str()), (code, "why"));
        }
    }

    #[test]
    fn a_connection_that_timed_out_was_idle() {
        assert_eq!(close_reason(&ConnectionError::TimedOut).code, CloseCode::Idle);
    }
}
