//! The control stream of a QUIC tunnel, and the live connection behind its handle.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::net::SendRoom;
use crate::protocol::code::CloseCode;
use crate::protocol::reauth::{Binding, EXPORTER_LABEL};
use crate::transport::control::{Channel, Command, Pulse};
use crate::transport::credit::Lend;
use crate::transport::error::peer_text;
use crate::transport::quic::credit::Credit;
use crate::transport::quic::datagrams::FlowTable;
use crate::transport::quic::proof::Proof;
use crate::transport::quic::streams::lost;
use crate::transport::state::{CloseReason, TunnelState};
use crate::transport::via::Via;

/// How long a REFUSE may take to be acknowledged before the connection closes over it. spec: CT-25
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);
const READ_BYTES: usize = 64 * 1024;

/// The live connection behind a tunnel handle.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) quic: quinn::Connection,
    pub(crate) state: Arc<TunnelState>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(super) flows: Arc<FlowTable>,
    /// What its streams have under way.
    pub(super) send_room: Arc<SendRoom>,
    /// It leads to a sibling that says HERE. spec: FL-47
    pub(crate) says_here: bool,
    /// Where it goes on to from the sibling that it leads to; `None`: it leads to an initiator, or nowhere yet.
    pub(crate) via: Option<Via>,
}

impl Connection {
    /// The same connection, of which every stream goes on so. spec: FL-40
    pub(crate) fn through(&self, via: Via) -> Self {
        Self {
            quic: self.quic.clone(),
            state: Arc::clone(&self.state),
            commands: self.commands.clone(),
            flows: Arc::clone(&self.flows),
            send_room: Arc::clone(&self.send_room),
            says_here: self.says_here,
            via: Some(via),
        }
    }

    /// What TLS exports of this connection. spec: CT-54
    pub(crate) fn binding(&self) -> Option<Binding> {
        let mut binding = [0; 32];
        let exported = self.quic.export_keying_material(&mut binding, EXPORTER_LABEL, b"");
        exported.ok().map(|()| Binding(binding))
    }
}

/// The control stream.
#[derive(Debug)]
pub(super) struct ControlStream {
    quic: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    credit: Credit,
    proof: Proof,
}

impl ControlStream {
    pub(super) fn new(
        quic: quinn::Connection,
        (send, recv): (quinn::SendStream, quinn::RecvStream),
        credit: Credit,
    ) -> Self {
        Self { quic, send, recv, credit, proof: Proof::default() }
    }

    pub(super) fn connection(&self) -> quinn::Connection {
        self.quic.clone()
    }

    fn ended(&self, fallback: &str) -> CloseReason {
        match self.quic.close_reason() {
            Some(error) => close_reason(&error),
            None => CloseReason { code: CloseCode::Internal, text: fallback.to_owned() },
        }
    }
}

impl Channel for ControlStream {
    async fn send(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        match self.send.write_chunk(bytes).await {
            // The next look for what the peer says tells. spec: CT-9
            Ok(()) | Err(quinn::WriteError::Stopped(_)) => Ok(()),
            Err(error) => Err(self.ended(&error.to_string())),
        }
    }

    /// A peer that stops the stream has ended it as much as one that resets it. spec: CT-6, CT-9
    async fn receive(&mut self) -> Result<Option<Bytes>, CloseReason> {
        let read = {
            let mut stopped = pin!(self.send.stopped());
            let mut read = pin!(self.recv.read_chunk(READ_BYTES, true));
            // A stream that can be stopped no more, since it is finished or its connection is gone, is not asked again: the
            // read says what follows.
            let mut may_stop = true;
            poll_fn(|cx| {
                if let Poll::Ready(read) = read.as_mut().poll(cx) {
                    return Poll::Ready(read);
                }
                match may_stop.then(|| stopped.as_mut().poll(cx)) {
                    Some(Poll::Ready(Ok(Some(_)))) => return Poll::Ready(Ok(None)),
                    Some(Poll::Ready(_)) => may_stop = false,
                    Some(Poll::Pending) | None => {}
                }
                Poll::Pending
            })
            .await
        };
        match read {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(quinn::ReadError::Reset(_)) => Ok(None),
            Err(error) => Err(self.ended(&error.to_string())),
        }
    }

    async fn gone(&self) -> CloseReason {
        let error = self.quic.closed().await;
        self.ended(&error.to_string())
    }

    /// Data, credit, the end of a stream, and since the last proof an acknowledgement too: that alone comes from the QUIC
    /// stack of a peer that hangs, and the rest from one that hears nothing. spec: CT-10
    fn heard(&mut self) -> u64 {
        self.proof.note(self.quic.stats())
    }

    fn pulse(&self) -> Pulse {
        let (quic, mut proof) = (self.quic.clone(), self.proof.clone());
        Box::new(move || proof.note(quic.stats()))
    }

    fn rtt(&self) -> Option<Duration> {
        Some(self.quic.rtt())
    }

    fn lend(&self) -> Lend {
        self.credit.lend(self.quic.clone())
    }

    /// Closes the connection. After a REFUSE it first waits until that arrived, since quinn drops what is not yet
    /// acknowledged when it closes; in every other state the end of the control stream would itself be an error, and the
    /// close says all there is to say.
    async fn close(&mut self, reason: &CloseReason, _by_peer: bool) {
        if reason.code == CloseCode::Refused {
            let _ = self.send.finish();
            let _ = timeout(FAREWELL_TIMEOUT, self.send.stopped()).await;
        }
        self.quic.close(VarInt::from_u32(reason.code.number()), reason.text.as_bytes());
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
