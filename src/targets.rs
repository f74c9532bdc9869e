//! The local services behind the initiator, and how an exchange reaches them.
//!
//! A target is named in the configuration and nowhere else; nothing a request carries changes what is dialled.
//! HTTP/1.1 connections are reused, one exchange at a time; targets that speak HTTP/2 share one connection.
//!
//! Bodies stream both ways. A body that was cut is an error, never a clean end: a cut upload leaves the target with an
//! incomplete message, a cut download leaves the caller with an error. Dropping an exchange, as a future or as a
//! response body, ends it at the target at once: HTTP/1.1 closes its connection, HTTP/2 resets its stream.

mod body;
mod connect;
mod expectation;
mod halves;
pub mod health;
mod held;
mod http1;
mod http2;
mod outbound;
mod places;
mod settings;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod udp;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Response, request};
use http_body::Body;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

pub use self::body::TargetBody;
use self::connect::{Dialer, Socket};
use self::outbound::Outbound;
pub use self::places::ServiceLimits;
pub(crate) use self::places::{Place, Places};
pub use self::settings::{
    CONNECTION_WAIT, DEFAULT_CONNECT_TIMEOUT, DEFAULT_HEAD_BYTES, DEFAULT_HEAD_FIELDS, DEFAULT_IDLE_TIMEOUT,
    DEFAULT_MAX_IDLE, TargetSettings,
};
use self::target::Speaks;
pub use self::target::{Target, TargetError};
use self::udp::Sockets;
pub(crate) use self::udp::{FlowSocket, NoSocket};
use self::upload::Upload;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::{InformationalSink, SendInterim};
use crate::message::rewrite::{self, Settled, Step, Subject};
use crate::net::proxy_header;
use crate::protocol::stream::ClientAddresses;
use crate::tls::TlsError;

/// Exchanges with one target. Clones share its connections.
#[derive(Clone)]
pub struct TargetClient(Client);

#[derive(Clone)]
enum Client {
    Http1(http1::Client),
    Http2(Arc<http2::Client>),
    /// Takes bytes, and no requests.
    Raw(Arc<Dialer>),
    /// Takes datagrams.
    Udp(Arc<Sockets>),
}

/// A new connection to a target of bytes, over which nothing has gone yet.
pub(crate) struct RawConnection(Socket);

impl RawConnection {
    /// Tells the target who connected, before all else: a PROXY header of version 2, which names nobody where that is not
    /// known.
    ///
    /// # Errors
    ///
    /// The target does not take it.
    pub(crate) async fn introduce(&mut self, client: Option<&ClientAddresses>) -> Result<(), Failure> {
        let header = client.map_or_else(|| proxy_header::LOCAL.to_vec(), proxy_header::write);
        let told = self.0.write_all(&header).await;
        told.map_err(|error| Failure::new(Cause::TargetClosed, format!("the target took no PROXY header: {error}")))
    }

    /// Sends the target what the body brings, and its end; what the target says is the returned body. Each direction ends by
    /// itself; a body that fails, and one that is dropped before its end, resets the connection.
    ///
    /// # Errors
    ///
    /// The body has failed already.
    pub(crate) fn pass<B>(self, body: B) -> Result<TargetBody, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        Ok(http1::Switched::begin(self.0, Upload::read(body)?).into())
    }
}

impl TargetClient {
    /// A client without a connection yet; the first exchange makes one.
    ///
    /// # Errors
    ///
    /// The target is reached over TLS, and its settings do not say which one is genuine or cannot be used.
    pub fn new(target: &Target, settings: TargetSettings) -> Result<Self, TlsError> {
        let dialer = Dialer::new(target, &settings)?;
        Ok(Self(match target.speaks {
            Speaks::Http1 => Client::Http1(http1::Client::new(dialer, settings)),
            Speaks::Http2 => Client::Http2(Arc::new(http2::Client::new(dialer, settings))),
            Speaks::Raw => Client::Raw(Arc::new(dialer)),
            Speaks::Udp => match Sockets::new(target, &settings) {
                Some(sockets) => Client::Udp(Arc::new(sockets)),
                None => Client::Raw(Arc::new(dialer)),
            },
        }))
    }

