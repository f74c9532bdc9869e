//! An exchange whose sender offers to go on in another protocol: until it is answered an exchange like any other, and then,
//! if the offer was taken, bytes both ways. spec: ST-15, ST-25
//!
//! What the sender says behind its request is left where it is until then: if the offer is not taken, it is the next request.
//! Each direction ends by itself; the connection ends with both.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{Method, Response, Version, response};
use http_body::Body;

use super::exchange::RequestState;
use super::head::Head;
use super::response::{BodyWriter, Framing, write_informational, write_switch};
use super::upload::{Upload, endless};
use super::{Connection, Stop};
use crate::egress::{Context as ExchangeContext, ExchangeService, RequestBody, Socket};
use crate::message::BoxError;
use crate::message::interim::{InformationalSink, Queue};
use crate::message::upgrade::{self, Declined, Offer};
use crate::protocol::budgets::RAW_PATIENCE;

impl<T: Socket> Connection<T> {
    /// Serves a request that offers to go on in another protocol. `Ok`: the connection is ready for the next.
    pub(super) async fn offered<S: ExchangeService>(
        &mut self,
        service: &S,
        head: Head,
        offer: Offer,
    ) -> Result<(), Stop> {
        Queue::renew(&mut self.interim, head.terms.version == Version::HTTP_11);
        let informational = Arc::clone(&self.interim);
        let sink = InformationalSink::from(Arc::clone(&informational));
        let (upload, download) = endless();
        let mut request = head.request.map(|()| RequestBody::http1(download));
        *request.method_mut() = Method::CONNECT;
        request.headers_mut().remove(SEC_WEBSOCKET_KEY);
        request.extensions_mut().insert(offer.protocol.clone());
        let context = ExchangeContext { connection: self.info.clone(), interim: sink };
        let mut state = RequestState::without_body(head.terms, informational);
        let response = self.answer(service.call(request, context), &mut state).await?;
        if !takes(&response) {
            upload.end();
            return self.respond(response, state).await;
        }
        let (parts, body) = response.into_parts();
        for early in state.close() {
            write_informational(&early, &mut self.output);
        }
        self.write_switch(parts, &offer);
        self.pass(pin!(body), upload).await
    }

    fn write_switch(&mut self, mut parts: response::Parts, offer: &Offer) {
        parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
        if let Some(key) = &offer.key {
            parts.headers.insert(SEC_WEBSOCKET_ACCEPT, upgrade::accept(key));
        }
        write_switch(&parts, offer.protocol.as_str(), &mut self.date, &mut self.output);
    }

    /// Passes bytes both ways until both directions have ended, or one of them was cut.
    pub(super) async fn pass<B>(&mut self, mut body: Pin<&mut B>, upload: Upload) -> Result<(), Stop>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        // Whatever closes it before both directions have ended, this process included, must not look like their end.
        self.io.reset_on_drop();
        self.send_timeout = self.send_timeout.max(RAW_PATIENCE);
        let mut ways = Ways { down: Some(BodyWriter::new(Framing::Close, false)), up: Some(upload), is_shut: false };
        poll_fn(|cx| self.poll_pass(cx, body.as_mut(), &mut ways)).await
    }

    fn poll_pass<B>(&mut self, cx: &mut Context<'_>, body: Pin<&mut B>, ways: &mut Ways) -> Poll<Result<(), Stop>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        if let Some(writer) = &mut ways.down
            && let Poll::Ready(sent) = self.poll_send(cx, writer, body)
        {
            sent?;
            ways.down = None;
        }
        if self.output.len() == 0 {
            // It may rest for hours.
            self.output.shrink();
        }
        if ways.down.is_none() && !ways.is_shut && Pin::new(&mut self.io).poll_shutdown(cx).is_ready() {
            ways.is_shut = true;
        }
        if let Some(upload) = &mut ways.up
            && let Poll::Ready(taken) = upload.poll(&mut self.io, cx, &mut self.input)
        {
            taken?;
            ways.up = None;
        }
        let is_blind = match &ways.up {
            None if ways.is_shut => {
                self.io.end_on_drop();
                return Poll::Ready(Err(Stop::Close));
            }
            // What it sends is for nobody any more, and nothing comes back.
            Some(upload) if ways.down.is_none() && upload.is_unwanted() => return Poll::Ready(Err(Stop::CutBare)),
            // One that has ended its direction, and then dies, is noticed as well.
            up => up.as_ref().is_none_or(Upload::is_held_back),
        };
        // What was read ahead of the answer is on its way by now.
        self.ahead.end(&mut self.input);
        self.poll_both_ways(is_blind, cx).map(Err)
    }
}

/// What is under way in each direction.
struct Ways {
    down: Option<BodyWriter>,
    up: Option<Upload>,
    is_shut: bool,
}

/// Whether the service took the offer.
fn takes<B>(response: &Response<B>) -> bool {
    response.status().is_success() && response.extensions().get::<Declined>().is_none()
}
