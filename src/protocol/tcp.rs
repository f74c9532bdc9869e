//! The names that a tunnel over TCP puts into its HTTP/2. spec: `8-tcp.md`

use http::header::HeaderName;

/// The authority of the requests that carry no request of a client: control stream, raw streams, flows. Nobody can
/// have a host of that name (RFC 2606). spec: TB-5, TB-12
pub const AUTHORITY: &str = "control.invalid";
/// The target of the request whose bodies are the control stream. spec: TB-5
pub const CONTROL_URI: &str = "https://control.invalid/adit/1";
/// The target of raw streams and flows. spec: TB-12
pub const SERVICE_URI: &str = "https://control.invalid/";
/// The `:protocol` of a raw stream. spec: TB-12
pub const RAW_PROTOCOL: &str = "adit-raw";
/// The `:protocol` of a flow. spec: TB-12
pub const FLOW_PROTOCOL: &str = "adit-flow";
/// The field that names the service that a stream is for. spec: TB-6, TB-12
pub static SERVICE_FIELD: HeaderName = HeaderName::from_static("adit-service");
/// The field with the cause of a refusal, in decimal digits. spec: TB-13
pub static CAUSE_FIELD: HeaderName = HeaderName::from_static("adit-cause");
/// The field with the reason of a refusal. spec: TB-13
pub static REASON_FIELD: HeaderName = HeaderName::from_static("adit-reason");
