//! Raw streams and flows over HTTP/2: an extended CONNECT each. spec: TB-12 to TB-15

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::timeout;

use crate::id::ServiceName;
use crate::message::h2::send::KEPT_IN_LINE;
use crate::message::h2::small::Inflow;
use crate::message::queued::Queued;
use crate::protocol::code::{OpenCause, StreamCode};
use crate::protocol::limits::{DEFAULT_OPEN_TIMEOUT, MAX_REASON_BYTES};
use crate::protocol::stream::{
    self, ClientAddresses, ClientError, Refused, ServiceEvent, ServiceReader, StreamError, StreamType,
};
use crate::protocol::tcp::{
    AUTHORITY, CAUSE_FIELD, CLIENT_FIELD, FLOW_PROTOCOL, RAW_PROTOCOL, REASON_FIELD, SERVICE_FIELD, SERVICE_URI,
};
use crate::transport::credit::{Revoke, Unread, unread};
use crate::transport::error::{OpenError, SendError, peer_text};
use crate::transport::flow::Flow;
use crate::transport::kind::Dialect;
use crate::transport::raw::{RawError, RawStream};
use crate::transport::state::TunnelState;
use crate::transport::tcp::codes::{failed_read, failed_send, reason, stream_code};
use crate::transport::tcp::connection::Connection;
use crate::transport::tcp::open::before_head;
use crate::transport::unwritten::{Unwritten, Waiting};

/// The most bytes that are handed to HTTP/2 in one piece.
const WRITE_BYTES: usize = 64 * 1024;

/// What `:protocol` asks for.
const fn protocol(stream_type: StreamType) -> &'static str {
    match stream_type {
        StreamType::Flow => FLOW_PROTOCOL,
        StreamType::Http | StreamType::Raw => RAW_PROTOCOL,
    }
}

impl Connection {
    /// See [`Tunnel::open_raw`](crate::transport::Tunnel::open_raw).
    pub(crate) async fn open_raw(
        &self,
        limit: Duration,
        service: &ServiceName,
        client: Option<ClientAddresses>,
    ) -> Result<RawStream, OpenError> {
        let in_flight = self.state.begin();
        let (send, recv) = self.connect(limit, (service, client), StreamType::Raw).await?;
        Ok(RawStream::tcp(RawSend::new(send, &self.state), recv, in_flight))
    }

    /// See [`Tunnel::open_flow`](crate::transport::Tunnel::open_flow).
    pub(crate) async fn open_flow(
        &self,
        service: &ServiceName,
        client: Option<ClientAddresses>,
    ) -> Result<Flow, OpenError> {
        let in_flight = self.state.begin();
        let (send, recv) = self.connect(DEFAULT_OPEN_TIMEOUT, (service, client), StreamType::Flow).await?;
        let send = RawSend::new(send, &self.state);
        Ok(Flow::tcp(FlowSend::new(send), FlowRecv::new(recv), (in_flight, None)))
    }

    async fn connect(
        &self,
        limit: Duration,
        (service, client): (&ServiceName, Option<ClientAddresses>),
        stream_type: StreamType,
    ) -> Result<(SendStream<Bytes>, RawRecv), OpenError> {
        if self.dialect == Dialect::Envoy {
            return Err(OpenError::Unsupported(stream_type));
        }
        self.state.ready_to_open().await?;
        self.state.check_takes(stream_type)?;
        let mut sender = self.stream_slot().await?;
        // Nothing is known of the initiator's HTTP/2 before its SETTINGS, which come before the control stream's answer.
        if !sender.is_extended_connect_protocol_enabled() {
            self.requests.settled().await.map_err(OpenError::NotSent)?;
        }
        if !sender.is_extended_connect_protocol_enabled() {
            return Err(OpenError::Unsupported(stream_type));
        }
        let sent = sender.send_request(request(service, client, stream_type), false);
        let (response, mut send) = sent.map_err(|error| self.not_sent(&error))?;
        let response = match timeout(limit, response).await {
            Ok(response) => response.map_err(|error| before_head(&error))?,
            Err(_) => {
                send.send_reset(reason(StreamCode::Cancelled));
                return Err(OpenError::TimedOut);
            }
        };
        if response.status() == StatusCode::OK {
            return Ok((send, RawRecv::new(response.into_body(), &self.state)));
        }
        // The stream is done: nothing was sent that would have to be taken back.
        let _ = send.send_data(Bytes::new(), true);
        if response.status() == StatusCode::NOT_IMPLEMENTED && !response.headers().contains_key(&CAUSE_FIELD) {
            return Err(self.state.note_refused_type(stream_type));
        }
        Err(OpenError::Refused(refusal(&response)))
    }
}

