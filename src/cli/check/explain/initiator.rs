//! What the initiator of a file would do with what comes through its tunnels.

use std::net::IpAddr;

use adit::config::{Checked, InitiatorConfig};
use adit::id::ServiceName;
use adit::initiator::serve::{ExplainedService, Services, Taken, Through};
use adit::protocol::handshake::ServiceKind;
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use super::asked::Asked;
use super::{ExplainArgs, Told, Way};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

pub(super) fn explain(args: &ExplainArgs, checked: &Checked, asked: Asked) -> Result<Told, String> {
    let initiator = checked.initiator.as_ref().ok_or("the file has no initiator")?;
    let services = services(initiator, checked)?;
    let peer = args.peer();
    let through = Through { tenant: Some(&initiator.claim.tenant), peer: peer.as_ref(), is_envoy: false };
    let (mut told, place) = (Told::new(), format!("initiator {}", initiator.claim));
    let streamed = |service: &str, kind| {
        let service: ServiceName =
            service.parse().map_err(|error| format!("{service:?} is no name of a service: it {error}"))?;
        Ok::<_, String>(services.explain_stream((&service, kind), through, Some(args.source)))
    };
    let (explained, word) = match asked {
        Asked::Request(request) if request.method() == Method::CONNECT => {
            return Err("a CONNECT comes through a tunnel as bytes or datagrams for a service; expected --explain tcp, or udp, \
                        and its name"
                .to_owned());
        }
        Asked::Request(request) => {
            match services.explain(told_by(request, args.source), args.service.as_ref(), through) {
                Ok(explained) => (explained, "answer"),
                Err(violation) => {
                    let why = format!("{}: {violation}", violation.status().as_u16());
                    told.refused(&place, "answer", &why);
                    return Ok(told);
                }
            }
        }
        Asked::Bytes(service) => (streamed(&service, ServiceKind::Tcp)?, "refused"),
        Asked::Datagrams(service) => (streamed(&service, ServiceKind::Udp)?, "refused"),
    };
    let ExplainedService { rule, way } = explained;
    let way = match way {
        Ok(Taken { service, target }) => Way::To(format!("service {service}, {target}")),
        Err(failure) if word == "answer" => {
            Way::Nowhere(word, format!("{}: {}", failure.status().as_u16(), failure.details()))
        }
        Err(failure) => Way::Nowhere(word, failure.details().to_string()),
    };
    told.add(&place, rule.as_ref(), way);
    Ok(told)
}

/// The services of the file under its rules. Their targets are not asked how they are.
fn services(initiator: &InitiatorConfig, checked: &Checked) -> Result<Services, String> {
    let list: Result<Vec<_>, _> = checked.services.iter().map(|service| service.settings()).collect();
    let services = Services::new(list.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    Ok(services.governed(initiator.rules()))
}

/// The request, in which a responder has said who connected, if none of its fields does.
fn told_by(mut request: Request<()>, source: IpAddr) -> Request<()> {
    let is_said = |fields: &HeaderMap| fields.contains_key(FORWARDED) || fields.contains_key(X_FORWARDED_FOR);
    let element = match source {
        IpAddr::V4(source) => format!("for={source}"),
        IpAddr::V6(source) => format!("for=\"[{source}]\""),
    };
    if !is_said(request.headers())
        && let Ok(value) = HeaderValue::from_str(&element)
    {
        request.headers_mut().insert(FORWARDED, value);
    }
    request
}
