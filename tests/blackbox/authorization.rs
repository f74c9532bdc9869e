//! Who may open a tunnel, and what both sides say of those who may not.

use adit::tls::spki_pin;
use rcgen::{CertificateParams, SanType};
use serde_json::Value;

use crate::support::certificates::{Authority, Certificate, Node};
use crate::support::eventually::eventually;
use crate::support::process::Adit;
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, Running, Site, Transport, over_each_transport};

over_each_transport!(
    a_certificate_of_another_ca_is_not_trusted,
    an_expired_certificate_is_not_trusted,
    a_certificate_of_an_expired_ca_is_not_trusted,
    an_initiator_without_a_certificate_is_not_admitted,
    a_certificate_does_not_prove_the_name_of_another_node,
    a_certificate_does_not_prove_another_tenant,
    a_cluster_may_not_take_the_name_of_a_live_node,
    a_node_may_not_take_the_name_of_a_live_cluster,
    a_tunnel_over_the_quota_is_told_when_to_come_back,
    a_revoked_certificate_is_not_trusted,
    a_name_in_dns_form_proves_a_node,
    a_pinned_key_proves_a_node_without_a_ca,
    a_key_that_is_not_pinned_is_not_admitted,
    an_initiator_that_pins_its_responder_takes_no_other,
    an_initiator_takes_no_responder_of_another_ca,
    a_token_proves_a_node_and_no_other_token_does,
    whoever_connects_is_admitted_only_where_the_file_says_insecure,
);

/// What both sides said about a tunnel that did not come about.
struct Refused {
    responder: Value,
    initiator: Value,
}

/// The first time that the initiator says why it has no tunnel. Where the close of a connection is late, QUIC says of what comes
/// behind it only that nobody knows it, and the next attempt tells more.
async fn refusal(initiator: &Running) -> Value {
    eventually("why there is no tunnel", async || {
        let mut lines = initiator.lines_of("cannot open a tunnel").into_iter();
        lines.find(|line| !line["error"].as_str().unwrap_or_default().ends_with("reset by peer"))
    })
    .await
}

impl Refused {
    /// Waits for the words of both sides, then sees that nothing came of it.
    async fn seen(responder: &Responder, initiator: &Running, registered: usize) -> Self {
        let said = Self { responder: responder.0.line_with("no tunnel").await, initiator: refusal(initiator).await };
        assert_eq!(responder.0.tunnels().await.accepted.len(), registered, "nothing was registered");
        let (ready, missing) = initiator.ask(http::Method::GET, "/ready").await;
        assert_eq!((ready.as_u16(), missing.trim()), (503, "first tunnel"));
        assert!(initiator.tunnels().await.dialled.iter().all(|tunnel| tunnel.id.is_none()));
        said
    }

