//! From text to [`Template`], with the place of the first mistake.

use std::str::FromStr;

use super::{Attribute, LABELS, Part, RequestHeader, Template};

/// What is accepted, for messages.
const OPERATORS: &str = "REQ(name?otherwise):length, DOWNSTREAM_REMOTE_ADDRESS, DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT, \
                         REQUESTED_SERVER_NAME, REQUESTED_SERVER_NAME(label), DOWNSTREAM_PEER_URI_SAN, DOWNSTREAM_PEER_DNS_SAN, or %% for a percent sign";
/// Envoy operators that need a filter chain to fill them; ours has none so far.
const NOT_SUPPORTED: [&str; 2] = ["DYNAMIC_METADATA", "FILTER_STATE"];
/// The parts of a request line that `%REQ()%` reaches by HTTP/2 name.
const PSEUDO_HEADERS: [&str; 4] = [":method", ":scheme", ":authority", ":path"];

/// Why a text is not a template, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {problem}")]
pub struct TemplateError {
    /// The byte where the mistake starts, counted from 0.
    pub at: usize,
    /// The mistake.
    pub problem: TemplateProblem,
}

/// A mistake in a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    /// Nothing at all, which would never name anything.
    #[error("the template is empty; expected text or %OPERATOR%")]
    Empty,
    /// A `%` that nothing closes.
    #[error("\"%\" is not closed; expected %OPERATOR%, or %% for a percent sign")]
    Unclosed,
    /// No such operator.
    #[error("unknown operator {name:?}; expected {OPERATORS}")]
    Unknown {
        /// What stands there, cut to 64 characters.
        name: String,
    },
    /// Envoy has it, adit does not.
    #[error("{name} is not supported yet; expected {OPERATORS}")]
    NotSupported {
        /// The operator.
        name: &'static str,
    },
    /// The operator has parentheses or a length, and takes neither.
    #[error("{operator} takes no argument and no length")]
    Argument {
        /// The operator.
        operator: &'static str,
    },
    /// Not the number of a label.
    #[error("{text:?} is no label; expected REQUESTED_SERVER_NAME or, from the beginning of the name, REQUESTED_SERVER_NAME({}) to ({})", LABELS.start(), LABELS.end())]
    Label {
        /// What stands there, cut to 64 characters.
        text: String,
    },
    /// `%REQ` without a header in parentheses.
    #[error("REQ needs a header in parentheses; expected %REQ(name)%, %REQ(name?otherwise)% or %REQ(name):length%")]
    Request,
    /// Not a header that a request can have.
    #[error(
        "{name:?} is not a header name; expected 1 to 128 letters, digits or !#$&'*+-.^_`|~, or one of :method :scheme \
         :authority :path"
    )]
    Header {
        /// What stands there, cut to 64 characters.
        name: String,
    },
    /// A second `?`.
    #[error("more than one alternative header; expected %REQ(name?otherwise)%")]
    Alternatives,
    /// Not a length.
    #[error("{text:?} is not a length; expected 1 to {}", u32::MAX)]
    Length {
        /// What stands there, cut to 64 characters.
        text: String,
    },
}

impl Template {
    /// Reads a template; the error names the first mistake and what would be accepted there.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError { at: 0, problem: TemplateProblem::Empty });
        }
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find('%').map(|found| at + found) {
            push_text(&mut parts, &text[at..open]);
            let inside = open + 1;
            let close = text[inside..].find('%').map(|found| inside + found);
            let close = close.ok_or(TemplateError { at: open, problem: TemplateProblem::Unclosed })?;
            match &text[inside..close] {
                "" => push_text(&mut parts, "%"),
                command => parts.push(parse_command(command).map_err(|problem| TemplateError { at: open, problem })?),
            }
            at = close + 1;
        }
        push_text(&mut parts, &text[at..]);
        Ok(Self { parts })
    }
}

impl FromStr for Template {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text)
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => before.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

/// Reads what stands between two percent signs.
fn parse_command(command: &str) -> Result<Part, TemplateProblem> {
    let name_ends = command.find(['(', ':']).unwrap_or(command.len());
    let (name, rest) = command.split_at(name_ends);
    if name == "REQ" {
        return parse_request(rest).map(Part::Request);
    }
    if let Some(attribute) = Attribute::ALL.into_iter().find(|attribute| attribute.operator() == name) {
        return match rest {
            "" => Ok(Part::Attribute(attribute)),
            label if attribute == Attribute::RequestedServerName && label.starts_with('(') => {
                parse_label(label).map(Part::ServerNameLabel)
            }
            _ => Err(TemplateProblem::Argument { operator: attribute.operator() }),
        };
    }
    Err(match NOT_SUPPORTED.into_iter().find(|operator| *operator == name) {
        Some(name) => TemplateProblem::NotSupported { name },
        None => TemplateProblem::Unknown { name: excerpt(name) },
    })
}

fn parse_request(rest: &str) -> Result<RequestHeader, TemplateProblem> {
    let inside = rest.strip_prefix('(').ok_or(TemplateProblem::Request)?;
    let (headers, length) = inside.split_once(')').ok_or(TemplateProblem::Request)?;
    let (name, otherwise) = match headers.split_once('?') {
        Some((_, otherwise)) if otherwise.contains('?') => return Err(TemplateProblem::Alternatives),
        Some((name, otherwise)) => (name, Some(otherwise)),
        None => (headers, None),
    };
    Ok(RequestHeader {
        name: parse_header(name)?,
        otherwise: otherwise.map(parse_header).transpose()?,
        max_bytes: parse_length(length)?,
    })
}

