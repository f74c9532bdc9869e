//! Reads the source again when a file of it has changed, where that is asked for (`reload.watch`).
//!
//! Files are looked at again and again, and not listened to: no notice comes from a network's file system or through the links
//! of a mounted volume, and a look costs a call for each file (`stat`; only what shows a sign of change is read). A change is
//! taken when two looks some time apart see the same: so whoever writes a file in pieces, or one file after another, causes one
//! reload, of all of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::config::Source;

/// Between two looks while nothing changes.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// For how long files must stay as they are to be taken for whole.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// Tells from looks when a change is whole. `T` is what a look sees.
#[derive(Debug)]
struct Settling<T> {
    /// What is there now and was not read yet, and since when.
    pending: Option<(T, Instant)>,
    /// What was acted on last, whatever came of it.
    acted: Option<T>,
}

impl<T> Default for Settling<T> {
    fn default() -> Self {
        Self { pending: None, acted: None }
    }
}

impl<T: PartialEq + Clone> Settling<T> {
    /// Whether to read now, having seen `found` where the last reading saw `read`. Each change is answered `true` once.
    fn is_due(&mut self, now: Instant, read: &T, found: T) -> bool {
        if found == *read {
            // Whoever comes back to what was acted on before makes another change.
            (self.pending, self.acted) = (None, None);
            return false;
        }
        if self.acted.as_ref() == Some(&found) {
            self.pending = None;
            return false;
        }
        match &self.pending {
            Some((pending, since)) if *pending == found => {
                if now.duration_since(*since) < SETTLED_AFTER {
                    return false;
                }
                self.pending = None;
                self.acted = Some(found);
                true
            }
            _ => {
                self.pending = Some((found, now));
                // What was there in between is another change when it comes back.
                self.acted = None;
                false
            }
        }
    }

    /// How long to wait for the next look.
    const fn pause(&self) -> Duration {
        match self.pending {
            Some(_) => SETTLED_AFTER,
            None => LOOK_INTERVAL,
        }
    }
}

/// Calls `reload` once for each change of a file that the last reading of `source` opened, while `wanted` is true. Returns when
/// nobody can want it any more.
///
/// Cancel safety: dropping the future stops it, a reload that runs included.
pub(super) async fn watch<F>(source: Source, mut wanted: watch::Receiver<bool>, mut reload: impl FnMut() -> F)
where
    F: Future<Output = ()>,
{
    let mut settling = Settling::default();
    while wanted.wait_for(|wanted| *wanted).await.is_ok() {
        tokio::select! {
            () = sleep(settling.pause()) => {}
            changed = wanted.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        let of_source = source.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let read = of_source.seen();
            let found = read.again();
            (read, found)
        });
        let Ok((read, found)) = looked.await else { return };
        if settling.is_due(Instant::now(), &read, found) {
            debug!(file = %source.path().display(), "a file has changed");
            reload().await;
        }
    }
}

#[cfg(test)]
mod tests;
