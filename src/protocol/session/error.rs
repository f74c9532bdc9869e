//! What can go wrong in a session: the peer's faults, and ours.

use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::control::{FrameError, FrameType};
use crate::protocol::session::phase::State;

/// The peer broke the protocol of the control stream; the session is closed and says so in its outputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Its bytes are not frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame that this end must not get, or not now. spec: CT-5
    #[error("{} is out of place while {state}", frame.name())]
    Unexpected {
        /// The frame.
        frame: FrameType,
        /// Where the session stood.
        state: State,
    },
    /// A PONG that answers no PING. spec: CT-13
    #[error("PONG answers no PING")]
    UnknownProbe,
    /// A REAUTHED that answers no REAUTH. spec: CT-56
    #[error("REAUTHED answers no REAUTH")]
    UnknownReauth,
    /// WELCOME chose a version that HELLO did not offer. spec: HS-9
    #[error("WELCOME chose version {0}, which was not offered")]
    Version(u32),
    /// It sends far more frames than anybody needs. spec: SE-14
    #[error("the peer floods the control stream with frames")]
    Flood,
    /// The control stream ended although the tunnel did not. spec: CT-6
    #[error("the control stream ended")]
    ControlEnded,
}

impl SessionError {
    /// The code to close the tunnel with, once it is open. spec: ER-2
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Frame(FrameError::TooLong { .. }) | Self::Flood => CloseCode::Limit,
            _ => CloseCode::Protocol,
        }
    }

    /// The number to refuse with, while the handshake lasts. spec: HS-7, HS-8
    pub const fn refusal_code(&self) -> RefusalCode {
        match self {
            Self::Frame(FrameError::Hello(error)) => error.code(),
            _ => RefusalCode::Malformed,
        }
    }
}

/// The caller asked for what the session's state does not allow; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call} is not possible while {state}")]
pub struct IllegalCall {
    /// What was asked for.
    pub call: &'static str,
    /// Where the session stands.
    pub state: State,
}
