//! What a connection of bytes begins with.

use adit::net::client_hello::{self, Hello, MAX_HELLO};
use adit::net::proxy_header;

/// What was found in a part of the bytes stays what it is when more come, and until then there is too little; nothing is
/// waited for beyond the limit; a name is as names are compared.
pub fn client_hello(data: &[u8]) {
    let steps = (0..data.len()).step_by(1 + data.len() / 64).chain([data.len()]);
    let mut found = None;
    for length in steps {
        let now = client_hello::read(&data[..length]);
        if let Some(before) = &found {
            assert_eq!(&now, before, "more bytes changed it");
        }
        match &now {
            Ok(Hello::Incomplete(needed)) => {
                assert!(length < *needed && *needed <= MAX_HELLO, "{length} bytes are too few, {needed} may do");
            }
            Ok(Hello::Whole(Some(name))) => {
                assert!(!name.is_empty() && *name == name.to_ascii_lowercase() && !name.contains(char::is_whitespace));
                found = Some(now);
            }
            _ => found = Some(now),
        }
    }
}

/// A header ends where it ends however much comes, and what it says is written so that it reads the same.
pub fn proxy_header(data: &[u8]) {
    let Ok(whole) = proxy_header::read(data) else { return };
    let Some((length, header)) = whole else {
        assert!(data.len() < 16 + proxy_header::MAX_REST, "{} bytes are too few", data.len());
        return;
    };
    assert!(length <= data.len());
    assert_eq!(proxy_header::read(&data[..length]), Ok(Some((length, header))));
    assert_eq!(proxy_header::read(&data[..length - 1]), Ok(None));
    if let Some(header) = header {
        let written = proxy_header::write(&header);
        let (_, again) = proxy_header::read(&written).expect("it was written here").expect("it is whole");
        let again = again.expect("it names somebody");
        let canonical = |address: std::net::SocketAddr| (address.ip().to_canonical(), address.port());
        assert_eq!(canonical(again.source), canonical(header.source));
        assert_eq!(canonical(again.destination), canonical(header.destination));
    }
}
