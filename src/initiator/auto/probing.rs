//! When QUIC is tried again while a tunnel is on TCP, and how a path that comes and goes slows that down.

use std::time::{Duration, Instant};

use super::settings::AutoSettings;

/// Doublings beyond which nothing changes any more with any sensible settings.
const MAX_DOUBLINGS: u32 = 16;

/// The schedule of probes.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// Probes that failed since QUIC last carried the tunnel.
    failures: u32,
    /// How often QUIC was lost soon after its return, less what health took back.
    flaps: u32,
    /// When QUIC took over from TCP, while it carries the tunnel.
    returned_at: Option<Instant>,
    /// Since when QUIC carries the tunnel without suspicion.
    healthy_since: Option<Instant>,
    /// The next probe is not before that, since a responder has asked for it.
    earliest: Option<Instant>,
}

impl Probing {
    /// When the next probe is due, not before `earliest`. `entropy` shortens the wait by up to a quarter: the bound
    /// holds, and sites that fell back together do not probe together.
    pub(super) fn next(
        &self,
        now: Instant,
        entropy: u64,
        earliest: Option<Instant>,
        settings: &AutoSettings,
    ) -> Instant {
        let interval = self.interval(settings);
        let shortened = interval - (interval / 4).mul_f64(entropy as f64 / u64::MAX as f64);
        let at = now + shortened;
        earliest.map_or(at, |earliest| earliest.max(at))
    }

    /// Nobody hears of the slot before that.
    pub(super) const fn wait_until(&mut self, earliest: Option<Instant>) {
        self.earliest = earliest;
    }

    /// What [`Probing::wait_until`] said last.
    pub(super) const fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    pub(super) const fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The longest wait before the next probe.
    fn interval(&self, settings: &AutoSettings) -> Duration {
        let doubled = |bound: Duration, times: u32| bound.saturating_mul(1 << times.min(MAX_DOUBLINGS));
        let first = doubled(settings.first_probe, self.flaps);
        let max = doubled(settings.max_probe_interval, self.flaps).min(settings.flap_limit);
        doubled(first, self.failures).min(max)
    }

    /// QUIC carries the tunnel, after TCP did or not.
    pub(super) const fn quic_up(&mut self, now: Instant, after_tcp: bool) {
        self.failures = 0;
        self.returned_at = if after_tcp { Some(now) } else { None };
        self.healthy_since = Some(now);
    }

    /// The tunnel on QUIC is suspect or gone: its health until now counts, and pauses.
    pub(super) fn count_health(&mut self, now: Instant, settings: &AutoSettings) {
        if let Some(since) = self.healthy_since.take() {
            let decay = settings.flap_decay.as_nanos().max(1);
            let periods = now.saturating_duration_since(since).as_nanos() / decay;
            self.flaps = self.flaps.saturating_sub(u32::try_from(periods).unwrap_or(u32::MAX));
        }
    }

    pub(super) const fn quic_alive(&mut self, now: Instant) {
        self.healthy_since = Some(now);
    }

    /// QUIC does not carry the tunnel any more; it worked until `at`.
    pub(super) fn quic_lost(&mut self, at: Instant, settings: &AutoSettings) {
        self.count_health(at, settings);
        if let Some(returned) = self.returned_at.take()
            && at.saturating_duration_since(returned) < settings.flap_window
        {
            self.flaps = (self.flaps + 1).min(MAX_DOUBLINGS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn intervals(probing: &mut Probing, count: usize) -> Vec<u64> {
        let settings = AutoSettings::default();
        let mut next = || {
            let interval = probing.interval(&settings).as_secs();
            probing.failed();
            interval
        };
        (0..count).map(|_| next()).collect()
    }

    /// QUIC returns at `at` and is lost `lived` later.
    fn flap(probing: &mut Probing, at: Instant, lived: Duration) {
        probing.quic_up(at, true);
        probing.quic_lost(at + lived, &AutoSettings::default());
    }

    #[test]
    fn intervals_double_from_ten_seconds_to_thirty() {
        assert_eq!(intervals(&mut Probing::default(), 5), [10, 20, 30, 30, 30]);
        let mut tired = Probing { failures: u32::MAX, ..Probing::default() };
        assert_eq!(intervals(&mut tired, 1), [30]);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_quarter_at_most() {
        let (now, settings) = (Instant::now(), AutoSettings::default());
        let probing = Probing::default();
        assert_eq!(probing.next(now, 0, None, &settings), now + SECOND * 10);
        assert_eq!(probing.next(now, u64::MAX, None, &settings), now + SECOND * 15 / 2);
        assert_eq!(probing.next(now, u64::MAX, Some(now + SECOND * 9), &settings), now + SECOND * 9);
    }

    #[test]
    fn each_early_loss_after_a_return_doubles_both_bounds_to_ten_minutes() {
        let (now, mut probing) = (Instant::now(), Probing::default());
        let mut seen = Vec::new();
        for _ in 0..7 {
            flap(&mut probing, now, SECOND * 59);
            seen.push(intervals(&mut probing, 3));
        }
        let expected =
            [[20, 40, 60], [40, 80, 120], [80, 160, 240], [160, 320, 480], [320, 600, 600], [600; 3], [600; 3]];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_loss_after_a_minute_or_without_a_return_changes_nothing() {
        let (now, mut probing) = (Instant::now(), Probing::default());
        flap(&mut probing, now, SECOND * 60);
        probing.quic_up(now, false);
        probing.quic_lost(now + SECOND, &AutoSettings::default());
        assert_eq!(probing.flaps, 0);
    }

    #[test]
    fn ten_minutes_of_health_take_one_doubling_back() {
        let (now, mut probing, settings) = (Instant::now(), Probing::default(), AutoSettings::default());
        for _ in 0..3 {
            flap(&mut probing, now, SECOND);
        }
        probing.quic_up(now, true);
        probing.count_health(now + SECOND * 599, &settings);
        assert_eq!(probing.flaps, 3);
        // The pause counts for nothing, and health begins again after it.
        probing.quic_alive(now + SECOND * 5000);
        probing.quic_lost(now + SECOND * 6200, &settings);
        assert_eq!(probing.flaps, 1);
    }
}
