//! What of a role can be changed while it runs, shown on embedded roles over real sockets.

mod initiator;
mod played;
mod responder;
mod world;
