//! Identity templates: which certificate name proves a claim.

use std::fmt;
use std::str::FromStr;

use crate::id::Claim;

const DNS_PREFIX: &str = "dns:";
const URI_MARK: &str = "://";
/// The bytes that no id holds: one of them between two placeholders keeps their values apart.
const ID_SEPARATORS: &[u8] = b":@/%?#";

/// A certificate name with `{tenant}`, `{cluster}` and `{node}` in it, such as
/// `spiffe://example.org/tenant/{tenant}/cluster/{cluster}/node/{node}` or `dns:{node}.{cluster}.example.org`.
///
/// Text with `://` describes a URI name; other text, and text after `dns:`, a DNS name. No two claims that differ in a
/// placeholder render to the same name: between two placeholders of a URI stands a byte that no id holds; between two
/// of a DNS name stands a dot, and an id with a dot does not render there. Otherwise `{node}.{cluster}` would let the
/// certificate of node `a.b` in `c` pass for node `a` in `b.c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityTemplate {
    kind: Kind,
    parts: Vec<Part>,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum San {
    /// A URI subject alternative name.
    Uri(String),
    /// A DNS subject alternative name.
    Dns(String),
}

/// Why a text is not an identity template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityTemplateError {
    /// No text.
    #[error(
        "the identity template is empty; expected for example spiffe://example.org/{{tenant}}/{{cluster}}/{{node}}"
    )]
    Empty,
    /// A brace that is not part of a placeholder.
    #[error("at byte {at}: expected {{tenant}}, {{cluster}} or {{node}}")]
    Placeholder {
        /// Where the brace stands, counted from 0.
        at: usize,
    },
    /// `{node}` is missing, so one certificate would prove every node.
    #[error("{{node}} is missing: one certificate would prove every node")]
    NoNode,
    /// A byte that a name of this kind cannot have.
    #[error("{text:?} cannot stand in a {kind}")]
    Text {
        /// The text.
        text: String,
        /// What kind of name.
        kind: &'static str,
    },
    /// Two placeholders whose values could run into each other.
    #[error("{{{before}}} and {{{after}}} need {separator} between them: else two claims would have the same name")]
    Ambiguous {
        /// The first placeholder.
        before: &'static str,
        /// The second.
        after: &'static str,
        /// What would keep them apart.
        separator: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uri,
    Dns,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Tenant,
    Cluster,
    Node,
}

impl IdentityTemplate {
    /// Reads and checks a template.
    pub fn parse(text: &str) -> Result<Self, IdentityTemplateError> {
        let (kind, offset) = match text.strip_prefix(DNS_PREFIX) {
            Some(_) => (Kind::Dns, DNS_PREFIX.len()),
            None if text.contains(URI_MARK) => (Kind::Uri, 0),
            None => (Kind::Dns, 0),
        };
        let template = Self { kind, parts: parse_parts(text, offset)? };
        template.check()?;
        Ok(template)
    }

    /// The name that proves this claim; `None` when an id does not fit a DNS label, so that no name can prove it.
    pub fn render(&self, claim: &Claim) -> Option<San> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Field(field) => name.push_str(self.kind.accept(field.value(claim))?),
            }
        }
        Some(match self.kind {
            Kind::Uri => San::Uri(name),
            Kind::Dns => San::Dns(name),
        })
    }

    /// Whether the name tells the value of this field.
    pub(super) fn names(&self, field: Field) -> bool {
        self.parts.contains(&Part::Field(field))
    }

    fn check(&self) -> Result<(), IdentityTemplateError> {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            Part::Field(_) => None,
        });
        for text in texts {
            if !self.kind.accepts_text(text) {
                return Err(IdentityTemplateError::Text { text: text.clone(), kind: self.kind.name() });
            }
        }
        if self.parts.is_empty() {
            return Err(IdentityTemplateError::Empty);
        }
        if !self.names(Field::Node) {
            return Err(IdentityTemplateError::NoNode);
        }
        self.check_separators()
    }

    /// The proof that rendering is injective needs each pair of neighbouring fields kept apart.
    fn check_separators(&self) -> Result<(), IdentityTemplateError> {
        let mut before = None;
        let mut apart = true;
        for part in &self.parts {
            match part {
                Part::Text(text) => apart |= self.kind.separates(text),
                Part::Field(after) => {
                    if let Some(before) = before.replace(*after).filter(|_| !apart) {
                        let separator = self.kind.separator();
                        return Err(IdentityTemplateError::Ambiguous {
                            before: before.name(),
                            after: after.name(),
                            separator,
                        });
                    }
                    apart = false;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for IdentityTemplate {
    type Err = IdentityTemplateError;
    fn from_str(text: &str) -> Result<Self, IdentityTemplateError> {
        Self::parse(text)
    }
}

impl fmt::Display for IdentityTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Dns {
            f.write_str(DNS_PREFIX)?;
        }
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Field(field) => write!(f, "{{{}}}", field.name()),
        })
    }
}

impl San {
    /// The name itself.
    pub fn name(&self) -> &str {
        match self {
            Self::Uri(name) | Self::Dns(name) => name,
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(name) => write!(f, "URI SAN {name:?}"),
            Self::Dns(name) => write!(f, "DNS SAN {name:?}"),
        }
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Uri => "URI",
            Self::Dns => "DNS name (a URI has \"://\")",
        }
    }

    /// The value, if a name of this kind can hold it unambiguously. Ids fit any URI; in a DNS name an id is one label.
    fn accept(self, value: &str) -> Option<&str> {
        match self {
            Self::Uri => Some(value),
            Self::Dns => value.bytes().all(is_label_byte).then_some(value),
        }
    }

    fn accepts_text(self, text: &str) -> bool {
        match self {
            Self::Uri => text.bytes().all(|byte| byte.is_ascii_graphic()),
            Self::Dns => text.bytes().all(|byte| byte == b'.' || is_label_byte(byte)),
        }
    }

    fn separates(self, text: &str) -> bool {
        match self {
            Self::Uri => text.bytes().any(|byte| ID_SEPARATORS.contains(&byte)),
            Self::Dns => text.contains('.'),
        }
    }

    const fn separator(self) -> &'static str {
        match self {
            Self::Uri => "one of : @ / % ? #",
            Self::Dns => "a dot",
        }
    }
}

