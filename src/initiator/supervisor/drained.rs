//! Tunnels that their responder drains: it says for how long, and may still open streams in them. Until they are gone they are
//! told what changes, and judged, as any other. spec: CT-35, SE-43

use std::time::{Duration, Instant};

use super::Supervisor;
use super::attempt::{Candidate, Stage};
use crate::initiator::auto::Attempt;
use crate::transport::{Accept, Phase, Tunnel};

/// How long a tunnel stays whose responder is not trusted any more, while another one is dialled. spec: SE-43
pub(super) const DISTRUST_PATIENCE: Duration = Duration::from_secs(10);

/// A tunnel that its responder drains.
pub(super) struct Drained {
    candidate: Candidate,
    tunnel: Tunnel,
    /// This end drains it, too.
    is_left: bool,
}

impl Drained {
    fn new(candidate: Candidate) -> Option<Self> {
        let Stage::Up(tunnel) = &candidate.stage else { return None };
        Some(Self { tunnel: tunnel.clone(), candidate, is_left: false })
    }

    pub(super) const fn candidate(&mut self) -> &mut Candidate {
        &mut self.candidate
    }

    pub(super) const fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    fn is_gone(&self) -> bool {
        matches!(&*self.tunnel.phase().borrow(), Phase::Closed(_))
    }

    /// When this end drains it, too: once another tunnel is open in its place, or soon without one.
    fn leave_at(&self, has_other: bool) -> Option<Instant> {
        let since = self.candidate.credential.distrusted_at.filter(|_| !self.is_left)?;
        Some(if has_other { since } else { since + DISTRUST_PATIENCE })
    }
}

impl<A: Accept> Supervisor<A> {
    /// It is no candidate any more.
    pub(super) fn drained_by_peer(&mut self, attempt: Attempt) {
        self.drained.extend(self.candidates.remove(&attempt).and_then(Drained::new));
        self.forget_gone();
    }

    pub(super) fn forget_gone(&mut self) {
        self.drained.retain(|drained| !drained.is_gone());
    }

    /// How long a responder drains is for it to say only as long as it is trusted. `has_other`: a tunnel is open in the place of
    /// these. spec: SE-43
    pub(super) fn leave_distrusted(&mut self, has_other: bool) {
        let (now, drain_timeout) = (Instant::now(), self.snapshot.terms.tunnel.drain_timeout);
        for drained in &mut self.drained {
            if drained.leave_at(has_other).is_some_and(|at| at <= now) {
                drained.is_left = true;
                drained.tunnel.retire(drain_timeout);
            }
        }
        self.leave_at = self.drained.iter().filter_map(|drained| drained.leave_at(has_other)).min();
    }
}
