//! Settings together with what the files that they name hold.
//!
//! A file may have another content while the settings are the same, so what was loaded is compared, not only where from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use crate::app::certificates::Certificates;
use crate::app::error::AppError;
use crate::config::{
    Checked, Difference, EgressConfig, FleetConfig, HeadLimits, HopConfig, InitiatorConfig, KeyPairFiles, PolicyConfig,
    ResponderConfig, ServiceConfig, TargetTlsConfig, UpstreamConfig,
};
use crate::fleet::hop::HopSettings;
use crate::fleet::{FleetSettings, now_epoch};
use crate::id::ServiceName;
use crate::initiator::serve::ServiceSettings;
use crate::policy::Rules;
use crate::policy::traffic::{Action, Priority};
use crate::protocol::handshake::Token;
use crate::targets::TargetSettings;
use crate::tls::{ClientCertificates, Credentials, EgressTls, InitiatorTls, ResponderTls, TargetTls, TlsError, Trust};
use crate::transport::tcp::envoy::AcceptSettings;

/// Settings, and all of their files.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) checked: Arc<Checked>,
    pub(super) responder: Option<Accepting>,
    pub(super) fleet: Option<FleetSettings>,
    /// How the siblings there are asked, if they are.
    pub(super) hop: Option<HopSettings>,
    /// For each listener, in the order of the file.
    pub(super) egress: Vec<Option<Arc<EgressTls>>>,
    /// For each listener, likewise: of the servers over TLS that its rules forward to.
    upstreams: Vec<Vec<TargetTls>>,
    pub(super) initiator: Option<Arc<InitiatorTls>>,
    /// In the order of the file.
    pub(super) services: Vec<ServiceSettings>,
    pub(super) certificates: Certificates,
}

/// What a responder takes tunnels by.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) rules: Rules,
    pub(super) trust: Trust,
    pub(super) tls: Arc<ResponderTls>,
    pub(super) envoy: Option<AcceptSettings>,
}

/// What was read for one key.
struct Held<'a> {
    key: String,
    paths: Vec<&'a Path>,
    content: Vec<&'a [u8]>,
    /// What is said when it has become another.
    note: &'static str,
}

impl Loaded {
    /// Reads every file. Blocks.
    ///
    /// # Errors
    /// [`AppError`] names the file.
    pub(super) fn read(checked: Checked) -> Result<Self, AppError> {
        let responder = checked.responder.as_ref().map(Accepting::read).transpose()?;
        let fleet = checked.fleet.as_ref().map(FleetConfig::settings).transpose()?;
        let hop = checked.fleet.as_ref().map(|fleet| fleet.hop_settings(now_epoch())).transpose()?.flatten();
        let egress = |egress: &EgressConfig| egress.tls().map(|tls| tls.egress().map(Arc::new)).transpose();
        let egress = checked.egress.iter().map(egress).collect::<Result<_, _>>()?;
        let upstreams = checked.egress.iter().map(upstreams).collect::<Result<_, _>>()?;
        let initiator = checked.initiator.as_ref();
        if initiator.is_some_and(|initiator| initiator.token.is_some() && token(initiator).is_none()) {
            return Err(AppError::Token);
        }
        let limits = initiator.map(|initiator| initiator.limits).unwrap_or_default();
        let initiator = initiator.map(|initiator| initiator.tls.initiator().map(Arc::new)).transpose()?;
        let services = checked.services.iter().map(|service| settings(service, limits)).collect::<Result<_, _>>()?;
        let certificates = Certificates::of(&checked);
        Ok(Self {
            checked: Arc::new(checked),
            responder,
            fleet,
            hop,
            egress,
            upstreams,
            initiator,
            services,
            certificates,
        })
    }

