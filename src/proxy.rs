//! Moving one exchange: what a proxy adds and removes, how it matches, and how it fails.
//!
//! Row 7: knows HTTP and [`transport`](crate::transport), never chooses a tunnel and never reads a configuration.

pub mod failure;
pub mod forward;
pub mod opener;
pub mod pattern;
