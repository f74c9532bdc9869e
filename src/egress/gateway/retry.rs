//! Bringing one request through: on one tunnel, or on another where that does no harm.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, request};
use http_body::Body;

use super::upload::Upload;
use crate::id::TunnelId;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::StreamCode;
use crate::proxy::opener::Opener;
use crate::registry::NoTunnel;
use crate::routing::{Destination, Directory, Hold};
use crate::transport::ExchangeError;

/// On how many tunnels a request is tried at most. Those beyond would not be any better.
const MAX_ATTEMPTS: usize = 4;
/// When to ask again for a node that was never seen: it has to be installed or started first.
const UNKNOWN_RETRY_AFTER: Duration = Duration::from_secs(5);
/// When to ask again for a node that is reconnecting.
const RECONNECT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The attempts at one request.
pub(super) struct Attempts<'a, T> {
    directory: &'a Directory<T>,
    to: &'a Destination,
    head: &'a request::Parts,
    hold: Hold,
    tried: Vec<TunnelId>,
    lost_one: bool,
}

impl<'a, T: Opener> Attempts<'a, T> {
    pub(super) fn new(
        directory: &'a Directory<T>,
        to: &'a Destination,
        head: &'a request::Parts,
        hold: Duration,
    ) -> Self {
        Self { directory, to, head, hold: Hold::new(hold), tried: Vec::new(), lost_one: false }
    }

    /// Tries until there is a response, or until another attempt could do harm or is of no use.
    pub(super) async fn run<B>(&mut self, upload: Upload<B>) -> Result<Response<T::Body>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let empty = upload.is_empty();
        let mut body = Some(upload);
        let mut last: Option<Failure> = None;
        loop {
            let tunnel = match self.directory.find(self.to, &self.tried, &mut self.hold).await {
                Ok(tunnel) => tunnel,
                // What went wrong on the tunnels that there were says more than that there is no other.
                Err(reason) => return Err(last.unwrap_or_else(|| self.no_tunnel(reason))),
            };
            self.tried.push(tunnel.id());
            let error = match tunnel.exchange(self.to.service.as_ref(), self.head, &mut body).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if empty {
                body = Some(Upload::Empty);
            }
            let again = self.may_try_again(&error, body.is_some());
            let failure = failure(&error);
            if !again {
                return Err(failure);
            }
            tracing::debug!(tunnel = %tunnel.id(), cause = failure.cause().label(), "trying another tunnel");
            last = Some(failure);
        }
    }

    /// Whether a second attempt does no harm. `whole`: all of the body is still to be sent.
    fn may_try_again(&mut self, error: &ExchangeError, whole: bool) -> bool {
        let harmless = match error {
            ExchangeError::TunnelLost(_) => {
                self.head.method.is_idempotent() && !std::mem::replace(&mut self.lost_one, true)
            }
            error => is_unprocessed(error),
        };
        harmless && whole && self.tried.len() < MAX_ATTEMPTS
    }

    fn no_tunnel(&self, reason: NoTunnel) -> Failure {
        let host_id = &self.to.host_id;
        match reason {
            NoTunnel::Unknown => {
                let details = format!("no node or cluster {host_id} is connected");
                Failure::new(Cause::UnknownHost, details).retry_after(UNKNOWN_RETRY_AFTER)
            }
            NoTunnel::Reconnecting => no_tunnel(format!("{host_id} is reconnecting")),
            NoTunnel::AllAvoided => no_tunnel(format!("no tunnel of {host_id} takes the request")),
        }
    }
}

/// Whether the other end has certainly not begun with the request.
fn is_unprocessed(error: &ExchangeError) -> bool {
    use ExchangeError as E;
    matches!(error, E::NotSent(_) | E::Rejected | E::Reset(StreamCode::Rejected))
}

fn no_tunnel(details: String) -> Failure {
    Failure::new(Cause::NoTunnel, details).retry_after(RECONNECT_RETRY_AFTER)
}

/// What the client is told of an error on a tunnel.
fn failure(error: &ExchangeError) -> Failure {
    if is_unprocessed(error) {
        return no_tunnel(format!("the tunnel did not take the request: {error}"));
    }
    let cause = match error {
        ExchangeError::TunnelLost(_) => Cause::TunnelLost,
        ExchangeError::Protocol(_) => Cause::PeerProtocol,
        ExchangeError::Request(_) => Cause::BadRequest,
        ExchangeError::HeadTooLarge => Cause::HeadTooLarge,
        ExchangeError::NoNamedServices => Cause::UnknownService,
        _ => Cause::PeerReset,
    };
    Failure::new(cause, error.to_string())
}
