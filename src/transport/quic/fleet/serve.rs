//! Streams that a sibling opens: where each goes stands in front of it. spec: FL-40 to FL-43

use std::future::{Future, poll_fn};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::time::timeout;
use tracing::debug;

use crate::protocol::fleet::Route;
use crate::protocol::stream::StreamError;
use crate::transport::arrival::Arrival;
use crate::transport::error::BodyError;
use crate::transport::quic::serve::{HEAD_TIMEOUT, NewStream, Opening, accept_streams, joined, opening_behind};
use crate::transport::quic::settings::Settings;
use crate::transport::quic::streams::{poll_chunk, varint};
use crate::transport::state::TunnelState;

/// Takes what a sibling asks for, each arrival in a task of its own.
pub(crate) trait Relay: Clone + Send + Sync + 'static {
    /// Works on one arrival to its end. The future is dropped only with the connection.
    fn relay(self, route: Route, arrival: Arrival) -> impl Future<Output = ()> + Send + 'static;
}

/// Accepts streams until the connection is gone.
pub(super) async fn serve_siblings<R: Relay>(
    quic: quinn::Connection,
    state: Arc<TunnelState>,
    settings: Settings,
    relay: R,
) {
    let take = |stream, recv| drop(tokio::spawn(take(stream, recv, relay.clone())));
    accept_streams(quic, state, settings, take).await;
}

async fn take<R: Relay>(stream: NewStream, recv: quinn::RecvStream, relay: R) {
    let mut route = None;
    let read = timeout(HEAD_TIMEOUT, opening(recv, &stream, &mut route)).await;
    match (stream.arrival(read), route) {
        (Ok(arrival), Some(route)) => relay.relay(route, arrival).await,
        (Err(Some(not_taken)), _) => not_taken.answering.await,
        // Dropped unanswered it is rejected; without a route there is none.
        (Ok(_), None) | (Err(None), _) => {}
    }
}

/// Reads where a stream goes, and the first of it.
async fn opening(
    mut recv: quinn::RecvStream,
    stream: &NewStream,
    route: &mut Option<Route>,
) -> Result<Opening, BodyError> {
    let mut front = Bytes::new();
    loop {
        match Route::read(&front) {
            Ok(Some((read, length))) => {
                front.advance(length);
                *route = Some(read);
                return opening_behind(front, recv, &stream.tunnel).await;
            }
            Ok(None) => {}
            Err(error) => {
                debug!(%error, "a sibling does not say where a stream goes");
                let _ = recv.stop(varint(error.code()));
                return Err(error.into());
            }
        }
        match poll_fn(|cx| poll_chunk(&mut recv, cx)).await? {
            Some(chunk) => front = joined(front, chunk),
            None => return Err(StreamError::Truncated.into()),
        }
    }
}
