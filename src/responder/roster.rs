//! What initiators are told of the fleet: whom they may have their tunnels to. spec: FL-60, CT-62, CT-63
//!
//! One task looks at the directory now and then and says when what concerns initiators is another; each tunnel tells its own
//! initiator, a while after that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::fleet::View;
use crate::fleet::view::Snapshot;
use crate::id::{Claim, ResponderId};
use crate::protocol::limits::MAX_ROSTER;
use crate::protocol::roster::{Listed, Roster};
use crate::transport::{TransportKind, Tunnel};

/// How often the directory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same until the responder is in there.
const FIRST_LOOKS: Duration = Duration::from_millis(100);
/// Within which a tunnel is told of a change, and how long it is told no more. spec: CT-63
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// When a tunnel whose driver had no ear is told again.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// What there is to tell; `None` in no fleet, or while the responder is not in the directory yet.
type Known = Option<Arc<Roster>>;

/// What there is to tell of the fleet of this responder, if it is in one.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    view: watch::Sender<Option<Arc<View>>>,
    known: watch::Sender<Known>,
}

impl Rosters {
    /// The responder is in this fleet from now on.
    pub(super) fn join(&self, view: Option<Arc<View>>) {
        self.view.send_replace(view);
    }

    /// Looks at the directory again and again. Does not return; cancel safe.
    pub(super) async fn follow(&self) -> std::convert::Infallible {
        let mut joined = self.view.subscribe();
        loop {
            let view = joined.borrow_and_update().clone();
            self.look(view.as_deref());
            let pause = if self.known.borrow().is_some() { LOOK_INTERVAL } else { FIRST_LOOKS };
            tokio::select! {
                // The sender is in `self`.
                _ = joined.changed() => {}
                () = sleep(pause), if view.is_some() => {}
            }
        }
    }

    fn look(&self, view: Option<&View>) {
        let next = match view {
            None => None,
            // What is not known is not told: who knows something goes on with it.
            Some(view) => match roster(&view.snapshot(), view.own()) {
                Some(roster) => Some(roster),
                None => return,
            },
        };
        self.known.send_if_modified(|known| {
            let is_other = known.as_deref() != next.as_ref();
            if is_other {
                *known = next.map(Arc::new);
            }
            is_other
        });
    }

    /// What WELCOME says to this node, and what tells it more.
    pub(super) fn begin(&self, claim: &Claim) -> (Option<Roster>, Telling) {
        let mut known = self.known.subscribe();
        let told = known.borrow_and_update().clone();
        (told.as_deref().map(|roster| for_node(roster, claim)), Telling { known, told, at: None, not_before: None })
    }
}

/// Everyone whom an initiator may dial, and the responder itself, as the directory has them. `None`: it is not in there.
fn roster(snapshot: &Snapshot, own: &ResponderId) -> Option<Roster> {
    let (mut this, mut siblings) = (None, Vec::new());
    for (sibling, _) in snapshot.responders() {
        let listed = || Listed {
            id: sibling.id.clone(),
            region: sibling.region.clone(),
            weight: if sibling.draining { 0 } else { sibling.weight },
            addresses: sibling.initiators_at.clone(),
        };
        if sibling.id == *own {
            this = Some(listed());
        } else if !sibling.draining && !sibling.initiators_at.is_empty() {
            siblings.push(listed());
        }
    }
    this.map(|own| Roster { own, siblings })
}

/// Of a fleet that is larger than a roster, the part for this node. spec: FL-60
fn for_node(roster: &Roster, claim: &Claim) -> Roster {
    let mut part = roster.clone();
    if part.siblings.len() >= MAX_ROSTER {
        part.siblings.sort_by(|one, other| one.distance(claim).total_cmp(&other.distance(claim)));
        part.siblings.truncate(MAX_ROSTER - 1);
    }
    part
}

/// Tells one initiator what it was not told yet.
#[derive(Debug)]
pub(super) struct Telling {
    known: watch::Receiver<Known>,
    /// What it was told last.
    told: Known,
    /// When it is told next.
    at: Option<Instant>,
    not_before: Option<Instant>,
}

impl Telling {
    /// Resolves when there is something to [`Telling::tell`]. Cancel safe.
    pub(super) async fn due(&mut self) {
        let at = match self.at {
            Some(at) => at,
            None => {
                if self.known.changed().await.is_err() {
                    return std::future::pending().await;
                }
                let at = Instant::now() + TOLD_WITHIN.mul_f64(rand::random());
                *self.at.insert(self.not_before.map_or(at, |earliest| earliest.max(at)))
            }
        };
        sleep_until(at).await;
    }

