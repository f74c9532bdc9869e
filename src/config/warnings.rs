//! What deserves a second look in settings that a file may say.

use std::net::{IpAddr, SocketAddr};

use crate::config::{AdminAddress, Checked, EgressConfig, FleetConfig};
use crate::message::forward::MAX_PASSES;
use crate::transport::TransportChoice;

impl Checked {
    /// What deserves a second look, though a file may say it: in words for people, each with what it is about. A process that
    /// runs by these settings says it in its log.
    pub fn warnings(&self) -> Vec<String> {
        warnings(self)
    }
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
    let open = checked.udp.iter().map(|listener| listener.udp).filter(|udp| !udp.ip().is_loopback());
    warnings.extend(
        open.map(|udp| format!("egress {udp} takes datagrams from everywhere, which prove nothing of their sender")),
    );
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
        warnings.push(format!("admin listens on {address}: whoever reaches it can read everything, reload and drain"));
    }
    warnings.extend(checked.fleet.iter().flat_map(fleet_warnings).map(str::to_owned));
    warnings.extend(twice(checked));
    warnings.extend(any_ports(checked));
    if checked.responder.is_some() && checked.egress.is_empty() && checked.udp.is_empty() {
        warnings.push("the responder has no egress: tunnels come up, but nothing can enter them".to_owned());
    }
    warnings
}

fn egress_warnings(egress: &EgressConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let (router, address) = (egress.router(), egress.address());
    let routes = router.routes.iter().filter_map(|route| route.host_id.as_ref());
    for host_id in router.host_id.iter().chain(routes).map(ToString::to_string) {
        if looks_like_a_field(&host_id) {
            warnings.push(format!(
                "egress {address}: host_id {host_id} is one name for every request; the value of that field is %REQ({host_id})%"
            ));
        }
    }
    if let EgressConfig::Http(http) = egress {
        warnings.extend(http.possible_circles().map(|(rule, target)| {
            format!(
                "egress {address}: {rule} forwards to {target}, which may be this very listener; what comes through adit more than \
                 {MAX_PASSES} times is answered 502"
            )
        }));
    }
    for (rule, _) in egress.upstream_tls().iter().filter(|(_, tls)| tls.insecure_accept_any) {
        warnings.push(format!(
            "egress {address}: rule {rule}: tls.insecure_accept_any: whoever is between here and its target can read and change \
             everything"
        ));
    }
    if egress.tls().is_none() && !address.ip().is_loopback() {
        warnings.push(match egress {
            EgressConfig::Http(_) => format!(
                "egress {address} takes clear text from everywhere: whoever reaches it can read requests and ask any node"
            ),
            EgressConfig::Tcp(_) => {
                format!("egress {address} takes connections from everywhere: whoever reaches it reaches the services behind it")
            }
        });
    }
    warnings
}

fn fleet_warnings(fleet: &FleetConfig) -> impl Iterator<Item = &'static str> {
    let is_clear = fleet.etcd.iter().any(|endpoint| !endpoint.is_secure && !is_loopback(&endpoint.at.host));
    let takes_any = fleet.tls.as_ref().is_some_and(|tls| tls.insecure_accept_any);
    let clear =
        "fleet.etcd: http:// is in clear; whoever is between here and etcd can read and change who has which node";
    let any = "fleet.tls.insecure_accept_any: whoever is between here and etcd can read and change who has which node";
    [is_clear.then_some(clear), takes_any.then_some(any)].into_iter().flatten()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Listeners for other machines on whatever port is free.
fn any_ports(checked: &Checked) -> impl Iterator<Item = String> {
    let responder = checked.responder.as_ref();
    let hop = checked.fleet.as_ref().and_then(|fleet| fleet.hop.as_ref());
    let admin = checked.admin.as_ref().and_then(|admin| match admin {
        AdminAddress::Tcp(address) => Some(*address),
        AdminAddress::Unix(_) => None,
    });
    let single = [
        ("responder.listen.quic", responder.and_then(|responder| responder.quic)),
        ("responder.listen.tcp", responder.and_then(|responder| responder.tcp)),
        ("fleet.hop.listen", hop.map(|hop| hop.listen)),
        ("admin", admin),
        ("metrics.listen", checked.metrics.listen),
    ];
    let entrances = checked.egress.iter().map(EgressConfig::address).chain(checked.udp.iter().map(|udp| udp.udp));
    let all = single.into_iter().filter_map(|(key, address)| Some((key, address?)));
    let all: Vec<_> = all.chain(entrances.map(|address| ("egress", address))).collect();
    let is_blind = |(_, address): &(_, SocketAddr)| address.port() == 0 && !address.ip().is_loopback();
    all.into_iter().filter(is_blind).map(|(key, address)| {
        format!("{key} {address}: port 0 is any free one, another after each start, which only the log tells")
    })
}

/// Of several with one match the first takes everything.
fn twice(checked: &Checked) -> Vec<String> {
    let mut warnings = Vec::new();
    let services = checked.services.iter().filter_map(|service| Some((service, service.matches.as_ref()?)));
    let services: Vec<_> = services.collect();
    for (index, (service, matches)) in services.iter().enumerate() {
        if let Some((first, _)) = services[..index].iter().find(|(_, earlier)| earlier == matches) {
            warnings.push(format!(
                "service {}: {} has the same match and stands before it, so that it takes every request that names no service",
                service.name, first.name
            ));
        }
    }
    for egress in &checked.egress {
        let routes = &egress.router().routes;
        for (index, route) in routes.iter().enumerate() {
            if let Some(first) = routes[..index].iter().position(|earlier| earlier.matches == route.matches) {
                warnings.push(format!(
                    "egress {}: routes[{index}] is never taken: routes[{first}] has the same match and stands before it",
                    egress.address()
                ));
            }
        }
    }
    warnings
}

/// Whether a constant is most likely the name of a field whose value was meant.
fn looks_like_a_field(constant: &str) -> bool {
    let name = constant.to_ascii_lowercase();
    !name.contains('%') && (name.starts_with("x-") || ["host", "authority", ":authority"].contains(&name.as_str()))
}
