//! A TCP connection that can be read record by record of TLS, so that TLS can end in mid-connection and nothing behind
//! its last record is lost. spec: EV-41

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::net::forward_writes;
use crate::protocol::envoy::Pinger;

/// Type, version and length of a TLS record. RFC 8446 section 5.1.
const RECORD_HEADER_BYTES: usize = 5;
const READ_BYTES: usize = 16 * 1024;

/// TCP, with what was read already in front.
#[derive(Debug)]
pub(super) struct Raw {
    stream: TcpStream,
    prefix: Bytes,
    records: Option<Records>,
    /// Strips late echoes in front of what comes next.
    echoes: Option<Box<Pinger>>,
}

/// Where in a record the next byte stands.
#[derive(Debug, Default)]
struct Records {
    header: [u8; RECORD_HEADER_BYTES],
    held: usize,
    body: usize,
}

impl Raw {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, prefix: Bytes::new(), records: None, echoes: None }
    }

    /// From here on, or no longer, a read ends with a TLS record at the latest.
    pub(super) fn read_records(&mut self, on: bool) {
        self.records = on.then(Records::default);
    }

    /// Whether that is on.
    pub(super) fn reads_records(&self) -> bool {
        self.records.is_some()
    }

    /// Puts bytes back in front of what comes next.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.prefix = [&bytes[..], &self.prefix[..]].concat().into();
        }
    }

    /// Leaves out the echoes in front of what comes next. spec: EV-28
    pub(super) fn strip_echoes(&mut self, pinger: Pinger) {
        self.echoes = Some(Box::new(pinger));
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads at most `most` bytes.
    fn poll_read_some(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<usize>> {
        let mut room = [0; READ_BYTES];
        let most = most.min(into.remaining()).min(READ_BYTES);
        let mut some = ReadBuf::new(&mut room[..most]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut some))?;
        into.put_slice(some.filled());
        Poll::Ready(Ok(some.filled().len()))
    }

    fn poll_record(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(records) = &self.records else { return Poll::Ready(Ok(())) };
        let most = if records.body > 0 { records.body } else { RECORD_HEADER_BYTES - records.held };
        let before = into.filled().len();
        let length = ready!(self.poll_read_some(cx, into, most))?;
        if let Some(records) = &mut self.records {
            records.pass(&into.filled()[before..before + length]);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stripped(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; READ_BYTES];
        while let Some(pinger) = &mut self.echoes {
            let mut some = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut some))?;
            let ended = some.filled().is_empty();
            let rest = pinger.strip(Bytes::copy_from_slice(some.filled()));
            if ended || !rest.is_empty() {
                self.prefix = rest;
                self.echoes = None;
                if ended {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        self.put_prefix(into);
        Poll::Ready(Ok(()))
    }

    fn put_prefix(&mut self, into: &mut ReadBuf<'_>) {
        let length = self.prefix.len().min(into.remaining());
        into.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
    }
}

impl Records {
    /// `bytes` do not go beyond the header or the body.
    fn pass(&mut self, bytes: &[u8]) {
        if self.body > 0 {
            self.body -= bytes.len();
            return;
        }
        self.header[self.held..self.held + bytes.len()].copy_from_slice(bytes);
        self.held += bytes.len();
        if self.held == RECORD_HEADER_BYTES {
            self.held = 0;
            self.body = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
        }
    }
}

impl AsyncRead for Raw {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            self.put_prefix(into);
            return Poll::Ready(Ok(()));
        }
        if self.echoes.is_some() {
            return self.poll_stripped(cx, into);
        }
        if self.records.is_some() {
            return self.poll_record(cx, into);
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Raw {
    forward_writes!(self => stream);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Raw, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
        (Raw::new(accepted.unwrap().0), connected.unwrap())
    }

    // spec: EV-41
    #[tokio::test]
    async fn what_follows_the_last_record_stays_in_the_connection() {
        let (mut raw, mut peer) = pair().await;
        peer.write_all(b"\x17\x03\x03\x00\x03abcRPING").await.unwrap();
        raw.read_records(true);
        let mut record = [0; 64];
        let mut length = 0;
        while length < 8 {
            length += raw.read(&mut record[length..]).await.unwrap();
        }
        assert_eq!(&record[..length], b"\x17\x03\x03\x00\x03abc", "exactly the record");
        raw.read_records(false);
        let mut rest = [0; 5];
        raw.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"RPING");
    }
}
