//! The handshake's frames, straight on TLS: HELLO one way, WELCOME or REFUSE the other. HTTP/2 begins behind WELCOME.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::protocol::code::CloseCode;
use crate::protocol::control::{Close, Frame, frame_length};
use crate::transport::control::Channel;
use crate::transport::state::CloseReason;
use crate::transport::tcp::wire::{Meter, Secured, Wire};

/// How long the other end may take to read REFUSE, and to end the connection. spec: TB-10
pub(super) const REFUSE_LINGER: Duration = Duration::from_secs(3);
/// The same for CLOSE. spec: TB-10
pub(super) const CLOSE_LINGER: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 4 * 1024;

/// TLS that still carries bare control frames.
#[derive(Debug)]
pub(super) struct BareFrames {
    wire: Wire,
    /// What was read and is not handed on yet: less than a frame, or the start of HTTP/2.
    held: BytesMut,
    /// The TLS alert that ended the connection.
    alert: Option<rustls::AlertDescription>,
    /// The peer has ended its direction as TLS wants it.
    ended: bool,
}

impl BareFrames {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, held: BytesMut::new(), alert: None, ended: false }
    }

    /// What was read behind the frames that were handed on.
    pub(super) fn unread(&self) -> &[u8] {
        &self.held
    }

    /// The TLS alert that ended the connection, if one did.
    pub(super) const fn alert(&self) -> Option<rustls::AlertDescription> {
        self.alert
    }

    /// Whether the peer ended the connection in good order, and without a word.
    pub(super) fn was_given_up(&self) -> bool {
        self.ended && self.wire.meter().received() == 0
    }

    /// What TLS says about the connection.
    pub(super) fn secured(&self) -> Option<Secured> {
        self.wire.secured()
    }

    pub(super) fn meter(&self) -> Arc<Meter> {
        self.wire.meter()
    }

    /// The stream, where HTTP/2 begins.
    pub(super) fn into_wire(self) -> Wire {
        self.wire.unread(self.held.freeze())
    }

    /// One frame at a time, so that what follows it stays unread. spec: TB-4
    fn next(&mut self) -> Option<Bytes> {
        let length = frame_length(&self.held)?;
        (length > 0 && self.held.len() >= length).then(|| self.held.split_to(length).freeze())
    }
}

impl Channel for BareFrames {
    async fn send(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        let sent = async {
            self.wire.write_all(&bytes).await?;
            self.wire.flush().await
        };
        sent.await.map_err(|error| lost(&error))
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, CloseReason> {
        loop {
            if let Some(bytes) = self.next() {
                return Ok(Some(bytes));
            }
            self.held.reserve(READ_BYTES);
            match self.wire.read_buf(&mut self.held).await {
                Ok(0) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(_) => {}
                Err(error) => {
                    self.alert = alert(&error);
                    return Err(lost(&error));
                }
            }
        }
    }

    async fn gone(&self) -> CloseReason {
        CloseReason { code: CloseCode::Internal, text: "the connection ended".into() }
    }

    fn heard(&mut self) -> u64 {
        self.wire.meter().received()
    }

    fn rtt(&self) -> Option<Duration> {
        None
    }

    /// REFUSE has said all; any other end is told with CLOSE. Then the connection is ended, and read until the peer has
    /// ended it too: an end that closes over unread bytes resets, and a reset destroys what the peer has not read yet.
    async fn close(&mut self, reason: &CloseReason, by_peer: bool) {
        let refused = reason.code == CloseCode::Refused;
        let farewell = async {
            if !refused && !by_peer {
                self.send(close_frame(reason)).await.ok()?;
            }
            self.wire.shutdown().await.ok()?;
            while self.wire.read_buf(&mut self.held).await.ok()? > 0 {
                self.held.clear();
            }
            Some(())
        };
        // A peer that does not listen is not waited for.
        let _ = timeout(if refused { REFUSE_LINGER } else { CLOSE_LINGER }, farewell).await;
    }
}

fn alert(error: &std::io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// What tells the peer why the tunnel ends. spec: CT-34
pub(super) fn close_frame(reason: &CloseReason) -> Bytes {
    let mut out = BytesMut::new();
    Frame::Close(Close { code: reason.code.number().into(), reason: reason.text.clone() }).encode(&mut out);
    out.freeze()
}

/// The end of a connection that did not say why.
pub(super) fn lost(error: &std::io::Error) -> CloseReason {
    CloseReason { code: CloseCode::Internal, text: format!("the connection was lost: {error}") }
}
