//! A peer with a valid certificate that breaks every rule it can: it loses its own tunnel, or its own stream, and nobody
//! else notices.
//!
//! These peers speak QUIC or HTTP/2 by hand, so nothing here is repeated per transport.

mod crowd;
mod exchanges;
mod initiator;
mod raw;
mod responder;
mod tcp;
mod victim;
