use std::collections::BTreeSet;

use super::*;
use crate::protocol::roster::Listed;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A slot that dials an address.
struct Dialled {
    address: SocketAddr,
    condition: Condition,
}

/// A site, its slots, and who answers where.
struct World {
    now: Instant,
    begin: Instant,
    spread: Spread,
    own: BTreeMap<SeatId, Dialled>,
    trials: BTreeMap<SeatId, Dialled>,
    /// Who answers at which address; a balancer may be the address of several, and answers with the next of them.
    answers: HashMap<SocketAddr, VecDeque<&'static str>>,
    dials: Vec<(Duration, SocketAddr)>,
    adopted: Vec<(Duration, SeatId)>,
    moved: Vec<Moved>,
    ended: Vec<(Duration, SeatId)>,
    may_move: bool,
    random: u64,
}

fn home() -> SocketAddr {
    "192.0.2.1:7843".parse().unwrap()
}

fn at(number: u16) -> SocketAddr {
    SocketAddr::new([10, 0, 0, 1].into(), number)
}

fn claim(node: u64) -> Claim {
    Claim {
        tenant: "acme".parse().unwrap(),
        cluster: "c".parse().unwrap(),
        node: format!("edge-{node}").parse().unwrap(),
    }
}

fn responder(id: &str) -> ResponderId {
    id.parse().unwrap()
}

/// One whose only address is `at` of this number.
fn listed(id: &str, number: u16) -> Listed {
    let addresses = vec![at(number).to_string().parse().unwrap()];
    Listed { id: responder(id), region: None, weight: 100, addresses }
}

fn abc() -> Vec<Listed> {
    vec![listed("a", 1), listed("b", 2), listed("c", 3)]
}

fn of_region(region: &str, listed: Listed) -> Listed {
    Listed { region: Some(region.to_owned()), ..listed }
}

impl World {
    /// A node with so many tunnels through one address, where these answer in turn.
    fn new(node: u64, seats: u64, at_home: &[&'static str], settings: SpreadSettings) -> Self {
        let begin = Instant::now();
        let mut world = Self {
            now: begin,
            begin,
            spread: Spread::new(begin, claim(node), settings),
            own: BTreeMap::new(),
            trials: BTreeMap::new(),
            answers: HashMap::from([(home(), at_home.iter().copied().collect())]),
            dials: Vec::new(),
            adopted: Vec::new(),
            moved: Vec::new(),
            ended: Vec::new(),
            may_move: true,
            random: node,
        };
        for (number, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            world.answers.insert(at(number), VecDeque::from([id]));
        }
        for seat in (0..seats).map(SeatId) {
            world.spread.add(begin, seat);
            let condition = world.dial(home());
            world.own.insert(seat, Dialled { address: home(), condition });
        }
        world
    }

    fn dial(&mut self, address: SocketAddr) -> Condition {
        let since = self.now;
        match self.answers.get_mut(&address).and_then(|there| there.pop_front().inspect(|one| there.push_back(one))) {
            Some(there) => Condition::Up { responder: Some(responder(there)), since },
            None => Condition::Down { since, why: Why::Dialled },
        }
    }

    fn learn(&mut self, all: &[Listed]) {
        let roster = Roster { own: all[0].clone(), siblings: all[1..].to_vec() };
        self.spread.learn(Some(Arc::new(roster)));
    }

    /// Nothing answers at these addresses any more, and who has a tunnel there loses it.
    fn kill(&mut self, id: &'static str, why: &Why) {
        self.answers.values_mut().for_each(|there| there.retain(|one| *one != id));
        for slot in self.own.values_mut().filter(|slot| slot.condition.responder() == Some(&responder(id))) {
            slot.condition = Condition::Down { since: self.now, why: why.clone() };
        }
    }

    /// Lets so much time pass.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.step();
            let next = self.spread.deadline().filter(|next| *next <= until);
            assert!(next.is_none_or(|next| next > self.now), "it wants to be asked again at once, for ever");
            let Some(next) = next else { break };
            self.now = next;
        }
        self.now = until;
    }

    fn step(&mut self) {
        loop {
            for (id, slot) in &self.own {
                self.spread.note(*id, slot.condition.clone());
            }
            for (id, slot) in &self.trials {
                self.spread.note_trial(*id, slot.condition.clone());
            }
            let random = &mut self.random;
            self.spread.advance(self.now, self.may_move, || {
                *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *random ^ (*random >> 31)
            });
            let actions: Vec<Action> = std::iter::from_fn(|| self.spread.poll()).collect();
            if actions.is_empty() {
                break;
            }
            actions.into_iter().for_each(|action| self.perform(action));
        }
        let live: BTreeSet<SeatId> = self.trials.keys().copied().collect();
        assert!(live.len() <= self.own.len());
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Resolve { trial, addresses, .. } => {
                let found = addresses.iter().map(|address| address.to_string().parse().unwrap()).collect();
                self.spread.resolved(trial, found);
            }
            Action::Dial { seat, address, .. } => {
                let address = address.unwrap_or_else(home);
                self.dials.push((self.now - self.begin, address));
                let condition = self.dial(address);
                self.trials.insert(seat, Dialled { address, condition });
            }
            Action::Adopt(seat) => {
                self.adopted.push((self.now - self.begin, seat));
                let trial = self.trials.remove(&seat).expect("a trial that is up");
                self.own.insert(seat, trial);
            }
            Action::Moved(moved) => self.moved.push(moved),
            Action::EndFormer(seat) => self.ended.push((self.now - self.begin, seat)),
            Action::GiveUp(seat) => drop(self.trials.remove(&seat)),
        }
    }

    /// Who has how many of its tunnels.
    fn on(&self) -> BTreeMap<String, usize> {
        let mut on = BTreeMap::new();
        for slot in self.own.values() {
            *on.entry(slot.condition.responder().map_or_else(|| "-".to_owned(), ToString::to_string)).or_default() += 1;
        }
        on
    }
}

