//! A responder's membership in a fleet: what it tells of its tunnels, and what the settings make of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::{FleetReport, FleetResponder};
use crate::app::end::Departure;
use crate::app::error::AppError;
use crate::app::first_view::FirstView;
use crate::fleet::hop::{Hop, HopHandle, HopSettings, LocalTunnels, Renewal};
use crate::fleet::view::{Certified, Standing, TunnelRecord};
use crate::fleet::{FleetSettings, Member, Siblings, Tunnels};
use crate::id::{HostPort, TunnelId};
use crate::lifecycle::{Drain, DrainWatch};
use crate::protocol::code::CloseCode;
use crate::registry::{Handle as _, Health, LiveTunnel};
use crate::responder::{self, Leaving};
use crate::routing::Directory;
use crate::telemetry::{FleetSight, Metrics};
use crate::transport::Tunnel;

/// How long a responder that leaves waits at most, once it takes no requests any more, for nodes that are nowhere else; and no
/// longer than half of its drain, so that what runs has a time, too. spec: FL-23
const MAX_WAIT: Duration = Duration::from_secs(15);

/// A membership that has not begun: where siblings come in is bound.
pub(super) struct Joining {
    member: Member,
    hop: Option<Hop>,
    reached_at: Option<HostPort>,
    /// What waits for the first view, if anything does.
    first: Option<FirstView>,
}

/// A membership that runs.
pub(super) struct Belonging {
    pub(super) member: Member,
    /// Of its records.
    drain: Drain,
    leave: CancellationToken,
    /// The connections with siblings, and what ends them.
    hop: Option<(HopHandle, Drain)>,
    /// Where siblings come in.
    reached_at: Option<HostPort>,
    responder: responder::Handle,
}

/// Other settings for a membership that runs.
pub(super) struct Others {
    settings: FleetSettings,
    renewal: Option<Renewal>,
}

impl Joining {
    /// Binds where siblings come in, if they do. `directory` has the tunnels that end here.
    pub(super) fn bind(
        (settings, hop): (FleetSettings, Option<(SocketAddr, HopSettings)>),
        directory: &Arc<Directory<Tunnel>>,
        metrics: &Metrics,
    ) -> Result<Self, AppError> {
        let member = Member::new(settings.clone());
        let Some((listen, hop)) = hop else { return Ok(Self { member, hop: None, reached_at: None, first: None }) };
        let known = (Arc::clone(member.view()) as Arc<dyn Siblings>, Arc::clone(directory) as Arc<dyn LocalTunnels>);
        let hop = Hop::bind(listen, hop, known, metrics)?;
        let at = hop.local_addr().unwrap_or(listen);
        let reached_at = Some(HostPort { host: at.ip().to_string(), port: at.port() });
        member.update(told(settings, reached_at.as_ref(), None));
        Ok(Self { member, hop: Some(hop), reached_at, first: None })
    }
}

impl Joining {
    /// Tells this when the directory has been read.
    pub(super) fn when_read(self, first: Option<FirstView>) -> Self {
        Self { first, ..self }
    }

    /// The others, if they can be asked.
    pub(super) fn siblings(&self) -> Option<Arc<dyn Siblings>> {
        self.hop.as_ref().map(|_| Arc::clone(self.member.view()) as Arc<dyn Siblings>)
    }
}

/// Siblings are told where they come in, and where initiators do, unless the file says other places.
fn told(
    mut settings: FleetSettings,
    reached_at: Option<&HostPort>,
    responder: Option<&responder::Handle>,
) -> FleetSettings {
    if settings.siblings.is_empty() {
        settings.siblings.extend(reached_at.cloned());
    }
    if settings.initiators.is_empty()
        && let Some(responder) = responder
    {
        let bound = [responder.quic_addr(), responder.tcp_addr()].into_iter().flatten();
        let places = bound.filter(|address| !address.ip().is_unspecified());
        settings.initiators = places.map(|at| HostPort { host: at.ip().to_string(), port: at.port() }).collect();
        settings.initiators.dedup();
    }
    settings
}

