//! How large heads may be on a connection that is open, which its listener may change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::egress::Settings;

/// How large the next head of a connection may be.
#[derive(Debug)]
pub(super) struct HeadBounds {
    bytes: AtomicUsize,
    fields: AtomicUsize,
}

impl HeadBounds {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        let (bytes, fields) = (settings.max_head_bytes.into(), settings.max_head_fields.into());
        Arc::new(Self { bytes, fields })
    }

    /// From now on as these say.
    pub(super) fn put(&self, settings: &Settings) {
        self.bytes.store(settings.max_head_bytes, Ordering::Relaxed);
        self.fields.store(settings.max_head_fields, Ordering::Relaxed);
    }

    /// Bytes and fields.
    pub(super) fn get(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.fields.load(Ordering::Relaxed))
    }
}
