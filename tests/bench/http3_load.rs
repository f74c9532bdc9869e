//! The load generator for HTTP/3: h3 over quinn, one exchange at a time on each connection, as over HTTP/1.1. A line
//! on which an exchange fails is left out and says why: an Envoy 1.40 answers some of many at once with 503, or never.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, VarInt};
use rustls::RootCertStore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::adit_pair::Http3Egress;
use crate::line::{Direction, Kind, Line, Sample, Shape, Stopwatch, Workload, sum};
use crate::raw_quic;
use crate::support::certificates::RESPONDER_NAME;
use crate::target::{PAYLOAD, PIECE};
use crate::thread::block_on;
use crate::usage::Process;

/// A line that begins at such an egress.
pub(crate) struct Http3Line {
    pub(crate) name: String,
    pub(crate) egress: Http3Egress,
    /// Whole header lines for every request.
    pub(crate) fields: String,
    pub(crate) processes: Vec<Process>,
}

/// No exchange of a benchmark takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection with whoever moves it.
struct Client {
    requests: SendRequest<OpenStreams, Bytes>,
    _driver: JoinSet<()>,
}

impl Line for Http3Line {
    fn name(&self) -> &str {
        &self.name
    }

    fn requests(&self, workload: Workload) -> Option<Sample> {
        let Shape::Http1(connections) = workload.shape else { return None };
        if workload.kind == Kind::Connect {
            return None;
        }
        let measured = block_on(async {
            let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
            let (mut workers, failures) = (JoinSet::new(), Failures::default());
            // All before the first exchange: a handshake takes long enough to fall into what is measured.
            let mut clients = Vec::with_capacity(connections);
            for _ in 0..connections {
                clients.push(self.connect(&endpoint).await?);
            }
            for client in clients {
                let (path, body) = match workload.kind {
                    Kind::Get | Kind::Connect => ("/", 0),
                    Kind::Echo => ("/echo", PAYLOAD),
                };
                let request = self.request(if body > 0 { "POST" } else { "GET" }, path, body);
                let exchanges = exchanges(client, request, body, workload.duration);
                workers.spawn(failures.clone().kept(exchanges));
            }
            let sample = sum(workers).await;
            failures.first().map_or(Ok(sample), Err)
        });
        measured.map_err(|error: BoxError| eprintln!("left out: {}: {error}", self.name)).ok()
    }

    fn bulk(&self, direction: Direction, bytes: usize) -> Option<Duration> {
        let transfer = async {
            let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
            let mut client = self.connect(&endpoint).await?;
            let start = Instant::now();
            let (request, up, down) = match direction {
                Direction::Up => (self.request("POST", "/sink", bytes), bytes, 0),
                Direction::Down => (self.request("GET", &format!("/bytes/{bytes}"), 0), 0, bytes),
            };
            let arrived = exchange(&mut client.requests, request, up).await?;
            if arrived != down {
                return Err(format!("{arrived} bytes of {down} arrived").into());
            }
            Ok::<_, BoxError>(start.elapsed())
        };
        block_on(transfer).map_err(|error| eprintln!("left out: {}: {error}", self.name)).ok()
    }

    fn processes(&self) -> Vec<Process> {
        self.processes.clone()
    }
}

impl Http3Line {
    fn request(&self, method: &str, path: &str, length: usize) -> Request<()> {
        let uri = format!("https://{RESPONDER_NAME}:{}{path}", self.egress.address.port());
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in self.fields.lines().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        if length > 0 {
            request = request.header(http::header::CONTENT_LENGTH, length);
        }
        request.body(()).unwrap()
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Client, BoxError> {
        let config = client_config(self.egress.roots.clone());
        let connection = endpoint.connect_with(config, self.egress.address, RESPONDER_NAME)?.await?;
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            driver.wait_idle().await;
        });
        Ok(Client { requests, _driver: driving })
    }
}

async fn exchanges(
    mut client: Client,
    request: Request<()>,
    up: usize,
    duration: Duration,
) -> Result<Sample, BoxError> {
    let mut stopwatch = Stopwatch::start(duration);
    while stopwatch.is_running() {
        let exchange = timeout(PATIENCE, exchange(&mut client.requests, request.clone(), up));
        let down = exchange.await.map_err(|_| format!("{} did not end in {PATIENCE:?}", request.uri()))??;
        if down != PAYLOAD {
            return Err(format!("a body of {down} bytes").into());
        }
        stopwatch.lap();
    }
    Ok(stopwatch.sample())
}

/// What went wrong on any of the connections.
#[derive(Debug, Clone, Default)]
struct Failures(Arc<Mutex<Option<BoxError>>>);

impl Failures {
    /// What was measured; nothing where it failed, which is kept.
    async fn kept(self, measured: impl Future<Output = Result<Sample, BoxError>>) -> Sample {
        measured.await.unwrap_or_else(|error| {
            self.0.lock().unwrap().get_or_insert(error);
            Sample::empty()
        })
    }

    fn first(&self) -> Option<BoxError> {
        self.0.lock().unwrap().take()
    }
}

/// One request with a body of `up` bytes, and a response that must be 200: how many bytes it has.
async fn exchange(
    requests: &mut SendRequest<OpenStreams, Bytes>,
    request: Request<()>,
    up: usize,
) -> Result<usize, BoxError> {
    static PIECES: [u8; PIECE] = [b'x'; PIECE];
    let mut stream = requests.send_request(request).await?;
    let mut left = up;
    while left > 0 {
        let length = left.min(PIECE);
        stream.send_data(Bytes::from_static(&PIECES[..length])).await?;
        left -= length;
    }
    stream.finish().await?;
    let status = stream.recv_response().await?.status();
    if status != http::StatusCode::OK {
        return Err(format!("answered {status}").into());
    }
    let mut down = 0;
    while let Some(data) = stream.recv_data().await? {
        down += data.remaining();
    }
    Ok(down)
}

/// Windows and congestion control as of the other lines, and room for the streams that a server opens.
fn client_config(roots: RootCertStore) -> quinn::ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(raw_quic::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut transport = raw_quic::transport();
    transport.max_concurrent_uni_streams(VarInt::from_u32(16));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}
