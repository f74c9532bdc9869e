//! Envoy as an initiator: it dials responders and hands what arrives to a target.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde_json::{Value, json};

use super::config::{
    bootstrap, duration, extension, fixed_cluster, http_filter, http_options, http_to, set, with_websockets,
};
use super::{Envoy, Flags, Tls, Variant};
use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::site::NODE;

/// What a test changes; what is `None` stays as Envoy has it.
#[derive(Debug, Clone)]
pub(crate) struct InitiatorOptions {
    /// Workers; each of them dials.
    pub(crate) concurrency: usize,
    pub(crate) claim: Node<'static>,
    /// Per responder and worker.
    pub(crate) tunnels: usize,
    /// Dialled beside the first one.
    pub(crate) more_responders: Vec<SocketAddr>,
    /// The handshake is an HTTP upgrade.
    pub(crate) use_http_upgrade: bool,
    /// Where the handshake goes.
    pub(crate) request_path: Option<&'static str>,
    /// Further header fields of the handshake.
    pub(crate) additional_headers: Vec<(&'static str, String)>,
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) max_reconnect_backoff: Option<Duration>,
    /// How often it looks for tunnels that are missing. Drain-aware ones look every second.
    pub(crate) maintain_interval: Option<Duration>,
    /// For a whole exchange; zero is without limit.
    pub(crate) request_timeout: Option<Duration>,
    /// Whether it takes WebSockets, as extended CONNECTs.
    pub(crate) websockets: bool,
    /// Whether its target speaks HTTP/2.
    pub(crate) is_target_http2: bool,
    /// How long `POST /drain_listeners?graceful` takes, in whole seconds.
    pub(crate) drain_time: Duration,
    /// Needed by the variants with TLS.
    pub(crate) tls: Option<Tls>,
}

impl Default for InitiatorOptions {
    fn default() -> Self {
        Self {
            concurrency: 1,
            claim: NODE,
            tunnels: 1,
            more_responders: Vec::new(),
            use_http_upgrade: false,
            request_path: None,
            additional_headers: Vec::new(),
            handshake_timeout: None,
            max_reconnect_backoff: None,
            maintain_interval: None,
            request_timeout: None,
            websockets: false,
            is_target_http2: false,
            drain_time: Duration::from_secs(2),
            tls: None,
        }
    }
}

/// A running initiator; what both ends can do is in [`Envoy`].
pub(crate) struct EnvoyInitiator(Envoy);

impl EnvoyInitiator {
    /// Starts dialling `responder`. Start that first: after a refused dial the next one comes with the next round of
    /// maintenance. `None`: there is no Envoy here, and the calling test was recorded as skipped.
    pub(crate) async fn start(
        variant: Variant,
        responder: SocketAddr,
        target: SocketAddr,
        options: InitiatorOptions,
    ) -> Option<Self> {
        let InitiatorOptions { concurrency, drain_time, .. } = options;
        let flags = Flags { name: "Envoy, initiator", concurrency, drain_time };
        Envoy::start(flags, &options.config(variant, responder, target)).await.map(Self)
    }

    /// How many tunnels it counts as up.
    pub(crate) async fn tunnels(&self) -> usize {
        self.stat("tunnels.cluster.responder.connected").await as usize
    }

    /// Waits until it counts this many. A responder that sends a request before that may lose the tunnel: Envoy forgets
    /// what comes in one piece with the answer to its handshake.
    pub(crate) async fn connected(&self, count: usize) {
        let what = format!("{count} tunnels of Envoy");
        eventually(&what, async || (self.tunnels().await == count).then_some(())).await;
    }

    /// SIGKILL: no word to anybody.
    pub(crate) fn kill(self) {}
}

impl Deref for EnvoyInitiator {
    type Target = Envoy;

    fn deref(&self) -> &Envoy {
        &self.0
    }
}

impl DerefMut for EnvoyInitiator {
    fn deref_mut(&mut self) -> &mut Envoy {
        &mut self.0
    }
}

impl InitiatorOptions {
    fn config(&self, variant: Variant, responder: SocketAddr, target: SocketAddr) -> Value {
        let responders: Vec<SocketAddr> = [responder].into_iter().chain(self.more_responders.iter().copied()).collect();
        let mut responder = fixed_cluster("responder", &responders);
        if variant.has_tls() {
            responder["transport_socket"] = self.tls().client();
        }
        let mut target = fixed_cluster("target", &[target]);
        let http = http_options(match self.is_target_http2 {
            true => json!({ "http2_protocol_options": {} }),
            false => json!({ "http_protocol_options": { "enable_trailers": true } }),
        });
        target["typed_extension_protocol_options"] =
            json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http });
        let listeners = json!([self.listener(variant)]);
        bootstrap((Ipv4Addr::LOCALHOST, 0).into(), self.sockets(variant), listeners, json!([responder, target]))
    }

    /// A listener that dials.
    fn listener(&self, variant: Variant) -> Value {
        let Node { tenant, cluster, node } = self.claim;
        let mut chain = json!({ "filters": [self.filter(variant)] });
        if variant.has_inner_tls() {
            chain["transport_socket"] = self.tls().server();
        }
        json!({
            "name": "tunnels",
            // The responder speaks when the first request comes, which may be much later.
            "listener_filters_timeout": "0s",
            "address": {
                "socket_address": {
                    "address": format!("rc://{node}:{cluster}:{tenant}@responder:{}", self.tunnels),
                    "port_value": 0,
                    "resolver_name": "envoy.resolvers.reverse_connection",
                },
            },
            "filter_chains": [chain],
        })
    }

    fn filter(&self, variant: Variant) -> Value {
        let manager = http_to("target", self.request_timeout);
        let manager = if self.websockets { with_websockets(manager) } else { manager };
        if !variant.is_drain_aware() {
            return http_filter(manager);
        }
        extension(
            "envoy.filters.network.reverse_tunnel_drain_aware_http_connection_manager",
            "filters.network.reverse_tunnel.v3.DrainAwareHttpConnectionManager",
            json!({ "enable_drain_with_goaway": true, "hcm_config": manager }),
        )
    }

    /// What keeps tunnels up.
    fn sockets(&self, variant: Variant) -> Value {
        let headers = self.additional_headers.iter();
        let headers: Vec<Value> =
            headers.map(|(key, value)| json!({ "header": { "key": key, "value": value } })).collect();
        let mut handshake = json!({ "use_http_upgrade": self.use_http_upgrade, "additional_headers": headers });
        set(&mut handshake, "request_path", self.request_path);
        set(&mut handshake, "handshake_timeout", self.handshake_timeout.map(duration));
        let standard = variant.is_drain_aware().then_some(Duration::from_secs(1));
        let mut fields =
            json!({ "stat_prefix": "tunnels", "enable_detailed_stats": true, "http_handshake": handshake });
        set(&mut fields, "maintain_interval", self.maintain_interval.or(standard).map(duration));
        set(&mut fields, "max_reconnect_backoff", self.max_reconnect_backoff.map(duration));
        let kind = "bootstrap.reverse_tunnel.downstream_socket_interface.v3.DownstreamReverseConnectionSocketInterface";
        extension("envoy.bootstrap.reverse_tunnel.downstream_socket_interface", kind, fields)
    }

    fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this variant needs certificates")
    }
}
