//! gRPC: calls of every form between a client and a server that others wrote, and what a client of gRPC learns of our own
//! failures.

mod http3;

use std::path::Path;
use std::process::Command;

use crate::support::certificates::Authority;
use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, Folder, NODE, Site, Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(
    calls_of_every_form_come_through,
    calls_of_every_form_come_through_to_a_target_that_chooses_http_2_in_tls,
    calls_of_every_form_come_through_to_a_socket_in_the_file_system,
    a_target_that_is_not_there_is_unavailable,
);

/// A target where nobody is.
const REFUSING: &str = "h2c://127.0.0.1:9";

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

/// Starts the server; where it is, if it is at a port. `None` when this test is skipped.
async fn server(how: &[&str]) -> Option<(Program, String)> {
    let server = Program::spawn("grpcio", program(&[&["server"], how].concat())?);
    let port = server.line_with("port ").await.split_off("port ".len());
    Some((server, port))
}

/// A site that serves calls at this target, with more keys of the service.
async fn site(transport: Transport, cloud: Cloud, target: &str, more: &str) -> Site {
    let service = format!("{{ name: calls, match: {{}}, target: \"{target}\"{more} }}");
    Site::with(cloud, Edge::new(transport).service(&service)).await
}

async fn calls_of_every_form_come_through(transport: Transport) {
    let Some((_server, port)) = server(&[]).await else { return };
    judge(&site(transport, Cloud::new(), &format!("h2c://127.0.0.1:{port}"), "").await, &[]).await;
}

async fn calls_of_every_form_come_through_to_a_target_that_chooses_http_2_in_tls(transport: Transport) {
    let (folder, authority) = (Folder::new(), Authority::new("CA of targets"));
    authority.write(folder.path(), "targets-ca");
    authority.responder().write(folder.path(), "target");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let Some((_server, port)) = server(&["tls", &path("target.pem"), &path("target.key")]).await else { return };
    let tls = format!(", tls: {{ ca: {:?} }}", path("targets-ca.pem"));
    judge(&site(transport, Cloud::new(), &format!("h2://localhost:{port}"), &tls).await, &[]).await;
}

async fn calls_of_every_form_come_through_to_a_socket_in_the_file_system(transport: Transport) {
    let folder = Folder::new();
    let socket = folder.path().join("calls.sock").display().to_string();
    let Some((_server, _)) = server(&[&format!("unix:{socket}")]).await else { return };
    judge(&site(transport, Cloud::new(), &format!("unix+h2c:{socket}"), "").await, &[]).await;
}

async fn a_target_that_is_not_there_is_unavailable(transport: Transport) {
    judge(&site(transport, Cloud::new(), REFUSING, "").await, &["refused"]).await;
}
