//! Message bodies and response heads on streams of HTTP/2, the same for listeners, tunnels and targets.
//!
//! [`send`] moves a body into a stream, [`recv`] is the body that arrives on one, [`head`] waits for the head of a
//! response, [`mod@line`] keeps the order of those who wait for room, [`guard`] keeps a malformed head from ending its connection, and
//! with [`small`] a stream that nobody reads. None of them starts a task or opens a connection; what differs between the callers
//! (limits, patience, the code of a reset) is an argument.

pub mod guard;
pub mod head;
pub(super) mod hpack;
pub(super) mod huffman;
pub mod line;
pub mod recv;
pub mod send;
pub mod small;

#[cfg(test)]
mod tests;