fn request(service: &ServiceName, client: Option<ClientAddresses>, stream_type: StreamType) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from_static(SERVICE_URI);
    *request.version_mut() = Version::HTTP_2;
    let name = HeaderValue::from_str(service.as_str()).expect("a service name is visible ASCII");
    request.headers_mut().insert(SERVICE_FIELD.clone(), name);
    if let Some(client) = client {
        let client = HeaderValue::try_from(client.to_string()).expect("addresses are visible ASCII, and a space");
        request.headers_mut().insert(CLIENT_FIELD.clone(), client);
    }
    request.extensions_mut().insert(Protocol::from_static(protocol(stream_type)));
    request
}

/// What a response that is not 200 says. spec: TB-13
fn refusal<B>(response: &Response<B>) -> Refused {
    let cause = response.headers().get(&CAUSE_FIELD).and_then(|cause| cause.to_str().ok()?.parse().ok());
    let reason = response.headers().get(&REASON_FIELD).map(|reason| peer_text(reason.as_bytes()));
    Refused {
        cause: cause.and_then(OpenCause::from_number).unwrap_or(OpenCause::Internal),
        reason: reason.unwrap_or_default(),
    }
}

/// Which raw stream or flow a request opens, if it is one that does. spec: TB-12
pub(super) fn asked_for(request: &Request<RecvStream>) -> Option<StreamType> {
    let asked = request.extensions().get::<Protocol>()?;
    [StreamType::Raw, StreamType::Flow].into_iter().find(|&known| protocol(known) == asked.as_str())
}

/// Who connected, if the responder says so. spec: TB-16
///
/// # Errors
///
/// It says it in a way that cannot be read.
pub(super) fn take_client(fields: &mut HeaderMap) -> Result<Option<ClientAddresses>, ClientError> {
    let values: Vec<HeaderValue> = fields.get_all(&CLIENT_FIELD).iter().cloned().collect();
    fields.remove(&CLIENT_FIELD);
    match &values[..] {
        [] => Ok(None),
        [client] => client.to_str().map_err(|_| ClientError)?.parse().map(Some),
        _ => Err(ClientError),
    }
}

/// Whether the request's target is the one that raw streams and flows have. spec: TB-12
pub(super) fn has_service_target(uri: &Uri) -> bool {
    let path = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    uri.scheme_str() == Some("https")
        && uri.authority().map(http::uri::Authority::as_str) == Some(AUTHORITY)
        && path == Some("/")
}

/// What the initiator does with a stream that names a service: accept or refuse it. Dropped, it rejects it.
#[derive(Debug)]
pub(crate) struct ServiceArrival {
    respond: SendResponse<Bytes>,
    recv: Option<RawRecv>,
    /// What dropping it tells the peer; `None` once answered.
    on_drop: Option<StreamCode>,
}

impl ServiceArrival {
    pub(super) const fn new(respond: SendResponse<Bytes>, recv: RawRecv) -> Self {
        Self { respond, recv: Some(recv), on_drop: Some(StreamCode::Rejected) }
    }

    /// Ready once the responder has given the stream up.
    pub(crate) fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.respond.poll_reset(cx).map(drop)
    }

    /// Says 200.
    pub(crate) fn accept(mut self, tunnel: &TunnelState) -> Result<(RawSend, RawRecv), SendError> {
        let recv = self.recv.take().expect("it is taken here alone");
        self.on_drop = None;
        let sent = self.respond.send_response(Response::new(()), false);
        Ok((RawSend::new(sent.map_err(failed_send)?, tunnel), recv))
    }

    /// Says no. spec: TB-13
    pub(crate) fn refuse(mut self, refused: &Refused) -> Result<(), SendError> {
        let mut response = Response::new(());
        *response.status_mut() = refused.cause.status();
        response.headers_mut().insert(CAUSE_FIELD.clone(), HeaderValue::from(refused.cause.number()));
        let text: String =
            refused.reason.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        let text = text.get(..MAX_REASON_BYTES).unwrap_or(&text).trim();
        if let Ok(text) = HeaderValue::from_str(text)
            && !text.is_empty()
        {
            response.headers_mut().insert(REASON_FIELD.clone(), text);
        }
        self.on_drop = None;
        self.respond.send_response(response, true).map(drop).map_err(failed_send)
    }
}

