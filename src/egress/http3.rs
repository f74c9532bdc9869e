//! HTTP/3 towards the senders of requests, on the `h3` crate over quinn.
//!
//! One task drives the connection, one task per stream serves its exchange; both end with the connection. `h3` checks little
//! and keeps whatever length a frame says, so every stream passes a watcher before `h3` reads it
//! ([`message::h3`](crate::message::h3)), and every request the validator that all versions share. A request that breaks a
//! rule costs its stream, one whose service vanishes likewise. What a sender may hold is bounded: streams, windows, field
//! sections that are not whole, what is sent and not acknowledged, requests given up, frames that carry nothing.
//!
//! Nothing is taken before the handshake is done, unless its listener takes early data (RFC 8470).
//!
//! * `transport`, `listener`: how QUIC is set up; from UDP packets to connections, with the budgets of the handshake;
//! * `early`: which requests came before the handshake was done;
//! * `link`: what a connection and its streams tell each other; `datagrams`: what comes beside the streams;
//! * `quic`, `stream`: QUIC as `h3` sees it; `body`: the body of a request; `exchange`: one request and its response;
//! * `window`: the bound on what is sent and not acknowledged.

mod body;
mod datagrams;
mod early;
mod exchange;
mod link;
mod listener;
mod quic;
mod stream;
mod transport;
mod window;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::server::Connection;
use http::Version;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::message::h3::request::Limits;
use crate::message::violation::Violation;

use super::deadline::Deadline;
use super::gate::Gate;
use super::{ExchangeService, Serving, Settings};
use early::Early;
use exchange::{Served, exchange};
use link::Link;
use quic::Quic;
use window::Bounds;

pub(super) use body::StreamBody;
pub(super) use early::Tokens;
pub use listener::Http3Socket;
pub(super) use listener::{Accept, Endpoint};
pub(super) use transport::server_config;

/// Most bytes of a field section as `h3` counts them, with 32 for each field: a map of more fields than fit into as many is
/// more than the `http` crate makes.
const MAX_SECTION: usize = 512 * 1024;
/// So many requests after the last one that came: more than a connection can have.
const ALL: usize = usize::MAX;
/// How many round trips a client has to read GOAWAY before its connection is closed, and for how long at least.
const FAREWELL_TRIPS: u32 = 3;
const FAREWELL: Duration = Duration::from_millis(20);

type Driver = Connection<Quic, Bytes>;

/// Serves one connection until it ends. `early` knows which of its requests came before the handshake was done.
///
/// Cancel safety: dropping the future drops the connection and all exchanges on it.
async fn serve<S: ExchangeService>(quic: quinn::Connection, early: Option<Arc<Early>>, serving: Serving<S>) {
    let settings = &serving.settings;
    let limits = Limits { section_bytes: settings.max_head_bytes, fields: settings.max_head_fields };
    let bounds = Bounds { connection: settings.http3.send_budget, listener: settings.send_budget };
    let heads = serving.heads.clone();
    let link = Link::new(quic.clone(), (limits, heads), bounds, Arc::clone(&serving.budget));
    let mut builder = h3::server::builder();
    let most = settings.max_head_bytes.min(MAX_SECTION);
    builder.max_field_section_size(most as u64).enable_extended_connect(true).enable_datagram(true).send_grease(false);
    let built = builder.build(Quic::new(quic.clone(), Arc::clone(&link)));
    let served = Arc::new(Served { serving, quic, link, early, gate: Gate::new() });
    let (link, serving) = (&served.link, &served.serving);
    match timeout(serving.settings.head_timeout, built).await {
        Ok(Ok(connection)) => drive(connection, Arc::clone(&served)).await,
        Ok(Err(error)) => tracing::debug!(%error, remote = %serving.info.remote, "no HTTP/3 connection"),
        Err(_) => link.close(h3::error::Code::H3_EXCESSIVE_LOAD, "the client takes no control stream"),
    }
    if let Some(code) = link.fault() {
        // No service ever hears of it. spec: SE-44
        serving.service.refused(&serving.info, Some(Version::HTTP_3), Violation::Connection(code));
    }
}

