//! Holds the code to `proto-spec/`: its vectors, its numbers, its requirements. No runtime, no network.
#![allow(clippy::unwrap_used)]

mod dependencies;
mod layering;
mod public_api;
mod registry;
mod requirements;
mod tools;
mod vector_file;
mod vectors;
