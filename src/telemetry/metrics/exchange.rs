//! Counting exchanges: one record per exchange, closed by its drop, so that none is forgotten on an early return.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::policy::PolicyMetrics;
use crate::telemetry::metrics::table::{
    BODY_BYTES, EXCHANGE_ATTEMPTS, EXCHANGE_DURATION, EXCHANGE_FIRST_BYTE, EXCHANGES, EXCHANGES_FAILED,
    EXCHANGES_IN_FLIGHT,
};

/// Where the exchange is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Between an egress listener and a tunnel, at the responder.
    Egress,
    /// Between a tunnel and a target, at the initiator.
    Target,
    /// Between a sibling that asks and a tunnel, at the responder that has the tunnel.
    Relay,
}

impl Side {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Target => "target",
            Self::Relay => "relay",
        }
    }
}

/// Which body the bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

/// The classes a status can have; `none` is an exchange that ended before there was one.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Whoever asked went away: nothing is wrong here.
const CANCELLED: &str = "cancelled";
/// A cause that was not announced to [`Metrics::exchanges`].
const OTHER: &str = "other";

/// The counters of one side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ExchangeMetrics {
    handles: Arc<Handles>,
}

#[derive(Debug)]
struct Handles {
    ended: [Counter; CLASSES.len()],
    duration: Histogram,
    first_byte: Histogram,
    attempts: Counter,
    in_flight: Gauge,
    failed: Vec<(&'static str, Counter)>,
    request_bytes: Counter,
    response_bytes: Counter,
    policies: PolicyMetrics,
}

impl ExchangeMetrics {
    pub(super) fn new(metrics: &Metrics, side: Side, causes: &[&'static str]) -> Self {
        let side = side.label();
        let policies = PolicyMetrics::new(metrics, side);
        let failed = |cause: &&'static str| (*cause, metrics.counter(&EXCHANGES_FAILED, &[side, cause]));
        Self {
            handles: Arc::new(Handles {
                ended: CLASSES.map(|class| metrics.counter(&EXCHANGES, &[side, class])),
                duration: metrics.histogram(&EXCHANGE_DURATION, &[side]),
                first_byte: metrics.histogram(&EXCHANGE_FIRST_BYTE, &[side]),
                attempts: metrics.counter(&EXCHANGE_ATTEMPTS, &[side]),
                in_flight: metrics.gauge(&EXCHANGES_IN_FLIGHT, &[side]),
                failed: causes.iter().chain(&[CANCELLED, OTHER]).map(failed).collect(),
                request_bytes: metrics.counter(&BODY_BYTES, &[side, "request"]),
                response_bytes: metrics.counter(&BODY_BYTES, &[side, "response"]),
                policies,
            }),
        }
    }

    /// An exchange begins: its request's head was read.
    pub fn begin(&self) -> ExchangeRecord {
        self.handles.in_flight.increment(1.0);
        let began = Instant::now();
        ExchangeRecord {
            metrics: self.clone(),
            began,
            status: 0,
            outcome: Stored::Open,
            after_head: false,
            is_counted: false,
            is_call: false,
        }
    }

    /// Counts what rules decide on exchanges.
    pub fn policies(&self) -> &PolicyMetrics {
        &self.handles.policies
    }

    /// Where the counter of a cause stands; that of [`OTHER`], the last one, for one that was not announced.
    fn place_of(&self, cause: &str) -> u8 {
        let failed = &self.handles.failed;
        let place = failed.iter().position(|(known, _)| *known == cause).unwrap_or(failed.len() - 1);
        u8::try_from(place).unwrap_or(u8::MAX)
    }

    fn cause_at(&self, place: u8) -> &'static str {
        self.handles.failed.get(usize::from(place)).map_or(OTHER, |(cause, _)| cause)
    }

    /// Bytes of a body passed.
    pub fn body_bytes(&self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Request => self.handles.request_bytes.increment(bytes),
            Direction::Response => self.handles.response_bytes.increment(bytes),
        }
    }
}

/// One exchange. Counts it when dropped: as failed if [`ExchangeRecord::fail`] said so, as cancelled if neither that
/// nor [`ExchangeRecord::complete`] was called.
#[derive(Debug)]
#[must_use = "the exchange counts as in flight while this lives"]
pub struct ExchangeRecord {
    metrics: ExchangeMetrics,
    began: Instant,
    status: u16,
    outcome: Stored,
    after_head: bool,
    /// Its end was counted.
    is_counted: bool,
    /// Whoever made it may note here that its client is told of a failure in another way; nothing counts it.
    pub is_call: bool,
}

/// An [`Outcome`] in two bytes, as one is part of every exchange: the cause is where it stands among the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Open,
    Complete,
    Failed(u8),
}

/// How an exchange stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It runs; if it ends like this, whoever asked went away.
    Open,
    /// Both messages were passed on whole.
    Complete,
    /// It failed, of this cause.
    Failed(&'static str),
}

impl ExchangeRecord {
    /// The final response's head was sent on, with this status.
    pub fn responded(&mut self, status: u16) {
        if self.status == 0 {
            self.metrics.handles.first_byte.record(self.began.elapsed());
        }
        self.status = status;
    }

    /// The request goes into a tunnel, for the first time or once more.
    pub fn attempt(&self) {
        self.metrics.handles.attempts.increment(1);
    }

    /// Both messages were passed on whole.
    pub fn complete(&mut self) {
        if self.outcome == Stored::Open {
            self.outcome = Stored::Complete;
        }
    }

    /// It failed; the first cause given is the one that counts.
    pub fn fail(&mut self, cause: &'static str) {
        if !self.has_failed() {
            self.outcome = Stored::Failed(self.metrics.place_of(cause));
            self.after_head = self.status != 0;
        }
    }

    /// How it stands.
    pub fn outcome(&self) -> Outcome {
        match self.outcome {
            Stored::Open => Outcome::Open,
            Stored::Complete => Outcome::Complete,
            Stored::Failed(place) => Outcome::Failed(self.metrics.cause_at(place)),
        }
    }

    /// Whether it failed.
    pub const fn has_failed(&self) -> bool {
        matches!(self.outcome, Stored::Failed(_))
    }

    /// Whether it failed when the head of the final response had been sent on.
    pub const fn failed_after_head(&self) -> bool {
        self.after_head
    }

    /// The status of the final response, once its head was sent on.
    pub const fn status(&self) -> Option<u16> {
        if self.status == 0 { None } else { Some(self.status) }
    }

    /// The time since it began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The counters it counts into.
    pub const fn metrics(&self) -> &ExchangeMetrics {
        &self.metrics
    }
}

impl ExchangeRecord {
    /// Counts it as it stands now, once: what comes later changes no counter. For whoever tells of its end, so that the counters
    /// agree with what is told.
    pub fn count_end(&mut self) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        let Handles { ended, duration, in_flight, failed, .. } = &*self.metrics.handles;
        in_flight.decrement(1.0);
        duration.record(self.began.elapsed());
        ended[usize::from(self.status / 100).min(CLASSES.len() - 1)].increment(1);
        let place = match self.outcome {
            Stored::Complete => return,
            Stored::Open => self.metrics.place_of(CANCELLED),
            Stored::Failed(place) => place,
        };
        if let Some((_, counter)) = failed.get(usize::from(place)) {
            counter.increment(1);
        }
    }
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        self.count_end();
    }
}
