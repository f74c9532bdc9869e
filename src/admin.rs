//! The admin listener: what runs, in text and JSON, and the one thing that can be asked of it, to drain.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | 200 while the process answers at all |
//! | `GET /ready` | 200, or 503 with what is still missing, one per line; `?tunnels=1` asks for so many tunnels as well |
//! | `GET /tunnels` | [`TunnelsReport`] as JSON; `?node=`, `cluster`, `tenant`, `state` ask for a part ([`Filter`]) |
//! | `GET /config` | the settings that run, without secrets, as JSON |
//! | `POST /drain` | 202; the process finishes what runs, then exits |
//!
//! Row 12: sees the data plane only through [`AdminState`]. Whoever reaches the listener may read and drain: bind it to
//! loopback or to a Unix socket (mode 0600). A listener that is [read only](Listener::read_only) has the first three alone. A browser of the same machine is kept out by `guard`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod answer;
mod api;
pub mod client;
mod filter;
mod guard;
mod socket;

pub use api::{AcceptedTunnel, DialledTunnel, GoneNode, Readiness, TransportPath, TunnelsReport};
pub use filter::Filter;
pub use socket::Listener;

use socket::Io;

/// Connections beyond this wait in the backlog of the kernel.
const MAX_CONNECTIONS: usize = 64;
/// How long a request head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long accepting pauses after it failed, for example without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What the admin listener may know and do. Each method is called for each request and must not block.
pub trait AdminState: Send + Sync + 'static {
    /// All metrics in Prometheus text format.
    fn metrics(&self) -> String;

    /// Whether the process is ready, and what is missing.
    fn readiness(&self) -> Readiness;

    /// The tunnels of both roles.
    fn tunnels(&self) -> TunnelsReport;

    /// How many tunnels are up, of both roles.
    fn tunnels_up(&self) -> usize;

    /// The settings that run, as JSON, without secrets.
    fn config(&self) -> serde_json::Value;

    /// Starts to drain; a second call changes nothing.
    fn drain(&self);
}

/// Answers until `stop` is cancelled, then lets requests finish that were already read.
///
/// Cancel safety: dropping the future closes the listener and every connection at once.
pub async fn serve(listener: Listener, state: Arc<dyn AdminState>, stop: CancellationToken) {
    let guard = guard::Guard::for_listener(&listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(io) => {
                    connections.spawn(serve_connection(io, Arc::clone(&state), guard, stop.clone()));
                }
                Err(error) => pause(&error).await,
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "the admin listener cannot accept");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn serve_connection(io: Box<dyn Io>, state: Arc<dyn AdminState>, guard: guard::Guard, stop: CancellationToken) {
    let service = service_fn(|request| {
        let response = answer::answer(&request, &*state, guard);
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
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
    }
}

#[cfg(test)]
mod tests;
