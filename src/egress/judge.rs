//! What becomes of a request: the rules of the listener have a word, then its router.
//!
//! The gateway asks here for each request, and [`explain`](mod@super::explain) for one that nobody sent: so what it says is what
//! happens.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::uri::Authority;
use http::{HeaderName, Method, Uri};

use crate::egress::attributes::RequestAttributes;
use crate::egress::tcp::Bare;
use crate::egress::upstream::Upstream;
use crate::message::connect::is_plain;
use crate::message::failure::{Cause, Failure};
use crate::message::forward::Forms;
use crate::message::source;
use crate::message::trust::Trust;
use crate::policy::traffic::{self, Action, Decision, Subject};
use crate::proxy::{Record, RuleCounters, connect_udp};
use crate::routing::{Destination, Meant, Router, RouterSettings};
use crate::telemetry::TargetMetrics;

/// A rule of a listener.
pub type TrafficRule = traffic::Rule<Arc<Upstream>>;
/// The rules of a listener.
pub type TrafficRules = traffic::Rules<Arc<Upstream>>;

/// Rules and router of a listener, ready for use.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) router: Router,
    rules: TrafficRules,
    pub(super) counters: RuleCounters,
    /// Whether any of them asks where a request comes from.
    asks_source: bool,
    /// Who may say it, and how.
    trust: Trust,
    forms: Forms,
}

/// A rule asks for a client that nobody names clearly. It may deny that very one.
static NOT_NAMED: LazyLock<Failure> = LazyLock::new(|| {
    let details = "a rule asks who sent the request, and the trusted sender does not say it, or says it in two ways";
    Failure::new(Cause::Denied, details)
});

/// What becomes of one request.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    /// Who decided that; `None`: no rule had to be asked, or none can be named.
    pub(super) decision: Option<Decision<'a, Arc<Upstream>>>,
    /// Where it goes.
    pub(super) way: Result<Going, Failure>,
}

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Going {
    /// Into a tunnel.
    Tunnel(Destination),
    /// To an upstream without one.
    Upstream(Arc<Upstream>),
}

impl Judge {
    /// `trust` may say for whom they send a request, in these forms.
    pub(super) fn new(router: RouterSettings, rules: TrafficRules, (trust, forms): (Trust, Forms)) -> Self {
        let asks_source = rules.iter().any(|rule| !rule.matches.source.is_empty());
        Self { router: Router::new(router), counters: RuleCounters::new(&rules), rules, asks_source, trust, forms }
    }

    /// The fields of a head that may decide what becomes of a request.
    pub(super) fn deciding_fields(&self) -> impl Iterator<Item = HeaderName> {
        let of_rules = self.rules.iter().filter_map(|rule| rule.matches.field.as_ref());
        self.router.deciding_fields().chain(of_rules.map(|field| field.name.clone()))
    }

