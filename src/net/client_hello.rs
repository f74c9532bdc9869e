//! The first message of TLS, read for the name that it asks for and for nothing else. RFC 8446 sections 4.1.2 and 5.1, RFC
//! 6066 section 3
//!
//! The message may be split over records, and those over any number of reads: whoever calls keeps what came, and asks again
//! with more. It is not judged: what the target may want to take, or refuse, is for the target. With an encrypted
//! ClientHello the name that shows is the outer one.

/// Most bytes of records that are looked at: a message with keys and certificates-to-be of every kind has some thousands.
pub const MAX_HELLO: usize = 32 * 1024;

const RECORD_HEADER: usize = 5;
/// A record may be this long at most, encrypted or not.
const MAX_RECORD: usize = (1 << 14) + 256;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// The longest name of a host.
const MAX_NAME: usize = 253;

/// What the beginning of a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// There is too little of it to know: nothing is before there are so many bytes. Whoever asks no sooner reads a message of
    /// any number of pieces a few times, and not as many.
    Incomplete(usize),
    /// Not TLS.
    NotTls,
    /// A whole message, and the name that it asks for, in lower case and without a dot at its end.
    Whole(Option<String>),
}

/// It begins as TLS does, and then is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection begins as TLS does, and has no ClientHello of at most {MAX_HELLO} bytes")]
pub struct Malformed;

/// Looks at what came of a connection so far.
///
/// # Errors
///
/// [`Malformed`].
pub fn read(received: &[u8]) -> Result<Hello, Malformed> {
    // Handshake, and whatever minor version: 3.1 for compatibility, most often.
    let begin = [HANDSHAKE, 3];
    if received.iter().zip(begin).any(|(byte, expected)| *byte != expected) {
        return Ok(Hello::NotTls);
    }
    match message(&received[..received.len().min(MAX_HELLO)])? {
        Message::Whole(body) => hello(&body).map(Hello::Whole),
        Message::Lacks(_) if received.len() >= MAX_HELLO => Err(Malformed),
        Message::Lacks(more) => Ok(Hello::Incomplete((received.len() + more).min(MAX_HELLO))),
    }
}

/// The message that records begin with.
enum Message {
    /// Its body.
    Whole(Vec<u8>),
    /// At least so many bytes of it are missing.
    Lacks(usize),
}

/// Takes the message out of its records.
fn message(mut records: &[u8]) -> Result<Message, Malformed> {
    let mut message = Vec::new();
    loop {
        let mut lacks = 1;
        if let Some((kind, rest)) = message.split_first()
            && let Some((length, body)) = rest.split_first_chunk::<3>()
        {
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            if *kind != CLIENT_HELLO || length > MAX_HELLO {
                return Err(Malformed);
            }
            if let Some(body) = body.get(..length) {
                return Ok(Message::Whole(body.to_vec()));
            }
            lacks = length - body.len();
        }
        let Some((header, rest)) = records.split_first_chunk::<RECORD_HEADER>() else {
            return Ok(Message::Lacks(lacks));
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE || header[1] != 3 || length == 0 || length > MAX_RECORD {
            return Err(Malformed);
        }
        // A part of a record counts, too, so that what is malformed shows early.
        let (part, rest) = rest.split_at(length.min(rest.len()));
        message.extend_from_slice(part);
        records = rest;
    }
}

/// The name in the body of a ClientHello.
fn hello(body: &[u8]) -> Result<Option<String>, Malformed> {
    let mut body = Bytes(body);
    // Version and random.
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    if body.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = body.vector16()?;
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.number16()?, extensions.vector16()?);
        if kind == SERVER_NAME {
            return server_name(content);
        }
    }
    Ok(None)
}

fn server_name(mut extension: Bytes<'_>) -> Result<Option<String>, Malformed> {
    let mut names = extension.vector16()?;
    while !names.0.is_empty() {
        let (kind, name) = (names.take(1)?[0], names.vector16()?);
        if kind == HOST_NAME {
            return host(name.0).map(Some);
        }
    }
    Ok(None)
}

