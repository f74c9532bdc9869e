//! Notices that this machine lost an address: what is bound to it hears nothing any more, and nobody says so.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// How often each address is looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often in a row it must be missing: an interface that is set up anew loses its addresses for a moment.
const MISSES: u32 = 2;

/// Watches the addresses that somebody waits for, in one task while there are any. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AddressWatch(Arc<Mutex<HashMap<IpAddr, watch::Sender<bool>>>>);

impl AddressWatch {
    /// Resolves when the machine has no longer had this address for a second or two; never for an address that is not its
    /// own to begin with, where the system has no way to tell, or after the runtime is gone. The first poll must be in a
    /// tokio runtime.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn gone(&self, address: IpAddr) -> impl Future<Output = ()> + Send + use<> {
        let watch = self.clone();
        async move {
            let mut gone = watch.subscribe(address);
            if gone.wait_for(|gone| *gone).await.is_err() {
                std::future::pending().await
            }
        }
    }

    fn subscribe(&self, address: IpAddr) -> watch::Receiver<bool> {
        let mut watched = self.watched();
        let is_first = watched.is_empty();
        let gone = watched.entry(address).or_insert_with(|| watch::Sender::new(false)).subscribe();
        drop(watched);
        if is_first {
            tokio::spawn(self.clone().look(is_missing));
        }
        gone
    }

    /// Looks until nobody waits any more.
    async fn look(self, is_missing: impl Fn(IpAddr) -> bool + Send) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = HashMap::<IpAddr, Looks>::new();
        loop {
            ticks.tick().await;
            let mut watched = self.watched();
            watched.retain(|address, gone| {
                let is_gone = looks.entry(*address).or_default().say(is_missing(*address));
                if is_gone {
                    gone.send_replace(true);
                }
                !is_gone && !gone.is_closed()
            });
            looks.retain(|address, _| watched.contains_key(address));
            if watched.is_empty() {
                return;
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<IpAddr, watch::Sender<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen of one address.
#[derive(Debug, Default)]
struct Looks {
    /// It was there, so that its absence means something.
    seen: bool,
    /// How often in a row it was missing since.
    misses: u32,
}

impl Looks {
    /// Takes another look into account. `true`: it is gone.
    const fn say(&mut self, missing: bool) -> bool {
        self.seen |= !missing;
        self.misses = if missing && self.seen { self.misses + 1 } else { 0 };
        self.misses >= MISSES
    }
}

/// Whether the system says that this machine has no such address: then nothing can be bound to it.
fn is_missing(address: IpAddr) -> bool {
    matches!(UdpSocket::bind((address, 0)), Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::{Instant, timeout};

    use super::*;

    #[test]
    fn the_system_tells_which_addresses_are_its_own() {
        assert!(!is_missing("127.0.0.1".parse().unwrap()));
        assert!(is_missing("192.0.2.1".parse().unwrap()), "of a block for documentation");
    }

    // spec: TB-31
    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_gone_is_noticed_within_seconds_and_the_task_ends_with_the_last_who_waits() {
        let (watch, missing) = (AddressWatch::default(), Arc::new(AtomicBool::new(false)));
        let address = "192.0.2.1".parse().unwrap();
        // What is gone already has a watcher of its own in the usual way; here the looking is the test's.
        watch.watched().insert(address, watch::Sender::new(false));
        let gone = watch.gone(address);
        let seen = Arc::clone(&missing);
        let looking = tokio::spawn(watch.clone().look(move |_| seen.load(Ordering::Relaxed)));
        let mut gone = std::pin::pin!(gone);
        assert!(timeout(100 * INTERVAL, &mut gone).await.is_err(), "it is there");
        missing.store(true, Ordering::Relaxed);
        let lost = Instant::now();
        gone.await;
        assert!(lost.elapsed() <= (MISSES + 1) * INTERVAL, "{:?}", lost.elapsed());
        looking.await.unwrap();
        assert!(watch.watched().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_blink_is_nothing() {
        let watch = AddressWatch::default();
        let address = "192.0.2.1".parse().unwrap();
        watch.watched().insert(address, watch::Sender::new(false));
        let missing = AtomicBool::new(false);
        let blinking = watch.clone().look(move |_| missing.fetch_xor(true, Ordering::Relaxed));
        let both = async { tokio::join!(watch.gone(address), blinking) };
        assert!(timeout(100 * INTERVAL, both).await.is_err(), "missing every second time");

        watch.watched().insert(address, watch::Sender::new(false));
        let both = async { tokio::join!(watch.gone(address), watch.clone().look(|_| true)) };
        assert!(timeout(100 * INTERVAL, both).await.is_err(), "never seen, so there is no way to tell");
    }
}
