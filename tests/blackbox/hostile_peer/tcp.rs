//! The same over TCP, where TLS, bare frames and HTTP/2 are three places to misbehave in.

mod initiator;
mod peer;
mod responder;
mod somebody_between;

pub(super) use peer::Peer;
