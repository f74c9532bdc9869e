//! A request enters an egress listener, and the target answers as if nothing were in between.

mod budgets;
mod cancellation;
mod heads;
mod http1;
mod http2;
mod messages;
mod programs;
mod proxied;
mod streaming;
mod turns;
