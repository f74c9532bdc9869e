//! How a tunnel that is up follows terms with another certificate or token, or other trust: what it can be shown it is shown, and
//! where that does not do, another slot takes over. spec: CT-57, SE-43

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use super::attempt::{Candidate, Stage};
use super::credential::{Shown, Step};
use super::{Supervisor, told};
use crate::initiator::auto::Attempt;
use crate::protocol::reauth::Reauthed;
use crate::transport::Accept;

impl<A: Accept> Supervisor<A> {
    /// Brings what is up in line with the terms. Returns whether the slot may go on; else another one is asked for.
    pub(super) fn renew(&mut self) -> bool {
        self.renew_at = None;
        if self.slot.outdated.is() {
            return false;
        }
        let has_tunnel = self.auto().tunnel().is_some();
        if self.standing != self.snapshot.standing && !has_tunnel {
            // What it has begun shows, and trusts, what was.
            self.slot.outdated.say();
            return false;
        }
        self.judge_trust();
        self.leave_distrusted(has_tunnel && !self.distrusted);
        let outdated = self.step();
        if let Some(reason) = outdated {
            let (destination, slot) = (self.slot.destination(), self.slot.number);
            info!(%destination, slot, reason, "a tunnel with what the settings want takes over from this one");
            self.slot.outdated.say();
        } else if self.renew_at.is_none() {
            self.standing = self.snapshot.standing;
        }
        outdated.is_none()
    }

    /// Judges by the terms that hold now whom each tunnel leads to, where they trust others than before. What is found stays so.
    /// spec: SE-43
    pub(super) fn judge_trust(&mut self) {
        let standing = self.snapshot.standing;
        let dialled = self.prepared.destination.server_name();
        for Candidate { stage, credential, .. } in told(&mut self.candidates, &mut self.drained) {
            let Stage::Up(tunnel) = stage else { continue };
            if credential.distrusted_at.is_some()
                || credential.trusts == standing.trusts
                || self.prepared.destination.transport.is_in_clear()
            {
                continue;
            }
            // An Envoy has shown its chain to a connection that is no tunnel: it cannot be judged again.
            match self.snapshot.judge.judge(&tunnel.peer_certificates(), &dialled, SystemTime::now()) {
                Ok(()) => credential.trusts = standing.trusts,
                Err(rejection) => {
                    warn!(destination = %self.slot.destination(), slot = self.slot.number, tunnel = %tunnel.id(), reason = %rejection, "the responder is not trusted any more");
                    credential.distrusted_at = Some(Instant::now());
                }
            }
        }
        let is_found = |candidate: &Candidate| candidate.credential.distrusted_at.is_some();
        self.distrusted |= self.candidates.values().any(is_found);
    }

    /// Takes a step with each tunnel; why one cannot follow.
    fn step(&mut self) -> Option<&'static str> {
        let now = Instant::now();
        let wanted = Shown { tls: Arc::clone(&self.snapshot.terms.tls), token: self.snapshot.terms.token.clone() };
        for Candidate { stage, credential, .. } in self.candidates.values_mut() {
            let Stage::Up(tunnel) = stage else { continue };
            if self.distrusted {
                return Some("its responder is not trusted any more");
            }
            match credential.show(&wanted, tunnel, now) {
                Step::Done => {}
                Step::Later(at) => self.renew_at = Some(self.renew_at.map_or(at, |other| other.min(at))),
                Step::Outdated(reason) => return Some(reason),
            }
        }
        None
    }

    /// The responder has judged what it was shown on a tunnel. Refused, the tunnel rests on what it showed before. spec: CT-56
    pub(super) fn reauthed(&mut self, attempt: Attempt, reauthed: Reauthed) {
        let Some(Candidate { stage: Stage::Up(tunnel), credential, .. }) = self.candidates.get_mut(&attempt) else {
            return;
        };
        let Some(shown) = credential.answered(&reauthed) else { return };
        let (destination, slot, tunnel) = (self.slot.prepared.key.target.clone(), self.slot.number, tunnel.id());
        match reauthed.refusal {
            None => {
                let certificate = shown.credentials().map(|credentials| credentials.summary().to_string());
                info!(%destination, slot, %tunnel, certificate, "the responder takes another credential for this tunnel");
            }
            Some(refusal) => {
                let (code, reason) = (refusal.code.number(), refusal.reason);
                warn!(%destination, slot, %tunnel, code, reason, "the responder refuses another credential for this tunnel");
                self.slot.outdated.say();
            }
        }
    }
}
