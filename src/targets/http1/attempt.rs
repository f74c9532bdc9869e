//! One attempt of an exchange on one connection: the request goes out and the responses come in, at the same time,
//! moved by whoever waits for the final head.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, StatusCode};

use super::connection::Connection;
use super::failure::{broken_head, closed};
use super::send::{SendError, Sending};
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::{Allowance, SendInterim};
use crate::message::response::{ResponseHead, ResponseReader};
use crate::net::input::HEAD_READ;
use crate::targets::outbound::Outbound;
use crate::targets::settings::TargetSettings;
use crate::targets::upload::{Upload, cut};

/// An attempt under way. Dropping it closes its connection.
pub(super) struct Attempt {
    pub(super) connection: Connection,
    pub(super) sending: Sending,
    /// Why the target takes no more of the request. It may still say something.
    refused: Option<io::Error>,
    reader: ResponseReader,
    /// Some response has come.
    has_begun: bool,
    /// It began on a connection that had waited: 408 may be no answer to it; see [`Attempt::on_waiting`].
    waited: Option<Waited>,
    /// The target was asked to go on in another protocol.
    switches: bool,
    interim: Allowance,
}

/// A request begins on a connection that had waited.
#[derive(Debug, Clone, Copy)]
enum Waited {
    /// It may be done twice.
    Idempotent,
    /// It may not, and began then.
    Once(Instant),
}

impl Waited {
    /// Whether a 408 that was read so far is about the time for which the connection had waited; `None`: more of it is needed.
    fn is_meant_by(self, read: &[u8], now: Instant) -> Option<bool> {
        if !is_request_timeout(read) {
            return Some(false);
        }
        let Self::Once(began) = self else { return Some(true) };
        if now.duration_since(began) >= AT_ONCE {
            return Some(false);
        }
        let end = read.windows(4).position(|end| end == b"\r\n\r\n")?;
        Some(read[..end].split(|byte| *byte == b'\n').any(closes))
    }
}

/// Whether a line of a head says that the connection ends.
fn closes(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let mut members = line[colon + 1..].split(|byte| *byte == b',');
    line[..colon].eq_ignore_ascii_case(b"connection")
        && members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// How soon a target says 408 that had waited for too long: at the moment at which the request came. A target that has read the
/// request, and worked on it, says so later.
const AT_ONCE: Duration = Duration::from_secs(1);

/// An attempt that brought no response.
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// The connection went away before a response began, as it does when the target just gave it up.
    pub(super) is_stale: bool,
    /// The target said 408, which is about the time for which the connection had waited.
    is_timed_out: bool,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, is_stale: false, is_timed_out: false }
    }
}

impl Attempt {
    /// # Errors
    ///
    /// The request contradicts itself; nothing was sent.
    pub(super) fn new(
        mut connection: Connection,
        outbound: &Outbound,
        upload: Upload,
        settings: &TargetSettings,
    ) -> Result<Self, Failure> {
        let sending = Sending::new(outbound, upload, &mut connection.sender.output).map_err(unsendable)?;
        let is_head = outbound.method == Method::HEAD;
        let reader = ResponseReader::new(is_head, settings.head_bytes, settings.head_fields);
        Ok(Self {
            connection,
            sending,
            refused: None,
            reader,
            has_begun: false,
            waited: None,
            switches: false,
            interim: Allowance::default(),
        })
    }

    /// The connection had waited for a request, and this one can be sent again. A target that had waited for too long says
    /// 408 before it reads it: then it may go to another connection. RFC 9110 section 15.5.9
    ///
    /// One that is not idempotent must not be done twice (section 9.2.2). It goes on only where 408 comes at once and ends the
    /// connection, as it does there; from a target that has read the request it is an answer.
    pub(super) fn on_waiting(self, can_repeat: bool, is_idempotent: bool) -> Self {
        let waited = || if is_idempotent { Waited::Idempotent } else { Waited::Once(Instant::now()) };
        Self { waited: can_repeat.then(waited), ..self }
    }

    /// The request asks for another protocol: 101 is a final answer, too.
    pub(super) fn switching(self) -> Self {
        Self { switches: true, ..self }
    }

