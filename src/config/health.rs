//! `services[].health`: how a target is checked.

use std::time::Duration;

use http::StatusCode;
use http::uri::PathAndQuery;
use serde::{Serialize, Serializer};

use crate::config::reader::At;
use crate::config::scalar::show_duration;
use crate::initiator::health::CheckRules;
use crate::initiator::serve::{Asks, HealthCheck};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_HEALTHY_AFTER: u32 = 2;
const DEFAULT_UNHEALTHY_AFTER: u32 = 3;
const MOST_IN_ROW: u32 = 100;
const LEAST: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

const PATH_FORM: &str = "a path with its query, if it has one, such as /healthz";
const STATUS_FORM: &str = "a status from 200 to 599";

/// Reads the section; `is_raw`: the target takes bytes, and no requests.
pub(super) fn check(at: At<'_>, is_raw: bool) -> Option<HealthCheck> {
    at.section(|section| {
        let path = section.optional("path", |at| {
            if is_raw {
                at.wrong(
                    "is about requests, and the target takes none; expected no path: it is asked for a connection",
                );
                return None;
            }
            at.understood(PATH_FORM, |text| PathAndQuery::try_from(text).ok().filter(|_| text.starts_with('/')))
        });
        let status = section.optional("status", |at| at.understood(STATUS_FORM, status));
        if let Some(at) = section.find("status").filter(|_| !section.has("path")) {
            at.wrong("is what a request is answered, and none is sent; expected path beside it");
        }
        let interval = section.or("interval", DEFAULT_INTERVAL, |at| at.duration(LEAST..=LONGEST_INTERVAL));
        let timeout = section.or("timeout", DEFAULT_TIMEOUT, |at| at.duration(LEAST..=LONGEST_TIMEOUT));
        let healthy_after = section.or("healthy_after", DEFAULT_HEALTHY_AFTER, |at| at.count(1..=MOST_IN_ROW));
        let unhealthy_after = section.or("unhealthy_after", DEFAULT_UNHEALTHY_AFTER, |at| at.count(1..=MOST_IN_ROW));
        let asks = path.map_or(Asks::Connect, |path| Asks::Get { path, status });
        Some(HealthCheck { asks, rules: CheckRules { interval, healthy_after, unhealthy_after }, timeout })
    })
}

fn status(text: &str) -> Option<StatusCode> {
    let number = text.parse().ok().filter(|number| (200..600).contains(number))?;
    StatusCode::from_u16(number).ok()
}

/// The check as it would be written.
pub(super) fn as_written<S: Serializer>(check: &Option<HealthCheck>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        interval: String,
        timeout: String,
        healthy_after: u32,
        unhealthy_after: u32,
    }
    let Some(HealthCheck { asks, rules, timeout }) = check else { return serializer.serialize_none() };
    let (path, status) = match asks {
        Asks::Connect => (None, None),
        Asks::Get { path, status } => (Some(path.as_str()), status.map(|status| status.as_u16())),
    };
    Shown {
        path,
        status,
        interval: show_duration(rules.interval),
        timeout: show_duration(*timeout),
        healthy_after: rules.healthy_after,
        unhealthy_after: rules.unhealthy_after,
    }
    .serialize(serializer)
}
