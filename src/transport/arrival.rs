//! What arrives on the initiator's end of a tunnel, and the trait of whoever takes it.

mod detached;
mod origin;
mod taking;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, request, response};
use http_body::Body;

use crate::id::ServiceName;
use crate::message::BoxError;
use crate::protocol::code::{OpenCause, StreamCode};
use crate::protocol::stream::{ClientAddresses, Refused};
use crate::transport::body::RecvBody;
use crate::transport::credit::Ledger;
use crate::transport::error::SendError;
use crate::transport::flow::Flow;
use crate::transport::raw::RawStream;
use crate::transport::state::{Arriving, Beginning, FlowCount, InFlight};
use crate::transport::{quic, tcp};

use self::detached::hold;
pub use self::origin::{StreamRefusal, TunnelFacts};
use self::taking::Taking;

/// Takes what arrives through a tunnel, each arrival in a task of its own.
pub trait Accept: Clone + Send + Sync + 'static {
    /// Works on one arrival to its end. The future is dropped only with the tunnel: what the responder cancels is told by
    /// [`Responder::drive`]. It is the whole task, so its size is what an exchange costs.
    fn accept(self, arrival: Arrival) -> impl Future<Output = ()> + Send + 'static;

    /// Hears of a stream that the transport refused by itself, because what it sent is no request; it never arrives.
    fn refused(&self, tunnel: TunnelFacts<'_>, refusal: &StreamRefusal) {
        let _ = (tunnel, refusal);
    }
}

/// A stream that the responder has opened.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would cost every exchange an allocation"
)]
pub enum Arrival {
    /// A request that wants a response.
    Http(HttpArrival),
    /// Bytes for a service.
    Raw(RawArrival),
    /// Datagrams for a service.
    Flow(FlowArrival),
}

/// A raw stream that waits for the service's target. Dropping it rejects it, so that the responder may try elsewhere.
/// What the responder sends meanwhile stays unread. spec: ST-57
#[derive(Debug)]
pub struct RawArrival {
    /// The exported service that it is for.
    pub service: ServiceName,
    /// Who connected to the responder, if that says so.
    pub client: Option<ClientAddresses>,
    half: ServiceHalf,
    in_flight: InFlight,
}

/// A flow that waits for the service's target. Dropping it rejects it, so that the responder may try elsewhere.
#[derive(Debug)]
pub struct FlowArrival {
    /// The exported service that it is for.
    pub service: ServiceName,
    /// Who sends to the responder, if that says so.
    pub client: Option<ClientAddresses>,
    half: FlowHalf,
    in_flight: InFlight,
}

/// The stream of a flow, with its place among those of the tunnel.
#[derive(Debug)]
enum FlowHalf {
    Quic(quic::ServiceArrival, Box<quic::FlowPlace>),
    Tcp(tcp::ServiceArrival, FlowCount),
}

impl FlowHalf {
    /// The stream alone.
    fn into_service(self) -> ServiceHalf {
        match self {
            Self::Quic(arrival, _) => ServiceHalf::Quic(arrival),
            Self::Tcp(arrival, _) => ServiceHalf::Tcp(arrival),
        }
    }
}

#[derive(Debug)]
enum ServiceHalf {
    Quic(quic::ServiceArrival),
    Tcp(tcp::ServiceArrival),
}

impl ServiceHalf {
    /// Resolves once the responder has given the stream up. Cancel safe.
    async fn stopped(&mut self) {
        match self {
            Self::Quic(arrival) => drop(arrival.stopped().await),
            Self::Tcp(arrival) => poll_fn(|cx| arrival.poll_stopped(cx)).await,
        }
    }

    fn reset(self, code: StreamCode) {
        match self {
            Self::Quic(arrival) => arrival.reset(code),
            Self::Tcp(arrival) => drop(arrival),
        }
    }

    async fn refuse(self, cause: OpenCause, reason: &str) -> Result<(), SendError> {
        let refused = Refused { cause, reason: reason.to_owned() };
        match self {
            Self::Quic(arrival) => arrival.refuse(&refused).await,
            Self::Tcp(arrival) => arrival.refuse(&refused),
        }
    }
}

impl RawArrival {
    pub(super) const fn quic(service: ServiceName, arrival: quic::ServiceArrival, in_flight: InFlight) -> Self {
        Self { service, client: None, half: ServiceHalf::Quic(arrival), in_flight }
    }

