//! The machine on a simulated path whose UDP and TCP come and go, with keepalives as the session sends them.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;

const KEEPALIVE: u64 = 5000;
const SUSPECT: u64 = 3000;
const IDLE: u64 = 30_000;
const HANDSHAKE: u64 = 10_000;
/// When the packets of a connect or claim are sent again.
const QUIC_SENDS: [u64; 6] = [0, 300, 900, 2100, 4500, 9300];
const TCP_SENDS: [u64; 4] = [0, 1000, 3000, 7000];

/// When each transport does not work, in milliseconds from the start.
#[derive(Debug, Clone)]
struct Path {
    rtt: u64,
    udp_down: Vec<Range<u64>>,
    tcp_down: Vec<Range<u64>>,
}

#[derive(Debug)]
enum Happening {
    Event(Event),
    /// A tunnel's keepalive is due.
    Ping(Attempt),
}

/// A live tunnel as its session sees it.
struct Session {
    heard: u64,
    suspect: bool,
}

struct World {
    bench: Bench,
    path: Path,
    time: u64,
    due: BTreeMap<(u64, usize), Happening>,
    sequence: usize,
    sessions: Vec<(Attempt, Session)>,
    /// Which tunnel the slot had from when on.
    history: Vec<(u64, Option<Attempt>)>,
    connects: usize,
}

impl World {
    fn new(path: Path, entropy: u64) -> Self {
        let mut bench = Bench::new(TransportChoice::Auto);
        bench.entropy = entropy;
        let (due, sessions, history) = (BTreeMap::new(), Vec::new(), vec![(0, None)]);
        Self { bench, path, time: 0, due, sequence: 0, sessions, history, connects: 0 }
    }

    fn run(path: Path, entropy: u64, until: u64) -> Self {
        let mut world = Self::new(path, entropy);
        world.obey();
        loop {
            let machine = world.bench.auto.deadline().map(|at| {
                let since = at - world.bench.start;
                u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap()
            });
            let next = [machine, world.due.keys().next().map(|&(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|&at| at <= until) else { return world };
            world.time = next;
            world.bench.now = world.bench.start + Duration::from_millis(next);
            world.bench.auto.timeout(world.bench.now);
            world.obey();
            while let Some(entry) = world.due.first_entry().filter(|entry| entry.key().0 <= next) {
                let happening = entry.remove();
                world.happen(happening);
            }
        }
    }

    fn later(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), happening);
    }

    fn is_up(&self, transport: TransportKind, at: u64) -> bool {
        let down = match transport {
            Quic => &self.path.udp_down,
            Tcp | TransportKind::Envoy => &self.path.tcp_down,
        };
        !down.iter().any(|range| range.contains(&at))
    }

    /// When something that takes this many round trips is through, if sent now and again.
    fn through(&self, transport: TransportKind, round_trips: u64) -> Option<u64> {
        let sends: &[u64] = if transport == Quic { &QUIC_SENDS } else { &TCP_SENDS };
        let sent = sends.iter().map(|send| self.time + send).find(|&at| self.is_up(transport, at))?;
        Some(sent + round_trips * self.path.rtt).filter(|&done| done < self.time + HANDSHAKE)
    }

