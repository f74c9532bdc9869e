//! What is measured, and in which terms: a line is one way from the load generator to a target and back.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::usage::Process;

/// Requests of one kind, so many at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    /// Measured for this long, after [`WARM_UP`].
    pub(crate) duration: Duration,
}

/// The shape of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// HTTP/1.1, a connection for each of so many exchanges at once; streams where the line has no HTTP.
    Http1(usize),
    /// HTTP/2 in clear: connections, and exchanges at once on each.
    Http2 { connections: usize, streams: usize },
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number, as in 64 or 4x16"));
        match text.split_once('x') {
            Some((connections, streams)) => {
                Ok(Self::Http2 { connections: number(connections)?, streams: number(streams)? })
            }
            None => Ok(Self::Http1(number(text)?)),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(connections) => write!(f, "{connections}"),
            Self::Http2 { connections, streams } => write!(f, "{connections} x {streams}, HTTP/2"),
        }
    }
}

/// Long enough for connections, congestion windows and caches to settle.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// The sizes are those of [`crate::target::PAYLOAD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No request body.
    Get,
    /// A request body as large as the response's.
    Echo,
    /// No request body, and a connection of its own for each exchange.
    Connect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// One way from the load generator to a target.
pub(crate) trait Line {
    /// Its row in the table.
    fn name(&self) -> &str;

    /// Sends requests until the time of the workload is over. `None`: the line has no such shape.
    fn requests(&self, workload: Workload) -> Option<Sample>;

    /// Moves this many bytes in one exchange and says how long that took. `None`: it failed, and it was said why.
    fn bulk(&self, direction: Direction, bytes: usize) -> Option<Duration>;

    /// Processes that the line consists of, beside this one.
    fn processes(&self) -> Vec<Process> {
        Vec::new()
    }
}

/// What came of one workload.
pub(crate) struct Sample {
    /// Nanoseconds of each exchange that ended within the measured time.
    pub(crate) latency: Histogram<u64>,
    pub(crate) elapsed: Duration,
}

impl Sample {
    pub(crate) fn empty() -> Self {
        Self { latency: Histogram::new(3).unwrap(), elapsed: Duration::ZERO }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn microseconds(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).unwrap();
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

/// Takes the time of exchanges that follow each other, through warm-up and measurement.
pub(crate) struct Stopwatch {
    sample: Sample,
    begin: Instant,
    end: Instant,
    last: Instant,
}

impl Stopwatch {
    pub(crate) fn start(duration: Duration) -> Self {
        let last = Instant::now();
        let begin = last + WARM_UP;
        Self { sample: Sample::empty(), begin, end: begin + duration, last }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.last < self.end
    }

    /// An exchange has ended, and the next begins.
    pub(crate) fn lap(&mut self) {
        let before = std::mem::replace(&mut self.last, Instant::now());
        if before >= self.begin {
            self.sample.latency.record((self.last - before).as_nanos() as u64).unwrap();
            self.sample.elapsed = self.last - self.begin;
        }
    }

    pub(crate) fn sample(self) -> Sample {
        self.sample
    }
}

/// Adds up what tasks measured that ran at the same time.
pub(crate) async fn sum(mut workers: JoinSet<Sample>) -> Sample {
    let mut sum = Sample::empty();
    while let Some(sample) = workers.join_next().await {
        sum.add(&sample.expect("an exchange of the benchmark failed"));
    }
    sum
}
