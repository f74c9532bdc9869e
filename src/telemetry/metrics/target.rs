//! Saying which targets are down.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{Gauge, Key, Label, Recorder as _};

use crate::telemetry::metrics::exchange::Side;
use crate::telemetry::metrics::table::TARGETS_DOWN;
use crate::telemetry::metrics::{METADATA, Metrics};

/// Makes the gauges of the targets of one side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TargetMetrics {
    metrics: Metrics,
    side: &'static str,
}

/// Whether one target is down; dropped, it is not any more. Several of one name count together.
#[derive(Debug)]
pub struct TargetGauge {
    down: Gauge,
    is_down: AtomicBool,
}

impl TargetMetrics {
    pub(super) const fn new(metrics: Metrics, side: Side) -> Self {
        Self { metrics, side: side.label() }
    }

    /// The gauge of a target. Its label is a name out of the file, so there are as many as its author wrote.
    pub fn target(&self, name: &str) -> TargetGauge {
        let [side, target] = *TARGETS_DOWN.labels else { unreachable!("two labels") };
        let labels = vec![Label::from_static_parts(side, self.side), Label::new(target, name.to_owned())];
        let down = self.metrics.recorder.register_gauge(&Key::from_parts(TARGETS_DOWN.name, labels), &METADATA);
        TargetGauge { down, is_down: AtomicBool::new(false) }
    }
}

impl TargetGauge {
    /// It is down now, or it is not.
    pub fn set(&self, is_down: bool) {
        if self.is_down.swap(is_down, Ordering::AcqRel) != is_down {
            self.down.increment(if is_down { 1.0 } else { -1.0 });
        }
    }
}

impl Drop for TargetGauge {
    fn drop(&mut self) {
        self.set(false);
    }
}
