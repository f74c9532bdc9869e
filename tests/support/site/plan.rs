//! The configuration files of both ends: what suits most tests, and the keys that a test changes.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::support::certificates::{Certificate, IDENTITY, Node};
use crate::support::site::{Folder, NODE, Responder, Running, Transport};

/// Keys of one section with their values as YAML.
#[derive(Debug, Clone, Default)]
struct Section(Vec<(String, String)>);

impl Section {
    fn of(keys: &[(&str, &str)]) -> Self {
        Self(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    /// Puts the key in the place of the one of that name, or at the end.
    fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
    }

    fn remove(&mut self, key: &str) {
        self.0.retain(|(other, _)| other != key);
    }

    fn lines(&self, indent: &str) -> String {
        self.0.iter().fold(String::new(), |mut text, (key, value)| {
            writeln!(text, "{indent}{key}: {value}").unwrap();
            text
        })
    }
}

/// The file of a responder.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    responder: Section,
    egress: Vec<Section>,
    process: Section,
}

impl Cloud {
    /// One tunnel listener that admits certificates of the folder's CA, one egress listener for the tenant of [`NODE`].
    pub(crate) fn new() -> Self {
        let responder = Section::of(&[
            ("listen", "{ quic: \"127.0.0.1:0\", tcp: \"127.0.0.1:0\" }"),
            ("tls", "{ cert: cloud.pem, key: cloud.key, client_ca: ca.pem }"),
            ("identity", &format!("{IDENTITY:?}")),
        ]);
        let process = Section::of(&[("admin", "127.0.0.1:0")]);
        Self { responder, egress: Vec::new(), process }.and_egress()
    }

    /// Sets a key of the `responder` section.
    pub(crate) fn responder(mut self, key: &str, value: &str) -> Self {
        self.responder.set(key, value);
        self
    }

    /// Admits without looking at names in certificates; the test says what proves a node instead.
    pub(crate) fn without_identity(mut self) -> Self {
        self.responder.remove("identity");
        self
    }

    /// Sets a key of the last egress listener.
    pub(crate) fn egress(mut self, key: &str, value: &str) -> Self {
        self.egress.last_mut().unwrap().set(key, value);
        self
    }

    /// Adds an egress listener.
    pub(crate) fn and_egress(mut self) -> Self {
        self.egress.push(Section::of(&[
            ("http", "\"127.0.0.1:0\""),
            ("host_id", "\"%REQ(x-node-id?x-cluster-id)%\""),
            ("tenant", NODE.tenant),
        ]));
        self
    }

    /// Adds a listener for bytes to a service of [`NODE`].
    pub(crate) fn and_tcp(mut self, service: &str) -> Self {
        let to = format!("{{ node: {}, service: {service}, tenant: {} }}", NODE.node, NODE.tenant);
        self.egress.push(Section::of(&[("tcp", "\"127.0.0.1:0\""), ("to", &to)]));
        self
    }

    /// Takes a key of the last egress listener away.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.egress.last_mut().unwrap().remove(key);
        self
    }

    /// Takes the last egress listener away.
    pub(crate) fn without_last(mut self) -> Self {
        self.egress.pop();
        self
    }

    /// Adds an egress listener for datagrams to a service of [`NODE`].
    pub(crate) fn and_udp(mut self, service: &str) -> Self {
        let to = format!("{{ node: {}, service: {service}, tenant: {} }}", NODE.node, NODE.tenant);
        self.egress.push(Section::of(&[("udp", "\"127.0.0.1:0\""), ("to", &to)]));
        self
    }

    /// Sets a key outside all sections.
    pub(crate) fn process(mut self, key: &str, value: &str) -> Self {
        self.process.set(key, value);
        self
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> String {
        let listeners = self.egress.iter().map(|listener| format!("  -\n{}", listener.lines("    ")));
        let (responder, process) = (self.responder.lines("  "), self.process.lines(""));
        format!("responder:\n{responder}egress:\n{}{process}", listeners.collect::<String>())
    }

    pub(crate) async fn start(&self, folder: &Folder) -> Responder {
        Responder(Running::start(folder.write("cloud.yaml", &self.text())).await)
    }
}

/// The file of an initiator, and the certificate it shows.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    initiator: Section,
    services: Vec<String>,
    target: String,
    process: Section,
    claim: Node<'static>,
    count: usize,
    transport: &'static str,
    envoy: Option<String>,
    tunnel: Section,
    also: Vec<SocketAddr>,
    name: String,
}

