//! Who has connected, by the word of a proxy that is trusted: a PROXY header at the beginning of the connection.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::message::violation::Violation;
use crate::net::proxy_header;
use crate::protocol::stream::ClientAddresses;

/// How much is looked at at once. The longest header without anything beside its addresses has 232 bytes.
const LOOK: usize = 512;

/// Why the beginning of a connection could not be read.
#[derive(Debug)]
pub(super) enum Unclear {
    /// It breaks a rule.
    Broken(Violation),
    /// The connection ended before it.
    Ended,
    Failed(io::Error),
}

/// Reads a header off a connection, and nothing of what follows it. Who a proxy says has connected, and to where; `None`: the
/// proxy itself, to here.
///
/// Cancel safety: none, a part of the header may have been taken off.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<ClientAddresses>, Unclear> {
    let mut header = Vec::new();
    let mut seen = [0; LOOK];
    loop {
        let length = match stream.peek(&mut seen).await {
            Ok(length @ 1..) => length,
            _ if !header.is_empty() => return Err(Unclear::Broken(Violation::BeginCut)),
            Ok(_) => return Err(Unclear::Ended),
            Err(error) => return Err(Unclear::Failed(error)),
        };
        let before = header.len();
        header.extend_from_slice(&seen[..length]);
        let found = proxy_header::read(&header).map_err(|error| {
            tracing::debug!(%error, "a proxy does not say who connected");
            Unclear::Broken(Violation::ProxyHeader)
        })?;
        // Of a header that is not whole everything that came is a part.
        let taken = found.as_ref().map_or(length, |(whole, _)| whole - before);
        stream.read_exact(&mut seen[..taken]).await.map_err(Unclear::Failed)?;
        if let Some((_, addresses)) = found {
            return Ok(addresses);
        }
    }
}