impl Drop for ServiceArrival {
    fn drop(&mut self) {
        if let Some(code) = self.on_drop {
            self.respond.send_reset(reason(code));
        }
    }
}

/// What may be sent at once.
#[derive(Debug, Clone, Copy)]
struct Room {
    length: usize,
    /// The room that was taken for it; the length, or more.
    reserved: usize,
}

/// The sending half of a raw stream or a flow.
#[derive(Debug)]
pub(crate) struct RawSend {
    stream: SendStream<Bytes>,
    /// END_STREAM or a reset was sent.
    ended: bool,
    queued: Queued,
    /// Of the tunnel. spec: SE-17
    room: Arc<Unwritten>,
    waiting: Waiting,
}

impl RawSend {
    pub(crate) fn new(stream: SendStream<Bytes>, tunnel: &TunnelState) -> Self {
        let room = Arc::clone(tunnel.unwritten());
        Self { stream, ended: false, queued: Queued::default(), room, waiting: Waiting::default() }
    }

    pub(crate) async fn send(&mut self, mut bytes: Bytes) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let room = poll_fn(|cx| self.poll_capacity(bytes.len(), cx)).await?;
            self.put(bytes.split_to(room.length), room)?;
        }
        Ok(())
    }

    pub(crate) fn poll_write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_capacity(bytes.len().min(WRITE_BYTES), cx))?;
        self.put(Bytes::copy_from_slice(&bytes[..room.length]), room)?;
        Poll::Ready(Ok(room.length))
    }

    fn put(&mut self, piece: Bytes, Room { reserved, .. }: Room) -> Result<(), SendError> {
        let piece = self.room.put(self.queued.count(piece), reserved);
        self.stream.send_data(piece, false).map_err(failed_send)
    }

    /// How much of that the other end's windows take by now, at least a byte; the room for it is taken.
    fn poll_capacity(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<Room, SendError>> {
        loop {
            if !self.waiting.is_in_line() {
                self.stream.reserve_capacity(wanted);
                let granted = ready!(self.poll_granted(cx))?;
                if let Some(reserved) = self.room.try_reserve(granted.min(wanted)) {
                    return Poll::Ready(Ok(Room { length: reserved, reserved }));
                }
                self.stream.reserve_capacity(wanted.min(KEPT_IN_LINE));
            }
            let reserved = ready!(self.poll_room(wanted, cx))?;
            self.stream.reserve_capacity(wanted);
            match self.stream.capacity() {
                0 => drop(self.room.put(Bytes::new(), reserved)),
                granted => return Poll::Ready(Ok(Room { length: granted.min(wanted).min(reserved), reserved })),
            }
        }
    }

    fn poll_granted(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        loop {
            match self.stream.capacity() {
                0 => {}
                granted => return Poll::Ready(Ok(granted)),
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Err(error)) => return Poll::Ready(Err(failed_send(error))),
                Some(Ok(0)) => {}
                Some(Ok(granted)) => return Poll::Ready(Ok(granted)),
                // The stream no longer sends: it was reset, and the reason is there to be asked for.
                None => {
                    let code = ready!(self.stream.poll_reset(cx)).map_err(failed_send)?;
                    return Poll::Ready(Err(SendError::Stopped(stream_code(code))));
                }
            }
        }
    }

    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        match self.room.poll_reserve(&mut self.waiting, wanted, cx) {
            Poll::Ready(granted) => Poll::Ready(Ok(granted)),
            // Who waits for others of its tunnel must not miss that the peer wants no more.
            Poll::Pending => self.poll_stopped(cx).map(Err),
        }
    }

    pub(crate) fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<SendError> {
        self.stream.poll_reset(cx).map(|stopped| match stopped {
            Ok(code) => SendError::Stopped(stream_code(code)),
            Err(error) => failed_send(error),
        })
    }

    /// END_STREAM.
    pub(crate) fn finish(&mut self) -> Result<(), SendError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.stream.send_data(Bytes::new(), true).map_err(failed_send)
    }

    pub(crate) fn reset(mut self, code: StreamCode) {
        self.end_with(code);
    }

    fn end_with(&mut self, code: StreamCode) {
        self.ended = true;
        self.stream.send_reset(reason(code));
    }

    /// A reset behind all that was sent. Cancel safety: dropped, it is one in place of what still waits. spec: TB-14
    pub(crate) async fn cut(mut self) {
        self.queued.gone(None, |cx| self.stream.poll_reset(cx).map(drop)).await;
        self.reset(StreamCode::Truncated);
    }
}

