//! Tunnels over TCP: the same control frames through the same session, then HTTP/2 whose client is the responder.
//! proto-spec `8-tcp.md`.

mod accept;
mod codes;
mod connection;
mod control;
mod dial;
pub mod envoy;
mod handshake;
mod hidden;
mod narrow;
mod open;
mod raw;
mod respond;
mod serve;
mod service;
mod settings;
mod window;
mod wire;

pub use accept::{Incoming, Listener};
pub(crate) use accept::{Pending, Prepared, TcpClaim};
pub(crate) use codes::send_response_body;
pub(crate) use connection::Connection;
pub(crate) use dial::Dialed;
pub use dial::{Connected, Dialer};
pub(crate) use open::{Answer, HttpUpload};
pub(crate) use respond::Responder;
pub(crate) use service::{FlowRecv, FlowSend, RawRecv, RawSend, ServiceArrival};
pub use settings::TcpSettings;