    /// Who sent a request.
    fn source(&self, request: &RequestAttributes<'_>) -> Result<Option<IpAddr>, &'static Failure> {
        let remote = request.connection.remote.ip();
        if !self.asks_source {
            return Ok(Some(remote));
        }
        let source = source::of_request(&request.head.headers, remote, &self.trust, self.forms);
        source.map(Some).ok_or_else(|| &*NOT_NAMED)
    }

    /// The servers to which requests are forwarded are in use from here on: `metrics` say how they are, and those are checked
    /// for which that is asked.
    pub(super) fn begin(&self, metrics: &TargetMetrics) {
        for rule in self.rules.iter() {
            if let Action::Forward(upstream) = &rule.action {
                upstream.begin(metrics);
            }
        }
    }

    /// Who decides, and where the request goes.
    pub(super) fn judge(&self, request: &RequestAttributes<'_>) -> Judged<'_> {
        let uri = &request.head.uri;
        let meant = match is_plain(request.head) {
            _ if is_bare(request) => Ok(self.router.meant_by_bytes(request)),
            true => Ok(self.router.meant_by_connect(uri)),
            false if self.is_udp(request) => self.router.meant_by_connect_udp(uri),
            false => self.router.meant(uri),
        };
        let meant = match meant {
            Ok(meant) if self.rules.is_empty() => {
                return Judged {
                    decision: None,
                    way: self.router.destination(request, meant, None).map(Going::Tunnel),
                };
            }
            Ok(meant) => meant,
            Err(failure) => return Judged { decision: None, way: Err(failure) },
        };
        match self.decide(request, &meant) {
            Ok(decision) => {
                let way = self.follow(&decision, request, meant);
                Judged { decision: Some(decision), way }
            }
            Err(failure) => Judged { decision: None, way: Err(failure) },
        }
    }

    /// Whether a request asks for datagrams, where it may.
    pub(super) fn is_udp(&self, request: &RequestAttributes<'_>) -> bool {
        self.router.takes_connect_udp() && connect_udp::is_asked(request.head)
    }

    fn decide(
        &self,
        request: &RequestAttributes<'_>,
        meant: &Meant<'_>,
    ) -> Result<Decision<'_, Arc<Upstream>>, Failure> {
        let RequestAttributes { head, connection } = request;
        let tenant = self.router.tenant(request);
        if is_bare(request) {
            // What stands in its head was made up for it.
            return self.rules.decide(&Subject {
                source: Ok(Some(connection.remote.ip())),
                tenant: tenant.as_ref().map(Some),
                host: connection.server_name.as_deref(),
                service: meant.service.as_ref().map(Option::as_ref),
                ..Subject::UNKNOWN
            });
        }
        let is_connect = is_plain(head);
        // A request to go on in another protocol is a GET of HTTP/1.1 for the target, whatever it came as; one for datagrams is
        // a CONNECT, as it is at an initiator and in the log.
        let method = match &head.method {
            _ if self.is_udp(request) => &Method::CONNECT,
            method if *method == Method::CONNECT && !is_connect => &Method::GET,
            method => method,
        };
        self.rules.decide(&Subject {
            source: self.source(request),
            peer: connection.peer.as_ref(),
            tenant: tenant.as_ref().map(Some),
            host: head.uri.authority().map(Authority::as_str),
            path: (!is_connect).then(|| Uri::path(&head.uri)),
            method: Some(method),
            service: meant.service.as_ref().map(Option::as_ref),
            fields: Some(&head.headers),
        })
    }

    fn follow(
        &self,
        decision: &Decision<'_, Arc<Upstream>>,
        request: &RequestAttributes<'_>,
        mut meant: Meant<'_>,
    ) -> Result<Going, Failure> {
        match decision.action() {
            Action::Allow => self.router.destination(request, meant, None).map(Going::Tunnel),
            Action::Deny(status) => {
                let details = format!("{decision} of this listener denies the request");
                Err(Failure::new(Cause::Denied, details).with_status(*status))
            }
            Action::Reroute(to) => {
                if let Some(service) = &to.service {
                    meant.service = Ok(Some(service.clone()));
                }
                self.router.destination(request, meant, to.host_id.as_ref()).map(Going::Tunnel)
            }
            Action::Forward(_) if is_plain(request.head) || self.is_udp(request) => {
                let details = format!("{decision} of this listener forwards requests, and CONNECT is none");
                Err(Failure::new(Cause::Denied, details))
            }
            Action::Forward(upstream) => Ok(Going::Upstream(Arc::clone(upstream))),
        }
    }
}

impl Going {
    /// Says in the record whom the request asks for. An upstream is named once it is asked.
    pub(super) fn told(&self, record: &mut Record) {
        if let Self::Tunnel(to) = self {
            record.asked(&to.tenant, &to.host_id, to.service.as_ref());
        }
    }
}

/// Whether it is a connection of bytes, whose sender said nothing of it.
fn is_bare(request: &RequestAttributes<'_>) -> bool {
    request.head.extensions.get::<Bare>().is_some()
}