    /// The same, which shares what has not changed since `before`: whoever goes by it sees that it is the same.
    pub(super) fn sharing(mut self, before: &Self) -> Self {
        if let (Some(own), Some(former)) = (&mut self.responder, &before.responder)
            && is_same_responder(&own.tls, &former.tls)
        {
            own.tls = Arc::clone(&former.tls);
        }
        if let (Some(own), Some(former)) = (&mut self.initiator, &before.initiator)
            && is_same_initiator(own, former)
        {
            *own = Arc::clone(former);
        }
        for (index, own) in self.egress.iter_mut().enumerate() {
            let place = place(&self.checked.egress, index);
            let former = before.find_egress(place).and_then(|former| before.egress[former].as_ref());
            if let (Some(own), Some(former)) = (own, former)
                && is_same_egress(own, former)
            {
                *own = Arc::clone(former);
            }
        }
        self
    }

    /// Says what deserves a second look; `said`: what of the settings was said already.
    pub(super) fn warn(&self, said: Option<&[String]>) {
        let is_news = |warning: &String| !said.is_some_and(|said| said.contains(warning));
        for warning in self.checked.warnings().into_iter().filter(is_news) {
            warn!("{warning}");
        }
        self.certificates.warn();
    }

    /// Which listener has this place.
    pub(super) fn find_egress(&self, of: (SocketAddr, usize)) -> Option<usize> {
        (0..self.checked.egress.len()).find(|index| place(&self.checked.egress, *index) == of)
    }

    /// Whether the servers that this listener forwards to are shown the same and must show the same as those of `before`.
    pub(super) fn is_same_upstreams(&self, index: usize, (before, former): (&Self, usize)) -> bool {
        let (own, former) = (&self.upstreams[index], &before.upstreams[former]);
        own.len() == former.len() && own.iter().zip(former).all(|(own, former)| is_same_target(own, former))
    }

    /// The servers that the rules of this listener forward to, each with what its TLS is made of, if there is any.
    pub(super) fn upstreams(&self, index: usize) -> Vec<(Priority, &UpstreamConfig, Option<&TargetTls>)> {
        let mut files = self.upstreams[index].iter();
        let policies = self.checked.egress[index].policies().iter();
        let upstreams = policies.filter_map(|PolicyConfig(rule)| match &rule.action {
            Action::Forward(config) => Some((rule.priority, config, config.tls.as_ref().and_then(|_| files.next()))),
            _ => None,
        });
        upstreams.collect()
    }

    /// Whether this service is the same in both, with all that belongs to it.
    pub(super) fn is_same_service(&self, before: &Self, name: &ServiceName) -> bool {
        let of = |loaded: &Self| loaded.checked.services.iter().position(|service| service.name == *name);
        let limits = |loaded: &Self| loaded.checked.initiator.as_ref().map(|initiator| initiator.limits);
        let (Some(own), Some(former)) = (of(self), of(before)) else { return false };
        self.checked.services[own] == before.checked.services[former]
            && limits(self) == limits(before)
            && is_same_service_tls(&self.services[own], &before.services[former])
    }

    /// What changes when `new` takes the place of this.
    pub(super) fn difference(&self, new: &Self) -> Difference {
        let mut difference = self.checked.difference(&new.checked);
        let former = self.held();
        for held in new.held() {
            let same = |former: &&Held<'_>| former.key == held.key && former.paths == held.paths;
            if former.iter().find(same).is_some_and(|former| former.content != held.content) {
                difference.note(&held.key, held.note);
            }
        }
        difference
    }

