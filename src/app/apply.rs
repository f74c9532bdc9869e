//! Other settings for roles that run: everything that can fail first, then all of it at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use crate::admin;
use crate::app::build;
use crate::app::datagrams::UdpDoor;
use crate::app::error::AppError;
use crate::app::fleet::{Joining, Others};
use crate::app::load::{Loaded, place};
use crate::app::memory::Memory;
use crate::app::roles::{Answering, Entrance, Initiating, Responding, Roles, Stage};
use crate::app::terms;
use crate::app::upstreams;
use crate::config::Difference;
use crate::egress::{self, Egress, Http3Socket};
use crate::initiator::serve::Services;
use crate::initiator::{self, Initiator};
use crate::responder::{self, Bound, Listen, Responder};
use crate::routing::Directory;
use crate::telemetry::Metrics;
use crate::telemetry::log::{self, LOG_VARIABLE};
use crate::transport::Tunnel;

/// What runs, and by which settings.
pub(super) struct InForce {
    pub(super) loaded: Loaded,
    pub(super) roles: Roles,
}

/// Everything that it takes to put other settings in force; nothing has changed yet.
pub(super) struct Plan {
    loaded: Loaded,
    /// Changed: where it listens from then on, if that changes.
    responder: Step<(Responder, Memory), Option<Bound>>,
    fleet: Step<Joining, Others>,
    /// One for each listener of the settings, in their order.
    egress: Vec<Door>,
    udp: Vec<UdpDoor>,
    initiator: Step<Initiator<Services>, Services>,
    admin: Step<admin::Listener, ()>,
    metrics: Step<admin::Listener, ()>,
}

/// What becomes of a role or listener.
enum Step<New, Change> {
    /// It stays as it is, or is neither there before nor after.
    Keep,
    /// It runs on, by other settings.
    Change(Change),
    /// A new one begins, and one that is there ends.
    Begin(New),
    /// It ends.
    End,
}

impl<New, Change> Step<New, Change> {
    fn begin_or(new: Option<New>, none: Self) -> Self {
        new.map_or(none, Self::Begin)
    }
}

/// Where a listener of the settings comes from: which one of those that run it is, or a new one.
enum Door {
    Keep(usize),
    Change(usize, Box<egress::Prepared>),
    Begin(Egress),
}

impl InForce {
    /// Makes everything that other settings need, without a change to what runs. Cancel safe: what was bound is let go.
    pub(super) async fn prepare(
        &self,
        loaded: Loaded,
        difference: &Difference,
        metrics: &Metrics,
    ) -> Result<Plan, AppError> {
        let (before, now) = (&self.loaded.checked, &loaded.checked);
        let responder = self.responder(&loaded, difference, metrics)?;
        let directory = match &responder {
            Step::Begin((responder, _)) => responder.directory(),
            _ => self.roles.directory(),
        };
        let fleet = self.fleet(&loaded, difference, (&directory, metrics))?;
        let doors = (0..now.egress.len()).map(|index| self.door(&loaded, index, &directory, metrics));
        let egress = doors.collect::<Result<_, _>>()?;
        let udp = self.roles.udp.doors((before, now), &directory, metrics)?;
        let initiator = self.initiator(&loaded, difference, metrics)?;
        let admin = match before.admin == now.admin {
            true => Step::Keep,
            false => Step::begin_or(build::admin(now).await?, Step::End),
        };
        let metrics = match before.metrics.listen == now.metrics.listen {
            true => Step::Keep,
            false => Step::begin_or(build::scraped(now).await?, Step::End),
        };
        Ok(Plan { responder, fleet, egress, udp, initiator, admin, metrics, loaded })
    }

    fn responder(
        &self,
        new: &Loaded,
        difference: &Difference,
        metrics: &Metrics,
    ) -> Result<Step<(Responder, Memory), Option<Bound>>, AppError> {
        let (Some(running), Some(before)) = (&self.roles.responder, &self.loaded.checked.responder) else {
            return Ok(Step::begin_or(build::responder(new, metrics, None)?, Step::Keep));
        };
        let Some(settings) = &new.checked.responder else { return Ok(Step::End) };
        if !difference.touches("responder") && !difference.touches("drain_timeout") {
            return Ok(Step::Keep);
        }
        running.handle.check(|terms| self.responder_terms(new, terms))?;
        let (quic, tcp) = (listen(before.quic, settings.quic), listen(before.tcp, settings.tcp));
        let stays = quic == Listen::Stay && tcp == Listen::Stay;
        Ok(Step::Change(if stays { None } else { Some(running.handle.bind(quic, tcp)?) }))
    }

