//! From [`Template`] and the attributes of one request to text.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::{Attribute, Part, RequestHeader, Template};

/// The longest text that rendering returns. More than twice the longest id, so a text that was cut here is never
/// mistaken for a name.
pub const MAX_RENDERED_BYTES: usize = 256;

/// What Envoy prints for "no value"; as a whole result it means the same here.
const ABSENT: &str = "-";

/// Why a header has no one value that every reader would agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// It is there more than once.
    #[error("is there more than once")]
    Repeated,
    /// It has bytes that are no visible ASCII, space or tab.
    #[error("is not text")]
    NotText,
}

/// Why a template has no value for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoValue<'a> {
    /// An operator has no value or an empty one, or all there is is `-`.
    #[error("is absent")]
    Absent,
    /// The header of this name says nothing that could be used. It is never passed over for another one.
    #[error("header {0} {1}")]
    Unclear(&'a str, Unclear),
}

/// What a request has, as its listener sees it.
pub trait Attributes {
    /// The value of a header, by lower-case name; `:method`, `:scheme`, `:authority` and `:path` name the parts of the
    /// request line. `None` when the header is absent.
    ///
    /// # Errors
    /// [`Unclear`]: it is there more than once, or it is not text.
    fn request_header(&self, name: &str) -> Result<Option<&str>, Unclear>;
    /// Where the connection comes from.
    fn remote_address(&self) -> Option<SocketAddr>;
    /// The server name of the TLS handshake.
    fn server_name(&self) -> Option<&str>;
    /// The first URI name in the verified certificate of the peer.
    fn peer_uri_san(&self) -> Option<&str>;
    /// The first DNS name in the verified certificate of the peer.
    fn peer_dns_san(&self) -> Option<&str>;
}

impl Template {
    /// The text for this request, 1 to [`MAX_RENDERED_BYTES`] bytes.
    ///
    /// # Errors
    /// [`NoValue`]: an operator has no value, or a header that is asked has no clear one.
    pub fn render<'a>(&'a self, attributes: &'a dyn Attributes) -> Result<Cow<'a, str>, NoValue<'a>> {
        match self.parts.as_slice() {
            [Part::Request(header)] => whole(header.value(attributes)?).map(Cow::Borrowed).ok_or(NoValue::Absent),
            _ => self.join(attributes).map(Cow::Owned),
        }
    }

    fn join<'a>(&'a self, attributes: &dyn Attributes) -> Result<String, NoValue<'a>> {
        let mut text = String::new();
        for part in &self.parts {
            let start = text.len();
            part.append(attributes, &mut text)?;
            if text.len() == start {
                return Err(NoValue::Absent);
            }
            if text.len() > MAX_RENDERED_BYTES {
                text.truncate(text.floor_char_boundary(MAX_RENDERED_BYTES));
                break;
            }
        }
        if text == ABSENT { Err(NoValue::Absent) } else { Ok(text) }
    }
}

/// A value that is all there is: the usual template, and no copy of it.
fn whole(value: &str) -> Option<&str> {
    let text = &value[..value.floor_char_boundary(MAX_RENDERED_BYTES)];
    (!text.is_empty() && text != ABSENT).then_some(text)
}

impl Part {
    /// Appends its value, if there is one.
    fn append<'a>(&'a self, attributes: &dyn Attributes, text: &mut String) -> Result<(), NoValue<'a>> {
        match self {
            Self::Text(own) => text.push_str(own),
            Self::Request(header) => text.push_str(header.value(attributes)?),
            Self::Attribute(attribute) => attribute.append(attributes, text).ok_or(NoValue::Absent)?,
            Self::ServerNameLabel(label) => {
                let name = attributes.server_name().ok_or(NoValue::Absent)?;
                text.push_str(name.split('.').nth(usize::from(*label) - 1).ok_or(NoValue::Absent)?);
            }
        }
        Ok(())
    }
}

