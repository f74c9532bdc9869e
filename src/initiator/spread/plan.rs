//! Who should be where: distinct responders as far as there are any, the preferred region first. spec: FL-61, FL-62

use std::collections::{BTreeMap, HashMap, HashSet};

use super::seat::{Seat, SeatId};
use crate::id::{Claim, ResponderId};
use crate::protocol::roster::{Listed, Roster};

/// What is to change.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Seats that should have their tunnel at another responder than they have, and at which.
    pub(super) elsewhere: HashMap<SeatId, ResponderId>,
}

/// Whom a destination prefers.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    /// Whose tunnels they are.
    pub(super) claim: &'a Claim,
    /// Whose responders come first.
    pub(super) region: Option<&'a str>,
    /// Who comes last: other destinations have tunnels there.
    pub(super) taken: &'a HashSet<ResponderId>,
}

impl Plan {
    /// What is to change. `may_dial`: a responder is not left alone for now.
    pub(super) fn new(
        roster: &Roster,
        Wish { claim, region, taken }: Wish<'_>,
        seats: &BTreeMap<SeatId, Seat>,
        may_dial: impl Fn(&ResponderId) -> bool,
    ) -> Self {
        // A doubtful tunnel is no reason to want one more there, once its responder has had its time.
        let has = |seat: &Seat, listed: &Listed| seat.condition.responder() == Some(&listed.id);
        let is_on = |listed: &Listed| seats.values().any(|seat| seat.condition.is_up() && has(seat, listed));
        let can_dial = |listed: &Listed| !listed.addresses.is_empty() && may_dial(&listed.id);
        let mut ranked: Vec<&Listed> =
            roster.all().filter(|listed| listed.weight > 0 && (can_dial(listed) || is_on(listed))).collect();
        let is_far = |listed: &Listed| region.is_some() && listed.region.as_deref() != region;
        ranked.sort_by(|one, other| {
            let distance = one.distance(claim).total_cmp(&other.distance(claim));
            let class = |listed: &Listed| (taken.contains(&listed.id), is_far(listed));
            class(one).cmp(&class(other)).then(distance).then_with(|| one.id.cmp(&other.id))
        });
        // A tunnel to somebody of whom the roster does not tell is left where it is.
        let is_known = |seat: &Seat| match seat.condition.responder() {
            Some(responder) => roster.all().any(|listed| listed.id == *responder),
            None => !seat.condition.is_up(),
        };
        let mut open: Vec<(SeatId, &Seat)> =
            seats.iter().filter(|(_, seat)| is_known(seat)).map(|(id, seat)| (*id, seat)).collect();
        let mut wanted: HashMap<&ResponderId, usize> = HashMap::new();
        for listed in ranked.iter().cycle().take(if ranked.is_empty() { 0 } else { open.len() }) {
            *wanted.entry(&listed.id).or_default() += 1;
        }
        let mut take = |responder: Option<&ResponderId>| {
            let left = responder.and_then(|responder| wanted.get_mut(responder)).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        };
        // Who is on the way counts as there; of several at one responder those stay that were there first.
        open.retain(|(_, seat)| seat.trial.as_ref().is_none_or(|trial| !take(trial.to.as_ref())));
        open.sort_by_key(|(id, seat)| (seat.condition.since(), *id));
        open.retain(|(_, seat)| !take(seat.condition.responder()));
        open.sort_by_key(|(id, seat)| (seat.condition.is_up(), *id));
        let missing = ranked.iter().filter(|listed| can_dial(listed)).flat_map(|listed| {
            let times = wanted.get(&listed.id).copied().unwrap_or(0);
            std::iter::repeat_n(listed.id.clone(), times)
        });
        Self { elsewhere: open.into_iter().map(|(id, _)| id).zip(missing).collect() }
    }
}
