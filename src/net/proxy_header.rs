//! The PROXY header, versions 1 and 2: who connected to a proxy, said before everything else on its connection to here.
//!
//! As in "The PROXY protocol, versions 1 & 2" of HAProxy. What else a header of version 2 says (its TLVs) is skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::protocol::stream::ClientAddresses;

/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;
/// The longest header of version 2 that is taken, bytes behind its first 16. The largest addresses have 216; the rest is
/// room for what proxies say beside.
pub const MAX_REST: usize = 4096;

const LINE_BEGIN: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before its addresses.
const FIXED: usize = 16;

/// Why what came is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It begins otherwise.
    #[error("the connection does not begin with a PROXY header of version 1 or 2")]
    Missing,
    /// A line of version 1 that cannot be read.
    #[error("the line of the PROXY header (version 1) is malformed")]
    Line,
    /// A header of version 2 that cannot be read.
    #[error("the PROXY header (version 2) is malformed")]
    Binary,
    /// One that is longer than is taken.
    #[error("the PROXY header (version 2) has more than {MAX_REST} bytes")]
    TooLong,
}

/// Reads a header off the beginning of what came: its length, and what it says. Nobody is named where the proxy connected
/// for itself (LOCAL), or does not say who did (UNKNOWN, and kinds of addresses that are none of IP). `None`: there is too
/// little to know.
///
/// # Errors
///
/// [`HeaderError`].
pub fn read(received: &[u8]) -> Result<Option<(usize, Option<ClientAddresses>)>, HeaderError> {
    let begins = |with: &[u8]| received.iter().zip(with).all(|(byte, expected)| byte == expected);
    if begins(SIGNATURE) {
        return binary(received);
    }
    if begins(LINE_BEGIN) { line(received) } else { Err(HeaderError::Missing) }
}

fn line(received: &[u8]) -> Result<Option<(usize, Option<ClientAddresses>)>, HeaderError> {
    let looked_at = &received[..received.len().min(MAX_LINE)];
    let Some(end) = looked_at.windows(2).position(|pair| pair == b"\r\n") else {
        return if received.len() < MAX_LINE { Ok(None) } else { Err(HeaderError::Line) };
    };
    let text = std::str::from_utf8(&looked_at[..end]).map_err(|_| HeaderError::Line)?;
    let mut words = text.split(' ').skip(1);
    let header = match words.next() {
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let words: Vec<&str> = words.collect();
            let [source, destination, source_port, port] = words[..] else { return Err(HeaderError::Line) };
            let is_v4 = family == "TCP4";
            Some(ClientAddresses {
                source: SocketAddr::new(address(source, is_v4)?, number(source_port)?),
                destination: SocketAddr::new(address(destination, is_v4)?, number(port)?),
            })
        }
        _ => return Err(HeaderError::Line),
    };
    Ok(Some((end + 2, header)))
}

fn address(text: &str, is_v4: bool) -> Result<IpAddr, HeaderError> {
    text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == is_v4).ok_or(HeaderError::Line)
}

/// A port, without a sign and without zeros before it.
fn number(text: &str) -> Result<u16, HeaderError> {
    let is_sound = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_sound).ok_or(HeaderError::Line)
}

fn binary(received: &[u8]) -> Result<Option<(usize, Option<ClientAddresses>)>, HeaderError> {
    let Some(&[version_and_command, family, high, low]) = received.get(SIGNATURE.len()..FIXED) else { return Ok(None) };
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderError::Binary),
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > MAX_REST {
        return Err(HeaderError::TooLong);
    }
    let Some(content) = received.get(FIXED..FIXED + rest) else { return Ok(None) };
    let header = match family >> 4 {
        _ if is_local => None,
        1 => Some(addresses::<4>(content).ok_or(HeaderError::Binary)?),
        2 => Some(addresses::<16>(content).ok_or(HeaderError::Binary)?),
        0 | 3 => None,
        _ => return Err(HeaderError::Binary),
    };
    Ok(Some((FIXED + rest, header)))
}

/// Two addresses of so many bytes and their ports.
fn addresses<const N: usize>(content: &[u8]) -> Option<ClientAddresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, content) = content.split_first_chunk::<N>()?;
    let (destination, content) = content.split_first_chunk::<N>()?;
    let (ports, _) = content.split_first_chunk::<4>()?;
    Some(ClientAddresses {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([ports[0], ports[1]])),
        destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes([ports[2], ports[3]])),
    })
}