impl RequestHeader {
    /// The first header that is present decides, even if it is empty or unclear.
    fn value<'t, 'a>(&'t self, attributes: &'a dyn Attributes) -> Result<&'a str, NoValue<'t>> {
        let named = |name: &'t str| attributes.request_header(name).map_err(|why| NoValue::Unclear(name, why));
        let value = match (named(&self.name)?, self.otherwise.as_deref()) {
            (Some(value), _) => value,
            (None, Some(otherwise)) => named(otherwise)?.ok_or(NoValue::Absent)?,
            (None, None) => return Err(NoValue::Absent),
        };
        let max_bytes = self.max_bytes.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        // One byte more than is ever returned, so that the caller sees that something was cut.
        Ok(&value[..value.floor_char_boundary(max_bytes.min(MAX_RENDERED_BYTES + 1))])
    }
}

impl Attribute {
    fn append(self, attributes: &dyn Attributes, text: &mut String) -> Option<()> {
        match self {
            Self::RemoteAddress => text.push_str(&attributes.remote_address()?.to_string()),
            Self::RemoteAddressWithoutPort => text.push_str(&attributes.remote_address()?.ip().to_string()),
            Self::RequestedServerName => text.push_str(attributes.server_name()?),
            Self::PeerUriSan => text.push_str(attributes.peer_uri_san()?),
            Self::PeerDnsSan => text.push_str(attributes.peer_dns_san()?),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for a value that is no text.
    const UNTEXT: &str = "\u{7f}";

    #[derive(Default)]
    struct Request {
        headers: Vec<(&'static str, String)>,
        remote: Option<SocketAddr>,
        server_name: Option<&'static str>,
        uri_san: Option<&'static str>,
        dns_san: Option<&'static str>,
    }

    impl Attributes for Request {
        fn request_header(&self, name: &str) -> Result<Option<&str>, Unclear> {
            let mut values = self.headers.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.as_str());
            match (values.next(), values.next()) {
                (Some(UNTEXT), _) => Err(Unclear::NotText),
                (value, None) => Ok(value),
                (_, Some(_)) => Err(Unclear::Repeated),
            }
        }
        fn remote_address(&self) -> Option<SocketAddr> {
            self.remote
        }
        fn server_name(&self) -> Option<&str> {
            self.server_name
        }
        fn peer_uri_san(&self) -> Option<&str> {
            self.uri_san
        }
        fn peer_dns_san(&self) -> Option<&str> {
            self.dns_san
        }
    }

    fn headers(headers: &[(&'static str, &str)]) -> Request {
        Request {
            headers: headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            ..<_>::default()
        }
    }

    fn render(template: &str, request: &Request) -> Option<String> {
        Template::parse(template).unwrap().render(request).ok().map(Cow::into_owned)
    }

    #[test]
    fn the_first_present_header_wins() {
        let both = headers(&[("x-node-id", "edge-17"), ("x-cluster-id", "stores")]);
        let second = headers(&[("x-cluster-id", "stores")]);
        assert_eq!(render("%REQ(X-Node-ID?x-cluster-id)%", &both).as_deref(), Some("edge-17"));
        assert_eq!(render("%REQ(x-node-id?x-cluster-id)%", &second).as_deref(), Some("stores"));
        assert_eq!(render("%REQ(x-node-id?x-cluster-id)%", &headers(&[])), None);
        assert_eq!(render("%REQ(x-node-id)%", &second), None);
    }

    #[test]
    fn a_label_of_the_server_name_is_there_or_the_template_has_no_value() {
        let named = |server_name| Request { server_name, ..Request::default() };
        let name = named(Some("db.edge-17.example.org"));
        assert_eq!(render("%REQUESTED_SERVER_NAME(1)%", &name).as_deref(), Some("db"));
        assert_eq!(render("x-%REQUESTED_SERVER_NAME(2)%", &name).as_deref(), Some("x-edge-17"));
        assert_eq!(render("%REQUESTED_SERVER_NAME(4)%", &name).as_deref(), Some("org"));
        assert_eq!(render("%REQUESTED_SERVER_NAME(5)%", &name), None);
        assert_eq!(render("%REQUESTED_SERVER_NAME(2)%", &named(Some("a..b"))), None, "an empty one names nobody");
        assert_eq!(render("%REQUESTED_SERVER_NAME(1)%", &named(None)), None);
    }

    #[test]
    fn an_empty_header_does_not_fall_through_to_the_other() {
        let request = headers(&[("x-node-id", ""), ("x-cluster-id", "stores")]);
        assert_eq!(render("%REQ(x-node-id?x-cluster-id)%", &request), None);
    }

    #[test]
    fn a_header_that_is_unclear_is_never_passed_over() {
        let unclear = |template: &str, headers: &Request| match Template::parse(template).unwrap().render(headers) {
            Err(NoValue::Unclear(name, why)) => Some((name.to_owned(), why)),
            _ => None,
        };
        let name = || "x-node-id".to_owned();
        let twice = headers(&[("x-node-id", "a"), ("x-node-id", "a"), ("x-cluster-id", "c")]);
        let odd = headers(&[("x-node-id", UNTEXT), ("x-cluster-id", "c")]);
        for template in ["%REQ(x-node-id?x-cluster-id)%", "%REQ(other?x-node-id)%", "n-%REQ(x-node-id)%"] {
            assert_eq!(unclear(template, &twice), Some((name(), Unclear::Repeated)), "{template}");
            assert_eq!(unclear(template, &odd), Some((name(), Unclear::NotText)), "{template}");
        }
        // What does not decide may say what it likes.
        assert_eq!(render("%REQ(x-cluster-id?x-node-id)%", &twice).as_deref(), Some("c"));
    }

    #[test]
    fn a_length_cuts_bytes_and_never_inside_a_character() {
        let request = headers(&[("a", "abcdef"), ("b", "aéé")]);
        assert_eq!(render("%REQ(a):3%", &request).as_deref(), Some("abc"));
        assert_eq!(render("%REQ(a):6%", &request).as_deref(), Some("abcdef"));
        assert_eq!(render("%REQ(a):4294967295%", &request).as_deref(), Some("abcdef"));
        assert_eq!(render("%REQ(none?a):2%", &request).as_deref(), Some("ab"));
        assert_eq!(render("%REQ(b):2%", &request).as_deref(), Some("a"));
    }

    #[test]
    fn one_missing_value_leaves_the_whole_template_without_one() {
        let request = headers(&[("a", "x"), ("empty", "")]);
        assert_eq!(render("%REQ(a)%-%REQ(b)%", &request), None);
        assert_eq!(render("%REQ(a)%-%REQ(empty)%", &request), None);
        assert_eq!(render("n-%REQ(a)%.%REQ(a)%", &request).as_deref(), Some("n-x.x"));
    }

    #[test]
    fn a_lone_dash_is_no_value() {
        assert_eq!(render("%REQ(a)%", &headers(&[("a", "-")])), None);
        assert_eq!(render("-", &headers(&[])), None);
        assert_eq!(render("--", &headers(&[])).as_deref(), Some("--"));
    }

    #[test]
    fn connection_attributes_render() {
        let request = Request {
            remote: Some("[2001:db8::1]:443".parse().unwrap()),
            server_name: Some("edge-17.example.org"),
            uri_san: Some("spiffe://example.org/app"),
            dns_san: Some("app.example.org"),
            ..Request::default()
        };
        assert_eq!(render("%DOWNSTREAM_REMOTE_ADDRESS%", &request).as_deref(), Some("[2001:db8::1]:443"));
        assert_eq!(render("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", &request).as_deref(), Some("2001:db8::1"));
        assert_eq!(render("%REQUESTED_SERVER_NAME%", &request).as_deref(), Some("edge-17.example.org"));
        assert_eq!(render("%DOWNSTREAM_PEER_URI_SAN%", &request).as_deref(), Some("spiffe://example.org/app"));
        assert_eq!(render("%DOWNSTREAM_PEER_DNS_SAN%", &request).as_deref(), Some("app.example.org"));
        assert_eq!(render("100%%", &request).as_deref(), Some("100%"));
        for attribute in Attribute::ALL {
            assert_eq!(render(&format!("%{}%", attribute.operator()), &Request::default()), None);
        }
    }

    #[test]
    fn output_is_bounded_and_a_cut_one_is_too_long_for_any_id() {
        let long = "é".repeat(100_000);
        let request = headers(&[("a", &long), ("b", &"b".repeat(200))]);
        for (template, bytes) in [("%REQ(a)%", 256), ("x%REQ(a)%", 255), ("%REQ(b)%%REQ(b)%", 256), ("%REQ(b)%", 200)] {
            assert_eq!(render(template, &request).unwrap().len(), bytes, "{template}");
        }
        assert_eq!(render(&"t".repeat(300), &request).unwrap().len(), 256);
    }
}
