//! The table of flows beside a naive model, with a clock moved by hand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit::protocol::datagram::Datagram;
use adit::protocol::flows::{Arrived, FlowError, FlowLimits, Flows};
use adit::protocol::limits::MAX_EARLY_DATAGRAMS;
use bytes::Bytes;

/// Few enough that random operations meet both.
const LIMITS: FlowLimits = FlowLimits { max_flows: 5, idle_timeout: Duration::from_millis(200) };

/// Each operation is two bytes: what, and on which flow or for how long.
///
/// The table answers as the model does, never has more flows than it may, uses no id of its own twice, says a time to look
/// that is not too late, and is empty when everything has been idle.
pub fn flow_ops(data: &[u8]) {
    let mut pair = Pair { flows: Flows::new(LIMITS), model: BTreeMap::new(), now: Instant::now(), opened: 0 };
    for operation in data.chunks_exact(2) {
        pair.operate(operation[0], operation[1]);
        pair.check();
    }
    pair.now += LIMITS.idle_timeout;
    pair.expire();
    assert!(pair.flows.is_empty() && pair.flows.deadline().is_none());
}

struct Pair {
    flows: Flows<u64>,
    /// When each flow was used last, and how many datagrams it keeps if it is not open yet.
    model: BTreeMap<u64, (Instant, Option<usize>)>,
    now: Instant,
    opened: u64,
}

impl Pair {
    fn operate(&mut self, what: u8, much: u8) {
        let id = u64::from(much);
        match what % 7 {
            0 => self.open(),
            1 => self.accept(id),
            2 => self.become_open(id),
            3 => self.arrive(id),
            4 => {
                self.flows.used(id, self.now);
                self.touch(id);
            }
            5 => assert_eq!(self.flows.end(id).is_some(), self.model.remove(&id).is_some()),
            _ => {
                self.now += Duration::from_millis(id);
                self.expire();
            }
        }
    }

    fn open(&mut self) {
        // An accepted flow may have the id that comes next; a tunnel has one end that chooses ids, and never both.
        if self.model.contains_key(&self.opened) {
            return;
        }
        let full = self.model.len() == LIMITS.max_flows;
        match self.flows.open(self.opened, self.now) {
            Ok(id) => {
                assert!(!full && id == self.opened);
                self.opened += 1;
                self.model.insert(id, (self.now, Some(0)));
            }
            Err(error) => assert!(full && error == FlowError::Full(LIMITS.max_flows)),
        }
    }

    fn accept(&mut self, id: u64) {
        let accepted = self.flows.accept(id, id, self.now);
        if self.model.contains_key(&id) {
            assert_eq!(accepted, Err(FlowError::Taken(id)));
        } else if self.model.len() == LIMITS.max_flows {
            assert_eq!(accepted, Err(FlowError::Full(LIMITS.max_flows)));
        } else {
            assert_eq!(accepted, Ok(()));
            self.model.insert(id, (self.now, None));
        }
    }

    fn become_open(&mut self, id: u64) {
        let kept = self.flows.opened(id, self.now).len();
        let expected = self.model.get_mut(&id).map(|(used, early)| {
            *used = self.now;
            early.take().unwrap_or_default()
        });
        assert_eq!(kept, expected.unwrap_or_default());
    }

    fn arrive(&mut self, id: u64) {
        let arrived = self.flows.arrived(Datagram { flow: id, payload: Bytes::new() }, self.now);
        match self.model.get_mut(&id) {
            None => assert_eq!(arrived, Arrived::Dropped),
            Some((used, None)) => {
                assert_eq!(arrived, Arrived::To(&id, Bytes::new()));
                *used = self.now;
            }
            Some((_, Some(early))) if *early < MAX_EARLY_DATAGRAMS => {
                assert_eq!(arrived, Arrived::Kept);
                *early += 1;
            }
            Some(_) => assert_eq!(arrived, Arrived::Dropped),
        }
    }

    fn touch(&mut self, id: u64) {
        if let Some((used, _)) = self.model.get_mut(&id) {
            *used = self.now;
        }
    }

    fn expire(&mut self) {
        let mut expired: Vec<u64> = self.flows.expire(self.now).into_iter().map(|(id, _)| id).collect();
        expired.sort_unstable();
        let idle = |used: &Instant| self.now - *used >= LIMITS.idle_timeout;
        let expected: Vec<u64> = self.model.iter().filter(|(_, (used, _))| idle(used)).map(|(&id, _)| id).collect();
        assert_eq!(expired, expected);
        self.model.retain(|id, _| !expected.contains(id));
    }

    fn check(&self) {
        assert_eq!(self.flows.len(), self.model.len());
        assert!(self.flows.len() <= LIMITS.max_flows);
        if let Some(due) = self.model.values().map(|(used, _)| *used + LIMITS.idle_timeout).min() {
            assert!(self.flows.deadline().is_some_and(|deadline| deadline <= due), "a flow would outlive its time");
        }
    }
}
