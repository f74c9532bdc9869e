//! Moving things: the exchange of a request for a response, with its attempts, its deadline and its record.
//!
//! [`exchange::Exchange`] brings one request through over whatever [`opener::Find`] finds; [`record::Recorder`] makes the
//! one record that every exchange leaves, on either side. Row 7: uses [`transport`](crate::transport) and the rows above
//! it; never chooses a tunnel, never reads configuration.

pub mod body;
pub mod connect;
pub mod context;
pub mod exchange;
pub mod opener;
pub mod pace;
pub mod record;

mod attempts;
mod deadline;
mod ending;
mod upload;

pub use body::ExchangeBody;
pub(crate) use context::UnderWay;
pub use context::{ConnectionDetails, ConnectionInfo, Context};
pub use pace::Pace;
pub use record::{AccessLog, Record, Recorder};
pub(crate) use upload::Progress;
pub use upload::Upload;
