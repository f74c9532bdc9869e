//! A flow of datagrams that a sibling asks for. spec: FL-46, ST-70 to ST-77

use http::StatusCode;
use tracing::debug;

use crate::fleet::hop::find::FindHere;
use crate::fleet::hop::raw::NotOpened;
use crate::fleet::hop::served::Served;
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::StreamCode;
use crate::protocol::fleet::Route;
use crate::protocol::limits::MAX_DURATION;
use crate::proxy::datagrams::admits;
use crate::proxy::flow::head;
use crate::proxy::{MAX_ATTEMPTS, Record, is_unprocessed};
use crate::shares::Meter;
use crate::telemetry::{Direction, FlowMetrics};
use crate::transport::{Flow, FlowArrival, FlowRecv, FlowSend, OpenError, RawError, SendError};

/// Passes datagrams both ways until either end is over.
pub(super) async fn relay(served: &Served, route: &Route, mut arrival: FlowArrival) {
    let (service, client) = (arrival.service.clone(), arrival.client);
    let mut record = served.recorder.begin(&head(&service), None);
    record.asked(&route.tenant, &route.host_id, Some(&service));
    let opening = async {
        let mut find = FindHere::new(&*served.tunnels, route, Some(&service));
        let (mut avoid, mut last) = (Vec::new(), OpenError::NotHere);
        while avoid.len() < MAX_ATTEMPTS
            && let Ok(tunnel) = find.pick(&avoid)
        {
            avoid.push(tunnel.id());
            record.attempt(&tunnel);
            // It takes its part of the shares of tenant and node itself.
            match tunnel.open_flow_for(&service, client).await {
                Ok(flow) => return Ok(flow),
                Err(error) if is_unprocessed(&error) || is_of_tunnel(&error) => last = error,
                Err(error) => return Err(NotOpened::new(error, true)),
            }
        }
        Err(NotOpened::new(last, find.has_found()))
    };
    match arrival.connecting(opening).await {
        None => debug!("nobody waits for the flow any more"),
        Some(Ok(flow)) => pass(arrival, flow, record, served.recorder.flows()).await,
        Some(Err(not_opened)) => match not_opened.told(&mut record) {
            // Whoever has gone needs no answer.
            Ok((cause, reason)) => drop(arrival.refuse(cause, &reason).await),
            Err(code) => arrival.reset(code),
        },
    }
}

/// Another tunnel may be better.
const fn is_of_tunnel(error: &OpenError) -> bool {
    matches!(error, OpenError::Flows(_) | OpenError::TunnelLost(_))
}

async fn pass(arrival: FlowArrival, flow: Flow, mut record: Record, flows: &FlowMetrics) {
    let sibling = match arrival.accept().await {
        // How long it may rest is for its ends to say.
        Ok(sibling) => sibling.idle_after(MAX_DURATION),
        Err(error) => return debug!(%error, "nobody waits for the flow any more"),
    };
    record.responded(StatusCode::OK);
    let flow = flow.idle_after(MAX_DURATION);
    let _open = flows.open();
    let meter = flow.meter();
    let told = (flows, meter.as_ref());
    let (mut there, mut back) = (Carried::new(Direction::Request), Carried::new(Direction::Response));
    let ended = {
        let (mut sibling_recv, mut tunnel_send) = (sibling.recv, Some(flow.send));
        let (mut tunnel_recv, mut sibling_send) = (flow.recv, Some(sibling.send));
        let ended = tokio::select! {
            ended = there.carry(&mut sibling_recv, &mut tunnel_send, told) => ended,
            ended = back.carry(&mut tunnel_recv, &mut sibling_send, told) => ended,
        };
        if let Err(Ended::Recv(error)) = &ended
            && let Some(code) = cut(error)
        {
            tunnel_send.into_iter().chain(sibling_send).for_each(|send| send.reset(code));
        }
        ended
    };
    record.passed(there.bytes, back.bytes);
    match ended {
        Ok(()) => record.complete(),
        Err(ended) => record.fail(&ended.failure()),
    }
}

/// How the other end hears of it. spec: ST-75, ST-77
const fn cut(error: &RawError) -> Option<StreamCode> {
    match error {
        RawError::Cut | RawError::Reset(StreamCode::Truncated) => Some(StreamCode::Truncated),
        RawError::Reset(StreamCode::NoError | StreamCode::Cancelled) => None,
        RawError::TunnelLost(_) => Some(StreamCode::TunnelLost),
        _ => Some(StreamCode::Internal),
    }
}

/// What went in one direction.
struct Carried {
    direction: Direction,
    bytes: u64,
}

/// What ended a direction otherwise than well.
enum Ended {
    Recv(RawError),
    Send(SendError),
}

impl Ended {
    fn failure(&self) -> Failure {
        let (cause, text) = match self {
            Self::Recv(error @ RawError::TunnelLost(_)) => (Cause::TunnelLost, error.to_string()),
            Self::Recv(error @ (RawError::Cut | RawError::Reset(StreamCode::Truncated))) => {
                (Cause::TargetRefused, error.to_string())
            }
            Self::Recv(error) => (Cause::PeerReset, error.to_string()),
            Self::Send(error @ SendError::Lost(_)) => (Cause::TunnelLost, error.to_string()),
            Self::Send(error) => (Cause::PeerReset, error.to_string()),
        };
        Failure::new(cause, text)
    }
}

impl Carried {
    const fn new(direction: Direction) -> Self {
        Self { direction, bytes: 0 }
    }

    /// Hands on what comes until it ends. The sender is taken out while it sends: cut in the middle it is of no use.
    async fn carry(
        &mut self,
        recv: &mut FlowRecv,
        send: &mut Option<FlowSend>,
        (flows, meter): (&FlowMetrics, Option<&Meter>),
    ) -> Result<(), Ended> {
        loop {
            let datagram = match recv.recv().await {
                Ok(Some(datagram)) => datagram,
                Ok(None) | Err(RawError::Reset(StreamCode::NoError | StreamCode::Cancelled)) => return Ok(()),
                Err(error) => return Err(Ended::Recv(error)),
            };
            let length = datagram.len();
            if !admits(meter, length, flows) {
                continue;
            }
            let Some(mut sending) = send.take() else { return Ok(()) };
            match sending.send(datagram).await {
                Ok(()) => {}
                Err(SendError::Stopped(StreamCode::NoError | StreamCode::Cancelled)) => return Ok(()),
                Err(error) => return Err(Ended::Send(error)),
            }
            *send = Some(sending);
            self.bytes += length as u64;
            flows.passed(self.direction);
        }
    }
}
