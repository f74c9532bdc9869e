//! Where a request comes from, by the fields that say so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit::message::forward::Forms;
use adit::message::source::{last, of_request};
use adit::message::trust::Trust;
use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A proxy that is trusted, and one in front of it that is trusted, too.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const EARLIER: &str = "10.9.8.7";
/// Who sent the request to the first of them. No seed and no dictionary has to know it: it is written behind what the client wrote.
const CLIENTS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 1))];
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// Whatever a client writes into the fields: behind what a trusted proxy adds it is the one whom that names, or nobody is known; where
/// the proxy adds a line of its own, or an element of `X-Forwarded-For`, it is known. Where the proxy adds nothing, the address is
/// one that stands there. And nobody who is not trusted is believed.
///
/// The first byte says what the proxy writes, the rest is what the client wrote: lines, of `X-Forwarded-For` after a blank, else of
/// `Forwarded`.
pub fn client_source(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let mut written: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let (name, value) = match line.strip_prefix(b" ") {
            Some(value) => (X_FORWARDED_FOR, value),
            None => (FORWARDED, line),
        };
        let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) else { return };
        written.push((name, value));
    }
    let all: HeaderMap = written.iter().cloned().collect();
    let trust = Trust::new(vec!["10.0.0.0/8".parse().expect("a prefix")]);
    for forms in [Forms::Both, Forms::Rfc7239, Forms::X, Forms::None] {
        assert_eq!(of_request(&all, STRANGER, &trust, forms), Some(STRANGER), "nobody else is believed");
        let found = of_request(&all, PROXY, &trust, forms);
        assert!(
            found.is_none_or(|found| found == PROXY || stands_in(&written, found)),
            "{forms:?}: {found:?} is invented"
        );
    }
    for is_forwarded_counted in [false, true] {
        let found = last(&all, is_forwarded_counted);
        assert!(found.is_none_or(|found| stands_in(&written, found)), "{found:?} is invented");
    }
    behind_a_proxy(choice, &written, &trust);
}

/// The proxy writes in one form, which is the one that counts.
fn behind_a_proxy(choice: u8, written: &[(HeaderName, HeaderValue)], trust: &Trust) {
    let bit = |at: u8| choice & 1 << at != 0;
    let (is_forwarded, is_own_line, is_chain) = (bit(0), bit(1), bit(2));
    let client = CLIENTS[usize::from(bit(3))];
    let (name, forms) = if is_forwarded { (FORWARDED, Forms::Rfc7239) } else { (X_FORWARDED_FOR, Forms::X) };
    let added = match (is_forwarded, is_chain) {
        (true, false) => element(client, bit(4), bit(5)),
        (true, true) => format!("{}, for={EARLIER};proto=https", element(client, bit(4), bit(5))),
        (false, false) => client.to_string(),
        (false, true) => format!("{client}, {EARLIER}"),
    };
    let mut lines = written.to_vec();
    let before = lines.iter_mut().rev().find(|(of, _)| *of == name).filter(|_| !is_own_line);
    let is_joined = before.is_some();
    match before {
        Some((_, value)) => {
            let joined = [value.as_bytes(), b", ", added.as_bytes()].concat();
            *value = HeaderValue::from_bytes(&joined).expect("both are values");
        }
        None => lines.push((name, HeaderValue::try_from(added).expect("letters"))),
    }
    let fields: HeaderMap = lines.into_iter().collect();
    let found = of_request(&fields, PROXY, trust, forms);
    match found {
        Some(found) => assert_eq!(found, client, "{fields:?}"),
        // What a client leaves open, quotes or bytes that are no text, spoils what is written behind it in the same line.
        None => assert!(is_joined, "{fields:?}"),
    }
}

/// An element of `Forwarded` as proxies write it, with a port and another parameter or without.
fn element(client: IpAddr, has_port: bool, is_first: bool) -> String {
    let port = if has_port { ":4711" } else { "" };
    let node = match client {
        IpAddr::V4(client) if !has_port => format!("for={client}"),
        IpAddr::V4(client) => format!("for=\"{client}{port}\""),
        IpAddr::V6(client) => format!("for=\"[{client}]{port}\""),
    };
    if is_first { format!("{node};by=\"[::1]\"") } else { format!("by=10.0.0.1;{node}") }
}

/// Whether the client wrote this address anywhere, perhaps with a port.
fn stands_in(written: &[(HeaderName, HeaderValue)], address: IpAddr) -> bool {
    let is_it = |word: &str| {
        let without_port = word.rsplit_once(':').map_or(word, |(before, _)| before);
        [word, without_port].iter().any(|text| text.parse() == Ok(address))
    };
    let texts = written.iter().filter_map(|(_, value)| value.to_str().ok());
    texts.flat_map(|text| text.split([',', ';', '=', '"', '[', ']', '%', ' ', '\t'])).any(is_it)
}
