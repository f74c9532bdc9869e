//! The flows of one tunnel: which there are, whose a datagram is, and when one has been idle for too long.
//! spec: ST-41, ST-70 to ST-76
//!
//! Without I/O: time comes in as `now`, datagrams come in and go out as values. `H` is what the caller finds a flow again
//! by, such as the sending half of a channel. Both ends use the same table: a responder [`open`](Flows::open)s flows, an
//! initiator [`accept`](Flows::accept)s them.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::protocol::datagram::Datagram;
use crate::protocol::limits;

/// The bounds of one tunnel's flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowLimits {
    /// How many there are at most at once. Default 1,024. spec: ST-71
    pub max_flows: usize,
    /// How long one may carry nothing in either direction. Default 120 s. spec: ST-76
    pub idle_timeout: Duration,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self { max_flows: limits::DEFAULT_FLOWS, idle_timeout: limits::DEFAULT_FLOW_IDLE_TIMEOUT }
    }
}

/// Why there is no new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// There are as many as there may be. spec: ST-71
    #[error("the tunnel has {0} flows, which is the limit")]
    Full(usize),
    /// A live flow has this id. spec: ST-70
    #[error("flow {0} exists already")]
    Taken(u64),
}

/// What became of a datagram that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived<'a, H> {
    /// It belongs to this flow.
    To(&'a H, Bytes),
    /// Its flow is not open yet: it is kept until then. spec: ST-74
    Kept,
    /// There is no such flow, or it keeps as many as it may. spec: ST-41, ST-74
    Dropped,
}

/// The table of one tunnel.
#[derive(Debug)]
pub struct Flows<H> {
    limits: FlowLimits,
    flows: HashMap<u64, Flow<H>>,
    /// The id of the next flow that this end opens; none is used twice. spec: ST-70
    next_id: u64,
    /// No flow is idle for too long before this.
    next_look: Option<Instant>,
}

#[derive(Debug)]
struct Flow<H> {
    handle: H,
    /// When a datagram came or went last.
    used: Instant,
    /// What came before OPENED; `None` once it is open. spec: ST-74
    early: Option<Vec<Bytes>>,
}

impl<H> Flows<H> {
    /// An empty table.
    pub fn new(limits: FlowLimits) -> Self {
        Self { limits, flows: HashMap::new(), next_id: 0, next_look: None }
    }

    /// Enters a flow that this end, the responder, asks for, and chooses its id. It is open when
    /// [`opened`](Self::opened) says so. spec: ST-70
    pub fn open(&mut self, handle: H, now: Instant) -> Result<u64, FlowError> {
        self.check_room()?;
        let id = self.next_id;
        self.next_id += 1;
        self.enter(id, Flow { handle, used: now, early: Some(Vec::new()) });
        Ok(id)
    }

    /// Enters a flow that the responder asked for, open at once. spec: ST-70, ST-71
    pub fn accept(&mut self, id: u64, handle: H, now: Instant) -> Result<(), FlowError> {
        if self.flows.contains_key(&id) {
            return Err(FlowError::Taken(id));
        }
        self.check_room()?;
        self.enter(id, Flow { handle, used: now, early: None });
        Ok(())
    }

    /// OPENED was read: gives what came before it, at most 8 datagrams. spec: ST-74
    pub fn opened(&mut self, id: u64, now: Instant) -> Vec<Bytes> {
        let Some(flow) = self.flows.get_mut(&id) else { return Vec::new() };
        flow.used = now;
        flow.early.take().unwrap_or_default()
    }

    /// A datagram arrived: says whose it is. spec: ST-41
    pub fn arrived(&mut self, datagram: Datagram, now: Instant) -> Arrived<'_, H> {
        let Some(flow) = self.flows.get_mut(&datagram.flow) else { return Arrived::Dropped };
        match &mut flow.early {
            None => {
                flow.used = now;
                Arrived::To(&flow.handle, datagram.payload)
            }
            Some(early) if early.len() < limits::MAX_EARLY_DATAGRAMS => {
                // It may wait for long, and would keep what it came in.
                early.push(Bytes::copy_from_slice(&datagram.payload));
                Arrived::Kept
            }
            Some(_) => Arrived::Dropped,
        }
    }

    /// A datagram of this flow was sent, or came on its stream: it is not idle. spec: ST-76
    pub fn used(&mut self, id: u64, now: Instant) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.used = now;
        }
    }

    /// The flow is over; gives back its handle. What arrives for it from now on is dropped. spec: ST-75
    pub fn end(&mut self, id: u64) -> Option<H> {
        self.flows.remove(&id).map(|flow| flow.handle)
    }

    /// When to call [`expire`](Self::expire) next; `None` while there is no flow. It may be earlier than needed, and never
    /// later.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// Ends the flows that have been idle for the idle timeout. spec: ST-76
    pub fn expire(&mut self, now: Instant) -> Vec<(u64, H)> {
        if self.next_look.is_none_or(|look| now < look) {
            return Vec::new();
        }
        let idle = self.limits.idle_timeout;
        let expired = self.flows.extract_if(|_, flow| now.saturating_duration_since(flow.used) >= idle);
        let expired = expired.map(|(id, flow)| (id, flow.handle)).collect();
        self.next_look = self.flows.values().map(|flow| flow.used + idle).min();
        expired
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    fn check_room(&self) -> Result<(), FlowError> {
        if self.flows.len() < self.limits.max_flows { Ok(()) } else { Err(FlowError::Full(self.flows.len())) }
    }

    fn enter(&mut self, id: u64, flow: Flow<H>) {
        let deadline = flow.used + self.limits.idle_timeout;
        self.next_look = Some(self.next_look.map_or(deadline, |look| look.min(deadline)));
        self.flows.insert(id, flow);
    }
}
