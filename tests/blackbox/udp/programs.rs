//! Programs from outside over flows: `dig` and its resolver's usual wishes.

use std::process::{Command, Stdio};

use super::site;
use crate::support::datagrams::Peer;
use crate::support::dns;
use crate::support::site::{Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(dig_gets_small_and_four_kilobyte_answers);

async fn dig_gets_small_and_four_kilobyte_answers(transport: Transport) {
    let Some(dig) = tools::find("dig") else { return };
    let peer = Peer::answering(dns::answer).await;
    let site = site(transport, &peer).await;
    let listener = site.responder.udp_at(0);
    for length in [20, 1100, 1300, 4000] {
        let mut command = Command::new(&dig);
        command.args(["+noall", "+answer", "+bufsize=8192", "+ignore", "+notcp", "+tries=5", "+time=5"]);
        command.args(["@127.0.0.1", "-p", &listener.port().to_string(), &format!("{length}.example"), "TXT"]);
        let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
        let output = output.await.unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let got = text.bytes().filter(|byte| *byte == b'x').count();
        // One more stands in the name.
        assert_eq!(got, length + 1, "{text}");
    }
}
