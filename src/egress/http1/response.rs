//! From a response to bytes.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, TRAILER};
use http::{HeaderMap, HeaderName, Response, StatusCode, Version, response};
use http_body::Body;

use super::head::Terms;
use crate::egress::date::DateCache;
use crate::message::BoxError;
use crate::message::fields::is_connection_specific;
use crate::message::length::content_length;
use crate::net::output::Output;

/// While more than this waits to be written, no more of the body is asked for.
const MAX_WAITING: usize = 64 * 1024;

/// How the end of the response body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body, whatever Content-Length says.
    Empty,
    Length(u64),
    Chunked,
    /// By closing the connection: HTTP/1.0 knows no other way for a body of unknown length.
    Close,
}

/// What the head says about the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) framing: Framing,
    /// The Content-Length to write.
    declared: Option<u64>,
}

/// A response that cannot be written as HTTP/1: not a final status, or a Content-Length that is none.
#[derive(Debug)]
pub(super) struct Unwritable;

impl Plan {
    /// For a body of `length` bytes that is already here.
    pub(super) fn whole(length: usize) -> Self {
        Self { framing: Framing::Length(length as u64), declared: Some(length as u64) }
    }

    /// `ended`: the body is known to have nothing; `exact`: how many bytes it says it has.
    pub(super) fn new(
        parts: &response::Parts,
        terms: Terms,
        ended: bool,
        exact: Option<u64>,
    ) -> Result<Self, Unwritable> {
        let declared = content_length(&parts.headers).map_err(|_| Unwritable)?;
        let is_11 = terms.version == Version::HTTP_11;
        let plan = |framing, declared| Ok(Self { framing, declared });
        match parts.status {
            status if status.is_informational() => return Err(Unwritable),
            StatusCode::NO_CONTENT => return plan(Framing::Empty, None),
            StatusCode::NOT_MODIFIED => return plan(Framing::Empty, declared),
            _ if terms.is_head => return plan(Framing::Empty, declared),
            _ => {}
        }
        // A length and trailers exclude each other: who announces trailers means them, and where the service insists on
        // no length, who reads them may get them.
        let announced = is_11 && !ended && parts.headers.contains_key(TRAILER);
        let known = if ended { Some(0) } else { exact.filter(|_| !terms.takes_trailers) };
        match declared.or(known).filter(|_| !announced) {
            Some(length) => plan(Framing::Length(length), Some(length)),
            None if is_11 => plan(Framing::Chunked, None),
            None => plan(Framing::Close, None),
        }
    }
}

/// Writes the head of a final response; `close` says that the connection ends with it.
pub(super) fn write_head(
    parts: &response::Parts,
    plan: Plan,
    version: Version,
    close: bool,
    date: &mut DateCache,
    out: &mut Output,
) {
    status_line(parts.status, out);
    fields(&parts.headers, out);
    if !parts.headers.contains_key(DATE) {
        field(&DATE, date.now().as_bytes(), out);
    }
    if let Some(length) = plan.declared {
        number(b"content-length: ", format_args!("{length}\r\n"), out);
    }
    if plan.framing == Framing::Chunked {
        out.put(b"transfer-encoding: chunked\r\n");
    }
    if close {
        out.put(b"connection: close\r\n");
    } else if version == Version::HTTP_10 {
        out.put(b"connection: keep-alive\r\n");
    }
    out.put(b"\r\n");
}

/// Writes an informational response.
pub(super) fn write_informational(response: &Response<()>, out: &mut Output) {
    status_line(response.status(), out);
    fields(response.headers(), out);
    out.put(b"\r\n");
}

/// Writes the head that says that the connection goes on in this protocol.
pub(super) fn write_switch(parts: &response::Parts, protocol: &str, date: &mut DateCache, out: &mut Output) {
    status_line(StatusCode::SWITCHING_PROTOCOLS, out);
    fields(&parts.headers, out);
    if !parts.headers.contains_key(DATE) {
        field(&DATE, date.now().as_bytes(), out);
    }
    out.put(b"connection: upgrade\r\nupgrade: ");
    out.put(protocol.as_bytes());
    out.put(b"\r\n\r\n");
}

/// Writes the head of an answer to CONNECT, behind which bytes follow: nothing in it speaks of a body. RFC 9110 section 9.3.6
pub(super) fn write_connected(parts: &response::Parts, date: &mut DateCache, out: &mut Output) {
    status_line(parts.status, out);
    fields(&parts.headers, out);
    if !parts.headers.contains_key(DATE) {
        field(&DATE, date.now().as_bytes(), out);
    }
    out.put(b"\r\n");
}

fn status_line(status: StatusCode, out: &mut Output) {
    if status == StatusCode::OK {
        return out.put(b"HTTP/1.1 200 OK\r\n");
    }
    out.put(b"HTTP/1.1 ");
    out.put(status.as_str().as_bytes());
    out.put(b" ");
    out.put(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put(b"\r\n");
}

/// Framing and connection are this codec's to say.
fn fields(fields: &HeaderMap, out: &mut Output) {
    for (name, value) in fields {
        if name != CONTENT_LENGTH && !is_connection_specific(name) {
            field(name, value.as_bytes(), out);
        }
    }
}

fn field(name: &HeaderName, value: &[u8], out: &mut Output) {
    out.put(name.as_str().as_bytes());
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
}

fn number(before: &[u8], text: std::fmt::Arguments<'_>, out: &mut Output) {
    let mut line = [0; 40];
    line[..before.len()].copy_from_slice(before);
    let mut rest = &mut line[before.len()..];
    rest.write_fmt(text).expect("a number of 64 bits fits");
    let length = 40 - rest.len();
    out.put(&line[..length]);
}

/// Writes a body as its head announced it.
#[derive(Debug)]
pub(super) struct BodyWriter {
    framing: Framing,
    /// Trailers may be sent: the sender of the request reads them, or the response announced them.
    trailers_allowed: bool,
    trailers: Option<HeaderMap>,
    is_complete: bool,
    is_cut: bool,
}

/// How far a body came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of it is in the output.
    Complete,
    /// The output has enough for now.
    Full,
    /// The body has nothing yet.
    Waiting,
    /// The body has failed: what it gave is in the output, and nothing more comes.
    Cut,
}

