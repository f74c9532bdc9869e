//! The names that a tunnel over TCP puts into its HTTP/2. spec: `8-tcp.md`

use http::HeaderMap;
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
/// The field that says who connected to the responder. spec: TB-16
pub static CLIENT_FIELD: HeaderName = HeaderName::from_static("adit-client");
/// The field with the cause of a refusal, in decimal digits. spec: TB-13
pub static CAUSE_FIELD: HeaderName = HeaderName::from_static("adit-cause");
/// The field with the reason of a refusal. spec: TB-13
pub static REASON_FIELD: HeaderName = HeaderName::from_static("adit-reason");

/// Whether a field belongs to tunnels over TCP. Whoever else wrote it, it is left out of every message. spec: ST-29
pub fn is_own_field(name: &HeaderName) -> bool {
    name.as_str().starts_with("adit-") && [&SERVICE_FIELD, &CLIENT_FIELD, &CAUSE_FIELD, &REASON_FIELD].contains(&name)
}

/// Removes the fields of [`is_own_field`]. Where there are none it costs one look at each name. spec: ST-29
pub fn strip_own_fields(fields: &mut HeaderMap) {
    while let Some(name) = fields.keys().find(|name| is_own_field(name)).cloned() {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    // spec: ST-29
    #[test]
    fn no_message_carries_the_fields_of_a_tunnel() {
        let fields = ["adit-service", "adit-client", "adit-cause", "adit-reason", "adit-other", "x"]
            .map(HeaderName::from_static);
        let mut fields: HeaderMap = fields.into_iter().map(|name| (name, HeaderValue::from_static("1"))).collect();
        strip_own_fields(&mut fields);
        let mut left: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["adit-other", "x"]);
    }
}
