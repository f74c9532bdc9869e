//! The flows of one UDP listener, found by the address of their source and the one that it speaks to: which there are, which of them gives way where there
//! is no room, and when one has been silent for too long. spec: ST-76, ST-78
//!
//! Without I/O: time comes in as `now`. `H` is what the caller finds a flow again by, such as the sending half of a queue;
//! the table drops it when the flow is over.
//!
//! Whoever can send packets can make up as many sources as it likes. So a source that the site has not answered is worth
//! less than one that it has, and one that is silent less than one that speaks.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::UdpLimits;
use crate::net::{Ends, Prefix};

/// How long a flow is left alone that the site has not answered.
pub(super) const UNANSWERED_GRACE: Duration = Duration::from_secs(1);
/// How long one is left alone that it has answered, in silence.
pub(super) const SILENT_GRACE: Duration = Duration::from_secs(10);
/// How often flows are looked at for some that may give way: all of them, or those of one prefix.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How many of them are noted in one look.
const NOTED: usize = 256;
/// How exactly the end of a silent flow is told.
const TICK: Duration = Duration::from_millis(100);

/// One flow: its source may have had others before, and have others now, to other addresses of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) ends: Ends,
    number: u64,
}

/// Whose a datagram is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived<'a, H> {
    /// Of this flow.
    To(&'a H),
    /// Of a source for which no flow could be opened just before.
    Barred,
    /// Of a new source.
    Unknown,
}

/// A new flow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entered {
    pub(super) key: Key,
    /// Another one had to end for it.
    pub(super) gave_way: bool,
}

/// Why there is no new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Its prefix has as many as it may.
    Prefix,
    /// The listener has.
    Listener,
    /// No new ones are taken any more.
    Closed,
}

/// The flows of a listener.
#[derive(Debug)]
pub(super) struct Table<H> {
    limits: UdpLimits,
    flows: HashMap<Ends, Flow<H>>,
    of_prefix: HashMap<Prefix, Neighbours>,
    number: u64,
    closed: bool,
    next_look: Option<Instant>,
    /// Those that may give way to anybody.
    of_all: Candidates,
}

/// The flows of one prefix.
#[derive(Debug, Default)]
struct Neighbours {
    ends: HashSet<Ends>,
    /// Those that may give way to their own prefix.
    candidates: Candidates,
}

#[derive(Debug)]
struct Flow<H> {
    number: u64,
    state: State<H>,
    entered: Instant,
    /// When a datagram came or went last.
    used: Instant,
}

#[derive(Debug)]
enum State<H> {
    Asked(H),
    Answered(H),
    /// Nothing of its source is taken until then.
    Barred(Instant),
}

/// Flows that may give way, the first of them first, and when they were looked for.
#[derive(Debug, Default)]
struct Candidates {
    looked: Option<Instant>,
    keys: VecDeque<Key>,
}

impl<H> Table<H> {
    pub(super) fn new(limits: UdpLimits) -> Self {
        Self {
            limits,
            flows: HashMap::new(),
            of_prefix: HashMap::new(),
            number: 0,
            closed: false,
            next_look: None,
            of_all: Candidates::default(),
        }
    }

