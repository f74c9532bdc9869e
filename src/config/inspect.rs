//! What an operator should know about the certificates and keys of a file, beside that they can be read: would a peer take
//! them, until when, do they prove the claim, who can read the keys.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use crate::config::{Checked, FleetConfig, HopConfig, InitiatorConfig, KeyPairFiles, ResponderConfig};
use crate::id::Claim;
use crate::policy::{IdentityTemplate, San};
use crate::tls::{
    Fault, Peer, Rejection, Summary, Utc, examine, load_crls, load_roots, names, next_update, valid_until,
};

/// How long before its end a certificate is worth a warning.
pub const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A certificate of a file, as its peers will see it.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// Its key in the file, such as `initiator.tls.cert`.
    pub key: String,
    /// Whose it is: `responder`, `initiator`, `egress`, `ca`, `service` for what a target is shown, or `fleet` for what siblings and
    /// etcd are.
    pub role: &'static str,
    /// What it says.
    pub summary: Summary,
    /// Every name that it proves.
    pub names: Vec<String>,
    /// When it, its chain or its root stops to prove anything.
    pub valid_until: SystemTime,
    /// Why peers will not take it.
    pub problems: Vec<String>,
    /// What deserves a second look.
    pub warnings: Vec<String>,
    evidence: Evidence,
}

/// What the problems of a certificate follow from.
#[derive(Debug, Clone)]
struct Evidence {
    chain: Vec<CertificateDer<'static>>,
    /// Those that its peers have, as far as the file says.
    roots: Vec<CertificateDer<'static>>,
    peer: Peer,
    /// Those that no time changes.
    lasting: Vec<String>,
}

impl Inspected {
    /// Whether it is the same certificate, with the same chain, in the same role.
    pub fn is_same(&self, other: &Self) -> bool {
        self.role == other.role && self.evidence.chain == other.evidence.chain
    }

    /// Why peers would not take it at another time: nothing else has changed since it was read.
    pub fn problems_at(&self, now: SystemTime) -> Vec<String> {
        self.evidence.problems(self.role, now)
    }
}

impl Evidence {
    fn problems(&self, role: &str, now: SystemTime) -> Vec<String> {
        let Self { chain, roots, peer, lasting } = self;
        let rejection = |roots: &[_]| examine(chain, roots, *peer, now).ok().flatten();
        let found = match rejection(roots) {
            // A CA of the file is the one that peers of the other role must have; it may also have signed this end's.
            Some(found) if is_untrusted(&found) => rejection(&[]),
            found => found,
        };
        let found = found.map(|found| if role == CA { OUT_OF_TIME.to_owned() } else { found.to_string() });
        found.into_iter().chain(lasting.iter().cloned()).collect()
    }
}

fn is_untrusted(rejection: &Rejection) -> bool {
    matches!(rejection.fault, Fault::Untrusted { .. })
}

/// The role of what peers are verified by.
const CA: &str = "ca";
/// What is wrong with one that has ended, or not begun.
const OUT_OF_TIME: &str = "its time is not now: it vouches for nobody";
/// The role of what a fleet is shown.
const FLEET: &str = "fleet";

/// What one section of a file shows.
struct Shown<'a> {
    key: String,
    role: &'static str,
    peer: Peer,
    cert: &'a Path,
    private_key: &'a Path,
    ca: Option<&'a Path>,
}

/// Looks at every certificate of the file, as of `now`. Files that cannot be read are left out: [`load`](crate::config::load)
/// has told of them.
pub fn inspect(checked: &Checked, now: SystemTime) -> Vec<Inspected> {
    let mut found: Vec<Inspected> = shown(checked).into_iter().filter_map(|shown| own(&shown, checked, now)).collect();
    for Trusted { key, ca, crls } in trusted(checked) {
        let mut bundle = bundle(&key, ca, now);
        if let Some(first) = bundle.first_mut() {
            first.warnings.extend(crls.iter().filter_map(|list| out_of_date(list, now)));
        }
        found.extend(bundle);
    }
    found
}

/// What one section of a file trusts.
struct Trusted<'a> {
    /// That of the CAs.
    key: String,
    ca: &'a Path,
    /// What they signed that is no longer valid.
    crls: &'a [PathBuf],
}

