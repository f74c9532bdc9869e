//! Clients and services that others wrote.

use std::path::Path;
use std::process::Command;

use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(curl_reaches_a_service_through_a_proxy_tunnel, python_and_tls_pass_as_they_are);

async fn output(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

async fn curl_reaches_a_service_through_a_proxy_tunnel(transport: Transport) {
    let Some(curl) = tools::find("curl") else { return };
    let target = crate::support::targets::Target::http1().await;
    let service = format!("{{ name: bytes, target: \"tcp://{}\" }}", target.address());
    let site = Site::with(Cloud::new().egress("connect", "true"), Edge::new(transport).service(&service)).await;
    let mut command = Command::new(curl);
    command.args(["-sS", "--proxytunnel", "-x", &format!("http://{}", site.egress()), "--proxy-header", TO_NODE]);
    command.args([
        "-o",
        "/dev/null",
        "-w",
        "%{http_connect} %{http_code} %{size_download}",
        "http://bytes:80/bytes/100000",
    ]);
    assert_eq!(output(command).await, "200 200 100000");
}

/// `tests/foreign/connect.py`; `None` when this test is skipped.
fn program(arguments: &[&str]) -> Option<Command> {
    let mut program = Command::new(tools::python()?);
    program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/connect.py")).args(arguments);
    Some(program)
}

async fn python_and_tls_pass_as_they_are(transport: Transport) {
    let folder = crate::support::site::Folder::new();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let Some(server) = program(&["server", &path("cloud.pem"), &path("cloud.key")]) else { return };
    let server = Program::spawn("connect.py", server);
    let line = server.line_with("ports ").await;
    let ports: Vec<&str> = line["ports ".len()..].split_whitespace().collect();
    let cloud = Cloud::new().egress("connect", "true").egress("routes", "[{ host: localhost, service: tls }]");
    let edge = Edge::new(transport)
        .service(&format!("{{ name: tls, target: \"tcp://127.0.0.1:{}\" }}", ports[0]))
        .service(&format!("{{ name: bytes, target: \"tcp://127.0.0.1:{}\" }}", ports[1]));
    let site = Site::with(cloud, edge).await;
    let at = site.egress().port().to_string();
    let client = program(&["client", "127.0.0.1", &at, NODE.node, &path("ca.pem")]).unwrap();
    output(client).await;
}
