//! The wire, without I/O: codecs and state machines. See `proto-spec/`.
//!
//! Row 2: no tokio, quinn, sockets, files, clocks, randomness or metrics.

pub mod code;
pub mod handshake;
