//! adit: reverse tunnels over QUIC.

pub mod id;
pub mod lifecycle;
pub mod net;
pub mod protocol;
pub mod tls;