/// Reads `(2)`.
fn parse_label(text: &str) -> Result<u8, TemplateProblem> {
    let digits = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0'));
    let label = digits.and_then(|digits| digits.parse().ok()).filter(|label| LABELS.contains(label));
    label.ok_or_else(|| TemplateProblem::Label { text: excerpt(text) })
}

/// Header names are case-insensitive; the lower-case form is kept.
fn parse_header(name: &str) -> Result<String, TemplateProblem> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let lower = name.to_ascii_lowercase();
    let regular = (1..=128).contains(&name.len()) && name.bytes().all(token);
    match regular || PSEUDO_HEADERS.contains(&lower.as_str()) {
        true => Ok(lower),
        false => Err(TemplateProblem::Header { name: excerpt(name) }),
    }
}

/// Reads `:17`, or nothing. A length of 0 is refused: it would always render nothing.
fn parse_length(text: &str) -> Result<Option<u32>, TemplateProblem> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(length) if length > 0 => Ok(Some(length)),
        _ => Err(TemplateProblem::Length { text: excerpt(text) }),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> (usize, TemplateProblem) {
        let error = Template::parse(text).unwrap_err();
        (error.at, error.problem)
    }

    #[test]
    fn a_label_has_a_number_from_1_to_16() {
        for wrong in ["(0)", "(17)", "(01)", "(+1)", "()", "(1", "(1):2", "(a)"] {
            let (at, problem) = problem(&format!("%REQUESTED_SERVER_NAME{wrong}%"));
            assert_eq!((at, problem), (0, TemplateProblem::Label { text: wrong.to_owned() }));
        }
    }

    #[test]
    fn printing_and_parsing_are_inverse() {
        for text in [
            "plain",
            "100%%",
            "%REQ(x-node-id)%",
            "%REQ(x-node-id?x-cluster-id)%",
            "%REQ(x-node-id?:authority):17%",
            "a%DOWNSTREAM_REMOTE_ADDRESS%b%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%%REQUESTED_SERVER_NAME%",
            "%DOWNSTREAM_PEER_URI_SAN%%%%DOWNSTREAM_PEER_DNS_SAN%",
            "%REQUESTED_SERVER_NAME(1)%.%REQUESTED_SERVER_NAME(16)%",
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(template.to_string(), text);
            assert_eq!(Template::parse(&template.to_string()), Ok(template));
        }
    }

    #[test]
    fn header_names_ignore_case() {
        assert_eq!(Template::parse("%REQ(X-Node-ID?:AUTHORITY)%"), Template::parse("%REQ(x-node-id?:authority)%"));
    }

    #[test]
    fn operators_keep_their_case() {
        assert_eq!(problem("%req(x)%"), (0, TemplateProblem::Unknown { name: "req".into() }));
    }

    #[test]
    fn each_mistake_has_its_place_and_its_name() {
        use TemplateProblem as P;
        let header = |name: &str| P::Header { name: name.into() };
        let length = |text: &str| P::Length { text: text.into() };
        for (text, at, expected) in [
            ("", 0, P::Empty),
            ("50%", 2, P::Unclosed),
            ("a%%b%REQ(x)", 4, P::Unclosed),
            ("ab%FOO%", 2, P::Unknown { name: "FOO".into() }),
            ("%DYNAMIC_METADATA(ns:key)%", 0, P::NotSupported { name: "DYNAMIC_METADATA" }),
            ("%FILTER_STATE(key)%", 0, P::NotSupported { name: "FILTER_STATE" }),
            ("%DOWNSTREAM_PEER_URI_SAN(x)%", 0, P::Argument { operator: "DOWNSTREAM_PEER_URI_SAN" }),
            ("%REQUESTED_SERVER_NAME(x)%", 0, P::Label { text: "(x)".into() }),
            ("%REQUESTED_SERVER_NAME:3%", 0, P::Argument { operator: "REQUESTED_SERVER_NAME" }),
            ("%REQ%", 0, P::Request),
            ("%REQ:3%", 0, P::Request),
            ("%REQ(x%", 0, P::Request),
            ("%REQ()%", 0, header("")),
            ("%REQ(a?)%", 0, header("")),
            ("%REQ(a b)%", 0, header("a b")),
            ("%REQ(:status)%", 0, header(":status")),
            ("%REQ(a?b?c)%", 0, P::Alternatives),
            ("%REQ(a):%", 0, length(":")),
            ("%REQ(a):0%", 0, length(":0")),
            ("%REQ(a):-1%", 0, length(":-1")),
            ("%REQ(a)7%", 0, length("7")),
            ("%REQ(a):4294967296%", 0, length(":4294967296")),
        ] {
            assert_eq!(problem(text), (at, expected), "{text}");
        }
    }

    #[test]
    fn the_message_says_what_would_be_accepted() {
        let error = Template::parse("x%HOST%").unwrap_err();
        assert!(error.to_string().starts_with("at byte 1: unknown operator \"HOST\"; expected REQ("), "{error}");
    }
}
