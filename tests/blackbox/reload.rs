//! A file that changes while the process runs: what is in force afterwards, what was touched, and that no request is lost.

mod agrees;
mod broken;
mod connections;
mod effects;
mod embedded;
mod files;
mod initiator;
mod limits;
mod listeners;
mod policies;
mod responder;
mod roles;
pub(crate) mod trigger;
mod triggers;
pub(crate) mod world;