/// A header of version 2 that names nobody: whoever sends it has connected for itself, or does not know for whom.
pub const LOCAL: &[u8; 16] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A header of version 2 that says the same. Where the two addresses are of different kinds, both are written as IPv6.
pub fn write(header: &ClientAddresses) -> Vec<u8> {
    let ClientAddresses { source, destination } = *header;
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(0x21);
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend_from_slice(&[0x11, 0, 12]);
            bytes.extend_from_slice(&Ipv4Addr::octets(&from));
            bytes.extend_from_slice(&to.octets());
        }
        (from, to) => {
            bytes.extend_from_slice(&[0x21, 0, 36]);
            bytes.extend_from_slice(&as_v6(from).octets());
            bytes.extend_from_slice(&as_v6(to).octets());
        }
    }
    bytes.extend_from_slice(&source.port().to_be_bytes());
    bytes.extend_from_slice(&destination.port().to_be_bytes());
    bytes
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: &str, destination: &str) -> ClientAddresses {
        ClientAddresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// What is read of the whole, after every part of it was too little.
    fn whole(bytes: &[u8]) -> Option<ClientAddresses> {
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), Ok(None), "{length} of {bytes:?}");
        }
        let (length, header) = read(&[bytes, b"what follows"].concat()).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        header
    }

    #[test]
    fn lines_of_version_1() {
        let v4 = header("192.0.2.1:56324", "198.51.100.7:443");
        assert_eq!(whole(b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"), Some(v4));
        let v6 = header("[2001:db8::1]:1", "[::1]:65535");
        assert_eq!(whole(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"), Some(v6));
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(whole(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"), None);
        for wrong in [
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 056 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +56 443\r\n",
            "PROXY TCP4 ::1 198.51.100.7 56324 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.7 56324 443\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.7 56324 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.7 56324 443\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(read(wrong.as_bytes()), Err(HeaderError::Line), "{wrong}");
        }
        let endless = [LINE_BEGIN, &[b'x'; MAX_LINE]].concat();
        assert_eq!(read(&endless[..MAX_LINE - 1]), Ok(None));
        assert_eq!(read(&endless), Err(HeaderError::Line));
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Err(HeaderError::Missing));
        assert_eq!(read(b"\r\n\r\n\0\r\nQUIZ"), Err(HeaderError::Missing));
    }

    #[test]
    fn headers_of_version_2() {
        for (source, destination) in [
            ("192.0.2.1:56324", "198.51.100.7:443"),
            ("[2001:db8::1]:1", "[2001:db8::2]:65535"),
            ("192.0.2.1:5", "[2001:db8::2]:6"),
        ] {
            let given = header(source, destination);
            let read = whole(&write(&given)).unwrap();
            assert_eq!(read.source.ip().to_canonical(), given.source.ip());
            assert_eq!((read.source.port(), read.destination), (given.source.port(), given.destination));
        }
        let mut with_more = write(&header("192.0.2.1:1", "192.0.2.2:2"));
        with_more[15] += 7;
        with_more.extend_from_slice(&[2, 0, 4, b'n', b'a', b'm', b'e']);
        assert_eq!(whole(&with_more), Some(header("192.0.2.1:1", "192.0.2.2:2")));
        let of = |command: u8, family: u8, rest: u16| {
            [&SIGNATURE[..], &[command, family], &rest.to_be_bytes(), &vec![0; rest.into()]].concat()
        };
        assert_eq!(whole(LOCAL), None);
        assert_eq!(whole(&of(0x20, 0x11, 3)), None, "LOCAL, whatever it says beside");
        assert_eq!(whole(&of(0x21, 0x31, 216)), None, "two sockets of a file system");
        assert_eq!(read(&of(0x21, 0x11, 11)), Err(HeaderError::Binary), "too short for its addresses");
        assert_eq!(read(&of(0x11, 0x11, 12)), Err(HeaderError::Binary), "another version");
        assert_eq!(read(&of(0x22, 0x11, 12)), Err(HeaderError::Binary), "another command");
        assert_eq!(read(&of(0x21, 0x41, 12)), Err(HeaderError::Binary), "another family");
        assert_eq!(read(&of(0x21, 0x11, 4097)), Err(HeaderError::TooLong));
    }
}
