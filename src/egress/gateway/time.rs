//! How long an exchange may take, and how long it may rest, by what kind of exchange it is.
//!
//! Most have a deadline for the begin of their response, their client has to deliver its body, and what does not move is cut.
//! A call of gRPC has the time that its client gives it, and no other: either side may be silent in the middle of a stream,
//! and the head of the response may come with its first message only. But a call of which nothing comes is none, and its
//! client has to begin it. An event stream may be silent once it has begun, and
//! so may what goes on in another protocol, such as a WebSocket. All of them live as long as the connections that they go
//! over. What CONNECT opened may rest as long as the listener says, by default just as long.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Response, Version, request};
use tokio::time::Instant;

use super::Way;
use crate::egress::ConnectionInfo;
use crate::message::connect::is_plain;
use crate::message::failure::Failure;
use crate::message::grpc;
use crate::message::upgrade::{Declined, Protocol};
use crate::proxy::{Pace, Record};
use crate::shares::What;

/// What an event stream is known by.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Whose time an exchange takes until its response begins, and of what kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// The deadline is for the other side, while it is its turn.
    Turns,
    /// A call of gRPC: the deadline is for all of it, whoever's turn it is.
    Call,
    /// A wish for another protocol, for whose answer the client waits.
    Switch,
    /// A wish for bytes both ways, likewise.
    Connect,
}

impl Time {
    /// Of this request, with its deadline; `deadline` is that of the listener. That of a call is [`Duration::MAX`] where its
    /// client sets none, and that of the listener where it sets one that cannot be read.
    pub(super) fn of(head: &request::Parts, deadline: Duration) -> (Self, Duration) {
        if head.version >= Version::HTTP_2 && grpc::is_call(head) {
            return (Self::Call, grpc::limit(&head.headers, deadline));
        }
        match head.extensions.get::<Protocol>() {
            Some(_) => (Self::Switch, deadline),
            None if is_plain(head) => (Self::Connect, deadline),
            None => (Self::Turns, deadline),
        }
    }

    /// What it counts as.
    pub(super) fn what(self) -> What {
        if self == Self::Connect { What::Stream } else { What::Exchange }
    }

    /// How long the client may rest before the response begins, or before a call does.
    pub(super) fn pace(self, connection: &ConnectionInfo) -> Option<&Pace> {
        match self {
            Self::Turns => Some(connection.pace()),
            Self::Call => Some(connection.call_pace()),
            Self::Switch | Self::Connect => None,
        }
    }
}

/// How long a response that has begun may rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// As long as the listener allows.
    Paced,
    /// As long as it allows a CONNECT.
    Connected,
    /// As long as it likes.
    Free,
    /// The same, for a call: a failure is told in its trailers.
    Call,
    /// The same, up to the end of the time that the client has set.
    CallUntil(Instant),
}

impl Rest {
    pub(super) fn of<B>(outcome: &Result<Response<B>, Failure>, way: &Result<Way, Failure>, record: &Record) -> Self {
        let (Ok(response), Ok(way)) = (outcome, way) else { return Self::Paced };
        match way.time {
            Time::Call => {
                let left = way.deadline.saturating_sub(record.age());
                let end = Instant::now().checked_add(left).filter(|_| way.deadline < Duration::MAX);
                end.map_or(Self::Call, Self::CallUntil)
            }
            Time::Turns if is_event_stream(response) => Self::Free,
            Time::Switch if switches(response) => Self::Free,
            Time::Connect => Self::Connected,
            Time::Turns | Time::Switch => Self::Paced,
        }
    }
}

/// Whether the wish for another protocol was granted.
fn switches<B>(response: &Response<B>) -> bool {
    response.status().is_success() && response.extensions().get::<Declined>().is_none()
}

fn is_event_stream<B>(response: &Response<B>) -> bool {
    let begins = |value: &[u8]| {
        value.get(..EVENT_STREAM.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(EVENT_STREAM))
            && matches!(value.get(EVENT_STREAM.len()), None | Some(b';' | b' '))
    };
    response.headers().get(CONTENT_TYPE).is_some_and(|value| begins(value.as_bytes()))
}
