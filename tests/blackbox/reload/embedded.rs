//! A program that changes an app which runs in it: settings need no file.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit::app::{App, ApplyError, Handle, ReloadError};
use adit::config::{
    self, Checked, DialerTls, EgressConfig, InitiatorConfig, KeyPairFiles, ListenerTls, Process, ResponderConfig,
    ServiceConfig, Source, TunnelConfig,
};
use adit::id::Claim;
use adit::lifecycle::Drain;
use adit::message::pattern::{Match, PathPrefix};
use adit::routing::Tenant;
use adit::transport::TransportChoice;
use tokio::task::JoinHandle;

use crate::support::certificates::IDENTITY;
use crate::support::eventually::{eventually, standstill};
use crate::support::http1::get;
use crate::support::site::{Cloud, Edge, Folder, NODE, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(
    a_program_adds_and_removes_a_role_of_a_running_app,
    a_program_makes_the_settings_that_it_applies,
    tasks_are_as_many_after_a_hundred_changes_as_before,
);

fn checked(text: &str, folder: &Path) -> Checked {
    config::check(text, &folder.join("given.yaml"), &Process).unwrap()
}

/// An app that runs here.
struct Running {
    handle: Handle,
    egress: SocketAddr,
    tunnels: SocketAddr,
    drain: Drain,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(settings: Checked) -> Self {
        Self::run(App::build(settings).await.unwrap()).await
    }

    async fn run(app: App) -> Self {
        let (handle, drain) = (app.handle(), Drain::new());
        let (egress, tunnels) = (app.egress_addresses()[0], app.tunnel_address().unwrap());
        let refused = handle.apply(Checked::clone(&handle.settings())).await.unwrap_err();
        assert!(matches!(refused, ApplyError::NotRunning), "{refused}");
        let running = app.run(drain.clone());
        let task = tokio::spawn(async move { running.await.unwrap() });
        let running = Self { handle, egress, tunnels, drain, task };
        eventually("a running app", async || {
            let settings = Checked::clone(&running.handle.settings());
            running.handle.apply(settings).await.ok().map(|difference| assert!(difference.is_empty()))
        })
        .await;
        running
    }

    async fn answers(&self, status: u16) {
        let asked = async || Some(get(self.egress, "/", &[TO_NODE]).await.unwrap().status());
        eventually(&format!("an answer of {status}"), async || asked().await.filter(|found| *found == status)).await;
    }

    async fn stop(self) {
        self.drain.drain(Duration::from_secs(30)).await;
        self.task.await.unwrap();
        let over = self.handle.apply(Checked::clone(&self.handle.settings())).await.unwrap_err();
        assert!(matches!(over, ApplyError::Over), "{over}");
    }
}

/// A responder in a folder of its own, and what adds an initiator that dials it.
fn both(folder: &Folder, cloud: &Checked, edge: &Edge, tunnels: SocketAddr) -> Checked {
    folder.authority.node(NODE).write(folder.path(), "edge");
    let edge = checked(&edge.text(&tunnels.to_string()), folder.path());
    let mut both = cloud.clone();
    (both.initiator, both.services) = (edge.initiator, edge.services);
    both
}

async fn a_program_adds_and_removes_a_role_of_a_running_app(transport: Transport) {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let cloud = checked(&Cloud::new().egress("hold", "0").text(), folder.path());
    let app = Running::start(cloud.clone()).await;
    app.answers(503).await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let with_edge = both(&folder, &cloud, &edge, app.tunnels);
    let expected = cloud.difference(&with_edge).to_string();
    let difference = app.handle.apply(with_edge.clone()).await.unwrap();
    assert_eq!(difference.to_string(), expected);
    assert!(difference.touches("initiator") && difference.touches("services") && !difference.touches("responder"));
    assert_eq!(*app.handle.settings(), with_edge);
    app.answers(200).await;
    app.handle.apply(cloud.clone()).await.unwrap();
    app.answers(503).await;
    app.handle.apply(with_edge.clone()).await.unwrap();
    app.answers(200).await;
    let mut wrong = cloud.clone();
    wrong.egress[0].http_mut().unwrap().limits.head_fields = 7;
    let wrong = app.handle.apply(wrong).await.unwrap_err().to_string();
    assert!(wrong.contains("egress[0].limits.head_fields: \"7\" is not accepted; expected"), "{wrong}");
    assert_eq!(*app.handle.settings(), with_edge);
    let none = app.handle.reload().await.unwrap_err();
    assert!(matches!(none, ReloadError::NoSource), "{none}");
    app.stop().await;
}

/// Not a line of YAML: another source of settings needs nothing that is not public.
async fn a_program_makes_the_settings_that_it_applies(transport: Transport) {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let cloud = made_cloud(&folder);
    let app = Running::start(cloud.clone()).await;
    app.answers(503).await;

    let to_target = format!("http://{}", target.address());
    let mut service = ServiceConfig::new("web".parse().unwrap(), to_target.parse().unwrap());
    service.matches = Some(Match { host: None, prefix: PathPrefix::root() });
    let initiator = Some(made_edge(&folder, app.tunnels, transport));
    let both = Checked { initiator, services: vec![service], ..cloud };
    let difference = app.handle.apply(both.clone()).await.unwrap();
    assert_eq!(difference.to_string(), "+ initiator\n+ services.web");
    app.answers(200).await;

    let mut changed = both.clone();
    changed.services[0].target = "http://127.0.0.1:9".parse().unwrap();
    let line = format!("~ services.web.target: {to_target} -> http://127.0.0.1:9");
    assert_eq!(app.handle.apply(changed).await.unwrap().to_string(), line);
    app.answers(502).await;
    app.handle.apply(both).await.unwrap();
    app.answers(200).await;
    app.stop().await;
}

/// A responder with one listener, as a program makes it.
fn made_cloud(folder: &Folder) -> Checked {
    let at = |name: &str| folder.path().join(name);
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut tls = ListenerTls::new(at("cloud.pem"), at("cloud.key"));
    tls.client_ca = Some(at("ca.pem"));
    let mut responder = ResponderConfig::new(tls);
    (responder.quic, responder.tcp) = (Some(free), Some(free));
    responder.admission.identity = Some(IDENTITY.to_owned());
    let mut listener = EgressConfig::new(free, "%REQ(x-node-id)%".parse().unwrap());
    listener.router_mut().tenant = Tenant::Fixed(NODE.tenant.parse().unwrap());
    listener.router_mut().hold = Duration::ZERO;
    Checked { responder: Some(responder), egress: vec![listener], ..Checked::default() }
}

/// An initiator that dials this responder, likewise.
fn made_edge(folder: &Folder, responder: SocketAddr, transport: Transport) -> InitiatorConfig {
    let at = |name: &str| folder.path().join(name);
    folder.authority.node(NODE).write(folder.path(), "edge");
    let claim = Claim {
        tenant: NODE.tenant.parse().unwrap(),
        cluster: NODE.cluster.parse().unwrap(),
        node: NODE.node.parse().unwrap(),
    };
    let credentials = Some(KeyPairFiles::new(at("edge.pem"), at("edge.key")));
    let tls = DialerTls { credentials, ca: Some(at("ca.pem")), ..DialerTls::default() };
    let mut tunnel = TunnelConfig::new(responder.to_string().parse().unwrap());
    tunnel.transport = match transport {
        Transport::Quic => TransportChoice::Quic,
        Transport::Tcp => TransportChoice::Tcp,
    };
    InitiatorConfig { tunnels: vec![tunnel], ..InitiatorConfig::new(claim, tls) }
}

async fn tasks_are_as_many_after_a_hundred_changes_as_before(transport: Transport) {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let text = Cloud::new().egress("hold", "5s").process("drain_timeout", "1s").text();
    let cloud = checked(&text, folder.path());
    let app = Running::start(cloud.clone()).await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let with_edge = both(&folder, &cloud, &edge, app.tunnels);
    let more = Cloud::new().egress("hold", "5s").process("drain_timeout", "1s").and_egress();
    let more = both(&folder, &checked(&more.text(), folder.path()), &edge, app.tunnels);
    let mut broken = with_edge.clone();
    broken.egress[0].http_mut().unwrap().http = ([192, 0, 2, 1], 80).into();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    app.handle.apply(with_edge.clone()).await.unwrap();
    app.answers(200).await;
    // Some of what has begun may not be there yet.
    let before = standstill("tasks", Duration::from_secs(1), async || tasks()).await;
    for round in 1..=100 {
        if round % 10 == 0 {
            let error = app.handle.apply(broken.clone()).await.unwrap_err().to_string();
            assert!(error.contains("192.0.2.1:80"), "{error}");
            continue;
        }
        let next = match round % 3 {
            0 => &cloud,
            1 => &more,
            _ => &with_edge,
        };
        app.handle.apply(next.clone()).await.unwrap();
    }
    app.handle.apply(with_edge).await.unwrap();
    app.answers(200).await;
    eventually("as few tasks as before", async || (tasks() <= before).then_some(())).await;
    app.stop().await;
}

/// Who asks while a file is read is answered by a reading that began later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_a_reload_gets_the_file_as_it_was_then_or_later() {
    let folder = Folder::new();
    let cloud = |hold: usize| Cloud::new().egress("hold", &format!("{hold}ms")).text();
    let file = folder.write("cloud.yaml", &cloud(1));
    let source = Source::file(&file);
    let app = App::build(source.load().unwrap()).await.unwrap();
    let app = Running::run(app.read_from(source)).await;
    for hold in 2..20 {
        folder.write("new.yaml", &cloud(hold));
        std::fs::rename(folder.path().join("new.yaml"), &file).unwrap();
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let handle = app.handle.clone();
                tokio::spawn(async move {
                    handle.reload().await.unwrap();
                    handle.settings().egress[0].router().hold
                })
            })
            .collect();
        // Somebody who does not wait for the answer changes nothing about it.
        drop(tokio::time::timeout(Duration::from_millis(1), app.handle.reload()).await);
        for asked in asked {
            assert_eq!(asked.await.unwrap(), Duration::from_millis(hold as u64));
        }
    }
    let settings = Arc::clone(&app.handle.settings());
    assert_eq!(settings.egress[0].router().hold, Duration::from_millis(19));
    app.stop().await;
}
