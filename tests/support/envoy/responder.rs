//! Envoy as a responder: it accepts tunnels, and its egress sends requests down one of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde_json::{Value, json};

use super::config::{
    address, bootstrap, duration, extension, http_filter, http_options, http_to, message, set, with_websockets,
};
use super::{Envoy, Flags, Tls, Variant};
use crate::support::eventually::eventually;

/// What a test changes; what is `None` stays as Envoy has it.
#[derive(Debug, Clone)]
pub(crate) struct ResponderOptions {
    /// Workers.
    pub(crate) concurrency: usize,
    /// At both ends of the listeners; without it, all workers accept from one socket.
    pub(crate) reuse_port: bool,
    /// What leads a request to a node or a cluster.
    pub(crate) host_id_format: &'static str,
    /// Makes tenants worlds of their own; a request says its tenant like this.
    pub(crate) tenant_id_format: Option<&'static str>,
    /// Between probes of an idle tunnel, in whole seconds.
    pub(crate) ping_interval: Option<Duration>,
    /// How many probes in a row may fail.
    pub(crate) ping_failure_threshold: Option<u32>,
    /// HTTP/2 probes on tunnels in use: interval and timeout. Drain-aware ones have them anyway.
    pub(crate) keepalive: Option<[Duration; 2]>,
    /// The handshake is an HTTP upgrade.
    pub(crate) use_http_upgrade: bool,
    /// Where handshakes go.
    pub(crate) request_path: Option<&'static str>,
    /// What initiators must call it.
    pub(crate) required_cluster_name: Option<&'static str>,
    /// What the claimed node must be equal to, such as `%DOWNSTREAM_PEER_DNS_SAN%`.
    pub(crate) node_id_format: Option<&'static str>,
    pub(crate) handshake_timeout: Option<Duration>,
    /// More tunnels of a node are rejected with 429.
    pub(crate) max_connections_per_node: Option<u32>,
    /// For a whole exchange; zero is without limit.
    pub(crate) request_timeout: Option<Duration>,
    /// Whether its egress takes WebSockets.
    pub(crate) websockets: bool,
    /// How long `POST /drain_listeners?graceful` takes, in whole seconds.
    pub(crate) drain_time: Duration,
    /// Needed by the variants with TLS.
    pub(crate) tls: Option<Tls>,
    /// Takes requests over HTTP/3, too, of clients that show no certificate.
    pub(crate) http3: Option<Tls>,
}

impl Default for ResponderOptions {
    fn default() -> Self {
        Self {
            concurrency: 1,
            reuse_port: false,
            host_id_format: "%REQ(x-node-id?x-cluster-id)%",
            tenant_id_format: None,
            ping_interval: None,
            ping_failure_threshold: None,
            keepalive: None,
            use_http_upgrade: false,
            request_path: None,
            required_cluster_name: None,
            node_id_format: None,
            handshake_timeout: None,
            max_connections_per_node: None,
            request_timeout: None,
            websockets: false,
            drain_time: Duration::from_secs(2),
            tls: None,
            http3: None,
        }
    }
}

/// A running responder; what both ends can do is in [`Envoy`].
pub(crate) struct EnvoyResponder {
    envoy: Envoy,
    variant: Variant,
    options: ResponderOptions,
    addresses: Addresses,
}

/// Where it listens.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    tunnels: SocketAddr,
    egress: SocketAddr,
    http3: Option<SocketAddr>,
    admin: SocketAddr,
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const ANYWHERE: Addresses = Addresses { tunnels: ANY, egress: ANY, http3: None, admin: ANY };

impl EnvoyResponder {
    /// Waits until it listens. `None`: there is no Envoy here, and the calling test was recorded as skipped.
    pub(crate) async fn start(variant: Variant, options: ResponderOptions) -> Option<Self> {
        Self::start_at(ANYWHERE, variant, options).await
    }

    async fn start_at(at: Addresses, variant: Variant, options: ResponderOptions) -> Option<Self> {
        let ResponderOptions { concurrency, drain_time, .. } = options;
        let flags = Flags { name: "Envoy, responder", concurrency, drain_time };
        let envoy = Envoy::start(flags, &options.config(variant, at)).await?;
        let [tunnels, egress] = [envoy.listener("tunnels").await, envoy.listener("egress").await];
        let http3 = if options.http3.is_some() { Some(envoy.listener("http3").await) } else { None };
        let addresses = Addresses { tunnels, egress, http3, admin: envoy.admin() };
        Some(Self { envoy, variant, options, addresses })
    }

    /// Where tunnels are accepted.
    pub(crate) fn tunnel_address(&self) -> SocketAddr {
        self.addresses.tunnels
    }

    /// Where requests enter.
    pub(crate) fn egress(&self) -> SocketAddr {
        self.addresses.egress
    }

    /// Where requests over HTTP/3 enter.
    pub(crate) fn http3_egress(&self) -> Option<SocketAddr> {
        self.addresses.http3
    }

    /// How many tunnels it has.
    pub(crate) async fn tunnels(&self) -> usize {
        self.stats("tunnels_by.nodes.").await.values().sum::<u64>() as usize
    }

    /// Waits until this many tunnels are registered.
    pub(crate) async fn registered(&self, count: usize) {
        let what = format!("{count} tunnels at Envoy");
        eventually(&what, async || (self.tunnels().await == count).then_some(())).await;
    }

