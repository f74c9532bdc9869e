//! Where rules forward to: plain upstreams, outside of any tunnel.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::targets::{Target, TargetBody, TargetClient, TargetSettings};
use crate::tls::TlsError;
use crate::transport::BodyError;

/// A server that takes requests, with the connections to it. It is reached as a target of an initiator is.
pub struct Upstream {
    target: Arc<str>,
    pub(super) client: TargetClient,
}

impl Upstream {
    /// One without a connection yet; the first request makes one.
    ///
    /// # Errors
    /// The settings of TLS to it cannot be used.
    pub fn new(target: &Target, settings: TargetSettings) -> Result<Self, TlsError> {
        Ok(Self { target: target.to_string().into(), client: TargetClient::new(target, settings)? })
    }

    /// Where it is, as it is written.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.target).finish()
    }
}

/// The body of a response: what came through a tunnel, or from an upstream.
pub(super) enum Inbound<B> {
    Tunnel(B),
    Upstream(Box<TargetBody>),
}

impl<B> fmt::Debug for Inbound<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Tunnel(_)) { "Tunnel" } else { "Upstream" })
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Inbound<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Tunnel(body) => Pin::new(body).poll_frame(cx),
            Self::Upstream(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BodyError::Upstream)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Tunnel(body) => body.is_end_stream(),
            Self::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Tunnel(body) => body.size_hint(),
            Self::Upstream(body) => body.size_hint(),
        }
    }
}