    fn answer(&mut self, attempt: Attempt, round_trips: u64, success: Event) {
        match self.through(attempt.transport(), round_trips) {
            Some(at) => self.later(at, Happening::Event(success)),
            None => {
                let failed = Event::Ended(attempt, Failure::transport("no answer"));
                self.later(self.time + HANDSHAKE, Happening::Event(failed));
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Ping(attempt) => self.ping(attempt),
            Happening::Event(event) => {
                if let Event::Admitted(attempt) = event {
                    self.sessions.push((attempt, Session { heard: self.time, suspect: false }));
                    self.later(self.time + KEEPALIVE, Happening::Ping(attempt));
                }
                self.bench.auto.handle(self.bench.now, event, self.bench.entropy);
                self.obey();
            }
        }
    }

    fn ping(&mut self, attempt: Attempt) {
        let (time, rtt, up) = (self.time, self.path.rtt, self.is_up(attempt.transport(), self.time));
        let Some((_, session)) = self.sessions.iter_mut().find(|(known, _)| *known == attempt) else { return };
        let was_suspect = session.suspect;
        session.suspect = !up;
        if up {
            session.heard = time + rtt;
            if was_suspect {
                self.later(time + rtt, Happening::Event(Event::Alive(attempt)));
            }
            return self.later(time + rtt + KEEPALIVE, Happening::Ping(attempt));
        }
        let dead_at = session.heard + IDLE;
        if !was_suspect {
            self.later(time + SUSPECT, Happening::Event(Event::Suspect(attempt)));
        }
        if dead_at <= time + SUSPECT {
            let lost = Event::Ended(attempt, Failure::transport("idle"));
            return self.later(dead_at, Happening::Event(lost));
        }
        self.later(time + SUSPECT, Happening::Ping(attempt));
    }

    fn obey(&mut self) {
        while let Some(action) = self.bench.auto.poll() {
            match action {
                Action::Connect(attempt) => {
                    self.connects += 1;
                    let round_trips = if attempt.transport() == Quic { 1 } else { 2 };
                    self.answer(attempt, round_trips, Event::Connected(attempt));
                }
                Action::Claim(attempt, _) => self.answer(attempt, 1, Event::Admitted(attempt)),
                Action::Abandon(attempt) | Action::Drain(attempt) => {
                    self.sessions.retain(|(known, _)| *known != attempt);
                }
                Action::Wait { .. } | Action::Switched { .. } => {}
            }
        }
        let tunnel = self.bench.auto.tunnel();
        if self.history.last().unwrap().1 != tunnel {
            self.history.push((self.time, tunnel));
        }
    }

    /// The tunnel at a time.
    fn tunnel_at(&self, at: u64) -> Option<Attempt> {
        self.history.iter().rfind(|(since, _)| *since <= at).unwrap().1
    }

    fn transport_at(&self, at: u64) -> Option<TransportKind> {
        self.tunnel_at(at).map(Attempt::transport)
    }

    /// From when on the slot was on a transport, looking from `from`.
    fn first_on(&self, transport: TransportKind, from: u64) -> Option<u64> {
        if self.transport_at(from) == Some(transport) {
            return Some(from);
        }
        let on = |tunnel: Option<Attempt>| tunnel.is_some_and(|tunnel| tunnel.transport() == transport);
        self.history.iter().find(|&&(since, tunnel)| since > from && on(tunnel)).map(|(since, _)| *since)
    }
}

fn udp_outages(outages: Vec<Range<u64>>, rtt: u64) -> Path {
    Path { rtt, udp_down: outages, tcp_down: Vec::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The promises: TCP 8 s and a dial after UDP dies, QUIC within 60 s of its return, two switches.
    // spec: TB-24, TB-25
    #[test]
    fn udp_that_dies_and_returns_costs_two_switches_and_is_used_again_within_a_minute(
        from in 60_000_u64..75_000, lasts in 12_000_u64..400_000, rtt in 1_u64..300, entropy: u64,
    ) {
        let back = from + lasts;
        let world = World::run(udp_outages(vec![from..back; 1], rtt), entropy, back + 90_000);
        prop_assert_eq!(world.transport_at(from), Some(Quic));
        let on_tcp = world.first_on(Tcp, from).unwrap();
        prop_assert!(on_tcp <= from + KEEPALIVE + SUSPECT + 4 * rtt, "on TCP {} after the loss", on_tcp - from);
        let on_quic = world.first_on(Quic, back).unwrap();
        prop_assert!(on_quic <= back + 60_000, "on QUIC {} after the return", on_quic - back);
        prop_assert_eq!(world.transport_at(back + 90_000), Some(Quic));
        prop_assert_eq!(world.bench.switches(), 2);
        prop_assert!(world.history[2..].iter().all(|(_, tunnel)| tunnel.is_some()), "never without a tunnel");
    }

    #[test]
    fn every_outage_of_udp_costs_two_switches_at_most(
        outages in proptest::collection::vec((10_u64..120_000, 10_u64..120_000), 1..12), rtt in 1_u64..600, entropy: u64,
    ) {
        let mut end = 0;
        let ranges: Vec<Range<u64>> = outages.iter().map(|(up, down)| {
            let from = end + up;
            end = from + down;
            from..end
        }).collect();
        let count = u64::try_from(ranges.len()).unwrap();
        let world = World::run(udp_outages(ranges, rtt), entropy, end + 700_000);
        prop_assert!(world.bench.switches() <= 2 * count);
        prop_assert_eq!(world.transport_at(end + 700_000), Some(Quic));
    }

    /// What runs in the tunnel lives on.
    #[test]
    fn a_path_that_is_down_as_a_whole_for_20_s_costs_no_tunnel(
        from in 60_000_u64..75_000, lasts in 1_u64..20_000, rtt in 1_u64..300, entropy: u64,
    ) {
        let outage = vec![from..from + lasts; 1];
        let path = Path { rtt, udp_down: outage.clone(), tcp_down: outage };
        let world = World::run(path, entropy, from + 120_000);
        prop_assert_eq!(world.tunnel_at(from + 120_000), world.tunnel_at(from));
        prop_assert_eq!(world.bench.switches(), 0);
    }

    #[test]
    fn a_path_that_is_down_as_a_whole_for_long_has_a_tunnel_again_within_40_s(
        from in 60_000_u64..75_000, lasts in 20_000_u64..400_000, rtt in 1_u64..300, entropy: u64,
    ) {
        let back = from + lasts;
        let outage = vec![from..back; 1];
        let path = Path { rtt, udp_down: outage.clone(), tcp_down: outage };
        let world = World::run(path, entropy, back + 200_000);
        // The backoff's 30 s, and a connect that was under way.
        let again = world.history.iter().rfind(|(_, tunnel)| tunnel.is_none()).map_or(0, |(since, _)| *since);
        let up = world.history.iter().find(|&&(since, tunnel)| since >= again.max(back) && tunnel.is_some());
        prop_assert!(up.is_none_or(|(since, _)| *since <= back + 40_000));
        prop_assert!(world.tunnel_at(back + 40_000).is_some());
        prop_assert_eq!(world.transport_at(back + 200_000), Some(Quic));
    }
}

#[test]
fn a_site_without_udp_stays_on_tcp_and_probes_at_most_every_22_s() {
    let world = World::run(udp_outages(vec![0..u64::MAX; 1], 20), u64::MAX, 3_600_000);
    assert_eq!((world.history.len(), world.bench.switches()), (2, 0));
    assert!(world.history[1].0 <= 400, "on TCP after {}", world.history[1].0);
    // Two connects at the beginning; 22.5 s between probes and 10 s for each.
    assert!((100..115).contains(&world.connects), "{}", world.connects);
}

// spec: TB-26
#[test]
fn udp_that_flaps_for_an_hour_is_left_alone_more_and_more() {
    let flaps = (0..90).map(|n| n * 40_000 + 20_000..(n + 1) * 40_000).collect();
    let world = World::run(udp_outages(flaps, 20), 0, 3_600_000);
    assert!(world.bench.switches() <= 20, "{} switches", world.bench.switches());
    assert!(world.history[2..].iter().all(|(_, tunnel)| tunnel.is_some()), "never without a tunnel");
}
