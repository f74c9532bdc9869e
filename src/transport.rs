//! A live tunnel and its opener, whatever it runs over.
//!
//! Row 7. A [`Tunnel`] is one authenticated connection; both roles hold one. The responder opens streams with
//! [`Tunnel::open_http`], [`Tunnel::open_raw`] and [`Tunnel::open_flow`]; the initiator hands what arrives to an
//! [`Accept`], of which [`HttpService`] serves requests with any [`Serve`]. To exchange a request for a response is the
//! business of `proxy`: this module knows nothing of egress listeners, targets or the registry's contents. proto-spec
//! sections 3, 4 and 8.

mod accept;
mod arrival;
mod asking;
mod body;
mod control;
mod credit;
mod dial;
mod down;
mod error;
mod flow;
pub(crate) mod handshakes;
mod heads;
mod kind;
mod latest;
mod link;
mod open;
pub mod quic;
mod raw;
mod serve;
mod settings;
mod state;
pub mod tcp;
mod tied;
mod tunnel;
mod unwritten;
mod via;

pub use accept::{AcceptError, Claimant, Incoming, Missing, Pending, Prepared};
pub use arrival::{
    Accept, Arrival, Early, FlowArrival, HttpArrival, RawArrival, Responder, StreamRefusal, TunnelFacts,
};
pub use body::RecvBody;
pub use dial::{Connected, Dialed, Dialer};
pub use error::{BodyError, DialError, OpenError, SendError, TunnelLost};
pub use flow::{Flow, FlowRecv, FlowSend};
pub use kind::{TransportChoice, TransportKind};
pub use open::{Answer, AnswerHead, HeadParts, HttpHead, HttpStream, Upload};
pub(crate) use quic::{Asking, Claiming, Relay, SiblingDialer};
pub use raw::{RawError, RawRecv, RawSend, RawStream};
pub use serve::{HttpService, Refusing, Serve, http_only};
pub(crate) use settings::MAX_STREAMS;
pub use settings::{CongestionControl, TunnelSettings};
pub use state::{CloseReason, PathStats, Phase, ServiceDown, TunnelSnapshot};
pub use tied::{Interest, Started};
pub use tunnel::Tunnel;
pub(crate) use via::{NotHere, Via};