    /// Connects to a target of bytes.
    ///
    /// # Errors
    ///
    /// It could not be reached, or speaks HTTP.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub(crate) async fn connect(&self) -> Result<RawConnection, Failure> {
        let Client::Raw(dialer) = &self.0 else {
            return Err(Failure::new(Cause::UnknownService, "the target speaks HTTP"));
        };
        let socket = dialer.connect().await?;
        socket.keep_alive();
        Ok(RawConnection(socket))
    }

    /// Connects to the target, TLS included, and lets go of it again.
    ///
    /// # Errors
    ///
    /// It cannot be had.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub(crate) async fn reach(&self) -> Result<(), Failure> {
        match &self.0 {
            Client::Http1(client) => client.reach().await,
            Client::Http2(client) => client.reach().await,
            Client::Raw(dialer) => dialer.connect().await.map(drop),
            Client::Udp(sockets) => sockets.reach().await,
        }
    }

    /// A socket towards a target of datagrams, beside those that the process has already.
    ///
    /// # Errors
    ///
    /// There is none, and why.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub(crate) async fn open_flow(&self, process: &Arc<Semaphore>) -> Result<FlowSocket, NoSocket> {
        let Client::Udp(sockets) = &self.0 else {
            return Err(NoSocket::Target(Failure::new(Cause::UnknownService, "the target takes no datagrams")));
        };
        sockets.open(process).await
    }

    /// Sends the request and waits for the head of the final response.
    ///
    /// 1xx responses go to the [`InformationalSink`] among the request's extensions, if there is one.
    ///
    /// # Errors
    ///
    /// No response: the target could not be reached, broke HTTP, or the request's own body failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the exchange at the target; the request may have been processed or not.
    pub fn exchange<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<TargetBody>, Failure>> + Send + use<'_, B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        // Outside the future, which would otherwise hold the request twice.
        let (mut head, body) = request.into_parts();
        let sink = head.extensions.remove::<InformationalSink>();
        let prepared = Prepared::new(head, body);
        async move { self.send(prepared?, sink.as_ref().map(|sink| sink as &dyn SendInterim)).await }
    }

    /// As [`Self::exchange`], for a request that is ready; 1xx responses go to `interim`.
    ///
    /// # Errors
    ///
    /// As [`Self::exchange`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::exchange`].
    pub(crate) fn send<'a>(
        &'a self,
        prepared: Prepared,
        interim: Option<&'a dyn SendInterim>,
    ) -> impl Future<Output = Result<Response<TargetBody>, Failure>> + Send + use<'a> {
        let Prepared { mut outbound, upload } = prepared;
        let is_waited_for = expectation::is_waited_for(&mut outbound, &upload);
        async move {
            let mut response = match interim {
                _ if outbound.protocol.is_some() => Box::pin(self.switch(outbound, upload, interim)).await?,
                Some(interim) if is_waited_for => Box::pin(self.send_expected(outbound, upload, interim)).await?,
                _ => match &self.0 {
                    Client::Http1(client) => {
                        client.exchange(&mut outbound, upload, interim).await?.map(TargetBody::from)
                    }
                    Client::Http2(client) => {
                        Box::pin(client.exchange(outbound, upload, interim)).await?.map(TargetBody::from)
                    }
                    Client::Raw(_) | Client::Udp(_) => return Err(no_requests()),
                },
            };
            strip_hop_by_hop(response.headers_mut());
            Ok(response)
        }
    }

    /// The exchange of a request that wants to go on in another protocol.
    async fn switch(
        &self,
        mut outbound: Outbound,
        upload: Upload,
        interim: Option<&dyn SendInterim>,
    ) -> Result<Response<TargetBody>, Failure> {
        match (&self.0, outbound.protocol.take()) {
            (Client::Http1(client), Some(protocol)) => {
                Ok(match client.switch(&mut outbound, *protocol, upload, interim).await? {
                    http1::Answer::Switched(response) => response.map(TargetBody::from),
                    http1::Answer::Declined(response) => response.map(TargetBody::from),
                })
            }
            (Client::Http2(client), protocol) => {
                outbound.protocol = protocol;
                client.exchange(outbound, upload, interim).await.map(|response| response.map(TargetBody::from))
            }
            (Client::Raw(_) | Client::Udp(_), _) => Err(no_requests()),
            (Client::Http1(_), None) => Err(Failure::new(Cause::Internal, "no protocol is asked for")),
        }
    }

    /// The exchange of a request whose sender waits for 100.
    async fn send_expected(
        &self,
        mut outbound: Outbound,
        upload: Upload,
        interim: &dyn SendInterim,
    ) -> Result<Response<TargetBody>, Failure> {
        let patience = match &self.0 {
            Client::Http1(client) if client.is_old() => {
                // HTTP/1.0 knows neither the field nor the answer.
                outbound.headers.remove(EXPECT);
                Duration::ZERO
            }
            _ => expectation::PATIENCE,
        };
        let exchange = async {
            Ok(match &self.0 {
                Client::Http1(client) => {
                    client.exchange(&mut outbound, upload, Some(interim)).await?.map(TargetBody::from)
                }
                Client::Http2(client) => client.exchange(outbound, upload, Some(interim)).await?.map(TargetBody::from),
                Client::Raw(_) | Client::Udp(_) => return Err(no_requests()),
            })
        };
        expectation::answered_for(exchange, interim, patience).await
    }
}

fn no_requests() -> Failure {
    Failure::new(Cause::UnknownService, "the target takes bytes or datagrams, and no requests")
}

/// A request as a target is to get it.
pub(crate) struct Prepared {
    outbound: Outbound,
    upload: Upload,
}

impl Prepared {
    /// Takes what matters out of the head, and what is there of the body.
    ///
    /// # Errors
    ///
    /// The request contradicts itself, or its body has failed already.
    pub(crate) fn new<B>(head: request::Parts, body: B) -> Result<Self, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let upload = Upload::read(body)?;
        let outbound = Outbound::new(head)?;
        outbound.check_length(&upload)?;
        Ok(Self { outbound, upload })
    }

    /// Does these steps, in order; no trailers bring again what they settle.
    ///
    /// # Errors
    ///
    /// The path of the request can be read in two ways, and a step is about it.
    pub(crate) fn rewrite(&mut self, steps: &[Step], settled: &Settled) -> Result<(), Failure> {
        self.upload.keep_back(settled);
        let Outbound { authority, path, headers: fields, .. } = &mut self.outbound;
        rewrite::apply(steps, Subject { authority, path, fields })
    }
}
