//! What an initiator exports: named services, each with one target.
//!
//! An exchange that arrives through a tunnel names a service, or is matched by host and path. Either way it ends at a
//! target from this list or at 404; nothing in a request can name another place. spec: ST-30

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Either, Full};

use crate::id::ServiceName;
use crate::initiator::targets::{Target, TargetBody, TargetClient, TargetSettings};
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
pub use crate::message::pattern::{HostPattern, Match, PathPrefix, PatternError};
use crate::protocol::handshake;

/// A service as the configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Its name, unique among the services of an initiator.
    pub name: ServiceName,
    /// Which exchanges without a service name it takes; `None`: none of them.
    pub matches: Option<Match>,
    /// Where it is.
    pub target: Target,
    /// How its target is connected to.
    pub connections: TargetSettings,
}

/// Two services of one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the service {0} is there twice; expected each name once")]
pub struct DuplicateService(pub ServiceName);

/// The exported services. Clones share the connections to the targets.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    by_name: HashMap<ServiceName, TargetClient>,
    /// Most specific first, so that the first that covers a request is meant.
    by_match: Vec<(Match, TargetClient)>,
}

/// The body of a service's response: the target's, or the text of a failure.
pub type ServiceBody = Either<TargetBody, Full<Bytes>>;

impl Services {
    /// Checks the list; dials nothing yet.
    ///
    /// # Errors
    ///
    /// A name is there twice.
    pub fn new(list: Vec<ServiceSettings>) -> Result<Self, DuplicateService> {
        let mut by_name = HashMap::with_capacity(list.len());
        let mut by_match = Vec::new();
        for service in list {
            let client = TargetClient::new(&service.target, service.connections);
            by_match.extend(service.matches.map(|matches| (matches, client.clone())));
            if by_name.insert(service.name.clone(), client).is_some() {
                return Err(DuplicateService(service.name));
            }
        }
        by_match.sort_by_key(|(matches, _)| std::cmp::Reverse(matches.specificity()));
        Ok(Self(Arc::new(Inner { by_name, by_match })))
    }

    /// The list as HELLO and SERVICES announce it.
    pub fn exported(&self) -> Vec<handshake::Service> {
        let mut names: Vec<_> = self.0.by_name.keys().cloned().collect();
        names.sort();
        names.into_iter().map(|name| handshake::Service { name, kind: handshake::ServiceKind::Http }).collect()
    }

    /// The target of a request: by the service name among its extensions, else by host and path.
    fn pick<B>(&self, request: &Request<B>) -> Result<&TargetClient, Failure> {
        if let Some(name) = request.extensions().get::<ServiceName>() {
            let found = self.0.by_name.get(name);
            return found.ok_or_else(|| Failure::new(Cause::UnknownService, format!("no service {name} here")));
        }
        let authority = authority(request);
        let path = request.uri().path();
        let mut covering = self.0.by_match.iter().filter(|(matches, _)| matches.covers(authority, path));
        let unknown = || Failure::new(Cause::UnknownService, "no service here takes this host and path");
        covering.next().map(|(_, client)| client).ok_or_else(unknown)
    }
}

fn authority<B>(request: &Request<B>) -> &str {
    let host = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default()
}

impl<B> tower_service::Service<Request<B>> for Services
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ServiceBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Dropping the future, or the body it brings, ends the exchange at the target.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let target = self.pick(&request).cloned();
        Box::pin(async move {
            let outcome = match target {
                Ok(target) => target.exchange(request).await,
                Err(failure) => Err(failure),
            };
            Ok(outcome.map_or_else(|failure| failed(&failure), |response| response.map(Either::Left)))
        })
    }
}

fn failed(failure: &Failure) -> Response<ServiceBody> {
    tracing::debug!(cause = failure.cause().label(), details = failure.details(), "no response from the target");
    failure.response().map(Either::Right)
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
            ("http://b.example.com/api", "below"),
            ("http://A.example.com:8080/api", "exact"),
        ] {
            assert_eq!(ask(&services, None, uri).await.1, expected, "{uri}");
        }
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
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let services = Services::new(vec![service("api", None, &format!("http://{gone}"))]).unwrap();
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
        assert_eq!(Services::new(twice).err(), Some(DuplicateService("api".parse().unwrap())));
    }

    #[test]
    fn all_names_are_announced() {
        let list = vec![service("web", None, "http://a"), service("api", Some((None, "/")), "http://b")];
        let exported = Services::new(list).unwrap().exported();
        assert_eq!(exported.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["api", "web"]);
    }
}