impl Edge {
    /// [`NODE`], with one tunnel, one service for every request, and a fast keepalive.
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            initiator: Section::of(&[("tls", "{ cert: edge.pem, key: edge.key, ca: ca.pem }")]),
            services: Vec::new(),
            target: "http://127.0.0.1:9".into(),
            process: Section::of(&[("admin", "127.0.0.1:0")]),
            claim: NODE,
            count: 1,
            transport: transport.label(),
            envoy: None,
            tunnel: Section::of(&[]),
            also: Vec::new(),
            name: "edge".into(),
        }
    }

    /// One that dials an Envoy responder, with these settings of its `envoy` section.
    pub(crate) fn envoy(settings: &str) -> Self {
        Self { envoy: Some(settings.to_owned()), ..Self::new(Transport::Tcp) }
    }

    /// Like [`Edge::new`], with the choice of transport left to it, and QUIC probed as often as a file may ask for.
    pub(crate) fn auto() -> Self {
        let edge = Self { transport: "auto", ..Self::new(Transport::Quic) };
        edge.initiator("probe_interval", "500ms")
    }

    /// The names of its files, for a second initiator in the same folder.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self.initiator.set("tls", &format!("{{ cert: {name}.pem, key: {name}.key, ca: ca.pem }}"));
        self
    }

    /// Who it says it is.
    pub(crate) fn claim(mut self, claim: Node<'static>) -> Self {
        self.claim = claim;
        self
    }

    /// How many tunnels it keeps.
    pub(crate) fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    pub(crate) fn tunnel_count(&self) -> usize {
        self.count
    }

    /// Another responder that it dials as well.
    pub(crate) fn also(mut self, responder: SocketAddr) -> Self {
        self.also.push(responder);
        self
    }

    /// What the default service and `{target}` of others mean.
    pub(crate) fn target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// Adds a service, as a YAML mapping; without any, one takes every request.
    pub(crate) fn service(mut self, service: &str) -> Self {
        self.services.push(service.to_owned());
        self
    }

    /// Sets a key of each tunnel.
    pub(crate) fn tunnel(mut self, key: &str, value: &str) -> Self {
        self.tunnel.set(key, value);
        self
    }

    /// Sets a key of the `initiator` section.
    pub(crate) fn initiator(mut self, key: &str, value: &str) -> Self {
        self.initiator.set(key, value);
        self
    }

    /// Sets a key outside all sections.
    pub(crate) fn process(mut self, key: &str, value: &str) -> Self {
        self.process.set(key, value);
        self
    }

    /// The text of a file that dials `responder`.
    pub(crate) fn text(&self, responder: &str) -> String {
        let Self { claim, count, .. } = self;
        let mut initiator = self.initiator.clone();
        for (key, value) in [("node", claim.node), ("cluster", claim.cluster), ("tenant", claim.tenant)] {
            initiator.set(key, value);
        }
        let transport = match &self.envoy {
            Some(settings) => format!("envoy, envoy: {settings}"),
            None => self.transport.to_owned(),
        };
        let responders = [responder.to_owned()].into_iter().chain(self.also.iter().map(SocketAddr::to_string));
        let more: String = self.tunnel.0.iter().map(|(key, value)| format!(", {key}: {value}")).collect();
        let tunnels = responders.map(|to| format!("{{ to: {to:?}, count: {count}, transport: {transport}{more} }}"));
        initiator.set("tunnels", &format!("[{}]", tunnels.collect::<Vec<_>>().join(", ")));
        let everything = "{ name: web, match: {}, target: \"{target}\" }".to_owned();
        let services = if self.services.is_empty() { vec![everything] } else { self.services.clone() };
        let services: String = services.iter().map(|service| format!("  - {service}\n")).collect();
        let services = services.replace("{target}", &self.target);
        format!("initiator:\n{}services:\n{services}{}", initiator.lines("  "), self.process.lines(""))
    }

    /// Starts it with the certificate that proves its claim.
    pub(crate) async fn start(&self, folder: &Folder, responder: SocketAddr) -> Running {
        self.start_with(folder, responder, &folder.authority.node(self.claim)).await
    }

    /// Starts it with another certificate.
    pub(crate) async fn start_with(&self, folder: &Folder, responder: SocketAddr, shown: &Certificate) -> Running {
        shown.write(folder.path(), &self.name);
        let file = folder.write(&format!("{}.yaml", self.name), &self.text(&responder.to_string()));
        Running::start(file).await
    }
}
