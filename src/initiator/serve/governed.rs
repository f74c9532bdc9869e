//! Which requests and streams the rules of an initiator let go to its services.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, Method, request};

use super::exported::Exported;
use super::raw::cause_of;
use super::{Services, authority, for_requests};
use crate::id::{PeerIdentity, ServiceName, TenantId};
use crate::message::failure::{Cause, Failure};
use crate::message::source;
use crate::policy::traffic::{self, Action, Decision, Subject};
use crate::protocol::code::OpenCause;
use crate::protocol::handshake::ServiceKind;
use crate::protocol::stream::ClientAddresses;
use crate::proxy::{Record, RuleCounters};
use crate::transport::{TransportKind, TunnelFacts};

/// The rules of an initiator. They forward to nowhere: what is exported is all there is.
pub type ServiceRules = traffic::Rules<Infallible>;

/// Rules, ready for use.
#[derive(Debug)]
pub(super) struct Governed {
    rules: ServiceRules,
    counters: RuleCounters,
}

impl Governed {
    pub(super) fn new(rules: ServiceRules) -> Self {
        Self { counters: RuleCounters::new(&rules), rules }
    }
}

/// What a tunnel says of all that comes through it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Through<'a> {
    /// Whose node it leads to; `None`: that is not known.
    pub tenant: Option<&'a TenantId>,
    /// What TLS proved of the responder.
    pub peer: Option<&'a PeerIdentity>,
    /// Whether the responder is an Envoy, which says in X-Forwarded-For only who connected.
    pub is_envoy: bool,
}

impl<'a> From<TunnelFacts<'a>> for Through<'a> {
    fn from(tunnel: TunnelFacts<'a>) -> Self {
        let is_envoy = tunnel.transport() == TransportKind::Envoy;
        Self { tenant: Some(&tunnel.place().claim.tenant), peer: tunnel.peer(), is_envoy }
    }
}

impl Through<'_> {
    fn subject<'a>(&'a self, service: &'a ServiceName) -> Subject<'a> {
        Subject { peer: self.peer, tenant: Ok(self.tenant), service: Ok(Some(service)), ..Subject::UNKNOWN }
    }
}

/// What becomes of a request, a raw stream or a flow.
pub(super) struct Judged<'a, E = Failure> {
    /// Who decided that; `None`: no rule had to be asked, or none can be named.
    pub(super) decision: Option<Decision<'a, Infallible>>,
    /// Who takes it.
    pub(super) taker: Result<&'a Arc<Exported>, E>,
}

impl Services {
    /// Who takes a request, after the rules have had their word: whom it asks for, or another one. Nobody, where there is no
    /// such service, a rule denies it, or it cannot be said which rule is about it. spec: ST-80
    pub(super) fn judge(
        &self,
        service: Option<&ServiceName>,
        head: &request::Parts,
        through: Option<Through<'_>>,
    ) -> Judged<'_> {
        let found = match self.pick(service, head) {
            Ok(found) if !self.0.governed.rules.is_empty() => found,
            found => return Judged { decision: None, taker: found.and_then(for_requests) },
        };
        // A request to go on in another protocol is a GET of HTTP/1.1 for the target.
        let method = if head.method == Method::CONNECT { &Method::GET } else { &head.method };
        let through = through.unwrap_or_default();
        let subject = Subject {
            source: named(client(&head.headers, through.is_envoy)),
            host: Some(authority(head)).filter(|host| !host.is_empty()),
            path: Some(head.uri.path()),
            method: Some(method),
            fields: Some(&head.headers),
            ..through.subject(found.name())
        };
        let Judged { decision, taker } = self.decide(found, &subject);
        Judged { decision, taker: taker.and_then(for_requests) }
    }

    /// The same of a raw stream or a flow, which is a CONNECT to its service, has neither path nor fields, and goes to a
    /// service of its kind. spec: ST-56, ST-80
    pub(super) fn judge_stream(
        &self,
        (service, kind): (&ServiceName, ServiceKind),
        (through, client): (Through<'_>, Option<IpAddr>),
    ) -> Judged<'_, (OpenCause, Failure)> {
        let found = match self.named(service) {
            Ok(found) => found,
            Err(failure) => return Judged { decision: None, taker: Err((OpenCause::UnknownService, failure)) },
        };
        let subject =
            Subject { source: named(client), method: Some(&Method::CONNECT), ..through.subject(found.name()) };
        let Judged { decision, taker } = self.decide(found, &subject);
        let taker = taker.map_err(|failure| (cause_of(&failure), failure));
        Judged { decision, taker: taker.and_then(|exported| of_kind(exported, kind)) }
    }

    /// As [`Services::judge_stream`]; counted, and noted in the record.
    ///
    /// # Errors
    /// Nobody takes it, with the cause for the other end.
    pub(super) fn taker(
        &self,
        asked: (&ServiceName, ServiceKind),
        (tunnel, client): (TunnelFacts<'_>, Option<ClientAddresses>),
        record: &mut Record,
    ) -> Result<Arc<Exported>, (OpenCause, Failure)> {
        let client = client.map(|client| client.source.ip());
        let Judged { decision, taker } = self.judge_stream(asked, (tunnel.into(), client));
        self.note(decision.as_ref(), record);
        taker.cloned()
    }

    /// Counts a decision, and notes it in the record of what was decided on.
    pub(super) fn note(&self, decision: Option<&Decision<'_, Infallible>>, record: &mut Record) {
        if let Some(decision) = decision {
            self.0.governed.counters.note(decision, &self.0.recorder, record);
        }
    }

    fn decide<'a>(&'a self, found: &'a Arc<Exported>, subject: &Subject<'_>) -> Judged<'a> {
        let decision = match self.0.governed.rules.decide(subject) {
            Ok(decision) => decision,
            Err(failure) => return Judged { decision: None, taker: Err(failure) },
        };
        let taker = match decision.action() {
            Action::Allow => Ok(found),
            Action::Deny(status) => {
                let details = format!("{decision} of this initiator denies it");
                Err(Failure::new(Cause::Denied, details).with_status(*status))
            }
            Action::Reroute(to) => to.service.as_ref().map_or(Ok(found), |service| self.named(service)),
            Action::Forward(nowhere) => match *nowhere {},
        };
        Judged { decision: Some(decision), taker }
    }
}

