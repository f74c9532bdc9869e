//! How large message heads may be in one tunnel, each way, and how that changes while it lives.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::protocol::handshake::PeerLimits;
use crate::protocol::limits::Limits;
use crate::transport::latest::Latest;

/// What both ends take.
#[derive(Debug)]
pub(crate) struct Heads {
    /// What the peer takes. LIMITS may change it. spec: CT-31
    peer: AtomicU64,
    /// What has to be taken of the peer. spec: CT-31, CT-33
    takes: AtomicU64,
    /// The most that was taken so far, as HTTP/2 counts it, for the guard below it: that knows no streams, of which some were
    /// opened when it was more.
    list: Arc<AtomicUsize>,
    /// The most of it that the connection can be told to take.
    most: OnceLock<Limits>,
    /// What the peer is to be told of that.
    wanted: Latest<PeerLimits>,
}

impl Heads {
    /// The peer has announced this; what is taken of it is as by default until that is said.
    pub(super) fn new(peer: PeerLimits) -> Self {
        let heads = Self {
            peer: AtomicU64::new(packed(peer)),
            takes: AtomicU64::new(0),
            list: Arc::default(),
            most: OnceLock::new(),
            wanted: Latest::default(),
        };
        heads.takes.store(packed(Limits::OURS.into()), Ordering::Release);
        heads
    }

    /// What the peer takes by now.
    pub(super) fn peer(&self) -> PeerLimits {
        unpacked(self.peer.load(Ordering::Relaxed))
    }

    pub(super) fn replace_peer(&self, limits: PeerLimits) {
        self.peer.store(packed(limits), Ordering::Relaxed);
    }

    /// What has to be taken of the peer by now. A stream that is open already may have been opened when it was more: what held
    /// then holds for it as well. spec: CT-31, CT-33
    pub(crate) fn takes(&self) -> Limits {
        unpacked(self.takes.load(Ordering::Acquire)).into()
    }

    pub(super) fn replace_takes(&self, limits: PeerLimits) {
        self.list.fetch_max(header_list_size(limits.into()), Ordering::AcqRel);
        self.takes.store(packed(limits), Ordering::Release);
    }

    /// The most that was taken so far, as HTTP/2 counts it (RFC 9113 section 6.5.2); nothing before the handshake.
    pub(super) const fn list(&self) -> &Arc<AtomicUsize> {
        &self.list
    }

    /// The connection cannot be told to take more than this, whatever is wanted; the first call decides.
    pub(super) fn bound(&self, most: Limits) {
        let _ = self.most.set(most);
    }

    /// The peer is to be told that this end takes so much, as far as the connection can.
    pub(super) fn want(&self, limits: Limits) {
        let limits = self.most.get().map_or(limits, |most| limits.or_less(*most));
        self.wanted.put(limits.into());
    }

    /// What the peer is to be told, for the driver.
    pub(super) const fn wanted(&self) -> &Latest<PeerLimits> {
        &self.wanted
    }
}

/// Two limits in one word, which is read and written at once.
fn packed(limits: PeerLimits) -> u64 {
    u64::from(limits.head_bytes) << 32 | u64::from(limits.head_fields)
}

const fn unpacked(packed: u64) -> PeerLimits {
    PeerLimits { head_bytes: (packed >> 32) as u32, head_fields: packed as u32 }
}

/// What HTTP/2 counts of a head is larger than what we do: 32 bytes a field on top (RFC 9113 section 6.5.2).
pub(super) const fn header_list_size(limits: Limits) -> usize {
    limits.head_bytes.saturating_add(limits.head_fields.saturating_add(8).saturating_mul(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-31, TB-32
    #[test]
    fn what_was_taken_once_passes_the_guard_for_streams_of_that_time() {
        let heads = Heads::new(PeerLimits::default());
        assert_eq!((heads.takes(), heads.peer()), (Limits::OURS, PeerLimits::default()));
        let list = Arc::clone(heads.list());
        let (low, high) =
            (Limits { head_bytes: 4_096, head_fields: 32 }, Limits { head_bytes: 99_999, head_fields: 32 });
        for (limits, most) in [(low, low), (high, high), (low, high)] {
            heads.replace_takes(limits.into());
            assert_eq!(heads.takes(), limits);
            assert_eq!(list.load(Ordering::Acquire), header_list_size(most));
        }
    }
}
