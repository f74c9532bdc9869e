//! The control stream inside HTTP/2, and the task that moves the connection's bytes.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::StatusCode;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::net::Paced;
use crate::protocol::code::CloseCode;
use crate::transport::control::{Channel, Pulse};
use crate::transport::credit::Lend;
use crate::transport::error::peer_text;
use crate::transport::state::CloseReason;
use crate::transport::tcp::handshake::{CLOSE_LINGER, close_frame};
use crate::transport::tcp::window::Window;
use crate::transport::tcp::wire::Meter;

/// The connection as its task tells of it, and the way to end that task.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    ended: watch::Receiver<Option<CloseReason>>,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Carrier {
    /// Runs `connection`, which moves the bytes of all streams, in a task of its own. Once stopped, it may go on for as
    /// long as the last words need.
    pub(super) fn run(connection: impl Future<Output = CloseReason> + Send + 'static) -> Self {
        let (sender, ended) = watch::channel(None);
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, aborted) = (stop.clone(), abort.clone());
        tokio::spawn(async move {
            let mut connection = Box::pin(connection);
            let reason = tokio::select! {
                reason = &mut connection => Some(reason),
                () = aborted.cancelled() => None,
                () = stopped.cancelled() => tokio::select! {
                    last = timeout(CLOSE_LINGER, &mut connection) => last.ok(),
                    () = aborted.cancelled() => None,
                },
            };
            drop(connection);
            sender.send_replace(Some(reason.unwrap_or_else(|| done("closed"))));
        });
        Self { ended, stop, abort }
    }

    /// Resolves when the connection is gone. Cancel safe.
    pub(super) async fn gone(&self) -> CloseReason {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| done("closed")),
            Err(_) => CloseReason { code: CloseCode::Internal, text: "the connection's task is gone".into() },
        }
    }

    /// Ends the connection after its last words.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends the connection now.
    pub(super) fn abort(&self) {
        self.abort.cancel();
    }
}

fn done(text: &str) -> CloseReason {
    CloseReason { code: CloseCode::Done, text: text.to_owned() }
}

/// Control frames as the bodies of one request and its response. spec: TB-5
#[derive(Debug)]
pub(super) struct ControlStream {
    send: SendStream<Bytes>,
    recv: Receiving,
    carrier: Carrier,
    meter: Arc<Meter>,
    window: Window,
    /// Told once the peer has answered: its SETTINGS are known then.
    settles: Option<Arc<watch::Sender<bool>>>,
}

/// Where the peer's frames come from.
#[derive(Debug)]
pub(super) enum Receiving {
    /// The initiator has not taken the stream yet.
    Unanswered(ResponseFuture),
    Open(RecvStream),
}

/// The connection that the control stream is on: who moves its bytes, counts them and sets its window.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) carrier: Carrier,
    pub(super) meter: Arc<Meter>,
    pub(super) window: Window,
}

impl ControlStream {
    pub(super) fn new(send: SendStream<Bytes>, recv: Receiving, moved: Moved) -> Self {
        let Moved { carrier, meter, window } = moved;
        Self { send, recv, carrier, meter, window, settles: None }
    }

    /// The same, which tells when the peer has answered.
    pub(super) fn settling(mut self, settles: Arc<watch::Sender<bool>>) -> Self {
        self.settles = Some(settles);
        self
    }

    async fn opened(&mut self) -> Result<&mut RecvStream, NotOpened> {
        if let Receiving::Unanswered(response) = &mut self.recv {
            let response = response.await?;
            if response.status() != StatusCode::OK {
                return Err(NotOpened::Status(response.status()));
            }
            self.recv = Receiving::Open(response.into_body());
            if let Some(settles) = self.settles.take() {
                settles.send_replace(true);
            }
        }
        match &mut self.recv {
            Receiving::Open(recv) => Ok(recv),
            Receiving::Unanswered(_) => unreachable!("it was just replaced"),
        }
    }
}

/// Why the control stream is not there.
enum NotOpened {
    Http2(h2::Error),
    Status(StatusCode),
}

impl From<h2::Error> for NotOpened {
    fn from(error: h2::Error) -> Self {
        Self::Http2(error)
    }
}

impl Drop for ControlStream {
    fn drop(&mut self) {
        self.carrier.stop();
    }
}

impl Channel for ControlStream {
    /// Waits for the peer's window, so that a peer that does not read its control stream is not written to for ever. A
    /// stream that no longer sends was reset, or its connection is gone: reading tells which, and that is waited for.
    async fn send(&mut self, mut bytes: Bytes) -> Result<(), CloseReason> {
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let granted = tokio::select! {
                granted = poll_fn(|cx| self.send.poll_capacity(cx)) => granted,
                reason = self.carrier.gone() => return Err(reason),
            };
            let Some(Ok(granted)) = granted else { return Ok(()) };
            let piece = bytes.split_to(granted.min(bytes.len()));
            if self.send.send_data(piece, false).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, CloseReason> {
        let received = async {
            let recv = self.opened().await?;
            let bytes = recv.data().await.transpose()?;
            if let Some(bytes) = &bytes {
                // Fails only when the stream is gone, which the next read tells.
                let _ = recv.flow_control().release_capacity(bytes.len());
            }
            Ok::<_, NotOpened>(bytes)
        };
        match received.await {
            Ok(bytes) => Ok(bytes),
            Err(NotOpened::Http2(error)) if error.is_reset() => Ok(None),
            Err(NotOpened::Http2(error)) => Err(failed(&self.carrier, &error).await),
            Err(NotOpened::Status(status)) => {
                let text = format!("the initiator answered the control stream with {}", status.as_u16());
                let reason = CloseReason { code: CloseCode::Protocol, text };
                self.close(&reason, false).await;
                Err(reason)
            }
        }
    }

    async fn gone(&self) -> CloseReason {
        self.carrier.gone().await
    }

    /// Every byte that TLS let through was written by the application at the other end. spec: TB-9
    fn heard(&mut self) -> u64 {
        self.meter.received()
    }

    fn pulse(&self) -> Pulse {
        let meter = Arc::clone(&self.meter);
        Box::new(move || meter.received())
    }

    fn rtt(&self) -> Option<Duration> {
        None
    }

    fn lend(&self) -> Lend {
        self.window.lend()
    }

    async fn close(&mut self, reason: &CloseReason, by_peer: bool) {
        if by_peer {
            return self.carrier.abort();
        }
        // Small enough to wait in the stream's buffer; a stream that is gone needs no last words.
        let _ = self.send.send_data(close_frame(reason), true);
        self.carrier.stop();
    }

    /// The stream must not be dropped before its last frame has left: that would cancel it.
    async fn linger(&mut self) {
        self.carrier.stop();
        // It ends the connection by then, if it still runs.
        let _ = timeout(2 * CLOSE_LINGER, self.carrier.gone()).await;
    }
}

/// What ended the connection says more than the stream that noticed.
async fn failed(carrier: &Carrier, error: &h2::Error) -> CloseReason {
    match timeout(CLOSE_LINGER, carrier.gone()).await {
        Ok(reason) => reason,
        Err(_) => ended(error),
    }
}

/// What the end of an HTTP/2 connection says about the tunnel that it was.
pub(super) fn ended(error: &h2::Error) -> CloseReason {
    let code = match (error.is_remote(), error.get_io()) {
        (_, Some(error)) if Paced::is_flood(error) => CloseCode::Limit,
        (false, None) => CloseCode::Protocol,
        _ => CloseCode::Internal,
    };
    CloseReason { code, text: peer_text(error.to_string().as_bytes()) }
}
