//! An end is killed or frozen: how long until the other end notices, how long until requests come through again, and
//! how many are lost meanwhile at 20 per second.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::mixed_pair::{Kind, MixedPair};
use crate::observer::{Observer, Side};
use crate::probes::{Probe, Probes};

/// What happens to which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) what: &'static str,
    /// The end it happens to.
    side: Side,
    /// SIGSTOP until the other end notices, and then SIGCONT; else SIGKILL, and started again at once.
    is_freeze: bool,
    /// Whether requests come all the time; else they begin when the end is back.
    in_use: bool,
}

const fn fault(what: &'static str, side: Side, is_freeze: bool, in_use: bool) -> Fault {
    Fault { what, side, is_freeze, in_use }
}

/// All of them.
pub(crate) const FAULTS: [Fault; 6] = [
    fault("responder killed and restarted", Side::Responder, false, true),
    fault("initiator killed and restarted", Side::Initiator, false, true),
    fault("initiator frozen, idle", Side::Initiator, true, false),
    fault("initiator frozen, in use", Side::Initiator, true, true),
    fault("responder frozen, idle", Side::Responder, true, false),
    fault("responder frozen, in use", Side::Responder, true, true),
];

/// How long an idle tunnel is left alone: an initiator has to have seen two pings before it knows what silence is.
const IDLE: Duration = Duration::from_secs(7);
/// How long requests come before something happens.
const IN_USE: Duration = Duration::from_secs(1);
/// Good answers in a row that count as recovery.
const ENOUGH: usize = 20;
/// More than two rounds of maintenance of an Envoy initiator.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// From the fault until the other end no longer counted the tunnel; `None`: not within the time it was given.
    pub(crate) notice: Option<Duration>,
    /// From the moment when the end was back (or, where it was killed, gone) until all requests came through again.
    pub(crate) recovery: Option<Duration>,
    pub(crate) sent: usize,
    /// What became of those that were not answered with 200; `none`: no answer, or none in time.
    pub(crate) lost: BTreeMap<String, usize>,
    /// The longest that a request took which did come through.
    pub(crate) slowest: Duration,
}

impl Fault {
    fn other(self, pair: &MixedPair) -> Observer {
        match self.side {
            Side::Responder => pair.initiator.observer(),
            Side::Initiator => pair.responder.observer(),
        }
    }

    /// `frozen`: how long the other end may take to notice a freeze. `None`: there is no Envoy here, and it was said so.
    pub(crate) async fn run(self, kind: Kind, target: SocketAddr, frozen: Duration) -> Option<Outcome> {
        let pair = MixedPair::start(kind, target).await?;
        let egress = pair.egress();
        let mut probes = self.in_use.then(|| Probes::start(egress));
        sleep(if self.in_use { IN_USE } else { IDLE }).await;
        let other = self.other(&pair);
        let old = other.tunnels().await.unwrap_or_default();
        let begin = Instant::now();
        // The pair lives until all is over.
        let (_pair, notice) = match self.is_freeze {
            true => self.freeze(pair, other, &old, frozen).await,
            false => self.kill(pair, other, &old).await,
        };
        let back = if self.is_freeze { Instant::now() } else { begin };
        let probes = probes.take().unwrap_or_else(|| Probes::start(egress));
        while Instant::now() < back + PATIENCE && good_since(&probes.done(), back) < ENOUGH {
            sleep(Duration::from_millis(50)).await;
        }
        let probes = probes.finish().await;
        Some(Outcome::new(&probes, notice, begin, back))
    }

    async fn freeze(
        self,
        pair: MixedPair,
        other: Observer,
        old: &BTreeSet<String>,
        frozen: Duration,
    ) -> (MixedPair, Option<Duration>) {
        match self.side {
            Side::Responder => pair.responder.freeze(),
            Side::Initiator => pair.initiator.freeze(),
        }
        let notice = gone(other, old, frozen).await;
        match self.side {
            Side::Responder => pair.responder.thaw(),
            Side::Initiator => pair.initiator.thaw(),
        }
        (pair, notice)
    }

    async fn kill(self, pair: MixedPair, other: Observer, old: &BTreeSet<String>) -> (MixedPair, Option<Duration>) {
        let restart = async {
            match self.side {
                Side::Responder => pair.restart_responder().await,
                Side::Initiator => pair.restart_initiator().await,
            }
        };
        tokio::join!(restart, gone(other, old, PATIENCE))
    }
}

/// How long until the end no longer counts any of these tunnels.
async fn gone(other: Observer, old: &BTreeSet<String>, patience: Duration) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if other.tunnels().await.is_some_and(|now| now.is_disjoint(old)) {
            return Some(start.elapsed());
        }
        sleep(Duration::from_millis(10)).await;
    }
    None
}

/// How many good ones there are after the last bad one. The probes stand in the order in which they began.
fn good_since(probes: &[Probe], back: Instant) -> usize {
    let late = probes.iter().filter(|probe| probe.start >= back);
    late.rev().take_while(|probe| probe.is_good()).count()
}

impl Outcome {
    fn new(probes: &[Probe], notice: Option<Duration>, begin: Instant, back: Instant) -> Self {
        let mut lost = BTreeMap::new();
        for probe in probes.iter().filter(|probe| !probe.is_good()) {
            let status = probe.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            *lost.entry(status).or_default() += 1;
        }
        let good = good_since(probes, back);
        let late: Vec<&Probe> = probes.iter().filter(|probe| probe.start >= back).collect();
        let recovery = late[late.len() - good..].iter().map(|probe| probe.end - back).min();
        let answered = probes.iter().filter(|probe| probe.is_good() && probe.end >= begin);
        Self {
            notice,
            recovery: recovery.filter(|_| good >= ENOUGH),
            sent: probes.len(),
            lost,
            slowest: answered.map(|probe| probe.end - probe.start).max().unwrap_or_default(),
        }
    }
}
