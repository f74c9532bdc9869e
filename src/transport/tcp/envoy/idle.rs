//! The responder's side of an idle tunnel: pings until a request comes, or until it is gone.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::protocol::code::CloseCode;
use crate::protocol::control::NOT_HEARD;
use crate::protocol::envoy::{PING, PingOutput, Pinger, Stop};
use crate::protocol::session::Drain;
use crate::registry::Health;
use crate::transport::control::Command;
use crate::transport::state::{CloseReason, Phase, TunnelState};
use crate::transport::tcp::connection::Starter;
use crate::transport::tcp::envoy::entropy;
use crate::transport::tcp::handshake::lost;
use crate::transport::tcp::raw::Raw;

/// A tunnel that nobody has used yet.
pub(super) struct Idle<'a> {
    pub(super) raw: Raw,
    pub(super) pinger: Pinger,
    pub(super) state: &'a Arc<TunnelState>,
    pub(super) starter: &'a Starter,
    pub(super) commands: &'a mut mpsc::Receiver<Command>,
}

/// What ended the idle phase without ending the tunnel.
pub(super) enum Awake {
    /// Somebody has a request.
    Request,
    /// The tunnel is to be drained: HTTP/2 must begin so that GOAWAY can be said.
    Drain(Drain),
}

impl Idle<'_> {
    /// Pings until HTTP/2 may begin; the connection with what was read ahead.
    pub(super) async fn run(mut self) -> Result<(Raw, Awake), CloseReason> {
        let (mut awake, mut sent_at, mut read) = (None, None, BytesMut::with_capacity(64));
        loop {
            while let Some(output) = self.pinger.poll() {
                match output {
                    PingOutput::SendPing => {
                        sent_at = Some(Instant::now());
                        // Five bytes fit into any socket that is not stuck, so this is one write. spec: EV-20
                        self.raw.write_all(PING).await.map_err(|error| lost(&error))?;
                    }
                    PingOutput::Proven | PingOutput::Alive => self.state.advance(Phase::Open),
                    PingOutput::Suspect => self.state.advance(Phase::Suspect),
                    PingOutput::Dead(why) => return Err(reason(CloseCode::Idle, &why.to_string())),
                    PingOutput::Stopped { answered } => return Ok(self.free(awake, answered)),
                }
            }
            let Some(deadline) = self.pinger.deadline() else { return Ok(self.free(awake, true)) };
            tokio::select! {
                length = self.raw.read_buf(&mut read) => {
                    if length.map_err(|error| lost(&error))? == 0 {
                        return Err(reason(CloseCode::Done, "the initiator ended the connection"));
                    }
                    if let Some(sent_at) = sent_at.take() {
                        self.state.measure_rtt(sent_at.elapsed());
                    }
                    let rest = Bytes::copy_from_slice(self.pinger.receive(Instant::now(), &read));
                    self.raw.unread(rest);
                    read.clear();
                }
                () = sleep_until(deadline.into()) => self.pinger.timeout(Instant::now(), entropy()),
                () = self.starter.wanted(), if awake.is_none() => {
                    awake = Some(Awake::Request);
                    if self.pinger.stop(Instant::now()) == Stop::Now {
                        return Ok(self.free(awake, true));
                    }
                }
                command = self.commands.recv() => {
                    if self.obey(command, &mut awake)? == Stop::Now {
                        return Ok(self.free(awake, true));
                    }
                }
            }
        }
    }

    /// Whether HTTP/2 may begin at once.
    fn obey(&mut self, command: Option<Command>, awake: &mut Option<Awake>) -> Result<Stop, CloseReason> {
        match command {
            Some(Command::Drain(_)) if self.state.health() == Health::Suspect => {
                Err(reason(CloseCode::Idle, NOT_HEARD))
            }
            Some(Command::Drain(drain) | Command::Retire(drain)) => {
                self.state.advance(Phase::Draining { reconnect_after: drain.reconnect_after });
                *awake = Some(Awake::Drain(drain));
                Ok(self.pinger.stop(Instant::now()))
            }
            // An Envoy cannot be told what it does not ask for, and is pinged as it is.
            Some(
                Command::Leave(_)
                | Command::Services(_)
                | Command::Health(_)
                | Command::Probe
                | Command::Reauth(_)
                | Command::Reauthed(_)
                | Command::Roster(_),
            ) => Ok(Stop::Wait),
            Some(Command::Close(reason)) => Err(reason),
            None => Err(reason(CloseCode::Done, "released")),
        }
    }

    fn free(mut self, awake: Option<Awake>, answered: bool) -> (Raw, Awake) {
        if !answered {
            self.raw.strip_echoes(self.pinger);
        }
        (self.raw, awake.unwrap_or(Awake::Request))
    }
}

pub(super) fn reason(code: CloseCode, text: &str) -> CloseReason {
    CloseReason { code, text: text.to_owned() }
}
