//! HTTP/1.0 and HTTP/1.1 towards the senders of requests.
//!
//! The codec is our own, on `httparse`, for two reasons. hyper removes Content-Length when Transfer-Encoding is present,
//! so a proxy behind it cannot see, and cannot reject, the shapes request smuggling is made of. And hyper's server
//! cannot send informational responses.
//!
//! One task serves a connection and owns its socket: it reads ahead for the request body and writes the response at the
//! same time, and so notices at once when the sender goes away. A request without a body, or whose body came with its
//! head, needs no channel; any other body goes through a bounded queue (`Download`), so it can be read in any task.
//! On the usual request the kernel is asked twice: one read, one write.
//!
//! While that queue is full, or enough of the next requests was read ahead, nothing is read, and TCP delivers the end of a
//! connection after its data. So who is held back for long is read from a good deal further, and the socket is asked every
//! now and then whether its other end is still there (`watch`).
//!
//! * `head`: bytes → request head, through the validator; `unsent`: the same of a request that nobody sent;
//! * `chunked`, `upload`: the body of the request, and its way into the service's hands;
//! * `exchange`: service, response, and what the sender does meanwhile;
//! * `switch`, `connect`: what is bytes both ways once it was answered; `bare`: what is so from its first byte on;
//! * `watch`: what an exchange that waits has to look at from time to time;
//! * `response`, `output`: response head and body → bytes, coalesced.

mod bare;
mod connect;
mod exchange;
mod head;
mod response;
mod switch;
mod unsent;
mod upload;
mod watch;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::uri::Scheme;
use http::{HeaderValue, Version};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::date::DateCache;
use super::deadline::Deadline;
use super::heads::HeadBounds;
use super::{ConnectionInfo, ExchangeService, Serving, Settings, Socket};
use crate::message::interim::Queue;
use crate::message::violation::Violation;
use crate::net::Grace;
use crate::net::input::{self, Input};
use crate::net::output::Output;
use head::{Head, HeadReader};
use watch::{Ahead, Stalled};

pub(super) use bare::pass;
pub(super) use unsent::check_unsent;
pub(super) use upload::Download;

/// Most bytes read and thrown away before a connection is closed.
const MAX_LINGER: usize = 256 * 1024;

/// Serves one connection until it ends. `received` are bytes already read from it.
///
/// Cancel safety: dropping the future drops the connection and with it the exchange that runs, whose body readers see
/// an error.
pub async fn serve<T: Socket, S: ExchangeService>(io: T, received: BytesMut, serving: Serving<S>) {
    let service = serving.service.clone();
    let mut connection = Connection::new(io, received, serving);
    let stop = connection.run(&service).await;
    tracing::trace!(?stop, remote = %connection.info.remote, "an HTTP/1 connection ends");
    connection.end(stop).await;
}

/// Why a connection takes no further request.
#[derive(Debug)]
enum Stop {
    /// What was promised was sent.
    Close,
    /// Nobody is there to read.
    Gone,
    /// The response cannot be completed: all there is of it was written, and its end is missing.
    Cut,
    /// The response cannot be completed, must not look complete, and is not read, or would not show that its end is missing.
    Reset,
    /// Likewise, and what was written is the other end's: the reset comes behind it. spec: ST-61
    CutBare,
    /// The request broke a rule before its response began.
    Reject(Violation),
}

struct Connection<T> {
    io: T,
    info: ConnectionInfo,
    settings: Arc<Settings>,
    /// Each response says that it is the last one.
    leaving: CancellationToken,
    /// Resolves when no request is waited for any more.
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    input: Input,
    head: HeadReader,
    /// How large the next head may be, where that changes.
    heads: Option<Arc<HeadBounds>>,
    output: Output,
    /// The interim responses of the exchange that runs, kept for the next one.
    interim: Arc<Queue>,
    timer: Deadline,
    /// While written bytes wait for the other end.
    stalled: Option<Stalled>,
    /// What was read from a sender that is held back, or since when it is.
    ahead: Ahead,
    /// Whether the end of the incoming bytes leaves the other direction as it is.
    half_close: bool,
    /// How long what was written may wait for the other end.
    send_timeout: Duration,
    date: DateCache,
    /// Where the same is served over HTTP/3.
    alternative: Option<HeaderValue>,
}

impl<T: Socket> Connection<T> {
    fn new<S>(io: T, received: BytesMut, serving: Serving<S>) -> Self {
        let scheme = if serving.info.tls { Scheme::HTTPS } else { Scheme::HTTP };
        Self {
            io,
            leaving: serving.end.leaving.clone(),
            draining: Box::pin(serving.end.last_call()),
            input: Input::new(received),
            head: HeadReader::new(scheme, serving.settings.max_head_bytes, serving.settings.max_head_fields),
            heads: serving.heads,
            output: Output::default(),
            interim: Arc::new(Queue::new(false)),
            timer: Deadline::new(Instant::now() + serving.settings.head_timeout),
            stalled: None,
            ahead: Ahead::new(serving.budget),
            half_close: serving.settings.half_close,
            send_timeout: serving.settings.send_timeout,
            date: DateCache::new(),
            alternative: serving.alternative,
            info: serving.info,
            settings: serving.settings,
        }
    }

