//! All metrics in one table, and the value that holds them.
//!
//! Labels come from closed sets of a few dozen values at most; node ids are never labels.

pub(super) mod destination;
pub(super) mod exchange;
pub(super) mod fleet;
pub(super) mod flow;
pub(super) mod hop;
pub(super) mod limits;
pub(super) mod policy;
mod process;
pub(super) mod reload;
pub(super) mod share;
pub(super) mod stage;
pub(super) mod stream;
mod table;
pub(super) mod target;
pub(super) mod tunnel;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::telemetry::metrics::destination::DestinationMetrics;
use crate::telemetry::metrics::exchange::{ExchangeMetrics, Side};
use crate::telemetry::metrics::flow::FlowMetrics;
use crate::telemetry::metrics::hop::HopMetrics;
use crate::telemetry::metrics::limits::{Entrance, LimitMetrics};
use crate::telemetry::metrics::share::ShareMetrics;
use crate::telemetry::metrics::stage::{HandshakeListener, StageMetrics};
use crate::telemetry::metrics::table::{
    DURATION_BUCKETS, EXCHANGE_DURATION, EXCHANGE_FIRST_BYTE, Kind, Metric, TABLE, UDP_BUFFER,
};
use crate::telemetry::metrics::target::TargetMetrics;
use crate::telemetry::metrics::tunnel::{Role, TunnelMetrics};

/// How often [`Metrics::upkeep`] should be called.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Every metric of one running adit. Cheap to clone; two that were made apart count apart.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for durations in [EXCHANGE_DURATION, EXCHANGE_FIRST_BYTE] {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(durations.name.to_owned()), DURATION_BUCKETS)
                .expect("the buckets are a constant that is not empty");
        }
        let recorder = builder.build_recorder();
        for metric in TABLE {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        Self { recorder: Arc::new(recorder) }
    }

    /// The text that Prometheus scrapes, exposition format 0.0.4.
    pub fn render(&self) -> String {
        self.recorder.handle().render()
    }

    /// How many exchanges run now, on all sides: requests, connections and flows. For questions that are seldom asked.
    pub fn exchanges_in_flight(&self) -> u64 {
        let text = self.render();
        let values = text.lines().filter_map(|line| line.strip_prefix("adit_exchanges_in_flight{")?.split_once("} "));
        values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// Folds recorded durations into their buckets. Call it every [`UPKEEP_INTERVAL`]: until then, or until somebody
    /// scrapes, each recorded duration takes 8 bytes.
    pub fn upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// Counts tunnels and handshakes of one role.
    pub fn tunnels(&self, role: Role) -> TunnelMetrics {
        TunnelMetrics::new(self, role)
    }

    /// Counts exchanges on one side. `causes` are the labels that [`ExchangeRecord::fail`] will be given.
    ///
    /// [`ExchangeRecord::fail`]: crate::telemetry::ExchangeRecord::fail
    pub fn exchanges(&self, side: Side, causes: &[&'static str]) -> ExchangeMetrics {
        ExchangeMetrics::new(self, side, causes)
    }

    /// Counts flows of datagrams on one side.
    pub fn flows(&self, side: Side) -> FlowMetrics {
        FlowMetrics::new(self, side)
    }

    /// Says which targets of one side are down.
    pub fn targets(&self, side: Side) -> TargetMetrics {
        TargetMetrics::new(self.clone(), side)
    }

    /// Counts the destinations of an initiator by state.
    pub fn destinations(&self) -> DestinationMetrics {
        DestinationMetrics::new(self)
    }

    /// Counts what the listeners of one kind refuse, cut and cannot accept.
    pub fn limits(&self, entrance: Entrance) -> LimitMetrics {
        LimitMetrics::new(self, entrance)
    }

    /// Counts what is refused and held up because a share is used up.
    pub fn shares(&self) -> ShareMetrics {
        ShareMetrics::new(self)
    }

    /// Counts what goes between this responder and its siblings.
    pub fn hops(&self) -> HopMetrics {
        HopMetrics::new(self)
    }

    /// Counts connections of a listener that are in handshake, by stage.
    pub fn stages(&self, listener: HandshakeListener) -> StageMetrics {
        StageMetrics::new(self, listener)
    }

    /// States the UDP socket buffers that the kernel granted, in usable bytes.
    pub fn udp_buffers(&self, role: Role, recv: usize, send: usize) {
        for (direction, bytes) in [("receive", recv), ("send", send)] {
            self.gauge(&UDP_BUFFER, &[role.label(), direction]).set(bytes as f64);
        }
    }

    fn counter(&self, metric: &Metric, values: &[&'static str]) -> Counter {
        self.recorder.register_counter(&key(metric, values), &METADATA)
    }

    fn gauge(&self, metric: &Metric, values: &[&'static str]) -> Gauge {
        self.recorder.register_gauge(&key(metric, values), &METADATA)
    }

    fn histogram(&self, metric: &Metric, values: &[&'static str]) -> Histogram {
        self.recorder.register_histogram(&key(metric, values), &METADATA)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const METADATA: Metadata<'_> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

fn key(metric: &Metric, values: &[&'static str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let labels: Vec<Label> =
        metric.labels.iter().zip(values).map(|(name, value)| Label::from_static_parts(name, value)).collect();
    Key::from_parts(metric.name, labels)
}

#[cfg(test)]
mod tests;
