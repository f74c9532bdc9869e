//! HTTP/2 towards the senders of requests, on the `h2` crate.
//!
//! One task drives the connection, one task per stream serves its exchange; both end with the connection. What a sender
//! may hold is bounded: streams, windows, what waits to be written, header lists, resets of streams nobody served yet.
//! Pseudo-header fields are checked by `h2`, everything else by the validator all versions share. Below `h2` a guard keeps
//! one malformed head from ending the connection of its neighbours, and a client that sends far more control frames than its messages need is cut.

mod budget;
mod exchange;
mod unread;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use h2::server::{Builder, Connection};
use http::Version;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinSet, coop};
use tokio::time::{Instant, timeout};

use crate::message::h2::guard::{Guard, Role};
use crate::message::h2::small::{SmallFrames, UNCHARGED};
use crate::message::violation::{ErrorCode, Violation};
use crate::net::{Cork, Corked, Guarded, Paced};
use crate::protocol::http2::{Unheard, Unserved};
use crate::telemetry::Limit;

use super::deadline::Deadline;
use super::error::code;
use super::{End, ExchangeService, Serving, Settings};
use budget::{Bounds, Budget, Piece};
use exchange::{Served, exchange};
use unread::Unread;

/// How long a stream that this end has reset is remembered, so that what is still under way on it is dropped quietly.
const RESET_MEMORY: Duration = Duration::from_secs(30);

/// The first bytes of every HTTP/2 connection.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection until it ends.
///
/// Cancel safety: dropping the future drops the connection and all exchanges on it.
pub(super) async fn serve<T, S>(io: T, serving: Serving<S>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: ExchangeService,
{
    let small_frames = Arc::<SmallFrames>::default();
    let guard = Guard::new(Role::Server, serving.settings.max_head_bytes).joining(&small_frames);
    let unserved = Arc::<Unserved>::default();
    let paced = Paced::at_server(io).telling(Arc::clone(&unserved));
    let io = Guarded::new(paced, guard, serving.settings.head_timeout).telling(Arc::clone(&unserved));
    let (io, cork) = Corked::new(io);
    let handshake = builder(&serving.settings).handshake(io);
    match timeout(serving.settings.head_timeout, handshake).await {
        Ok(Ok(connection)) => drive(connection, cork, (unserved, small_frames), serving).await,
        Ok(Err(error)) => {
            tracing::debug!(%error, remote = %serving.info.remote, "no HTTP/2 connection");
            failed(&error, &serving);
        }
        Err(_) => tracing::debug!(remote = %serving.info.remote, "the HTTP/2 handshake took too long"),
    }
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(settings.http2.stream_window)
        .initial_connection_window_size(settings.http2.connection_window)
        .data_frame_budget(UNCHARGED)
        .max_concurrent_streams(settings.http2.max_streams)
        .max_header_list_size(u32::try_from(settings.max_head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(settings.http2.max_send_buffer)
        .max_concurrent_reset_streams(2 * settings.http2.max_streams as usize)
        .reset_stream_duration(RESET_MEMORY)
        // Not counted over the life of the connection: see `FrameRate` for what bounds them.
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(settings.http2.max_pending_resets)
        .enable_connect_protocol();
    builder
}

async fn drive<T, S>(
    mut connection: Connection<Corked<Guarded<Paced<T>>>, Piece>,
    cork: Cork<Guarded<Paced<T>>>,
    (unserved, small_frames): (Arc<Unserved>, Arc<SmallFrames>),
    serving: Serving<S>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
    S: ExchangeService,
{
    let leaving = serving.end.leaving.clone();
    let mut drained = pin!(leaving.cancelled());
    let mut last_call = pin!(last_call(serving.end.clone(), serving.settings.linger_timeout));
    let mut is_over = false;
    let bounds = Bounds { connection: serving.settings.http2.send_budget, listener: serving.settings.send_budget };
    let budget = Budget::new(bounds, Arc::clone(&serving.budget));
    let served = Arc::new(Served::new(serving, budget, small_frames));
    let serving = &served.serving;
    let mut exchanges = JoinSet::new();
    let mut quiet = Quiet::new(&serving.settings);
    let mut unread = Unread::new(&serving.settings);
    loop {
        let is_quiet = exchanges.is_empty();
        let waits = connection.has_streams() || served.budget.holds() || cork.holds();
        quiet.observe(is_quiet, waits, cork.passed());
        tokio::select! {
            biased;
            // First: a client that asks without end has the rest wait.
            () = &mut last_call, if !is_over => is_over = true,
            _ = exchanges.join_next(), if !is_quiet => {}
            accepted = recording(cork.next(connection.accept()), &unserved, serving) => match accepted {
                Some(Ok((_, mut respond))) if is_over => {
                    unserved.taken(respond.stream_id().into());
                    // Whoever meant it may ask again elsewhere. RFC 9113 section 8.7
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
                Some(Ok((request, respond))) => {
                    unserved.taken(respond.stream_id().into());
                    exchanges.spawn(exchange(Arc::clone(&served), request, respond));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, remote = %serving.info.remote, "an HTTP/2 connection failed");
                    failed(&error, serving);
                    return;
                }
                None => return,
            },
            () = &mut drained, if !quiet.closing => {
                quiet.closing = true;
                connection.graceful_shutdown();
            }
            () = served.flood.cancelled() => {
                tracing::debug!(remote = %serving.info.remote, "far more requests are given up than served");
                serving.budget.count(Limit::Flood);
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                // What it says is said if the client takes it.
                let _ = timeout(serving.settings.linger_timeout, cork.run(poll_fn(|cx| connection.poll_closed(cx)))).await;
                return;
            }
            // A client that sends without end uses up the turn; the clock is looked at all the same.
            () = coop::unconstrained(poll_fn(|cx| {
                unread.poll(cx, || served.budget.holds().then(|| cork.passed()))
            })), if !is_quiet => {
                serving.budget.count(Limit::Unread);
                return;
            }
            () = coop::unconstrained(poll_fn(|cx| quiet.deadline.poll(cx))), if is_quiet => {
                if quiet.is_read(cork.passed()) {
                    continue;
                }
                if quiet.closing {
                    return;
                }
                quiet.closing = true;
                connection.graceful_shutdown();
            }
        }
    }
}

/// Resolves when nothing new is served on a connection that is to end. A client says when it has read GOAWAY, and sends nothing new
/// then; one that does not say so has this long.
async fn last_call(end: End, patience: Duration) {
    end.drain.cancelled().await;
    tokio::time::sleep(patience).await;
}

/// Records why a connection failed, if that is its client's fault.
fn failed<S: ExchangeService>(error: &h2::Error, serving: &Serving<S>) {
    let violation = match error.get_io() {
        Some(error) if Paced::is_flood(error) => return serving.budget.count(Limit::Flood),
        Some(error) if Guarded::is_unfinished(error) => Violation::HeadTimeout,
        None if error.is_go_away() && error.is_library() => Violation::Connection(code(error)),
        _ => return,
    };
    serving.service.refused(&serving.info, Some(Version::HTTP_2), violation);
}

/// Records what HTTP/2 refused while the connection worked, and what it said of that was written: no service ever hears of it.
/// spec: SE-44
async fn recording<F: Future, S: ExchangeService>(work: F, unserved: &Unserved, serving: &Serving<S>) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        while let Some((unheard, count)) = unserved.take() {
            for _ in 0..count {
                serving.service.refused(&serving.info, Some(Version::HTTP_2), violation(unheard));
            }
        }
        polled
    })
    .await
}

/// The rule that a request broke of which HTTP/2 itself has disposed.
fn violation(unheard: Unheard) -> Violation {
    match unheard {
        Unheard::Answered => Violation::HeadTooLarge,
        Unheard::Reset(code) if code == u32::from(Reason::REFUSED_STREAM) => Violation::AtOnce(ErrorCode::Http2(code)),
        Unheard::Reset(code) => Violation::Reset(ErrorCode::Http2(code)),
        Unheard::Cut => Violation::HeadCut,
    }
}

/// How long a connection on which no service works is kept.
struct Quiet<'a> {
    settings: &'a Settings,
    /// GOAWAY is on its way; nothing new is served.
    closing: bool,
    state: Option<(bool, bool)>,
    /// Bytes that the other end had taken when this was last looked at.
    passed: u64,
    deadline: Deadline,
}

