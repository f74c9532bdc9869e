//! What an initiator exports: named services, each with one target.
//!
//! An exchange that arrives through a tunnel names a service, or is matched by host and path. Either way it ends at a
//! target from this list or at 404; nothing in a request can name another place. spec: ST-30

mod arrival;
mod board;
mod explain;
mod exported;
mod flow;
mod governed;
mod raw;
mod status;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, Response, request};
use http_body::Body;
use tokio::sync::Semaphore;
use tracing::{Instrument, Span};

pub use self::explain::{ExplainedService, Taken};
use self::exported::Exported;
pub use self::exported::{TargetCut, WatchedBody};
use self::governed::{Governed, Judged};
pub use self::governed::{ServiceRules, Through};
pub use self::status::ServiceStatus;
use crate::id::ServiceName;
use crate::initiator::health::HealthBoard;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::interim::{InformationalSink, SendInterim};
use crate::message::path::Readings;
pub use crate::message::pattern::{HostPattern, Match, PathPrefix, PatternError};
use crate::message::rewrite::Step;
use crate::net;
use crate::protocol::handshake::{self, ServiceKind};
use crate::proxy::exchange::answer;
use crate::proxy::{ExchangeBody, Record, Recorder};
use crate::targets::health::checks::{Asked as _, begin as begin_checks};
pub use crate::targets::health::{Asks, HealthCheck};
pub use crate::targets::{CONNECTION_WAIT, ServiceLimits};
use crate::targets::{Prepared, Target, TargetSettings};
use crate::telemetry::Side;
use crate::tls::TlsError;
use crate::transport::TunnelFacts;

/// Sockets that all flows of datagrams of a process have at most, fewer where descriptors are short.
const MAX_FLOW_SOCKETS: usize = 16_384;

/// A service as the configuration describes it.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// Its name, unique among the services of an initiator.
    pub name: ServiceName,
    /// Which exchanges without a service name it takes; `None`: none of them.
    pub matches: Option<Match>,
    /// Where it is.
    pub target: Target,
    /// How its target is connected to.
    pub connections: TargetSettings,
    /// What it may have under way.
    pub limits: ServiceLimits,
    /// How its target is checked; `None`: it is what its requests meet that decides, and while it is down whether it takes a
    /// connection.
    pub health: Option<HealthCheck>,
    /// What is done to each request before the target gets it, in this order.
    pub rewrite: Vec<Step>,
    /// The protocols beside WebSocket that a request may go on in (Upgrade), by the name that stands in the request.
    pub upgrades: Vec<String>,
    /// Whether a target of bytes is told who connected: each connection begins with a PROXY header of version 2 then.
    pub proxy_header: bool,
}

/// Two services of one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the service {0} is there twice; expected each name once")]
pub struct DuplicateService(pub ServiceName);

/// Why a list of services cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Two of them have one name.
    #[error(transparent)]
    Duplicate(#[from] DuplicateService),
    /// TLS to a target.
    #[error("the service {service}")]
    Tls {
        /// Which one.
        service: ServiceName,
        /// What is wrong with its settings.
        source: TlsError,
    },
}

/// The exported services. Clones share the connections to the targets.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    by_name: HashMap<ServiceName, Arc<Kept>>,
    /// Most specific first, so that the first that covers a request is meant.
    by_match: Vec<(Match, Arc<Exported>)>,
    recorder: Recorder,
    board: HealthBoard,
    governed: Governed,
    /// How many more flows of datagrams may have a socket; those before and after a change share it.
    sockets: Arc<Semaphore>,
}

/// A service as long as any list has it; what runs may outlast that.
struct Kept(Arc<Exported>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.wellness().retire();
    }
}

/// What was there before under a name.
enum Former<'a> {
    /// It stays.
    Same(Arc<Kept>),
    /// Another one takes its place.
    Changed(&'a Kept),
}

impl Former<'_> {
    fn changed(&self) -> Option<&Exported> {
        match self {
            Self::Changed(kept) => Some(&kept.0),
            Self::Same(_) => None,
        }
    }
}

/// The body of a service's response: the target's, or the text of a failure. Closes the record of its exchange.
pub type ServiceBody = ExchangeBody<WatchedBody>;

impl Services {
    /// Checks the list; dials nothing yet. Exchanges leave no records, see [`Services::recorded`].
    ///
    /// # Errors
    ///
    /// [`ServiceError`]: a name is there twice, or TLS to a target cannot be set up.
    pub fn new(list: Vec<ServiceSettings>) -> Result<Self, ServiceError> {
        Self::recorded(list, Recorder::silent(Side::Target))
    }

