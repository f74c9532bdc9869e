//! PostgreSQL at the site and its own client.

use crate::run::Run;
use crate::support::postgres::{Installed, Server};

/// Connections one after the other.
const CONNECTIONS: usize = 20;

pub(crate) fn missing() -> Vec<&'static str> {
    if Installed::find().is_some() { Vec::new() } else { vec!["PostgreSQL (initdb, postgres, psql)"] }
}

pub(crate) async fn run(run: Run) {
    let server = Server::start(Installed::find().unwrap()).await;
    let site = run.bytes_to(server.address()).await;
    let client = server.client(site.responder.tcp_at(0));
    run.begin("a table out and back by COPY");
    let moved = client.move_table().await;
    let [out, back] = [moved.out, moved.back].map(|time| time.as_millis());
    run.done(format!("{} rows, {} bytes, out in {out} ms, back in {back} ms; equal MD5", moved.rows, moved.bytes));
    run.begin(format!("psql, {CONNECTIONS} times, each a connection and SELECT 1"));
    let each = client.connect(CONNECTIONS).await / CONNECTIONS as u32;
    run.done(format!("all answered, {} ms each", each.as_millis()));
}
