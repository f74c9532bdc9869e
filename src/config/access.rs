//! `access_log`: of a listener, or of an initiator.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::config::reader::At;
use crate::proxy::AccessLog;

/// `true`, `false`, or `{ query: true }`.
pub(super) fn access_log(at: At<'_>) -> Option<AccessLog> {
    if !at.is_section() {
        return at.understood("true, false, or { query: true }", |text| text.parse::<bool>().ok().map(AccessLog::from));
    }
    at.section(|section| {
        let query = section.or("query", false, |at| at.boolean());
        Some(if query { AccessLog::WithQuery } else { AccessLog::On })
    })
}

/// As it is written in a file.
pub(super) fn as_written<S: Serializer>(log: &AccessLog, serializer: S) -> Result<S::Ok, S::Error> {
    match log {
        AccessLog::Off => false.serialize(serializer),
        AccessLog::On => true.serialize(serializer),
        AccessLog::WithQuery => {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry("query", &true)?;
            map.end()
        }
    }
}
