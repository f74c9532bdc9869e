//! Every duration of the machine.

use std::time::Duration;

use crate::lifecycle::Schedule;

/// How a slot chooses its transport.
#[derive(Debug, Clone, Copy)]
pub struct AutoSettings {
    /// Delays between rounds in which nothing worked. Default 0.5 s doubling to 30 s.
    pub backoff: Schedule,
    /// How much later than QUIC TCP is connected while QUIC does not answer. Default 300 ms. spec: TB-20
    pub race_delay: Duration,
    /// How long TCP alone is tried where it comes first. Default 1 s.
    pub tcp_first: Duration,
    /// How long a claim over QUIC may go unanswered before TCP gets it. Default 3 s.
    pub claim_patience: Duration,
    /// How long a suspect tunnel has, once a replacement is connected, if that took longer than `tcp_first`: then the
    /// whole path was down and is back, and the tunnel may be too, with what runs in it. Default 3 s.
    pub revival: Duration,
    /// How long a probe's connection must hold before QUIC is used again. Default 2 s. spec: TB-25
    pub trial: Duration,
    /// How long after a failure of QUIC a dial begins with TCP. Default 60 s. spec: TB-22
    pub memory: Duration,
    /// From the fallback to the first probe of QUIC. Default 10 s.
    pub first_probe: Duration,
    /// What the time between two probes doubles to. Default 30 s.
    pub max_probe_interval: Duration,
    /// QUIC that is lost sooner than this after TCP gave way to it doubles both intervals. Default 60 s. spec: TB-26
    pub flap_window: Duration,
    /// What no interval is doubled beyond. Default 10 min.
    pub flap_limit: Duration,
    /// How much health on QUIC takes one doubling back. Default 10 min.
    pub flap_decay: Duration,
    /// The most between two dials while a responder that drained is not there yet, unless it asked for more. Default 100 ms.
    pub return_pace: Duration,
    /// For how long it is expected back; then the usual backoff begins. Default 5 s.
    pub return_window: Duration,
    /// A tunnel that ends sooner than this after its WELCOME counts as a failed attempt: a responder that admits and
    /// then closes must not be dialled in a tight loop. Default 5 s.
    pub settled: Duration,
}

/// How many probes that fail in a row lengthen the interval between them: it doubles up to three times the first.
const LONGEST_INTERVAL: u32 = 3;

impl AutoSettings {
    /// The same with this time from the fallback to the first probe, and up to three times that between later ones.
    #[must_use]
    pub const fn probing_every(self, interval: Duration) -> Self {
        Self { first_probe: interval, max_probe_interval: interval.saturating_mul(LONGEST_INTERVAL), ..self }
    }
}

impl Default for AutoSettings {
    fn default() -> Self {
        Self {
            backoff: Schedule::default(),
            race_delay: Duration::from_millis(300),
            tcp_first: Duration::from_secs(1),
            claim_patience: Duration::from_secs(3),
            revival: Duration::from_secs(3),
            trial: Duration::from_secs(2),
            memory: Duration::from_secs(60),
            first_probe: Duration::from_secs(10),
            max_probe_interval: Duration::from_secs(30),
            flap_window: Duration::from_secs(60),
            flap_limit: Duration::from_secs(600),
            flap_decay: Duration::from_secs(600),
            return_pace: Duration::from_millis(100),
            return_window: Duration::from_secs(5),
            settled: Duration::from_secs(5),
        }
    }
}
