//! A client that asks for little, each time on a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use crate::steady::{self, Seen};
use crate::support::http1::get;
use crate::support::site::TO_NODE;

/// Nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks `rate` times a second for `time`.
pub(crate) async fn ask(egress: SocketAddr, rate: u32, time: Duration) -> Seen {
    steady::ask(rate, (time, PATIENCE), || get(egress, "/ok", &[TO_NODE, "connection: close"])).await
}
