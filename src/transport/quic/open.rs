//! The responder's side of an HTTP stream over QUIC: a request out, a response back.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, request};

use crate::id::ServiceName;
use crate::message::BoxError;
use crate::message::length::of_tunnelled_response;
use crate::message::upgrade::Protocol;
use crate::protocol::code::StreamCode;
use crate::protocol::stream::{self, Event, RequestView, ResponseHead, Role, StreamError, StreamType};
use crate::protocol::wire::Malformed;
use crate::transport::body::RecvBody;
use crate::transport::error::{OpenError, SendError, TunnelLost};
use crate::transport::kind::TransportKind;
use crate::transport::open::{self, AnswerHead, HttpHead, HttpStream, Upload};
use crate::transport::quic::control::Connection;
use crate::transport::quic::streams::{MessageStream, Pieces, SendHalf, exceeds, lost};
use crate::transport::state::{InFlight, PathStats, TunnelSnapshot};
use crate::transport::tied::{Answered, Interest, Started, TiedUpload};
use crate::transport::via::Via;

/// How much memory the heads of the requests of a thread share; it is used again once all of them are sent.
const HEAD_ROOM_BYTES: usize = 8 * 1024;
/// A head is rarely longer.
const USUAL_HEAD_BYTES: usize = 512;
/// Room behind a head for the header of the first DATA frame and for END.
const BEHIND_HEAD_BYTES: usize = 32;

thread_local! {
    /// Where heads are encoded, so that not each of them is an allocation.
    static HEAD_ROOM: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(HEAD_ROOM_BYTES));
}

/// The sending half of a stream, with a head that is still to be sent.
#[derive(Debug)]
pub(crate) struct HttpUpload {
    send: SendHalf,
    head: BytesMut,
    /// What was pulled of the body already.
    ahead: Option<Pieces>,
}

impl HttpUpload {
    /// See [`Upload::start`].
    pub(crate) fn start<B>(&mut self, body: Pin<&mut B>) -> Started
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.send.start_message(&mut self.head, &mut self.ahead, body)
    }

    /// See [`Upload::send`].
    pub(crate) async fn send<B>(mut self, body: B, interest: Interest) -> Result<(), SendError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        // Not asked before: what has asked once stays with the tunnel where this end resets the stream.
        let stopped = self.send.stopped();
        let over = {
            let body = pin!(body);
            let sending = self.send.go_on_message(&mut self.head, self.ahead.take(), body);
            let over = async {
                match interest.ends().await {
                    Answered::Unwanted => SendError::Stopped(StreamCode::Cancelled),
                    Answered::Whole => stopped.await,
                }
            };
            tokio::select! {
                biased;
                sent = sending => return sent,
                over = over => over,
            }
        };
        self.send.give_up(&over);
        Err(over)
    }
}

/// The receiving half of a stream before the final head.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None` once the final head is there.
    stream: Option<MessageStream>,
    in_flight: Option<InFlight>,
    to_head: bool,
    /// What was asked for is another protocol.
    switches: bool,
    /// It came through a sibling, which speaks of one of its tunnels.
    relayed: bool,
}

impl Answer {
    /// See [`open::Answer::tie_upload`].
    pub(crate) fn tie_upload(&mut self) -> Interest {
        match &mut self.stream {
            Some(stream) => stream.tie_upload(),
            // It came already.
            None => TiedUpload::default().interest(),
        }
    }

    /// See [`open::Answer::poll_next`].
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, OpenError>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(OpenError::Reset(StreamCode::NoError))) };
        let in_flight = self.in_flight.as_ref();
        let event =
            ready!(stream.poll_event_within(cx, || in_flight.map(|in_flight| in_flight.tunnel().heads().takes())));
        let event = event.map_err(|error| OpenError::from(error).said_by_sibling(self.relayed));
        if let Err(OpenError::Reset(StreamCode::UnknownType)) = &event {
            if self.relayed {
                return Poll::Ready(Err(OpenError::Unsupported(StreamType::Http)));
            }
            if let Some(in_flight) = &self.in_flight {
                in_flight.tunnel().note_refused_type(StreamType::Http);
            }
        }
        Poll::Ready(match event? {
            Event::Response(head, end) => self.complete(head, end),
            Event::Info(head) => {
                let mut interim = Response::new(());
                *interim.status_mut() = head.status;
                *interim.headers_mut() = head.fields;
                Ok(AnswerHead::Interim(interim))
            }
            Event::Here => Ok(AnswerHead::Here),
            // The reader yields only heads before the head.
            _ => Err(OpenError::Reset(StreamCode::Protocol)),
        })
    }

    fn complete(&mut self, head: ResponseHead, end: bool) -> Result<AnswerHead, OpenError> {
        let in_flight = self.in_flight.take();
        let Some(mut stream) = self.stream.take() else { return Err(OpenError::Reset(StreamCode::NoError)) };
        let Ok(length) = of_tunnelled_response(self.to_head, head.status, &head.fields) else {
            stream.refuse(StreamCode::Protocol);
            return Err(StreamError::from(Malformed::Invalid("content-length")).into());
        };
        let body = match end {
            true => RecvBody::ended(stream, length),
            false => RecvBody::frames(stream, length, in_flight).watched_by_tunnel(self.switches),
        };
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = head.status;
        parts.headers = head.fields;
        Ok(AnswerHead::Final(parts, body))
    }
}