impl Belonging {
    /// Begins it. The drain of the tunnels waits until the responder is out of the directory, and that of the siblings until
    /// what goes to them and comes from them has ended.
    pub(super) fn begin(
        joining: Joining,
        responder: &responder::Handle,
        metrics: &Metrics,
        (tunnels, siblings): (&DrainWatch, &DrainWatch),
    ) -> Self {
        let Joining { member, hop, reached_at, first } = joining;
        member.update(told(FleetSettings::clone(&member.settings()), reached_at.as_ref(), Some(responder)));
        let settings = member.settings();
        info!(id = %settings.id, prefix = settings.prefix.as_str(), "joining a fleet");
        responder.join(Some(Arc::clone(member.view())));
        let (drain, leave) = (Drain::within(tunnels), CancellationToken::new());
        let watch = drain.watch();
        let own = Arc::new(Own(responder.directory()));
        let run = member.clone().run(own, metrics.fleet(), watch.clone(), leave.clone());
        drop(watch.spawn(run));
        if let Some(first) = first {
            drop(watch.spawn(first_view(first, member.clone(), watch.clone(), leave.clone())));
        }
        let hop = hop.map(|hop| speak(hop, responder, siblings));
        Self { member, drain, leave, hop, reached_at, responder: responder.clone() }
    }

    /// Makes what other settings need, without a change to what runs.
    pub(super) fn prepare(&self, settings: FleetSettings, hop: Option<&HopSettings>) -> Result<Others, AppError> {
        let renewal = match (&self.hop, hop) {
            (Some((handle, _)), Some(hop)) => handle.prepare(hop.tls.clone())?,
            _ => None,
        };
        Ok(Others { settings, renewal })
    }

    /// Goes by other settings from now on.
    pub(super) fn update(&self, Others { settings, renewal }: Others) {
        self.member.update(told(settings, self.reached_at.as_ref(), Some(&self.responder)));
        if let (Some((handle, _)), Some(renewal)) = (&self.hop, renewal) {
            handle.renew(renewal);
        }
    }

    /// The responder leaves, before it drains with this limit; for so long it goes on taking requests.
    pub(super) fn departure(&self, responder: responder::Handle, lame_duck: Duration, limit: Duration) -> Departure {
        let view = Arc::clone(self.member.view()) as Arc<dyn Siblings>;
        let within = lame_duck + (limit / 2).min(MAX_WAIT);
        let leaving = Leaving { lame_duck, within, deadline: lame_duck + limit };
        Box::pin(async move { responder.leave(view, leaving).await })
    }

    /// The responder leaves while the process goes on without it, and takes no requests itself any more: it is taken out of the
    /// directory when its nodes are elsewhere, or are not waited for. spec: FL-21 to FL-23
    pub(super) async fn depart(self, limit: Duration) {
        let (responder, tunnels) = (self.responder.clone(), self.drain.watch());
        self.drain.leave();
        tokio::select! {
            () = self.departure(responder.clone(), Duration::ZERO, limit) => {}
            () = tunnels.expired() => {}
        }
        self.end(Some(&responder), limit);
    }

    /// Takes the responder out of the directory; its tunnels stay, and what siblings have asked for may finish until `limit`.
    pub(super) fn end(self, responder: Option<&responder::Handle>, limit: Duration) {
        if let Some(responder) = responder {
            responder.join(None);
            responder.directory().look_elsewhere(None);
        }
        self.leave.cancel();
        if let Some((_, drain)) = self.hop {
            drain.begin(limit);
        }
    }
}

/// Whoever drains, or leaves the fleet, waits for no directory.
async fn first_view(first: FirstView, member: Member, drain: DrainWatch, leave: CancellationToken) {
    let ended = async {
        tokio::select! {
            () = drain.announced() => {}
            () = leave.cancelled() => {}
        }
    };
    first.wait(member.has_read(), ended).await;
}

