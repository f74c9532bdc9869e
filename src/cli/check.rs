//! `adit check`: what a file would do, or every mistake in it; or what would change with it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use adit::config::{
    self, Checked, EgressConfig, FleetConfig, HttpEgress, InitiatorConfig, Inspected, Process, ResponderConfig,
    ServiceConfig, Surroundings, TcpEgress, UdpEgressConfig, UdpGoal, Whom,
};
use adit::routing::{Connect, RouterSettings};
use adit::telemetry::log;
use adit::tls::Utc;
use clap::Args;
use time::OffsetDateTime;

use super::{FAILED, MISUSED, say};

mod explain;

use explain::ExplainArgs;

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 ok, 1 the file has mistakes, 2 wrong command line;\n\
                        with --diff: 0 nothing changes, 1 something does, 2 a file has mistakes;\n\
                        with --explain: 0 it goes somewhere, 1 it is refused, 2 wrong command line or file.\n\
                        Examples: --explain GET http://shop.example/a -H 'x-node-id: edge-17' cloud.yaml\n\
                        \x20         --explain tcp 127.0.0.1:2222 --server-name db.example --source 10.1.2.3 cloud.yaml\n\
                        \x20         --explain udp 127.0.0.1:5353 --source 10.1.2.3 cloud.yaml\n\
                        \x20         --explain GET http://shop.example/a --initiator edge.yaml")]
pub(super) struct CheckArgs {
    /// The file, YAML
    #[arg(required_unless_present_any = ["keys", "diff"])]
    file: Option<PathBuf>,
    /// Print every key of the file instead: what it takes, its default, what it is for
    #[arg(long, conflicts_with = "file")]
    keys: bool,
    /// Print what changes when NEW takes the place of OLD instead; relative paths of both count from the folder of NEW
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["file", "keys"])]
    diff: Option<Vec<PathBuf>>,
    #[command(flatten)]
    explain: ExplainArgs,
}

pub(super) fn check(args: &CheckArgs) -> ExitCode {
    match (&args.file, args.diff.as_deref()) {
        (_, Some([old, new])) => diff(old, new),
        (Some(file), _) if args.explain.explain.is_some() => explain::explain(&args.explain, file),
        (Some(file), _) => check_one(file),
        _ => {
            say(&config::keys());
            ExitCode::SUCCESS
        }
    }
}

/// Files that OLD names may be gone, or have been replaced; that is no mistake any more.
struct Former;

impl Surroundings for Former {
    fn variable(&self, name: &str) -> Option<String> {
        Process.variable(name)
    }

    /// What is not there any more stands for something that nothing else is.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match Process.read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(format!("gone: {}", path.display()).into_bytes())
            }
            read => read,
        }
    }

    fn can_read(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn host_name(&self) -> Option<String> {
        Process.host_name()
    }

    fn has_files(&self) -> bool {
        false
    }
}

fn diff(old: &Path, new: &Path) -> ExitCode {
    match (config::load_as(old, new, &Former), config::load(new, &Process)) {
        (Ok(old), Ok(new)) => {
            let difference = old.difference(&new);
            if difference.is_empty() {
                return ExitCode::SUCCESS;
            }
            let keys = old.needs_restart(&new);
            let restart = if keys.is_empty() { String::new() } else { format!("{}\n", config::restart(&keys)) };
            say(&format!("{difference}\n{restart}"));
            ExitCode::from(FAILED)
        }
        (old, new) => {
            for report in [old.err(), new.err()].into_iter().flatten() {
                log::say(&format!("{report}\n"));
            }
            ExitCode::from(MISUSED)
        }
    }
}

