//! HTTP messages: each rule once, for every listener, transport and target.
//!
//! Row 2: no sockets, no tasks; knows neither tunnels nor roles. What is read from a peer is judged by [`validate`],
//! loses the fields of its hop by [`fields`], is prepared for the next hop by [`forward`], matched by [`pattern`]; what
//! fails is told by [`failure`]. [`section`] and [`chunked`] read HTTP/1, [`h2`] moves bodies over HTTP/2, [`interim`]
//! holds responses before the response.

pub mod chunked;
pub mod failure;
pub mod fields;
pub mod forward;
pub mod h2;
pub mod interim;
pub mod pattern;
pub mod section;
pub mod validate;
pub mod violation;

/// A boxed error of someone else's code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
