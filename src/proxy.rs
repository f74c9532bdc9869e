//! Moving one exchange, and deciding whether a message is fit to be moved at all.
//!
//! Row 7: uses `transport` and the rows above it; never chooses a tunnel, never reads configuration.

pub mod validate;
