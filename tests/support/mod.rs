//! What black-box tests and benchmarks share: certificates, targets, clients, processes (adit and Envoy), and a network
//! with faults.

pub(crate) mod certificates;
pub(crate) mod connect_udp;
pub(crate) mod datagrams;
pub(crate) mod dns;
pub(crate) mod envoy;
pub(crate) mod etcd;
pub(crate) mod eventually;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod http3;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod raw_target;
pub(crate) mod site;
pub(crate) mod targets;
pub(crate) mod tools;
pub(crate) mod trickle;