fn counts<const N: usize>(of: [(&str, usize); N]) -> BTreeMap<String, usize> {
    of.map(|(id, count)| (id.to_owned(), count)).into()
}

/// spec: FL-62
#[test]
fn tunnels_that_came_to_one_responder_through_a_balancer_are_soon_at_distinct_ones() {
    for node in 0..20 {
        let mut world = World::new(node, 2, &["a"], SpreadSettings::default());
        world.step();
        assert_eq!(world.on(), counts([("a", 2)]));
        world.learn(&abc());
        world.run(3 * SECOND);
        assert_eq!(world.on().len(), 2, "{:?}", world.on());
        assert!(world.adopted.len() <= 2);
    }
}

/// spec: FL-62
#[test]
fn where_there_are_fewer_responders_than_tunnels_each_gets_as_many() {
    let mut world = World::new(1, 6, &["a"], SpreadSettings::default());
    world.learn(&abc());
    world.run(60 * SECOND);
    assert_eq!(world.on(), counts([("a", 2), ("b", 2), ("c", 2)]));
}

/// spec: FL-61, FL-62
#[test]
fn the_preferred_region_comes_first_and_distinct_responders_before_it() {
    for node in 0..20 {
        let settings = SpreadSettings { region: Some("eu".to_owned()), ..SpreadSettings::default() };
        let all = [of_region("us", listed("a", 1)), of_region("eu", listed("b", 2)), of_region("eu", listed("c", 3))];
        let mut two = World::new(node, 2, &["a"], settings.clone());
        two.learn(&all);
        two.run(11 * MINUTE);
        assert_eq!(two.on(), counts([("b", 1), ("c", 1)]));
        let mut three = World::new(node, 3, &["a"], settings);
        three.learn(&all);
        three.run(11 * MINUTE);
        assert_eq!(three.on().len(), 3);
    }
}

/// spec: FL-62
#[test]
fn two_destinations_of_one_fleet_have_their_tunnels_at_distinct_responders() {
    for node in 0..20 {
        let mut one = World::new(node, 1, &["a"], SpreadSettings::default());
        let mut other = World::new(node, 1, &["b"], SpreadSettings::default());
        one.learn(&abc());
        other.learn(&abc());
        for _ in 0..60 {
            one.spread.avoid(other.spread.responders());
            one.run(MINUTE);
            other.spread.avoid(one.spread.responders());
            other.run(MINUTE);
            assert_ne!(one.on(), other.on());
        }
        let moved = one.adopted.len() + other.adopted.len();
        assert!(moved <= 4, "{moved} moves");
        // There is nobody else for one of four.
        let mut many = World::new(node, 4, &["a"], SpreadSettings::default());
        many.learn(&abc());
        many.spread.avoid(one.spread.responders());
        many.run(60 * MINUTE);
        let at = many.on();
        assert_eq!((at.len(), at.values().sum::<usize>()), (3, 4));
        assert!(at.iter().all(|(id, count)| *count == 1 || !one.on().contains_key(id)), "{at:?}");
    }
}

