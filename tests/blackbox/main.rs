//! What adit promises, shown over real sockets: one file per capability.
#![allow(clippy::unwrap_used)]

mod admin;
mod authorization;
mod auto;
mod calls;
mod certificates;
mod cli;
mod connect;
mod drain;
mod envoy_interop;
mod examples;
mod fleet;
mod foreign_initiator;
mod handles;
mod harness;
mod health;
mod hop;
mod hostile_peer;
mod http2_targets;
mod http3_egress;
mod http_egress;
mod keepalive;
mod logs;
mod policies;
mod reconnect;
mod records;
mod reload;
mod rewriting;
mod routing;
mod service_limits;
mod shares;
mod stalled;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod targets;
mod tcp_egress;
mod tunnel;
mod udp;
mod unreachable;
mod upgrades;
