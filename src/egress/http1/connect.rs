//! A CONNECT: until it is answered an exchange like any other, and then, if the answer is 2xx, bytes both ways. RFC 9110
//! section 9.3.6
//!
//! Its sender may send what is meant for the other end before it is answered; that is left where it is until then. Whatever
//! the answer is, it is never read as another request: a sender that did not wait, and was refused, would have somebody
//! else's bytes taken for its own wishes.

use std::pin::pin;
use std::sync::Arc;

use super::exchange::RequestState;
use super::head::Head;
use super::response::write_connected;
use super::upload::endless;
use super::{Connection, Stop};
use crate::egress::{Context, ExchangeService, RequestBody, Socket};
use crate::message::interim::{InformationalSink, Queue};
use crate::message::violation::Violation;

impl<T: Socket> Connection<T> {
    /// Serves a CONNECT. The connection ends with it.
    pub(super) async fn connect<S: ExchangeService>(&mut self, service: &S, mut head: Head) -> Result<(), Stop> {
        if !service.takes_connect() {
            service.refused(&self.info, Some(head.request.version()), Violation::Connect);
            return Err(Stop::Reject(Violation::Connect));
        }
        // From here on the end of what comes is that of one direction only.
        self.half_close = true;
        head.terms.keep_alive = false;
        Queue::renew(&mut self.interim, false);
        let informational = Arc::clone(&self.interim);
        let sink = InformationalSink::from(Arc::clone(&informational));
        let (upload, download) = endless();
        let request = head.request.map(|()| RequestBody::http1(download));
        let context = Context { connection: self.info.clone(), interim: sink };
        let mut state = RequestState::without_body(head.terms, informational);
        let response = self.answer(service.call(request, context), &mut state).await?;
        if !response.status().is_success() {
            upload.end();
            return self.respond(response, state).await;
        }
        let (parts, body) = response.into_parts();
        write_connected(&parts, &mut self.date, &mut self.output);
        self.pass(pin!(body), upload).await
    }
}
