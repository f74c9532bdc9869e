//! The side that dials out, and serves what arrives towards local targets.
//!
//! Row 9: knows neither egress nor registry.

pub mod serve;
pub mod targets;