    pub(super) const fn tcp(service: ServiceName, arrival: tcp::ServiceArrival, in_flight: InFlight) -> Self {
        Self { service, client: None, half: ServiceHalf::Tcp(arrival), in_flight }
    }

    /// For this client of the responder.
    pub(super) const fn of(mut self, client: Option<ClientAddresses>) -> Self {
        self.client = client;
        self
    }

    /// The tunnel that it came through.
    pub fn tunnel(&self) -> TunnelFacts<'_> {
        TunnelFacts::new(self.in_flight.tunnel())
    }

    /// Does the work of connecting to the target when its turn has come. `None`: the responder has given the stream up or is
    /// gone, perhaps before the work began, and the work was dropped. spec: ST-62, SE-16
    ///
    /// # Cancel safety
    /// Cancel safe, as far as the work is.
    pub async fn connecting<F: Future>(&mut self, work: F) -> Option<F::Output> {
        in_turn(self.half.stopped(), &self.in_flight, work).await
    }

    /// Says that the target is connected.
    ///
    /// # Errors
    /// [`SendError`]: the responder has given the stream up.
    pub async fn accept(self) -> Result<RawStream, SendError> {
        match self.half {
            ServiceHalf::Quic(arrival) => {
                let (send, recv) = arrival.accept().await?;
                Ok(RawStream::quic(quic::RawSend::new(send), recv, self.in_flight))
            }
            ServiceHalf::Tcp(arrival) => {
                let (send, recv) = arrival.accept(self.in_flight.tunnel())?;
                Ok(RawStream::tcp(send, recv, self.in_flight))
            }
        }
    }

    /// Says that the target cannot be had, and why: at most 512 bytes of the reason are sent. Nothing of the stream may have
    /// reached a target. spec: ST-54
    ///
    /// # Errors
    /// [`SendError`]: the responder has given the stream up.
    pub async fn refuse(self, cause: OpenCause, reason: &str) -> Result<(), SendError> {
        self.half.refuse(cause, reason).await
    }

    /// Ends the stream without an answer; over TCP it is rejected, whatever the code.
    pub(crate) fn reset(self, code: StreamCode) {
        self.half.reset(code);
    }
}

/// Does the work when its turn has come, unless the responder gives up.
async fn in_turn<F: Future>(stopped: impl Future<Output = ()>, in_flight: &InFlight, work: F) -> Option<F::Output> {
    let tunnel = in_flight.shared();
    let mut beginning = Beginning::new(&tunnel);
    let work = async {
        beginning.turn().await;
        let done = work.await;
        // It is answered, whatever the answer is.
        beginning.taken();
        done
    };
    tokio::select! {
        biased;
        () = stopped => None,
        done = work => Some(done),
    }
}

impl FlowArrival {
    pub(super) fn quic(
        service: ServiceName,
        arrival: quic::ServiceArrival,
        place: quic::FlowPlace,
        in_flight: InFlight,
    ) -> Self {
        Self { service, client: None, half: FlowHalf::Quic(arrival, Box::new(place)), in_flight }
    }

    pub(super) const fn tcp(
        service: ServiceName,
        arrival: tcp::ServiceArrival,
        count: FlowCount,
        in_flight: InFlight,
    ) -> Self {
        Self { service, client: None, half: FlowHalf::Tcp(arrival, count), in_flight }
    }

    /// For this client of the responder.
    pub(super) const fn of(mut self, client: Option<ClientAddresses>) -> Self {
        self.client = client;
        self
    }