/// Takes siblings, and asks them for what has no tunnel here.
fn speak(hop: Hop, responder: &responder::Handle, siblings: &DrainWatch) -> (HopHandle, Drain) {
    if let Ok(address) = hop.local_addr() {
        info!(%address, "taking siblings");
    }
    let (handle, drain) = (hop.handle(), Drain::within(siblings));
    let watch = drain.watch();
    responder.directory().look_elsewhere(Some(Arc::new(hop.ways())));
    drop(watch.spawn(hop.run(watch.clone())));
    (handle, drain)
}

/// The tunnels of a responder, as its siblings are told.
struct Own(Arc<Directory<Tunnel>>);

impl Tunnels for Own {
    fn changes(&self) -> u64 {
        self.0.registry().changes()
    }

    fn all(&self) -> Vec<(TunnelId, TunnelRecord)> {
        let takes_requests = |live: &LiveTunnel<Tunnel>| {
            // One that is opening will be open before anybody has heard of it.
            !live.leaving && live.handle.health() != Health::Draining
        };
        let record = |live: LiveTunnel<Tunnel>| {
            let (down, suspect) = (live.handle.down_services(), live.handle.health() == Health::Suspect);
            let (key, issued) = (live.proof.key(), live.proof.issued().map(Certified::from));
            let http_down = live.handle.is_down(None);
            (live.id, TunnelRecord { place: live.place, key, issued, suspect, down, http_down })
        };
        self.0.registry().snapshot().filter(takes_requests).map(record).collect()
    }

    fn overruled(&self, tunnel: TunnelId) {
        if let Some(handle) = self.0.registry().remove(tunnel, Instant::now()) {
            handle.close(CloseCode::Revoked, "another responder of the fleet has the name, with another key");
        }
    }
}

/// Nodes that have a tunnel here, and at no other responder that stays; as `tenant/node`, in this order.
pub(super) fn nowhere_else(member: &Member, directory: &Directory<Tunnel>) -> Vec<String> {
    let claims = directory.registry().snapshot().map(|live| live.place.claim);
    let nowhere = claims.filter(|claim| !responder::is_elsewhere(&**member.view(), claim));
    let names: BTreeSet<_> = nowhere.map(|claim| format!("{}/{}", claim.tenant, claim.node)).collect();
    names.into_iter().collect()
}

/// What operators see of it.
pub(super) fn report(member: &Member) -> FleetReport {
    let (view, settings, state) = (member.view(), member.settings(), member.state());
    let snapshot = view.snapshot();
    let responder = |(sibling, version): (&Arc<crate::fleet::Sibling>, &str)| FleetResponder {
        id: sibling.id.to_string(),
        is_this: sibling.id == *view.own(),
        region: sibling.region.clone(),
        weight: sibling.weight,
        tunnels: sibling.tunnels,
        draining: sibling.draining,
        siblings_at: sibling.siblings_at.iter().map(ToString::to_string).collect(),
        initiators_at: sibling.initiators_at.iter().map(ToString::to_string).collect(),
        epoch: sibling.epoch,
        version: version.to_owned(),
    };
    FleetReport {
        id: settings.id.to_string(),
        prefix: settings.prefix.as_str().to_owned(),
        view: match snapshot.standing() {
            Standing::Empty => "empty",
            Standing::Current => "current",
            Standing::Stale => "stale",
        }
        .to_owned(),
        view_age_seconds: snapshot.heard().map(|heard| heard.elapsed().as_secs_f64()),
        revision: snapshot.revision(),
        tunnels: snapshot.tunnels(),
        etcd: state.etcd,
        trouble: state.trouble,
        responders: snapshot.responders().map(responder).collect(),
    }
}

/// States what is known of the fleet for a scrape.
pub(super) fn measure(member: &Member, metrics: &Metrics) {
    let snapshot = member.view().snapshot();
    metrics.fleet_sight(FleetSight {
        responders: snapshot.responders().count(),
        tunnels: snapshot.tunnels(),
        age: snapshot.heard().map(|heard| heard.elapsed()),
        is_stale: snapshot.standing() != Standing::Current,
    });
}