    /// Moves both directions until the head of the final response is there. Its fields take the memory of those of the
    /// request, `sent`: once a response has begun there is no other attempt that could need them.
    pub(super) fn poll(
        &mut self,
        sent: &mut HeaderMap,
        interim: Option<&dyn SendInterim>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Failed>> {
        self.send(cx)?;
        loop {
            if let Some(waited) = self.waited.filter(|_| !self.has_begun) {
                match waited.is_meant_by(&self.connection.input.buf, Instant::now()) {
                    Some(true) => {
                        let failure =
                            Failure::new(Cause::TargetProtocol, "the target waited for too long for a request");
                        return Poll::Ready(Err(Failed { failure, is_stale: true, is_timed_out: true }));
                    }
                    None if self.connection.input.buf.len() < HEAD_READ => {
                        ready!(self.read(cx))?;
                        continue;
                    }
                    None | Some(false) => {}
                }
            }
            let read = self.reader.read_into(&mut self.connection.input.buf, sent);
            match read.map_err(|violation| broken_head(violation, self.reader.limits()))? {
                Some(head) if self.switches && head.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Ok(head));
                }
                Some(head) if head.response.status().is_informational() => self.interim(head.response, interim)?,
                Some(head) => return Poll::Ready(Ok(head)),
                None => ready!(self.read(cx))?,
            }
        }
    }

    /// A target that takes no more may have answered; so only the request's own failure ends the attempt.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Failed> {
        if self.refused.is_some() || self.sending.is_complete(&self.connection.sender) {
            return Ok(());
        }
        match self.sending.poll(&mut self.connection.sender, cx) {
            Poll::Ready(Err(SendError::Broken(error))) => {
                self.refused = Some(error);
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(unsendable(error).into()),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let Connection { read, input, .. } = &mut self.connection;
        if input.buf.capacity() == 0 {
            // A target may think for long: till then no memory for what it says.
            ready!(read.poll_news(cx));
            // Half of the usual: thousands of answers may wait that nobody takes. spec: SE-16
            input.buf.reserve(HEAD_READ / 2);
        }
        let error = match ready!(input.poll_fill(read, cx, HEAD_READ)) {
            Ok(1..) => return Poll::Ready(Ok(())),
            Ok(0) => self.refused.take(),
            Err(error) => Some(error),
        };
        let failure = closed(error.as_ref(), "a response");
        let is_stale = !self.has_begun && self.connection.input.is_empty();
        Poll::Ready(Err(Failed { failure, is_stale, is_timed_out: false }))
    }

    fn interim(&mut self, mut response: Response<()>, to: Option<&dyn SendInterim>) -> Result<(), Failure> {
        self.has_begun = true;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::new(Cause::TargetProtocol, "the target switched protocols without being asked"));
        }
        self.interim.take().map_err(|flood| Failure::new(Cause::TargetProtocol, flood.to_string()))?;
        if let Some(to) = to {
            strip_hop_by_hop(response.headers_mut());
            to.send(response);
        }
        Ok(())
    }

    /// The request for another attempt, if this one failed for the connection alone and sending it again does no harm:
    /// nothing of it was sent, or was read, or it may be sent twice and is here as a copy.
    ///
    /// # Errors
    ///
    /// Why there is to be no other attempt.
    pub(super) fn again(self, failed: Failed, outbound: &Outbound, copy: Option<Upload>) -> Result<Upload, Failure> {
        let Failed { failure, is_stale, is_timed_out } = failed;
        let upload = match (self.sending.is_unsent(&self.connection.sender), copy) {
            _ if !is_stale => None,
            (_, copy) if is_timed_out => copy,
            (true, None) => self.sending.into_upload(),
            (true, copy) => copy,
            (false, copy) => copy.filter(|_| outbound.is_idempotent()),
        };
        upload.ok_or(failure)
    }

    /// The target has taken the whole request, or will be sent no more of it.
    pub(super) fn refuses(&self) -> bool {
        self.refused.is_some()
    }
}

/// Whether what was read begins with the status line of a 408.
fn is_request_timeout(read: &[u8]) -> bool {
    read.starts_with(b"HTTP/1.") && read.get(8..).is_some_and(|rest| rest.starts_with(b" 408"))
}

fn unsendable(error: SendError) -> Failure {
    match error {
        SendError::Cut(error) => cut(&error),
        SendError::Broken(error) => closed(Some(&error), "the request was sent"),
    }
}
