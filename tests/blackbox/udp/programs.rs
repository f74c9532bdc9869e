//! Programs from outside over flows: `dig` and its resolver's usual wishes.

use std::process::{Command, Stdio};

use super::site;
use crate::support::datagrams::Peer;
use crate::support::site::{Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(dig_gets_small_and_four_kilobyte_answers);

/// An answer with one TXT record of as many bytes as the first label of the question says.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += usize::from(query[end]) + 1;
    }
    let question = query.get(12..end + 5)?;
    let label = std::str::from_utf8(query.get(13..13 + usize::from(query[12]))?).ok()?;
    let length: usize = label.parse().ok()?;
    let mut text = Vec::new();
    for piece in vec![b'x'; length].chunks(255) {
        text.push(piece.len() as u8);
        text.extend(piece);
    }
    // QR and AA; one question, one answer, and an OPT that takes as much.
    let head = [&query[..2], &[0x84, 0, 0, 1, 0, 1, 0, 0, 0, 1]].concat();
    let record = [&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0][..], &(text.len() as u16).to_be_bytes(), &text].concat();
    let opt = [0, 0, 41, 0x20, 0, 0, 0, 0, 0, 0, 0];
    Some([&head[..], question, &record, &opt].concat())
}

async fn dig_gets_small_and_four_kilobyte_answers(transport: Transport) {
    let Some(dig) = tools::find("dig") else { return };
    let peer = Peer::answering(|query| answer(query).into_iter().collect()).await;
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
