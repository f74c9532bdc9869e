//! Names of hosts in requests.

use adit::message::validate;
use bytes::Bytes;
use http::header::HOST;
use http::uri::Scheme;
use http::{Method, Request};

use crate::reference;

/// Two authorities, separated by a line feed: each is accepted if the naive reader accepts it, and as target and Host of
/// one request only if both name the same, whatever the HTTP version.
pub fn host_header(data: &[u8]) {
    let mut texts = data.splitn(2, |&byte| byte == b'\n').map(checked);
    let (Some(Some(target)), Some(Some(host))) = (texts.next(), texts.next()) else { return };
    for (scheme, port) in [(Scheme::HTTP, 80), (Scheme::HTTPS, 443)] {
        let same = reference::authority(&target, port) == reference::authority(&host, port);
        let uri = format!("{scheme}://{target}/");
        let named = validate::authority(host.clone().into()).ok();
        let http1 = validate::http1_target(&Method::GET, uri.clone().into(), named, scheme);
        assert_eq!(http1.is_ok(), same, "HTTP/1: {uri} {host}");
        let request = Request::get(&uri).header(HOST, &host).body(());
        let (mut parts, ()) = request.expect("invariant: both are authorities").into_parts();
        assert_eq!(validate::http2_request(&mut parts, &Scheme::HTTP, 1).is_ok(), same, "HTTP/2: {uri} {host}");
        if let Ok(http1) = http1 {
            assert_eq!(http1, parts.uri);
            assert_eq!(http1.authority().map(|authority| authority.as_str()), Some(&*target));
        }
    }
}

fn checked(data: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(data).ok();
    let expected = text.filter(|text| reference::authority(text, 80).is_some());
    let accepted = validate::authority(Bytes::copy_from_slice(data)).ok();
    assert_eq!(accepted.as_ref().map(|authority| authority.as_str()), expected);
    expected.map(str::to_owned)
}
