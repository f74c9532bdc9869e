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
const IN_FLIGHT: &str =
    "Requests under way at once, those that wait for a tunnel and raw streams among them; more are answered 429.";
const REQUESTS: &str = "Requests a second; more are answered 429 with the time at which there is room for one.";
const BURST: &str = "How many requests may come at once after a rest.";
const BYTES: &str = "Bytes a second of bodies, raw streams and datagrams, both directions together. What is beyond waits, and \
     is not cut for it as long as a tunnel holds no more than 128 MiB of it (64 large responses); a datagram of a UDP listener \
     does not wait, and is dropped.";
const STREAMS: &str = "Raw streams (CONNECT) under way at once; more are answered 429.";
const FLOWS: &str = "Flows of datagrams open at once; more are not opened.";
const AS_TENANT: &str = "as for every tenant";
const AS_NODE: &str = "as for every node";

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
    key("responder.tls.crl", "Certificates of initiators that are no longer valid. A list of each CA in `client_ca`, once there is one.", "sites.crl").form(REVOCATIONS),
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
    section("responder.shares", "What each tenant and each node may have of the responder. Tenants share a busy one by weight, whatever stands here."),
    section("responder.shares.per_tenant", "What each tenant may have."),
    key("responder.shares.per_tenant.in_flight", IN_FLIGHT, "500").absent("no limit"),
    key("responder.shares.per_tenant.requests", REQUESTS, "200").absent("no limit"),
    key("responder.shares.per_tenant.burst", BURST, "400").absent("as many as `requests`"),
    key("responder.shares.per_tenant.bytes", BYTES, "10MiB").absent("no limit"),
    key("responder.shares.per_tenant.streams", STREAMS, "50").absent("no limit"),
    key("responder.shares.per_tenant.flows", FLOWS, "50").absent("no limit"),
    section("responder.shares.per_node", "What each node may have."),
    key("responder.shares.per_node.in_flight", IN_FLIGHT, "500").absent("no limit"),
    key("responder.shares.per_node.requests", REQUESTS, "200").absent("no limit"),
    key("responder.shares.per_node.burst", BURST, "400").absent("as many as `requests`"),
    key("responder.shares.per_node.bytes", BYTES, "10MiB").absent("no limit"),
    key("responder.shares.per_node.streams", STREAMS, "50").absent("no limit"),
    key("responder.shares.per_node.flows", FLOWS, "50").absent("no limit"),
    section("responder.shares.tenants", "What single tenants may have; what an entry leaves out is as for every tenant."),
    key("responder.shares.tenants[].tenant", "The tenant.", "acme"),
    key("responder.shares.tenants[].weight", "How much it gets of a busy responder, in proportion to the weights of the others that want more.", "4").absent("1"),
    key("responder.shares.tenants[].in_flight", IN_FLIGHT, "500").absent(AS_TENANT),
    key("responder.shares.tenants[].requests", REQUESTS, "200").absent(AS_TENANT),
    key("responder.shares.tenants[].burst", BURST, "400").absent("as many as `requests` beside it"),
    key("responder.shares.tenants[].bytes", BYTES, "10MiB").absent(AS_TENANT),
    key("responder.shares.tenants[].streams", STREAMS, "50").absent(AS_TENANT),
    key("responder.shares.tenants[].flows", FLOWS, "50").absent(AS_TENANT),
    section(
        "responder.shares.nodes",
        "What single nodes may have, or those whose names begin alike, each of them; what an entry leaves out is as for every \
         node. The entry that says most about a node is meant, alone: a whole name before a pattern.",
    ),
    key("responder.shares.nodes[].node", "The node, or the begin of the names of some, and a star.", "\"edge-*\"")
        .form("a name such as edge-17, or its begin and a star, such as edge-*"),
    key("responder.shares.nodes[].tenant", "Only those of this tenant.", "acme").absent("those of every tenant"),
    key("responder.shares.nodes[].in_flight", IN_FLIGHT, "500").absent(AS_NODE),
    key("responder.shares.nodes[].requests", REQUESTS, "200").absent(AS_NODE),
    key("responder.shares.nodes[].burst", BURST, "400").absent("as many as `requests` beside it"),
    key("responder.shares.nodes[].bytes", BYTES, "10MiB").absent(AS_NODE),
    key("responder.shares.nodes[].streams", STREAMS, "50").absent(AS_NODE),
    key("responder.shares.nodes[].flows", FLOWS, "50").absent(AS_NODE),
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
    .absent("none, but there is one of `http`, `tcp` and `udp`"),
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
    key(
        "egress[].tcp",
        "Where connections are taken whose bytes go to a service as they are, in the place of `http`; port 0 is a free one. The \
         service is that of `to`, or of the route that has the name which the connection asks for in its TLS (SNI), which is \
         read and not decrypted. A connection that cannot be brought to a target is reset. Of the keys of a listener it has \
         `to`, `host_id`, `tenant`, `service`, `routes`, `affinity`, `hold`, `deadline`, `balance`, `access_log`, \
         `proxy_protocol`, `policies` and `limits`.",
        "\"127.0.0.1:5432\"",
    )
    .absent("none, but there is one of `http`, `tcp` and `udp`"),
    key(
        "egress[].udp",
        "Where datagrams are taken; port 0 is a free one. Each source (address and port) has a flow of its own to the service \
         in `to`, whose target takes datagrams (udp://). A source is sent nothing but what the service sends it. Beside it stand \
         `to`, `balance`, `hold`, `access_log`, `policies` and `limits` only.",
        "\"127.0.0.1:4789\"",
    )
    .absent("none, but there is one of `http`, `tcp` and `udp`"),
    section("egress[].tls", "Takes TLS instead of clear text; ALPN chooses between HTTP/1.1 and HTTP/2, and HTTP/3 is served over UDP."),
    key("egress[].tls.cert", "The certificate that clients are shown.", "web.pem").form(CERTIFICATE),
    key("egress[].tls.key", "The private key of `cert`.", "web.key").form(PRIVATE_KEY),
    key("egress[].tls.client_ca", "The roots that every client's certificate must chain to.", "clients-ca.pem")
        .form(ROOTS)
        .absent("clients are not asked for a certificate"),
    key("egress[].tls.crl", "Certificates of clients that are no longer valid. A list of each CA in `client_ca`, once there is one.", "clients.crl").form(REVOCATIONS),
    key(
        "egress[].host_id",
        "Whom a request is for, made from the request: the node of that name, else a node of the cluster of that name. A \
         connection of bytes has no fields; of the name in its TLS a label may count: of db.edge-17.example.org \
         `%REQUESTED_SERVER_NAME(2)%` is edge-17.",
        "\"%REQ(x-node-id?x-cluster-id)%\"",
    )
    .form(TEMPLATE)
    .absent("none, it or `to` must be there"),
    key("egress[].tenant", "The tenant in which the host id is looked up, fixed or made from the request.", "acme")
        .form(TEMPLATE)
        .absent("default"),
    key("egress[].service", "The service that is asked for; with `tcp` also a template, such as `%REQUESTED_SERVER_NAME(1)%` for the first label of the name in TLS.", "api")
        .absent("the initiator chooses by host and path; with `tcp` it must be there, here, in `to` or by `routes`"),
    key(
        "egress[].connect",
        "Which services a client may ask for with CONNECT: all whose target takes bytes (tcp://, unix+raw:), or these. \
         The host of `CONNECT host:port` is the name of the service, unless a route with that host says another; the port has \
         no meaning. Another listener answers CONNECT with 501, and another service with 403.",
        "[ssh]",
    ),
    key(
        "egress[].connect_udp",
        "Which services a client may ask for with CONNECT-UDP (RFC 9298): all whose target takes datagrams (udp://), or these. The \
         path is /.well-known/masque/udp/, the name of the service, and a port, which has no meaning; datagrams go in capsules, over HTTP/3 also in QUIC datagrams. \
         Another service is answered with 403; where none may be asked for, it is a request for another protocol like any other.",
        "[dns]",
    ),
    section("egress[].to", "One node or cluster for every request, in the place of `host_id`, and for every flow of a listener for datagrams."),
    key("egress[].to.node", "The node; this or `cluster`.", "edge-17"),
    key("egress[].to.cluster", "The cluster; this or `node`.", "stores-eu"),
    key("egress[].to.service", "The service that is asked for.", "api").absent("`service` of the listener"),
    key("egress[].to.tenant", "The tenant.", "acme").form(TEMPLATE).absent("`tenant` of the listener"),
    section("egress[].routes", "Services by host and path, or with `tcp` by the name that is asked for in TLS; the most specific route counts, and where none fits, `service`."),
    key("egress[].routes[].host", "The host of the request, or *. and a domain for all hosts below it.", "\"*.example.org\"")
        .absent("any host"),
    key(
        "egress[].routes[].server_name",
        "With `tcp` only, and needed there: the name that a connection asks for in its TLS, or *. and a domain for all names \
         below it. Compared without case, and without a dot at its end.",
        "\"*.db.example.org\"",
    )
    .absent("none, it must be there with `tcp`"),
    key("egress[].routes[].prefix", "The beginning of the path, in whole segments.", "/shop"),
    key("egress[].routes[].service", "The service that is asked for.", "shop"),
    key("egress[].routes[].host_id", "Whom such a request is for.", "\"shop-%REQ(x-shop)%\"")
        .form(TEMPLATE)
        .absent("`host_id` of the listener"),
    key("egress[].affinity", "Requests for which this is the same go to the same node of a cluster, while it is there.", "\"%REQ(x-session)%\"")
        .form(TEMPLATE),
    key(
        "egress[].hold",
        "How long a request waits for a node that is reconnecting before it is answered 503, or a connection of bytes before it is reset. Each one that waits holds \
         its connection.",
        "2s",
    ),
    key("egress[].deadline", "How long the response may take to begin before the request is answered 504; the time that the client takes to deliver its body does not count. With `tcp`: how long a target may take to be connected, 15s by default and 5m at most; of that the site takes no more than `connect_timeout` of its service, 5s by default.", "60s"),
    key("egress[].balance", "How a node of a cluster is chosen; `hash` needs `affinity`, and `affinity` needs `hash`.", "two_choices"),
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
         wrote it; so choose one that every trusted proxy writes or removes. With `rfc7239`, what a trusted proxy says in \
         X-Forwarded-For only is said in Forwarded. Where both are written, as without this key, what came in one of them only is \
         said in both, and where a trusted proxy sends two that name different senders both say `unknown`: its client may have \
         written either.",
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
    section("egress[].rewrite[].set", "One field in the place of all of its name, `_` for `-` too; trailers lose theirs."),
    key("egress[].rewrite[].set.name", "Its name.", "x-region"),
    key("egress[].rewrite[].set.value", "Its value, at most 8 KiB; it is shown nowhere.", "eu").form(SECRET),
    key("egress[].rewrite[].remove", "No field of this name, `_` for `-` too, enters a tunnel, in the head or in trailers.", "x-internal"),
    key(
        "egress[].nameless_after",
        "With `tcp` where names in TLS are asked for (`routes`, `%REQUESTED_SERVER_NAME%`, a policy with `host`): a connection over \
         which nothing at all has come for so long has no name, since its client waits for the server to speak first, as one of \
         MySQL, SMTP or FTP does. A client of TLS whose first byte is later goes there, too: 10 ms to 9 s.",
        "1s",
    )
    .absent("none: it is reset after 10 s"),
    key(
        "egress[].proxy_protocol",
"The addresses and prefixes of the proxies in front of a listener for requests or for bytes. Each of their connections over \
         TCP must begin with a PROXY header, of version 1 or 2, that says who connected, within 10 s, before everything else, TLS \
         too; one that does not is reset. That is the client then, for every rule, record and field (`trust` asks whether it, and \
         not the proxy, is trusted), and where it connected to is told to a target with `services[].proxy_protocol`. What anybody else sends is for the target, or no request, whatever it looks like. Over HTTP/3 \
         there is no such header: the client is who sends.",
        "[\"10.0.0.0/8\"]",
    )
    .form("a list of addresses and prefixes")
    .absent("nobody"),
    section(
        "egress[].policies",
        "Rules for what may go where: the highest priority is looked at first, the first rule whose `match` holds decides, and \
         what no rule is about goes where the rest of the listener says. Of a connection of bytes its source, tenant, service and the \
         name in its TLS are known, of a flow of datagrams its source, tenant and service, when it begins. `adit check --explain` says \
         which rule decides on a request, a connection (`tcp`, the address of the listener) or a datagram (`udp`).",
    ),
    key("egress[].policies[].priority", "Where among the rules it stands, unique in the list.", "900"),
    key("egress[].policies[].name", "What logs and metrics call it, unique in the list.", "no-admin").absent("its priority"),
    key(
        "egress[].policies[].match",
        "What the rule is about: all conditions must hold, and of the values of one condition any will do. The word any is about \
         everything.",
        "any",
    ),
    key(
        "egress[].policies[].match.source",
        "Addresses and prefixes of clients: who connects, or whom the PROXY header of a trusted proxy names. Of a request from a sender \
         under `trust` whom that one names in Forwarded or X-Forwarded-For (those of `forwarded`), the last who is not under `trust`; \
         where that cannot be read, or both are there and differ, all is denied that a rule with a source is asked about.",
        "[10.0.0.0/8]",
    ),
    key("egress[].policies[].match.tenant", "Whose node is asked for.", "acme"),
    key("egress[].policies[].match.peer", "A name in the certificate of the client; needs `tls.client_ca`.", "spiffe://example.org/ops/*"),
    key("egress[].policies[].match.host", "The host that is asked for, without its port; with `tcp` the name in TLS.", "\"*.example.com\""),
    key("egress[].policies[].match.path", "The whole path, in its normal form. A CONNECT has none.", "/login"),
    key("egress[].policies[].match.prefix", "What the path begins with, in whole segments.", "/admin"),
    key("egress[].policies[].match.method", "The method; a WebSocket is a GET and datagrams are a CONNECT, however they are asked for. For `http` only.", "[PUT, DELETE]"),
    key("egress[].policies[].match.service", "The service, where the listener, its route or a CONNECT names one.", "api"),
    section("egress[].policies[].match.header", "A field of the request."),
    key("egress[].policies[].match.header.name", "Its name.", "x-trial"),
    key("egress[].policies[].match.header.value", "Its whole value; a field that is there twice is answered 400 then.", "yes").absent("any value"),
    key("egress[].policies[].action", "What becomes of it.", "deny"),
    key("egress[].policies[].status", "With deny: how the request is answered.", "404"),
    section("egress[].policies[].to", "With reroute: where it goes instead, in the same tenant; what is not said stays.").absent("needed with reroute"),
    key("egress[].policies[].to.node", "To this node.", "edge-18").absent("the same"),
    key("egress[].policies[].to.cluster", "To a node of this cluster.", "stores-us").absent("the same"),
    key("egress[].policies[].to.service", "To this service.", "maintenance").absent("the same"),
    key(
        "egress[].policies[].target",
        "With forward: the server that gets the request, outside of any tunnel: http://host:port, https://host:port, h2c:// and \
         h2:// likewise, or unix:/path. A listener for requests only, and no CONNECT.",
        "http://10.0.0.5:8080",
    )
    .form("http://host:port, h2c://host:port, https://host:port, h2://host:port, unix:/path or unix+h2c:/path")
    .absent("needed with forward"),
    section("egress[].policies[].tls", "With forward to https:// or h2://: which server is genuine, and what it is shown.").absent("needed with https:// and h2://"),
    key("egress[].policies[].tls.ca", "The roots that its certificate must chain to; this, `pins`, or both.", "upstream-ca.pem")
        .form(ROOTS)
        .absent("`pins` decide alone"),
    key("egress[].policies[].tls.pins", "The public keys of which it must have one; one or a list.", PIN),
    key("egress[].policies[].tls.crl", "Certificates of servers that are no longer valid. A list of each CA in `ca`, once there is one.", "upstream.crl").form(REVOCATIONS),
    key("egress[].policies[].tls.server_name", "The name that it is asked for (SNI) and must have in its certificate.", "api.example.com")
        .absent("the host in `target`"),
    key("egress[].policies[].tls.cert", "The certificate that it is shown if it asks for one; with `key`.", "client.pem").form(CERTIFICATE),
    key("egress[].policies[].tls.key", "The private key of `cert`, readable by its owner only.", "client.key").form(PRIVATE_KEY),
    key("egress[].policies[].tls.insecure_accept_any", "Takes whatever certificate it shows; for trials only.", "false"),
    section(
        "egress[].policies[].limits",
        "With forward: what may be under way for it, and at it. What is beyond is answered 503.",
    )
    .absent("no limit"),
    key("egress[].policies[].limits.in_flight", "Requests under way at once, those that wait for a connection among them.", "100")
        .absent("no limit"),
    key(
        "egress[].policies[].limits.connections",
        "Connections to it at once, one for each request under way; one of HTTP/2 has 8 at most for all. A request that finds none free \
         waits up to 1 s for one.",
        "16",
    )
    .absent("no limit"),
    section(
        "egress[].policies[].health",
        "With forward: checks it on a schedule. Without it the requests alone tell how it is: one refused connection, or three other \
         failures in a row, and it is down until it takes a connection, which is tried within half a second and every 2 s at last. \
         While it is down, requests are answered 503 at once.",
    )
    .absent("requests alone tell"),
    key("egress[].policies[].health.path", "Asks for it with GET, and expects 200 to 299.", "/healthz")
        .form("a path, with its query if it has one")
        .absent("it is asked for a connection only"),
    key("egress[].policies[].health.status", "Expects this status instead; needs `path`.", "204")
        .form("a status from 200 to 599")
        .absent("200 to 299"),
    key("egress[].policies[].health.interval", "From one check to the next, give or take a tenth.", "5s").absent("10s"),
    key("egress[].policies[].health.timeout", "How long an answer may take; longer is a failure.", "1s").absent("2s"),
    key("egress[].policies[].health.healthy_after", "How many checks succeed in a row before it is up again.", "1").absent("2"),
    key("egress[].policies[].health.unhealthy_after", "How many fail in a row before it is down.", "5").absent("3"),
    section("egress[].limits", "What one client may ask for."),
    key(
        "egress[].limits.idle",
        "With `tcp` only: how long nothing may move in either direction of a connection; then it is reset. One that has something to \
         read and reads nothing for 5 minutes is reset in any case.",
        "1h",
    )
    .absent("as long as both ends like"),
    key("egress[].limits.head_bytes", "The largest head of a request; a larger one is answered 431.", "64KiB"),
    key("egress[].limits.head_fields", "The most fields in a head; more are answered 431.", "100"),
    key("egress[].limits.connections", "How many connections may be open at once, over TCP and UDP together, fewer where file descriptors are short; more wait in the backlog of the kernel, or are refused over UDP.", "16384"),
    key(
        "egress[].limits.connections_per_prefix",
        "With `tcp` only: how many of them sources of one address prefix may have, the /24 of an IPv4 address and the /56 of an \
         IPv6 one; more are reset. Of a proxy that must say who connected (`proxy_protocol`) those count whom it names.",
        "256",
    )
    .absent("as many as there may be"),
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
        "How long nothing may move in either direction of a CONNECT; then it is cut. Whoever has something to read and reads nothing \
         for 5 minutes is cut in any case, of a WebSocket, too.",
        "1h",
    )
    .absent("as long as both ends like"),
    key(
        "egress[].limits.flows",
        "How many flows a listener for datagrams may have. Where there are as many, one that the site has not answered for 1 s \
         gives way to a new source, or one that has been silent for 10 s; else the new source is not heard. A tunnel carries 1,024 \
         at most, so that more need several.",
        "4096",
    )
    .absent("4096"),
    key(
        "egress[].limits.flows_per_prefix",
        "How many of them sources of one address prefix may have: the /24 of an IPv4 address, the /56 of an IPv6 one.",
        "64",
    )
    .absent("1024"),
    key("egress[].limits.flow_idle", "How long a flow may carry nothing; then it ends at both ends. `flow_idle` of the service counts as well: the shorter of them does.", "30s").absent("2m"),
    section("fleet", "This responder is one of several that act as one: what it knows of the others is in etcd (version 3). Needs a responder."),
    key("fleet.etcd", "The members of one etcd, of which any will do; another one is taken where one is lost.", "[ \"https://10.0.0.5:2379\", \"https://10.0.0.6:2379\" ]")
        .form("http://host:port or https://host:port, or a list of them"),
    key("fleet.prefix", "What the keys of this fleet in etcd begin with. Read at the start only.", "/adit/eu")
        .form("text of 2 to 128 bytes that begins with \"/\", without a part `responders` or `tunnels` between two \"/\"").absent("/adit/"),
    key("fleet.id", "The name of this responder, which no other of the fleet has. Read at the start only.", "cloud-1")
        .form("text of 1 to 64 bytes, as an id").absent("responder.name"),
    key("fleet.siblings_at", "Where the others reach this responder, over UDP.", "\"cloud-1.internal:7844\"")
        .form("host:port, or a list of them").absent("where hop listens; none without it"),
    key("fleet.initiators_at", "Where initiators reach this responder, as the others tell them.", "\"cloud-1.example.com:7843\"")
        .form("host:port, or a list of them").absent("where the responder listens, if that is one address and not all of the host"),
    key("fleet.region", "Where it stands.", "eu-central").form("text of 1 to 128 bytes").absent("none"),
    key("fleet.weight", "Its share of the work beside the others.", "200").absent("100"),
    key("fleet.lease", "How long the others know this responder and its tunnels after its death. Whole seconds.", "30s").absent("10s"),
    key("fleet.ready_timeout", "After a start, for how long at most /ready says 503 because etcd was not reached, so that nobody knows which nodes \
         the others have. Then this responder is ready for those that are connected to it. `0`: at once. Only where there is a `hop`; read at the start only.", "5m")
        .absent("60s"),
    section("fleet.hop", "How the others are asked for nodes that have no tunnel here, and ask this one; neither without it. All but tls is read at the start only."),
    key("fleet.hop.listen", "The UDP address where the others come in. The directory tells them the real port, where siblings_at is absent.", "\"10.0.0.7:7844\""),
    key("fleet.hop.identity", "Which name in a certificate proves that its owner is a certain responder of the fleet: `{responder}` stands \
         for its fleet.id. No CA in ca may give a node such a name.", "\"spiffe://example.org/responder/{responder}\"")
        .form("a URI, or a DNS name or `dns:` and one, with {responder} in it once"),
    section("fleet.hop.tls", "What the others are shown, and which ones are genuine. Whom it does not admit any more is drained with a reload."),
    key("fleet.hop.tls.cert", "The certificate that the others are shown; for both TLS roles, since each of two may dial.", "cloud-1.pem").form(CERTIFICATE),
    key("fleet.hop.tls.key", "Its private key.", "cloud-1.key").form(PRIVATE_KEY),
    key("fleet.hop.tls.ca", "What the certificates of the others must chain to.", "fleet-ca.pem").form(ROOTS),
    key("fleet.hop.tls.crl", "Certificates of the others that are no longer valid. A list of each CA in `ca`, once there is one.", "fleet.crl").form(REVOCATIONS),
    section("fleet.tls", "Which etcd is genuine, and what it is shown; for https://, and needed there."),
    key("fleet.tls.ca", "What the certificate of a member must chain to; the key's pins decide alone without it.", "etcd-ca.pem").form(ROOTS),
    key("fleet.tls.pins", "The only keys that members may have, beside what ca asks.", PIN).form("a pin, or a list of pins"),
    key("fleet.tls.crl", "Certificates of members that are no longer valid. A list of each CA in `ca`, once there is one.", "etcd.crl").form(REVOCATIONS),
    key("fleet.tls.cert", "The certificate that is shown to etcd.", "etcd-client.pem").form(CERTIFICATE),
    key("fleet.tls.key", "Its private key.", "etcd-client.key").form(PRIVATE_KEY),
    key("fleet.tls.server_name", "The name that must be in the certificate of a member.", "etcd.internal").absent("the host in etcd"),
    key("fleet.tls.insecure_accept_any", "Takes any certificate, so that anybody in between can read and write the directory.", "true")
        .absent("false"),
    key("fleet.user", "The user of etcd, where it has users.", "adit").form("text of 1 to 128 bytes").absent("none"),
    key("fleet.password", "The password of that user.", "\"file:/etc/adit/etcd-password\"").form(SECRET).absent("none"),
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
    key("initiator.tunnels[].count", "How many tunnels are kept to each address of the name; at distinct responders, where these are of a fleet that has so many.", "2"),
    key(
        "initiator.tunnels[].transport",
        "What carries the tunnels: `auto` prefers QUIC and uses TCP where that does not work; `envoy` is for an Envoy \
         responder.",
        "auto",
    ),
    key(
        "initiator.tunnels[].siblings",
        "Whether other responders of the same fleet are dialled, at the addresses that the responder names, with the same name in \
         their certificates. Without it all tunnels stay at what `to` stands for.",
        "false",
    ),
    key("initiator.tunnels[].region", "The region whose responders come first, as `fleet.region` names it there.", "eu-central")
        .form("text of 1 to 128 bytes")
        .absent("none: all are alike"),
    key(
        "initiator.tunnels[].rebalance",
        "Within which a tunnel that is well moves to the responder where it should be, such as one that has joined the fleet: each \
         at a random time, and one of this site at once. Shorter burdens a responder that joins.",
        "30m",
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
    key("initiator.tls.crl", "Certificates of responders that are no longer valid. A list of each CA in `ca`, once there is one.", "cloud.crl").form(REVOCATIONS),
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
    section(
        "initiator.policies",
        "Rules for what may reach which service through the tunnels: as those of an egress listener, and judged after the service \
         is found. What is denied is not tried elsewhere by the responder. `adit check --explain` with \
         `--initiator` says which rule decides.",
    ),
    key("initiator.policies[].priority", "Where among the rules it stands, unique in the list.", "900"),
    key("initiator.policies[].name", "What logs and metrics call it, unique in the list.", "no-admin").absent("its priority"),
    key("initiator.policies[].match", "What the rule is about: all conditions must hold. The word any is about everything.", "any"),
    key(
        "initiator.policies[].match.source",
        "Addresses and prefixes of clients, as the responder says: of a request in the last element of Forwarded or X-Forwarded-For, \
         through an Envoy of X-Forwarded-For alone (which is the word of its client unless it has use_remote_address: true); of bytes and datagrams as they are opened. Where it does not say it, all is \
         denied that this rule could be about.",
        "[10.0.0.0/8]",
    ),
    key("initiator.policies[].match.tenant", "Of this initiator.", "acme"),
    key("initiator.policies[].match.peer", "A name in the certificate of the responder.", "cloud-1.example.com"),
    key("initiator.policies[].match.host", "The host that is asked for, without its port.", "\"*.example.com\""),
    key("initiator.policies[].match.path", "The whole path, in its normal form. A CONNECT has none.", "/login"),
    key("initiator.policies[].match.prefix", "What the path begins with, in whole segments.", "/admin"),
    key("initiator.policies[].match.method", "The method; a WebSocket is a GET, however it is asked for, and bytes and datagrams are a CONNECT.", "[PUT, DELETE]"),
    key("initiator.policies[].match.service", "The service that was found.", "api"),
    section("initiator.policies[].match.header", "A field of the request."),
    key("initiator.policies[].match.header.name", "Its name.", "x-trial"),
    key("initiator.policies[].match.header.value", "Its whole value; a field that is there twice is answered 400 then.", "yes").absent("any value"),
    key("initiator.policies[].action", "What becomes of it.", "deny"),
    key("initiator.policies[].status", "With deny: how a request is answered.", "404"),
    section("initiator.policies[].to", "With reroute: another service that takes it instead.").absent("needed with reroute"),
    key("initiator.policies[].to.service", "Its name in services.", "api"),
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
        .form("http://host:port (HTTP/1.1), h2c://host:port (HTTP/2), https://host:port and h2://host:port (the same over TLS), unix:/path or unix+h2c:/path; for bytes, which an egress takes with `tcp` or CONNECT, tcp://host:port or unix+raw:/path; for datagrams, which an egress takes with `udp` or CONNECT-UDP, udp://host:port"),
    key(
        "services[].proxy_protocol",
        "Tells a target of bytes who connected to the responder, and to which address, or what a trusted proxy there says of both: each connection begins with a PROXY header of this version. \
         Only for a target that wants it; any other takes the header for what its client says. Over a responder that does \
         not say who connected, the header names nobody (LOCAL).",
        "v2",
    )
    .absent("none"),
    section("services[].tls", "Which target is genuine, and what it is shown; for https:// and h2://, and needed there."),
    key("services[].tls.ca", "The roots that the target's certificate must chain to; this, `pins`, or both. Those of the system are \
         often in /etc/ssl/certs/ca-certificates.crt.", "targets-ca.pem")
        .form(ROOTS)
        .absent("`pins` decide alone"),
    key("services[].tls.pins", "The public keys of which the target must have one; one or a list.", PIN),
    key("services[].tls.crl", "Certificates of targets that are no longer valid. A list of each CA in `ca`, once there is one.", "targets.crl").form(REVOCATIONS),
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
    section("services[].limits", "What it may have under way, and at its target. Beyond it a request is answered 503, and one to a cluster goes to another node."),
    key(
        "services[].limits.in_flight",
        "Requests under way at once, raw streams and those that wait for a connection among them.",
        "100",
    )
    .absent("no limit"),
    key(
        "services[].limits.connections",
        "Connections to the target at once, one for each request or raw stream under way; a target of HTTP/2 has 8 at most for all. A \
         request that finds none free waits up to 1 s for one.",
        "16",
    )
    .absent("no limit"),
    section(
        "services[].health",
        "Checks its target on a schedule. Without it the requests alone tell how it is: one refused connection, or three other failures \
         in a row, and it is down until it takes a connection or answers a request. Requests to a cluster go to nodes where a \
         service is not down; where it is down on all of them, and to a node by its name, they are sent all the same.",
    ),
    key("services[].health.path", "Asks for it with GET, and expects 200 to 299.", "/healthz")
        .form("a path, with its query if it has one")
        .absent("the target is asked for a connection only"),
    key("services[].health.status", "Expects this status instead; needs `path`.", "204")
        .form("a status from 200 to 599")
        .absent("200 to 299"),
    key("services[].health.interval", "From one check to the next, give or take a tenth.", "5s").absent("10s"),
    key("services[].health.timeout", "How long an answer may take; longer is a failure.", "1s").absent("2s"),
    key("services[].health.healthy_after", "How many checks succeed in a row before a service that is down is up.", "1")
        .absent("2"),
    key("services[].health.unhealthy_after", "How many fail in a row before one that is up is down.", "5").absent("3"),
    key(
        "services[].upgrades",
        "The protocols beside WebSocket that a request may go on in, as it names them in Upgrade; others are answered 501.",
        "[tcp]",
    )
    .form("a list of names of protocols"),
    key(
        "services[].from",
        "The address that datagrams come from, as the target sees it; port 0 is any. With a port there is one flow at a time: the \
         target speaks to the newest. For protocols that do not answer to where they were asked from, such as VXLAN.",
        "\"10.0.0.1:4789\"",
    )
    .absent("a port of its own for each flow"),
    key(
        "services[].connect_timeout",
        "How long a target of requests or bytes may take to be connected, TLS included; then the next node of a cluster is asked, \
         or 504 said. `deadline` of the listener bounds it as well.",
        "20s",
    )
    .absent("5s"),
    key(
        "services[].max_flows",
        "How many flows a target of datagrams may have at once, each with a socket; more are refused. A tunnel carries 1,024 at \
         most, so that more need several (`initiator.tunnels[].count`).",
        "256",
    )
    .absent("1024"),
    key(
        "services[].flow_idle",
        "How long a flow to a target of datagrams may carry nothing; then it ends at both ends. `limits.flow_idle` of the listener \
         that it comes from counts as well: the shorter of them does.",
        "90s",
    )
    .absent("2m"),
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
    section("reload", "When the file is read again; SIGHUP, `adit reload` and POST /reload ask for it."),
    key(
        "reload.watch",
        "Whether it is read again when it, or a file that it names (certificates, keys, revocation lists, `file:`), has another \
         content. A change is taken when it is whole: half a second after the last of it.",
        "true",
    ),
    key("workers", "Threads that move traffic; one is the fastest per core.", "1"),
    key("drain_timeout", "How long what runs may take to finish when the process is asked to stop; 0 cuts it at once.", "30s"),
    key(
        "lame_duck",
        "How long a process with egress listeners that is asked to stop goes on taking requests, not ready any more, and \
         with each answer asking for the next one to go elsewhere. Longer than a load balancer needs to notice.",
        "15s",
    ),
];