async fn drive<S: ExchangeService>(mut connection: Driver, served: Arc<Served<S>>) {
    let serving = &served.serving;
    let (leaving, end) = (serving.end.leaving.clone(), serving.end.clone());
    let mut left = pin!(leaving.cancelled());
    let mut last_call = pin!(end.last_call());
    let mut exchanges = JoinSet::new();
    let mut quiet = Quiet::new(&serving.settings, &served.quic);
    loop {
        let is_quiet = exchanges.is_empty();
        quiet.observe(is_quiet);
        // To say it before a request has come would refuse the first.
        if quiet.stage == Stage::Leaving && served.link.is_used() {
            quiet.stage = Stage::Left;
            if say(&mut connection, ALL, &quiet).await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            biased;
            _ = exchanges.join_next(), if !is_quiet => {}
            () = &mut left, if quiet.stage == Stage::Open => quiet.stage = Stage::Leaving,
            () = &mut last_call, if quiet.stage < Stage::Closing => {
                if close_door(&mut connection, &served.link, &mut quiet).await.is_err() {
                    return;
                }
            }
            accepted = connection.accept() => match accepted {
                Ok(Some(resolver)) => {
                    if let Some(arrival) = served.link.arrived() {
                        exchanges.spawn(exchange(Arc::clone(&served), resolver, arrival));
                    }
                }
                // The client takes its leave, and all is answered.
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, remote = %serving.info.remote, "an HTTP/3 connection ended");
                    return;
                }
            },
            () = poll_fn(|cx| quiet.deadline.poll(cx)), if is_quiet => {
                if quiet.stage == Stage::Closing || close_door(&mut connection, &served.link, &mut quiet).await.is_err() {
                    return;
                }
            }
            // A connection that is lost shows above.
            Ok(datagram) = served.quic.read_datagram() => {
                served.take(datagram);
                tokio::task::coop::consume_budget().await;
            }
        }
    }
}

/// Says which request was the last, and takes none after it. RFC 9114 section 5.2
///
/// `h3` names the last request itself where the first that is refused is due: one more is asked for, and the door is kept by
/// the link.
async fn close_door(connection: &mut Driver, link: &Link, quiet: &mut Quiet<'_>) -> Result<(), Gone> {
    quiet.stage = Stage::Closing;
    say(connection, usize::from(link.close_door()), quiet).await
}

/// Sends GOAWAY: so many requests after the last one that came are still served.
async fn say(connection: &mut Driver, requests: usize, quiet: &Quiet<'_>) -> Result<(), Gone> {
    let said = timeout(quiet.settings.linger_timeout, connection.shutdown(requests)).await;
    said.map_err(|_| Gone)?.map_err(|_| Gone)
}

/// The client is gone, or takes nothing any more.
struct Gone;

/// How far a connection is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// The client is to be asked to send its next request elsewhere.
    Leaving,
    /// It was asked.
    Left,
    /// No request is taken any more.
    Closing,
}

/// How long a connection on which no service works is kept.
struct Quiet<'a> {
    settings: &'a Settings,
    quic: &'a quinn::Connection,
    stage: Stage,
    /// At which stage nothing was served when this was last looked at.
    state: Option<Stage>,
    deadline: Deadline,
}

impl<'a> Quiet<'a> {
    fn new(settings: &'a Settings, quic: &'a quinn::Connection) -> Self {
        let deadline = Deadline::new(Instant::now() + settings.idle_timeout);
        Self { settings, quic, stage: Stage::Open, state: None, deadline }
    }

    fn observe(&mut self, is_quiet: bool) {
        let state = is_quiet.then_some(self.stage);
        if std::mem::replace(&mut self.state, state) == state {
            return;
        }
        let allowance = match state {
            None => return,
            Some(Stage::Open | Stage::Leaving) => self.settings.idle_timeout,
            Some(Stage::Left) => self.settings.linger_timeout,
            Some(Stage::Closing) => (self.quic.rtt() * FAREWELL_TRIPS).max(FAREWELL).min(self.settings.linger_timeout),
        };
        self.deadline.set(Instant::now() + allowance);
    }
}

#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod tests;
