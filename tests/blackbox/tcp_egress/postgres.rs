//! PostgreSQL at the site, and its own client at the cloud: a protocol in which the server speaks in pieces of many sizes, and
//! bulk goes both ways.
//!
//! It is large and no test installs it: where it is not there, the test says so and shows nothing.

use crate::support::postgres::{Installed, Server};
use crate::support::site::{Cloud, Edge, Site, Transport, over_each_transport};

over_each_transport!(psql_reaches_a_database_and_moves_a_table_both_ways);

async fn psql_reaches_a_database_and_moves_a_table_both_ways(transport: Transport) {
    let Some(installed) = Installed::find() else {
        return eprintln!("PostgreSQL is not installed: nothing was shown");
    };
    let server = Server::start(installed).await;
    let service = format!("{{ name: db, target: \"tcp://{}\" }}", server.address());
    let site = Site::with(Cloud::new().and_tcp("db"), Edge::new(transport).service(&service)).await;
    let client = server.client(site.responder.tcp_at(0));
    let moved = client.move_table().await;
    println!("{transport:?}: {moved:?}; 20 connections in {:?}", client.connect(20).await);
}
