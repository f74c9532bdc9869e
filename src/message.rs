//! HTTP messages: each rule once, for every listener, transport and target.
//!
//! Row 2: no sockets, no tasks; knows neither tunnels nor roles. What is read from a peer is judged by [`validate`],
//! [`authority`], [`length`] and [`fields`], prepared for the next hop by [`forward`], [`cookie`] and [`rewrite`], believed as
//! far as [`trust`] goes, matched by [`pattern`] and [`path`]; what fails is told by [`failure`], a rule that is broken by
//! [`violation`]. [`section`], [`response`] and [`chunked`] read HTTP/1,
//! [`persistence`] says how long its connection lasts, [`h3`] looks at HTTP/3 before its library does, [`h2`] moves
//! bodies over HTTP/2, [`interim`] holds responses before the response, [`queued`] tells when what was sent has left, `pieces` joins the
//! small pieces of a body.
//!
//! # Who does what, once in each direction
//!
//! | step | request | response |
//! |---|---|---|
//! | validated | by the codec that reads it ([`validate`]) | by the client of the target |
//! | normalised | by the same codec: absolute URI, no `Host`; [`forward::request`] only adds the authority that an HTTP/1.0 request may lack | nothing to do |
//! | freed of the fields of its hop | by [`forward::request`] | by the client of the target; by the adapter that calls somebody else's service |
//! | judged again | by the tunnel's receiver, who refuses what must not be there and strips nothing (ST-17) | by the tunnel's receiver, likewise |
//! | written | by the client of the target | by the codec, which passes nothing on that speaks of a connection |
//!
//! Interim responses lose the fields of their hop in [`interim::Queue`], trailers in [`h2::send`] or in the frame that
//! carries them. To strip where there is nothing to strip is one look at each name.

pub mod authority;
pub mod chunked;
pub mod connect;
pub mod cookie;
pub mod failure;
pub mod fields;
pub mod forward;
pub mod grpc;
pub mod h2;
pub mod h3;
pub mod interim;
pub mod length;
pub mod max_forwards;
mod name;
mod named;
pub mod path;
pub mod pattern;
pub mod persistence;
pub(crate) mod pieces;
pub mod queued;
pub mod response;
pub mod rewrite;
pub mod section;
pub mod source;
pub mod trust;
pub mod upgrade;
pub mod validate;
pub mod violation;

/// A boxed error of someone else's code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
