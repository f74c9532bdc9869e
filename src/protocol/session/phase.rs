//! The states of a session with what is known only there, and which event each of them allows. spec: CT-5, CT-7

use std::fmt;

use crate::protocol::control::FrameType;

/// Where a session stands. spec: CT-7
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Neither WELCOME nor REFUSE yet: no streams.
    Handshaking,
    /// Streams may be opened.
    Open,
    /// One end announced a drain: no new streams, those that run may finish.
    Draining,
    /// Over; the outputs that are left say why.
    Closed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshaking => "handshaking",
            Self::Open => "open",
            Self::Draining => "draining",
            Self::Closed => "closed",
        })
    }
}

/// Which end of the tunnel a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Initiator,
    Responder,
}

/// A state of the session, finer than [`State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Responder: HELLO comes next.
    AwaitHello,
    /// Responder: the caller decides about a HELLO; the peer must wait.
    AwaitDecision,
    /// Initiator: HELLO is sent and offered these versions.
    AwaitWelcome { offered: (u32, u32) },
    /// Streams may be opened.
    Open(Side),
    /// No new streams.
    Draining(Draining),
    /// Over.
    Closed,
}

/// Who said what while draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draining {
    pub(super) side: Side,
    pub(super) sent_drain: bool,
    pub(super) got_drain: bool,
    pub(super) sent_drained: bool,
}

impl Phase {
    pub(super) const fn state(&self) -> State {
        match self {
            Self::AwaitHello | Self::AwaitDecision | Self::AwaitWelcome { .. } => State::Handshaking,
            Self::Open(_) => State::Open,
            Self::Draining(_) => State::Draining,
            Self::Closed => State::Closed,
        }
    }

    /// Whether the handshake is over and the tunnel is not.
    pub(super) const fn is_live(&self) -> bool {
        self.side().is_some()
    }

    pub(super) fn is_live_as(&self, side: Side) -> bool {
        self.side() == Some(side)
    }

    pub(super) const fn may_refuse(&self) -> bool {
        matches!(self, Self::AwaitHello | Self::AwaitDecision)
    }

    pub(super) const fn may_drain(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Draining(Draining { sent_drain: false, sent_drained: false, .. }))
    }

    pub(super) const fn may_say_drained(&self) -> bool {
        matches!(self, Self::Draining(Draining { side: Side::Responder, sent_drained: false, .. }))
    }

    /// Whether this frame may arrive now; `closes`: CLOSE exists on this transport. spec: CT-5, CT-34
    pub(super) fn may_receive(&self, frame: FrameType, closes: bool) -> bool {
        match frame {
            FrameType::Hello => *self == Self::AwaitHello,
            FrameType::Welcome | FrameType::Refuse => matches!(self, Self::AwaitWelcome { .. }),
            FrameType::Ping | FrameType::Pong | FrameType::Limits => self.is_live(),
            FrameType::Services | FrameType::Health | FrameType::Reauth => self.is_live_as(Side::Responder),
            FrameType::Drain => matches!(self, Self::Open(_) | Self::Draining(Draining { got_drain: false, .. })),
            FrameType::Reauthed | FrameType::Roster => self.is_live_as(Side::Initiator),
            FrameType::Drained => matches!(self, Self::Draining(Draining { side: Side::Initiator, .. })),
            FrameType::Close => closes && !matches!(self, Self::AwaitHello),
        }
    }

    /// The state of a drain, entered if the session was open; only for a session that [`is_live`](Self::is_live).
    pub(super) fn enter_drain(&mut self) -> &mut Draining {
        if let Self::Open(side) = *self {
            *self = Self::Draining(Draining { side, sent_drain: false, got_drain: false, sent_drained: false });
        }
        match self {
            Self::Draining(draining) => draining,
            other => unreachable!("a drain is only entered while live, not while {}", other.state()),
        }
    }

    /// What is said when the time of a drain is over.
    pub(super) const fn last_word(&self) -> &'static str {
        match self {
            Self::Draining(Draining { sent_drained: true, .. }) => "drained",
            _ => "the drain deadline passed",
        }
    }

    const fn side(&self) -> Option<Side> {
        match self {
            Self::Open(side) => Some(*side),
            Self::Draining(draining) => Some(draining.side),
            _ => None,
        }
    }
}
