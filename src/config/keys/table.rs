//! What each key is for, and an example of its value. Type, bounds and default are not said here: `keys` asks the code that
//! reads the key.

/// One key of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Where it stands; `[]` is any item of a list.
    pub(super) path: &'static str,
    /// What it is for.
    pub(super) meaning: &'static str,
    /// A value as it is written; empty for a section, which is made of its own keys.
    pub(super) example: &'static str,
    /// What is accepted, where the reader takes any text.
    pub(super) form: Option<&'static str>,
    /// What is meant when it is absent, where that is no plain value.
    pub(super) absent: Option<&'static str>,
}

impl Key {
    const fn form(self, form: &'static str) -> Self {
        Self { form: Some(form), ..self }
    }

    const fn absent(self, absent: &'static str) -> Self {
        Self { absent: Some(absent), ..self }
    }
}

const fn key(path: &'static str, meaning: &'static str, example: &'static str) -> Key {
    Key { path, meaning, example, form: None, absent: None }
}

const fn section(path: &'static str, meaning: &'static str) -> Key {
    key(path, meaning, "")
}

const CERTIFICATE: &str = "a PEM file with a certificate and its chain";
const PRIVATE_KEY: &str = "a PEM file with a private key, not encrypted";
const ROOTS: &str = "a PEM file with root certificates";
const REVOCATIONS: &str = "a PEM file with certificate revocation lists, or a list of such files";
const TEMPLATE: &str = "a template such as \"%REQ(x-node-id?x-cluster-id)%\", or an id";
const SECRET: &str = "text, \"${NAME}\" for an environment variable, or \"file:path\"";
const PIN: &str = "\"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"";