    fn fleet(
        &self,
        new: &Loaded,
        difference: &Difference,
        (directory, metrics): (&Arc<Directory<Tunnel>>, &Metrics),
    ) -> Result<Step<Joining, Others>, AppError> {
        Ok(match (&self.roles.fleet, &new.fleet) {
            (None, _) => Step::begin_or(build::fleet(new, directory, metrics, None)?, Step::Keep),
            (Some(_), None) => Step::End,
            // Siblings and initiators are told where it takes tunnels.
            (Some(running), Some(settings)) if difference.touches("fleet") || self.moves(new) => {
                Step::Change(running.prepare(settings.clone(), new.hop.as_ref())?)
            }
            (Some(_), Some(_)) => Step::Keep,
        })
    }

    /// Whether the responder takes tunnels elsewhere than before.
    fn moves(&self, new: &Loaded) -> bool {
        let responders = self.loaded.checked.responder.as_ref().zip(new.checked.responder.as_ref());
        responders.is_some_and(|(before, now)| (before.quic, before.tcp) != (now.quic, now.tcp))
    }

    fn responder_terms(&self, new: &Loaded, terms: &mut responder::Terms) {
        terms::responder(new, terms);
        // The same means that no handshake and no tunnel is concerned.
        if let (Some(before), Some(now)) = (&self.loaded.responder, &new.responder)
            && !Arc::ptr_eq(&before.tls, &now.tls)
        {
            terms.tls = Arc::clone(&now.tls);
        }
    }

    fn door(
        &self,
        new: &Loaded,
        index: usize,
        directory: &Arc<Directory<Tunnel>>,
        metrics: &Metrics,
    ) -> Result<Door, AppError> {
        let (settings, tls) = (&new.checked.egress[index], new.egress[index].as_ref());
        let (most_before, most) =
            (terms::most_connections(&self.loaded.checked), terms::most_connections(&new.checked));
        let Some(old) = self.loaded.find_egress(place(&new.checked.egress, index)) else {
            return Ok(Door::Begin(build::egress((settings, tls), most, directory, metrics, &self.roles.left)?));
        };
        let is_same_tls = match (&self.loaded.egress[old], tls) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        let is_same_files = is_same_tls && new.is_same_upstreams(index, (&self.loaded, old));
        if self.loaded.checked.egress[old] == *settings && is_same_files && most_before == most {
            return Ok(Door::Keep(old));
        }
        let running = &self.roles.egress[old].handle;
        let known = upstreams::known((new, index), (&self.loaded, old), &running.terms().policies);
        let terms = terms::egress(settings, tls, most, &known)?;
        Ok(Door::Change(old, Box::new(running.prepare(terms)?)))
    }

    fn initiator(
        &self,
        new: &Loaded,
        difference: &Difference,
        metrics: &Metrics,
    ) -> Result<Step<Initiator<Services>, Services>, AppError> {
        let (Some(running), Some(before)) = (&self.roles.initiator, &self.loaded.checked.initiator) else {
            return Ok(Step::begin_or(build::initiator(new, metrics)?, Step::Keep));
        };
        let Some(settings) = &new.checked.initiator else { return Ok(Step::End) };
        if before.claim != settings.claim {
            // It is somebody else.
            return Ok(Step::begin_or(build::initiator(new, metrics)?, Step::End));
        }
        if !["initiator", "services", "drain_timeout"].iter().any(|key| difference.touches(key)) {
            return Ok(Step::Keep);
        }
        let (former, recorder) = (running.handle.terms().accept.clone(), build::recorder(settings, metrics));
        let is_same = |name: &_| new.is_same_service(&self.loaded, name);
        let services = former.renewed(new.services.clone(), recorder, is_same)?.governed(settings.rules());
        let check = |terms: &mut initiator::Terms<Services>| self.initiator_terms(new, &services, terms);
        running.handle.check(check).map_err(AppError::InitiatorTerms)?;
        Ok(Step::Change(services))
    }

    fn initiator_terms(&self, new: &Loaded, services: &Services, terms: &mut initiator::Terms<Services>) {
        terms::initiator(new, services, terms);
        // The same means that no tunnel is replaced.
        if let (Some(before), Some(now)) = (&self.loaded.initiator, &new.initiator)
            && !Arc::ptr_eq(before, now)
        {
            terms.tls = Arc::clone(now);
        }
    }

    /// Puts in force what was prepared, all at once and without waiting for anything.
    pub(super) fn commit(mut self, plan: Plan, stage: &Stage) -> Self {
        let Plan { loaded, responder, fleet, egress, udp, initiator, admin, metrics } = plan;
        let before = self.loaded.checked.log.level;
        if before != loaded.checked.log.level {
            set_level(loaded.checked.log.level.as_str());
        }
        let mut roles = std::mem::take(&mut self.roles);
        let leaving = self.begin_responder(&mut roles, responder, &loaded, stage);
        let limit = loaded.checked.drain_timeout;
        let departing = leaving.as_ref().and_then(|_| roles.fleet.take());
        begin_fleet(&mut roles, fleet, stage, limit);
        let mut closing: Vec<_> = enter(&mut roles, egress, stage).into_iter().map(Entrance::into_drain).collect();
        closing.extend(roles.udp.enter(udp, &stage.datagrams));
        match leaving {
            Some(responder) => responder.stop(closing, departing, limit),
            None => closing.into_iter().for_each(|entrance| entrance.begin(limit)),
        }
        if let Some(initiator) = self.begin_initiator(&mut roles, initiator, &loaded, stage) {
            initiator.stop(limit);
        }
        answer(&mut roles.metrics, metrics, stage);
        answer(&mut roles.admin, admin, stage);
        Self { loaded, roles }
    }

