//! A tunnel by itself: two ends of the library joined over loopback, no egress and no target around them.

mod client;
mod exchanges;
mod faults;
mod lifetime;
mod pair;
mod services;
