//! Why an exchange failed, as everybody sees it: status, `Proxy-Status` (RFC 9209), one line of text, metric label.
//!
//! Both ends use it: the egress for what goes wrong up to the tunnel, the initiator for what goes wrong at the target.
//! Nothing here is ever put on a response whose head was already sent; such a response is reset instead.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode, response};

/// The field that names the cause. RFC 9209 section 2.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// How a call of gRPC ended.
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The most bytes of details that are shown; the rest is cut.
const MAX_DETAIL_BYTES: usize = 256;

/// What went wrong, from a small closed set: it decides status, RFC 9209 error type and metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The request breaks HTTP's rules.
    BadRequest,
    /// The request's head or trailers break a limit.
    HeadTooLarge,
    /// The request's own body failed before it was complete.
    RequestCut,
    /// The request's body did not come, or came too slowly.
    BodyTimeout,
    /// The request does not say which node or cluster it wants.
    NoHostId,
    /// No node or cluster of that name is known.
    UnknownHost,
    /// The node or cluster is known but no tunnel can take the request now.
    NoTunnel,
    /// Every tunnel of the node carries as many streams as it may.
    TunnelFull,
    /// A quota or a share is used up.
    Quota,
    /// The tunnel ended before the response was complete.
    TunnelLost,
    /// The other end of the tunnel reset the stream before the response was complete.
    PeerReset,
    /// The other end of the tunnel broke the protocol on this stream.
    PeerProtocol,
    /// Whoever reads the response took too little of it for too long.
    NotRead,
    /// No response began in time.
    Deadline,
    /// A response had begun, and then nothing moved any more in either direction.
    Idle,
    /// The listener does not let anybody ask for this.
    Denied,
    /// A server outside of any tunnel, to which a rule forwards, could not be had a moment ago, and nothing is sent to it.
    UpstreamDown,
    /// The service has no room at this initiator, or an upstream at this responder: a limit of its own is reached.
    ServiceFull,
    /// The initiator exports no such service, or not in the way that it was asked for.
    UnknownService,
    /// The target's name could not be resolved.
    TargetDns,
    /// The target refused the connection.
    TargetRefused,
    /// The target could not be reached for another reason.
    TargetUnreachable,
    /// The target did not accept the connection in time.
    TargetTimeout,
    /// The target closed the connection before a response began.
    TargetClosed,
    /// The target's certificate is not accepted.
    TargetTlsCertificate,
    /// The target ended TLS with an alert: it does not take what this end showed or asked for.
    TargetTlsAlert,
    /// The target does not speak TLS, or not as it was asked to.
    TargetTlsProtocol,
    /// The target's response breaks HTTP's rules.
    TargetProtocol,
    /// The head of the target's response breaks a limit.
    TargetHeadTooLarge,
    /// The target's response ended before it was complete.
    TargetCut,
    /// Nobody on the way carries the protocol that the request wants to go on in.
    UpgradeRefused,
    /// The target did not switch to the protocol that it was asked for, as it should have done or said.
    UpgradeFailed,
    /// The request has come through adit so often that it must be going round in circles.
    Loop,
    /// A fault of adit itself.
    Internal,
}

