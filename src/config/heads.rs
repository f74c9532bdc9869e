//! `limits` of a role: how large the message heads may be that it takes.

use serde::Serialize;

use crate::config::reader::At;
use crate::protocol::limits::{DEFAULT_HEAD_BYTES, DEFAULT_HEAD_FIELDS, Limits, MIN_HEAD_BYTES, MIN_HEAD_FIELDS};

const MAX_BYTES: u64 = 1 << 20;
/// With what tunnels add, as many as the codecs count.
const MAX_FIELDS: u32 = 240;

/// `limits`: of a responder, what the answers of its sites may have; of an initiator, what the answers of its targets and the
/// requests of its responders may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HeadLimits {
    /// `head_bytes`: the largest head or trailer section, 4 KiB to 1 MiB. Default 64 KiB. Each stream may hold as much.
    pub head_bytes: usize,
    /// `head_fields`: the most fields in one, 32 to 240. Default 100.
    pub head_fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes: DEFAULT_HEAD_BYTES as usize, head_fields: DEFAULT_HEAD_FIELDS as usize }
    }
}

impl HeadLimits {
    /// What is announced to the other end of a tunnel: these, and room for what it adds.
    pub fn announced(self) -> Limits {
        Limits { head_bytes: self.head_bytes, head_fields: self.head_fields }.with_room()
    }
}

/// Reads the section.
pub(super) fn head_limits(at: At<'_>) -> Option<HeadLimits> {
    at.section(|section| {
        let standard = HeadLimits::default();
        Some(HeadLimits {
            head_bytes: section.or("head_bytes", standard.head_bytes, |at| at.size(MIN_HEAD_BYTES.into()..=MAX_BYTES)),
            head_fields: section.or("head_fields", standard.head_fields, |at| {
                at.count(MIN_HEAD_FIELDS..=MAX_FIELDS).and_then(|fields| usize::try_from(fields).ok())
            }),
        })
    })
}
