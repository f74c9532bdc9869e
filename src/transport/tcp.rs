//! Tunnels over TCP: the same control frames through the same session, then HTTP/2 whose client is the responder.
//! proto-spec `8-tcp.md`.

mod accept;
mod body;
mod control;
mod dial;
mod exchange;
mod fields;
mod handshake;
mod send;
mod serve;
mod settings;
mod wire;

pub use accept::{Incoming, Listener};
pub(crate) use accept::{Pending, Prepared};
pub(crate) use body::Http2Body;
pub(crate) use dial::Dialed;
pub use dial::{Connected, Dialer};
pub(crate) use exchange::Connection;
pub use settings::TcpSettings;
