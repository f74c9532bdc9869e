//! Paths that lose large packets and say nothing: where TLS does not come about over a connection that is up, a second one
//! with small segments is tried beside it, and what worked is remembered. Does what the sysctl `net.ipv4.tcp_mtu_probing`
//! would, for this program alone. spec: TB-30

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// Bytes that a segment carries on a narrow path: with headers and options at most 1,200 bytes of IPv6, which QUIC needs too.
const SEGMENT: u32 = 1_140;
/// How long TLS may take before the path is suspected: several retransmissions, and longer than a busy responder takes.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long an address is dialled with small segments once that has helped. The path may have changed for the better.
const MEMORY: Duration = Duration::from_secs(600);

/// What one dialer knows of the paths to its addresses. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct NarrowPaths(Arc<Mutex<HashMap<SocketAddr, Instant>>>);

impl NarrowPaths {
    /// Dials with `attempt`, which is told the segment size to ask for, and calls `connected` once TCP is up.
    ///
    /// Cancel safe if `attempt` is.
    pub(super) async fn dial<T, E, F>(
        &self,
        address: SocketAddr,
        attempt: impl Fn(Option<u32>, Arc<Connected>) -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let up = Arc::<Connected>::default();
        if self.is_narrow(address, now()) {
            return attempt(Some(SEGMENT), up).await;
        }
        let mut wide = std::pin::pin!(attempt(None, Arc::clone(&up)));
        tokio::select! {
            biased;
            dialed = &mut wide => return dialed,
            () = async { up.wait().await; sleep(PATIENCE).await } => {}
        }
        let mut narrow = std::pin::pin!(attempt(Some(SEGMENT), Arc::default()));
        tokio::select! {
            biased;
            dialed = &mut wide => dialed,
            dialed = &mut narrow => match dialed {
                Ok(dialed) => {
                    self.remember(address, now());
                    Ok(dialed)
                }
                Err(_) => wide.await,
            }
        }
    }

    fn is_narrow(&self, address: SocketAddr, now: Instant) -> bool {
        self.known().get(&address).is_some_and(|&since| now.saturating_duration_since(since) < MEMORY)
    }

    fn remember(&self, address: SocketAddr, now: Instant) {
        let mut known = self.known();
        known.retain(|_, since| now.saturating_duration_since(*since) < MEMORY);
        known.insert(address, now);
        tracing::info!(
            %address,
            segment = SEGMENT,
            "the path loses large packets of TCP without a word: dialling with small segments from now on"
        );
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        // One entry at a time is put in or taken out whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells that TCP is up, so that what is missing is not an answer to its first packet.
#[derive(Debug, Default)]
pub(super) struct Connected(tokio::sync::Notify);

impl Connected {
    pub(super) fn tell(&self) {
        self.0.notify_one();
    }

    async fn wait(&self) {
        self.0.notified().await;
    }
}

/// The time by the clock of the runtime; in tests that may be one moved by hand.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::*;

    fn address() -> SocketAddr {
        "192.0.2.1:7843".parse().unwrap()
    }

    /// What the path does to TLS over a connection with this bound on its segments.
    async fn tls(over: Result<Duration, Duration>) -> Result<(), ()> {
        match over {
            Ok(after) => sleep(after).await,
            Err(after) => {
                sleep(after).await;
                return Err(());
            }
        }
        Ok(())
    }

    const NEVER: Duration = Duration::from_secs(86_400);
    const RTT: Duration = Duration::from_millis(50);

    // spec: TB-30
    #[tokio::test(start_paused = true)]
    async fn a_path_that_loses_large_packets_is_up_in_seconds_and_the_next_time_at_once() {
        let paths = NarrowPaths::default();
        let dial = || {
            paths.dial(address(), |segment, up| async move {
                up.tell();
                tls(Ok(if segment.is_some() { RTT } else { NEVER })).await
            })
        };
        let began = now();
        dial().await.unwrap();
        assert_eq!(now() - began, PATIENCE + RTT);
        let again = now();
        dial().await.unwrap();
        assert_eq!(now() - again, RTT);
        tokio::time::advance(MEMORY).await;
        let later = now();
        dial().await.unwrap();
        assert_eq!(now() - later, PATIENCE + RTT, "the path may have changed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_carries_everything_is_dialled_once_and_one_without_any_answer_too() {
        let (paths, dials) = (NarrowPaths::default(), AtomicUsize::new(0));
        let dial = |up_at: Duration, tls_at: Duration| {
            let dials = &dials;
            paths.dial(address(), move |_, up| async move {
                dials.fetch_add(1, Ordering::Relaxed);
                sleep(up_at).await;
                up.tell();
                tls(Ok(tls_at)).await
            })
        };
        dial(RTT, RTT).await.unwrap();
        assert!(timeout(10 * PATIENCE, dial(NEVER, RTT)).await.is_err());
        assert_eq!(dials.load(Ordering::Relaxed), 2);
        dial(RTT, PATIENCE + RTT).await.unwrap();
        assert_eq!(dials.load(Ordering::Relaxed), 4);
        assert!(!paths.is_narrow(address(), now()), "it was only slow");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_responder_says_is_the_answer_whatever_became_of_the_other_connection() {
        let paths = NarrowPaths::default();
        let refused = paths.dial(address(), |segment, up| async move {
            up.tell();
            tls(Err(if segment.is_some() { RTT } else { 2 * PATIENCE })).await
        });
        let began = now();
        assert_eq!(refused.await, Err(()));
        assert_eq!(now() - began, 2 * PATIENCE);
    }
}
