//! `adit pki`: certificates for those who have no CA yet.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use adit::id::{Claim, ClusterId, NodeId, TenantId};
use adit::policy::{IdentityTemplate, San};
use adit::tls::pki::{Authority, CA_LIFETIME, Issued, LEAF_LIFETIME, Validity};
use adit::tls::{Summary, load_roots, peer_identity, spki_pin};
use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::say;

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const RESPONDER: &str = "responder";
const DEFAULT_IDENTITY: &str = "spiffe://adit.internal/tenant/{tenant}/cluster/{cluster}/node/{node}";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The most days that a certificate is made for: twenty years.
const MAX_DAYS: u64 = 7300;
const REVOKED: &str = "revoked.crl";

/// The commands below `adit pki`. Files that exist are not overwritten without --force; keys are readable by their owner
/// only.
#[derive(Debug, Subcommand)]
pub(super) enum Pki {
    /// Make a CA: DIR/ca.pem and DIR/ca.key
    Init {
        /// Where its files go; made if missing
        dir: PathBuf,
        /// Its common name
        #[arg(long, default_value = "adit CA")]
        name: String,
        /// How long it is valid
        #[arg(long, default_value_t = days(CA_LIFETIME), value_parser = lifetimes())]
        days: u64,
        /// Replace the files if they exist: nothing that the old CA signed is trusted any more
        #[arg(long)]
        force: bool,
    },
    /// Make the certificate of a node: DIR/NODE.pem and DIR/NODE.key
    Node(NodeArgs),
    /// Make the certificate of a responder: DIR/responder.pem and DIR/responder.key
    Responder(ResponderArgs),
    /// Revoke certificates of this CA: DIR/revoked.crl, for `crl` beside the CA in the file of whoever is shown them
    Revoke {
        /// Where the CA is
        dir: PathBuf,
        /// The certificates that are no longer valid, in addition to those revoked before; without one the list is only made anew
        #[arg(value_name = "CERTIFICATE")]
        certificates: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct ResponderArgs {
    /// Where the CA is and the new files go
    dir: PathBuf,
    /// A DNS name or IP address that initiators dial; may be repeated
    #[arg(long = "name", required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
}

/// What nodes and responders have in common.
#[derive(Debug, Args)]
struct FileArgs {
    /// How long it is valid
    #[arg(long, default_value_t = days(LEAF_LIFETIME), value_parser = lifetimes())]
    days: u64,
    /// Usable by TLS clients and servers, as the TLS inside an Envoy tunnel needs it
    #[arg(long)]
    envoy: bool,
    /// The files' name, in the place of the usual one
    #[arg(long, value_name = "NAME")]
    out: Option<String>,
    /// Replace the files if they exist
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// Where the CA is and the new files go
    dir: PathBuf,
    /// The node that it proves
    #[arg(long)]
    node: NodeId,
    /// Its cluster
    #[arg(long)]
    cluster: ClusterId,
    /// Its tenant
    #[arg(long, default_value_t = TenantId::default())]
    tenant: TenantId,
    /// How the name in the certificate is made of them; the same as `identity` of the responder
    #[arg(long, value_name = "TEMPLATE", default_value = DEFAULT_IDENTITY)]
    identity: String,
    #[command(flatten)]
    files: FileArgs,
}

pub(super) fn pki(command: &Pki) -> anyhow::Result<ExitCode> {
    let text = match command {
        Pki::Init { dir, name, days, force } => init(dir, name, *days, *force)?,
        Pki::Node(args) => node(args)?,
        Pki::Responder(args) => responder(args)?,
        Pki::Revoke { dir, certificates } => revoke(dir, certificates)?,
    };
    say(&format!("{text}\n"));
    Ok(ExitCode::SUCCESS)
}

fn init(dir: &Path, name: &str, days: u64, force: bool) -> anyhow::Result<String> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (certificate, key) = (dir.join(CA_CERTIFICATE), dir.join(CA_KEY));
    let authority = Authority::create(name, validity(days))?;
    may_make(&certificate, &key, force)?;
    if force { authority.replace(&certificate, &key) } else { authority.save(&certificate, &key) }?;
    Ok(format!(
        "{}: the CA, for both sides to trust\n{}: its key; whoever has it can be any node, so keep it offline",
        certificate.display(),
        key.display()
    ))
}

fn node(args: &NodeArgs) -> anyhow::Result<String> {
    let claim = Claim { tenant: args.tenant.clone(), cluster: args.cluster.clone(), node: args.node.clone() };
    let template =
        IdentityTemplate::parse(&args.identity).with_context(|| format!("--identity {:?}", args.identity))?;
    let san = template.render(&claim).with_context(|| format!("{claim} does not fit {:?}", args.identity))?;
    let issued = authority(&args.dir, args.files.envoy)?.node(std::slice::from_ref(&san), validity(args.files.days))?;
    let name = args.files.out.clone().unwrap_or_else(|| file_name(args, &san));
    let (certificate, key) = pair(&args.dir, &name)?;
    save(&issued, (&certificate, &key), args.files.force)?;
    Ok(format!(
        "{}: proves {claim} as {san}\n{}: its key\npin: {}\n\
         the responder admits it with\n  identity: {:?}",
        certificate.display(),
        key.display(),
        spki_pin(issued.certificate())?,
        args.identity
    ))
}

/// The node's name; with that of its tenant where another tenant's node has the file already.
fn file_name(args: &NodeArgs, san: &San) -> String {
    let node = args.node.as_str();
    let taken = load_roots(&args.dir.join(format!("{node}.pem"))).ok();
    let own = taken.and_then(|chain| peer_identity(&chain).ok());
    let (San::Uri(name) | San::Dns(name)) = san;
    match own {
        Some(own) if !own.uri_sans.contains(name) && !own.dns_sans.contains(name) => format!("{}.{node}", args.tenant),
        _ => node.to_owned(),
    }
}

fn responder(args: &ResponderArgs) -> anyhow::Result<String> {
    let issued = authority(&args.dir, args.files.envoy)?.responder(&args.names, validity(args.files.days))?;
    let (certificate, key) = pair(&args.dir, args.files.out.as_deref().unwrap_or(RESPONDER))?;
    save(&issued, (&certificate, &key), args.files.force)?;
    Ok(format!(
        "{}: for a responder that is dialled as {}\n{}: its key\npin: {}",
        certificate.display(),
        args.names.join(" or "),
        key.display(),
        spki_pin(issued.certificate())?
    ))
}

fn revoke(dir: &Path, certificates: &[PathBuf]) -> anyhow::Result<String> {
    let authority = authority(dir, false)?;
    let list = dir.join(REVOKED);
    let mut revoked = authority.revocations(&list)?;
    let mut lines = Vec::new();
    for path in certificates {
        let chain = load_roots(path)?;
        let certificate = chain.first().context("there is no certificate")?;
        let summary = Summary::of(certificate)?;
        anyhow::ensure!(
            authority.has_issued(certificate),
            "{}: {summary} was not issued by the CA in {}, and only who issued it can revoke it; nothing was revoked",
            path.display(),
            dir.display()
        );
        let news = revoked.add(&summary.serial);
        lines.push(format!("{}: {summary} is {}", path.display(), if news { "revoked" } else { "revoked already" }));
    }
    authority.save_crl(&list, &revoked, validity(days(CA_LIFETIME)))?;
    lines.push(format!("{}: for `crl` beside the CA wherever these certificates are shown: those of nodes to the responder, that of a responder to \
         the sites; a reload reads it", list.display()));
    Ok(lines.join("\n"))
}

fn save(issued: &Issued, (certificate, key): (&Path, &Path), force: bool) -> anyhow::Result<()> {
    may_make(certificate, key, force)?;
    Ok(if force { issued.replace(certificate, key) } else { issued.save(certificate, key) }?)
}

/// Whether files may be made under these names.
fn may_make(certificate: &Path, key: &Path, force: bool) -> anyhow::Result<()> {
    if let Some(path) = [certificate, key].into_iter().find(|path| !force && path.exists()) {
        anyhow::bail!("{} exists; --force replaces it, --out names other files", path.display());
    }
    Ok(())
}

fn authority(dir: &Path, envoy: bool) -> anyhow::Result<Authority> {
    let load = Authority::load(&dir.join(CA_CERTIFICATE), &dir.join(CA_KEY));
    let load = load.with_context(|| format!("no CA in {}; `adit pki init {0}` makes one", dir.display()));
    load.map(|authority| if envoy { authority.for_both_roles() } else { authority })
}

fn pair(dir: &Path, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    if name.is_empty() || name.contains('/') || name == "ca" {
        anyhow::bail!(
            "--out {name:?} cannot be the name of the files; expected a name such as edge-17, without a folder"
        );
    }
    Ok((dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))))
}

fn lifetimes() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=MAX_DAYS)
}

fn validity(days: u64) -> Validity {
    let lifetime = Duration::from_secs(days.saturating_mul(DAY.as_secs()));
    Validity { from: SystemTime::now(), lifetime }
}

const fn days(lifetime: Duration) -> u64 {
    lifetime.as_secs() / DAY.as_secs()
}