/// spec: FL-61
#[test]
fn one_without_a_weight_gets_nothing_new_and_keeps_what_it_has_for_a_while() {
    let leaving = Listed { weight: 0, ..listed("a", 1) };
    let mut world = World::new(1, 1, &["a"], SpreadSettings::default());
    world.learn(&[leaving, listed("b", 2)]);
    world.run(SECOND);
    assert_eq!(world.on(), counts([("a", 1)]));
    world.run(10 * MINUTE);
    assert_eq!(world.on(), counts([("b", 1)]));
}

/// spec: FL-61, FL-63
#[test]
fn one_that_joins_gets_its_share_at_a_tenth_a_minute_and_nothing_else_moves() {
    const NODES: u64 = 400;
    let (mut moved, mut minutes) = (0, [0; 11]);
    for node in 0..NODES {
        let mut world = World::new(node, 1, &["a"], SpreadSettings::default());
        world.learn(&abc());
        world.run(30 * MINUTE);
        let before = world.on();
        let moves_before = world.adopted.len();
        let begin = world.now - world.begin;
        world.learn(&[&abc()[..], &[listed("d", 4)]].concat());
        world.run(20 * MINUTE);
        if world.on() != before {
            assert_eq!(world.on(), counts([("d", 1)]), "nothing moves between the others");
            moved += 1;
            let (time, _) = world.adopted[moves_before];
            minutes[((time - begin).as_secs() / 60) as usize] += 1;
        }
        assert!(world.adopted.len() - moves_before <= 1);
    }
    assert!((70..130).contains(&moved), "{moved} of {NODES}: a quarter");
    // A tenth of all that move, and what is drawn is not even.
    assert!(minutes.iter().all(|count| *count <= 24), "{minutes:?}");
    assert!(minutes[10] == 0 && minutes[9] > 0, "{minutes:?}");
}

/// spec: FL-63
#[test]
fn one_tunnel_of_an_initiator_moves_at_once_and_waits_where_another_destination_moves() {
    let mut world = World::new(1, 8, &["a"], SpreadSettings::default());
    world.may_move = false;
    world.learn(&abc());
    world.run(20 * SECOND);
    assert_eq!(world.on(), counts([("a", 8)]));
    world.may_move = true;
    // Silence, so that a move lasts.
    world.answers.clear();
    world.run(SECOND + SECOND / 2);
    assert!(world.trials.len() <= 1 && !world.dials.is_empty());
}

/// spec: FL-64
#[test]
fn a_tunnel_whose_responder_is_gone_goes_elsewhere_and_the_others_stay() {
    for why in [Why::Dialled, Why::Failed] {
        let mut world = World::new(3, 2, &["a", "b"], SpreadSettings::default());
        world.learn(&abc());
        world.run(30 * MINUTE);
        let (_, gone) = (world.on(), world.on().into_keys().next().unwrap());
        let gone = ["a", "b", "c"].into_iter().find(|id| *id == gone).unwrap();
        let stays: Vec<SeatId> = world
            .own
            .iter()
            .filter(|(_, slot)| slot.condition.responder() != Some(&responder(gone)))
            .map(|(id, _)| *id)
            .collect();
        world.adopted.clear();
        world.answers.remove(&home());
        world.kill(gone, &why);
        world.run(if why == Why::Failed { SECOND / 10 } else { 2 * SECOND });
        assert!(world.on().keys().all(|id| id != gone && id != "-"), "{:?}", world.on());
        assert_eq!(world.on().len(), 2);
        assert!(world.adopted.iter().all(|(_, seat)| !stays.contains(seat)), "what was well is where it was");
    }
}

/// spec: FL-64
#[test]
fn a_responder_that_comes_back_gets_its_tunnels_back_slowly() {
    let mut world = World::new(3, 1, &["a"], SpreadSettings::default());
    world.learn(&abc());
    world.run(30 * MINUTE);
    let (choice, _) = world.on().into_iter().next().unwrap();
    let choice = ["a", "b", "c"].into_iter().find(|id| *id == choice).unwrap();
    let address = listed(choice, u16::from(choice.as_bytes()[0] - b'a') + 1).addresses[0].to_string().parse().unwrap();
    world.kill(choice, &Why::Dialled);
    world.run(30 * SECOND);
    assert_ne!(world.on(), counts([(choice, 1)]));
    world.answers.insert(address, VecDeque::from([choice]));
    world.run(30 * SECOND);
    assert_ne!(world.on(), counts([(choice, 1)]), "not at once");
    world.run(30 * MINUTE);
    assert_eq!(world.on(), counts([(choice, 1)]));
}