    /// The number that the responder gave, and that the initiator understood.
    fn code(&self) -> u64 {
        let code = self.responder["code"].as_u64().unwrap();
        let error = self.initiator["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("refused, {code} ")), "{error}");
        code
    }

    /// That it failed in TLS, with these words on the two sides.
    fn tls(&self, responder: &str, initiator: &str) {
        for (line, words) in [(&self.responder, responder), (&self.initiator, initiator)] {
            let error = line["error"].as_str().unwrap();
            assert!(error.starts_with("TLS: ") && error.contains(words), "{words} is not in: {error}");
        }
    }

    /// The reason that the initiator was given, and what it says can be changed.
    fn told(&self) -> (&str, &str) {
        (self.initiator["error"].as_str().unwrap(), self.initiator["advice"].as_str().unwrap_or_default())
    }
}

/// What TLS itself tells the initiator: QUIC carries the reason of the close, TCP only the name of an alert.
fn told_by_tls(transport: Transport, reason: &'static str) -> &'static str {
    match transport {
        Transport::Quic => reason,
        Transport::Tcp => "alert certificate_",
    }
}

/// Both sides, where the initiator shows this certificate; it must not be admitted.
async fn refused(cloud: Cloud, edge: Edge, folder: &Folder, shown: &Certificate) -> Refused {
    let responder = cloud.start(folder).await;
    let initiator = edge.start_with(folder, responder.tunnel_address(), shown).await;
    Refused::seen(&responder, &initiator, 0).await
}

/// Both sides, where the initiator shows this certificate; it must be admitted.
async fn admitted(cloud: Cloud, edge: Edge, folder: &Folder, shown: &Certificate) {
    let responder = cloud.start(folder).await;
    let _initiator = edge.start_with(folder, responder.tunnel_address(), shown).await;
    let report = responder.registered(1).await;
    assert_eq!((report.accepted[0].node.as_str(), report.accepted[0].tenant.as_str()), (NODE.node, NODE.tenant));
}

async fn a_certificate_of_another_ca_is_not_trusted(transport: Transport) {
    let folder = Folder::new();
    let shown = Authority::new("another CA").node(NODE);
    let said = refused(Cloud::new(), Edge::new(transport), &folder, &shown).await;
    said.tls("does not accept the initiator", "does not accept this end");
}

/// The initiator already waits for the answer to its handshake when the responder judges its certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_initiator_of_envoys_tunnels_is_told_that_its_certificate_is_not_trusted() {
    let folder = Folder::new();
    let cloud = Cloud::new().responder("envoy", "{ security: handshake_tls }");
    let shown = Authority::new("another CA").node(NODE);
    let said = refused(cloud, Edge::envoy("{ security: handshake_tls }"), &folder, &shown).await;
    said.tls("does not accept the initiator", "does not accept this end");
}

async fn an_expired_certificate_is_not_trusted(transport: Transport) {
    let folder = Folder::new();
    let shown = folder.authority.expired_node(NODE);
    let said = refused(Cloud::new(), Edge::new(transport), &folder, &shown).await;
    said.tls("expired", told_by_tls(transport, "expired"));
}

async fn a_certificate_of_an_expired_ca_is_not_trusted(transport: Transport) {
    let (folder, old) = (Folder::new(), Authority::expired("an old CA"));
    old.write(folder.path(), "old");
    let cloud = Cloud::new().responder("tls", "{ cert: cloud.pem, key: cloud.key, client_ca: old.pem }");
    let said = refused(cloud, Edge::new(transport), &folder, &old.node(NODE)).await;
    said.tls("which has expired", told_by_tls(transport, "which has expired"));
}

async fn an_initiator_without_a_certificate_is_not_admitted(transport: Transport) {
    let folder = Folder::new();
    let edge = Edge::new(transport).initiator("tls", "{ ca: ca.pem }");
    let said = refused(Cloud::new(), edge, &folder, &folder.authority.node(NODE)).await;
    said.tls("certificate", "certificate");
}

async fn a_certificate_does_not_prove_the_name_of_another_node(transport: Transport) {
    let folder = Folder::new();
    let shown = folder.authority.node(Node { node: "edge-2", ..NODE });
    let said = refused(Cloud::new(), Edge::new(transport), &folder, &shown).await;
    assert_eq!(said.code(), 403);
    let (reason, advice) = said.told();
    assert!(reason.contains("does not prove") && reason.contains("node/edge-2"), "{reason}");
    assert!(advice.contains("node, cluster and tenant"), "{advice}");
}

async fn a_certificate_does_not_prove_another_tenant(transport: Transport) {
    let folder = Folder::new();
    let shown = folder.authority.node(NODE);
    let edge = Edge::new(transport).claim(Node { tenant: "other", ..NODE });
    assert_eq!(refused(Cloud::new(), edge, &folder, &shown).await.code(), 403);
}

/// A second initiator beside [`NODE`], with a certificate that proves its claim; it must not be admitted.
async fn refused_beside(transport: Transport, claim: Node<'static>) -> Refused {
    let site = Site::start(transport).await;
    let edge = Edge::new(transport).claim(claim).named("second");
    let second = edge.start(&site.folder, site.responder.tunnel_address()).await;
    let said = Refused::seen(&site.responder, &second, 1).await;
    assert_eq!(site.get("/").await.status(), 200, "whoever was there is not disturbed");
    said
}

async fn a_cluster_may_not_take_the_name_of_a_live_node(transport: Transport) {
    let said = refused_beside(transport, Node { node: "edge-2", cluster: "edge-1", ..NODE }).await;
    assert_eq!(said.code(), 409);
    assert!(said.told().0.contains("rename the cluster"), "{}", said.told().0);
}

async fn a_node_may_not_take_the_name_of_a_live_cluster(transport: Transport) {
    let said = refused_beside(transport, Node { node: "stores", cluster: "others", ..NODE }).await;
    assert_eq!(said.code(), 409);
    assert!(said.told().0.contains("rename the node"), "{}", said.told().0);
}

async fn a_tunnel_over_the_quota_is_told_when_to_come_back(transport: Transport) {
    let folder = Folder::new();
    let responder = Cloud::new().responder("quotas", "{ tunnels_per_node: 1 }").start(&folder).await;
    let initiator = Edge::new(transport).count(2).start(&folder, responder.tunnel_address()).await;
    let (seen, told) = (responder.0.line_with("no tunnel").await, initiator.line_with("cannot open a tunnel").await);
    assert_eq!(seen["code"], 429);
    assert!(told["error"].as_str().unwrap().starts_with("refused, 429 quota"), "{told}");
    responder.registered(1).await;
    let waiting = initiator.connected(1).await.dialled.into_iter().find(|tunnel| tunnel.id.is_none()).unwrap();
    assert_eq!(waiting.state, "backoff");
    assert!(waiting.retry_in_seconds.unwrap() > 0);
}

async fn a_revoked_certificate_is_not_trusted(transport: Transport) {
    use adit::policy::San;
    use adit::tls::pki::{Authority, Validity};

    let valid = Validity { from: std::time::SystemTime::now(), lifetime: std::time::Duration::from_secs(3600) };
    let folder = Folder::new();
    let authority = Authority::create("sites CA", valid).unwrap();
    folder.write("sites.pem", authority.pem());
    let san = crate::support::certificates::IDENTITY
        .replace("{tenant}", NODE.tenant)
        .replace("{cluster}", NODE.cluster)
        .replace("{node}", NODE.node);
    let issued = authority.node(&[San::Uri(san)], valid).unwrap();
    issued.save(&folder.path().join("node.pem"), &folder.path().join("node.key")).unwrap();
    let edge = Edge::new(transport).initiator("tls", "{ cert: node.pem, key: node.key, ca: ca.pem }");
    let tls = "{ cert: cloud.pem, key: cloud.key, client_ca: sites.pem, crl: revoked.pem }";
    let serial = serial_of(issued.certificate());
    for (revoked, expected) in [(vec![], true), (vec![serial], false)] {
        folder.write("revoked.pem", &authority.crl(&revoked, 1, valid).unwrap());
        let responder = Cloud::new().responder("tls", tls).start(&folder).await;
        let initiator = edge.start(&folder, responder.tunnel_address()).await;
        match expected {
            true => drop(responder.registered(1).await),
            false => Refused::seen(&responder, &initiator, 0).await.tls("revoked", told_by_tls(transport, "revoked")),
        }
    }
}

fn serial_of(certificate: &[u8]) -> Vec<u8> {
    x509_parser::parse_x509_certificate(certificate).unwrap().1.raw_serial().to_vec()
}

async fn a_name_in_dns_form_proves_a_node(transport: Transport) {
    let folder = Folder::new();
    let cloud = Cloud::new().responder("identity", "\"dns:{node}.{cluster}.{tenant}.sites.example\"");
    let named = |name: &str| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        folder.authority.issue(params)
    };
    admitted(cloud.clone(), Edge::new(transport), &folder, &named("edge-1.stores.acme.sites.example")).await;
    for other in ["edge-2.stores.acme.sites.example", "edge-1.stores.acme.sites.example.evil.example"] {
        assert_eq!(refused(cloud.clone(), Edge::new(transport), &folder, &named(other)).await.code(), 403);
    }
}

