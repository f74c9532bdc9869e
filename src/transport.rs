//! A live tunnel and its opener, whatever it runs over.
//!
//! Row 7. A [`Tunnel`] is one authenticated connection that carries exchanges; both roles hold one. The responder calls
//! [`Tunnel::exchange`]; the initiator serves what arrives with any [`Serve`]. This module knows nothing of egress
//! listeners, targets or the registry's contents: it moves messages and reports health. proto-spec sections 3 and 4.

mod accept;
mod arrival;
mod body;
mod control;
mod dial;
mod error;
mod flow;
mod kind;
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

pub use accept::{AcceptError, Incoming, Missing, Pending, Prepared, Shown};
pub use arrival::{Accept, Arrival, FlowArrival, HttpArrival, RawArrival, Responder};
pub use body::RecvBody;
pub use dial::{Connected, Dialed, Dialer};
pub use error::{BodyError, DialError, OpenError, SendError, TunnelLost};
pub use flow::{Flow, FlowRecv, FlowSend};
pub use kind::{TransportChoice, TransportKind};
pub use open::{Answer, AnswerHead, HeadParts, HttpHead, HttpStream, Upload};
pub use raw::{RawError, RawRecv, RawSend, RawStream};
pub use serve::{HttpService, Refusing, Serve, http_only};
pub use settings::TunnelSettings;
pub use state::{CloseReason, PathStats, Phase, TunnelSnapshot};
pub use tied::Started;
pub use tunnel::Tunnel;
