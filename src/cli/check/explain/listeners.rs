//! What the listeners of a file would do.

use std::net::SocketAddr;

use adit::config::{Checked, EgressConfig, HttpEgress, TcpEgress, UdpEgressConfig};
use adit::egress::{ConnectionDetails, Explained, ExplainedWay, Refused};
use http::uri::Scheme;
use http::{Request, Uri};

use super::asked::Asked;
use super::{ExplainArgs, Told, Way};

/// Asks each listener that would take it.
pub(super) fn explain(args: &ExplainArgs, checked: &Checked, asked: Asked) -> Result<Told, String> {
    let mut told = Told::new();
    let source = SocketAddr::new(args.source, 0);
    match asked {
        Asked::Request(request) => {
            for listener in of_requests(args, checked, request.uri())? {
                let explained = listener.explain(request.clone(), connection(args, listener, &request));
                let at = listener.http;
                tell(&mut told, at, "answer", explained.map_err(|error| format!("{at}: {error}"))?);
            }
        }
        Asked::Bytes(address) => {
            for listener in of_bytes(&address, checked)? {
                let explained = listener.explain(source, args.server_name.as_deref());
                let at = listener.tcp;
                tell(&mut told, at, "reset", explained.map_err(|error| format!("{at}: {error}"))?);
            }
        }
        Asked::Datagrams(address) => {
            for listener in of_datagrams(&address, checked)? {
                tell(&mut told, listener.udp, "dropped", Ok(listener.explain(source)));
            }
        }
    }
    Ok(told)
}

/// `word` says what is done with what goes nowhere; only a request is answered with a status.
fn tell(told: &mut Told, listener: SocketAddr, word: &'static str, explained: Result<Explained, Refused>) {
    let place = format!("egress {listener}");
    let status = |status: http::StatusCode| match word {
        "answer" => format!("{}: ", status.as_u16()),
        _ => String::new(),
    };
    match explained {
        Ok(Explained { rule, way }) => {
            let way = match way {
                Ok(way) => Way::To(to(way)),
                Err(failure) => Way::Nowhere(word, status(failure.status()) + failure.details()),
            };
            told.add(&place, rule.as_ref(), way);
        }
        Err(refused) => told.refused(&place, word, &(status(refused.status) + &refused.violation.to_string())),
    }
}

fn to(way: ExplainedWay) -> String {
    match way {
        ExplainedWay::Upstream(target) => format!("{target}, outside of any tunnel"),
        ExplainedWay::Tunnel(to) => {
            let service =
                to.service.as_ref().map_or_else(|| "as the initiator finds it".to_owned(), ToString::to_string);
            format!("host id {}, tenant {}, service {service}", to.host_id, to.tenant)
        }
    }
}

fn of_requests<'a>(args: &ExplainArgs, checked: &'a Checked, uri: &Uri) -> Result<Vec<&'a HttpEgress>, String> {
    let secure = uri.scheme() == Some(&Scheme::HTTPS);
    let any = uri.scheme().is_none();
    let is_meant = |listener: &&HttpEgress| match args.listener {
        Some(address) => listener.http == address,
        None => any || listener.tls.is_some() == secure,
    };
    let of_requests = |listener: &'a EgressConfig| match listener {
        EgressConfig::Http(http) => Some(&**http),
        EgressConfig::Tcp(_) => None,
    };
    let found: Vec<_> = checked.egress.iter().filter_map(of_requests).filter(is_meant).collect();
    let hint = if checked.initiator.is_some() { "; with --initiator the initiator of the file is asked" } else { "" };
    match (found.is_empty(), args.listener) {
        (false, _) => Ok(found),
        (true, Some(address)) => Err(format!("the file has no egress listener for requests at {address}")),
        (true, None) => {
            Err(format!("the file has no egress listener with{} TLS{hint}", if secure { "" } else { "out" }))
        }
    }
}

fn of_bytes<'a>(address: &str, checked: &'a Checked) -> Result<Vec<&'a TcpEgress>, String> {
    let of_bytes = |listener: &'a EgressConfig| match listener {
        EgressConfig::Tcp(tcp) => Some(&**tcp),
        EgressConfig::Http(_) => None,
    };
    at((address, "tcp"), checked.egress.iter().filter_map(of_bytes), |listener| listener.tcp)
}

fn of_datagrams<'a>(address: &str, checked: &'a Checked) -> Result<Vec<&'a UdpEgressConfig>, String> {
    at((address, "udp"), checked.udp.iter(), |listener| listener.udp)
}

/// Those of one kind that stand in the file with this address.
fn at<'a, T>(
    (text, kind): (&str, &str),
    listeners: impl Iterator<Item = &'a T> + Clone,
    address: impl Fn(&T) -> SocketAddr,
) -> Result<Vec<&'a T>, String> {
    let wanted: SocketAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is no address; expected that of a {kind} listener, such as 127.0.0.1:2222"))?;
    let found: Vec<_> = listeners.clone().filter(|listener| address(listener) == wanted).collect();
    if found.is_empty() {
        let known: Vec<_> = listeners.map(|listener| address(listener).to_string()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(format!("the file has no {kind} listener at {wanted}; it has {known}"));
    }
    Ok(found)
}

fn connection(args: &ExplainArgs, listener: &HttpEgress, request: &Request<()>) -> ConnectionDetails {
    let tls = listener.tls.is_some();
    ConnectionDetails {
        remote: SocketAddr::new(args.source, 0),
        local: listener.http,
        tls,
        server_name: request.uri().host().filter(|_| tls).map(str::to_owned),
        peer: args.peer(),
    }
}
