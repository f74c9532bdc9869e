//! What operators see: logs on stderr, and every metric with its name, help and labels in one table.
//!
//! Row 5: serves no HTTP (admin does) and knows no module that it counts for. Nothing here is global except the
//! process's logger: [`Metrics`] is a value, so two instances in one process count apart. Modules hold typed handles
//! ([`TunnelMetrics`], [`ExchangeMetrics`], [`DestinationMetrics`]), looked up once; counting is an atomic addition.

mod accepting;
mod limiter;
pub mod log;
mod metrics;

pub use accepting::AcceptWatch;
pub use limiter::Limiter;
pub use metrics::destination::{DestinationMetrics, DestinationRecord, DestinationState, Moved};
pub use metrics::exchange::{Direction, ExchangeMetrics, ExchangeRecord, Outcome, Side};
pub use metrics::fleet::{FleetMetrics, FleetSight};
pub use metrics::flow::{DatagramDrop, FlowLimit, FlowMetrics, OpenFlow};
pub use metrics::hop::{HopConnection, HopMetrics};
pub use metrics::limits::{Entrance, Limit, LimitMetrics};
pub use metrics::policy::{PolicyMetrics, RuleCounter};
pub use metrics::reload::ReloadResult;
pub use metrics::share::{ShareLimit, ShareMetrics, ShareOwner};
pub use metrics::stage::{HandshakeListener, StageMetrics};
pub use metrics::stream::{StreamEnd, StreamMetrics};
pub use metrics::target::{TargetGauge, TargetMetrics};
pub use metrics::tunnel::{HandshakeFailure, Role, TunnelMetrics, TunnelRecord};
pub use metrics::{Metrics, UPKEEP_INTERVAL};
