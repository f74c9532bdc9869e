//! Which tunnel an arrival came through, and what is said of a stream that the transport refused by itself.

use std::borrow::Cow;

use http::StatusCode;

use crate::id::{PeerIdentity, Place, TunnelId};
use crate::message::failure::Cause;
use crate::message::violation::{ErrorCode, Violation};
use crate::protocol::code::StreamCode;
use crate::protocol::http2::Unheard;
use crate::protocol::stream::StreamError;
use crate::transport::kind::TransportKind;
use crate::transport::state::TunnelState;

/// The tunnel that something arrived through, for a look at it.
#[derive(Debug, Clone, Copy)]
pub struct TunnelFacts<'a>(&'a TunnelState);

impl<'a> TunnelFacts<'a> {
    pub(in crate::transport) const fn new(state: &'a TunnelState) -> Self {
        Self(state)
    }

    /// Its name at the responder; of a tunnel to an Envoy, which names none, one of our own.
    pub const fn id(self) -> TunnelId {
        self.0.id
    }

    /// Whose tunnel it is.
    pub const fn place(self) -> &'a Place {
        &self.0.place
    }

    /// What TLS proved of the responder that it leads to; `None` for a tunnel of an Envoy.
    pub fn peer(self) -> Option<&'a PeerIdentity> {
        self.0.peer()
    }

    /// What carries it.
    pub const fn transport(self) -> TransportKind {
        self.0.transport
    }
}

/// Why the transport refused a stream by itself. The stream is answered, or reset, already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRefusal {
    /// What it counts as.
    pub cause: Cause,
    /// The status it was answered with; `None`: it was reset.
    pub status: Option<StatusCode>,
    /// What exactly was wrong, for people.
    pub details: Cow<'static, str>,
}

impl StreamRefusal {
    /// It was reset with this code.
    pub(in crate::transport) fn reset(code: StreamCode, details: impl Into<Cow<'static, str>>) -> Self {
        let cause = match code {
            StreamCode::Limit => Cause::HeadTooLarge,
            _ => Cause::BadRequest,
        };
        Self { cause, status: None, details: details.into() }
    }

    /// There are as many of its kind as may be.
    pub(in crate::transport) fn full(details: impl Into<Cow<'static, str>>) -> Self {
        Self { cause: Cause::Quota, status: None, details: details.into() }
    }

    /// The heads of all its exchanges are more than this end holds. spec: SE-15
    pub(in crate::transport) fn heads() -> Self {
        Self::full("the tunnel's requests that wait have heads of more bytes than may be held")
    }

    /// What it sent breaks a rule, so it was reset.
    pub(in crate::transport) fn broken(error: &StreamError) -> Self {
        Self::reset(error.code(), error.to_string())
    }

    /// HTTP/2 has disposed of it by itself. spec: SE-44
    pub(in crate::transport) fn unheard(what: Unheard) -> Self {
        let violation = match what {
            Unheard::Answered => Violation::HeadTooLarge,
            Unheard::Reset(code) => Violation::Reset(ErrorCode::Http2(code)),
            Unheard::Cut => Violation::HeadCut,
        };
        let (cause, status) = match what {
            Unheard::Answered => (Cause::HeadTooLarge, Some(violation.status())),
            // RFC 9113 section 8.7
            Unheard::Reset(7) => (Cause::Quota, None),
            Unheard::Reset(_) => (Cause::BadRequest, None),
            Unheard::Cut => (Cause::RequestCut, None),
        };
        Self { cause, status, details: violation.to_string().into() }
    }

    /// It asked for a CONNECT that there is not. spec: ST-15, ST-25
    pub(in crate::transport) fn connect() -> Self {
        let details = Violation::Connect.to_string().into();
        Self { cause: Cause::BadRequest, status: Some(Violation::Connect.status()), details }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_over_a_limit_counts_as_such_and_another_as_a_bad_request() {
        assert_eq!(StreamRefusal::broken(&StreamError::Fields(Violation::HeadTooLarge)).cause, Cause::HeadTooLarge);
        assert_eq!(StreamRefusal::broken(&StreamError::Fields(Violation::Syntax)).cause, Cause::BadRequest);
        assert_eq!(StreamRefusal::connect().status, Some(StatusCode::NOT_IMPLEMENTED));
    }
}