/// Every key, in the order of the page.
pub(super) const KEYS: &[Key] = &[
    section("responder", "Accepts tunnels: the side in the cloud."),
    key("responder.name", "What this responder calls itself to its initiators.", "cloud-1")
        .form("text of 1 to 128 bytes")
        .absent("the host's name"),
    section("responder.listen", "Where tunnels are accepted: at least one of the two, usually both on one port number."),
    key("responder.listen.quic", "The UDP address for tunnels over QUIC.", "\"0.0.0.0:7843\"").absent("none; one of the two must be there"),
    key("responder.listen.tcp", "The TCP address for tunnels over TCP, and for those of Envoy.", "\"0.0.0.0:7843\"")
        .absent("none; one of the two must be there"),
    section("responder.tls", "What initiators are shown, and which certificates of theirs are genuine."),
    key("responder.tls.cert", "The responder's certificate; it must name what initiators dial.", "cloud.pem").form(CERTIFICATE),
    key("responder.tls.key", "The private key of `cert`, readable by its owner only.", "cloud.key").form(PRIVATE_KEY),
    key("responder.tls.client_ca", "The roots that certificates of initiators must chain to; needed with `identity`.", "sites-ca.pem")
        .form(ROOTS)
        .absent("initiators are not asked for a certificate of a known CA"),
    key("responder.tls.crl", "Certificates of initiators that are no longer valid.", "sites.crl").form(REVOCATIONS),
    key(
        "responder.identity",
        "The name that a certificate must have to prove a claim, with {tenant}, {cluster} and {node} in the place of the \
         claimed ids. What it leaves out must be fixed by `tenant` and `cluster`.",
        "\"spiffe://example.org/tenant/{tenant}/cluster/{cluster}/node/{node}\"",
    )
    .form("spiffe://… , dns:… or another URI with {tenant}, {cluster} and {node}"),
    key("responder.tenant", "The only tenant that is admitted.", "acme"),
    key("responder.cluster", "The only cluster that is admitted.", "stores-eu"),
    key("responder.pins", "The only public keys that are admitted; one or a list.", PIN),
    section("responder.nodes", "What single nodes must show beside `identity`, or, without it, instead: pins, a token, or both."),
    key("responder.nodes[].node", "The node.", "edge-17"),
    key("responder.nodes[].cluster", "Its cluster.", "stores-eu").absent("`cluster` of the responder, or it must be there"),
    key("responder.nodes[].tenant", "Its tenant.", "acme").absent("`tenant` of the responder, else default"),
    key("responder.nodes[].pins", "Its public keys; two while a key is replaced.", PIN),
    key("responder.nodes[].token", "The token that it must show, 16 bytes to 8 KiB.", "\"file:tokens/edge-17\"").form(SECRET),
    section("responder.quotas", "How many tunnels there may be; more are refused with 429."),
    key("responder.quotas.tunnels_per_node", "Of one node; leave room for one more while a tunnel is replaced.", "16"),
    key("responder.quotas.tunnels_per_tenant", "Of all nodes of one tenant.", "1000"),
    key("responder.quotas.tunnels", "Of all tenants together.", "65536"),
    key(
        "responder.insecure_accept_any",
        "Admits whoever connects, under any name. For trials only: whoever reaches the listener can take the traffic of \
         any node.",
        "false",
    )
    .absent("false"),
    key("responder.handshake_timeout", "How long a handshake may take, from when its connection is there.", "10s"),
    key(
        "responder.max_pending_handshakes",
        "Room, for each transport, for connections in TLS, and as much again for those whose claim is judged; two times (TCP) \
         or four times (QUIC) as many may wait before TLS. Where it is used up, the oldest gives way.",
        "1024",
    ),
    key(
        "responder.keepalive",
        "Silence after which a tunnel is probed; initiators are told to do the same. Shorter notices a dead path sooner \
         and costs packets on every idle tunnel.",
        "5s",
    ),
    key("responder.idle_timeout", "Silence after which a tunnel is dead; longer than `keepalive`.", "30s"),
    key("responder.congestion", "How fast is safe over QUIC; `bbr` keeps its speed where packets are lost.", "bbr"),
    key(
        "responder.state_dir",
        "A folder of its own, mode 0700, for what outlives a restart: the keys by which a restarted responder tells its \
         old tunnels at once that they are gone, the names of the nodes that were connected, so that requests for \
         them are held, and of those that are gone, since when and why.",
        "/var/lib/adit",
    )
    .form("a path")
    .absent(
        "a subfolder named after the address, in the first of these in which it can be made: `$STATE_DIRECTORY`, `/var/lib/adit` \
         if it exists, `$XDG_STATE_HOME/adit`, `~/.local/state/adit`; none for port 0",
    ),
    key(
        "responder.grace",
        "For how long after the start a request for a node that is not known waits (each for `hold` at most), and for how long at \
         most `/ready` says 503 until all nodes that were connected before are back, or, where none is known, until the first \
         tunnel is up; 0 waits for neither.",
        "10s",
    ),
    section("responder.limits", "What the answers of sites may have; they are told."),
    key(
        "responder.limits.head_bytes",
        "The largest head or trailer section; a larger one is answered 502. Each request that runs may hold as much.",
        "64KiB",
    ),
    key("responder.limits.head_fields", "The most fields in one.", "100"),
    section("responder.envoy", "Takes the reverse tunnels of Envoy initiators on `listen.tcp`."),
    key(
        "responder.envoy.security",
        "What their tunnels are in: TLS to the end, TLS for the handshake only, or nothing. It must be what they do.",
        "inner_tls",
    ),
    key("responder.envoy.path", "The path of their handshake.", "/reverse_connections/request").form("a path of HTTP"),
    key("responder.envoy.upgrade", "Whether they ask for an HTTP upgrade (`use_http_upgrade`).", "false"),
    key("responder.envoy.required_cluster", "What they must call this responder.", "cloud").absent("anything"),
    key("responder.envoy.ping_interval", "Between pings of an idle tunnel; an echo is late after half of it.", "2s"),
    key("responder.envoy.ping_threshold", "How many missed echoes in a row end a tunnel.", "3"),
    key("responder.envoy.inner_cert", "The certificate shown inside a tunnel, where this end is the TLS client.", "inner.pem")
        .form(CERTIFICATE)
        .absent("`tls.cert`"),
    key("responder.envoy.inner_key", "The private key of `inner_cert`.", "inner.key").form(PRIVATE_KEY).absent("`tls.key`"),
    key("responder.envoy.inner_name", "The name that an initiator's certificate must have inside its tunnel.", "edge.example.org")
        .absent("it must have the key that it showed in the handshake"),
    section("egress", "Listeners for the requests that go into tunnels; needs a responder."),
    key(
        "egress[].http",
        "Where HTTP/1.1 and HTTP/2 are taken, and with `tls` HTTP/3 on the UDP port of the same number; port 0 is a free one.",
        "\"127.0.0.1:8085\"",
    )
    .absent("none, it must be there"),
    key(
        "egress[].http3",
        "Whether HTTP/3 is served over UDP, and answers over TCP say so (`Alt-Svc`). Needs `tls`, and the UDP port open in the \
         firewall.",
        "{ early_data: true }",
    )
    .absent("true with `tls`, else false"),
    key(
        "egress[].http3.early_data",
        "Whether requests with safe methods are taken before the handshake is done (0-RTT): a round trip less for clients that \
         come back. Somebody who has seen such a request can send it again; it is marked with `early-data: 1`, and targets \
         must know that field or not mind (RFC 8470). Other methods get 425, and are sent again. Only where no client is asked \
         for a certificate. Over TCP there is none.",
        "true",
    )
    .absent("false"),
    key(
        "egress[].http3.port",
        "The UDP port that clients are told, where it is mapped to the one that is listened on.",
        "443",
    )
    .absent("the one that is listened on"),
    key("egress[].tcp", "Not supported yet: a listener for raw TCP.", "").form("nothing yet").absent("none"),
    key("egress[].udp", "Not supported yet: a listener for UDP.", "").form("nothing yet").absent("none"),
    section("egress[].tls", "Takes TLS instead of clear text; ALPN chooses between HTTP/1.1 and HTTP/2, and HTTP/3 is served over UDP."),
    key("egress[].tls.cert", "The certificate that clients are shown.", "web.pem").form(CERTIFICATE),
    key("egress[].tls.key", "The private key of `cert`.", "web.key").form(PRIVATE_KEY),
    key("egress[].tls.client_ca", "The roots that every client's certificate must chain to.", "clients-ca.pem")
        .form(ROOTS)
        .absent("clients are not asked for a certificate"),
    key(
        "egress[].host_id",
        "Whom a request is for, made from the request: the node of that name, else a node of the cluster of that name.",
        "\"%REQ(x-node-id?x-cluster-id)%\"",
    )
    .form(TEMPLATE)
    .absent("none, it or `to` must be there"),
    key("egress[].tenant", "The tenant in which the host id is looked up, fixed or made from the request.", "acme")
        .form(TEMPLATE)
        .absent("default"),
    key("egress[].service", "The service that is asked for.", "api").absent("the initiator chooses by host and path"),
    key(
        "egress[].connect",
        "Which services a client may ask for with CONNECT: all whose target takes bytes (tcp://, unix+raw:), or these. \
         The host of `CONNECT host:port` is the name of the service, unless a route with that host says another; the port has \
         no meaning. Another listener answers CONNECT with 501, and another service with 403.",
        "[ssh]",
    ),
    section("egress[].to", "One node or cluster for every request, in the place of `host_id`."),
    key("egress[].to.node", "The node; this or `cluster`.", "edge-17"),
    key("egress[].to.cluster", "The cluster; this or `node`.", "stores-eu"),
    key("egress[].to.service", "The service that is asked for.", "api").absent("`service` of the listener"),
    key("egress[].to.tenant", "The tenant.", "acme").form(TEMPLATE).absent("`tenant` of the listener"),
    section("egress[].routes", "Services by host and path; the most specific route counts, and where none fits, `service`."),
    key("egress[].routes[].host", "The host of the request, or *. and a domain for all hosts below it.", "\"*.example.org\"")
        .absent("any host"),
    key("egress[].routes[].prefix", "The beginning of the path, in whole segments.", "/shop"),
    key("egress[].routes[].service", "The service that is asked for.", "shop"),
    key("egress[].routes[].host_id", "Whom such a request is for.", "\"shop-%REQ(x-shop)%\"")
        .form(TEMPLATE)
        .absent("`host_id` of the listener"),
    key("egress[].affinity", "Requests for which this is the same go to the same node of a cluster, while it is there.", "\"%REQ(x-session)%\"")
        .form(TEMPLATE),
    key(
        "egress[].hold",
        "How long a request waits for a node that is reconnecting before it is answered 503. Each one that waits holds \
         its connection.",
        "2s",
    ),
    key("egress[].deadline", "How long the response may take to begin before the request is answered 504; the time that the client takes to deliver its body does not count.", "60s"),
    key("egress[].balance", "How a node of a cluster is chosen; `hash` needs `affinity`.", "two_choices"),
    key(
        "egress[].half_close",
        "Whether an HTTP/1.1 client that ends its sending side still waits for its response; else it has gone away, and the \
         exchange is cancelled.",
        "false",
    ),
    key("egress[].access_log", "Whether each exchange leaves a line in the log; the long form has more to say.", "{ query: true }"),
    key("egress[].access_log.query", "Whether the line has the query of the path, which often holds secrets.", "true").absent("false"),
    key(
        "egress[].trust",
        "The addresses and prefixes of the proxies in front. What they say of a client (Forwarded, X-Forwarded-*, X-Real-IP, \
         X-Forwarded-Client-Cert, X-Envoy-*) is passed on and extended; from anybody else it is removed.",
        "[\"10.0.0.0/8\", \"::1\"]",
    )
    .form("a list of addresses and prefixes")
    .absent("nobody"),
    key(
        "egress[].forwarded",
        "In which form a target is told of the client: `rfc7239` is Forwarded, `x` is X-Forwarded-For and X-Forwarded-Proto. A \
         form that is not written is passed on from nobody, since a proxy that writes one often hands on the other as its clients \
         wrote it. With `rfc7239`, what a trusted proxy says in X-Forwarded-For only is said in Forwarded.",
        "rfc7239",
    ),
    section(
        "egress[].rewrite",
        "What is done to each request before it enters a tunnel: a list of steps, done in its order. Node, tenant and `routes` \
         are found by what the client sent, a service that is found by its `match` by what the steps made of it.",
    ),
    key("egress[].rewrite[].host", "Asks for this host, whatever the client asked for.", "api.internal:8443"),
    section("egress[].rewrite[].prefix", "Puts one path in the place of another, as in services."),
    key("egress[].rewrite[].prefix.from", "What is replaced, in whole segments; a path that begins otherwise stays.", "/api"),
    key("egress[].rewrite[].prefix.to", "By what.", "/v2"),
    section("egress[].rewrite[].set", "One field in the place of all of its name."),
    key("egress[].rewrite[].set.name", "Its name.", "x-region"),
    key("egress[].rewrite[].set.value", "Its value, at most 8 KiB; it is shown nowhere.", "eu").form(SECRET),
    key("egress[].rewrite[].remove", "No field of this name in the head enters a tunnel.", "x-internal"),
    section("egress[].limits", "What one client may ask for."),
    key("egress[].limits.head_bytes", "The largest head of a request; a larger one is answered 431.", "64KiB"),
    key("egress[].limits.head_fields", "The most fields in a head; more are answered 431.", "100"),
    key("egress[].limits.connections", "How many connections may be open at once, over TCP and UDP together, fewer where file descriptors are short; more wait in the backlog of the kernel, or are refused over UDP.", "16384"),
    key(
        "egress[].limits.body_idle",
        "How long the sender of a request may deliver nothing of its body, while it is its turn and no response has begun; \
         then it is answered 408.",
        "60s",
    ),
    key(
        "egress[].limits.body_rate",
        "The fewest bytes of a body per second, over each `body_idle` and until a response has begun (408); a response must \
         be read as fast. 0 asks for no rate.",
        "16",
    ),
    key(
        "egress[].limits.exchange_idle",
        "How long nothing may move in either direction once a response has begun; then it is cut. Where a target holds back the \
         upload of an HTTP/1 client, after `body_idle`.",
        "5m",
    ),
    key(
        "egress[].limits.connect_idle",
        "How long nothing may move in either direction of a CONNECT; then it is cut.",
        "1h",
    )
    .absent("as long as both ends like"),
    section("initiator", "Dials responders: the side at the site."),
    key("initiator.node", "The name of this site; an rc:// address may say it instead.", "edge-17").absent("that of the rc:// address"),
    key("initiator.cluster", "The group of sites that it belongs to; an rc:// address may say it instead.", "stores-eu")
        .absent("that of the rc:// address"),
    key("initiator.tenant", "Whose site it is; an rc:// address may say it instead.", "acme"),
    section(
        "initiator.tunnels",
        "The responders that are dialled, each as a section of keys or as rc://node:cluster:tenant@host:port:count.",
    )
    .form("a list of { to: host:port } or rc:// addresses, or one rc:// address"),
    key("initiator.tunnels[].to", "The responder; its name is resolved anew at each connection.", "\"cloud.example.com:7843\"")
        .form("host:port"),
    key("initiator.tunnels[].count", "How many tunnels are kept to each address of the name.", "2"),
    key(
        "initiator.tunnels[].transport",
        "What carries the tunnels: `auto` prefers QUIC and uses TCP where that does not work; `envoy` is for an Envoy \
         responder.",
        "auto",
    ),
    section("initiator.tunnels[].envoy", "How an Envoy responder is dialled; with `transport: envoy` only."),
    key("initiator.tunnels[].envoy.security", "What the tunnel is in; it must be what that Envoy does.", "inner_tls"),
    key("initiator.tunnels[].envoy.path", "The path of the handshake.", "/reverse_connections/request")
        .form("a path of HTTP")
        .absent("/reverse_connections/request"),
    key("initiator.tunnels[].envoy.upgrade", "Whether an HTTP upgrade is asked for (`use_http_upgrade`).", "false"),
    key(
        "initiator.tunnels[].envoy.upstream_cluster",
        "What this end calls the responder; needed where that has a `required_cluster_name`.",
        "cloud",
    ),
    key("initiator.tunnels[].envoy.handshake_timeout", "From the first byte to the complete answer.", "15s"),
    section("initiator.tls", "What proves who this site is, and which responder is genuine."),
    key("initiator.tls.cert", "The certificate of this node; with `key`.", "edge-17.pem").form(CERTIFICATE),
    key("initiator.tls.key", "The private key of `cert`, readable by its owner only.", "edge-17.key").form(PRIVATE_KEY),
    key("initiator.tls.ca", "The roots that the responder's certificate must chain to; this, `pins`, or both.", "cloud-ca.pem")
        .form(ROOTS)
        .absent("`pins` decide alone"),
    key("initiator.tls.pins", "The public keys of which the responder must have one; one or a list.", PIN),
    key("initiator.tls.server_name", "The name that the responder's certificate must have.", "cloud.example.com")
        .absent("the host in `to`"),
    key("initiator.congestion", "How fast is safe over QUIC; `bbr` keeps its speed where packets are lost.", "bbr"),
    key("initiator.keepalive", "Silence after which a tunnel is probed, until the responder names its own time.", "5s"),
    key(
        "initiator.probe_interval",
        "How long a tunnel that fell back to TCP waits before QUIC is tried again; up to three times that while it fails, and \
         longer, up to 10 min, where QUIC was lost soon after it had taken over.",
        "10s",
    ),
    key("initiator.access_log", "Whether each exchange with a target leaves a line in the log.", "{ query: true }"),
    key("initiator.access_log.query", "Whether the line has the query of the path, which often holds secrets.", "true").absent("false"),
    key("initiator.token", "A credential beside the certificate, at most 8 KiB.", "\"file:token\"").form(SECRET),
    section("initiator.limits", "What the answers of targets, and the requests of responders, may have; responders are told."),
    key(
        "initiator.limits.head_bytes",
        "The largest head or trailer section; a larger answer is 502, a larger request 431. Each exchange that runs may hold as much.",
        "64KiB",
    ),
    key("initiator.limits.head_fields", "The most fields in one.", "100"),
    section("services", "What this initiator exports; nothing else can be reached through its tunnels. Needs an initiator."),
    key("services[].name", "How an egress asks for it; unique in the file.", "api"),
    key(
        "services[].match",
        "Which requests come here that name no service; the most specific service takes a request. It must be said, but where \
         the target takes bytes: a service that forgot it would silently stay idle.",
        "{ prefix: /api }",
    ),
    key("services[].match.host", "The host of the request, or *. and a domain for all hosts below it.", "\"*.example.org\"")
        .absent("any host"),
    key("services[].match.prefix", "The beginning of the path, in whole segments.", "/api"),
    key("services[].target", "Where its exchanges go.", "\"http://127.0.0.1:8080\"")
        .form("http://host:port (HTTP/1.1), h2c://host:port (HTTP/2), https://host:port and h2://host:port (the same over TLS), unix:/path or unix+h2c:/path; for bytes, which an egress takes with CONNECT, tcp://host:port or unix+raw:/path"),
    section("services[].tls", "Which target is genuine, and what it is shown; for https:// and h2://, and needed there."),
    key("services[].tls.ca", "The roots that the target's certificate must chain to; this, `pins`, or both. Those of the system are \
         often in /etc/ssl/certs/ca-certificates.crt.", "targets-ca.pem")
        .form(ROOTS)
        .absent("`pins` decide alone"),
    key("services[].tls.pins", "The public keys of which the target must have one; one or a list.", PIN),
    key("services[].tls.server_name", "The name that the target is asked for (SNI) and must have in its certificate.", "api.example.com")
        .absent("the host in `target`"),
    key("services[].tls.cert", "The certificate that a target which asks for one is shown; with `key`.", "site-client.pem").form(CERTIFICATE),
    key("services[].tls.key", "The private key of `cert`, readable by its owner only.", "site-client.key").form(PRIVATE_KEY),
    key(
        "services[].tls.insecure_accept_any",
        "Takes whatever certificate the target shows: whoever is on the way can read and change everything. For trials only.",
        "false",
    ),
    section("services[].rewrite", "What is done to each request before the target gets it: a list of steps, done in its order."),
    key("services[].rewrite[].host", "Asks the target for this host, whatever the client asked for.", "api.internal:8443"),
    section(
        "services[].rewrite[].prefix",
        "Puts one path in the place of another at the beginning of the path. The path goes on in its normal form then, and one \
         that can be read in two ways is answered 400.",
    ),
    key("services[].rewrite[].prefix.from", "What is replaced, in whole segments; a path that begins otherwise stays.", "/api"),
    key("services[].rewrite[].prefix.to", "By what.", "/v2"),
    section("services[].rewrite[].set", "One field in the place of all of its name."),
    key("services[].rewrite[].set.name", "Its name.", "x-site"),
    key("services[].rewrite[].set.value", "Its value, at most 8 KiB; it is shown nowhere.", "edge-17").form(SECRET),
    key("services[].rewrite[].remove", "No field of this name in the head reaches the target.", "cookie"),
    key(
        "services[].upgrades",
        "The protocols beside WebSocket that a request may go on in, as it names them in Upgrade; others are answered 501.",
        "[tcp]",
    )
    .form("a list of names of protocols"),
    key("admin", "Where the process can be asked how it is and told to drain; keep it on loopback or a Unix socket.", "\"127.0.0.1:9901\""),
    section("metrics", "What can be scraped, and from where; the admin listener has the metrics as well."),
    key(
        "metrics.listen",
        "A listener for reading only: /metrics, /healthz and /ready. Whoever reaches it can change nothing, and sees neither \
         settings nor tunnels.",
        "\"0.0.0.0:9902\"",
    ),
    key(
        "metrics.names",
        "Whether there are series that bear the names of tenants, clusters and nodes: tunnels and requests per tenant, round \
         trip and loss per tunnel.",
        "true",
    ),
    section("log", "What is written to standard error."),
    key("log.level", "The least severe line that is written; the environment variable ADIT_LOG overrides it.", "info"),
    key("log.format", "How a line looks; `auto` is text on a terminal and JSON elsewhere.", "json"),
    key("workers", "Threads that move traffic; one is the fastest per core.", "1"),
    key("drain_timeout", "How long what runs may take to finish when the process is asked to stop; 0 cuts it at once.", "30s"),
    key(
        "lame_duck",
        "How long a process with egress listeners that is asked to stop goes on taking requests, not ready any more, and \
         with each answer asking for the next one to go elsewhere. Longer than a load balancer needs to notice.",
        "15s",
    ),
];
