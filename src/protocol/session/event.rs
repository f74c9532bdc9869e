//! What a session asks of its caller.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::code::CloseCode;
use crate::protocol::control::Drain;
use crate::protocol::handshake::{Hello, PeerLimits, Refusal, Service, Welcome};
use crate::protocol::health::Health;
use crate::protocol::reauth::{Reauth, Reauthed};
use crate::protocol::roster::Roster;

/// What happened, for the caller to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Responder: a claim arrived; answer with [`Session::welcome`](super::Session::welcome) or
    /// [`Session::refuse`](super::Session::refuse).
    Hello(Box<Hello>),
    /// Initiator: the tunnel is open.
    Welcomed(Box<Welcome>),
    /// Initiator: there is no tunnel; a close follows.
    Refused(Refusal),
    /// A probe went unanswered: prefer other tunnels.
    Suspect,
    /// The peer was heard again after [`Event::Suspect`].
    Alive,
    /// The peer wants no new streams.
    PeerDraining(Drain),
    /// Initiator: nothing runs on the responder's side any more; a close follows.
    PeerDrained,
    /// Responder: what the initiator exports from now on.
    Services(Vec<Service>),
    /// What the peer takes from now on.
    Limits(PeerLimits),
    /// What the peer may go by from now on of what this end takes: as much has to be taken. It comes before the LIMITS that
    /// says more, and after the time in which less is still exceeded. spec: CT-31, CT-33
    Takes(PeerLimits),
    /// Responder: which services of the initiator are down now.
    Health(Health),
    /// Responder: another credential; answer with [`Session::reauthed`](super::Session::reauthed).
    Reauth(Box<Reauth>),
    /// Initiator: whether the credential counts that it showed.
    Reauthed(Reauthed),
    /// Initiator: which responders of the fleet there are now; `None`: the responder is in no fleet any more.
    Roster(Option<Roster>),
    /// A probe came back after this long.
    Rtt(Duration),
}

/// The next thing that the caller must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write these bytes to the control stream.
    Send(Bytes),
    /// Take note.
    Event(Event),
    /// End the tunnel; after a REFUSE, once that has arrived or had 3 s to do so. Always the last output. spec: CT-25
    Close {
        /// The code of CONNECTION_CLOSE.
        code: CloseCode,
        /// The reason, for people.
        reason: String,
        /// The peer said so: it need not be told. spec: CT-34
        by_peer: bool,
    },
}
