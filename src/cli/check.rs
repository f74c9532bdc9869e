//! `adit check`: what a file would do, or every mistake in it.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use adit::config::{
    self, AdminAddress, Checked, EgressConfig, InitiatorConfig, Inspected, ResponderConfig, ServiceConfig,
};
use adit::routing::{Connect, Tenant};
use adit::tls::Utc;
use adit::transport::TransportChoice;
use time::OffsetDateTime;

use super::{FAILED, say};

pub(super) fn check(file: &Path) -> ExitCode {
    match config::load(file, &config::Process) {
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
    lines.extend(checked.initiator.iter().flat_map(initiator));
    lines.extend(checked.services.iter().map(service));
    lines.extend(checked.admin.iter().map(|address| format!("admin      {address}")));
    lines.extend(warnings(checked).into_iter().map(|warning| format!("warning    {warning}")));
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

fn egress(egress: &EgressConfig) -> String {
    let security = match (&egress.tls, egress.http3.enabled) {
        (Some(_), true) => "TLS; HTTP/3 on the UDP port, too",
        (Some(_), false) => "TLS",
        (None, _) => "clear text",
    };
    let tenant = match &egress.router.tenant {
        Tenant::Fixed(tenant) => tenant.to_string(),
        Tenant::Template(template) => template.to_string(),
    };
    let host_id = egress.router.host_id.as_ref().map_or_else(|| "of its route".to_owned(), ToString::to_string);
    let always = if host_id.contains('%') { "" } else { "always " };
    let connect = match &egress.router.connect {
        Connect::Off => String::new(),
        Connect::All => ", CONNECT to every service of bytes".to_owned(),
        Connect::Services(names) => {
            format!(", CONNECT to {}", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
    };
    format!("egress     {} ({security}): host id {always}{host_id}, tenant {tenant}{connect}", egress.http)
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
        None if service.target.is_raw() => "CONNECT that names it".to_owned(),
        None => "requests that name it".to_owned(),
        Some(matches) => {
            let host = matches.host.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
            format!("{host}{}", matches.prefix)
        }
    };
    format!("service    {}: {requests} to {}", service.name, service.target)
}

fn warnings(checked: &Checked) -> Vec<String> {
    let mut warnings = Vec::new();
    let accepts = checked.responder.iter().filter_map(|responder| responder.envoy.as_ref());
    for security in accepts.map(|envoy| envoy.security) {
        let exposed = security.exposes();
        warnings.extend(exposed.map(|exposed| format!("responder.envoy.security {}: {exposed}", security.label())));
    }
    for tunnel in checked.initiator.iter().flat_map(|initiator| &initiator.tunnels) {
        let TransportChoice::Envoy(envoy) = &tunnel.transport else { continue };
        let security = envoy.security;
        let exposed = security.exposes();
        warnings
            .extend(exposed.map(|exposed| format!("envoy.security {} to {}: {exposed}", security.label(), tunnel.to)));
    }
    warnings.extend(checked.egress.iter().flat_map(egress_warnings));
    for service in
        checked.services.iter().filter(|service| service.tls.as_ref().is_some_and(|tls| tls.insecure_accept_any))
    {
        warnings.push(format!(
            "service {}: tls.insecure_accept_any: whoever is between here and {} can read and change everything",
            service.name, service.target
        ));
    }
    if checked.responder.as_ref().is_some_and(|responder| responder.admission.insecure_accept_any) {
        warnings.push("insecure_accept_any: whoever reaches the listener can take the traffic of any node".to_owned());
    }
    if let Some(AdminAddress::Tcp(address)) = &checked.admin
        && !address.ip().is_loopback()
    {
        warnings.push(format!("admin listens on {address}: whoever reaches it can read everything and drain"));
    }
    if checked.responder.is_some() && checked.egress.is_empty() {
        warnings.push("the responder has no egress: tunnels come up, but nothing can enter them".to_owned());
    }
    warnings
}

fn egress_warnings(egress: &EgressConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let routes = egress.router.routes.iter().filter_map(|route| route.host_id.as_ref());
    for host_id in egress.router.host_id.iter().chain(routes).map(ToString::to_string) {
        if looks_like_a_field(&host_id) {
            warnings.push(format!(
                "egress {}: host_id {host_id} is one name for every request; the value of that field is %REQ({host_id})%",
                egress.http
            ));
        }
    }
    if egress.tls.is_none() && !egress.http.ip().is_loopback() {
        warnings.push(format!(
            "egress {} takes clear text from everywhere: whoever reaches it can read requests and ask any node",
            egress.http
        ));
    }
    warnings
}

/// Whether a constant is most likely the name of a field whose value was meant.
fn looks_like_a_field(constant: &str) -> bool {
    let name = constant.to_ascii_lowercase();
    !name.contains('%') && (name.starts_with("x-") || ["host", "authority", ":authority"].contains(&name.as_str()))
}
