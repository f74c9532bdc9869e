//! `connect` of a listener: which services its clients may ask for with CONNECT.

use serde::ser::{Serialize, Serializer};

use crate::config::reader::At;
use crate::routing::Connect;

const FORMS: &str = "true, false, or a list of services";

/// `true`, `false`, or a list of services.
pub(super) fn connect(at: At<'_>) -> Option<Connect> {
    if at.is_list() {
        return at.list(|item| item.parsed()).map(Connect::Services);
    }
    at.understood(FORMS, |text| match text {
        "true" => Some(Connect::All),
        "false" => Some(Connect::Off),
        _ => None,
    })
}

/// As it is written in a file.
pub(super) fn as_written<S: Serializer>(connect: &Connect, serializer: S) -> Result<S::Ok, S::Error> {
    match connect {
        Connect::Off => false.serialize(serializer),
        Connect::All => true.serialize(serializer),
        Connect::Services(names) => serializer.collect_seq(names.iter().map(ToString::to_string)),
    }
}
