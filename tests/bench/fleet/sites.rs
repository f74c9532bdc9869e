//! Many sites in one process, on a thread of their own: each with two tunnels at distinct responders, and all with the same service.

use std::net::SocketAddr;
use std::time::Duration;

use adit::admin::client;
use adit::app::App;
use adit::config::{self, AdminAddress, Given};
use adit::lifecycle::Drain;
use http::Method;

use crate::place::Place;
use crate::support::certificates::Node;
use crate::support::site::{Edge, NODE, Transport};
use crate::support::targets::Target;
use crate::thread;

/// Running sites.
pub(crate) struct Sites {
    names: Vec<String>,
    /// Where each says how it is.
    admins: Vec<AdminAddress>,
    /// Tunnels that each has opened, as it said last.
    opened: Vec<u64>,
}

/// How long one is asked.
const PATIENCE: Duration = Duration::from_secs(1);

impl Sites {
    /// Each dials one of the responders, and learns there of the others.
    pub(crate) async fn start(place: &Place, transport: Transport, count: usize) -> Self {
        let names: Vec<String> = (0..count).map(|number| format!("edge-{number}")).collect();
        let responders = place.tunnels();
        let mut files = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let claim = Node { node: Box::leak(name.clone().into_boxed_str()), ..NODE };
            place.folder.authority.node(claim).write(place.folder.path(), name);
            let edge = Edge::new(transport).named(name).claim(claim).count(2);
            let first = responders[number % responders.len()];
            files.push((edge, first, place.folder.path().join(format!("{name}.yaml"))));
        }
        let admins = thread::on_own_thread("sites", async |started| {
            let target = Target::http1().await;
            let mut admins = Vec::new();
            for (edge, first, path) in files {
                let text = edge.target(&format!("http://{}", target.address())).text(&SocketAddr::to_string(&first));
                let app = App::build(config::check(&text, &path, &Given(&[])).unwrap()).await.unwrap();
                admins.push(app.admin_address().unwrap());
                tokio::spawn(app.run(Drain::new()));
            }
            started.send(admins).unwrap();
            std::future::pending::<()>().await;
        });
        Self { opened: vec![0; names.len()], names, admins }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// How many tunnels they have opened so far. One that does not answer in time counts with what it said before.
    pub(crate) async fn opened(&mut self) -> u64 {
        for (admin, opened) in self.admins.iter().zip(&mut self.opened) {
            let asked = client::request_within(admin, Method::GET, "/metrics", PATIENCE).await;
            let Ok((_, text)) = asked else { continue };
            let text = String::from_utf8(text.to_vec()).unwrap();
            let series = "adit_tunnels_opened_total{role=\"initiator\"} ";
            let value = text.lines().find_map(|line| line.strip_prefix(series));
            *opened = value.map_or(0, |value| value.parse::<u64>().unwrap());
        }
        self.opened.iter().sum()
    }
}
