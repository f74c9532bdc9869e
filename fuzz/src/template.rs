//! Templates of the routing key.

use std::net::SocketAddr;

use adit::template::{Attributes, MAX_RENDERED_BYTES, Template, Unclear};

/// Printing what was parsed parses to the same; an error points into the text.
pub fn template_parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Template::parse(text) {
        Ok(template) => assert_eq!(Template::parse(&template.to_string()), Ok(template)),
        Err(error) => {
            assert!(text.is_char_boundary(error.at) && (error.at < text.len() || text.is_empty()));
            assert!(error.to_string().len() < 1024, "a message must not grow with its input");
        }
    }
}

/// What is rendered is bounded and never empty, whatever the request says.
///
/// Values separated by line feeds: the template, headers `a` and `b`, the server name, the URI name, the DNS name, the
/// address. A value that is missing is absent from the request, one that is empty is empty.
pub fn template_eval(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut values = text.split('\n');
    let Some(Ok(template)) = values.next().map(Template::parse) else { return };
    let mut next = || values.next();
    let request = Request { a: next(), b: next(), server_name: next(), uri: next(), dns: next(), address: next() };
    if let Ok(rendered) = template.render(&request) {
        assert!((1..=MAX_RENDERED_BYTES).contains(&rendered.len()));
        assert_ne!(rendered, "-");
    }
}

struct Request<'a> {
    a: Option<&'a str>,
    b: Option<&'a str>,
    server_name: Option<&'a str>,
    uri: Option<&'a str>,
    dns: Option<&'a str>,
    address: Option<&'a str>,
}

impl Attributes for Request<'_> {
    fn request_header(&self, name: &str) -> Result<Option<&str>, Unclear> {
        match name {
            "a" => Ok(self.a),
            "b" => self.b.map(|text| if text.is_ascii() { Ok(text) } else { Err(Unclear::NotText) }).transpose(),
            _ => Ok(None),
        }
    }
    fn remote_address(&self) -> Option<SocketAddr> {
        self.address?.parse().ok()
    }
    fn server_name(&self) -> Option<&str> {
        self.server_name
    }
    fn peer_uri_san(&self) -> Option<&str> {
        self.uri
    }
    fn peer_dns_san(&self) -> Option<&str> {
        self.dns
    }
}
