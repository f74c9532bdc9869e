//! A listener for bytes: each of its connections is what a CONNECT opens, without a word of HTTP.
//!
//! Where a connection goes is known from the listener alone, from where it comes from, or from the name that it asks for in
//! the first message of its TLS, which is read and passed on as it is: nothing is decrypted.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use http::uri::Authority;
use http::{Method, Request, Uri, request};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::egress::introduction::Unclear;
use crate::message::violation::Violation;
use crate::net::client_hello::{self, Hello};

/// How much is asked for at once of what tells where a connection goes, bytes; usually all of it.
const READ: usize = 4 * 1024;

/// How a listener for bytes learns where a connection goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpTerms {
    /// Whether the name that a connection asks for in its TLS is waited for (SNI). One that does not begin with TLS, or names
    /// nobody, goes where the router sends those without a name.
    pub server_name: bool,
    /// Where a name is waited for: a connection over which nothing at all has come for so long has none, since its client waits
    /// for the target to speak first. A client of TLS that is that slow is taken for one, too. `None`: it is waited for until
    /// [`Settings::head_timeout`](crate::egress::Settings::head_timeout) is over, and reset.
    pub nameless_after: Option<Duration>,
    /// How many connections sources of one address prefix may have at once: the /24 of an IPv4 address, the /56 of an IPv6 one.
    /// What is beyond is reset. A proxy that is trusted is none of them, whom it names is. `None`: as many as there may be.
    pub max_per_prefix: Option<usize>,
}

/// That a request is a connection of bytes, whose sender said nothing of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bare;

/// The name that a connection asks for in its TLS. What was read for that is the target's, and in `received`.
///
/// Cancel safety: what was read is in `received`.
pub(super) async fn server_name<T: AsyncRead + Unpin>(
    terms: &TcpTerms,
    stream: &mut T,
    received: &mut BytesMut,
) -> Result<Option<String>, Unclear> {
    if let Some(limit) = terms.nameless_after.filter(|_| received.is_empty()) {
        match timeout(limit, more(stream, received)).await {
            Ok(read) => read?,
            Err(_) => return Ok(None),
        }
    }
    loop {
        match client_hello::read(received) {
            Ok(Hello::Incomplete(needed)) => {
                while received.len() < needed {
                    more(stream, received).await?;
                }
            }
            Ok(Hello::NotTls) => return Ok(None),
            Ok(Hello::Whole(name)) => return Ok(name),
            Err(_) => return Err(Unclear::Broken(Violation::ClientHello)),
        }
    }
}

/// Reads more.
async fn more<T: AsyncRead + Unpin>(stream: &mut T, received: &mut BytesMut) -> Result<(), Unclear> {
    received.reserve(READ);
    match stream.read_buf(received).await {
        Ok(1..) => Ok(()),
        _ if !received.is_empty() => Err(Unclear::Broken(Violation::BeginCut)),
        Ok(0) => Err(Unclear::Ended),
        Err(error) => Err(Unclear::Failed(error)),
    }
}

/// The CONNECT that a connection stands for: to the name that it asks for, or to where it connected.
pub(super) fn head(local: SocketAddr, server_name: Option<&str>) -> request::Parts {
    let named = server_name.and_then(|name| Authority::try_from(format!("{name}:{}", local.port())).ok());
    let authority = named.or_else(|| Authority::try_from(local.to_string()).ok());
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::CONNECT;
    if let Some(authority) = authority {
        head.uri = Uri::from(authority);
    }
    head.extensions.insert(Bare);
    head
}
