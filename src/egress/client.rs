//! Requests of the program itself into the tunnels of its responder, without a listener.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, request};
use http_body::Body;

use crate::egress::find::FindTunnel;
use crate::id::{HostId, ServiceName, TenantId};
use crate::message::BoxError;
use crate::message::connect::is_plain;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::InformationalSink;
use crate::message::validate;
use crate::message::violation::Violation;
use crate::proxy::exchange::{Exchange, answer};
use crate::proxy::opener::{Opener, Outgoing};
use crate::proxy::{AccessLog, Charged, ExchangeBody, Pace, Record, Recorder};
use crate::registry::{Balance, Choice, affinity};
use crate::routing::{DEFAULT_DEADLINE, DEFAULT_HOLD, Destination, Directory};
use crate::shares::What;
use crate::telemetry::{Metrics, Side};
use crate::transport::Tunnel;

/// Sends requests to one node or cluster through the tunnels of a responder: what an egress listener does, without one.
/// Attempts, hold, deadline, failures and record are the same. Cheap to clone; [`Client::to`] makes one for somebody else.
///
/// It is a `tower_service::Service`, and [`Client::send`] works without tower:
///
/// ```no_run
/// # async fn f(responder: adit::responder::Responder) -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::{BodyExt as _, Empty};
///
/// let site = adit::egress::Client::new(responder.directory(), "edge-17".parse()?).service("web".parse()?);
/// let request = http::Request::get("http://shop.example/orders").body(Empty::new())?;
/// let response = site.send(request).await?;
/// println!("{}: {:?}", response.status(), response.into_body().collect().await?.to_bytes());
/// # Ok(()) }
/// ```
///
/// # What it makes of a request
///
/// The URI or a `Host` field names the host; a URI without scheme means `http`. Fields of one connection (`Connection` and
/// what it lists, `Transfer-Encoding`, `Upgrade`, …) and `Expect` are taken out; `Content-Length` is added where the body
/// knows its size. Whatever could be read in two ways is refused, as it is on a listener. Nothing is added for who sent it:
/// no `Via`, no `Forwarded`.
///
/// Interim (1xx) responses go to the [`InformationalSink`] among the request's extensions, if there is one.
#[derive(Debug)]
pub struct Client<T = Tunnel> {
    directory: Arc<Directory<T>>,
    host_id: HostId,
    tenant: TenantId,
    service: Option<ServiceName>,
    balance: Balance,
    affinity: Option<u64>,
    hold: Duration,
    deadline: Duration,
    recorder: Recorder,
}

/// The body of the responses to a [`Client`].
pub type ClientBody<T = Tunnel> = ExchangeBody<Charged<<T as Opener>::Body>>;

impl<T> Clone for Client<T> {
    fn clone(&self) -> Self {
        Self {
            directory: Arc::clone(&self.directory),
            host_id: self.host_id.clone(),
            tenant: self.tenant.clone(),
            service: self.service.clone(),
            balance: self.balance,
            affinity: self.affinity,
            hold: self.hold,
            deadline: self.deadline,
            recorder: self.recorder.clone(),
        }
    }
}

impl<T> Client<T> {
    /// Sends into these tunnels, see [`Responder::directory`](../responder/struct.Responder.html#method.directory), to this
    /// node or cluster of the tenant `default`. The initiator decides by host and path which of its services is meant.
    pub fn new(directory: Arc<Directory<T>>, to: HostId) -> Self {
        Self {
            directory,
            host_id: to,
            tenant: TenantId::default(),
            service: None,
            balance: Balance::default(),
            affinity: None,
            hold: DEFAULT_HOLD,
            deadline: DEFAULT_DEADLINE,
            recorder: Recorder::silent(Side::Egress),
        }
    }

    /// The same for another node or cluster.
    pub fn to(&self, host_id: HostId) -> Self {
        Self { host_id, ..self.clone() }
    }

    /// In whose world the node or cluster is looked up; default: the tenant `default`.
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant, ..self }
    }

    /// Which service of the initiator is meant, whatever host and path.
    pub fn service(self, service: ServiceName) -> Self {
        Self { service: Some(service), ..self }
    }

    /// How requests to a cluster are spread over its nodes; default: two choices. With [`Balance::Hash`] any node will do
    /// unless [`Client::stick_to`] says what should stick.
    pub fn balance(self, balance: Balance) -> Self {
        Self { balance, ..self }
    }

    /// Requests with the same `key`, such as a session's name, go to the same node of a cluster as long as it is there.
    pub fn stick_to(self, key: &str) -> Self {
        Self { balance: Balance::Hash, affinity: Some(affinity(key)), ..self }
    }

    /// How long a request waits for a node that is reconnecting; default 2 s. Zero fails at once.
    pub fn hold(self, hold: Duration) -> Self {
        Self { hold, ..self }
    }

    /// How long a response may take to begin, waiting included; default 60 s. The time that the program takes to deliver the
    /// request's body does not count.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Counts into these metrics, and writes lines into the access log or not; by default neither.
    pub fn recorded(self, metrics: &Metrics, log: impl Into<AccessLog>) -> Self {
        Self { recorder: Recorder::new(metrics, Side::Egress, None, log.into()), ..self }
    }

    fn destination(&self) -> Destination {
        let entropy = match (self.balance, self.affinity) {
            (Balance::Hash, Some(entropy)) => entropy,
            _ => rand::random(),
        };
        Destination {
            tenant: self.tenant.clone(),
            host_id: self.host_id.clone(),
            service: self.service.clone(),
            choice: Choice { balance: self.balance, entropy },
        }
    }
}

