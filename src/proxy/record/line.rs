//! The line of the access log.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri, Version, request};
use tracing::info;

use super::trace;
use crate::id::{HostId, Place, ResponderId, ServiceName, TenantId, TunnelId};
use crate::telemetry::{ExchangeRecord, Outcome, Side};
use crate::transport::TransportKind;

/// The target of access lines: what a log filter names.
pub const TARGET: &str = "adit::access";

/// Most bytes shown of an authority, a path, and the details of a failure.
const MAX_AUTHORITY: usize = 256;
const MAX_PATH: usize = 1024;
const MAX_DETAILS: usize = 256;

/// Whether each exchange writes a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// No lines.
    Off,
    /// A line per exchange. The query of the path is left out: it often holds what is nobody's business.
    #[default]
    On,
    /// A line per exchange, with the query.
    WithQuery,
}

impl From<bool> for AccessLog {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// Where a record is made, and how it is logged.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) side: Side,
    pub(super) listener: Option<Arc<str>>,
    pub(super) log: AccessLog,
}

impl AccessLog {
    /// Whether there is somebody to read the line.
    pub(super) fn is_wanted(self) -> bool {
        self != Self::Off && tracing::enabled!(target: TARGET, tracing::Level::INFO)
    }
}

/// What the line says, collected from the beginning. Cloned ids and URIs share their text.
#[derive(Debug)]
pub(super) struct Line {
    origin: Origin,
    remote: Option<SocketAddr>,
    request: Option<(Method, Uri)>,
    /// Of HTTP, as it was spoken where the request came in.
    version: Option<Version>,
    trace: Option<Box<str>>,
    tenant: Option<TenantId>,
    host_id: Option<HostId>,
    service: Option<ServiceName>,
    target: Option<Arc<str>>,
    tunnel: Option<(TunnelId, Place, TransportKind)>,
    sibling: Option<ResponderId>,
    attempts: u32,
    request_bytes: u64,
    response_bytes: u64,
    first_byte: Option<Duration>,
    rule: Option<Box<str>>,
    details: Option<Box<str>>,
}

impl Line {
    pub(super) fn new(origin: Origin, head: &request::Parts, remote: Option<SocketAddr>) -> Self {
        let request = Some((head.method.clone(), head.uri.clone()));
        let trace = trace::trace_id(&head.headers).map(Into::into);
        // What came through a tunnel has none of its own.
        let version = (origin.side == Side::Egress).then_some(head.version);
        Self { request, version, trace, remote, ..Self::empty(origin) }
    }

    /// Of a request that could not be read.
    pub(super) fn refused(origin: Origin, remote: Option<SocketAddr>) -> Self {
        Self { remote, ..Self::empty(origin) }
    }

    fn empty(origin: Origin) -> Self {
        Self {
            origin,
            remote: None,
            request: None,
            version: None,
            trace: None,
            tenant: None,
            host_id: None,
            service: None,
            target: None,
            tunnel: None,
            sibling: None,
            attempts: 0,
            request_bytes: 0,
            response_bytes: 0,
            first_byte: None,
            rule: None,
            details: None,
        }
    }

    pub(super) fn came_in(&mut self, version: Option<Version>) {
        self.version = version;
    }

    pub(super) fn ruled(&mut self, rule: &dyn fmt::Display) {
        self.rule = Some(rule.to_string().into());
    }

    pub(super) fn asked(&mut self, tenant: &TenantId, host_id: &HostId, service: Option<&ServiceName>) {
        self.tenant = Some(tenant.clone());
        self.host_id = Some(host_id.clone());
        self.service = service.cloned();
    }

    pub(super) fn served(&mut self, service: &ServiceName, target: &Arc<str>) {
        self.service = Some(service.clone());
        self.target = Some(Arc::clone(target));
    }

    pub(super) fn forwarded(&mut self, target: &str) {
        self.target = Some(target.into());
    }

    pub(super) fn through(&mut self, id: TunnelId, place: &Place, transport: TransportKind) {
        self.tunnel = Some((id, place.clone(), transport));
    }

    pub(super) fn through_sibling(&mut self, sibling: Option<&ResponderId>) {
        self.sibling = sibling.cloned();
    }

    pub(super) fn count_attempt(&mut self) {
        self.attempts += 1;
    }