fn pin(certificate: &Certificate) -> String {
    spki_pin(&certificate.chain()[0]).unwrap().to_string()
}

/// A responder that knows [`NODE`] by what `proof` says, and nothing else of anybody.
fn listed(proof: &str) -> Cloud {
    let node = format!("[{{ node: {}, cluster: {}, tenant: {}, {proof} }}]", NODE.node, NODE.cluster, NODE.tenant);
    let tls = "{ cert: cloud.pem, key: cloud.key }";
    Cloud::new().without_identity().responder("tls", tls).responder("nodes", &node)
}

async fn a_pinned_key_proves_a_node_without_a_ca(transport: Transport) {
    let folder = Folder::new();
    let shown = Authority::new("nobody knows this CA").node(NODE);
    let cloud = listed(&format!("pins: [{:?}]", pin(&shown)));
    admitted(cloud.clone(), Edge::new(transport), &folder, &shown).await;
    let other = Edge::new(transport).claim(Node { node: "edge-2", ..NODE });
    assert_eq!(refused(cloud, other, &folder, &shown).await.code(), 403, "the key of one node is not that of another");
}

async fn a_key_that_is_not_pinned_is_not_admitted(transport: Transport) {
    let folder = Folder::new();
    let (shown, other) = (folder.authority.node(NODE), folder.authority.node(NODE));
    let cloud = Cloud::new().responder("pins", &format!("[{:?}]", pin(&other)));
    let said = refused(cloud, Edge::new(transport), &folder, &shown).await;
    assert_eq!(said.code(), 403);
    assert!(said.told().0.contains(&pin(&shown)), "{}", said.told().0);
}