/// spec: FL-63
#[test]
fn a_tunnel_that_was_well_goes_on_for_a_while_beside_the_one_in_its_place() {
    let mut world = World::new(1, 2, &["a"], SpreadSettings::default());
    world.learn(&abc());
    world.run(20 * MINUTE);
    assert!(!world.adopted.is_empty());
    let later: Vec<_> = world.adopted.iter().map(|(time, seat)| (*time + SECOND, *seat)).collect();
    assert_eq!(world.ended, later);
    let responders: Vec<String> = world.on().into_keys().collect();
    let gone = ["a", "b", "c"].into_iter().find(|id| *id == responders[0]).unwrap();
    world.adopted.clear();
    world.ended.clear();
    world.kill(gone, &Why::Failed);
    world.run(SECOND / 10);
    assert_eq!(world.ended, world.adopted, "one without a tunnel has nothing to wait for");
}

/// spec: FL-67
#[test]
fn a_tunnel_that_is_drained_is_at_another_responder_at_once() {
    let mut world = World::new(3, 1, &["a"], SpreadSettings::default());
    world.learn(&abc());
    world.run(30 * MINUTE);
    let (on, _) = world.on().into_iter().next().unwrap();
    let on = ["a", "b", "c"].into_iter().find(|id| *id == on).unwrap();
    world.own.values_mut().for_each(|slot| slot.condition = Condition::Down { since: world.now, why: Why::Drained });
    world.step();
    assert_eq!(world.on().len(), 1);
    assert!(!world.on().contains_key(on) && !world.on().contains_key("-"), "{:?}", world.on());
}

#[test]
fn a_doubtful_tunnel_that_revives_stays_and_its_replacement_is_given_up() {
    let mut world = World::new(1, 1, &["a"], SpreadSettings::default());
    world.learn(&abc());
    world.run(30 * MINUTE);
    let (seat, on) = world.own.iter().map(|(id, slot)| (*id, slot.condition.responder().cloned())).next().unwrap();
    world.answers.clear();
    let since = world.now;
    world.own.get_mut(&seat).unwrap().condition = Condition::Doubtful { responder: on.clone(), since };
    world.run(2 * SECOND);
    assert!(world.trials.is_empty(), "it has its time");
    world.run(2 * SECOND);
    assert_eq!(world.trials.len(), 1);
    world.own.get_mut(&seat).unwrap().condition = Condition::Up { responder: on.clone(), since };
    world.run(SECOND / 10);
    assert!(world.trials.is_empty());
    assert_eq!(world.own[&seat].condition.responder(), on.as_ref());
}

/// spec: FL-65
#[test]
fn responders_that_nobody_reaches_cost_some_dials_and_no_tunnel() {
    let many: Vec<Listed> = (0..64)
        .map(|nth| Listed {
            addresses: (0..16).map(|each| format!("10.1.{nth}.{}:7843", each + 1).parse().unwrap()).collect(),
            ..listed(&format!("r{nth}"), 1)
        })
        .collect();
    let mut world = World::new(1, 4, &["r0"], SpreadSettings::default());
    world.learn(&many);
    for _ in 0..60 {
        world.run(MINUTE);
        assert_eq!(world.on(), counts([("r0", 4)]), "all stay where they are");
    }
    assert!(world.adopted.is_empty());
    for (time, _) in &world.dials {
        let in_a_second = world.dials.iter().filter(|(other, _)| *other >= *time && *other < *time + SECOND).count();
        assert!(in_a_second <= (DIAL_BURST + DIALS_PER_SECOND) as usize, "{in_a_second} in a second");
    }
    let late = world.dials.iter().filter(|(time, _)| *time > 50 * MINUTE).count();
    assert!(late < 400, "{late} dials in ten minutes");
}

/// spec: FL-65
#[test]
fn however_often_a_roster_changes_no_more_is_dialled() {
    let mut world = World::new(1, 8, &["own"], SpreadSettings::default());
    for turn in 0..2_000_u16 {
        let fresh = (0..32).map(|nth| listed(&format!("r{turn}-{nth}"), 1000 + turn)).collect::<Vec<_>>();
        world.answers.remove(&at(1000 + turn));
        world.learn(&[&[listed("own", 1)][..], &fresh].concat());
        world.run(SECOND / 10);
    }
    assert_eq!(world.on(), counts([("own", 8)]));
    assert!(world.dials.len() < 450, "{} dials in 200 s", world.dials.len());
}