    /// A datagram came from this source.
    pub(super) fn arrived(&mut self, ends: Ends, now: Instant) -> Arrived<'_, H> {
        if let Some(Flow { state: State::Barred(until), .. }) = self.flows.get(&ends)
            && *until <= now
        {
            self.remove(ends);
        }
        match self.flows.get_mut(&ends) {
            None => Arrived::Unknown,
            Some(flow) => match &flow.state {
                State::Barred(_) => Arrived::Barred,
                State::Asked(handle) | State::Answered(handle) => {
                    flow.used = now;
                    Arrived::To(handle)
                }
            },
        }
    }

    /// Enters a flow for a source that has none; where there is no room, in the place of one that may give way. spec: ST-78
    pub(super) fn enter(&mut self, ends: Ends, now: Instant, handle: impl FnOnce(Key) -> H) -> Result<Entered, NoRoom> {
        if self.closed {
            return Err(NoRoom::Closed);
        }
        let prefix = Prefix::of(ends.source.ip());
        let mut gave_way = false;
        if self.of_prefix.get(&prefix).is_some_and(|near| near.ends.len() >= self.limits.flows_per_prefix) {
            gave_way = self.make_room(Some(prefix), now);
            if !gave_way {
                return Err(NoRoom::Prefix);
            }
        }
        if self.flows.len() >= self.limits.flows {
            if !self.make_room(None, now) {
                return Err(NoRoom::Listener);
            }
            gave_way = true;
        }
        self.number += 1;
        let key = Key { ends, number: self.number };
        let flow = Flow { number: self.number, state: State::Asked(handle(key)), entered: now, used: now };
        self.flows.insert(ends, flow);
        self.of_prefix.entry(prefix).or_default().ends.insert(ends);
        self.look_by(now + self.limits.flow_idle);
        Ok(Entered { key, gave_way })
    }

    /// The site has sent something to this source.
    pub(super) fn answered(&mut self, key: Key, now: Instant) {
        let Some(flow) = self.flows.get_mut(&key.ends).filter(|flow| flow.number == key.number) else { return };
        flow.used = now;
        if matches!(flow.state, State::Asked(_)) {
            let state = std::mem::replace(&mut flow.state, State::Barred(now));
            flow.state = match state {
                State::Asked(handle) => State::Answered(handle),
                other => other,
            };
        }
    }

    /// The flow could not be opened: its source is not listened to for a while, so that it costs the site nothing meanwhile.
    pub(super) fn bar(&mut self, key: Key, until: Instant) {
        if let Some(flow) = self.flows.get_mut(&key.ends).filter(|flow| flow.number == key.number) {
            flow.state = State::Barred(until);
            self.look_by(until);
        }
    }

    /// The flow is over.
    pub(super) fn end(&mut self, key: Key) {
        if self.flows.get(&key.ends).is_some_and(|flow| flow.number == key.number) {
            self.remove(key.ends);
        }
    }

    /// When to call [`Self::expire`] next; it may be earlier than needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// Ends the flows that have been silent for too long, up to a tick later. spec: ST-76
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_look.is_none_or(|look| now < look) {
            return;
        }
        let idle = self.limits.flow_idle;
        let over: Vec<Ends> =
            self.flows.iter().filter(|(_, flow)| flow.ends(idle) <= now).map(|(ends, _)| *ends).collect();
        over.into_iter().for_each(|ends| self.remove(ends));
        let next = self.flows.values().map(|flow| flow.ends(idle)).min();
        self.next_look = next.map(|next| next.max(now + TICK));
    }

    /// Other bounds; flows beyond them are ended only for their silence.
    pub(super) fn limit(&mut self, limits: UdpLimits, now: Instant) {
        self.limits = limits;
        if !self.flows.is_empty() {
            self.look_by(now);
        }
    }

    /// Takes no new source any more; of those there are, none may be silent for longer than this.
    pub(super) fn close(&mut self, idle_timeout: Duration, now: Instant) {
        self.closed = true;
        let flow_idle = idle_timeout.min(self.limits.flow_idle);
        self.limit(UdpLimits { flow_idle, ..self.limits }, now);
    }

    /// Whether no new source is taken any more.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.flows.len()
    }

    /// Ends one that may give way, if there is any.
    fn make_room(&mut self, within: Option<Prefix>, now: Instant) -> bool {
        let mut candidates = self.candidates(within).map(std::mem::take).unwrap_or_default();
        let mut victim = self.first_of(&mut candidates, now);
        let may_look = candidates.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_INTERVAL);
        if victim.is_none() && may_look {
            candidates = self.look(within, now);
            victim = self.first_of(&mut candidates, now);
        }
        if let Some(kept) = self.candidates(within) {
            *kept = candidates;
        }
        victim.map(|key| self.remove(key.ends)).is_some()
    }

    /// The first of those noted that may still give way.
    fn first_of(&self, candidates: &mut Candidates, now: Instant) -> Option<Key> {
        while let Some(key) = candidates.keys.pop_front() {
            let flow = self.flows.get(&key.ends).filter(|flow| flow.number == key.number);
            if flow.is_some_and(|flow| flow.rank(now).is_some()) {
                return Some(key);
            }
        }
        None
    }

    fn look(&self, within: Option<Prefix>, now: Instant) -> Candidates {
        let ranked =
            |(ends, flow): (&Ends, &Flow<H>)| Some((flow.rank(now)?, Key { ends: *ends, number: flow.number }));
        let mut found: Vec<_> = match within {
            None => self.flows.iter().filter_map(ranked).collect(),
            Some(prefix) => {
                let ends = self.of_prefix.get(&prefix).into_iter().flat_map(|near| &near.ends);
                ends.filter_map(|ends| ranked((ends, self.flows.get(ends)?))).collect()
            }
        };
        found.sort_by_key(|(rank, key)| (*rank, key.number));
        found.truncate(NOTED);
        Candidates { looked: Some(now), keys: found.into_iter().map(|(_, key)| key).collect() }
    }

    fn candidates(&mut self, within: Option<Prefix>) -> Option<&mut Candidates> {
        match within {
            None => Some(&mut self.of_all),
            Some(prefix) => self.of_prefix.get_mut(&prefix).map(|near| &mut near.candidates),
        }
    }

    fn remove(&mut self, ends: Ends) {
        if self.flows.remove(&ends).is_none() {
            return;
        }
        let prefix = Prefix::of(ends.source.ip());
        if let Some(near) = self.of_prefix.get_mut(&prefix) {
            near.ends.remove(&ends);
            if near.ends.is_empty() {
                self.of_prefix.remove(&prefix);
            }
        }
    }

    fn look_by(&mut self, at: Instant) {
        self.next_look = Some(self.next_look.map_or(at, |look| look.min(at)));
    }
}

impl<H> Flow<H> {
    /// When it is over, unless something comes or goes before.
    fn ends(&self, idle: Duration) -> Instant {
        match self.state {
            State::Barred(until) => until,
            State::Asked(_) | State::Answered(_) => self.used + idle,
        }
    }

    /// Where it stands among those that may give way, the lowest first; `None`: it may not.
    fn rank(&self, now: Instant) -> Option<(u8, Instant)> {
        let since = |at: Instant| now.saturating_duration_since(at);
        match self.state {
            State::Barred(_) => Some((0, self.entered)),
            State::Asked(_) => (since(self.entered) >= UNANSWERED_GRACE).then_some((1, self.entered)),
            State::Answered(_) => (since(self.used) >= SILENT_GRACE).then_some((2, self.used)),
        }
    }
}
