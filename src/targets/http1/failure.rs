//! What an exchange over HTTP/1.1 fails of, in words.

use std::borrow::Cow;
use std::io;

use crate::message::failure::{Cause, Failure};
use crate::message::violation::Violation;
use crate::targets::tls;

/// The target's response breaks a rule or a limit. The texts of [`Violation`] speak of requests where they name a limit.
pub(super) fn broken(violation: Violation) -> Failure {
    let (cause, details): (_, Cow<'static, str>) = match violation {
        Violation::HeadTooLarge => (Cause::TargetHeadTooLarge, "the head of the target's response is too large".into()),
        Violation::TooManyFields => (Cause::TargetHeadTooLarge, "the target's response has too many fields".into()),
        Violation::Syntax => (Cause::TargetProtocol, "the target's response is not HTTP/1".into()),
        other => (Cause::TargetProtocol, format!("the target's response breaks HTTP: {other}").into()),
    };
    Failure::new(cause, details)
}

/// The head of the target's response breaks a rule or one of these limits, of bytes and fields.
pub(super) fn broken_head(violation: Violation, (bytes, fields): (usize, usize)) -> Failure {
    let details = match violation {
        Violation::HeadTooLarge => {
            format!("the head of the target's response has more than {bytes} bytes (initiator.limits.head_bytes)")
        }
        Violation::TooManyFields => {
            format!("the target's response has more than {fields} fields (initiator.limits.head_fields)")
        }
        other => return broken(other),
    };
    Failure::new(Cause::TargetHeadTooLarge, details)
}

/// The target closed the connection before `what`, or the connection failed.
pub(super) fn closed(error: Option<&io::Error>, what: &str) -> Failure {
    // A certificate of this end is judged after its own handshake is done.
    if let Some(failure) = error.and_then(tls::failure) {
        return failure;
    }
    let details = match error {
        None => format!("the target closed the connection before {what}"),
        Some(error) => format!("the connection to the target failed before {what}: {error}"),
    };
    Failure::new(Cause::TargetClosed, details)
}