fn of_kind(exported: &Arc<Exported>, kind: ServiceKind) -> Result<&Arc<Exported>, (OpenCause, Failure)> {
    if exported.kind() == kind {
        return Ok(exported);
    }
    let asked = if kind == ServiceKind::Udp { "datagrams" } else { "bytes" };
    let details = format!("the service {} takes no {asked}", exported.name());
    Err((OpenCause::WrongKind, Failure::new(Cause::UnknownService, details)))
}

/// A rule asks for a client that nobody named. It may deny that very one.
static NOT_NAMED: LazyLock<Failure> =
    LazyLock::new(|| Failure::new(Cause::Denied, "a rule asks who connected, and the responder does not say it"));

/// For [`Subject::source`].
fn named(client: Option<IpAddr>) -> Result<Option<IpAddr>, &'static Failure> {
    client.map(Some).ok_or_else(|| &*NOT_NAMED)
}

/// The client of the responder, as the responder says: what it wrote stands last. An Envoy writes X-Forwarded-For only, and
/// passes on what its client says in Forwarded. RFC 7239 section 4
fn client(fields: &HeaderMap, is_envoy: bool) -> Option<IpAddr> {
    source::last(fields, !is_envoy)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn read(is_envoy: bool, all: &[(&str, &str)]) -> Option<String> {
        let mut fields = HeaderMap::new();
        for (name, value) in all {
            fields.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        client(&fields, is_envoy).map(|address| address.to_string())
    }

    #[test]
    fn the_client_is_who_the_responder_wrote_last() {
        for (all, client) in [
            (&[("forwarded", "for=6.6.6.6, for=10.0.0.1;host=a;proto=http")][..], Some("10.0.0.1")),
            (&[("forwarded", "for=6.6.6.6"), ("forwarded", "proto=https;For=\"[2001:db8::1]\"")], Some("2001:db8::1")),
            (&[("forwarded", "for=\"10.0.0.1:1234\"")], Some("10.0.0.1")),
            (&[("forwarded", "for=\"[2001:db8::1]:1234\"")], Some("2001:db8::1")),
            (&[("forwarded", "for=6.6.6.6, for=10.0.0.1;host=\"a, for=7.7.7.7;b\"")], Some("10.0.0.1")),
            (&[("forwarded", "host=\"\\\", for=7.7.7.7\";for=10.0.0.1")], Some("10.0.0.1")),
            (&[("forwarded", "for=10.0.0.1;host=\"a, for=7.7.7.7")], None),
            (&[("forwarded", "for=10.0.0.1, for=unknown")], None),
            (&[("forwarded", "for=unknown"), ("x-forwarded-for", "10.0.0.1")], None),
            (&[("x-forwarded-for", "6.6.6.6, 10.0.0.1")], Some("10.0.0.1")),
            (&[("x-forwarded-for", "::1")], Some("::1")),
            (&[("x-other", "10.0.0.1")], None),
        ] {
            assert_eq!(read(false, all).as_deref(), client, "{all:?}");
        }
    }

    #[test]
    fn what_a_client_of_an_envoy_says_in_forwarded_is_not_its_own_word() {
        let all = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "10.0.0.1")];
        assert_eq!(read(true, &all).as_deref(), Some("10.0.0.1"));
        assert_eq!(read(true, &all[..1]), None);
    }
}
