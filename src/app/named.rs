//! Series that bear names: those of nodes and tenants only where the file asks for them, because each name is a series of its
//! own and is told to whoever scrapes. An initiator's services are few, and its own.
//!
//! They are written from a report of what is there, so a node that is gone leaves none behind.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::admin::{AcceptedTunnel, TunnelsReport};
use crate::initiator::serve::ServiceStatus;

/// One metric of each tunnel.
struct Series {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&AcceptedTunnel) -> f64,
}

const OF_TUNNELS: [Series; 6] = [
    Series {
        name: "adit_tunnel_rtt_seconds",
        kind: "gauge",
        help: "Smoothed round trip.",
        value: |tunnel| tunnel.rtt_ms / 1e3,
    },
    Series {
        name: "adit_tunnel_lost_packets_total",
        kind: "counter",
        help: "Packets lost on the way to the site; 0 where the transport does not know.",
        value: |tunnel| tunnel.lost_packets as f64,
    },
    Series {
        name: "adit_tunnel_exchanges_total",
        kind: "counter",
        help: "Requests sent into this tunnel.",
        value: |tunnel| tunnel.exchanges as f64,
    },
    Series {
        name: "adit_tunnel_exchanges_in_flight",
        kind: "gauge",
        help: "Requests under way in this tunnel.",
        value: |tunnel| f64::from(tunnel.in_flight),
    },
    Series {
        name: "adit_tunnel_suspect",
        kind: "gauge",
        help: "1 while the tunnel owes a sign of life.",
        value: |tunnel| f64::from(u8::from(tunnel.health == "suspect")),
    },
    Series {
        name: "adit_tunnel_services_down",
        kind: "gauge",
        help: "Services that are down, as the site says in this tunnel.",
        value: |tunnel| tunnel.down.len() as f64,
    },
];

/// The series as Prometheus reads them. `past` are the requests of each tenant in tunnels that have ended.
pub(super) fn render(report: &TunnelsReport, past: &BTreeMap<String, u64>) -> String {
    let mut text = String::new();
    for Series { name, kind, help, value } in &OF_TUNNELS {
        heading(&mut text, name, kind, help);
        for tunnel in &report.accepted {
            let _ = writeln!(text, "{name}{{{}}} {}", labels(tunnel), value(tunnel));
        }
    }
    tenants(&mut text, report, past);
    text
}

fn tenants(text: &mut String, report: &TunnelsReport, past: &BTreeMap<String, u64>) {
    let mut tenants: BTreeMap<&str, (u64, u64)> = past.iter().map(|(tenant, ended)| (&**tenant, (0, *ended))).collect();
    for tunnel in &report.accepted {
        let (tunnels, exchanges) = tenants.entry(&tunnel.tenant).or_default();
        *tunnels += 1;
        *exchanges += tunnel.exchanges;
    }
    heading(text, "adit_tenant_tunnels_open", "gauge", "Tunnels of this tenant that are open now.");
    for (tenant, (tunnels, _)) in &tenants {
        let _ = writeln!(text, "adit_tenant_tunnels_open{{tenant=\"{}\"}} {tunnels}", escaped(tenant));
    }
    heading(text, "adit_tenant_exchanges_total", "counter", "Requests sent into tunnels of this tenant.");
    for (tenant, (_, exchanges)) in &tenants {
        let _ = writeln!(text, "adit_tenant_exchanges_total{{tenant=\"{}\"}} {exchanges}", escaped(tenant));
    }
}

/// The series of an initiator's services.
pub(super) fn services(services: &[ServiceStatus]) -> String {
    let mut text = String::new();
    heading(
        &mut text,
        "adit_service_refused_total",
        "counter",
        "Exchanges refused because a limit of this service was reached.",
    );
    for ServiceStatus { name, refused, .. } in services {
        let _ = writeln!(text, "adit_service_refused_total{{service=\"{}\"}} {refused}", escaped(name));
    }
    heading(&mut text, "adit_service_down", "gauge", "1 while the target of this service cannot be had.");
    for ServiceStatus { name, standing, .. } in services {
        let down = u8::from(standing.down().is_some());
        let _ = writeln!(text, "adit_service_down{{service=\"{}\"}} {down}", escaped(name));
    }
    text
}

fn heading(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn labels(tunnel: &AcceptedTunnel) -> String {
    let AcceptedTunnel { tenant, cluster, node, slot, transport, .. } = tunnel;
    format!(
        "tenant=\"{}\",cluster=\"{}\",node=\"{}\",slot=\"{slot}\",transport=\"{transport}\"",
        escaped(tenant),
        escaped(cluster),
        escaped(node)
    )
}

/// Ids are printable ASCII, but may hold what ends a label.
fn escaped(id: &str) -> String {
    id.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tunnel_and_tenant_has_its_series_and_names_are_escaped() {
        let tunnel = |tenant: &str, exchanges| AcceptedTunnel {
            tenant: tenant.into(),
            cluster: "stores".into(),
            node: "a\"b\\c".into(),
            transport: "quic".into(),
            rtt_ms: 48.5,
            lost_packets: 7,
            exchanges,
            health: "suspect".into(),
            ..AcceptedTunnel::default()
        };
        let report = TunnelsReport { accepted: vec![tunnel("acme", 3), tunnel("acme", 4)], ..TunnelsReport::default() };
        let past = BTreeMap::from([("acme".to_owned(), 10), ("gone".to_owned(), 5)]);
        let text = render(&report, &past);
        let labels = "{tenant=\"acme\",cluster=\"stores\",node=\"a\\\"b\\\\c\",slot=\"0\",transport=\"quic\"}";
        for line in [
            &format!("adit_tunnel_rtt_seconds{labels} 0.0485"),
            &format!("adit_tunnel_lost_packets_total{labels} 7"),
            &format!("adit_tunnel_suspect{labels} 1"),
            "adit_tenant_tunnels_open{tenant=\"acme\"} 2",
            "adit_tenant_tunnels_open{tenant=\"gone\"} 0",
            "adit_tenant_exchanges_total{tenant=\"acme\"} 17",
            "adit_tenant_exchanges_total{tenant=\"gone\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
