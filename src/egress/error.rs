//! What can go wrong with the body of a request.

use h2::Reason;

use crate::message::BoxError;
use crate::message::h2::recv::RecvError;
use crate::message::violation::{ErrorCode, Violation};

/// Why a request body ended early. It is incomplete then, and must not be taken for a whole one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The sender went away.
    #[error("the sender of the request is gone")]
    Disconnected,
    /// The sender broke a rule in the middle of the body.
    #[error("the request body is invalid: {0}")]
    Invalid(Violation),
    /// The HTTP/2 stream failed.
    #[error("the stream of the request failed")]
    Stream(#[source] BoxError),
}

impl From<RecvError> for BodyError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Stopped(Reason::CANCEL) => Self::Disconnected,
            RecvError::Lost(error) if error.is_io() => Self::Disconnected,
            RecvError::Trailers(violation) => Self::Invalid(violation),
            RecvError::Length => Self::Invalid(Violation::BodyLength),
            RecvError::Protocol(error) => Self::Invalid(Violation::Reset(code(&error))),
            other => Self::Stream(other.into()),
        }
    }
}

/// The code of an error that has one.
pub(super) fn code(error: &h2::Error) -> ErrorCode {
    ErrorCode::Http2(error.reason().unwrap_or(Reason::PROTOCOL_ERROR).into())
}
