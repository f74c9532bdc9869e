//! What is looked at of HTTP/3 before its library reads it: frames, and the field sections in them.
//!
//! The `h3` crate keeps whatever length a frame says, takes pseudo-fields twice, late and where they must not be, and takes the
//! end of a stream inside of DATA for the end of the body. So every stream of a peer passes a watcher first. It hands on
//! frames that are whole, known and bounded, and says what is wrong with the others; a request that must not go on is
//! replaced by one that is harmless, so that it can be answered like any other. RFC 9114, RFC 9204
//!
//! Sans-IO: bytes go in as they are read and come out as they may be read on.

pub mod control;
pub mod early;
mod frame;
mod instructions;
pub mod request;
pub mod section;
