//! What the configurations of both ends are made of, as the JSON that Envoy reads.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Name, Tls};

/// An extension with its configuration, which is of the protobuf message `kind` in `envoy.extensions`.
pub(super) fn extension(name: &str, kind: &str, fields: Value) -> Value {
    json!({ "name": name, "typed_config": message(kind, fields) })
}

/// A protobuf message of `envoy.extensions` with its type.
pub(super) fn message(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.extensions.{kind}").into();
    fields
}

/// A duration as protobuf writes it in JSON.
pub(super) fn duration(duration: Duration) -> Value {
    format!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos()).into()
}

/// Adds a key when there is a value for it.
pub(super) fn set<T>(fields: &mut Value, key: &str, value: Option<T>)
where
    Value: From<T>,
{
    if let Some(value) = value {
        fields[key] = value.into();
    }
}

/// A listener's or an endpoint's address.
pub(super) fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// The whole file.
pub(super) fn bootstrap(admin: SocketAddr, extension: Value, listeners: Value, clusters: Value) -> Value {
    json!({
        "bootstrap_extensions": [extension],
        "admin": { "address": address(admin) },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}

/// An HTTP connection manager that sends every request to `cluster`.
pub(super) fn http_to(cluster: &str, request_timeout: Option<Duration>) -> Value {
    let mut route = json!({ "cluster": cluster });
    set(&mut route, "timeout", request_timeout.map(duration));
    let router = extension("envoy.filters.http.router", "filters.http.router.v3.Router", json!({}));
    json!({
        "stat_prefix": "http",
        "codec_type": "AUTO",
        "http_protocol_options": { "enable_trailers": true },
        "route_config": {
            "virtual_hosts": [
                { "name": "all", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": route }] },
            ],
        },
        "http_filters": [router],
    })
}

/// Lets WebSockets through a connection manager, however they are asked for; it takes none by itself.
pub(super) fn with_websockets(mut manager: Value) -> Value {
    manager["upgrade_configs"] = json!([{ "upgrade_type": "websocket" }]);
    manager["http2_protocol_options"] = json!({ "allow_connect": true });
    manager
}

/// That connection manager as it is.
pub(super) fn http_filter(manager: Value) -> Value {
    let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    extension("envoy.filters.network.http_connection_manager", kind, manager)
}

/// A cluster at fixed addresses.
pub(super) fn fixed_cluster(name: &str, addresses: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|to| json!({ "endpoint": { "address": address(*to) } })).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    })
}

/// Which HTTP a cluster speaks, and how.
pub(super) fn http_options(explicit: Value) -> Value {
    message("upstreams.http.v3.HttpProtocolOptions", json!({ "explicit_http_config": explicit }))
}

impl Tls {
    /// As a TLS server, which wants a certificate of the client.
    pub(super) fn server(&self) -> Value {
        let fields = json!({ "require_client_certificate": true, "common_tls_context": self.common() });
        extension("envoy.transport_sockets.tls", "transport_sockets.tls.v3.DownstreamTlsContext", fields)
    }

    /// As a server of QUIC, to anybody.
    pub(super) fn quic_server(&self) -> Value {
        let mut common = self.common();
        common.as_object_mut().unwrap().remove("validation_context");
        let tls = json!({ "common_tls_context": common });
        let kind = "transport_sockets.quic.v3.QuicDownstreamTransport";
        extension("envoy.transport_sockets.quic", kind, json!({ "downstream_tls_context": tls }))
    }

    /// As a TLS client, which looks at the name of the server.
    pub(super) fn client(&self) -> Value {
        let mut common = self.common();
        let (kind, name) = match &self.peer {
            Name::Dns(name) => ("DNS", name),
            Name::Uri(name) => ("URI", name),
        };
        common["validation_context"]["match_typed_subject_alt_names"] =
            json!([{ "san_type": kind, "matcher": { "exact": name } }]);
        let mut fields = json!({ "common_tls_context": common });
        if let Name::Dns(name) = &self.peer {
            fields["sni"] = name.as_str().into();
        }
        extension("envoy.transport_sockets.tls", "transport_sockets.tls.v3.UpstreamTlsContext", fields)
    }

    fn common(&self) -> Value {
        json!({
            "tls_certificates": [{
                "certificate_chain": { "filename": self.shown.cert },
                "private_key": { "filename": self.shown.key },
            }],
            "validation_context": { "trusted_ca": { "filename": self.ca } },
        })
    }
}
