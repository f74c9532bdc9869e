//! A connection to one member of etcd, and the calls on it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::tokio_stream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tracing::warn;

use super::error::EtcdError;
use super::messages::{
    AuthenticateRequest, AuthenticateResponse, Compare, DeleteRangeRequest, Header, KeyValue, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRequest, LeaseRevokeResponse, Operation as Wire, PutRequest,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use super::settings::{Endpoint, EtcdSettings, User};
use super::watch::Watch;
use super::{MAX_MESSAGE_BYTES, end_of};
use crate::fleet::view::Stored;
use crate::tls::{server_name, target_config};

/// How many keys are read in one answer.
const PAGE: i64 = 512;
/// Compare says "equal", of the revision of the last change.
const EQUAL: i32 = 0;
const MOD_REVISION: i32 = 2;

/// A lease: what is written under it goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(pub i64);

/// Part of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A key gets a value, for as long as the lease lives.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// A key goes.
    Delete(String),
    /// Every key goes that begins with this.
    DeleteAll(String),
}

/// A connection to one member, with the token of its user, which is renewed when etcd does not know it any more. Ends when it is
/// dropped.
pub struct Connection {
    grpc: Grpc<Channel>,
    user: Option<User>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    endpoint: Endpoint,
    timeout: Duration,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects to one of the members, the one at `first` before the others, and says who asks.
    ///
    /// # Errors
    /// What was wrong with the last member, if none can be used.
    ///
    /// Cancel safe.
    pub async fn open(settings: &EtcdSettings, first: usize) -> Result<Self, EtcdError> {
        let count = settings.endpoints.len();
        let mut last = EtcdError::Incomplete { call: "connect", missing: "endpoint" };
        for index in 0..count {
            let endpoint = &settings.endpoints[(first + index) % count];
            let timeout = settings.timeout;
            match within("a connection", timeout, Self::to(endpoint, settings)).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    async fn to(endpoint: &Endpoint, settings: &EtcdSettings) -> Result<Self, EtcdError> {
        let io = dial(endpoint, settings).await?;
        let made = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await;
        let (sender, driver) = made.map_err(|source| EtcdError::Http { endpoint: endpoint.clone(), source })?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            // Whoever has a call under way learns of the end by it.
            let _ = driver.await;
        }));
        let origin = endpoint.to_string().parse().unwrap_or_default();
        let grpc = Grpc::with_origin(Channel(sender), origin).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (endpoint, timeout) = (endpoint.clone(), settings.timeout);
        let (user, token) = (settings.user.clone(), Mutex::default());
        let connection = Self { grpc, user, token, endpoint, timeout, _driver: driver };
        connection.authenticate().await?;
        Ok(connection)
    }

    /// Gets a token for the user, if there is one; none where etcd has no users.
    async fn authenticate(&self) -> Result<(), EtcdError> {
        const CALL: &str = "Authenticate";
        let Some(User { name, password }) = self.user.clone() else { return Ok(()) };
        // A token that is not known any more is not shown.
        self.show(None);
        let request = AuthenticateRequest { name, password };
        match self.once::<_, AuthenticateResponse>(CALL, "/etcdserverpb.Auth/Authenticate", request).await {
            Ok(answer) => {
                let token = answer.token.parse();
                self.show(Some(token.map_err(|_| EtcdError::Incomplete { call: CALL, missing: "usable token" })?));
            }
            Err(EtcdError::Status { status, .. }) if status.code() == Code::FailedPrecondition => {
                warn!(endpoint = %self.endpoint, "etcd knows no users: whoever reaches it reads and writes the directory");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What is shown from here on.
    fn show(&self, token: Option<MetadataValue<Ascii>>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Which etcd it is, and at which revision; asked by a key that the user may read.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn standing(&self, key: &str) -> Result<(u64, i64), EtcdError> {
        const CALL: &str = "Range";
        // A majority answers, so it is never old.
        let request = RangeRequest { key: key.into(), limit: 1, ..RangeRequest::default() };
        let answer: RangeResponse = self.call(CALL, "/etcdserverpb.KV/Range", request).await?;
        header(CALL, answer.header).map(|header| (header.cluster_id, header.revision))
    }

    /// The value of a key and the revision at which it got it.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn get(&self, key: &str) -> Result<Option<(Vec<u8>, i64)>, EtcdError> {
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let mut answer: RangeResponse = self.call("Range", "/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs.pop().map(|kv| (kv.value, kv.mod_revision)))
    }

    /// Everything that begins with one of `prefixes`, all of one revision, page by page; which etcd it is, and the revision. `most`:
    /// of how many no more pages are asked for.
    ///
    /// # Errors
    /// [`EtcdError`]; also when the revision was compacted before the last page.
    pub async fn read_all<const N: usize>(
        &self,
        prefixes: [&str; N],
        most: usize,
    ) -> Result<(u64, i64, Vec<Stored>), EtcdError> {
        let (mut cluster, mut revision, mut all) = (0, 0, Vec::new());
        for prefix in prefixes {
            (cluster, revision) = self.read_pages(prefix, revision, (&mut all, most)).await?;
        }
        Ok((cluster, revision, all))
    }

    /// The same for one of them, at this revision; 0: at the latest.
    async fn read_pages(
        &self,
        prefix: &str,
        mut revision: i64,
        (all, most): (&mut Vec<Stored>, usize),
    ) -> Result<(u64, i64), EtcdError> {
        const CALL: &str = "Range";
        let (mut key, range_end) = (prefix.as_bytes().to_vec(), end_of(prefix.as_bytes()));
        loop {
            let request_key = key.clone();
            let request = RangeRequest { key, range_end: range_end.clone(), limit: PAGE, revision };
            let answer: RangeResponse = self.call(CALL, "/etcdserverpb.KV/Range", request).await?;
            let header = header(CALL, answer.header)?;
            if revision == 0 {
                revision = header.revision;
            }
            if answer.more && answer.kvs.last().is_none_or(|last| last.key < request_key) {
                return Err(EtcdError::Incomplete { call: CALL, missing: "key behind those that it gave before" });
            }
            let next = answer.kvs.last().map(|last| [last.key.as_slice(), &[0]].concat());
            all.extend(answer.kvs.into_iter().map(Stored::from));
            match next.filter(|_| answer.more && all.len() < most) {
                Some(next) => key = next,
                None => return Ok((header.cluster_id, revision)),
            }
        }
    }

    /// Does everything of `operations` at once, under the lease, unless the key was changed since the revision (0: it is not
    /// there). False when it was.
    ///
    /// # Errors
    /// [`EtcdError`]; it may have been done all the same, unless etcd itself said no.
    pub async fn write(
        &self,
        unchanged: Option<(&str, i64)>,
        operations: Vec<Operation>,
        Lease(lease): Lease,
    ) -> Result<bool, EtcdError> {
        let compare = unchanged.map(|(key, revision)| Compare {
            result: EQUAL,
            target: MOD_REVISION,
            key: key.into(),
            mod_revision: Some(revision),
        });
        let success = operations.into_iter().map(|operation| wire(operation, lease)).collect();
        let request = TxnRequest { compare: compare.into_iter().collect(), success };
        let answer: TxnResponse = self.call("Txn", "/etcdserverpb.KV/Txn", request).await?;
        Ok(answer.succeeded)
    }

    /// A new lease.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn grant(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        let request = LeaseGrantRequest { ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX) };
        let answer: LeaseGrantResponse = self.call("LeaseGrant", "/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(Lease(answer.id))
    }

    /// Lets a lease live for its whole time again. False when there is no such lease any more.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn keep_alive(&self, Lease(id): Lease) -> Result<bool, EtcdError> {
        const PATH: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
        let answer: LeaseKeepAliveResponse = self.call("LeaseKeepAlive", PATH, LeaseRequest { id }).await?;
        Ok(answer.ttl > 0)
    }

    /// Ends a lease and what was written under it.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn revoke(&self, Lease(id): Lease) -> Result<(), EtcdError> {
        const PATH: &str = "/etcdserverpb.Lease/LeaseRevoke";
        self.call::<_, LeaseRevokeResponse>("LeaseRevoke", PATH, LeaseRequest { id }).await.map(drop)
    }

    /// Begins to hear of everything that begins with `prefix`, from this revision on.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn watch(&self, prefix: &str, from: i64) -> Result<Watch, EtcdError> {
        let (wishes, requests) = Watch::wishes(prefix, from);
        let stream = within("Watch", self.timeout, async {
            let request = self.request(tokio_stream::wrappers::ReceiverStream::new(requests));
            let codec = ProstCodec::<WatchRequest, WatchResponse>::new();
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            let answered = self.grpc.clone().streaming(request, path, codec).await;
            answered.map(tonic::Response::into_inner).map_err(EtcdError::status("Watch"))
        });
        let stream: Streaming<WatchResponse> = stream.await?;
        Ok(Watch::new(stream, wishes))
    }

    /// etcd forgets a token that is not used for some minutes, and does nothing for who shows it then.
    async fn call<Q, A>(&self, call: &'static str, path: &'static str, request: Q) -> Result<A, EtcdError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        within(call, self.timeout, async {
            match self.once(call, path, request.clone()).await {
                Err(EtcdError::Status { status, .. }) if is_of_token(&status) => {
                    self.authenticate().await?;
                    self.once(call, path, request).await
                }
                answered => answered,
            }
        })
        .await
    }

    async fn once<Q, A>(&self, call: &'static str, path: &'static str, request: Q) -> Result<A, EtcdError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let (request, path) = (self.request(request), PathAndQuery::from_static(path));
        let answered = self.grpc.clone().unary(request, path, ProstCodec::<Q, A>::new()).await;
        answered.map(tonic::Response::into_inner).map_err(EtcdError::status(call))
    }

    fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        // A member that has lost the others ends the call, rather than to keep it without an answer.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl From<KeyValue> for Stored {
    fn from(kv: KeyValue) -> Self {
        Self { key: kv.key, value: kv.value, created: kv.create_revision, modified: kv.mod_revision }
    }
}