impl<'a> Quiet<'a> {
    fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            closing: false,
            state: None,
            passed: 0,
            deadline: Deadline::new(Instant::now() + settings.idle_timeout),
        }
    }

    /// `waits`: responses are complete, but the other end has not taken all of them yet; `passed`: bytes that it took so far.
    fn observe(&mut self, is_quiet: bool, waits: bool, passed: u64) {
        let state = is_quiet.then_some((waits, self.closing));
        if std::mem::replace(&mut self.state, state) == state {
            return;
        }
        self.passed = passed;
        let allowance = match state {
            None => return,
            Some((true, _)) => self.settings.send_timeout,
            Some((false, true)) => self.settings.linger_timeout,
            Some((false, false)) => self.settings.idle_timeout,
        };
        self.deadline.set(Instant::now() + allowance);
    }

    /// Whether the time is up, and the other end goes on reading responses that are complete, over a slow link: then there is more.
    /// A few bytes, as answers to PINGs are, are as good as none.
    fn is_read(&mut self, passed: u64) -> bool {
        let read = passed - std::mem::replace(&mut self.passed, passed);
        let least = self.settings.pace.body_rate.saturating_mul(self.settings.send_timeout.as_secs()).max(1);
        let goes_on = read >= least && matches!(self.state, Some((true, _)));
        if goes_on {
            self.deadline.set(Instant::now() + self.settings.send_timeout);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests;
