//! A connection that is bytes both ways from its first byte on: what a CONNECT opens, where nobody has to say so.
//!
//! It is answered by what comes back. What cannot be answered so, since nobody is reached, is a reset: an orderly end would
//! say that somebody was there and had nothing to tell.

use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use http::{Request, Version, request};

use super::exchange::RequestState;
use super::head::Terms;
use super::upload::endless;
use super::{Connection, Stop};
use crate::egress::{Context, ExchangeService, RequestBody, Serving, Socket};
use crate::message::interim::{InformationalSink, Queue};

/// Serves a connection until it ends. `head` is the CONNECT that its sender did not say, `received` what was read already.
///
/// Cancel safety: dropping the future resets the connection, and what it goes to.
pub(in crate::egress) async fn pass<T: Socket, S: ExchangeService>(
    io: T,
    received: BytesMut,
    head: request::Parts,
    serving: Serving<S>,
) {
    let service = serving.service.clone();
    let mut connection = Connection::new(io, received, serving);
    let stop = match connection.bare(&service, head).await {
        Ok(()) => Stop::Close,
        Err(stop) => stop,
    };
    tracing::trace!(?stop, remote = %connection.info.remote, "a connection of bytes ends");
    connection.end(stop).await;
}

impl<T: Socket> Connection<T> {
    async fn bare<S: ExchangeService>(&mut self, service: &S, head: request::Parts) -> Result<(), Stop> {
        // Until both directions have ended, whatever closes it must not look like their end.
        self.io.reset_on_drop();
        self.half_close = true;
        Queue::renew(&mut self.interim, false);
        let informational = Arc::clone(&self.interim);
        let sink = InformationalSink::from(Arc::clone(&informational));
        let (upload, download) = endless();
        let request = Request::from_parts(head, RequestBody::http1(download));
        let context = Context { connection: self.info.clone(), interim: sink };
        let terms = Terms { version: Version::HTTP_11, is_head: false, keep_alive: false, takes_trailers: false };
        let mut state = RequestState::without_body(terms, informational);
        let response = self.answer(service.call(request, context), &mut state).await?;
        let is_connected = response.status().is_success();
        // What the record says of a failure stands in there.
        let body = response.into_body();
        if !is_connected {
            upload.end();
            return Err(Stop::Reset);
        }
        self.pass(pin!(body), upload).await
    }
}
