//! Datagrams both ways over a flow: opened on a tunnel that takes it, passed until either end is over, recorded once.
//! spec: ST-70 to ST-77

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use http::uri::Authority;
use http::{Method, Request, StatusCode, Uri, request};

use super::attempts::{MAX_ATTEMPTS, MAX_FULL_NODES, failure, is_by_node, is_unprocessed};
use super::datagrams::{Ended, LocalError, Sink, Source, carry, failure_of};
use super::opener::Find;
use super::record::Record;
use crate::id::{ServiceName, TunnelId};
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::StreamCode;
use crate::protocol::stream::ClientAddresses;
use crate::telemetry::{Direction, ExchangeMetrics, FlowMetrics};
use crate::transport::{Flow, FlowSend, OpenError, SendError, Tunnel};

/// The method that the record of a flow bears.
const METHOD: &[u8] = b"CONNECT-UDP";

/// The head of what is recorded of a flow to a service.
pub(crate) fn head(service: &ServiceName) -> request::Parts {
    head_of(Method::from_bytes(METHOD).unwrap_or(Method::CONNECT), service)
}

/// The head of what is recorded of something that goes to a service by this method and says no more.
pub(crate) fn head_of(method: Method, service: &ServiceName) -> request::Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = method;
    if let Ok(authority) = Authority::try_from(service.as_str()) {
        head.uri = Uri::from(authority);
    }
    head
}

/// Opens a flow for a client on one of the tunnels that are found; on another where one did not take it, and at another node
/// where one cannot. Returns the tunnel, too.
///
/// # Errors
/// There is none, and why.
///
/// # Cancel safety
/// Dropping the future gives the flow up.
pub(crate) async fn open<F>(
    find: &mut F,
    (service, client): (&ServiceName, ClientAddresses),
    record: &mut Record,
) -> Result<(Flow, Tunnel), Failure>
where
    F: Find<Opener = Tunnel>,
{
    let mut avoid: Vec<TunnelId> = Vec::new();
    let (mut last, mut attempts, mut nodes) = (None, 0, 0);
    while attempts < MAX_ATTEMPTS && nodes < MAX_FULL_NODES {
        let tunnel = match find.find(&avoid).await {
            Ok(tunnel) => tunnel,
            Err(reason) => return Err(last.unwrap_or(reason)),
        };
        record.attempt(&tunnel);
        let opened = tunnel.open_flow_for(service, Some(client)).await;
        if let Err(error) = &opened {
            tunnel.note(error);
            if !matches!(error, OpenError::NotHere) {
                avoid.push(tunnel.id());
            }
        }
        match opened {
            Ok(flow) => return Ok((flow, tunnel)),
            // For this one nobody waits, over whichever of its tunnels, and it is none of the attempts at those that may.
            Err(error) if is_by_node(&error) => {
                find.hurry();
                avoid.extend(find.beside(&tunnel));
                nodes += 1;
                last = Some(failure(&error));
            }
            // Nothing of a flow has reached a target before it is open.
            // Why nobody else has it says more than that it is not there.
            Err(OpenError::NotHere) => {
                attempts += 1;
                last = None;
            }
            Err(error) if is_unprocessed(&error) || matches!(error, OpenError::Flows(_) | OpenError::TunnelLost(_)) => {
                if matches!(error, OpenError::NoRoom | OpenError::Flows(_) | OpenError::Share(_)) {
                    // One that is full is there: waiting for another is not what a hold is for.
                    find.hurry();
                }
                attempts += 1;
                last = Some(failure(&error));
            }
            Err(error) => return Err(failure(&error)),
        }
    }
    Err(last.unwrap_or_else(|| Failure::new(Cause::NoTunnel, "no tunnel takes the flow")))
}

/// Passes datagrams both ways until the flow, or this end, is over, or something else ends it, and closes the record.
///
/// # Cancel safety
/// Dropping the future ends the flow.
pub(crate) async fn pass(
    flow: Flow,
    ends: (impl Source, impl Sink),
    mut record: Record,
    flows: &FlowMetrics,
    end: impl Future<Output = Failure>,
) {
    record.responded(StatusCode::OK);
    let written = Written { bytes: record.bytes(), record, request: AtomicU64::new(0), response: AtomicU64::new(0) };
    let meter = flow.meter();
    let (ended, send) = tokio::select! {
        ended = carry(flow, ends, (flows, meter), |direction, length| written.count(direction, length)) => ended,
        failure = end => (Ended::Here(LocalError::Other(failure)), None),
    };
    written.end(ended, send);
}

/// A record, and what has passed; written into it however the flow ends.
struct Written {
    record: Record,
    bytes: ExchangeMetrics,
    request: AtomicU64,
    response: AtomicU64,
}

impl Written {
    fn count(&self, direction: Direction, length: usize) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let total = match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        };
        total.fetch_add(length, Ordering::Relaxed);
        self.bytes.body_bytes(direction, length);
    }

    fn end(mut self, ended: Ended, send: Option<FlowSend>) {
        match ended {
            Ended::Well => self.record.complete(),
            Ended::Here(LocalError::Target(error)) => {
                self.record.fail(&Failure::new(Cause::TargetRefused, format!("the target is not there: {error}")));
                // spec: ST-77
                if let Some(send) = send {
                    send.reset(StreamCode::Truncated);
                }
            }
            Ended::Here(LocalError::Other(failure)) => self.record.fail(&failure),
            // The other end wants no more, which it says by a stop where it cannot say END.
            Ended::Send(SendError::Stopped(StreamCode::NoError | StreamCode::Cancelled)) => self.record.complete(),
            Ended::Send(error) => {
                let cause = if matches!(error, SendError::Lost(_)) { Cause::TunnelLost } else { Cause::PeerReset };
                self.record.fail(&Failure::new(cause, error.to_string()));
            }
            Ended::Recv(error) => self.record.fail(&failure_of(&error)),
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let (request, response) = (self.request.load(Ordering::Relaxed), self.response.load(Ordering::Relaxed));
        self.record.passed(request, response);
    }
}