    /// Tells it the latest.
    pub(super) fn tell(&mut self, tunnel: &Tunnel) {
        self.at = None;
        let known = self.known.borrow_and_update().clone();
        // An Envoy knows no such frame.
        if known == self.told || tunnel.transport() == TransportKind::Envoy {
            return;
        }
        let now = Instant::now();
        if tunnel.tell_roster(known.as_deref().map(|roster| for_node(roster, &tunnel.place().claim))) {
            (self.told, self.not_before) = (known, Some(now + TOLD_WITHIN));
        } else {
            self.at = Some(now + TELL_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::view::{Change, Prefix, ResponderRecord, Stored};
    use crate::id::HostPort;

    fn record(number: u16) -> ResponderRecord {
        ResponderRecord {
            epoch: 1,
            version: String::new(),
            siblings: Vec::new(),
            initiators: vec![HostPort { host: format!("r{number}.example"), port: 7843 }],
            region: Some("eu".to_owned()),
            weight: 100 + number,
            draining: false,
        }
    }

    fn stored(id: &str, record: &ResponderRecord, revision: i64) -> Stored {
        Stored {
            key: format!("/adit/responders/{id}").into_bytes(),
            value: record.encode(),
            created: revision,
            modified: revision,
        }
    }

    fn view() -> View {
        View::new(Prefix::default(), "own".parse().unwrap())
    }

    fn ids(rosters: &Rosters) -> Vec<String> {
        let claim = claim("edge-1");
        rosters.begin(&claim).0.map_or_else(Vec::new, |roster| roster.all().map(|one| one.id.to_string()).collect())
    }

    fn claim(node: &str) -> Claim {
        Claim { tenant: "acme".parse().unwrap(), cluster: "c".parse().unwrap(), node: node.parse().unwrap() }
    }

    /// spec: FL-60
    #[test]
    fn initiators_are_told_of_whom_they_can_dial_once_the_responder_itself_is_in_the_directory() {
        let (rosters, view) = (Rosters::default(), view());
        rosters.look(Some(&view));
        assert!(ids(&rosters).is_empty(), "nothing is known yet");
        let hidden = ResponderRecord { initiators: Vec::new(), ..record(3) };
        let leaving = ResponderRecord { draining: true, ..record(4) };
        let others = vec![stored("r2", &record(2), 1), stored("r3", &hidden, 1), stored("r4", &leaving, 1)];
        view.read_whole(1, 1, others);
        rosters.look(Some(&view));
        assert!(ids(&rosters).is_empty(), "it is not in there itself");
        view.apply(2, vec![Change::Put(stored("own", &record(1), 2))]);
        rosters.look(Some(&view));
        assert_eq!(ids(&rosters), ["own", "r2"]);
        let leaving = ResponderRecord { draining: true, ..record(1) };
        view.apply(3, vec![Change::Put(stored("own", &leaving, 3))]);
        rosters.look(Some(&view));
        assert_eq!(rosters.begin(&claim("edge-1")).0.unwrap().own.weight, 0, "it takes no new tunnels");
        rosters.look(None);
        assert!(ids(&rosters).is_empty(), "it is in no fleet any more");
    }

    /// spec: CT-63
    #[tokio::test(start_paused = true)]
    async fn what_changes_often_is_told_once_and_what_does_not_concern_initiators_never() {
        let (rosters, view) = (Rosters::default(), view());
        view.read_whole(1, 1, vec![stored("own", &record(1), 1)]);
        rosters.look(Some(&view));
        let (first, mut telling) = rosters.begin(&claim("edge-1"));
        assert!(first.unwrap().siblings.is_empty());
        let other_version = ResponderRecord { version: "another".to_owned(), ..record(1) };
        view.apply(2, vec![Change::Put(stored("own", &other_version, 2))]);
        rosters.look(Some(&view));
        assert!(!telling.known.has_changed().unwrap());
        let began = Instant::now();
        for revision in 3..20 {
            view.apply(revision, vec![Change::Put(stored("r2", &record(revision as u16), revision))]);
            rosters.look(Some(&view));
        }
        telling.due().await;
        assert!(began.elapsed() <= TOLD_WITHIN + Duration::from_millis(1));
        let told = telling.known.borrow_and_update().clone();
        assert_eq!(told.unwrap().siblings[0].weight, 119, "the latest");
    }

    /// spec: FL-60
    #[test]
    fn of_a_large_fleet_each_node_is_told_another_part_and_always_the_same() {
        let listed = |number: u16| Listed {
            id: format!("r{number}").parse().unwrap(),
            region: None,
            weight: 100,
            addresses: record(number).initiators,
        };
        let all = Roster { own: listed(0), siblings: (1..300).map(listed).collect() };
        let part = |node: &str| for_node(&all, &claim(node));
        assert_eq!(part("edge-1").all().count(), MAX_ROSTER);
        assert_eq!(part("edge-1"), part("edge-1"));
        assert_ne!(part("edge-1"), part("edge-2"));
    }
}
