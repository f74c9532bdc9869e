//! `/tunnels?node=…`: which tunnels of a report are asked for.

use crate::admin::{AcceptedTunnel, DialledTunnel, GoneNode, TunnelsReport};

const PARAMETERS: &str = "node, cluster, tenant and state";

/// What a tunnel must be to be shown; what is absent is not asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The admitted node.
    pub node: Option<String>,
    /// Its cluster.
    pub cluster: Option<String>,
    /// Its tenant.
    pub tenant: Option<String>,
    /// The health of an accepted tunnel, or the state of a dialled one; `gone` for nodes that are no longer there.
    pub state: Option<String>,
}

impl Filter {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// What is wrong with it, in words for whoever asked.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let field = match name {
                "node" => &mut filter.node,
                "cluster" => &mut filter.cluster,
                "tenant" => &mut filter.tenant,
                "state" => &mut filter.state,
                _ => return Err(format!("no parameter is called {name:?}; there are {PARAMETERS}")),
            };
            let value = decode(value).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| format!("{name} has no readable value; expected {name}=…"))?;
            if field.replace(value).is_some() {
                return Err(format!("{name} is given twice; expected once"));
            }
        }
        Ok(filter)
    }

    /// The query that says it, without `?`.
    pub fn query(&self) -> String {
        let parameters =
            [("node", &self.node), ("cluster", &self.cluster), ("tenant", &self.tenant), ("state", &self.state)];
        let said = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))));
        said.collect::<Vec<_>>().join("&")
    }

    /// Whether it asks anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Leaves what is asked for. Dialled tunnels have no node: they are those of this process.
    pub fn apply(&self, report: &mut TunnelsReport) {
        let of_a_node = self.node.is_some() || self.cluster.is_some() || self.tenant.is_some();
        report.accepted.retain(|tunnel| self.accepts(tunnel));
        report.dialled.retain(|tunnel| !of_a_node && self.dials(tunnel));
        report.gone.retain(|node| self.misses(node));
        report.services.retain(|service| !of_a_node && fits(&self.state, &service.state));
    }

    fn accepts(&self, tunnel: &AcceptedTunnel) -> bool {
        self.names(&tunnel.node, &tunnel.cluster, &tunnel.tenant) && fits(&self.state, &tunnel.health)
    }

    fn dials(&self, tunnel: &DialledTunnel) -> bool {
        fits(&self.state, &tunnel.state)
    }

    fn misses(&self, gone: &GoneNode) -> bool {
        self.names(&gone.node, &gone.cluster, &gone.tenant) && fits(&self.state, "gone")
    }

    fn names(&self, node: &str, cluster: &str, tenant: &str) -> bool {
        fits(&self.node, node) && fits(&self.cluster, cluster) && fits(&self.tenant, tenant)
    }
}

fn fits(asked: &Option<String>, value: &str) -> bool {
    asked.as_ref().is_none_or(|asked| asked == value)
}

/// Percent-encoding undone; `None` if it is broken or no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What may not stand in a query is percent-encoded.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> TunnelsReport {
        let tunnel = |node: &str, tenant: &str, health: &str| AcceptedTunnel {
            node: node.into(),
            tenant: tenant.into(),
            cluster: "stores".into(),
            health: health.into(),
            ..AcceptedTunnel::default()
        };
        TunnelsReport {
            services: Vec::new(),
            accepted: vec![
                tunnel("a", "acme", "healthy"),
                tunnel("b", "acme", "suspect"),
                tunnel("a", "other", "healthy"),
            ],
            dialled: vec![DialledTunnel { state: "backoff".into(), ..DialledTunnel::default() }],
            gone: vec![GoneNode { node: "c".into(), tenant: "acme".into(), ..GoneNode::default() }],
        }
    }

    #[test]
    fn what_is_not_asked_for_is_left_out() {
        for (query, accepted, dialled, gone) in [
            ("", 3, 1, 1),
            ("node=a", 2, 0, 0),
            ("node=a&tenant=acme", 1, 0, 0),
            ("state=suspect", 1, 0, 0),
            ("state=backoff", 0, 1, 0),
            ("state=gone", 0, 0, 1),
            ("tenant=acme", 2, 0, 1),
            ("cluster=st%6Fres", 3, 0, 0),
            ("node=nobody", 0, 0, 0),
        ] {
            let (filter, mut left) = (Filter::parse(query).unwrap(), report());
            filter.apply(&mut left);
            assert_eq!(
                (left.accepted.len(), left.dialled.len(), left.gone.len()),
                (accepted, dialled, gone),
                "{query}"
            );
            assert_eq!(Filter::parse(&filter.query()).unwrap(), filter);
        }
    }

    #[test]
    fn a_parameter_that_means_nothing_is_an_error() {
        assert!(Filter::parse("nod=a").unwrap_err().contains("there are node, cluster, tenant and state"));
        for query in ["node=a&node=b", "node=", "node", "node=%zz", "node=%f", "node=%ff"] {
            assert!(Filter::parse(query).is_err(), "{query}");
        }
    }
}
