//! Another stack asks for a flow by CONNECT-UDP, and speaks QUIC with a server at the site through it.

use crate::run::Run;
use crate::support::connect_udp::{SIZES, Server};
use crate::support::tools;

pub(crate) fn missing() -> Vec<&'static str> {
    if tools::python().is_some() { Vec::new() } else { vec!["aioquic (tests/run installs it)"] }
}

pub(crate) async fn run(run: Run) {
    let server = Server::start(tools::python().unwrap()).await;
    let site = server.site(run.transport).await;
    let sizes = SIZES.map(|size| size.to_string()).join(", ");
    for (form, datagrams) in [("capsules", false), ("HTTP datagrams", true)] {
        run.begin(format!("CONNECT-UDP in {form}, QUIC inside: streams of {sizes} bytes and back"));
        let came = server.client(site.egress(), datagrams).served().await;
        run.done(format!("each the same; {} capsules and {} datagrams came", came.capsules, came.datagrams));
    }
}
