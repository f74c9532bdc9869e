//! Tells the board of an initiator how a service is, and the log.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::ServiceName;
use crate::initiator::health::HealthBoard;
use crate::protocol::code::DownCause;
use crate::targets::health::{Change, Standing, Told};
use crate::telemetry::{TargetGauge, TargetMetrics};

/// Numbers those who tell a board: a service that is changed is another one under its name.
static TELLERS: AtomicU64 = AtomicU64::new(0);

/// One service as the board knows it.
pub(super) struct OnBoard {
    name: ServiceName,
    teller: u64,
    board: HealthBoard,
    gauge: TargetGauge,
}

impl OnBoard {
    pub(super) fn new(name: ServiceName, board: HealthBoard, targets: &TargetMetrics) -> Self {
        let gauge = targets.target(name.as_str());
        Self { gauge, name, teller: TELLERS.fetch_add(1, Ordering::Relaxed), board }
    }
}

impl Told for OnBoard {
    fn tell(&self, down: Option<DownCause>) {
        self.gauge.set(down.is_some());
        self.board.tell(&self.name, self.teller, down);
    }

    fn say(&self, Change { to, after }: Change, details: &str, left_out: Option<u64>) {
        let (service, after_seconds) = (&self.name, after.as_secs());
        match to {
            Standing::Down(cause) => {
                let cause = cause.label();
                tracing::warn!(%service, cause, details, after_seconds, left_out, "the service is down");
            }
            Standing::Up | Standing::Unknown => {
                tracing::info!(%service, after_seconds, left_out, "the service is up");
            }
        }
    }
}