    /// Returns the one that is to end.
    fn begin_responder(
        &self,
        roles: &mut Roles,
        step: Step<(Responder, Memory), Option<Bound>>,
        new: &Loaded,
        stage: &Stage,
    ) -> Option<Responding> {
        match step {
            Step::Keep => None,
            Step::Begin((responder, memory)) => roles.responder.replace(stage.responder(responder, memory, None)),
            Step::End => roles.responder.take(),
            Step::Change(bound) => {
                let Some(Responding { handle, .. }) = &roles.responder else { return None };
                if let Some(bound) = bound {
                    info!(quic = ?bound.quic_addr(), tcp = ?bound.tcp_addr(), "accepting tunnels elsewhere");
                    handle.listen(bound);
                }
                let updated = handle.update(|terms| self.responder_terms(new, terms));
                said(updated.map(drop), "responder");
                None
            }
        }
    }

    /// Returns the one that is to end.
    fn begin_initiator(
        &self,
        roles: &mut Roles,
        step: Step<Initiator<Services>, Services>,
        new: &Loaded,
        stage: &Stage,
    ) -> Option<Initiating> {
        match step {
            Step::Keep => None,
            Step::Begin(initiator) => roles.initiator.replace(stage.initiator(initiator, None)),
            Step::End => roles.initiator.take(),
            Step::Change(services) => {
                let Some(Initiating { handle, .. }) = &roles.initiator else { return None };
                said(handle.update(|terms| self.initiator_terms(new, &services, terms)), "initiator");
                None
            }
        }
    }
}

fn begin_fleet(roles: &mut Roles, step: Step<Joining, Others>, stage: &Stage, limit: Duration) {
    match (step, &roles.responder) {
        (Step::Begin(joining), Some(responder)) => roles.fleet = Some(stage.belong(joining, responder)),
        (Step::Change(others), _) => {
            if let Some(belonging) = &roles.fleet {
                belonging.update(others);
            }
        }
        (Step::End, responder) => {
            if let Some(belonging) = roles.fleet.take() {
                belonging.end(responder.as_ref().map(|responder| &responder.handle), limit);
            }
        }
        (Step::Keep | Step::Begin(_), _) => {}
    }
}

/// What a listener does whose address was one thing and is another.
fn listen(before: Option<SocketAddr>, now: Option<SocketAddr>) -> Listen {
    match now {
        now if now == before => Listen::Stay,
        Some(address) => Listen::At(address),
        None => Listen::Nowhere,
    }
}

fn set_level(level: &str) {
    match log::set_level(level) {
        Ok(true) => {}
        Ok(false) => info!("log.level: {LOG_VARIABLE} or the program decides what is written, as before"),
        Err(error) => error!(%error, "log.level"),
    }
}

/// Begins and changes listeners; returns those that are to end.
fn enter(roles: &mut Roles, doors: Vec<Door>, stage: &Stage) -> Vec<Entrance> {
    let mut before: Vec<_> = std::mem::take(&mut roles.egress).into_iter().map(Some).collect();
    for door in doors {
        let entrance = match door {
            Door::Keep(old) => before[old].take(),
            Door::Change(old, prepared) => before[old].take().inspect(|entrance| entrance.handle.commit(*prepared)),
            Door::Begin(egress) => Some(stage.entrance(egress)),
        };
        roles.egress.extend(entrance);
    }
    roles.left.retain(Http3Socket::is_there);
    let leaving: Vec<_> = before.into_iter().flatten().collect();
    roles.left.extend(leaving.iter().flat_map(|entrance| entrance.handle.http3_sockets()));
    leaving
}

fn answer(running: &mut Option<Answering>, step: Step<admin::Listener, ()>, stage: &Stage) {
    let former = match step {
        Step::Keep | Step::Change(()) => None,
        Step::Begin(listener) => running.replace(stage.answer(listener)),
        Step::End => running.take(),
    };
    if let Some(former) = former {
        former.stop();
    }
}

/// What was checked just before cannot fail.
fn said<E: std::error::Error>(done: Result<(), E>, role: &'static str) {
    if let Err(error) = done {
        error!(%error, role, "settings that were checked cannot be put in force");
    }
}
