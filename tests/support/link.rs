//! A network with faults: relays in user space, for UDP and for TCP.
//!
//! What happens to the n-th packet of a direction depends on the seed alone. Times are kept to a millisecond, so this
//! shows how a tunnel behaves on a bad link, not how fast it is on a good one.

mod delay;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a link does to packets, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Impairment {
    pub(crate) name: &'static str,
    /// One way.
    pub(crate) delay: Duration,
    /// The delay varies by up to this much around its mean, without changing the order.
    pub(crate) jitter: Duration,
    /// The share of packets that is lost.
    pub(crate) loss: f64,
    /// The share of packets that is held back until later ones have overtaken it.
    pub(crate) reorder: f64,
    /// Bytes per second; 0 is without limit.
    pub(crate) rate: u64,
}

const KBIT: u64 = 1000 / 8;
pub(crate) const MBIT: u64 = 1000 * KBIT;

/// Nothing happens to a packet.
pub(crate) const CLEAN: Impairment = link("clean", 0, 0, 0.0, 0.0, 0);
/// A site with a decent line.
pub(crate) const EDGE_GOOD: Impairment = link("edge-good", 20, 1, 0.001, 0.0, 100 * MBIT);
/// A site on a lossy line.
pub(crate) const EDGE_LOSSY: Impairment = link("edge-lossy", 40, 5, 0.02, 0.0, 50 * MBIT);
/// A site that should not work, and has to.
pub(crate) const EDGE_BAD: Impairment = link("edge-bad", 100, 20, 0.05, 0.0, 10 * MBIT);
/// Crowded radio: loses some and reorders some.
pub(crate) const WIFI_BAD: Impairment = link("wifi-bad", 10, 10, 0.04, 0.005, 50 * MBIT);
/// A geostationary satellite.
pub(crate) const GEO: Impairment = link("geo", 300, 5, 0.005, 0.0, 25 * MBIT);
/// Everything at once.
pub(crate) const HOSTILE: Impairment = link("hostile", 60, 20, 0.10, 0.02, 20 * MBIT);

/// All of them, mildest first.
pub(crate) const IMPAIRMENTS: &[Impairment] = &[CLEAN, EDGE_GOOD, EDGE_LOSSY, WIFI_BAD, GEO, EDGE_BAD, HOSTILE];

/// How long packets wait for a bottleneck before more are dropped.
const QUEUE: Duration = Duration::from_millis(100);
/// How long a reordered packet is held.
const HOLD: Duration = Duration::from_millis(8);

const fn link(name: &'static str, delay: u64, jitter: u64, loss: f64, reorder: f64, rate: u64) -> Impairment {
    let (delay, jitter) = (Duration::from_millis(delay), Duration::from_millis(jitter));
    Impairment { name, delay, jitter, loss, reorder, rate }
}

/// One direction of a link: decides what happens to each packet, and does no I/O.
pub(crate) struct Lane {
    random: StdRng,
    impairment: Impairment,
    pub(crate) blackout: bool,
    /// When the bottleneck has sent everything handed to it so far.
    idle_at: Option<Instant>,
    /// The latest arrival so far: jitter must not reorder.
    latest: Option<Instant>,
}

impl Lane {
    pub(crate) fn new(impairment: Impairment, seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), impairment, blackout: false, idle_at: None, latest: None }
    }

    /// When a packet of `length` bytes handed over at `now` arrives; `None` when it does not.
    pub(crate) fn arrival(&mut self, now: Instant, length: usize) -> Option<Instant> {
        // Drawn for every packet, so that the fate of one does not depend on what became of others.
        let lost = self.random.random_bool(self.impairment.loss);
        let held = self.random.random_bool(self.impairment.reorder);
        let sway = self.random.random_range(-1.0..=1.0);
        let sent = self.through_bottleneck(now, length)?;
        if lost || self.blackout {
            return None;
        }
        let arrival = sent + self.delay(sway);
        if held {
            return Some(arrival + HOLD);
        }
        let arrival = self.latest.map_or(arrival, |latest| arrival.max(latest));
        self.latest = Some(arrival);
        Some(arrival)
    }

    /// Like [`Lane::arrival`] for a piece of a TCP stream, which is never lost: loss costs it a retransmission.
    fn stream_arrival(&mut self, now: Instant, length: usize) -> Instant {
        let lost = self.random.random_bool(self.impairment.loss);
        let retransmission = if lost { Duration::from_millis(200) + 2 * self.impairment.delay } else { Duration::ZERO };
        let sent = self.queue(now, length);
        let arrival = sent + self.impairment.delay + retransmission;
        let arrival = self.latest.map_or(arrival, |latest| arrival.max(latest));
        self.latest = Some(arrival);
        arrival
    }

    /// When the bottleneck has sent this packet; `None` when its queue is full.
    fn through_bottleneck(&mut self, now: Instant, length: usize) -> Option<Instant> {
        let waiting = self.idle_at.map_or(Duration::ZERO, |idle_at| idle_at.saturating_duration_since(now));
        (waiting <= QUEUE).then(|| self.queue(now, length))
    }

    fn queue(&mut self, now: Instant, length: usize) -> Instant {
        if self.impairment.rate == 0 {
            return now;
        }
        let start = self.idle_at.map_or(now, |idle_at| idle_at.max(now));
        let sent = start + Duration::from_secs_f64(length as f64 / self.impairment.rate as f64);
        self.idle_at = Some(sent);
        sent
    }

    fn delay(&self, sway: f64) -> Duration {
        let delay = self.impairment.delay.as_secs_f64() + self.impairment.jitter.as_secs_f64() * sway;
        Duration::from_secs_f64(delay.max(0.0))
    }
}