    pub(super) fn responded(&mut self, after: Duration) {
        self.first_byte.get_or_insert(after);
    }

    pub(super) fn response_bytes(&mut self, bytes: u64) {
        self.response_bytes += bytes;
    }

    pub(super) fn datagram_bytes(&mut self, request: u64, response: u64) {
        self.request_bytes += request;
        self.response_bytes += response;
    }

    pub(super) fn details(&mut self, details: &dyn fmt::Display) {
        let text = details.to_string();
        let shown = cut(&text, MAX_DETAILS).chars().map(|c| if c.is_control() { '?' } else { c });
        self.details = Some(shown.collect());
    }

    pub(super) fn write(&self, counted: &ExchangeRecord, request_bytes: u64) {
        let (outcome, cause) = self.ending(counted);
        let uri = self.request.as_ref().map(|(_, uri)| uri);
        let place = self.tunnel.as_ref().map(|(_, place, _)| &place.claim);
        // Of what goes through a sibling no more is known than that it has this name. No node is called as its cluster is.
        let known = place.filter(|claim| self.sibling.is_none() || claim.node.as_str() != claim.cluster.as_str());
        info!(
            target: TARGET,
            side = self.origin.side.label(),
            listener = self.origin.listener.as_deref(),
            remote = self.remote.map(tracing::field::display),
            tenant = self.tenant.as_ref().or_else(|| place.map(|claim| &claim.tenant)).map(TenantId::as_str),
            host_id = self.host_id.as_ref().map(HostId::as_str),
            node = known.map(|claim| claim.node.as_str()),
            cluster = known.map(|claim| claim.cluster.as_str()),
            tunnel = self.tunnel.as_ref().map(|(id, ..)| tracing::field::display(id)),
            sibling = self.sibling.as_ref().map(ResponderId::as_str),
            transport = self.tunnel.as_ref().map(|(.., transport)| transport.label()),
            service = self.service.as_ref().map(ServiceName::as_str),
            to = self.target.as_deref(),
            version = self.version.and_then(label),
            method = self.request.as_ref().map(|(method, _)| cut(method.as_str(), MAX_AUTHORITY)),
            scheme = uri.and_then(Uri::scheme_str),
            authority = uri.and_then(Uri::authority).map(|authority| cut(authority.as_str(), MAX_AUTHORITY)),
            path = uri.map(|uri| cut(self.path(uri), MAX_PATH)),
            rule = self.rule.as_deref(),
            status = counted.status(),
            outcome,
            cause,
            details = self.details.as_deref(),
            attempts = (self.origin.side != Side::Target).then_some(self.attempts),
            request_bytes = request_bytes + self.request_bytes,
            response_bytes = self.response_bytes,
            first_byte_ms = self.first_byte.map(millis),
            total_ms = millis(counted.elapsed()),
            trace_id = self.trace.as_deref(),
            "exchange"
        );
    }

    /// How it ended, in a word, and of what cause.
    fn ending(&self, counted: &ExchangeRecord) -> (&'static str, Option<&'static str>) {
        match counted.outcome() {
            Outcome::Complete => ("complete", None),
            Outcome::Open => ("cancelled", Some("cancelled")),
            Outcome::Failed(cause) if self.request.is_none() => ("refused", Some(cause)),
            Outcome::Failed(cause) if counted.failed_after_head() => ("cut", Some(cause)),
            Outcome::Failed(cause) => ("failed", Some(cause)),
        }
    }

    fn path<'a>(&self, uri: &'a Uri) -> &'a str {
        match uri.path_and_query() {
            Some(whole) if self.origin.log == AccessLog::WithQuery => whole.as_str(),
            _ => uri.path(),
        }
    }
}

/// How a version is written.
fn label(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("HTTP/1.0"),
        Version::HTTP_11 => Some("HTTP/1.1"),
        Version::HTTP_2 => Some("HTTP/2"),
        Version::HTTP_3 => Some("HTTP/3"),
        _ => None,
    }
}

/// At most so many bytes of a text, and no half character.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("abc", 5), "abc");
        assert_eq!(cut("aé", 2), "a");
    }

    #[test]
    fn times_have_three_decimals() {
        assert_eq!(millis(Duration::from_nanos(1_234_567)).to_string(), "1.234");
    }
}
