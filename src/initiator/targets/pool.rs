//! HTTP/1.1 connections to one target: who drives them, and where they wait between exchanges.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::connect::{Address, Socket, connect};
use super::upload::Upload;
use super::{DEFAULT_HEAD_FIELDS, TargetSettings};
use crate::message::failure::{Cause, Failure};

/// One HTTP/1.1 connection. Dropping it closes it, whatever it is doing.
pub(super) struct Connection {
    sender: SendRequest<Upload>,
    driver: Driver,
}

/// Who moves the connection's bytes.
///
/// An exchange whose upload is whole drives its connection itself, which saves two task switches per request. One that
/// still uploads must not: a caller slow to take the response would hold up the upload. Its connection gets a task,
/// and keeps it.
enum Driver {
    Exchange(Box<hyper::client::conn::http1::Connection<TokioIo<Socket>, Upload>>),
    Task { _task: AbortOnDropHandle<()> },
    Ended,
}

impl Connection {
    fn new(
        sender: SendRequest<Upload>,
        connection: hyper::client::conn::http1::Connection<TokioIo<Socket>, Upload>,
    ) -> Self {
        Self { sender, driver: Driver::Exchange(Box::new(connection)) }
    }

    /// Sends a request and waits for the head of the final response. The error holds the request when nothing of it
    /// was written.
    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        if matches!(request.body(), Upload::Streaming(_)) {
            self.driver.detach();
        }
        let mut response = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| self.driver.poll_with(cx, |cx| response.as_mut().poll(cx))).await
    }

    /// Polls what this connection feeds, and moves the connection's bytes if that is our part.
    pub(super) fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.driver.poll_with(cx, step)
    }

    /// Whether the next request can be sent at once. Also notices a target that has closed the connection, or that
    /// sent what nobody asked for.
    fn is_ready(&mut self) -> bool {
        if let Driver::Exchange(connection) = &mut self.driver {
            // No waker: nobody waits for an idle connection, and one of the past must not be kept alive.
            if Pin::new(connection).poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                self.driver = Driver::Ended;
            }
        }
        !matches!(self.driver, Driver::Ended) && self.sender.is_ready()
    }
}

impl Driver {
    /// Hands the connection to a task of its own; it ends with the connection.
    fn detach(&mut self) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Exchange(connection) => {
                // How the connection ended is told to whoever waits for the response or its body.
                let task = tokio::spawn(async move { drop(connection.await) });
                Self::Task { _task: AbortOnDropHandle::new(task) }
            }
            other => other,
        };
    }

    fn poll_with<T>(&mut self, cx: &mut Context<'_>, mut step: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let Self::Exchange(connection) = self else { return step(cx) };
        // Only the connection wakes us, so what it feeds needs no waker of its own.
        let mut quiet = Context::from_waker(Waker::noop());
        if let Poll::Ready(outcome) = step(&mut quiet) {
            return Poll::Ready(outcome);
        }
        if Pin::new(connection).poll(cx).is_ready() {
            *self = Self::Ended;
        }
        step(&mut quiet)
    }
}

/// The connections of one target that wait for work, newest last.
pub(super) struct Pool {
    address: Address,
    settings: TargetSettings,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    connections: VecDeque<(Instant, Connection)>,
    has_reaper: bool,
}

impl Pool {
    pub(super) fn new(address: Address, settings: TargetSettings) -> Arc<Self> {
        Arc::new(Self { address, settings, waiting: Mutex::default() })
    }

    /// The freshest connection that is ready, if there is one.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut waiting = self.lock();
        let mut at = waiting.connections.len();
        while at > 0 {
            at -= 1;
            if waiting.connections[at].1.is_ready() {
                return waiting.connections.remove(at).map(|(_, connection)| connection);
            }
        }
        None
    }

    /// Keeps a connection for the next exchange, or closes it when it is of no use or there are enough.
    pub(super) fn put(self: &Arc<Self>, mut connection: Connection) {
        let ready = connection.is_ready() || matches!(connection.driver, Driver::Task { .. });
        let mut waiting = self.lock();
        if !ready || connection.sender.is_closed() || waiting.connections.len() >= self.settings.max_idle {
            return;
        }
        waiting.connections.push_back((Instant::now(), connection));
        if !std::mem::replace(&mut waiting.has_reaper, true) {
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    /// Makes a new connection.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let socket = connect(&self.address, self.settings.connect_timeout).await?;
        let mut builder = Builder::new();
        builder.max_header_size(self.settings.head_bytes);
        if self.settings.head_fields != DEFAULT_HEAD_FIELDS {
            // Even the same number, once stated, costs hyper an allocation per response.
            builder.max_headers(self.settings.head_fields);
        }
        let handshake = builder.handshake(TokioIo::new(socket)).await;
        let (sender, connection) =
            handshake.map_err(|error| Failure::new(Cause::Internal, format!("no HTTP/1.1 connection: {error}")))?;
        Ok(Connection::new(sender, connection))
    }

    /// Closes what waited too long, and says when to look again; `None` when nothing waits any more.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut waiting = self.lock();
        let limit = self.settings.idle_timeout;
        while waiting.connections.front().is_some_and(|(since, _)| now.duration_since(*since) >= limit) {
            waiting.connections.pop_front();
        }
        let next = waiting.connections.front().map(|(since, _)| *since + limit);
        waiting.has_reaper = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under this lock leaves the list half-changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs while something waits in the pool, and at most for one idle timeout after the pool is gone.
async fn reap(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.expire(Instant::now())) {
        tokio::time::sleep_until(next).await;
    }
}
