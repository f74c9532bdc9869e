//! adit: reverse tunnels over QUIC. Services in the cloud reach services at sites that accept no inbound connection.
//!
//! An initiator at the site dials out; a responder in the cloud accepts the tunnel, and sends requests into it that come
//! out at the site. The README shows how to run the binary; this is the map of the code, and how to embed it.
//!
//! # Embedding
//!
//! Each role has a builder. The initiator serves any `tower_service::Service` directly, such as an axum router:
//!
//! ```no_run
//! # async fn site(certificate: &std::path::Path, key: &std::path::Path, ca: &std::path::Path)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use adit::{Credentials, Trust, load_roots};
//!
//! let address = "rc://edge-17:stores-eu:acme@cloud.example.com:7843".parse()?;
//! let router = axum::Router::new().route("/", axum::routing::get(async || "hello from the site"));
//! let initiator = adit::InitiatorBuilder::new(address, Trust::roots(load_roots(ca)?))
//!     .credentials(Credentials::load(certificate, key)?)
//!     .serve(router)?;
//! let drain = adit::Drain::new();
//! initiator.run(drain.watch()).await;
//! # Ok(()) }
//! ```
//!
//! [`ResponderBuilder`] is the other end. Its program sends requests into the tunnels with a [`Client`], a
//! `tower_service::Service` too, and takes those of other programs with [`EgressBuilder`]:
//!
//! ```no_run
//! # async fn cloud(certificate: &std::path::Path, key: &std::path::Path, ca: &std::path::Path)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use adit::{Credentials, load_roots};
//! use http_body_util::{BodyExt as _, Empty};
//!
//! let responder = adit::ResponderBuilder::new(Credentials::load(certificate, key)?)
//!     .admit_certificates(load_roots(ca)?, "spiffe://example.com/{tenant}/{cluster}/{node}")?
//!     .bind(([0, 0, 0, 0], 7843).into())?;
//! let edge = adit::Client::new(responder.directory(), "edge-17".parse()?).tenant("acme".parse()?);
//! let drain = adit::Drain::new();
//! tokio::spawn(responder.run(drain.watch()));
//! let request = http::Request::get("http://shop.example/orders").body(Empty::new())?;
//! let orders = edge.send(request).await?.into_body().collect().await?.to_bytes();
//! # Ok(()) }
//! ```
//!
//! `examples/embedding` has both ends in one program.
//! [`config::load`] and [`app::App`] run what a file says instead.
//! [`app::Handle`] applies other settings while it runs.
//!
//! Each role's handle ([`ResponderHandle`], [`InitiatorHandle`], [`EgressHandle`]) changes what it goes by while it runs:
//! one snapshot, swapped whole. What an embedder needs has a name at the root of the crate; the modules are public for
//! what goes beyond that.
//!
//! # Modules
//!
//! A module uses modules of the rows above it only; a test (`tests/conformance/layering.rs`) keeps that.
//!
//! | row | module | what it is for |
//! |---|---|---|
//! | 1 | [`id`] | names and proofs: nodes, clusters, tenants, pins, addresses |
//! | 2 | [`message`] | HTTP messages: the validator, forwarding and hop-by-hop rules, failures |
//! | 2 | [`template`] | formatters such as `%REQ(x-node-id)%` |
//! | 3 | [`protocol`] | the wire without I/O: codecs, the session state machine, limits, every code |
//! | 4 | [`policy`] | who may open a tunnel: claim, proof and rules in, [`policy::Admitted`] or a refusal out |
//! | 5 | [`registry`] | which tunnels there are, and which one takes a request |
//! | 5 | [`net`] | binding sockets |
//! | 5 | [`lifecycle`] | drain, readiness, signals, backoff |
//! | 5 | [`telemetry`] | logs and metrics |
//! | 6 | [`shares`] | what each tenant and node may have, and whose turn it is |
//! | 6 | [`tls`] | certificates, pins, verification, a small CA |
//! | 7 | [`transport`] | a live [`transport::Tunnel`], over [`transport::quic`], [`transport::tcp`], or as [Envoy](transport::tcp::envoy) does it |
//! | 8 | [`proxy`] | moving things: the exchange with its attempts, deadline and record |
//! | 9 | [`fleet`] | several responders that act as one: who has which node |
//! | 9 | [`routing`] | from a request to a tunnel |
//! | 9 | [`targets`] | servers that take requests, bytes or datagrams: of services of an initiator, and where rules forward to |
//! | 10 | [`initiator`] | dials, keeps tunnels up, serves what arrives |
//! | 10 | [`responder`] | accepts, admits, registers |
//! | 10 | [`egress`] | listeners for HTTP/1.1, HTTP/2 and HTTP/3; the client for requests of the program itself |
//! | 11 | [`config`] | a file into checked settings |
//! | 12 | [`admin`] | status, metrics and health over HTTP |
//! | 13 | [`app`] | builds, runs and drains what is configured |
//!
//! The commands are in `src/cli.rs` and `src/cli/`, which belong to the binary.
//!
//! # How one request travels
//!
//! `egress::listener` accepts a connection and `egress::http1` or `egress::http2` reads the request, which
//! [`message::validate`] must accept. `egress::gateway` asks [`routing::Router`] whom it is for and
//! [`routing::Directory`] for a tunnel, and opens a stream with [`proxy::exchange`]. On the other side the
//! stream reaches a [`transport::Serve`]: in the binary [`initiator::serve::Services`], which hands it to one of
//! [`targets`].
//!
//! # Where is …?
//!
//! | question | open |
//! |---|---|
//! | the bytes of the handshake | `proto-spec/2-handshake.md`, [`protocol::handshake`] |
//! | the bytes of Envoy's reverse tunnels | `proto-spec/5-envoy.md`, [`protocol::envoy`] |
//! | when a tunnel is considered dead | [`protocol::session`]; on Envoy's path [`protocol::envoy`] |
//! | who may open a tunnel | [`policy::authorize`], [`policy::Rules`] |
//! | what a certificate must say | [`policy::IdentityTemplate`]; how it is verified: [`tls`] |
//! | how a request finds its node | [`routing::Router`], [`template::Template`], [`registry::Registry::pick`] |
//! | why a request got 503 | [`message::failure::Cause`] |
//! | when a request is tried again | [`proxy::exchange`] |
//! | what the access log says | [`proxy::record`] |
//! | QUIC or TCP, reconnect delays, and when not to retry | [`initiator::auto`], [`lifecycle::Backoff`] |
//! | which responder of a fleet a tunnel goes to | `initiator/spread.rs`; what responders tell of each other: [`protocol::roster`] |
//! | what can be changed while it runs | [`ResponderTerms`], [`InitiatorTerms`], [`EgressTerms`] |
//! | what SIGTERM does | [`lifecycle::Signals`], then [`app::App::run`] |
//! | what differs between two settings | [`config::Difference`] |
//! | who asks for a reload | `cli/run.rs`, `admin/answer.rs`, `app/watch.rs`; what is watched: [`config::Source`] |
//! | what SIGHUP does, and how settings are applied | [`app::Handle`] |
//! | a metric's meaning | [`telemetry::Metrics`], `telemetry/metrics/table.rs` |
//! | the default of a setting | the settings struct of the module that uses it, such as [`transport::TunnelSettings`]; of a limit of the protocol: [`protocol::limits`] |
//! | a key of the file | the struct of its section, such as [`config::ResponderConfig`] |
//! | a limit against hostile peers | [`protocol::limits`], [`policy::Quotas`], [`egress::Settings`], [`shares::ShareSettings`] |
//! | every close, reset and refusal code | [`protocol::code`] |
//! | HTTP header rules | [`message::fields`], [`message::validate`], [`message::forward`] |

