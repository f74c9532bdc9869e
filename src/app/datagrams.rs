//! The UDP listeners of a responder: bound, changed and ended as those for requests are.

use std::net::SocketAddr;
use std::sync::Arc;

use tracing::info;

use crate::app::error::AppError;
use crate::config::{Checked, UdpEgressConfig};
use crate::egress::udp::{UdpEgress, UdpHandle, UdpTerms};
use crate::lifecycle::Drain;
use crate::routing::Directory;
use crate::telemetry::Metrics;
use crate::transport::Tunnel;

/// A UDP listener that runs.
struct UdpEntrance {
    /// As the settings say it: port 0 is no port yet.
    address: SocketAddr,
    handle: UdpHandle,
    drain: Drain,
}

/// The UDP listeners of a responder.
#[derive(Default)]
pub(super) struct UdpEntrances {
    /// One for each of the settings, in their order.
    running: Vec<UdpEntrance>,
    /// Those that were removed, by their addresses: each keeps its socket as long as it drains.
    leaving: Vec<(SocketAddr, UdpHandle)>,
}

/// Where a listener of the settings comes from: which one of those that run it is, or a new one.
pub(super) enum UdpDoor {
    Keep(usize),
    Change(usize, Box<UdpTerms>),
    Begin(BoundUdp),
}

/// One that is bound, with its address as the settings say it.
pub(super) struct BoundUdp {
    address: SocketAddr,
    egress: UdpEgress,
}

impl BoundUdp {
    /// Where it listens, with the real port.
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.egress.local_addr()
    }
}

/// Binds one.
pub(super) fn bind(
    settings: &UdpEgressConfig,
    directory: &Arc<Directory<Tunnel>>,
    metrics: &Metrics,
) -> Result<BoundUdp, AppError> {
    let address = settings.udp;
    Ok(BoundUdp { address, egress: UdpEgress::bind(address, settings.terms(), Arc::clone(directory), metrics)? })
}

impl UdpEntrances {
    /// Begins those that are bound, under the drain of all listeners for datagrams.
    pub(super) fn begin(bound: Vec<BoundUdp>, all: &Drain) -> Self {
        let running = bound.into_iter().map(|bound| begin(bound, all)).collect();
        Self { running, leaving: Vec::new() }
    }

    /// What becomes of those that run, and which are new; one for each of the settings, in their order.
    pub(super) fn doors(
        &self,
        (before, now): (&Checked, &Checked),
        directory: &Arc<Directory<Tunnel>>,
        metrics: &Metrics,
    ) -> Result<Vec<UdpDoor>, AppError> {
        let door = |(index, settings): (usize, &UdpEgressConfig)| {
            let place = place(&now.udp, index);
            let old = (0..before.udp.len()).find(|old| self::place(&before.udp, *old) == place);
            Ok(match old {
                Some(old) if before.udp[old] == *settings => UdpDoor::Keep(old),
                Some(old) => UdpDoor::Change(old, Box::new(settings.terms())),
                None => UdpDoor::Begin(match self.successor(settings, directory, metrics) {
                    Some(egress) => BoundUdp { address: settings.udp, egress },
                    None => bind(settings, directory, metrics)?,
                }),
            })
        };
        now.udp.iter().enumerate().map(door).collect()
    }

    /// One on the socket of a listener that was removed, and still drains.
    fn successor(
        &self,
        settings: &UdpEgressConfig,
        directory: &Arc<Directory<Tunnel>>,
        metrics: &Metrics,
    ) -> Option<UdpEgress> {
        let is_there = |(address, _): &&(SocketAddr, UdpHandle)| *address == settings.udp && address.port() != 0;
        // The newest is the one that has the socket.
        let mut there = self.leaving.iter().rev().filter(is_there);
        there.find_map(|(_, handle)| handle.succeed(settings.terms(), Arc::clone(directory), metrics))
    }

    /// Begins and changes listeners; returns the drains of those that are to end.
    pub(super) fn enter(&mut self, doors: Vec<UdpDoor>, all: &Drain) -> Vec<Drain> {
        let mut before: Vec<_> = std::mem::take(&mut self.running).into_iter().map(Some).collect();
        for door in doors {
            let entrance = match door {
                UdpDoor::Keep(old) => before[old].take(),
                UdpDoor::Change(old, terms) => before[old].take().inspect(|entrance| entrance.handle.put(*terms)),
                UdpDoor::Begin(bound) => Some(begin(bound, all)),
            };
            self.running.extend(entrance);
        }
        self.leaving.retain(|(_, handle)| handle.is_there());
        let left = before.into_iter().flatten().map(|UdpEntrance { address, handle, drain }| {
            self.leaving.push((address, handle));
            drain
        });
        left.collect()
    }
}

fn begin(BoundUdp { address, egress }: BoundUdp, all: &Drain) -> UdpEntrance {
    let drain = Drain::within(&all.watch());
    let (handle, watch) = (egress.handle(), drain.watch());
    info!(address = %egress.local_addr(), "taking datagrams");
    drop(watch.spawn(egress.run(watch.clone())));
    UdpEntrance { address, handle, drain }
}

/// The address of a listener as it is written, and how many before it have the same: port 0 may stand there twice.
fn place(list: &[UdpEgressConfig], index: usize) -> (SocketAddr, usize) {
    let at = list[index].udp;
    (at, list[..index].iter().filter(|other| other.udp == at).count())
}
