//! What concerns the process as a whole: which build it is, and what it takes from the machine. Names and meaning of
//! `process_*` are those of Prometheus' own clients; a system without `/proc` has none of them.

use std::fs;

use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::{
    BUILD_INFO, CERTIFICATE_LEFT, LOG_LINES_DROPPED, PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_RESIDENT,
    PROCESS_START, PROCESS_THREADS, PROCESS_VIRTUAL,
};

/// What the kernel counts processor time in, as programs see it; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Metrics {
    /// States the build, and what the process takes as of now. To be called before each scrape; reads five small files.
    pub fn process(&self) {
        self.gauge(&BUILD_INFO, &[env!("CARGO_PKG_VERSION"), PROTOCOL]).set(1.0);
        self.counter(&LOG_LINES_DROPPED, &[]).absolute(log::dropped());
        let Some(usage) = Usage::read() else { return };
        self.gauge(&PROCESS_CPU, &[]).set(usage.cpu_seconds);
        self.gauge(&PROCESS_RESIDENT, &[]).set(usage.resident_bytes);
        self.gauge(&PROCESS_VIRTUAL, &[]).set(usage.virtual_bytes);
        self.gauge(&PROCESS_THREADS, &[]).set(usage.threads);
        self.gauge(&PROCESS_START, &[]).set(usage.started);
        self.gauge(&PROCESS_FDS, &[]).set(usage.descriptors);
        self.gauge(&PROCESS_MAX_FDS, &[]).set(usage.max_descriptors);
    }

    /// The first certificate of this kind ends in so many seconds; it has ended when they are negative.
    pub fn certificate(&self, kind: &'static str, seconds_left: f64) {
        self.gauge(&CERTIFICATE_LEFT, &[kind]).set(seconds_left);
    }
}

/// The ALPN as text.
const PROTOCOL: &str = "adit/1";

/// What the process takes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    threads: f64,
    started: f64,
    descriptors: f64,
    max_descriptors: f64,
}

impl Usage {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let boot = number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        Some(Self {
            cpu_seconds: ticks(14)? + ticks(15)?,
            started: boot + ticks(22)?,
            resident_bytes: number_after(&status, "VmRSS:")? * 1024.0,
            virtual_bytes: number_after(&status, "VmSize:")? * 1024.0,
            threads: number_after(&status, "Threads:")?,
            // One of them is the folder that is being read.
            descriptors: fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64,
            max_descriptors: number_after(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")?,
        })
    }
}

/// The first number in the line that begins with `name`.
fn number_after(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_the_one_that_is_spoken() {
        assert_eq!(PROTOCOL.as_bytes(), crate::protocol::ALPN);
    }

    #[test]
    fn what_this_process_takes_is_plausible() {
        let Some(usage) = Usage::read() else { return };
        assert!(usage.resident_bytes > 1e6 && usage.virtual_bytes >= usage.resident_bytes, "{usage:?}");
        assert!(usage.descriptors >= 3.0 && usage.max_descriptors >= usage.descriptors, "{usage:?}");
        assert!(usage.threads >= 1.0 && usage.started > 1.7e9, "{usage:?}");
    }

    #[test]
    fn a_scrape_says_which_build_it_is() {
        let metrics = Metrics::new();
        metrics.process();
        let text = metrics.render();
        assert!(text.contains("adit_build_info{version=\""), "{text}");
        assert!(text.contains("adit_log_lines_dropped_total 0"), "{text}");
    }
}
