//! Moving things: the exchange of a request for a response, with its attempts, its deadline and its record; bytes
//! (`connect`); datagrams (`flow`, and `connect_udp` for those in capsules).
//!
//! [`exchange::Exchange`] brings one request through over whatever [`opener::Find`] finds; [`record::Recorder`] makes the
//! one record that every exchange leaves, on either side. Row 7: uses [`transport`](crate::transport) and the rows above
//! it; never chooses a tunnel, never reads configuration.

pub mod body;
pub mod charged;
pub mod connect;
pub mod connect_udp;
pub mod context;
pub(crate) mod datagrams;
pub mod exchange;
pub mod flow;
pub mod opener;
pub mod pace;
pub mod record;

mod attempts;
mod deadline;
mod ending;
mod held;
pub(crate) mod refused;
mod ruled;
mod upload;

pub(crate) use attempts::{MAX_ATTEMPTS, failure as failure_of, is_unprocessed};
pub use body::ExchangeBody;
pub use charged::Charged;
pub(crate) use context::UnderWay;
pub use context::{ConnectionDetails, ConnectionInfo, Context};
pub use pace::Pace;
pub use record::{AccessLog, Record, Recorder};
pub use ruled::RuleCounters;
pub(crate) use upload::Progress;
pub use upload::Upload;
