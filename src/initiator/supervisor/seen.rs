//! What a slot says of itself to whoever decides where it goes, and what its responder says of the fleet.

use std::sync::Arc;

use super::Supervisor;
use crate::initiator::auto::Attempt;
use crate::initiator::spread::Condition;
use crate::initiator::status::Change;
use crate::protocol::roster::Roster;
use crate::transport::Accept;

impl<A: Accept> Supervisor<A> {
    /// Says what the slot does now.
    pub(super) fn show(&self) {
        let (tunnel, doubted) = {
            let auto = self.auto();
            (auto.tunnel_since(), auto.suspect_since())
        };
        let (since, why) = self.down.clone();
        self.slot.watched.show(match tunnel {
            None => Condition::Down { since, why },
            Some((attempt, since)) => {
                let responder = self.candidates.get(&attempt).and_then(|candidate| candidate.responder.clone());
                match doubted {
                    Some(since) => Condition::Doubtful { responder, since },
                    None => Condition::Up { responder, since },
                }
            }
        });
    }

    /// The responder of this attempt says who is in its fleet, or that it is in none any more. spec: CT-62
    pub(super) fn learn(&mut self, attempt: Attempt, roster: Option<Roster>) {
        match self.candidates.get_mut(&attempt) {
            Some(candidate) => candidate.responder = roster.as_ref().map(|roster| roster.own.id.clone()),
            // One that drains may be the only one that says where else there is to go.
            None if roster.is_some() => {}
            None => return,
        }
        if let Some(roster) = roster.as_ref().filter(|_| self.auto().tunnel() == Some(attempt)) {
            // Siblings may all call themselves the same.
            let responder = roster.own.id.to_string();
            self.shared.board.apply(self.slot.number, Change::Named { responder });
        }
        self.slot.watched.sight().learn(roster.map(Arc::new));
    }
}
