//! Holds the code to what is written down: the layout, the dependency policy.
#![allow(clippy::unwrap_used)]

mod dependencies;
mod layering;
