//! Tunnels over QUIC: one connection is one tunnel, one bidirectional stream is one exchange. proto-spec sections 2 to 4.

mod accept;
mod amplification;
mod control;
mod credit;
mod datagrams;
mod dial;
mod endpoint;
mod fleet;
mod open;
mod open_service;
mod proof;
mod respond;
mod serve;
mod service;
mod settings;
mod siblings;
mod socket;
mod streams;

pub use crate::transport::settings::CongestionControl;
pub use accept::{Incoming, Listener, ServerConfig};
pub(crate) use accept::{Pending, Prepared};
pub(crate) use accept::{new_tunnel_id, peer_certificates};
pub(crate) use dial::Dialed;
pub use dial::{Connected, Dialer};
pub use endpoint::{BindError, Keys, bind};
pub(crate) use fleet::{Asking, Claiming, Relay, SiblingDialer};
pub use settings::QuicSettings;
pub use socket::{dialling_socket, listening_socket};

pub(crate) use control::Connection;
pub(crate) use datagrams::{FlowPlace, FlowRecv, FlowSend};
pub(crate) use open::{Answer, HttpUpload};
pub(crate) use respond::{Responder, Responding};
pub(crate) use service::{RawSend, ServiceArrival, ServiceRecv};
pub(crate) use streams::MessageStream;