/// spec: FL-66
#[test]
fn an_address_where_another_responder_answers_is_not_dialled_again_and_again() {
    let behind = |id: &str| Listed { addresses: vec![home().to_string().parse().unwrap()], ..listed(id, 1) };
    let all = [behind("a"), behind("b"), behind("c")];
    let mut world = World::new(1, 2, &["a"], SpreadSettings::default());
    world.learn(&all);
    world.run(60 * MINUTE);
    assert_eq!(world.on(), counts([("a", 2)]), "there is no way to the others");
    assert!(world.dials.len() < 60, "{} dials in an hour", world.dials.len());
    // One that leads to another one in turn does for tunnels that are at the same one.
    let mut world = World::new(1, 2, &["a", "a", "c", "b"], SpreadSettings::default());
    world.learn(&all);
    world.run(60 * MINUTE);
    assert_eq!(world.on().len(), 2, "{:?}", world.on());
}

/// spec: FL-64
#[test]
fn where_no_responder_can_be_reached_the_destinations_own_address_is_dialled() {
    let mut world = World::new(1, 1, &["a"], SpreadSettings::default());
    world.learn(&[Listed { weight: 0, ..listed("a", 1) }, listed("b", 2)]);
    world.run(20 * MINUTE);
    assert_eq!(world.on(), counts([("b", 1)]), "it is at an address of a sibling");
    world.answers.clear();
    world.kill("b", &Why::Dialled);
    world.run(MINUTE);
    // And the sibling again, in turn.
    let mut dialled = HashSet::new();
    for _ in 0..60 {
        world.run(SECOND);
        dialled.extend(world.trials.values().map(|trial| trial.address));
    }
    assert_eq!(dialled, HashSet::from([home(), at(2)]), "for as long as it takes");
    while world.trials.values().any(|trial| trial.address != home()) || world.trials.is_empty() {
        world.run(SECOND / 10);
    }
    let condition = Condition::Up { responder: None, since: world.now };
    world.trials.values_mut().for_each(|trial| trial.condition = condition.clone());
    world.run(SECOND / 10);
    assert_eq!(world.own[&SeatId(0)].address, home());
}

/// spec: FL-60, FL-62
#[test]
fn a_tunnel_to_somebody_of_another_fleet_or_of_none_is_left_where_it_is() {
    let mut world = World::new(1, 2, &["x"], SpreadSettings::default());
    world.learn(&abc());
    world.run(30 * MINUTE);
    assert_eq!(world.on(), counts([("x", 2)]));
    let mut world = World::new(1, 2, &["a"], SpreadSettings { follows: false, ..SpreadSettings::default() });
    world.learn(&abc());
    world.run(30 * MINUTE);
    assert_eq!(world.on(), counts([("a", 2)]), "it is not to follow");
    let mut world = World::new(1, 2, &["a"], SpreadSettings::default());
    world.run(30 * MINUTE);
    assert!(world.dials.is_empty() && world.spread.deadline().is_none(), "without a roster nothing is to be done");
}

/// spec: FL-62
#[test]
fn a_site_that_is_to_follow_no_longer_returns_to_where_the_name_points() {
    let mut world = World::new(1, 2, &["a"], SpreadSettings::default());
    world.learn(&abc());
    world.run(20 * MINUTE);
    assert_eq!(world.on().len(), 2);
    let homes = |world: &World| world.own.values().filter(|slot| slot.address == home()).count();
    assert!(homes(&world) < 2);
    world.spread.set(SpreadSettings { follows: false, ..SpreadSettings::default() });
    // Nobody answers there: what is well stays.
    let at_home = world.answers.remove(&home()).unwrap();
    world.run(30 * MINUTE);
    assert!(homes(&world) < 2 && world.on().len() == 2 && world.trials.len() <= 1);
    world.answers.insert(home(), at_home);
    world.run(30 * MINUTE);
    assert_eq!((homes(&world), world.on()), (2, counts([("a", 2)])));
}

/// spec: CT-62
#[test]
fn a_fleet_that_its_last_responder_has_left_is_forgotten() {
    let mut world = World::new(1, 1, &["a"], SpreadSettings::default());
    world.learn(&abc());
    world.step();
    world.own.values_mut().for_each(|slot| slot.condition = Condition::Up { responder: None, since: world.now });
    world.spread.learn(None);
    world.step();
    assert!(world.spread.roster.is_none());
}