    /// As [`Services::new`]; every exchange leaves a record.
    ///
    /// # Errors
    ///
    /// As for [`Services::new`].
    pub fn recorded(list: Vec<ServiceSettings>, recorder: Recorder) -> Result<Self, ServiceError> {
        let most = net::for_clients(net::descriptors()) / 2;
        let sockets = Arc::new(Semaphore::new(most.clamp(1, MAX_FLOW_SOCKETS)));
        Self::build(list, (recorder, HealthBoard::default(), sockets), |_| None)
    }

    /// Other services, which share the connections of those for which `is_same` says that nothing but `matches` may differ, and
    /// the board of all. What is under way at one of the same name counts there, whatever has changed.
    ///
    /// # Errors
    ///
    /// As for [`Services::new`].
    pub fn renewed(
        &self,
        list: Vec<ServiceSettings>,
        recorder: Recorder,
        is_same: impl Fn(&ServiceName) -> bool,
    ) -> Result<Self, ServiceError> {
        let (board, sockets) = (self.0.board.clone(), Arc::clone(&self.0.sockets));
        let former = |name: &ServiceName| {
            let former = self.0.by_name.get(name)?;
            Some(if is_same(name) { Former::Same(Arc::clone(former)) } else { Former::Changed(former) })
        };
        Self::build(list, (recorder, board, sockets), former)
    }

    fn build<'a>(
        list: Vec<ServiceSettings>,
        (recorder, board, sockets): (Recorder, HealthBoard, Arc<Semaphore>),
        former: impl Fn(&ServiceName) -> Option<Former<'a>>,
    ) -> Result<Self, ServiceError> {
        let mut by_name = HashMap::with_capacity(list.len());
        let mut by_match = Vec::new();
        for service in list {
            let name = service.name.clone();
            let matches = service.matches.clone();
            let kept = match former(&name) {
                Some(Former::Same(former)) => former,
                former => {
                    let former = former.as_ref().and_then(Former::changed);
                    let exported = Exported::new(service, (board.clone(), recorder.targets()), former);
                    let exported = exported.map_err(|source| ServiceError::Tls { service: name.clone(), source })?;
                    Arc::new(Kept(Arc::new(exported)))
                }
            };
            // Bytes have neither host nor path.
            let matches = matches.filter(|_| kept.0.kind() == ServiceKind::Http);
            by_match.extend(matches.map(|matches| (matches, Arc::clone(&kept.0))));
            if by_name.insert(name.clone(), kept).is_some() {
                return Err(DuplicateService(name).into());
            }
        }
        by_match.sort_by_key(|(matches, _)| std::cmp::Reverse(matches.specificity()));
        by_name.values().for_each(|kept| begin_checks(&kept.0));
        let governed = Governed::new(ServiceRules::default());
        Ok(Self(Arc::new(Inner { by_name, by_match, recorder, board, governed, sockets })))
    }

    /// The same services, to which these rules let go what may.
    pub fn governed(&self, rules: ServiceRules) -> Self {
        let Inner { by_name, by_match, recorder, board, sockets, .. } = &*self.0;
        let (by_name, by_match) = (by_name.clone(), by_match.clone());
        let (recorder, board, sockets) = (recorder.clone(), board.clone(), Arc::clone(sockets));
        let governed = Governed::new(rules);
        Self(Arc::new(Inner { by_name, by_match, recorder, board, governed, sockets }))
    }

    /// Which of them are down, for the tunnels that tell of it; what [`Services::renewed`] makes has the same board.
    pub fn health(&self) -> HealthBoard {
        self.0.board.clone()
    }

    /// The list as HELLO and SERVICES announce it.
    pub fn exported(&self) -> Vec<handshake::Service> {
        let service = |kept: &Arc<Kept>| handshake::Service { name: kept.0.name().clone(), kind: kept.0.kind() };
        let mut services: Vec<_> = self.0.by_name.values().map(service).collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        services
    }

    fn named(&self, name: &ServiceName) -> Result<&Arc<Exported>, Failure> {
        let unknown = || Failure::new(Cause::UnknownService, format!("no service {name} here"));
        self.0.by_name.get(name).map(|kept| &kept.0).ok_or_else(unknown)
    }

    /// What a request is for: by the service name, else by host and path.
    fn pick(&self, service: Option<&ServiceName>, head: &request::Parts) -> Result<&Arc<Exported>, Failure> {
        if let Some(name) = service {
            return for_requests(self.named(name)?);
        }
        let authority = authority(head);
        let covering = |path: &str| self.0.by_match.iter().position(|(matches, _)| matches.covers(authority, path));
        let found = Readings::of(head.uri.path()).agree(covering);
        let found = found.map_err(|ambiguous| Failure::new(Cause::BadRequest, ambiguous.to_string()))?;
        let unknown = || Failure::new(Cause::UnknownService, "no service here takes this host and path");
        found.map(|index| &self.0.by_match[index].1).ok_or_else(unknown)
    }

    /// Begins the record of a request, and finds out who answers it.
    fn begin<B>(
        &self,
        tunnel: Option<TunnelFacts<'_>>,
        service: Option<&ServiceName>,
        head: request::Parts,
        body: B,
    ) -> (Record, Begun)
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let mut record = self.0.recorder.begin(&head, None);
        let Judged { decision, taker } = self.judge(service, &head, tunnel.map(Through::from));
        self.note(decision.as_ref(), &mut record);
        let begun = taker.and_then(|exported| {
            let prepared = exported.prepare(head, body, &mut record)?;
            Ok((Arc::clone(exported), prepared))
        });
        (record, begun)
    }

    /// Answers one request; a failure is an answer, too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the body it brings, ends the exchange at the target.
    async fn answer<B>(&self, request: Request<B>) -> Response<ServiceBody>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let service = head.extensions.remove::<ServiceName>();
        let interim = head.extensions.remove::<InformationalSink>();
        let (record, begun) = self.begin(None, service.as_ref(), head, body);
        let outcome = match begun {
            Ok((exported, prepared)) => {
                let interim = interim.as_ref().map(|interim| interim as &dyn SendInterim);
                exported.received(exported.send(prepared, interim).await)
            }
            Err(failure) => Err(failure),
        };
        answer(outcome, record)
    }
}

