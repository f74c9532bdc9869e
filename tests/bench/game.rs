//! A load like that of a game: few datagrams at a steady pace, each of which should come back soon.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// What a game sends: this many a second, of this size.
const RATE: u64 = 60;
const BYTES: usize = 1200;
/// The same in words.
pub(crate) const LOAD: &str = "game, 60/s of 1200";
/// What has not come back so long after the last was sent is lost.
const LATE: Duration = Duration::from_secs(1);

/// What became of it.
pub(crate) struct Game {
    sent: u64,
    /// Round trips, in the order in which they ended.
    times: Vec<Duration>,
}

impl Game {
    /// Plays with a target that sends back what comes.
    pub(crate) async fn play(client: &UdpSocket, duration: Duration) -> Self {
        let (begun, sent) = (Instant::now(), RATE * duration.as_secs());
        let sending = async {
            let mut ticks = interval(Duration::from_micros(1_000_000 / RATE));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for _ in 0..sent {
                ticks.tick().await;
                let mut datagram = vec![0; BYTES];
                datagram[..8].copy_from_slice(&(begun.elapsed().as_nanos() as u64).to_be_bytes());
                client.send(&datagram).await.unwrap();
            }
            sleep(LATE).await;
        };
        let mut times = Vec::new();
        let receiving = async {
            let mut room = vec![0; 65_536];
            loop {
                let length = client.recv(&mut room).await.unwrap();
                assert_eq!(length, BYTES, "what comes back is as long as what was sent");
                let sent = u64::from_be_bytes(room[..8].try_into().unwrap());
                times.push(begun.elapsed().saturating_sub(Duration::from_nanos(sent)));
            }
        };
        tokio::select! {
            () = sending => {}
            () = receiving => {}
        }
        Self { sent, times }
    }

    /// How many came back.
    pub(crate) fn received(&self) -> usize {
        self.times.len()
    }

    /// The round trip that this part of them does not exceed.
    fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort();
        sorted[((sorted.len() as f64 * part) as usize).min(sorted.len() - 1)]
    }

    /// By how much a round trip differs from the one before, on average.
    fn jitter(&self) -> Duration {
        let differences = self.times.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        differences.sum::<Duration>() / (self.times.len() as u32).saturating_sub(1).max(1)
    }
}

impl fmt::Display for Game {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.sent - self.times.len() as u64;
        write!(f, "lost {lost} of {}", self.sent)?;
        if self.times.is_empty() {
            return Ok(());
        }
        let [half, most, jitter] =
            [self.quantile(0.5), self.quantile(0.99), self.jitter()].map(|time| time.as_micros());
        write!(f, ", round trip p50 {half} µs, p99 {most} µs, jitter {jitter} µs")
    }
}