pub mod admin;
pub mod app;
pub mod config;
pub mod egress;
pub mod fleet;
pub mod id;
pub mod initiator;
pub mod lifecycle;
pub mod message;
pub mod net;
pub mod policy;
pub mod protocol;
pub mod proxy;
pub mod registry;
pub mod responder;
pub mod routing;
pub mod shares;
pub mod targets;
pub mod telemetry;
pub mod template;
pub mod tls;
pub mod transport;

pub use egress::{
    AccessLog, BuildError as EgressBuildError, Builder as EgressBuilder, Client, Egress, Handle as EgressHandle,
    Leaving, Settings as EgressSettings, Terms as EgressTerms,
};
pub use id::{AddressError, ClusterId, HostId, IdError, NodeId, ServiceName, SpkiPin, TenantId, TunnelAddress};
pub use initiator::{
    BuildError as InitiatorBuildError, Builder as InitiatorBuilder, Destination, Handle as InitiatorHandle, Initiator,
    SlotStatus, StatusBoard, Terms as InitiatorTerms, UpdateError as InitiatorUpdateError,
};
pub use lifecycle::{Drain, DrainWatch, Drained};
pub use message::failure::{Cause, Failure};
pub use message::interim::InformationalSink;
pub use policy::{NodeRule, Quotas, RuleError, RuleSettings, Rules};
pub use proxy::ExchangeBody;
pub use responder::{
    BuildError as ResponderBuildError, Builder as ResponderBuilder, Handle as ResponderHandle, Responder, StartError,
    Terms as ResponderTerms, UpdateError as ResponderUpdateError,
};
pub use routing::{Directory, Route, RouterSettings};
pub use shares::{NodeShare, Rate as ShareRate, Share, ShareSettings, TenantShare};
pub use telemetry::Metrics;
pub use tls::{ClientCertificates, Credentials, EgressTls, InitiatorTls, ResponderTls, TlsError, Trust, load_roots};
pub use transport::{
    Accept, Arrival, BodyError, HttpService, RecvBody, Serve, TransportChoice, TransportKind, Tunnel, TunnelSettings,
};
