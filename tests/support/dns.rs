//! A name server of which the question says what it answers.

use std::net::Ipv4Addr;

/// The address of every name.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

const A: u16 = 1;
const TXT: u16 = 16;

/// One record: to a question for an address [`ADDRESS`], else a TXT of as many bytes as the first label says. Nothing to what is
/// no such question.
pub(crate) fn answer(query: &[u8]) -> Vec<Vec<u8>> {
    one(query).into_iter().collect()
}

fn one(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += usize::from(query[end]) + 1;
    }
    let question = query.get(12..end + 5)?;
    let asked = u16::from_be_bytes([query[end + 1], query[end + 2]]);
    let (kind, data) = match asked {
        A => (A, ADDRESS.octets().to_vec()),
        _ => (TXT, text(query.get(13..13 + usize::from(query[12]))?)?),
    };
    // QR and AA; one question, one answer, and an OPT that takes as much.
    let head = [&query[..2], &[0x84, 0, 0, 1, 0, 1, 0, 0, 0, 1]].concat();
    let (kind, length) = (kind.to_be_bytes(), (data.len() as u16).to_be_bytes());
    let record = [&[0xc0, 12][..], &kind, &[0, 1, 0, 0, 0, 0], &length, &data].concat();
    let opt = [0, 0, 41, 0x20, 0, 0, 0, 0, 0, 0, 0];
    Some([&head[..], question, &record, &opt].concat())
}

/// As many bytes as the label says.
fn text(label: &[u8]) -> Option<Vec<u8>> {
    let length: usize = std::str::from_utf8(label).ok()?.parse().ok()?;
    let mut text = Vec::new();
    for piece in vec![b'x'; length].chunks(255) {
        text.push(piece.len() as u8);
        text.extend(piece);
    }
    Some(text)
}