fn check_one(file: &Path) -> ExitCode {
    match config::load(file, &Process) {
        Ok(checked) => {
            let certificates = config::inspect(&checked, SystemTime::now());
            let problems = certificates.iter().map(|inspected| inspected.problems.len()).sum::<usize>();
            let verdict = match problems {
                0 => "ok".to_owned(),
                1 => "1 problem".to_owned(),
                problems => format!("{problems} problems"),
            };
            let shown = certificates.iter().map(certificate).collect::<String>();
            say(&format!("{}: {verdict}\n{}{shown}", file.display(), summary(&checked)));
            if problems == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Err(report) => {
            say(&format!("{report}\n"));
            ExitCode::from(FAILED)
        }
    }
}

/// One line for each thing that would run, then what deserves a second look.
pub(super) fn summary(checked: &Checked) -> String {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(checked.responder.iter().map(responder));
    lines.extend(checked.egress.iter().map(egress));
    lines.extend(checked.udp.iter().map(datagrams));
    lines.extend(checked.fleet.iter().map(fleet));
    lines.extend(checked.initiator.iter().flat_map(initiator));
    lines.extend(checked.services.iter().map(service));
    lines.extend(checked.admin.iter().map(|address| format!("admin      {address}")));
    lines.extend(checked.warnings().into_iter().map(|warning| format!("warning    {warning}")));
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

/// Who it is, until when, and what is wrong with it.
fn certificate(inspected: &Inspected) -> String {
    let Inspected { key, summary, names, valid_until, problems, warnings, .. } = inspected;
    let until = Utc(OffsetDateTime::from(*valid_until));
    let mut text = format!("  {key}: {}, valid until {until}\n", summary.subject);
    let others = names.iter().filter(|name| **name != summary.subject);
    text.extend(others.map(|name| format!("    name     {name}\n")));
    text.extend(problems.iter().map(|problem| format!("    problem  {key}: {problem}\n")));
    text.extend(warnings.iter().map(|warning| format!("    warning  {key}: {warning}\n")));
    text
}

fn responder(responder: &ResponderConfig) -> String {
    let admission = &responder.admission;
    let proof = match (&admission.identity, admission.nodes.len()) {
        (Some(identity), _) => format!("nodes that prove {identity}"),
        (None, 0) => "anybody".to_owned(),
        (None, nodes) => format!("{nodes} listed nodes"),
    };
    let listeners = [("QUIC", responder.quic), ("TCP", responder.tcp)];
    let listeners = listeners.into_iter().filter_map(|(transport, at)| Some(format!("{transport} on {}", at?)));
    let listeners = listeners.collect::<Vec<_>>().join(" and ");
    format!("responder  {}: tunnels over {listeners} from {proof}", responder.name)
}

fn fleet(fleet: &FleetConfig) -> String {
    let etcd = fleet.etcd.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let hop = match &fleet.hop {
        Some(hop) => format!("asks siblings, and is asked on {} (UDP)", hop.listen),
        None => "asks no siblings (hop)".to_owned(),
    };
    format!("fleet      {}, in {} of etcd at {etcd}; {hop}", fleet.id, fleet.prefix.as_str())
}

fn egress(egress: &EgressConfig) -> String {
    match egress {
        EgressConfig::Http(http) => http_egress(http),
        EgressConfig::Tcp(tcp) => tcp_egress(tcp),
    }
}

/// Whom everything, or what has no route of its own, is for.
fn goal(router: &RouterSettings) -> String {
    let host_id = router.host_id.as_ref().map_or_else(|| "of its route".to_owned(), ToString::to_string);
    let always = if host_id.contains('%') { "" } else { "always " };
    format!("host id {always}{host_id}, tenant {}", router.tenant)
}

fn tcp_egress(egress: &TcpEgress) -> String {
    let router = &egress.router;
    let mut services: Vec<String> = router
        .routes
        .iter()
        .filter_map(|route| Some(format!("{} to {}", route.matches.host.as_ref()?, route.service.as_ref()?)))
        .collect();
    let service = router.service.as_ref().map(ToString::to_string);
    let service = service.or_else(|| router.service_template.as_ref().map(ToString::to_string));
    services.extend(service.map(|service| match router.routes.is_empty() {
        true => format!("everything to {service}"),
        false => format!("what names no other to {service}"),
    }));
    format!("egress     {} (bytes): {}; {}", egress.tcp, goal(router), services.join(", "))
}

fn http_egress(egress: &HttpEgress) -> String {
    let security = match (&egress.tls, egress.http3.enabled) {
        (Some(_), true) => "TLS; HTTP/3 on the UDP port, too",
        (Some(_), false) => "TLS",
        (None, _) => "clear text",
    };
    let connect = match &egress.router.connect {
        Connect::Off => String::new(),
        Connect::All => ", CONNECT to every service of bytes".to_owned(),
        Connect::Services(names) => {
            format!(", CONNECT to {}", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
    };
    let connect_udp = match &egress.router.connect_udp {
        Connect::Off => String::new(),
        Connect::All => ", CONNECT-UDP to every service of datagrams".to_owned(),
        Connect::Services(names) => {
            format!(", CONNECT-UDP to {}", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
    };
    format!("egress     {} ({security}): {}{connect}{connect_udp}", egress.http, goal(&egress.router))
}

fn datagrams(listener: &UdpEgressConfig) -> String {
    let UdpGoal { whom, service, tenant } = &listener.to;
    let whom = match whom {
        Whom::Node(node) => format!("node {node}"),
        Whom::Cluster(cluster) => format!("cluster {cluster}"),
    };
    format!("egress     {} (UDP): to the service {service} of {whom}, tenant {tenant}", listener.udp)
}

fn initiator(initiator: &InitiatorConfig) -> Vec<String> {
    let claim = &initiator.claim;
    let tunnel = |tunnel: &config::TunnelConfig| {
        let plural = if tunnel.count == 1 { "" } else { "s" };
        format!("initiator  {claim}: {} tunnel{plural} to each address of {}", tunnel.count, tunnel.to)
    };
    initiator.tunnels.iter().map(tunnel).collect()
}

fn service(service: &ServiceConfig) -> String {
    let requests = match &service.matches {
        None if service.target.is_udp() => "flows of datagrams".to_owned(),
        None if service.target.is_raw() => "CONNECT that names it".to_owned(),
        None => "requests that name it".to_owned(),
        Some(matches) => {
            let host = matches.host.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
            format!("{host}{}", matches.prefix)
        }
    };
    format!("service    {}: {requests} to {}", service.name, service.target)
}
