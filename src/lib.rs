//! adit: reverse tunnels over QUIC.

pub mod admin;
pub mod app;
pub mod config;
pub mod egress;
pub mod id;
pub mod initiator;
pub mod lifecycle;
pub mod net;
pub mod policy;
pub mod protocol;
pub mod proxy;
pub mod registry;
pub mod responder;
pub mod routing;
pub mod telemetry;
pub mod template;
pub mod tls;
pub mod transport;