fn trusted(checked: &Checked) -> Vec<Trusted<'_>> {
    fn of<'a>(list: &mut Vec<Trusted<'a>>, key: impl Into<String>, ca: Option<&'a Path>, crls: &'a [PathBuf]) {
        list.extend(ca.map(|ca| Trusted { key: key.into(), ca, crls }));
    }
    let mut list = Vec::new();
    if let Some(ResponderConfig { tls, .. }) = &checked.responder {
        of(&mut list, "responder.tls.client_ca", tls.client_ca.as_deref(), &tls.crls);
    }
    if let Some(InitiatorConfig { tls, .. }) = &checked.initiator {
        of(&mut list, "initiator.tls.ca", tls.ca.as_deref(), &tls.crls);
    }
    for (index, egress) in checked.egress.iter().enumerate() {
        if let Some(tls) = egress.tls() {
            of(&mut list, format!("egress[{index}].tls.client_ca"), tls.client_ca.as_deref(), &tls.crls);
        }
        for (rule, tls) in egress.upstream_tls() {
            of(&mut list, format!("egress[{index}].policies.{rule}.tls.ca"), tls.ca.as_deref(), &tls.crls);
        }
    }
    for (index, service) in checked.services.iter().enumerate() {
        if let Some(tls) = &service.tls {
            of(&mut list, format!("services[{index}].tls.ca"), tls.ca.as_deref(), &tls.crls);
        }
    }
    if let Some(FleetConfig { hop, tls, .. }) = &checked.fleet {
        if let Some(HopConfig { tls, .. }) = hop {
            of(&mut list, "fleet.hop.tls.ca", Some(&tls.ca), &tls.crls);
        }
        if let Some(tls) = tls {
            of(&mut list, "fleet.tls.ca", tls.ca.as_deref(), &tls.crls);
        }
    }
    list
}

/// What is said of a file with a revocation list that should have been followed by another one.
fn out_of_date(path: &Path, now: SystemTime) -> Option<String> {
    let lists = load_crls(path).ok()?;
    let due = lists.iter().filter_map(next_update).filter(|due| *due < now).min()?;
    let (list, due) = (path.display(), Utc(due.into()));
    Some(format!(
        "its revocation list {list} was to be renewed by {due}: it counts still, and knows of nobody revoked since"
    ))
}

fn shown(checked: &Checked) -> Vec<Shown<'_>> {
    let mut list = Vec::new();
    if let Some(responder) = &checked.responder {
        let tls = &responder.tls;
        let (cert, private_key, ca) = (&*tls.cert, &*tls.key, tls.client_ca.as_deref());
        list.push(Shown {
            key: "responder.tls".into(),
            role: "responder",
            peer: Peer::Responder,
            cert,
            private_key,
            ca,
        });
    }
    for (index, egress) in checked.egress.iter().enumerate() {
        let Some(tls) = egress.tls() else { continue };
        let key = format!("egress[{index}].tls");
        list.push(Shown {
            key,
            role: "egress",
            peer: Peer::Responder,
            cert: &tls.cert,
            private_key: &tls.key,
            ca: None,
        });
    }
    if let Some(initiator) = &checked.initiator
        && let Some(files) = &initiator.tls.credentials
    {
        let (cert, private_key, ca) = (&*files.cert, &*files.key, initiator.tls.ca.as_deref());
        list.push(Shown {
            key: "initiator.tls".into(),
            role: "initiator",
            peer: Peer::Initiator,
            cert,
            private_key,
            ca,
        });
    }
    for (index, service) in checked.services.iter().enumerate() {
        let Some(files) = service.tls.as_ref().and_then(|tls| tls.credentials.as_ref()) else { continue };
        let (key, peer) = (format!("services[{index}].tls"), Peer::Client);
        list.push(Shown { key, role: "service", peer, cert: &files.cert, private_key: &files.key, ca: None });
    }
    if let Some(fleet) = &checked.fleet {
        list.extend(of_fleet(fleet));
    }
    list
}

/// What siblings are shown, and what etcd is.
fn of_fleet(fleet: &FleetConfig) -> impl Iterator<Item = Shown<'_>> {
    let hop = fleet.hop.as_ref().map(|hop| {
        let KeyPairFiles { cert, key } = &hop.tls.credentials;
        let (key_of, peer, ca) = ("fleet.hop.tls".into(), Peer::Sibling, Some(&*hop.tls.ca));
        Shown { key: key_of, role: FLEET, peer, cert, private_key: key, ca }
    });
    let etcd = fleet.tls.as_ref().and_then(|tls| tls.credentials.as_ref()).map(|KeyPairFiles { cert, key }| {
        let (key_of, peer) = ("fleet.tls".into(), Peer::Client);
        Shown { key: key_of, role: FLEET, peer, cert, private_key: key, ca: None }
    });
    hop.into_iter().chain(etcd)
}