    /// Every file that was read. A private key is not among them: it is that of its certificate, which was checked.
    fn held(&self) -> Vec<Held<'_>> {
        let mut list = Vec::new();
        if let (Some(settings), Some(loaded)) = (&self.checked.responder, &self.responder) {
            responder_files(settings, loaded, &mut list);
        }
        let fleet = self.checked.fleet.as_ref().and_then(|fleet| fleet.tls.as_ref());
        if let (Some(settings), Some(loaded)) = (fleet, self.fleet.as_ref().and_then(|fleet| fleet.etcd.tls.as_ref())) {
            target_files("fleet", settings, loaded, &mut list);
        }
        let hop = self.checked.fleet.as_ref().and_then(|fleet| fleet.hop.as_ref());
        if let (Some(settings), Some(loaded)) = (hop, &self.hop) {
            hop_files(settings, loaded, &mut list);
        }
        for (index, (settings, loaded)) in self.checked.egress.iter().zip(&self.upstreams).enumerate() {
            let section = section(place(&self.checked.egress, index));
            for ((rule, tls), loaded) in settings.upstream_tls().into_iter().zip(loaded) {
                target_files(&format!("{section}.policies.{rule}"), tls, loaded, &mut list);
            }
        }
        for (index, (settings, loaded)) in self.checked.egress.iter().zip(&self.egress).enumerate() {
            let (Some(settings), Some(loaded)) = (settings.tls(), loaded) else { continue };
            let section = section(place(&self.checked.egress, index));
            list.push(certificate(format!("{section}.tls.cert"), &settings.cert, &loaded.credentials));
            let trust = match &loaded.clients {
                ClientCertificates::Required(trust) | ClientCertificates::Optional(trust) => Some(trust),
                ClientCertificates::NotAsked => None,
            };
            list.extend(roots(format!("{section}.tls.client_ca"), settings.client_ca.as_deref(), trust));
            list.extend(revocations(format!("{section}.tls.crl"), &settings.crls, trust));
        }
        if let (Some(settings), Some(loaded)) = (&self.checked.initiator, &self.initiator) {
            list.extend(pair("initiator", settings.tls.credentials.as_ref(), loaded.credentials.as_ref()));
            list.extend(roots("initiator.tls.ca".into(), settings.tls.ca.as_deref(), Some(&loaded.responder)));
            list.extend(revocations("initiator.tls.crl".into(), &settings.tls.crls, Some(&loaded.responder)));
        }
        for (settings, loaded) in self.checked.services.iter().zip(&self.services) {
            let (Some(tls), Some(loaded)) = (&settings.tls, &loaded.connections.tls) else { continue };
            target_files(&format!("services.{}", settings.name), tls, loaded, &mut list);
        }
        list
    }
}

impl Accepting {
    fn read(settings: &ResponderConfig) -> Result<Self, AppError> {
        let rules = settings.admission.rules().map_err(AppError::Rules)?;
        let (credentials, trust) = (settings.tls.credentials()?, settings.tls.trust()?);
        let initiators = ClientCertificates::for_rules(&rules, trust.clone());
        let envoy = settings.envoy.as_ref().map(|envoy| envoy.settings(&settings.tls)).transpose()?;
        Ok(Self { rules, trust, tls: Arc::new(ResponderTls { credentials, initiators }), envoy })
    }
}

fn upstreams(egress: &EgressConfig) -> Result<Vec<TargetTls>, TlsError> {
    egress.upstream_tls().into_iter().map(|(_, tls)| tls.target()).collect()
}

fn settings(service: &ServiceConfig, limits: HeadLimits) -> Result<ServiceSettings, TlsError> {
    let HeadLimits { head_bytes, head_fields } = limits;
    let settings = service.settings()?;
    let connections = TargetSettings { head_bytes, head_fields, ..settings.connections };
    Ok(ServiceSettings { connections, ..settings })
}

/// The address of a listener as it is written, and how many before it have the same.
pub(super) fn place(list: &[EgressConfig], index: usize) -> (SocketAddr, usize) {
    let at = list[index].address();
    (at, list[..index].iter().filter(|other| other.address() == at).count())
}

/// As a [`Difference`] names it.
fn section((at, nth): (SocketAddr, usize)) -> String {
    if nth == 0 { format!("egress[{at}]") } else { format!("egress[{at}#{}]", nth + 1) }
}

fn is_same_credentials(one: &Credentials, other: &Credentials) -> bool {
    // A certificate has one key.
    one.chain() == other.chain()
}

fn is_same_responder(one: &ResponderTls, other: &ResponderTls) -> bool {
    is_same_credentials(&one.credentials, &other.credentials) && one.initiators == other.initiators
}

fn is_same_egress(one: &EgressTls, other: &EgressTls) -> bool {
    is_same_credentials(&one.credentials, &other.credentials) && one.clients == other.clients
}

fn is_same_initiator(one: &InitiatorTls, other: &InitiatorTls) -> bool {
    let credentials = match (&one.credentials, &other.credentials) {
        (Some(one), Some(other)) => is_same_credentials(one, other),
        (None, None) => true,
        _ => false,
    };
    credentials && one.responder == other.responder
}