/// A name of a host, as names are compared.
///
/// # Errors
///
/// [`Malformed`]: it is none.
pub fn host(name: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(name).map_err(|_| Malformed)?;
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(is_name) {
        return Err(Malformed);
    }
    Ok(text.to_ascii_lowercase())
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// What stands behind its length in one byte.
    fn vector8(&mut self) -> Result<Self, Malformed> {
        let length = self.take(1)?[0];
        self.take(length.into()).map(Self)
    }

    /// What stands behind its length in two bytes.
    fn vector16(&mut self) -> Result<Self, Malformed> {
        let length = self.number16()?;
        self.take(length.into()).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;

    use super::*;
    use crate::tls::provider;

    /// What rustls says first to a server of this name.
    fn records(name: &str) -> Vec<u8> {
        let roots = rustls::RootCertStore::empty();
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut records = Vec::new();
        client.write_tls(&mut records).unwrap();
        records
    }

    /// The same message in records of this many bytes.
    fn resplit(records: &[u8], size: usize) -> Vec<u8> {
        let body = &records[RECORD_HEADER..];
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&records[..3], &length[..], part].concat()
        };
        body.chunks(size).flat_map(record).collect()
    }

    fn whole(name: &str) -> Hello {
        Hello::Whole(Some(name.to_owned()))
    }

    #[test]
    fn the_name_is_found_however_the_message_is_split() {
        let records = records("db.Example.org");
        for size in [1, 2, 7, 100, 16_000] {
            let split = resplit(&records, size);
            for length in 0..split.len() {
                let Ok(Hello::Incomplete(needed)) = read(&split[..length]) else {
                    panic!("{length} bytes in records of {size}")
                };
                assert!(length < needed && needed <= split.len(), "{length} bytes in records of {size}: {needed}");
            }
            let (mut asked, mut needed) = (0, 0);
            while let Ok(Hello::Incomplete(more)) = read(&split[..needed]) {
                (asked, needed) = (asked + 1, more);
            }
            assert!(asked <= 100, "records of {size}: {asked} looks");
            assert_eq!(read(&split), Ok(whole("db.example.org")));
            let more = [&split[..], &[23, 3, 3, 0, 1, 7][..]].concat();
            assert_eq!(read(&more), Ok(whole("db.example.org")), "what comes behind it is not looked at");
        }
    }

    #[test]
    fn a_message_without_a_name_has_none_and_what_is_not_tls_is_said_at_once() {
        assert_eq!(read(&records("127.0.0.1")), Ok(Hello::Whole(None)));
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-", b"\x16\x04", b"\0", b"\x16\x02\x01"] {
            assert_eq!(read(other), Ok(Hello::NotTls));
        }
        assert_eq!(read(b""), Ok(Hello::Incomplete(1)));
        assert_eq!(read(b"\x16"), Ok(Hello::Incomplete(2)));
    }

    #[test]
    fn names_are_compared_without_case_and_without_a_dot_at_the_end() {
        assert_eq!(host(b"A.b-C.Org."), Ok("a.b-c.org".to_owned()));
        for wrong in [&b""[..], b".", b"a b", b"a:1", b"\xff", &[b'a'; 254]] {
            assert_eq!(host(wrong), Err(Malformed));
        }
    }

    #[test]
    fn what_begins_as_tls_and_is_not_is_refused_and_never_waited_for_without_end() {
        for wrong in [&b"\x16\x03\x01\0\0"[..], b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\0\x04\x02\0\0\0"] {
            assert_eq!(read(wrong), Err(Malformed), "{wrong:?}");
        }
        // A message that says it is long, in records of a byte.
        let mut endless = b"\x16\x03\x01\0\x04\x01\0\x7f\xff".to_vec();
        while matches!(read(&endless), Ok(Hello::Incomplete(_))) {
            assert!(endless.len() <= MAX_HELLO);
            endless.extend_from_slice(b"\x16\x03\x01\0\x01x");
        }
        assert_eq!(read(&endless), Err(Malformed));
        assert_eq!(read(b"\x16\x03\x01\0\x04\x01\0\0\0"), Err(Malformed), "an empty one");
    }
}