impl Cause {
    /// Every cause: the values of the metric label.
    pub const ALL: [Self; 34] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::RequestCut,
        Self::BodyTimeout,
        Self::NoHostId,
        Self::UnknownHost,
        Self::NoTunnel,
        Self::TunnelFull,
        Self::Quota,
        Self::TunnelLost,
        Self::PeerReset,
        Self::PeerProtocol,
        Self::NotRead,
        Self::Deadline,
        Self::Idle,
        Self::Denied,
        Self::UpstreamDown,
        Self::ServiceFull,
        Self::UnknownService,
        Self::TargetDns,
        Self::TargetRefused,
        Self::TargetUnreachable,
        Self::TargetTimeout,
        Self::TargetClosed,
        Self::TargetTlsCertificate,
        Self::TargetTlsAlert,
        Self::TargetTlsProtocol,
        Self::TargetProtocol,
        Self::TargetHeadTooLarge,
        Self::TargetCut,
        Self::UpgradeRefused,
        Self::UpgradeFailed,
        Self::Loop,
        Self::Internal,
    ];

    /// Status, RFC 9209 section 2.3 error type, metric label.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (S::BAD_REQUEST, "http_request_error", "bad_request"),
            Self::HeadTooLarge => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "http_request_error", "head_too_large"),
            Self::RequestCut => (S::BAD_REQUEST, "http_request_error", "request_cut"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "http_request_error", "body_timeout"),
            Self::NoHostId => (S::BAD_REQUEST, "http_request_error", "no_host_id"),
            Self::UnknownHost => (S::SERVICE_UNAVAILABLE, "destination_not_found", "unknown_host"),
            Self::NoTunnel => (S::SERVICE_UNAVAILABLE, "destination_unavailable", "no_tunnel"),
            Self::TunnelFull => (S::SERVICE_UNAVAILABLE, "connection_limit_reached", "tunnel_full"),
            Self::Quota => (S::TOO_MANY_REQUESTS, "connection_limit_reached", "quota"),
            Self::TunnelLost => (S::BAD_GATEWAY, "connection_terminated", "tunnel_lost"),
            Self::PeerReset => (S::BAD_GATEWAY, "connection_terminated", "peer_reset"),
            Self::PeerProtocol => (S::BAD_GATEWAY, "http_protocol_error", "peer_protocol"),
            Self::NotRead => (S::GATEWAY_TIMEOUT, "connection_write_timeout", "not_read"),
            Self::Deadline => (S::GATEWAY_TIMEOUT, "http_response_timeout", "deadline"),
            Self::Idle => (S::GATEWAY_TIMEOUT, "connection_read_timeout", "idle"),
            Self::Denied => (S::FORBIDDEN, "http_request_denied", "denied"),
            Self::UpstreamDown => (S::SERVICE_UNAVAILABLE, "destination_unavailable", "upstream_down"),
            Self::ServiceFull => (S::SERVICE_UNAVAILABLE, "connection_limit_reached", "service_full"),
            Self::UnknownService => (S::NOT_FOUND, "destination_not_found", "unknown_service"),
            Self::TargetDns => (S::BAD_GATEWAY, "dns_error", "target_dns"),
            Self::TargetRefused => (S::BAD_GATEWAY, "connection_refused", "target_refused"),
            Self::TargetUnreachable => (S::BAD_GATEWAY, "destination_unavailable", "target_unreachable"),
            Self::TargetTimeout => (S::GATEWAY_TIMEOUT, "connection_timeout", "target_timeout"),
            Self::TargetClosed => (S::BAD_GATEWAY, "connection_terminated", "target_closed"),
            Self::TargetTlsCertificate => (S::BAD_GATEWAY, "tls_certificate_error", "target_tls_certificate"),
            Self::TargetTlsAlert => (S::BAD_GATEWAY, "tls_alert_received", "target_tls_alert"),
            Self::TargetTlsProtocol => (S::BAD_GATEWAY, "tls_protocol_error", "target_tls_protocol"),
            Self::TargetProtocol => (S::BAD_GATEWAY, "http_protocol_error", "target_protocol"),
            Self::TargetHeadTooLarge => (S::BAD_GATEWAY, "http_response_header_section_size", "target_head_too_large"),
            Self::TargetCut => (S::BAD_GATEWAY, "http_response_incomplete", "target_cut"),
            Self::UpgradeRefused => (S::NOT_IMPLEMENTED, "http_upgrade_failed", "upgrade_refused"),
            Self::UpgradeFailed => (S::BAD_GATEWAY, "http_upgrade_failed", "upgrade_failed"),
            Self::Loop => (S::BAD_GATEWAY, "proxy_loop_detected", "loop"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "proxy_internal_error", "internal"),
        }
    }

    /// What went wrong at the target, as the initiator said in a response of its own: a 502 or 504, or a failed call of
    /// gRPC, with our `Proxy-Status`, whose value comes along. A target that is behind another adit may say the same.
    pub fn told_by_initiator(head: &response::Parts) -> Option<(Self, &str)> {
        let is_call = match head.status {
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => false,
            StatusCode::OK if head.headers.contains_key(GRPC_STATUS) => true,
            _ => return None,
        };
        let told = head.headers.get(PROXY_STATUS)?.to_str().ok()?;
        let error_type = told.strip_prefix("adit; error=")?.split(';').next()?;
        let is_meant = |cause: &Self| (is_call || cause.status() == head.status) && cause.error_type() == error_type;
        Some((Self::BEFORE_RESPONSE.into_iter().find(is_meant)?, told))
    }

    /// What can go wrong at the target before a response begins. No two have the same error type.
    const BEFORE_RESPONSE: [Self; 11] = [
        Self::TargetDns,
        Self::TargetRefused,
        Self::TargetUnreachable,
        Self::TargetTimeout,
        Self::TargetClosed,
        Self::TargetTlsCertificate,
        Self::TargetTlsAlert,
        Self::TargetTlsProtocol,
        Self::TargetProtocol,
        Self::TargetHeadTooLarge,
        Self::UpgradeFailed,
    ];

    /// The status of the response.
    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// The error type in `Proxy-Status`.
    pub const fn error_type(self) -> &'static str {
        self.row().1
    }

    /// The metric label and the word in logs.
    pub const fn label(self) -> &'static str {
        self.row().2
    }
}

/// A failed exchange: the cause, and for people what exactly happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    cause: Cause,
    details: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// Where it is another one than that of the cause.
    status: Option<StatusCode>,
}

