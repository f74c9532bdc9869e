//! What an end takes of message heads: what its peer was told of that, and what it is still held to.

use std::time::{Duration, Instant};

use crate::protocol::handshake::PeerLimits;

/// The least time between two LIMITS. spec: CT-64
pub(super) const INTERVAL: Duration = Duration::from_millis(500);

/// The limits of this end.
#[derive(Debug)]
pub(super) struct Grant {
    /// What the peer was told last.
    told: PeerLimits,
    /// What it is to be told once it may be told more.
    wanted: Option<PeerLimits>,
    /// When that is.
    not_before: Option<Instant>,
    /// The highest of what it was told before, and until when it may go by that. spec: CT-33
    former: Option<(PeerLimits, Instant)>,
}

impl Grant {
    /// The peer was told this in the handshake.
    pub(super) fn new(told: PeerLimits) -> Self {
        Self { told: told.announced(), wanted: None, not_before: None, former: None }
    }

    /// The peer is to be told this.
    pub(super) fn want(&mut self, limits: PeerLimits) {
        self.wanted = Some(limits.announced());
    }

    /// What the peer may go by now.
    pub(super) fn takes(&self) -> PeerLimits {
        self.former.map_or(self.told, |(former, _)| self.told.or_more(former))
    }

    /// When to [`Grant::act`] next; `None`: not before something else is wanted.
    pub(super) fn due(&self) -> Option<Instant> {
        let tell = self.wanted.and(self.not_before);
        [tell, self.former.map(|(_, until)| until)].into_iter().flatten().min()
    }

    /// Does what is due: returns what the peer is to be told. After a lower limit the former one is kept for `grace`.
    pub(super) fn act(&mut self, now: Instant, grace: Duration) -> Option<PeerLimits> {
        if self.former.is_some_and(|(_, until)| until <= now) {
            self.former = None;
        }
        if self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        self.not_before = None;
        let wanted = self.wanted.take().filter(|wanted| *wanted != self.told)?;
        let before = self.takes();
        if wanted.or_more(self.told) != wanted {
            self.former = Some((before, now + grace));
        }
        self.told = wanted;
        self.not_before = Some(now + INTERVAL);
        Some(wanted)
    }
}