impl Connection {
    /// See [`Tunnel::open_http`](crate::transport::Tunnel::open_http).
    pub(crate) async fn open_http(&self, head: HttpHead<'_>) -> Result<HttpStream, OpenError> {
        // Another tunnel may take it. spec: ER-3
        self.state.check_takes(StreamType::Http).map_err(|error| OpenError::NotSent(TunnelLost(error.to_string())))?;
        let in_flight = self.state.begin();
        let HttpHead { service, parts, end } = head;
        let parts = parts.get();
        let relayed = self.via.is_some();
        let (mut encoded, bytes) = encode_head(self.via.as_ref(), (service, parts), end)?;
        if exceeds(self.state.peer_limits(), bytes, &parts.headers) {
            return Err(OpenError::HeadTooLarge);
        }
        self.state.ready_to_open().await?;
        let (send, recv) = self.open_stream().await?;
        let mut send = SendHalf::new(send, &self.send_room, self.state.peer_limits()).of_request();
        if end || relayed {
            // Where this is given up, `recv` stops the answer with code 0 and `send` resets the stream as cancelled.
            let sent = send.write_now_or_later(encoded.split().freeze()).await;
            sent.map_err(|error| not_sent(error).said_by_sibling(relayed))?;
        }
        let upload = if end {
            send.finish();
            None
        } else {
            Some(Upload::quic(HttpUpload { send, head: encoded, ahead: None }))
        };
        let role = if relayed { Role::Relayed } else { Role::Response };
        let stream = Some(MessageStream::new(recv, role, self.state.heads().takes()));
        let (to_head, switches) = (parts.method == Method::HEAD, parts.method == Method::CONNECT);
        let answer = open::Answer::quic(Answer { stream, in_flight: Some(in_flight), to_head, switches, relayed });
        Ok(HttpStream { upload, answer })
    }

    /// A stream, unless the peer takes no more of them.
    pub(super) async fn open_stream(&self) -> Result<(quinn::SendStream, quinn::RecvStream), OpenError> {
        let opened = match self.open_now() {
            Poll::Ready(opened) => opened,
            // Rare, and apart from the future of every exchange.
            Poll::Pending => {
                let opening = Box::pin(self.state.wait_for_room(self.quic.open_bi()));
                opening.await.ok_or(OpenError::NoRoom)?
            }
        };
        self.state.note_stream();
        opened.map_err(|error| OpenError::NotSent(lost(&error)))
    }

    /// A stream that can be opened without waiting.
    fn open_now(&self) -> Poll<Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>> {
        pin!(self.quic.open_bi()).poll(&mut Context::from_waker(Waker::noop()))
    }

    pub(crate) fn snapshot(&self) -> TunnelSnapshot {
        let stats = self.quic.stats();
        let path = PathStats {
            loss: stats.path.lost_packets as f64 / (stats.path.sent_packets.max(1)) as f64,
            lost_packets: stats.path.lost_packets,
            mtu: stats.path.current_mtu,
            congestion_window: stats.path.cwnd,
        };
        TunnelSnapshot {
            rtt_ms: stats.path.rtt.as_secs_f64() * 1e3,
            path: Some(path),
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            ..self.state.snapshot(TransportKind::Quic, self.quic.remote_address())
        }
    }
}

/// The head, and the bytes that count towards the peer's limit.
fn encode_head(
    via: Option<&Via>,
    (service, head): (Option<&ServiceName>, &request::Parts),
    end: bool,
) -> Result<(BytesMut, usize), OpenError> {
    let authority = head.uri.authority().ok_or(OpenError::Request("it has no authority"))?;
    let protocol = open::asked_protocol(head)?;
    let request = RequestView {
        method: &head.method,
        scheme: head.uri.scheme().unwrap_or(&http::uri::Scheme::HTTP),
        authority: authority.as_str(),
        path: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        service,
        protocol: protocol.map(Protocol::as_str),
        fields: &head.headers,
    };
    Ok(HEAD_ROOM.with_borrow_mut(|room| {
        room.reserve(USUAL_HEAD_BYTES);
        room.extend_from_slice(via.map_or(&[], Via::route));
        let bytes = stream::encode_request(request, end, room);
        room.reserve(BEHIND_HEAD_BYTES);
        let rest = room.split_off(room.len() + BEHIND_HEAD_BYTES);
        (std::mem::replace(room, rest), bytes)
    }))
}

/// A stream that failed before its head was whole never became a request at the other end.
fn not_sent(error: SendError) -> OpenError {
    match error {
        SendError::Stopped(code) => OpenError::of_reset(code),
        SendError::Lost(lost) => OpenError::NotSent(lost),
        SendError::Source(_) | SendError::Head(_) | SendError::Limit => {
            OpenError::NotSent(TunnelLost(error.to_string()))
        }
    }
}

/// The value of content-length, if there is a readable one.
pub(super) fn content_length(fields: &HeaderMap) -> Option<u64> {
    crate::message::length::content_length(fields).ok().flatten()
}
