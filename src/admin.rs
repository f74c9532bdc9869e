//! The admin listener: what runs, in text and JSON, and what can be asked of it: to drain, and to read its file again.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | 200 while the process answers at all |
//! | `GET /ready` | 200, or 503 with what is still missing, one per line; `?tunnels=1` asks for so many tunnels as well |
//! | `GET /tunnels` | [`TunnelsReport`] as JSON; `?node=`, `cluster`, `tenant`, `state` ask for a part ([`Filter`]) |
//! | `GET /fleet` | [`FleetReport`] as JSON; 404 where the responder is in no fleet |
//! | `GET /config` | the settings that run, without secrets, as JSON |
//! | `POST /drain` | 202; the process finishes what runs, then exits |
//! | `GET /drain` | [`DrainReport`] as JSON: what it still has to do before that |
//! | `POST /reload` | the settings are read again and put in force: 200 with what changed, one change a line; 422 with every mistake where nothing changed |
//!
//! Row 12: sees the data plane only through [`AdminState`]. Whoever reaches the listener may read, drain and reload: bind it to
//! loopback or to a Unix socket (mode 0600). A listener that is [read only](Listener::read_only) has the first three alone. A browser of the same machine is kept out by `guard`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Limit;

mod answer;
mod api;
pub mod client;
mod connections;
mod filter;
mod guard;
mod reload;
mod socket;

pub use api::{
    AcceptedTunnel, DialledTunnel, DrainOutcome, DrainReport, FleetReport, FleetResponder, GoneNode, Readiness,
    ServiceReport, TransportPath, TunnelsReport,
};
pub use filter::Filter;
pub use reload::{ReloadFault, Reloading};
pub use socket::Listener;

use answer::Reply;
use connections::{Connections, Impatient, Place};
use socket::Io;

/// How long a request head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long accepting pauses after it failed, for example without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections that are left may go on once the listener stops.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// The largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What the admin listener may know and do. The methods are called for each request and must not block.
pub trait AdminState: Send + Sync + 'static {
    /// All metrics in Prometheus text format.
    fn metrics(&self) -> String;

    /// Whether the process is ready, and what is missing.
    fn readiness(&self) -> Readiness;

    /// The tunnels of both roles.
    fn tunnels(&self) -> TunnelsReport;

    /// The fleet, if the responder is in one.
    fn fleet(&self) -> Option<FleetReport> {
        None
    }

    /// How many tunnels are up, of both roles.
    fn tunnels_up(&self) -> usize;

    /// The settings that run, as JSON, without secrets.
    fn config(&self) -> serde_json::Value;

    /// Starts to drain; a second call changes nothing.
    fn drain(&self);

    /// What is left to do before the process ends.
    fn drain_report(&self) -> DrainReport {
        DrainReport::default()
    }

    /// The same once the drain is over, with its outcome; while it does not drain this waits for that. By default it is never over.
    fn drained(&self) -> Draining {
        Box::pin(std::future::pending())
    }

    /// Begins to read the settings again, and to put them in force. By default there is nothing to be read.
    fn reload(&self) -> Reloading {
        Box::pin(std::future::ready(Err(ReloadFault::NoSource)))
    }

    /// The listener cut or refused somebody. By default nobody counts it.
    fn limited(&self, limit: Limit) {
        let _ = limit;
    }
}

/// What tells of a drain once it is over.
pub type Draining = Pin<Box<dyn Future<Output = DrainReport> + Send>>;

/// Answers until `stop` is cancelled, then lets requests finish that were already read, for two seconds at most.
///
/// 64 connections may ask for anything. Beyond them a few places are kept for `/healthz` and `/ready`. An answer must be read
/// within ten seconds of when its reader first takes no more.
///
/// Cancel safety: dropping the future closes the listener and every connection at once.
pub async fn serve(listener: Listener, state: Arc<dyn AdminState>, stop: CancellationToken) {
    let guard = guard::Guard::for_listener(&listener);
    let (mut connections, turns) = (Connections::default(), Arc::new(Semaphore::new(1)));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = connections.ended() => {}
            accepted = listener.accept() => match accepted {
                Ok(io) => {
                    let (asked, turns, stop) = (Arc::clone(&state), Arc::clone(&turns), stop.clone());
                    let visit = |place| Visit { state: asked, guard, place, turns };
                    if connections.admit(|place| serve_connection(io, visit(place), stop)) {
                        state.limited(Limit::GaveWay);
                    }
                }
                Err(error) => {
                    state.limited(Limit::NotAccepted);
                    pause(&error).await;
                }
            },
        }
    }
    drop(listener);
    connections.finish(LAST_WAIT).await;
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "the admin listener cannot accept");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// What one connection sees.
struct Visit {
    state: Arc<dyn AdminState>,
    guard: guard::Guard,
    place: Place,
    /// One answer is made at a time.
    turns: Arc<Semaphore>,
}

async fn serve_connection(io: Box<dyn Io>, visit: Visit, stop: CancellationToken) {
    let Visit { state, guard, place, turns } = visit;
    let asked = Arc::clone(&state);
    let service = service_fn(move |request: http::Request<_>| {
        let state = Arc::clone(&asked);
        let turns = Arc::clone(&turns);
        async move {
            let is_about_health = answer::is_about_health(request.uri().path());
            if place == Place::Kept && !is_about_health {
                return Ok::<_, std::convert::Infallible>(answer::full());
            }
            // To make an answer may take a while, and many may ask for one: they take turns, and between two turns whoever
            // asks for the health has his. The semaphore is never closed.
            let turn = if is_about_health { None } else { turns.acquire().await.ok() };
            let reply = answer::answer(&request, &*state, guard);
            if turn.is_some() {
                tokio::task::yield_now().await;
            }
            drop(turn);
            Ok(match reply {
                Reply::Now(answer) => answer,
                Reply::After(reloading) => answer::reloaded(reloading.await),
                Reply::AtEnd(draining) => answer::drained(&draining.await),
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(place == Place::Usual)
        .serve_connection(TokioIo::new(Impatient::new(io)), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an admin connection ended");
        if is_unread(&error) {
            state.limited(Limit::Unread);
        }
    }
}

/// Whether a connection ended because its answer was not read.
fn is_unread(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests;