    async fn run<S: ExchangeService>(&mut self, service: &S) -> Stop {
        loop {
            let head = match self.next_head().await {
                Ok(head) => head,
                Err(stop) => {
                    match stop {
                        Stop::Reject(violation) => service.refused(&self.info, Some(Version::HTTP_11), violation),
                        // Something had come, and its end never will.
                        Stop::Close | Stop::Gone if !self.input.is_empty() => {
                            service.refused(&self.info, Some(Version::HTTP_11), Violation::HeadCut);
                        }
                        _ => {}
                    }
                    return stop;
                }
            };
            if let Err(stop) = self.exchange(service, head).await {
                return stop;
            }
            self.rest();
        }
    }

    /// Between two exchanges: no memory is kept that an idle connection does not need.
    fn rest(&mut self) {
        self.input.shrink();
        self.output.shrink();
        self.ahead.end(&mut self.input);
        let waits = if self.input.is_empty() { self.settings.idle_timeout } else { self.settings.head_timeout };
        self.timer.set(Instant::now() + waits);
    }

    /// The next head, when it is the turn of the tenant to which the last one went.
    async fn next_head(&mut self) -> Result<Head, Stop> {
        poll_fn(|cx| self.poll_begun(cx)).await?;
        if let Some(turn) = self.info.turn() {
            turn.await;
        }
        if let Some(heads) = &self.heads {
            self.head.bound(heads.get());
        }
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// Waits for the first bytes of a request, or for the end.
    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if !self.input.is_empty() || self.input.eof {
            return Poll::Ready(Ok(()));
        }
        match self.input.poll_fill(&mut self.io, cx, input::HEAD_READ) {
            Poll::Ready(Ok(_)) => {
                self.timer.set(Instant::now() + self.settings.head_timeout);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Stop::Gone)),
            Poll::Pending => self.poll_waiting(cx).map(Err),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Stop>> {
        loop {
            match self.head.read(&mut self.input.buf) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) if self.input.eof => return Poll::Ready(Err(Stop::Close)),
                Ok(None) => {}
                Err(violation) => return Poll::Ready(Err(Stop::Reject(violation))),
            }
            let was_idle = self.input.is_empty();
            match self.input.poll_fill(&mut self.io, cx, input::HEAD_READ) {
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(Ok(_)) if was_idle => self.timer.set(Instant::now() + self.settings.head_timeout),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Gone)),
                Poll::Pending => break,
            }
        }
        self.poll_waiting(cx).map(Err)
    }

    /// While no head is complete: a connection that drains is not kept for a request that has not begun.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        let is_idle = self.input.is_empty();
        if is_idle && self.draining.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Stop::Close);
        }
        let late = if is_idle { Stop::Close } else { Stop::Reject(Violation::HeadTimeout) };
        self.timer.poll(cx).map(|()| late)
    }

    async fn end(&mut self, stop: Stop) {
        match stop {
            Stop::Close | Stop::Cut => self.linger().await,
            Stop::Gone => {}
            Stop::Reset => self.io.reset_on_drop(),
            Stop::CutBare => {
                self.io.reset_on_drop();
                let grace = Grace { patience: self.send_timeout, rate: self.settings.pace.body_rate };
                if let Some(acknowledged) = self.io.acknowledged(grace) {
                    acknowledged.await;
                }
            }
            Stop::Reject(violation) => {
                tracing::debug!(%violation, remote = %self.info.remote, "a request is rejected");
                let sends = timeout(self.settings.linger_timeout, self.reject(violation)).await;
                if matches!(sends, Ok(Ok(()))) {
                    self.linger().await;
                }
            }
        }
    }

    /// Closes the sending side, then waits a little for the other end to do the same: closing with unread bytes would
    /// reset the connection and may cost the other end the response it has not read yet.
    async fn linger(&mut self) {
        let discard = async {
            if self.io.shutdown().await.is_err() {
                return;
            }
            let mut discarded = 0;
            while !self.input.eof && discarded < MAX_LINGER {
                self.input.clear();
                match poll_fn(|cx| self.input.poll_fill(&mut self.io, cx, input::HEAD_READ)).await {
                    Ok(length) => discarded += length,
                    Err(_) => return,
                }
            }
        };
        // Late is as good as done: what follows is closing.
        let _ = timeout(self.settings.linger_timeout, discard).await;
    }
}

#[cfg(test)]
mod leaving_tests;
#[cfg(test)]
mod smuggling_tests;
#[cfg(test)]
mod tests;