impl Failure {
    /// A failure that a retry without change would meet again, or whose end nobody knows.
    pub fn new(cause: Cause, details: impl Into<Cow<'static, str>>) -> Self {
        Self { cause, details: details.into(), retry_after: None, status: None }
    }

    /// Asks the client to come back no earlier than this; told in whole seconds, rounded up.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Answers with another status than that of the cause.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.cause.status())
    }

    /// What went wrong.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// What exactly happened, for people.
    pub fn details(&self) -> &str {
        &self.details
    }

    /// The response that tells the client.
    pub fn response(&self) -> Response<Bytes> {
        let details = printable(&self.details);
        let text = format!("adit: {details} ({})\n", self.cause.error_type());
        let mut response = Response::new(Bytes::from(text));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(PROXY_STATUS, self.proxy_status(&details));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        response
    }

    /// The head of the response that tells the client where there is no room for its text: nothing follows it.
    pub fn bare_response(&self) -> Response<()> {
        let mut response = self.response().map(|_| ());
        response.headers_mut().remove(CONTENT_TYPE);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        response
    }

    /// A structured-field list with one member. RFC 9209 section 2, RFC 8941 section 3.3.3 for the quoting.
    fn proxy_status(&self, details: &str) -> HeaderValue {
        let quoted = details.replace('\\', "\\\\").replace('"', "\\\"");
        let value = format!("adit; error={}; details=\"{quoted}\"", self.cause.error_type());
        HeaderValue::try_from(value).expect("printable ASCII is always a field value")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause.label(), self.details)
    }
}

impl std::error::Error for Failure {}

/// What a structured-field string and a one-line body can both carry: bounded printable ASCII.
pub(super) fn printable(details: &str) -> String {
    let shown = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    details.chars().take(MAX_DETAIL_BYTES).map(shown).collect()
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn proxy_status(failure: &Failure) -> String {
        failure.response().headers()[PROXY_STATUS].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_failure_names_status_error_type_and_details() {
        let failure = Failure::new(Cause::NoTunnel, "no tunnel of edge-17").retry_after(Duration::from_millis(1200));
        let response = failure.response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(
            response.headers()[PROXY_STATUS],
            "adit; error=destination_unavailable; details=\"no tunnel of edge-17\""
        );
    }

    #[test]
    fn details_cannot_break_out_of_their_quotes_or_their_line() {
        let failure = Failure::new(Cause::BadRequest, "a\"b\\c\r\nx-evil: é");
        assert_eq!(proxy_status(&failure), "adit; error=http_request_error; details=\"a\\\"b\\\\c??x-evil: ?\"");
    }

    #[test]
    fn details_are_bounded() {
        let failure = Failure::new(Cause::BadRequest, "x".repeat(100_000));
        assert!(proxy_status(&failure).len() < MAX_DETAIL_BYTES + 64);
    }

    #[test]
    fn each_cause_has_its_own_label() {
        let labels: HashSet<_> = Cause::ALL.iter().map(|cause| cause.label()).collect();
        assert_eq!(labels.len(), Cause::ALL.len());
    }

    #[test]
    fn what_an_initiator_says_of_its_target_is_understood_and_nothing_else() {
        for cause in Cause::ALL {
            let (head, _) = Failure::new(cause, "it is; \"so\"").response().into_parts();
            let told = Cause::BEFORE_RESPONSE.contains(&cause).then_some(cause);
            if told.is_some() || !matches!(cause.status().as_u16(), 502 | 504) {
                assert_eq!(Cause::told_by_initiator(&head).map(|(cause, _)| cause), told, "{cause:?}");
            }
        }
        let mut response = Failure::new(Cause::TargetRefused, "no").response();
        response.headers_mut().insert(PROXY_STATUS, HeaderValue::from_static("other; error=connection_refused"));
        assert_eq!(Cause::told_by_initiator(&response.into_parts().0), None);
    }

    #[test]
    fn statuses_are_those_of_the_contract() {
        for (cause, status) in [
            (Cause::NoHostId, 400),
            (Cause::HeadTooLarge, 431),
            (Cause::BodyTimeout, 408),
            (Cause::TunnelFull, 503),
            (Cause::UpstreamDown, 503),
            (Cause::ServiceFull, 503),
            (Cause::Denied, 403),
            (Cause::UnknownService, 404),
            (Cause::Quota, 429),
            (Cause::UnknownHost, 503),
            (Cause::NoTunnel, 503),
            (Cause::TunnelLost, 502),
            (Cause::PeerReset, 502),
            (Cause::TargetRefused, 502),
            (Cause::TargetTimeout, 504),
            (Cause::TargetTlsCertificate, 502),
            (Cause::Deadline, 504),
        ] {
            assert_eq!(cause.status().as_u16(), status, "{cause:?}");
        }
    }
}
