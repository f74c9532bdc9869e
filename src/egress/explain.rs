//! What a listener would do with a request, a connection or a datagram, without any of them.

use std::net::SocketAddr;

use http::uri::Scheme;
use http::{Method, Request, StatusCode};

use crate::egress::attributes::RequestAttributes;
use crate::egress::http1;
use crate::egress::judge::{Going, Judge, Judged};
use crate::egress::tcp;
use crate::egress::terms::Terms;
use crate::egress::udp::UdpTerms;
use crate::message::failure::Failure;
use crate::message::validate;
use crate::message::violation::Violation;
use crate::net::client_hello;
use crate::policy::traffic::ExplainedRule;
use crate::proxy::{ConnectionDetails, ConnectionInfo};
use crate::routing::Destination;

/// What becomes of a request, a connection or a flow at a listener, by the code that decides it there.
#[derive(Debug)]
pub struct Explained {
    /// The rule that decides; `None`: the last one, or what was sent is at fault.
    pub rule: Option<ExplainedRule>,
    /// Where it goes, or why it goes nowhere: with which answer, if it is a request.
    pub way: Result<ExplainedWay, Failure>,
}

/// Where something goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainedWay {
    /// Into a tunnel.
    Tunnel(Destination),
    /// To this upstream, outside of any tunnel.
    Upstream(String),
}

/// What is sent breaks a rule of HTTP or of TLS, so the listener refuses it before anything is decided.
#[derive(Debug, thiserror::Error)]
#[error("the listener answers {status}: {violation}")]
pub struct Refused {
    /// With which status, if it is a request.
    pub status: StatusCode,
    /// What is wrong.
    pub violation: Violation,
}

impl From<Violation> for Refused {
    fn from(violation: Violation) -> Self {
        Self { status: violation.status(), violation }
    }
}

/// What a listener under these terms would do with a request over HTTP/1.1. Its URI is absolute, that of a CONNECT an authority;
/// `connection` is what it would come over.
///
/// # Errors
/// [`Refused`]: the request breaks a rule of HTTP.
pub fn explain(terms: &Terms, request: Request<()>, connection: ConnectionDetails) -> Result<Explained, Refused> {
    let (mut head, ()) = request.into_parts();
    let scheme = if connection.tls { Scheme::HTTPS } else { Scheme::HTTP };
    http1::check_unsent(&head, &scheme, &terms.settings)?;
    let judge = judge(terms);
    if head.method == Method::CONNECT && !judge.router.takes_connect() {
        return Err(Violation::Connect.into());
    }
    validate::unsent_request(&mut head, &scheme, terms.settings.max_head_fields)?;
    let connection = ConnectionInfo::new(connection);
    let mut explained = Explained::from(judge.judge(&RequestAttributes { head: &head, connection: &connection }));
    // Of a CONNECT no field goes any further, and there is nothing to rewrite.
    if explained.way.is_ok()
        && head.method != Method::CONNECT
        && let Err(failure) = terms.prepare(&mut head, &connection)
    {
        explained.way = Err(failure);
    }
    Ok(explained)
}

/// What a listener for bytes under these terms would do with a connection that comes to `local`, from `remote` or by the word
/// of a proxy that it trusts, and asks for this name in its TLS, if it is TLS and does.
///
/// # Errors
/// [`Refused`]: the name is none that a host can have. Where the listener does not look at it, nothing is.
pub fn explain_connection(
    terms: &Terms,
    (remote, local): (SocketAddr, SocketAddr),
    server_name: Option<&str>,
) -> Result<Explained, Refused> {
    let looks = terms.tcp.as_ref().is_some_and(|terms| terms.server_name);
    let name = server_name.filter(|_| looks).map(|name| client_hello::host(name.as_bytes()));
    let server_name = name.transpose().map_err(|_| Violation::ClientHello)?;
    let head = tcp::head(local, server_name.as_deref());
    let connection = ConnectionInfo::new(ConnectionDetails { remote, local, tls: false, server_name, peer: None });
    Ok(judge(terms).judge(&RequestAttributes { head: &head, connection: &connection }).into())
}

/// What a listener for datagrams under these terms would do with the first one of a source.
pub fn explain_flow(terms: &UdpTerms, source: SocketAddr) -> Explained {
    let judged = terms.judge(source);
    let rule = judged.decision.and_then(|decision| decision.explained());
    let to = ExplainedWay::Tunnel(judged.to);
    Explained { rule, way: judged.allowed.map(|()| to) }
}

fn judge(terms: &Terms) -> Judge {
    Judge::new(terms.router.clone(), terms.policies.clone(), (terms.trust.clone(), terms.forwarded))
}

impl From<Judged<'_>> for Explained {
    fn from(judged: Judged<'_>) -> Self {
        let rule = judged.decision.and_then(|decision| decision.explained());
        let way = judged.way.map(|going| match going {
            Going::Tunnel(to) => ExplainedWay::Tunnel(to),
            Going::Upstream(upstream) => ExplainedWay::Upstream(upstream.target().to_owned()),
        });
        Self { rule, way }
    }
}