    /// The tunnel that it came through.
    pub fn tunnel(&self) -> TunnelFacts<'_> {
        TunnelFacts::new(self.in_flight.tunnel())
    }

    /// Does the work of making a socket towards the target when its turn has come; see [`RawArrival::connecting`].
    ///
    /// # Cancel safety
    /// Cancel safe, as far as the work is.
    pub async fn connecting<F: Future>(&mut self, work: F) -> Option<F::Output> {
        let stopped = async {
            match &mut self.half {
                FlowHalf::Quic(arrival, _) => drop(arrival.stopped().await),
                FlowHalf::Tcp(arrival, _) => poll_fn(|cx| arrival.poll_stopped(cx)).await,
            }
        };
        in_turn(stopped, &self.in_flight, work).await
    }

    /// Says that there is a socket towards the target.
    ///
    /// # Errors
    /// [`SendError`]: the responder has given the flow up.
    pub async fn accept(self) -> Result<Flow, SendError> {
        match self.half {
            FlowHalf::Quic(arrival, place) => {
                let (send, recv) = place.open(arrival.accept().await?);
                Ok(Flow::quic(send, recv, self.in_flight))
            }
            FlowHalf::Tcp(arrival, count) => {
                let (send, recv) = arrival.accept(self.in_flight.tunnel())?;
                let (send, recv) = (tcp::FlowSend::new(send), tcp::FlowRecv::new(recv));
                Ok(Flow::tcp(send, recv, (self.in_flight, Some(count))))
            }
        }
    }

    /// Says that the target cannot be had; see [`RawArrival::refuse`].
    ///
    /// # Errors
    /// [`SendError`]: the responder has given the flow up.
    pub async fn refuse(self, cause: OpenCause, reason: &str) -> Result<(), SendError> {
        self.half.into_service().refuse(cause, reason).await
    }

    /// As [`RawArrival::reset`].
    pub(crate) fn reset(self, code: StreamCode) {
        self.half.into_service().reset(code);
    }
}

/// A request. Dropping it refuses it as not processed, so that the responder may send it elsewhere.
#[derive(Debug)]
pub struct HttpArrival {
    /// Its head, checked; the URI has scheme and authority.
    pub parts: request::Parts,
    /// Its body.
    pub body: RecvBody,
    /// The exported service that it is for; without one, host and path decide.
    pub service: Option<ServiceName>,
    /// Takes the response.
    pub responder: Responder,
}

/// Takes the response to one request. Dropped before [`Responder::drive`] or [`Responder::respond`] it refuses the request
/// as not processed, later it resets the stream with `internal`.
#[derive(Debug)]
pub struct Responder {
    half: Half,
    /// Held until the response is out: the exchange counts as under way.
    arriving: Arriving,
}

#[derive(Debug)]
enum Half {
    Quic(quic::Responder),
    Tcp(tcp::Responder),
}

impl Half {
    fn say(&mut self, early: Early) {
        match (early, self) {
            (Early::Interim(response), half) => half.interim(response),
            (Early::Here, Self::Quic(responder)) => responder.here(),
            // Siblings speak QUIC alone.
            (Early::Here, Self::Tcp(_)) => {}
        }
    }

    fn interim(&mut self, response: Response<()>) {
        let status = response.status();
        if status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS {
            match self {
                Self::Quic(responder) => responder.interim(response),
                Self::Tcp(responder) => responder.interim(response),
            }
        }
    }

    /// From here on the request counts as processed. The future resolves when the responder has stopped the stream.
    fn begin(&mut self) -> Option<impl Future<Output = SendError> + Send + 'static + use<>> {
        match self {
            Self::Quic(responder) => Some(responder.begin()),
            Self::Tcp(responder) => {
                responder.begin();
                None
            }
        }
    }

    /// Ready once the responder does not want the answer any more.
    fn poll_cancelled(
        &mut self,
        stopped: Option<Pin<&mut impl Future<Output = SendError>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        match self {
            Self::Quic(responder) => responder.poll_cancelled(stopped, cx),
            Self::Tcp(responder) => responder.poll_cancelled(cx),
        }
    }
}

/// What is said of a request before its response.
#[derive(Debug)]
pub enum Early {
    /// An interim response.
    Interim(Response<()>),
    /// Its body is wanted; for siblings alone. spec: FL-47
    Here,
}

impl From<Response<()>> for Early {
    fn from(interim: Response<()>) -> Self {
        Self::Interim(interim)
    }
}

/// A response of which the head is on its way.
enum Sending {
    Quic(quic::Responding),
    Tcp(h2::SendStream<Bytes>),
    Over(Result<(), SendError>),
}

impl Sending {
    const fn failed(error: SendError) -> Self {
        Self::Over(Err(error))
    }
}

impl Responder {
    pub(super) const fn quic(responder: quic::Responder, arriving: Arriving) -> Self {
        Self { half: Half::Quic(responder), arriving }
    }

    pub(super) const fn tcp(responder: tcp::Responder, arriving: Arriving) -> Self {
        Self { half: Half::Tcp(responder), arriving }
    }