async fn an_initiator_that_pins_its_responder_takes_no_other(transport: Transport) {
    let folder = Folder::new();
    let genuine = folder.authority.responder();
    genuine.write(folder.path(), "cloud");
    let tls = format!("{{ cert: edge.pem, key: edge.key, ca: ca.pem, pins: [{:?}] }}", pin(&genuine));
    let edge = Edge::new(transport).initiator("tls", &tls);
    admitted(Cloud::new(), edge.clone(), &folder, &folder.authority.node(NODE)).await;
    folder.authority.responder().write(folder.path(), "cloud");
    let said = refused(Cloud::new(), edge, &folder, &folder.authority.node(NODE)).await;
    said.tls("the initiator does not accept this end", "pin");
}

async fn an_initiator_takes_no_responder_of_another_ca(transport: Transport) {
    let folder = Folder::new();
    Authority::new("another CA").responder().write(folder.path(), "cloud");
    let said = refused(Cloud::new(), Edge::new(transport), &folder, &folder.authority.node(NODE)).await;
    said.tls("the initiator does not accept this end", "does not accept the responder");
}

async fn a_token_proves_a_node_and_no_other_token_does(transport: Transport) {
    let folder = Folder::new();
    folder.write("token", "0123456789abcdef-secret");
    let shown = folder.authority.node(NODE);
    let cloud = listed("token: \"file:token\"");
    let with = |token: &str| Edge::new(transport).initiator("tls", "{ ca: ca.pem }").initiator("token", token);
    admitted(cloud.clone(), with("\"file:token\""), &folder, &shown).await;
    for edge in [with("0123456789abcdef-guessed"), Edge::new(transport).initiator("tls", "{ ca: ca.pem }")] {
        let said = refused(cloud.clone(), edge, &folder, &shown).await;
        assert_eq!(said.code(), 401);
        let lines = format!("{}{}", said.responder, said.initiator);
        assert!(!lines.contains("0123456789abcdef"), "a token was logged: {lines}");
    }
}

async fn whoever_connects_is_admitted_only_where_the_file_says_insecure(transport: Transport) {
    let folder = Folder::new();
    let tls = "{ cert: cloud.pem, key: cloud.key }";
    let cloud = Cloud::new().without_identity().responder("tls", tls);
    let edge = Edge::new(transport).initiator("tls", "{ ca: ca.pem }");

    let file = folder.write("cloud.yaml", &cloud.text());
    let mut process = Adit::start(&["run", file.to_str().unwrap()]);
    assert_eq!(process.exit().await.code(), Some(2));
    process.line_with("insecure_accept_any: true").await;

    let cloud = cloud.responder("insecure_accept_any", "true");
    let responder = cloud.start(&folder).await;
    let warning = responder.0.line_with("insecure_accept_any").await;
    assert_eq!(warning["level"], "WARN");
    let _initiator = edge.start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
}