/// Whether targets over TLS are shown the same and must show the same.
fn is_same_target(one: &TargetTls, other: &TargetTls) -> bool {
    one.credentials.as_ref().map(chain) == other.credentials.as_ref().map(chain) && one.trust == other.trust
}

fn is_same_service_tls(one: &ServiceSettings, other: &ServiceSettings) -> bool {
    is_same_tls(one.connections.tls.as_ref(), other.connections.tls.as_ref())
}

/// The same of targets that may be reached in clear.
pub(super) fn is_same_tls(one: Option<&TargetTls>, other: Option<&TargetTls>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => is_same_target(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn chain(credentials: &Credentials) -> Vec<&[u8]> {
    credentials.chain().iter().map(AsRef::as_ref).collect()
}

fn responder_files<'a>(settings: &'a ResponderConfig, loaded: &'a Accepting, list: &mut Vec<Held<'a>>) {
    let ResponderConfig { tls, envoy, .. } = settings;
    list.push(certificate("responder.tls.cert".into(), &tls.cert, &loaded.tls.credentials));
    list.extend(roots("responder.tls.client_ca".into(), tls.client_ca.as_deref(), Some(&loaded.trust)));
    list.extend(revocations("responder.tls.crl".into(), &tls.crls, Some(&loaded.trust)));
    let inner = envoy.as_ref().and_then(|envoy| envoy.inner_credentials.as_ref());
    let shown = loaded.envoy.as_ref().and_then(|envoy| envoy.inner.credentials.as_ref());
    if let (Some(files), Some(shown)) = (inner, shown) {
        list.push(certificate("responder.envoy.inner_cert".into(), &files.cert, shown));
    }
}

fn target_files<'a>(section: &str, settings: &'a TargetTlsConfig, loaded: &'a TargetTls, list: &mut Vec<Held<'a>>) {
    list.extend(pair(section, settings.credentials.as_ref(), loaded.credentials.as_ref()));
    list.extend(roots(format!("{section}.tls.ca"), settings.ca.as_deref(), loaded.trust.as_ref()));
    list.extend(revocations(format!("{section}.tls.crl"), &settings.crls, loaded.trust.as_ref()));
}

fn hop_files<'a>(HopConfig { tls, .. }: &'a HopConfig, loaded: &'a HopSettings, list: &mut Vec<Held<'a>>) {
    list.push(certificate("fleet.hop.tls.cert".into(), &tls.credentials.cert, &loaded.tls.credentials));
    list.extend(roots("fleet.hop.tls.ca".into(), Some(&tls.ca), Some(&loaded.tls.siblings)));
    list.extend(revocations("fleet.hop.tls.crl".into(), &tls.crls, Some(&loaded.tls.siblings)));
}

fn revocations<'a>(key: String, paths: &'a [PathBuf], trust: Option<&'a Trust>) -> Option<Held<'a>> {
    let content = trust?.crls.iter().map(AsRef::as_ref).collect();
    let paths: Vec<_> = paths.iter().map(AsRef::as_ref).collect();
    (!paths.is_empty()).then_some(Held { key, paths, content, note: "other revocation lists" })
}

fn certificate<'a>(key: String, path: &'a Path, shown: &'a Credentials) -> Held<'a> {
    Held { key, paths: vec![path], content: chain(shown), note: "another certificate" }
}

fn pair<'a>(section: &str, files: Option<&'a KeyPairFiles>, shown: Option<&'a Credentials>) -> Option<Held<'a>> {
    Some(certificate(format!("{section}.tls.cert"), &files?.cert, shown?))
}

fn roots<'a>(key: String, path: Option<&'a Path>, trust: Option<&'a Trust>) -> Option<Held<'a>> {
    let content = trust?.roots.iter().map(AsRef::as_ref).collect();
    Some(Held { key, paths: vec![path?], content, note: "other certificates" })
}

/// What proves the claim of an initiator beside its certificate.
pub(super) fn token(settings: &InitiatorConfig) -> Option<Token> {
    settings.token.as_ref().and_then(|token| Token::new(token.expose()))
}
