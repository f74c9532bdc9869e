//! A live tunnel and its opener, whatever it runs over.
//!
//! Row 6. A [`Tunnel`] is one authenticated connection that carries exchanges; both roles hold one. The responder calls
//! [`Tunnel::exchange`]; the initiator serves what arrives with any [`Serve`]. This module knows nothing of egress
//! listeners, targets or the registry's contents: it moves messages and reports health. proto-spec sections 3 and 4.

mod body;
mod error;
pub mod quic;
mod serve;
mod state;
mod tunnel;

pub use body::RecvBody;
pub use error::{BodyError, BoxError, DialError, ExchangeError, TunnelLost};
pub use serve::{InformationalSink, Serve};
pub use state::{CloseReason, Phase, TunnelSnapshot};
pub use tunnel::Tunnel;
