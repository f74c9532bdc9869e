//! `dig` and a name server at the site.

use std::process::Command;

use crate::run::{Run, not_on_path};
use crate::support::datagrams::Peer;
use crate::support::dns;

pub(crate) fn missing() -> Vec<&'static str> {
    not_on_path(&["dig"])
}

pub(crate) async fn run(run: Run) {
    let server = Peer::answering(dns::answer).await;
    let site = run.datagrams_to(server.address()).await;
    let port = site.responder.udp_at(0).port().to_string();
    let dig = |arguments: &[&str]| {
        let mut command = Command::new("dig");
        // `-r`: without what somebody likes it to do.
        command.args(["-r", "@127.0.0.1", "-p", &port, "+ignore", "+notcp", "+tries=5", "+time=5"]).args(arguments);
        command
    };

    run.begin("A");
    let (said, _) = run.command("dig", dig(&["+short", "host.example", "A"])).await;
    assert_eq!(said.trim(), dns::ADDRESS.to_string());
    run.done(said);

    run.begin("TXT of 4000 bytes, EDNS with 8192");
    let (said, _) = run.command("dig", dig(&["+bufsize=8192", "4000.example", "TXT"])).await;
    let answers = said.lines().filter(|line| !line.starts_with(';'));
    let got: usize = answers.map(|line| line.bytes().filter(|byte| *byte == b'x').count()).sum();
    // One more stands in the name.
    assert_eq!(got, 4001, "{said}");
    let size = said.lines().find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "));
    let time = said.lines().find_map(|line| line.strip_prefix(";; Query time: "));
    let told = size.zip(time).unwrap_or_else(|| panic!("it does not say how long it was: {said}"));
    run.done(format!("one answer of {} bytes in {}", told.0, told.1.replace("msec", "ms")));
}