impl Drop for RawSend {
    fn drop(&mut self) {
        if !self.ended {
            self.stream.send_reset(reason(StreamCode::Cancelled));
        }
    }
}

/// The sending half of a flow; dropping it ends the flow.
#[derive(Debug)]
pub(crate) struct FlowSend(RawSend);

impl FlowSend {
    pub(crate) const fn new(send: RawSend) -> Self {
        Self(send)
    }

    /// A DATAGRAM frame. spec: TB-15
    pub(crate) async fn send(&mut self, payload: Bytes) -> Result<(), SendError> {
        let mut frame = BytesMut::with_capacity(payload.len() + 8);
        stream::encode_datagram_header(payload.len(), &mut frame);
        frame.extend_from_slice(&payload);
        self.0.send(frame.freeze()).await
    }

    pub(crate) fn finish(mut self) -> Result<(), SendError> {
        self.0.finish()
    }

    pub(crate) fn reset(mut self, code: StreamCode) {
        self.0.end_with(code);
    }
}

impl Drop for FlowSend {
    fn drop(&mut self) {
        // A stream that is gone has ended the flow already.
        let _ = self.0.finish();
    }
}

/// The receiving half of a raw stream. HTTP/2 tells the peer that nobody listens when the sending half is dropped too.
#[derive(Debug)]
pub(crate) struct RawRecv(Inflow);

impl RawRecv {
    pub(super) fn new(stream: RecvStream, tunnel: &TunnelState) -> Self {
        Self(Inflow::new(stream, tunnel.small_frames()))
    }

    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, RawError>> {
        loop {
            let Some(data) = ready!(self.0.poll_data(cx)).transpose().map_err(failed_read)? else {
                return Poll::Ready(Ok(None));
            };
            // Handed on is as good as read. It fails only when the stream is gone, which the next read tells.
            let _ = self.0.flow_control().release_capacity(data.len());
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data)));
            }
        }
    }
}

impl Revoke for RawRecv {
    fn unread(&mut self) -> Unread {
        unread(self.0.flow_control().used_capacity())
    }

    /// Dropped, it gives back what it holds of the connection's window, and takes nothing more of it. The stream itself is
    /// reset when the sending half is dropped too.
    fn revoke(self) {}
}

impl Revoke for FlowRecv {
    /// As that of a raw stream.
    fn revoke(self) {}
}

/// The receiving half of a flow.
#[derive(Debug)]
pub(crate) struct FlowRecv {
    stream: RawRecv,
    reader: ServiceReader,
}

impl FlowRecv {
    pub(crate) fn new(stream: RawRecv) -> Self {
        Self { stream, reader: ServiceReader::of_datagrams() }
    }

    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, RawError>> {
        loop {
            match self.reader.next().map_err(RawError::Protocol)? {
                Some(ServiceEvent::Datagram(datagram)) => return Poll::Ready(Ok(Some(datagram))),
                // The reader yields nothing else.
                Some(_) => return Poll::Ready(Err(RawError::Reset(StreamCode::Protocol))),
                None => {}
            }
            match ready!(self.stream.poll_data(cx))? {
                Some(data) => self.reader.push(data),
                None => {
                    return Poll::Ready(match self.reader.finish() {
                        Ok(()) => Ok(None),
                        Err(StreamError::Truncated) => Err(RawError::Cut),
                        Err(error) => Err(RawError::Protocol(error)),
                    });
                }
            }
        }
    }
}
