//! `adit pki`: certificates for those who have no CA yet.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use adit::id::{Claim, ClusterId, NodeId, TenantId};
use adit::policy::IdentityTemplate;
use adit::tls::pki::{Authority, CA_LIFETIME, LEAF_LIFETIME, Validity};
use adit::tls::spki_pin;
use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::say;

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const RESPONDER: &str = "responder";
const DEFAULT_IDENTITY: &str = "spiffe://adit.internal/tenant/{tenant}/cluster/{cluster}/node/{node}";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The commands below `adit pki`. Files that exist are never overwritten; keys are readable by their owner only.
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
        #[arg(long, default_value_t = days(CA_LIFETIME))]
        days: u64,
    },
    /// Make the certificate of a node: DIR/NODE.pem and DIR/NODE.key
    Node(NodeArgs),
    /// Make the certificate of a responder: DIR/responder.pem and DIR/responder.key
    Responder {
        /// Where the CA is and the new files go
        dir: PathBuf,
        /// A DNS name or IP address that initiators dial; may be repeated
        #[arg(long = "name", required = true, value_name = "NAME")]
        names: Vec<String>,
        /// How long it is valid
        #[arg(long, default_value_t = days(LEAF_LIFETIME))]
        days: u64,
        /// Usable by TLS clients too, as the TLS inside an Envoy tunnel needs it
        #[arg(long)]
        envoy: bool,
    },
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
    /// How long it is valid
    #[arg(long, default_value_t = days(LEAF_LIFETIME))]
    days: u64,
    /// Usable by TLS servers too, as the TLS inside an Envoy tunnel needs it
    #[arg(long)]
    envoy: bool,
}

pub(super) fn pki(command: &Pki) -> anyhow::Result<ExitCode> {
    let text = match command {
        Pki::Init { dir, name, days } => init(dir, name, *days)?,
        Pki::Node(args) => node(args)?,
        Pki::Responder { dir, names, days, envoy } => responder(dir, names, *days, *envoy)?,
    };
    say(&format!("{text}\n"));
    Ok(ExitCode::SUCCESS)
}

fn init(dir: &Path, name: &str, days: u64) -> anyhow::Result<String> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (certificate, key) = (dir.join(CA_CERTIFICATE), dir.join(CA_KEY));
    Authority::create(name, validity(days))?.save(&certificate, &key)?;
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
    let issued = authority(&args.dir, args.envoy)?.node(std::slice::from_ref(&san), validity(args.days))?;
    let (certificate, key) = pair(&args.dir, args.node.as_str());
    issued.save(&certificate, &key)?;
    Ok(format!(
        "{}: proves {claim} as {san}\n{}: its key\npin: {}\n\
         the responder admits it with\n  identity: {:?}",
        certificate.display(),
        key.display(),
        spki_pin(issued.certificate())?,
        args.identity
    ))
}

fn responder(dir: &Path, names: &[String], days: u64, envoy: bool) -> anyhow::Result<String> {
    let issued = authority(dir, envoy)?.responder(names, validity(days))?;
    let (certificate, key) = pair(dir, RESPONDER);
    issued.save(&certificate, &key)?;
    Ok(format!(
        "{}: for a responder that is dialled as {}\n{}: its key\npin: {}",
        certificate.display(),
        names.join(" or "),
        key.display(),
        spki_pin(issued.certificate())?
    ))
}

fn authority(dir: &Path, envoy: bool) -> anyhow::Result<Authority> {
    let load = Authority::load(&dir.join(CA_CERTIFICATE), &dir.join(CA_KEY));
    let load = load.with_context(|| format!("no CA in {}; `adit pki init {0}` makes one", dir.display()));
    load.map(|authority| if envoy { authority.for_both_roles() } else { authority })
}

fn pair(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")))
}

fn validity(days: u64) -> Validity {
    let lifetime = Duration::from_secs(days.saturating_mul(DAY.as_secs()));
    Validity { from: SystemTime::now(), lifetime }
}

const fn days(lifetime: Duration) -> u64 {
    lifetime.as_secs() / DAY.as_secs()
}