impl<T: Opener> Client<T> {
    /// Sends a request and waits for the head of the final response. The body of the request is sent by a task of its own
    /// while the response comes. Needs a tokio runtime.
    ///
    /// # Errors
    /// No response began, or the request is none that can be sent. [`Failure::response`] is what a listener would answer.
    ///
    /// # Cancel safety
    /// Dropping the future, or the response's body, cancels the exchange at the target.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<ClientBody<T>>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let (head, body) = request.into_parts();
        let mut record = self.recorder.begin(&head, None);
        match self.exchange(head, body, &mut record).await {
            Ok(response) => {
                let response = response.map(|body| Charged::new(body, record.meter(), T::defer));
                Ok(answer(Ok(response), record))
            }
            Err(failure) => {
                record.fail(&failure);
                record.responded(failure.status());
                Err(failure)
            }
        }
    }

    async fn exchange<B>(
        &self,
        mut head: request::Parts,
        body: B,
        record: &mut Record,
    ) -> Result<Response<T::Body>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let to = self.destination();
        record.asked(&to.tenant, &to.host_id, to.service.as_ref());
        prepare(&mut head, body.size_hint().exact())?;
        let what = if is_plain(&head) { What::Stream } else { What::Exchange };
        record.enter(self.directory.shares().tenant(&to.tenant), what)?;
        let interim = head.extensions.remove().unwrap_or_else(|| InformationalSink::new(|_| {}));
        let mut body = Some(record.upload(body));
        let find = FindTunnel::new(&self.directory, &to, self.hold);
        let request = Outgoing { service: to.service.as_ref(), head: &mut head, interim: &interim };
        Exchange { find, request, deadline: &self.deadline, pace: Some(&Pace::NONE) }.run(&mut body, record).await
    }
}

impl<T, B> tower_service::Service<Request<B>> for Client<T>
where
    T: Opener,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    type Response = Response<ClientBody<T>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    /// Always ready: a request waits for its tunnel, not before it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.send(request).await })
    }
}

/// Brings what a program wrote into the shape of what a codec has read and a gateway has forwarded, or says what is wrong.
/// `length` is what the body knows of its own size, bytes.
fn prepare(head: &mut request::Parts, length: Option<u64>) -> Result<(), Failure> {
    strip_hop_by_hop(&mut head.headers);
    // Nobody here waits for 100 Continue: the body is taken when it is wanted.
    head.headers.remove(EXPECT);
    head.uri = absolute(std::mem::take(&mut head.uri), &head.headers)?;
    // How many fields may pass is for the tunnel to say.
    let declared = validate::http2_request(head, &Scheme::HTTP, usize::MAX).map_err(broken)?;
    match (declared, length) {
        (Some(declared), Some(length)) if declared != length => {
            let details = format!("Content-Length says {declared} bytes, and the body has {length}");
            return Err(Failure::new(Cause::BadRequest, details));
        }
        (None, Some(length)) if length > 0 => {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => {}
    }
    Ok(())
}

/// The URI with scheme, authority and path. What a `Host` field says beside an authority is compared later.
fn absolute(uri: Uri, fields: &HeaderMap) -> Result<Uri, Failure> {
    let mut parts = uri.into_parts();
    if parts.authority.is_none() {
        let host = fields.get(HOST).ok_or_else(|| {
            Failure::new(Cause::BadRequest, "the request names no host: neither its URI nor a Host field does")
        })?;
        parts.authority = Some(validate::authority(Bytes::copy_from_slice(host.as_bytes())).map_err(broken)?);
    }
    parts.scheme.get_or_insert(Scheme::HTTP);
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    Uri::from_parts(parts).map_err(|_| broken(Violation::Target))
}

fn broken(violation: Violation) -> Failure {
    let cause = match violation.status() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Cause::HeadTooLarge,
        _ => Cause::BadRequest,
    };
    Failure::new(cause, violation.to_string())
}
