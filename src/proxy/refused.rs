//! How an initiator says, in a response of its own, that no target has got the request. spec: ST-45

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::message::failure::Cause;
use crate::protocol::code::OpenCause;

/// The field of a response inside a tunnel that says so; its value is a cause of ER-9, in digits. spec: ST-45
pub(crate) const REFUSED_FIELD: HeaderName = HeaderName::from_static("adit-refused");

/// What a responder is told of a failure after which no target has got anything; `None`: one may have. spec: ER-9
pub(crate) const fn cause_of(failure: Cause) -> Option<OpenCause> {
    match failure {
        Cause::ServiceFull => Some(OpenCause::Limit),
        Cause::TargetRefused => Some(OpenCause::TargetRefused),
        Cause::TargetDns | Cause::TargetUnreachable => Some(OpenCause::TargetUnreachable),
        Cause::TargetTimeout => Some(OpenCause::TargetTimedOut),
        _ => None,
    }
}

/// Whether another node of the cluster may do what this one refused for such a cause. spec: ER-9
pub(super) const fn may_go_elsewhere(cause: OpenCause) -> bool {
    use OpenCause as C;
    matches!(cause, C::Limit | C::TargetRefused | C::TargetUnreachable | C::TargetTimedOut)
}

/// Says in the head of an answer that no target has got the request, and why, or nothing of the sort: a target has no say in it.
pub(crate) fn note(cause: Option<OpenCause>, fields: &mut HeaderMap) {
    match cause {
        Some(cause) => drop(fields.insert(REFUSED_FIELD, HeaderValue::from(cause.number()))),
        None => drop(fields.remove(REFUSED_FIELD)),
    }
}

/// What a response says of that, which is for nobody else to see; `None`: a target may have got the request.
pub(super) fn take(fields: &mut HeaderMap) -> Option<OpenCause> {
    let value = fields.remove(REFUSED_FIELD)?;
    let number = value.to_str().ok()?.parse().ok()?;
    OpenCause::from_number(number).filter(|cause| may_go_elsewhere(*cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: ST-45
    #[test]
    fn what_is_noted_of_a_failure_is_what_is_taken() {
        for cause in Cause::ALL {
            let mut fields = HeaderMap::new();
            note(cause_of(cause), &mut fields);
            assert_eq!(take(&mut fields), cause_of(cause), "{cause:?}");
            assert!(fields.is_empty());
        }
    }

    // spec: ST-45
    #[test]
    fn what_a_target_wrote_is_gone() {
        let mut fields = HeaderMap::from_iter([(REFUSED_FIELD, HeaderValue::from_static("7"))]);
        note(None, &mut fields);
        assert!(fields.is_empty());
    }

    #[test]
    fn what_is_no_such_cause_says_nothing_and_is_gone_too() {
        for value in ["", "1", "2", "99", "x", "-7", "7, 7"] {
            let mut fields = HeaderMap::from_iter([(REFUSED_FIELD, HeaderValue::from_static(value))]);
            assert_eq!((take(&mut fields), fields.len()), (None, 0), "{value:?}");
        }
    }
}
