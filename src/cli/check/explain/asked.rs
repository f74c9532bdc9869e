//! What the command line asks about.

use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::ExplainArgs;

/// What is to be explained.
pub(super) enum Asked {
    Request(Request<()>),
    /// A connection of bytes: to which listener, or service.
    Bytes(String),
    /// A flow of datagrams.
    Datagrams(String),
}

impl Asked {
    /// # Errors
    /// What is wrong with the command line.
    pub(super) fn read(args: &ExplainArgs) -> Result<Self, String> {
        let [what, to] = args.explain.as_deref().unwrap_or_default() else {
            return Err("--explain takes a method and a URL, or tcp or udp and an address".to_owned());
        };
        match what.as_str() {
            "tcp" => without_request(args, "connection").map(|()| Self::Bytes(to.clone())),
            "udp" => without_request(args, "datagram").map(|()| Self::Datagrams(to.clone())),
            method => request(args, (method, to)).map(Self::Request),
        }
    }
}

/// What says something of requests is a mistake where there is none.
fn without_request(args: &ExplainArgs, what: &str) -> Result<(), String> {
    let wrong = [
        (!args.headers.is_empty(), "-H", "fields"),
        (args.service.is_some(), "--service", "other service than the one behind tcp or udp"),
        (args.listener.is_some(), "--listener", "other listener than the one behind tcp or udp"),
        (!args.client_san.is_empty() && !args.initiator, "--client-san", "certificate that a listener sees"),
        (args.server_name.is_some() && (args.initiator || what == "datagram"), "--server-name", "name of TLS there"),
    ];
    match wrong.into_iter().find(|(is_wrong, ..)| *is_wrong) {
        Some((_, flag, missing)) => Err(format!("{flag} is out of place: a {what} has no {missing}")),
        None => Ok(()),
    }
}

fn request(args: &ExplainArgs, (method, url): (&str, &str)) -> Result<Request<()>, String> {
    let method = self::method(method)?;
    if args.server_name.is_some() {
        return Err(
            "--server-name is out of place: the name that a request asks for in TLS is the host of its URL".to_owned()
        );
    }
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    if uri.authority().is_none() || (method != Method::CONNECT && uri.scheme().is_none()) {
        return Err(format!("{url:?} names no host; expected http://host/path, or host:port with CONNECT"));
    }
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    for field in &args.headers {
        let (name, value) = header(field).ok_or_else(|| format!("{field:?} is no field; expected \"name: value\""))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

/// Methods are compared with their case, and one in small letters is another one, which nobody means. RFC 9110 section 9.1
fn method(text: &str) -> Result<Method, String> {
    let capitals = text.to_ascii_uppercase();
    if ["TCP", "UDP"].contains(&capitals.as_str()) {
        return Err(format!("{text:?} is no method; expected {}", capitals.to_ascii_lowercase()));
    }
    if text != capitals {
        return Err(format!("{text:?} is no method: methods are case sensitive; expected {capitals}"));
    }
    text.parse().map_err(|_| format!("{text:?} is no method; expected one such as GET"))
}

fn header(field: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = field.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}