/// Whether etcd has forgotten a token, or it is from before users or roles were changed.
fn is_of_token(status: &Status) -> bool {
    status.code() == Code::Unauthenticated || status.message().contains("revision of auth store is old")
}

fn wire(operation: Operation, lease: i64) -> RequestOp {
    let request = match operation {
        Operation::Put { key, value } => Wire::Put(PutRequest { key: key.into_bytes(), value, lease }),
        Operation::Delete(key) => Wire::Delete(DeleteRangeRequest { key: key.into_bytes(), range_end: Vec::new() }),
        Operation::DeleteAll(prefix) => {
            let range_end = end_of(prefix.as_bytes());
            Wire::Delete(DeleteRangeRequest { key: prefix.into_bytes(), range_end })
        }
    };
    RequestOp { request: Some(request) }
}

fn header(call: &'static str, header: Option<Header>) -> Result<Header, EtcdError> {
    header.ok_or(EtcdError::Incomplete { call, missing: "header" })
}

async fn within<T>(
    call: &'static str,
    timeout: Duration,
    work: impl Future<Output = Result<T, EtcdError>>,
) -> Result<T, EtcdError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(EtcdError::Timeout { call, timeout }))
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn dial(endpoint: &Endpoint, settings: &EtcdSettings) -> Result<Box<dyn Io>, EtcdError> {
    let failed = |source: io::Error| EtcdError::Connect { endpoint: endpoint.clone(), source };
    let stream = TcpStream::connect((endpoint.at.host.as_str(), endpoint.at.port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    if !endpoint.is_secure {
        return Ok(Box::new(stream));
    }
    let Some(tls) = &settings.tls else {
        return Err(failed(io::Error::other("nothing says which certificates are genuine; expected tls")));
    };
    let connector = TlsConnector::from(Arc::new(target_config(tls, b"h2")?));
    let name = server_name(tls.server_name.as_deref().unwrap_or(&endpoint.at.host))?;
    Ok(Box::new(connector.connect(name, stream).await.map_err(failed)?))
}

/// HTTP/2 as `tonic` wants to use it.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