    /// The ledger of that tunnel.
    pub(super) fn credit(&self) -> &Ledger {
        self.arriving.tunnel().credit()
    }

    /// Counts the head of the request among those that are held. `false`: it has to be refused. spec: SE-15
    pub(super) fn hold(&mut self, head: &mut request::Parts) -> bool {
        hold(head, &mut self.arriving)
    }

    /// The tunnel that the request came through.
    pub fn tunnel(&self) -> TunnelFacts<'_> {
        TunnelFacts::new(self.arriving.tunnel())
    }

    /// Sends an interim response (1xx without 101) as soon as the stream takes it; others, and those that a responder who
    /// does not read leaves no room for, are dropped.
    pub fn interim(&mut self, response: Response<()>) {
        self.half.interim(response);
    }

    /// Does the work on the request when its turn has come, and sends what `early` brings meanwhile. `None`: the responder
    /// has cancelled the request or is gone, perhaps while it waited for its turn, and the work should be dropped at once.
    ///
    /// # Cancel safety
    /// Cancel safe, as far as the work is.
    pub async fn drive<F: Future, E: Into<Early>>(
        &mut self,
        mut work: Pin<&mut F>,
        mut early: impl FnMut(&mut Context<'_>) -> Poll<E>,
    ) -> Option<F::Output> {
        let mut stopped = pin!(self.half.begin());
        let mut turn = self.arriving.ask();
        let driven = poll_fn(|cx| {
            if turn.as_mut().is_some_and(|turn| turn.as_mut().as_mut().poll(cx).is_pending()) {
                return self.half.poll_cancelled(stopped.as_mut().as_pin_mut(), cx).map(|()| None);
            }
            if turn.take().is_some() {
                self.arriving.begin();
            }
            let done = work.as_mut().poll(cx);
            while let Poll::Ready(early) = early(cx) {
                self.half.say(early.into());
            }
            if let Poll::Ready(done) = done {
                return Poll::Ready(Some(done));
            }
            self.half.poll_cancelled(stopped.as_mut().as_pin_mut(), cx).map(|()| None)
        })
        .await;
        self.arriving.drop_head();
        driven
    }

    /// Sends the response to its end, or resets the stream. A body that does not end with the request's task ends with it:
    /// the responder's cancellation drops it.
    ///
    /// # Errors
    /// [`SendError`]: the response did not go out whole.
    ///
    /// # Cancel safety
    /// Dropping the future cuts the response.
    pub async fn respond<B>(self, response: Response<B>) -> Result<(), SendError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = response.into_parts();
        self.respond_with(parts, pin!(body)).await
    }

    /// As [`Responder::respond`], with a body that stays where it is.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    ///
    /// # Cancel safety
    /// As [`Responder::respond`].
    pub fn respond_with<B>(
        self,
        parts: response::Parts,
        body: Pin<&mut B>,
    ) -> impl Future<Output = Result<(), SendError>> + use<'_, B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let Self { half, arriving } = self;
        // Outside the future, which would otherwise hold the head too.
        let mut sending = match half {
            Half::Quic(responder) => {
                responder.begin_response(parts, body.is_end_stream()).map_or_else(Sending::failed, Sending::Quic)
            }
            Half::Tcp(responder) => match responder.begin_response(parts, body.is_end_stream()) {
                Ok(stream) => stream.map_or(Sending::Over(Ok(())), Sending::Tcp),
                Err(error) => Sending::failed(error),
            },
        };
        // Where a window takes nothing, a small piece is asked for more of its kind all the same.
        let mut taking = Taking::new(body, arriving, matches!(sending, Sending::Tcp(_)));
        async move {
            let outcome = match &mut sending {
                Sending::Quic(responding) => responding.run(Pin::new(&mut taking)).await,
                Sending::Tcp(stream) => tcp::send_response_body(stream, taking.tunnel(), Pin::new(&mut taking)).await,
                Sending::Over(outcome) => std::mem::replace(outcome, Ok(())),
            };
            if outcome.is_ok() {
                taking.taken();
            }
            outcome
        }
    }

    /// Ends the stream without a response.
    pub fn reset(self, code: StreamCode) {
        match self.half {
            Half::Quic(responder) => responder.reset(code),
            Half::Tcp(responder) => responder.reset(code),
        }
    }
}
