//! Moving one exchange: whether a message is fit to be moved at all, what a proxy adds and removes, how it matches, and
//! how it fails.
//!
//! Row 7: uses [`transport`](crate::transport) and the rows above it; never chooses a tunnel, never reads configuration.

pub mod opener;
