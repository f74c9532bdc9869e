//! A slot whose way of dialling the terms no longer want: it keeps the tunnel that it has until another slot has taken
//! over, and nothing that it began becomes another.

use std::time::Instant;

use super::attempt::{Happened, Report, Stage};
use super::drained::DISTRUST_PATIENCE;
use super::report::Cause;
use super::{Supervisor, Until, Woken, due};
use crate::initiator::auto::Attempt;
use crate::initiator::status::Change;
use crate::transport::{Accept, Tunnel};

impl<A: Accept> Supervisor<A> {
    /// Returns when its tunnel has gone, or has been drained on behalf of the slot that took over. One that the responder drains
    /// meanwhile is left to it. spec: FL-67
    pub(super) async fn retire(mut self, woken: Woken, until: Until) {
        let live = self.auto().tunnel();
        self.give_up_but(live);
        if let Woken::Report(report) = woken {
            self.fade(report);
        }
        let mut until_distrusted = None;
        while !(self.candidates.is_empty() && self.drained.is_empty()) {
            // Whatever else has changed with the trust, and whenever.
            self.judge_trust();
            self.leave_distrusted(false);
            if self.distrusted && until_distrusted.is_none() {
                until_distrusted = Some(Instant::now() + DISTRUST_PATIENCE);
            }
            tokio::select! {
                () = until.stop.cancelled() => break,
                // The tunnel still carries requests, whatever it was dialled with.
                _ = self.changes.changed() => self.refresh(),
                _ = self.health.changed() => self.announce(),
                () = due(until_distrusted) => break,
                () = due(self.announce_at) => self.announce(),
                () = due(self.leave_at) => {}
                Some(report) = self.inbox.recv() => self.fade(report),
            }
        }
        self.stop(until, true).await;
    }

    /// Gives up all but the tunnel, and the claims that the responder may have admitted already.
    fn give_up_but(&mut self, live: Option<Attempt>) {
        let spared = |attempt: &Attempt, stage: &Stage| {
            live == Some(*attempt) || matches!(stage, Stage::Claiming { .. } | Stage::Up(_))
        };
        for (_, candidate) in self.candidates.extract_if(|attempt, candidate| !spared(attempt, &candidate.stage)) {
            candidate.abandon();
        }
    }

    fn fade(&mut self, Report { attempt, happened }: Report) {
        match happened {
            Happened::Connected | Happened::Suspect | Happened::Alive | Happened::Reauthed(_) | Happened::Roster(_) => {
            }
            Happened::Gone { .. } => self.forget_gone(),
            Happened::Failed(_) => drop(self.candidates.remove(&attempt)),
            Happened::Draining(_) => {
                self.drained_by_peer(attempt);
                self.shared.board.apply(self.slot.number, Change::Lost { reason: Cause::of_drain().reason });
            }
            Happened::Closed(reason) => {
                self.candidates.remove(&attempt);
                self.shared.board.apply(self.slot.number, Change::Lost { reason: reason.text });
            }
            // It may be in use already; so it is not cut off.
            Happened::Opened(opened) if self.candidates.remove(&attempt).is_some() => self.drain(&opened.tunnel),
            late @ Happened::Opened(_) => late.too_late(),
        }
    }

    fn drain(&self, tunnel: &Tunnel) {
        tunnel.retire(self.snapshot.terms.tunnel.drain_timeout);
    }
}