/// Why a body cannot be completed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyFailure {
    #[error("the response body failed")]
    Failed(#[source] BoxError),
    #[error("the response body is shorter than announced")]
    Short,
    #[error("the response body is longer than announced")]
    Long,
}

impl BodyWriter {
    pub(super) fn new(framing: Framing, trailers_allowed: bool) -> Self {
        Self { framing, trailers_allowed, trailers: None, is_complete: framing == Framing::Empty, is_cut: false }
    }

    /// Whether it shows that a body was cut when the connection ends: one that ends with it, or of
    /// which all bytes are there, would look whole.
    pub(super) fn shows_its_end(&self) -> bool {
        !matches!(self.framing, Framing::Close | Framing::Length(0) | Framing::Empty)
    }

    /// Moves what the body has into `out`. The end is written only when the body itself ends: one that has given all its
    /// bytes may still fail.
    ///
    /// # Errors
    /// [`BodyFailure`], once; from then on the body is [`Progress::Cut`].
    pub(super) fn poll_fill<B>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
        out: &mut Output,
    ) -> Result<Progress, BodyFailure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        if self.is_cut {
            return Ok(Progress::Cut);
        }
        self.fill(body, cx, out).inspect_err(|_| self.is_cut = true)
    }

    fn fill<B>(
        &mut self,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
        out: &mut Output,
    ) -> Result<Progress, BodyFailure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        while !self.is_complete {
            if out.len() >= MAX_WAITING {
                return Ok(Progress::Full);
            }
            if body.is_end_stream() {
                self.end(out)?;
                break;
            }
            match body.as_mut().poll_frame(cx) {
                Poll::Pending => return Ok(Progress::Waiting),
                Poll::Ready(None) => self.end(out)?,
                Poll::Ready(Some(Err(error))) => return Err(BodyFailure::Failed(error.into())),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.data(data, out)?,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
        Ok(Progress::Complete)
    }

    fn data(&mut self, data: Bytes, out: &mut Output) -> Result<(), BodyFailure> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Empty => {}
            Framing::Close => out.push(data),
            Framing::Length(remaining) => {
                *remaining = remaining.checked_sub(data.len() as u64).ok_or(BodyFailure::Long)?;
                out.push(data);
            }
            Framing::Chunked => {
                number(b"", format_args!("{:x}\r\n", data.len()), out);
                out.push(data);
                out.put(b"\r\n");
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Output) -> Result<(), BodyFailure> {
        self.is_complete = true;
        match self.framing {
            Framing::Length(1..) => return Err(BodyFailure::Short),
            Framing::Chunked => {
                out.put(b"0\r\n");
                if let Some(trailers) = self.trailers.take().filter(|_| self.trailers_allowed) {
                    fields(&trailers, out);
                }
                out.put(b"\r\n");
            }
            Framing::Empty | Framing::Length(0) | Framing::Close => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { version: Version::HTTP_11, is_head: false, keep_alive: true, takes_trailers: false };

    fn plan(status: u16, length: Option<&str>, terms: Terms, exact: Option<u64>) -> Option<(Framing, Option<u64>)> {
        let mut response = Response::builder().status(status);
        if let Some(length) = length {
            response = response.header(CONTENT_LENGTH, length);
        }
        let (parts, ()) = response.body(()).unwrap().into_parts();
        let plan = Plan::new(&parts, terms, exact == Some(0), exact).ok()?;
        Some((plan.framing, plan.declared))
    }

    #[test]
    fn each_response_gets_the_framing_its_version_and_status_allow() {
        let old = Terms { version: Version::HTTP_10, ..TERMS };
        let head = Terms { is_head: true, ..TERMS };
        assert_eq!(plan(200, Some("5"), TERMS, None), Some((Framing::Length(5), Some(5))));
        assert_eq!(plan(200, None, TERMS, Some(3)), Some((Framing::Length(3), Some(3))));
        assert_eq!(plan(200, None, TERMS, Some(0)), Some((Framing::Length(0), Some(0))));
        assert_eq!(plan(200, None, TERMS, None), Some((Framing::Chunked, None)));
        assert_eq!(plan(200, None, old, None), Some((Framing::Close, None)));
        assert_eq!(plan(200, Some("5"), head, None), Some((Framing::Empty, Some(5))));
        assert_eq!(plan(204, Some("5"), TERMS, None), Some((Framing::Empty, None)));
        assert_eq!(plan(304, Some("5"), TERMS, None), Some((Framing::Empty, Some(5))));
    }

    #[test]
    fn what_http_1_cannot_say_is_not_written() {
        assert_eq!(plan(101, None, TERMS, None), None);
        assert_eq!(plan(103, None, TERMS, None), None);
        assert_eq!(plan(200, Some("5, 5"), TERMS, None), None);
    }
}
