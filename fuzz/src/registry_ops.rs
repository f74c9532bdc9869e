//! The registry beside a naive model.

use ::adit;

// The property test of the crate runs the same model.
#[path = "../../src/registry/tests/model.rs"]
mod model;

/// The same answers as the model's to any sequence of operations, and nothing left at the end.
pub fn registry_ops(data: &[u8]) {
    model::run(data);
}
