//! Exchanges over HTTP/1.1: one at a time on a connection, which is then used again.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::TargetSettings;
use super::body::TargetBody;
use super::connect::Address;
use super::outbound::Outbound;
use super::pool::{Connection, Pool};
use super::upload::{Finished, Upload};
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::InformationalSink;

/// A target that speaks HTTP/1.1.
#[derive(Clone)]
pub(super) struct Client {
    pool: Arc<Pool>,
}

impl Client {
    pub(super) fn new(address: Address, settings: TargetSettings) -> Self {
        Self { pool: Pool::new(address, settings) }
    }

    /// One exchange, on a connection that waits or on a new one.
    ///
    /// A target may close a waiting connection at the very moment it is used. The request then goes to a new
    /// connection, provided that nothing of it was written or that sending it twice does no harm.
    pub(super) async fn exchange(&self, outbound: Outbound, upload: Upload) -> Result<Response<TargetBody>, Failure> {
        let Some(connection) = self.pool.take() else {
            let request = prepare(outbound, upload);
            return self.attempt_on_new(request).await;
        };
        let again =
            if outbound.is_idempotent() { upload.replay().map(|upload| (outbound.clone(), upload)) } else { None };
        let mut error = match self.attempt(connection, prepare(outbound, upload)).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match (error.take_message(), again) {
            (Some(request), _) => self.attempt_on_new(request).await,
            (None, Some((outbound, upload))) if is_stale(error.error()) => {
                self.attempt_on_new(prepare(outbound, upload)).await
            }
            (None, _) => Err(failure(error.error())),
        }
    }

    async fn attempt_on_new(&self, request: Request<Upload>) -> Result<Response<TargetBody>, Failure> {
        let connection = self.pool.connect().await?;
        let response = self.attempt(connection, request).await.map_err(|error| failure(error.error()))?;
        Ok(response)
    }

    async fn attempt(
        &self,
        mut connection: Connection,
        request: Request<Upload>,
    ) -> Result<Response<TargetBody>, TrySendError<Request<Upload>>> {
        let upload = request.body().finished();
        let response = connection.send(request).await?;
        let lease = Lease { connection, pool: Arc::clone(&self.pool), upload };
        Ok(response.map(|incoming| TargetBody::from(Http1Body::new(incoming, lease))))
    }
}

/// The request as hyper sends it.
fn prepare(mut outbound: Outbound, upload: Upload) -> Request<Upload> {
    let sink = outbound.sink.take();
    let mut request = outbound.into_http1(upload);
    if let Some(sink) = sink {
        hyper::ext::on_informational(&mut request, move |response| {
            inform(&sink, response.status(), response.headers());
        });
    }
    request
}

fn inform(sink: &InformationalSink, status: StatusCode, headers: &HeaderMap) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().clone_from(headers);
    strip_hop_by_hop(response.headers_mut());
    sink.send(response);
}

/// Whether the connection went away before a response began, as it does when the target just gave it up.
fn is_stale(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || io_error(error).is_some()
}

fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

fn failure(error: &hyper::Error) -> Failure {
    let cause = if error.is_user() {
        Cause::RequestCut
    } else if error.is_parse_too_large() {
        Cause::TargetHeadTooLarge
    } else if error.is_parse() {
        Cause::TargetProtocol
    } else {
        Cause::TargetClosed
    };
    let details = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    Failure::new(cause, details)
}

/// What an exchange holds until its response has ended.
struct Lease {
    connection: Connection,
    pool: Arc<Pool>,
    /// Set once the upload is gone; `None` when it was whole from the start.
    upload: Option<Finished>,
}

impl Lease {
    /// The response is complete. An upload that still runs is not worth finishing: its connection closes.
    fn end(self) {
        if self.upload.is_none_or(|upload| upload.is_set()) {
            self.pool.put(self.connection);
        }
    }
}

/// A response body; holds its connection until the end, and closes it when dropped before.
pub(super) struct Http1Body {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl Http1Body {
    fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self { incoming, lease: Some(lease) };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(lease) = &mut this.lease else { return Poll::Ready(None) };
        let incoming = &mut this.incoming;
        match ready!(lease.connection.poll_with(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx))) {
            Some(Ok(frame)) => {
                if this.incoming.is_end_stream() {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
