//! gRPC: calls of every form between a client and a server that others wrote, and what a client of gRPC learns of our own
//! failures.

use std::path::Path;
use std::process::Command;

use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(calls_of_every_form_come_through, a_target_that_is_not_there_is_unavailable);

/// `tests/foreign/calls.py`; `None` when this test is skipped.
fn program(arguments: &[&str]) -> Option<Command> {
    let mut program = Command::new(tools::python()?);
    program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/calls.py")).args(arguments);
    Some(program)
}

/// Lets the client judge, which must succeed.
async fn judge(site: &Site, more: &[&str]) {
    let address = site.egress().to_string();
    let Some(mut client) = program(&[&["client", &address, NODE.node], more].concat()) else { return };
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

async fn calls_of_every_form_come_through(transport: Transport) {
    let Some(server) = program(&["server"]) else { return };
    let server = Program::spawn("grpcio", server);
    let port = server.line_with("port ").await.split_off("port ".len());
    let service = format!("{{ name: calls, match: {{}}, target: \"h2c://127.0.0.1:{port}\" }}");
    let site = Site::with(Cloud::new(), Edge::new(transport).service(&service)).await;
    judge(&site, &[]).await;
}

async fn a_target_that_is_not_there_is_unavailable(transport: Transport) {
    let service = "{ name: calls, match: {}, target: \"h2c://127.0.0.1:9\" }";
    let site = Site::with(Cloud::new(), Edge::new(transport).service(service)).await;
    judge(&site, &["refused"]).await;
}