/// Who answers a request, and what he is sent; or why nobody does.
type Begun = Result<(Arc<Exported>, Prepared), Failure>;

/// One that takes requests.
fn for_requests(found: &Arc<Exported>) -> Result<&Arc<Exported>, Failure> {
    let name = found.name();
    let details = match found.kind() {
        ServiceKind::Http => return Ok(found),
        ServiceKind::Tcp => format!("the service {name} takes no requests, only bytes: it is asked for with CONNECT"),
        ServiceKind::Udp => {
            format!("the service {name} takes no requests, only datagrams: a udp listener of the responder asks for it")
        }
    };
    Err(Failure::new(Cause::UnknownService, details))
}

fn authority(head: &request::Parts) -> &str {
    let host = || head.headers.get(HOST).and_then(|host| host.to_str().ok());
    head.uri.authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default()
}

/// What is logged of one exchange stands in it.
fn span(method: &Method, tunnel: Option<TunnelFacts<'_>>) -> Span {
    let tunnel = tunnel.map(|tunnel| tracing::field::display(tunnel.id()));
    tracing::debug_span!("exchange", side = "target", tunnel, method = method.as_str())
}

impl<B> tower_service::Service<Request<B>> for Services
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    type Response = Response<ServiceBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Dropping the future, or the body it brings, ends the exchange at the target.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let services = self.clone();
        let span = span(request.method(), None);
        Box::pin(async move { Ok(services.answer(request).await) }.instrument(span))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tower_service::Service as _;

    use super::*;

    fn service(name: &str, matches: Option<(Option<&str>, &str)>, target: &str) -> ServiceSettings {
        ServiceSettings {
            name: name.parse().unwrap(),
            matches: matches.map(|(host, prefix)| Match {
                host: host.map(|host| host.parse().unwrap()),
                prefix: prefix.parse().unwrap(),
            }),
            target: target.parse().unwrap(),
            connections: TargetSettings::default(),
            limits: ServiceLimits::default(),
            health: None,
            rewrite: Vec::new(),
            upgrades: Vec::new(),
            proxy_header: false,
        }
    }

    /// A target that answers each request with its own name.
    async fn named(name: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut head).await.unwrap();
                }
                let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", name.len());
                stream.write_all((answer + name).as_bytes()).await.unwrap();
            }
        });
        target
    }

    async fn ask(services: &Services, name: Option<&str>, uri: &str) -> (u16, String, String) {
        let mut request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        if let Some(name) = name {
            request.extensions_mut().insert(name.parse::<ServiceName>().unwrap());
        }
        let (head, body) = services.clone().call(request).await.unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let status = head.headers.get("proxy-status").map_or("", |value| value.to_str().unwrap());
        (head.status.as_u16(), text, status.to_owned())
    }

    #[tokio::test]
    async fn a_named_service_is_taken_exactly() {
        let list =
            vec![service("api", None, &named("api").await), service("web", Some((None, "/")), &named("web").await)];
        let services = Services::new(list).unwrap();
        assert_eq!(ask(&services, Some("api"), "http://h/").await.1, "api");
        assert_eq!(ask(&services, Some("web"), "http://h/").await.1, "web");
    }

    #[tokio::test]
    async fn host_and_longest_prefix_decide_where_no_name_does() {
        let list = vec![
            service("root", Some((None, "/")), &named("root").await),
            service("api", Some((None, "/api")), &named("api").await),
            service("below", Some((Some("*.example.com"), "/")), &named("below").await),
            service("exact", Some((Some("a.example.com"), "/")), &named("exact").await),
            service("hidden", None, &named("hidden").await),
        ];
        let services = Services::new(list).unwrap();
        for (uri, expected) in [
            ("http://h/", "root"),
            ("http://h/apix", "root"),
            ("http://h/api/v1", "api"),
            ("http://h//api", "api"),
            ("http://h/api/../x", "root"),
            ("http://h/api/%2e%2e/x", "root"),
            ("http://b.example.com/api", "below"),
            ("http://A.example.com:8080/api", "exact"),
        ] {
            assert_eq!(ask(&services, None, uri).await.1, expected, "{uri}");
        }
    }

    #[tokio::test]
    async fn a_path_that_could_mean_two_services_is_refused() {
        let list = vec![
            service("root", Some((None, "/")), &named("root").await),
            service("api", Some((None, "/api")), &named("api").await),
        ];
        let services = Services::new(list).unwrap();
        assert_eq!(ask(&services, None, "http://h/api/..%2fx").await.0, 400);
        assert_eq!(ask(&services, None, "http://h/api/a%2fb").await.1, "api");
        assert_eq!(ask(&services, Some("api"), "http://h/api/..%2fx").await.1, "api", "a name leaves nothing to read");
    }

    // spec: SE-4
    #[tokio::test]
    async fn what_is_not_exported_is_not_found_and_not_dialled() {
        let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let elsewhere = format!("http://{}/", trap.local_addr().unwrap());
        let services = Services::new(vec![service("api", None, &named("api").await)]).unwrap();
        for name in [None, Some("other")] {
            let (status, text, proxy_status) = ask(&services, name, &elsewhere).await;
            assert_eq!(status, 404);
            assert!(text.starts_with("adit: no service"), "{text}");
            assert!(proxy_status.starts_with("adit; error=destination_not_found"), "{proxy_status}");
        }
        assert_eq!(ask(&services, Some("api"), &elsewhere).await.1, "api");
    }

    #[tokio::test]
    async fn a_target_that_refuses_is_a_bad_gateway_with_its_cause() {
        // A port that was free a moment ago may be the one of another test.
        let services = Services::new(vec![service("api", None, "http://127.0.0.1:1")]).unwrap();
        let (status, _, proxy_status) = ask(&services, Some("api"), "http://h/").await;
        assert_eq!(status, 502);
        assert!(proxy_status.starts_with("adit; error=connection_refused"), "{proxy_status}");
    }

    #[test]
    fn a_tunnel_can_be_served_with_it() {
        fn serves<S: crate::transport::Serve>() {}
        serves::<Services>();
    }

    #[test]
    fn a_name_is_there_once() {
        let twice = vec![service("api", None, "http://a"), service("api", None, "http://b")];
        let error = Services::new(twice).err().unwrap();
        assert!(matches!(error, ServiceError::Duplicate(DuplicateService(name)) if name.as_str() == "api"));
    }

    #[test]
    fn a_target_over_tls_needs_to_be_told_from_others() {
        let error = Services::new(vec![service("api", None, "https://a")]).err().unwrap();
        assert!(matches!(error, ServiceError::Tls { source: TlsError::NoTrust { peer: "target" }, .. }), "{error}");
    }

    #[test]
    fn all_names_are_announced() {
        let list = vec![service("web", None, "http://a"), service("api", Some((None, "/")), "http://b")];
        let exported = Services::new(list).unwrap().exported();
        assert_eq!(exported.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["api", "web"]);
    }
}
