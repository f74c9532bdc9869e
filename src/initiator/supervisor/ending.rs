//! How a slot ends: its tunnels are drained, and it is over when they are gone.

use std::time::Duration;

use super::attempt::Stage;
use super::{Supervisor, Until, due};
use crate::transport::{Accept, Tunnel};

impl<A: Accept> Supervisor<A> {
    /// Drains the tunnel and gives up what is under way beside it. `has_successor`: another slot has the place of this one.
    pub(super) async fn stop(mut self, until: Until, has_successor: bool) {
        let live = self.auto().tunnel();
        let live = live.and_then(|attempt| self.candidates.remove(&attempt));
        for (_, candidate) in self.candidates.drain() {
            candidate.abandon();
        }
        self.inbox.close();
        while let Some(report) = self.inbox.recv().await {
            report.happened.too_late();
        }
        let live = live.and_then(|candidate| match candidate.stage {
            Stage::Up(tunnel) => Some(tunnel),
            _ => None,
        });
        live.iter().for_each(|tunnel| self.part_with(tunnel, &until));
        if has_successor || self.slot.watched.is_replaced() {
            self.outlast(&until).await;
        }
        // One that the responder drains is told as well, or it would go on to get streams.
        self.drained.iter().for_each(|drained| self.part_with(drained.tunnel(), &until));
        let left: Vec<Tunnel> = self.drained.iter().map(|drained| drained.tunnel().clone()).chain(live).collect();
        // The session's drain timer bounds this wait.
        tokio::select! {
            () = gone(&left) => {}
            () = until.drain.announced() => {
                left.iter().for_each(|tunnel| self.part_with(tunnel, &until));
                gone(&left).await;
            }
        }
        self.shared.board.remove(self.slot.number);
    }

    /// Nobody waits for the end of a tunnel but a process that stops: what runs in one that is not heard goes on if it is heard
    /// again. spec: CT-28, CT-45
    fn part_with(&self, tunnel: &Tunnel, until: &Until) {
        match until.left() {
            Some(left) => tunnel.drain(left, Duration::ZERO),
            None => tunnel.retire(self.shared.state.current().terms.tunnel.drain_timeout),
        }
    }

    /// Where another slot has the place of this one, its responder still serves in what it drains until the fleet knows of that: it
    /// ends by itself, or when the process stops, nobody wants the destination any more, or its responder is not trusted any
    /// more. spec: CT-35, SE-43
    async fn outlast(&mut self, until: &Until) {
        self.shared.board.remove(self.slot.number);
        loop {
            self.refresh();
            self.judge_trust();
            self.leave_distrusted(true);
            self.forget_gone();
            let Some(first) = self.drained.first().map(|drained| drained.tunnel().clone()) else { return };
            if self.snapshot.find(&self.slot.prepared.key).is_none() {
                return;
            }
            tokio::select! {
                _ = first.closed() => {}
                () = until.drain.announced() => return,
                _ = self.changes.changed() => {}
                _ = self.health.changed() => {}
                () = due(self.announce_at) => {}
            }
        }
    }
}

/// Resolves when all of them are gone. Cancel safe.
async fn gone(tunnels: &[Tunnel]) {
    for tunnel in tunnels {
        tunnel.closed().await;
    }
}
