//! The live HTTP/2 connection behind a tunnel's handle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::{Notify, mpsc, watch};

use crate::protocol::code::CloseCode;
use crate::transport::control::Command;
use crate::transport::error::{OpenError, TunnelLost};
use crate::transport::kind::{Dialect, TransportKind};
use crate::transport::state::{CloseReason, TunnelSnapshot, TunnelState};
use crate::transport::tcp::codes::lost;
use crate::transport::tcp::envoy::Accepted;
use crate::transport::tcp::wire::{Meter, Secured};

/// The live connection behind a tunnel handle.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) state: Arc<TunnelState>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) remote: SocketAddr,
    pub(super) meter: Arc<Meter>,
    pub(super) requests: Requests,
    /// How the other end takes HTTP/2.
    pub(super) dialect: Dialect,
    /// What its TLS says, where it has TLS to the end.
    pub(crate) secured: Option<Secured>,
    /// By what it was accepted, where an Envoy has dialled it.
    pub(crate) accepted: Option<Accepted>,
}

/// Where requests are handed to HTTP/2, which may have to begin first.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    ready: watch::Receiver<Option<SendRequest<Bytes>>>,
    wanted: Arc<Notify>,
    /// Whether the initiator has said something over HTTP/2, so that its SETTINGS are known.
    settled: watch::Receiver<bool>,
}

/// The other end of [`Requests`]: makes HTTP/2 begin.
#[derive(Debug)]
pub(super) struct Starter {
    ready: watch::Sender<Option<SendRequest<Bytes>>>,
    wanted: Arc<Notify>,
    settled: Arc<watch::Sender<bool>>,
}

impl Requests {
    pub(super) fn new() -> (Self, Starter) {
        let (sender, ready) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        let (settle, settled) = watch::channel(false);
        let starter = Starter { ready: sender, wanted: Arc::clone(&wanted), settled: Arc::new(settle) };
        (Self { ready, wanted, settled }, starter)
    }

    /// The way into HTTP/2, once that has begun.
    async fn sender(&self) -> Result<SendRequest<Bytes>, TunnelLost> {
        let ready = self.ready.borrow().clone();
        if let Some(sender) = ready {
            return Ok(sender);
        }
        self.wanted.notify_one();
        let mut ready = self.ready.clone();
        let sender = ready.wait_for(Option::is_some).await;
        sender.ok().and_then(|sender| sender.clone()).ok_or_else(|| TunnelLost("it is gone".into()))
    }
}

impl Requests {
    /// Resolves once the initiator's SETTINGS are known. Cancel safe.
    pub(super) async fn settled(&self) -> Result<(), TunnelLost> {
        let mut settled = self.settled.clone();
        settled.wait_for(|settled| *settled).await.map(drop).map_err(|_| TunnelLost("it is gone".into()))
    }
}

impl Starter {
    /// Tells that the initiator has said something over HTTP/2.
    pub(super) fn settles(&self) -> Arc<watch::Sender<bool>> {
        Arc::clone(&self.settled)
    }

    /// Resolves when somebody wants to send a request. Cancel safe.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// HTTP/2 has begun.
    pub(super) fn begin(&self, sender: SendRequest<Bytes>) {
        self.ready.send_replace(Some(sender));
    }

    /// No request is handed to HTTP/2 any more.
    pub(super) fn end(self) {
        self.ready.send_replace(None);
    }
}

impl Connection {
    /// The way into HTTP/2, once it has begun and the other end takes the stream of an exchange that is counted as under
    /// way. HTTP/2 itself would take any number of requests, and keep those for which there is no stream.
    pub(super) async fn stream_slot(&self) -> Result<SendRequest<Bytes>, OpenError> {
        let mut sender = self.requests.sender().await.map_err(OpenError::NotSent)?;
        if !self.state.has_stream(self.most_streams(&sender)) {
            // Rare, and apart from the future of every exchange.
            let stream = self.state.stream(|| self.most_streams(&sender));
            Box::pin(self.state.wait_for_room(stream)).await.ok_or(OpenError::NoRoom)?;
        }
        self.state.note_stream();
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) => Err(self.not_sent(&error)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(sender),
        }
    }

    /// How many exchanges the other end takes at once by now. The control stream is one of the streams that it allows.
    fn most_streams(&self, sender: &SendRequest<Bytes>) -> usize {
        let control = usize::from(self.dialect == Dialect::Adit);
        sender.current_max_send_streams().saturating_sub(control)
    }

    /// After a GOAWAY the connection takes no request, and is no tunnel of ours, however well it is otherwise; an Envoy
    /// drains with it. spec: TB-11
    pub(super) fn not_sent(&self, error: &h2::Error) -> OpenError {
        if self.dialect == Dialect::Adit && error.is_go_away() && error.is_remote() {
            let text = "the initiator sent GOAWAY".to_owned();
            // A full queue belongs to a driver that is busy; the next request says it again.
            let _ = self.commands.try_send(Command::Close(CloseReason { code: CloseCode::Protocol, text }));
        }
        OpenError::NotSent(lost(error))
    }

    pub(crate) fn transport(&self) -> TransportKind {
        match self.dialect {
            Dialect::Adit => TransportKind::Tcp,
            Dialect::Envoy => TransportKind::Envoy,
        }
    }

    pub(crate) fn snapshot(&self) -> TunnelSnapshot {
        TunnelSnapshot {
            bytes_sent: self.meter.sent(),
            bytes_received: self.meter.received(),
            ..self.state.snapshot(self.transport(), self.remote)
        }
    }
}
