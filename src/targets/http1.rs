//! Exchanges over HTTP/1.1: one at a time on a connection, which is then used again.
//!
//! An exchange moves its connection itself, both directions at once, until the head of the final response is there;
//! whoever reads the response body moves it from there on. Only a request that still streams then gets a task, so that
//! neither direction waits for the other.

mod attempt;
mod body;
mod connection;
mod failure;
mod patience;
mod pool;
mod request;
mod send;
mod switch;

use std::future::poll_fn;
use std::sync::Arc;

use http::{Method, Response};

use self::attempt::{Attempt, Failed};
pub(super) use self::body::Http1Body;
use self::connection::Connection;
use self::pool::Pool;
pub(super) use self::switch::{Answer, Switched};
use super::connect::Dialer;
use super::outbound::Outbound;
use super::settings::TargetSettings;
use super::upload::Upload;
use crate::message::failure::{Cause, Failure};
use crate::message::interim::SendInterim;
use crate::message::response::ResponseHead;

/// A target that speaks HTTP/1.1.
#[derive(Clone)]
pub(super) struct Client {
    pool: Arc<Pool>,
}

impl Client {
    pub(super) fn new(dialer: Dialer, settings: TargetSettings) -> Self {
        Self { pool: Pool::new(dialer, settings) }
    }

    /// One exchange, on a connection that waits or on a new one.
    ///
    /// A target may close a waiting connection at the very moment it is used. The request then goes to a new
    /// connection, provided that nothing of it was written or that sending it twice does no harm, or that the target says
    /// at once that it had waited for too long (408) and closes. Any other is not written to a connection that has waited for about as long as the target is known to allow.
    pub(super) async fn exchange(
        &self,
        outbound: &mut Outbound,
        upload: Upload,
        interim: Option<&dyn SendInterim>,
    ) -> Result<Response<Http1Body>, Failure> {
        if outbound.method == Method::CONNECT {
            return Err(Failure::new(Cause::BadRequest, "CONNECT is not supported"));
        }
        let copy = upload.replay();
        let may_repeat = copy.is_some() && outbound.is_idempotent();
        let Some(connection) = self.pool.take(may_repeat) else {
            return Box::pin(self.exchange_on_new(outbound, upload, interim)).await;
        };
        let mut attempt =
            self.begin(connection, outbound, upload)?.on_waiting(copy.is_some(), outbound.is_idempotent());
        match poll_fn(|cx| attempt.poll(&mut outbound.headers, interim, cx)).await {
            Ok(head) => Ok(self.response(head, attempt)),
            Err(failed) => {
                let upload = attempt.again(failed, outbound, copy)?;
                Box::pin(self.exchange_on_new(outbound, upload, interim)).await
            }
        }
    }

    async fn exchange_on_new(
        &self,
        outbound: &mut Outbound,
        upload: Upload,
        interim: Option<&dyn SendInterim>,
    ) -> Result<Response<Http1Body>, Failure> {
        let connection = self.pool.connect().await?;
        let mut attempt = self.begin(connection, outbound, upload)?;
        match poll_fn(|cx| attempt.poll(&mut outbound.headers, interim, cx)).await {
            Ok(head) => Ok(self.response(head, attempt)),
            Err(Failed { failure, .. }) => Err(failure),
        }
    }

    /// Connects, and lets go of it again.
    pub(super) async fn reach(&self) -> Result<(), Failure> {
        self.pool.connect().await.map(drop)
    }

    /// Whether the target last answered in HTTP/1.0.
    pub(super) fn is_old(&self) -> bool {
        self.pool.is_old()
    }

    fn begin(&self, connection: Connection, outbound: &Outbound, upload: Upload) -> Result<Attempt, Failure> {
        Attempt::new(connection, outbound, upload, self.pool.settings())
    }

    fn response(&self, head: ResponseHead, attempt: Attempt) -> Response<Http1Body> {
        let ResponseHead { response, framing, keep_alive } = head;
        self.pool.note_version(response.version());
        response.map(|()| Http1Body::new(attempt, framing, keep_alive, Arc::clone(&self.pool)))
    }
}
