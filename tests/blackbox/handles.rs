//! What of a role can be changed while it runs, shown on embedded roles over real sockets.

mod ending;
mod initiator;
pub(crate) mod played;
mod renewal;
mod responder;
mod shares;
mod world;
