//! Several responders that know of each other through a real etcd.

mod cut;
mod directory;
mod health;
mod hop;
mod initiators;
mod late;
mod leave;
mod lost;
mod many;
mod renewed;
mod settings;
mod silent;
mod world;