fn own(shown: &Shown<'_>, checked: &Checked, now: SystemTime) -> Option<Inspected> {
    let chain = load_roots(shown.cert).ok()?;
    let roots = shown.ca.and_then(|ca| load_roots(ca).ok()).unwrap_or_default();
    let certificate = chain.first()?;
    let (mut lasting, mut warnings) = (Vec::new(), Vec::new());
    if examine(&chain, &roots, shown.peer, now).ok()?.as_ref().is_some_and(is_untrusted) {
        warnings.push("it is not signed by the CA beside it: peers must trust its own CA".to_owned());
    }
    let names = names(certificate).ok()?;
    if shown.role == "initiator"
        && let Some(initiator) = &checked.initiator
    {
        let template = checked.responder.as_ref().and_then(|responder| responder.admission.identity.as_deref());
        claim(&initiator.claim, &names, template, &mut lasting, &mut warnings);
    }
    warnings.extend(readable_by_others(shown.private_key));
    let valid_until = valid_until(&chain, &roots, shown.peer)?;
    warnings.extend(soon(valid_until, now));
    let summary = Summary::of(certificate).ok()?;
    let (key, role) = (format!("{}.cert", shown.key), shown.role);
    let evidence = Evidence { chain, roots, peer: shown.peer, lasting };
    let problems = evidence.problems(role, now);
    Some(Inspected { key, role, summary, names, valid_until, problems, warnings, evidence })
}

/// All of a file of roots. One that is out of time, beside others that are not, is in nobody's way.
fn bundle(key: &str, path: &Path, now: SystemTime) -> Vec<Inspected> {
    let roots = load_roots(path).unwrap_or_default();
    let mut all: Vec<Inspected> = roots.iter().filter_map(|root| authority(key, root, now)).collect();
    if all.iter().any(|root| root.problems.is_empty()) {
        for root in &mut all {
            root.warnings.append(&mut root.problems);
        }
    }
    all
}

fn authority(key: &str, root: &CertificateDer<'static>, now: SystemTime) -> Option<Inspected> {
    let (chain, lasting) = (vec![root.clone()], Vec::new());
    let evidence = Evidence { chain, roots: Vec::new(), peer: Peer::Responder, lasting };
    let valid_until = valid_until(std::slice::from_ref(root), &[], Peer::Responder)?;
    Some(Inspected {
        key: key.to_owned(),
        role: CA,
        summary: Summary::of(root).ok()?,
        names: Vec::new(),
        valid_until,
        problems: evidence.problems(CA, now),
        warnings: soon(valid_until, now).into_iter().collect(),
        evidence,
    })
}

/// Whether the names can prove the claim. Which template the responder has is only known where it is in the same file.
fn claim(
    claim: &Claim,
    names: &[String],
    template: Option<&str>,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) {
    let expected = template.and_then(|text| IdentityTemplate::parse(text).ok()).and_then(|text| text.render(claim));
    if let Some(San::Uri(expected) | San::Dns(expected)) = expected {
        if !names.contains(&expected) {
            problems.push(format!("it does not prove {claim}; expected the name {expected}, it has {}", listed(names)));
        }
        return;
    }
    for (part, id) in
        [("node", claim.node.as_str()), ("cluster", claim.cluster.as_str()), ("tenant", claim.tenant.as_str())]
    {
        let said: Vec<&str> = names.iter().filter_map(|name| segment_after(name, part)).collect();
        if !said.is_empty() && !said.contains(&id) {
            problems.push(format!(
                "it does not prove {claim}: its names say {part} {}, the file says {id}",
                said.join(", ")
            ));
        }
    }
    if problems.is_empty() && !names.iter().any(|name| has_word(name, claim.node.as_str())) {
        warnings.push(format!("none of its names has {} in it: only a pin or a token can prove {claim}", claim.node));
    }
}

/// `edge-17` of `spiffe://example.org/tenant/acme/node/edge-17`.
fn segment_after<'a>(name: &'a str, part: &str) -> Option<&'a str> {
    let mut segments = name.split('/');
    segments.find(|segment| *segment == part)?;
    segments.next()
}

fn has_word(name: &str, word: &str) -> bool {
    name == word || name.split(['/', '.', ':', '@']).any(|part| part == word)
        // An id may hold dots itself.
        || (word.contains('.') && name.contains(word))
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn readable_by_others(key: &Path) -> Option<String> {
    let mode = key.metadata().ok()?.permissions().mode() & 0o777;
    let shown = key.display();
    (mode & 0o077 != 0).then(|| format!("{shown} can be read by others (mode {mode:04o}); expected 0600"))
}

fn soon(valid_until: SystemTime, now: SystemTime) -> Option<String> {
    let left = valid_until.duration_since(now).ok().filter(|left| *left <= WARN_BEFORE)?;
    let days = left.as_secs() / (24 * 3600);
    Some(match days {
        0 => "it ends today".to_owned(),
        1 => "it ends in 1 day".to_owned(),
        days => format!("it ends in {days} days"),
    })
}
