//! The one contract of the three transports: how a connection becomes a tunnel at either end.
//!
//! A responder hears a claim ([`Claimed`]), prepares the tunnel or refuses, and welcomes it or refuses still
//! ([`Unwelcomed`]). An initiator that was admitted runs what it got ([`Admitted`]). Opening is the tunnel's own.

use std::future::Future;
use std::sync::Arc;

use crate::protocol::handshake::{Refusal, Welcome};
use crate::transport::arrival::Accept;
use crate::transport::kind::TransportKind;
use crate::transport::state::{CloseReason, TunnelState};
use crate::transport::tunnel::Tunnel;

/// A connection whose claim was heard.
pub(super) trait Claimed {
    /// The tunnel that becomes of it.
    type Unwelcomed: Unwelcomed;

    /// Makes the tunnel's handle.
    fn prepare(self, state: Arc<TunnelState>) -> (Tunnel, Self::Unwelcomed);

    /// Says no, waits until that arrived and closes.
    fn refuse(self, refusal: &Refusal) -> impl Future<Output = ()> + Send;
}

/// A tunnel that the initiator has not heard of yet.
pub(super) trait Unwelcomed {
    /// Says yes and drives the tunnel until it is gone.
    fn welcome(self, welcome: &Welcome) -> impl Future<Output = CloseReason> + Send;

    /// Says no, waits until that arrived and closes.
    fn refuse(self, refusal: &Refusal) -> impl Future<Output = ()> + Send;
}

/// A tunnel that the responder has welcomed.
pub(super) trait Admitted {
    /// Hands over what the responder opens until the tunnel is gone.
    fn run<A: Accept>(self, accept: A) -> impl Future<Output = CloseReason> + Send;
}

/// What one of the three transports has.
#[derive(Debug)]
pub(super) enum Link<Q, T, E> {
    Quic(Box<Q>),
    Tcp(Box<T>),
    Envoy(Box<E>),
}

impl<Q, T, E> Link<Q, T, E> {
    pub(super) const fn kind(&self) -> TransportKind {
        match self {
            Self::Quic(_) => TransportKind::Quic,
            Self::Tcp(_) => TransportKind::Tcp,
            Self::Envoy(_) => TransportKind::Envoy,
        }
    }
}

/// What becomes of a link once its tunnel is prepared.
type Prepared<Q, T, E> = Link<<Q as Claimed>::Unwelcomed, <T as Claimed>::Unwelcomed, <E as Claimed>::Unwelcomed>;

impl<Q: Claimed, T: Claimed, E: Claimed> Link<Q, T, E> {
    pub(super) fn prepare(self, state: Arc<TunnelState>) -> (Tunnel, Prepared<Q, T, E>) {
        match self {
            Self::Quic(claimed) => {
                let (tunnel, prepared) = claimed.prepare(state);
                (tunnel, Link::Quic(Box::new(prepared)))
            }
            Self::Tcp(claimed) => {
                let (tunnel, prepared) = claimed.prepare(state);
                (tunnel, Link::Tcp(Box::new(prepared)))
            }
            Self::Envoy(claimed) => {
                let (tunnel, prepared) = claimed.prepare(state);
                (tunnel, Link::Envoy(Box::new(prepared)))
            }
        }
    }
}