// Regression: a mistake in the trust of a site that was put right had its tunnels stay away for up to ten minutes.
/// spec: FL-64
#[test]
fn who_could_not_be_reached_is_tried_again_when_it_is_dialled_otherwise() {
    let settings = SpreadSettings { pace: SECOND, ..SpreadSettings::default() };
    let mut world = World::new(1, 2, &["a"], settings.clone());
    let of_b = world.answers.remove(&at(2)).unwrap();
    world.learn(&[listed("a", 1), listed("b", 2)]);
    world.run(60 * MINUTE);
    assert_eq!(world.on(), counts([("a", 2)]));
    world.answers.insert(at(2), of_b);
    let wait = world.spread.troubles.next(None).unwrap() - world.now;
    assert!(wait > 5 * SECOND, "it is left alone: {wait:?}");
    world.spread.set(SpreadSettings { manner: 1, ..settings });
    world.run(5 * SECOND);
    assert_eq!(world.on(), counts([("a", 1), ("b", 1)]));
}

/// How long each dial of the first of these addresses was given, until the next one was dialled.
fn patience_of(world: &World, first: u16, next: u16) -> Vec<u64> {
    let pairs = world.dials.windows(2).filter(|pair| pair[0].1 == at(first) && pair[1].1 == at(next));
    pairs.map(|pair| (pair[1].0 - pair[0].0).as_secs()).collect()
}

// Regression: where a handshake takes more than two seconds a responder was never reached.
// spec: FL-65
#[test]
fn an_address_is_given_twice_the_time_after_each_failure_and_all_of_them_no_more_than_half_a_minute() {
    let mut world = World::new(1, 1, &["a"], SpreadSettings::default());
    let addresses = [12, 22, 32, 42].map(|number| at(number).to_string().parse().unwrap()).to_vec();
    world.learn(&[listed("a", 1), Listed { addresses, ..listed("b", 12) }]);
    world.run(SECOND);
    world.kill("a", &Why::Dialled);
    world.run(20 * MINUTE);
    let given = patience_of(&world, 12, 22);
    assert!(given.starts_with(&[2, 4, 8, 16, 16]), "{given:?}");
    assert_eq!(patience_of(&world, 22, 32)[..3], [2, 4, 8]);
    assert_eq!(patience_of(&world, 22, 32).len(), 3, "there is no time for a third one after 2 times 16 s");
}

#[test]
fn tunnels_that_go_to_another_responder_are_counted_by_why_they_do() {
    let moved = |why: Option<Why>| {
        let mut world = World::new(1, 2, &["a", "b"], SpreadSettings::default());
        world.learn(&abc());
        world.run(SECOND);
        if let Some(why) = why {
            world.moved.clear();
            let gone = if world.on().contains_key("a") { "a" } else { "b" };
            world.kill(gone, &why);
        }
        world.run(MINUTE);
        world.moved
    };
    assert_eq!(moved(Some(Why::Drained)), [Moved::Drained]);
    assert_eq!(moved(Some(Why::Dialled)), [Moved::Lost]);
    let mut world = World::new(1, 2, &["a"], SpreadSettings::default());
    world.learn(&abc());
    world.run(MINUTE);
    assert_eq!(world.moved, [Moved::Planned], "both came to one of them");
    let slot = world.own.values_mut().next().unwrap();
    let responder = slot.condition.responder().cloned();
    slot.condition = Condition::Doubtful { responder, since: world.now };
    world.run(MINUTE);
    assert_eq!(world.moved, [Moved::Planned, Moved::Suspect]);
}

// Regression: a site whose only responder left stayed without a tunnel, for up to ten minutes, where it had failed to reach the others
// before: on a slow path, or while they were restarted.
// spec: FL-64
#[test]
fn whoever_has_no_tunnel_at_all_tries_those_again_that_were_left_alone() {
    let mut world = World::new(1, 2, &["a"], SpreadSettings::default());
    let answers = std::mem::take(&mut world.answers);
    world.learn(&abc());
    // Long enough for the longest times.
    world.run(60 * MINUTE);
    assert_eq!(world.on(), counts([("a", 2)]), "nobody else can be reached");
    world.answers = answers;
    world.kill("a", &Why::Drained);
    world.run(20 * SECOND);
    assert_eq!(world.on(), counts([("b", 1), ("c", 1)]));
}