impl Field {
    const ALL: [Self; 3] = [Self::Tenant, Self::Cluster, Self::Node];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Cluster => "cluster",
            Self::Node => "node",
        }
    }

    fn value(self, claim: &Claim) -> &str {
        match self {
            Self::Tenant => claim.tenant.as_str(),
            Self::Cluster => claim.cluster.as_str(),
            Self::Node => claim.node.as_str(),
        }
    }
}

/// No `*`: a wildcard name of a web server must not pass for a node called `*`.
fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn parse_parts(text: &str, offset: usize) -> Result<Vec<Part>, IdentityTemplateError> {
    let mut parts = Vec::new();
    let mut at = offset;
    while let Some(brace) = text[at..].find(['{', '}']).map(|found| at + found) {
        if brace > at {
            parts.push(Part::Text(text[at..brace].to_owned()));
        }
        let field = Field::ALL.into_iter().find(|field| {
            let name = text[brace..].strip_prefix('{').and_then(|rest| rest.strip_prefix(field.name()));
            name.is_some_and(|rest| rest.starts_with('}'))
        });
        let field = field.ok_or(IdentityTemplateError::Placeholder { at: brace })?;
        parts.push(Part::Field(field));
        at = brace + field.name().len() + "{}".len();
    }
    if at < text.len() {
        parts.push(Part::Text(text[at..].to_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{ClusterId, NodeId, TenantId};

    const SPIFFE: &str = "spiffe://example.org/tenant/{tenant}/cluster/{cluster}/node/{node}";

    fn claim(node: &str, cluster: &str, tenant: &str) -> Claim {
        Claim {
            node: NodeId::new(node).unwrap(),
            cluster: ClusterId::new(cluster).unwrap(),
            tenant: TenantId::new(tenant).unwrap(),
        }
    }

    fn render(template: &str, claim: &Claim) -> Option<San> {
        IdentityTemplate::parse(template).unwrap().render(claim)
    }

    #[test]
    fn a_claim_renders_to_one_name() {
        let claim = claim("edge-17", "stores", "acme");
        let uri = San::Uri("spiffe://example.org/tenant/acme/cluster/stores/node/edge-17".into());
        assert_eq!(render(SPIFFE, &claim), Some(uri));
        let dns = San::Dns("edge-17.stores.acme.example.org".into());
        assert_eq!(render("dns:{node}.{cluster}.{tenant}.example.org", &claim), Some(dns.clone()));
        assert_eq!(render("{node}.{cluster}.{tenant}.example.org", &claim), Some(dns));
    }

    #[test]
    fn printing_and_parsing_are_inverse() {
        for text in [SPIFFE, "dns:{node}.{cluster}.example.org", "dns:{node}"] {
            assert_eq!(IdentityTemplate::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_mistake_is_named() {
        use IdentityTemplateError as E;
        let ambiguous = |before, after, separator| E::Ambiguous { before, after, separator };
        let uri = "one of : @ / % ? #";
        for (text, expected) in [
            ("", E::Empty),
            ("dns:", E::Empty),
            ("spiffe://x/{nod}", E::Placeholder { at: 11 }),
            ("spiffe://x/{node", E::Placeholder { at: 11 }),
            ("spiffe://x/node}", E::Placeholder { at: 15 }),
            ("dns:{cluster}.x", E::NoNode),
            ("spiffe://x/{tenant}/all", E::NoNode),
            ("spiffe://x/{node}/ y", E::Text { text: "/ y".into(), kind: "URI" }),
            ("dns:*.{node}", E::Text { text: "*.".into(), kind: "DNS name (a URI has \"://\")" }),
            ("spiffe:/x/{node}", E::Text { text: "spiffe:/x/".into(), kind: "DNS name (a URI has \"://\")" }),
            ("spiffe://x/{cluster}{node}", ambiguous("cluster", "node", uri)),
            ("spiffe://x/{cluster}.{node}", ambiguous("cluster", "node", uri)),
            ("dns:{node}-{cluster}.example.org", ambiguous("node", "cluster", "a dot")),
        ] {
            assert_eq!(IdentityTemplate::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn ids_that_are_not_one_dns_label_have_no_dns_name() {
        for node in ["a.b", "*", "a!b"] {
            assert_eq!(render("dns:{node}.example.org", &claim(node, "c", "t")), None, "{node}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn different_claims_never_render_to_the_same_name(
            a in ["[ab.-]{1,3}", "[ab.-]{1,3}", "[ab.-]{1,3}"],
            b in ["[ab.-]{1,3}", "[ab.-]{1,3}", "[ab.-]{1,3}"],
            template in prop::sample::select(vec![SPIFFE, "x://{node}-:{cluster}/-{tenant}",
                "dns:{node}.{cluster}.{tenant}", "dns:a{node}-.b{cluster}.a-{tenant}-"]),
        ) {
            let template = IdentityTemplate::parse(template).unwrap();
            let claim_a = claim(&a[0], &a[1], &a[2]);
            let claim_b = claim(&b[0], &b[1], &b[2]);
            if let (Some(name_a), Some(name_b)) = (template.render(&claim_a), template.render(&claim_b)) {
                prop_assert_eq!(name_a == name_b, claim_a == claim_b);
            }
        }
    }
}