    /// SIGKILL: no word to anybody.
    pub(crate) fn kill(self) -> Killed {
        Killed { at: self.addresses, variant: self.variant, options: self.options }
    }
}

impl Deref for EnvoyResponder {
    type Target = Envoy;

    fn deref(&self) -> &Envoy {
        &self.envoy
    }
}

impl DerefMut for EnvoyResponder {
    fn deref_mut(&mut self) -> &mut Envoy {
        &mut self.envoy
    }
}

/// What is left of a responder.
pub(crate) struct Killed {
    at: Addresses,
    variant: Variant,
    options: ResponderOptions,
}

impl Killed {
    /// Starts it again on the same addresses.
    pub(crate) async fn restart(self) -> EnvoyResponder {
        EnvoyResponder::start_at(self.at, self.variant, self.options).await.unwrap()
    }
}

impl ResponderOptions {
    fn config(&self, variant: Variant, at: Addresses) -> Value {
        let mut listeners = vec![
            self.listener("tunnels", at.tunnels, &self.tunnels(variant)),
            self.listener("egress", at.egress, &json!({ "filters": [self.egress()] })),
        ];
        if let Some(tls) = &self.http3 {
            listeners.push(self.http3(at.http3.unwrap_or(ANY), tls));
        }
        bootstrap(at.admin, self.sockets(), listeners.into(), json!([self.cluster(variant)]))
    }

    fn listener(&self, name: &str, at: SocketAddr, chain: &Value) -> Value {
        json!({
            "name": name,
            "address": address(at),
            "enable_reuse_port": self.reuse_port,
            "filter_chains": [chain],
        })
    }

    /// What accepts handshakes.
    fn tunnels(&self, variant: Variant) -> Value {
        let mut filter = json!({ "use_http_upgrade": self.use_http_upgrade });
        set(&mut filter, "request_path", self.request_path);
        set(&mut filter, "required_cluster_name", self.required_cluster_name);
        set(&mut filter, "ping_interval", self.ping_interval.map(duration));
        set(&mut filter, "handshake_timeout", self.handshake_timeout.map(duration));
        set(&mut filter, "validation", self.node_id_format.map(|format| json!({ "node_id_format": format })));
        set(&mut filter, "enable_connection_limit", self.max_connections_per_node.map(|_| true));
        let kind = "filters.network.reverse_tunnel.v3.ReverseTunnel";
        let mut chain = json!({ "filters": [extension("envoy.filters.network.reverse_tunnel", kind, filter)] });
        if variant.has_tls() {
            chain["transport_socket"] = self.tls().server();
        }
        chain
    }

    fn egress(&self) -> Value {
        let manager = http_to("tunnels", self.request_timeout);
        http_filter(if self.websockets { with_websockets(manager) } else { manager })
    }

    /// The egress for HTTP/3.
    fn http3(&self, at: SocketAddr, tls: &Tls) -> Value {
        let mut manager = http_to("tunnels", self.request_timeout);
        manager["codec_type"] = "HTTP3".into();
        let chain = json!({ "transport_socket": tls.quic_server(), "filters": [http_filter(manager)] });
        let mut listener = self.listener("http3", at, &chain);
        listener["address"]["socket_address"]["protocol"] = "UDP".into();
        listener["udp_listener_config"] = json!({ "quic_options": {} });
        listener
    }

    /// The registry, as we would call it.
    fn sockets(&self) -> Value {
        let mut fields = json!({ "stat_prefix": "tunnels_by", "enable_detailed_stats": true });
        set(&mut fields, "ping_failure_threshold", self.ping_failure_threshold);
        set(&mut fields, "max_connections_per_node", self.max_connections_per_node);
        set(&mut fields, "enable_tenant_isolation", self.tenant_id_format.map(|_| true));
        let kind = "bootstrap.reverse_tunnel.upstream_socket_interface.v3.UpstreamReverseConnectionSocketInterface";
        extension("envoy.bootstrap.reverse_tunnel.upstream_socket_interface", kind, fields)
    }

    /// What finds the tunnel for a request.
    fn cluster(&self, variant: Variant) -> Value {
        let mut lookup = json!({ "host_id_format": self.host_id_format });
        set(&mut lookup, "tenant_id_format", self.tenant_id_format);
        let kind = "clusters.reverse_connection.v3.ReverseConnectionClusterConfig";
        let mut cluster = json!({
            "name": "tunnels",
            "connect_timeout": "5s",
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": extension("envoy.clusters.reverse_connection", kind, lookup),
            "typed_extension_protocol_options": self.protocol(variant),
        });
        if variant.has_inner_tls() {
            cluster["transport_socket"] = self.tls().client();
        }
        cluster
    }

    fn protocol(&self, variant: Variant) -> Value {
        let standard = variant.is_drain_aware().then_some([Duration::from_secs(5), Duration::from_secs(2)]);
        let mut http2 = json!({});
        if let Some([interval, timeout]) = self.keepalive.or(standard) {
            http2["connection_keepalive"] = json!({ "interval": duration(interval), "timeout": duration(timeout) });
        }
        let http = http_options(json!({ "http2_protocol_options": http2 }));
        let mut options = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http });
        if variant.is_drain_aware() {
            let kind = "upstreams.http.reverse_tunnel.v3.ReverseTunnelUpstreamCodecOptions";
            options[format!("envoy.extensions.{kind}")] = message(kind, json!({ "enable_drain_with_goaway": true }));
        }
        options
    }

    fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this variant needs certificates")
    }
}
